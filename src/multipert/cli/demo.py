"""``multipert demo``: the whole way on simulated cells, from counts to a page."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for everything it makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 1,
) -> None:
    """Simulate cells, train mtcell with one cell type held out, predict it, score it, and write a page to open."""
    from multipert.benchmark import results_of_run
    from multipert.cli.tables import print_scores
    from multipert.data import PerturbationData, leave_context_out, simulate, write_cells, write_text
    from multipert.models import create
    from multipert.models.run_folder import check_free
    from multipert.report import study_page

    check_free(out / "run")
    # A response as clear as a cytokine's, most of it shared by all cell types.
    adata = simulate(response=2.0, context_specific=0.3, seed=seed)
    write_cells(adata, out / "cells.h5ad")
    data = PerturbationData.from_anndata(
        adata, perturbation_key="condition", control="control", context_key="cell_type"
    )
    held_out = data.contexts[0]
    print(f"{data}\nheld out: the perturbed cells of {held_out}")
    split = leave_context_out(data, held_out)
    model = create("mtcell", seed=seed).fit(data, split, run=out / "run", progress=True)
    control = data.to_anndata(data.rows(condition=data.control, context=held_out))
    for perturbation in data.perturbations:
        write_cells(model.predict(control, perturbation), out / f"predicted_{perturbation}.h5ad")
    results = results_of_run(
        model,
        data,
        split,
        name="demo",
        source="simulated cells",
        announce=lambda line: print(line, file=sys.stderr),
    )
    print_scores(results)
    write_text(out / "report.html", study_page(results))
    print(f"\nOpen the report: {(out / 'report.html').resolve()}")
