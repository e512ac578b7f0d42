"""``multipert predict``: perturbed cells from control cells."""

from pathlib import Path
from typing import Annotated

import typer

from multipert.cli.keys import MissingGenes, OnDisk
from multipert.errors import InputError


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that fit wrote.", show_default=False)],
    cells: Annotated[
        Path,
        typer.Option(
            "--cells", metavar="CELLS", help="Control cells of any context, h5ad or zarr: raw counts or log-normalised."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="PRED", help="Where the predicted cells go, h5ad or zarr by its ending.")
    ],
    perturbation: Annotated[
        list[str] | None,
        typer.Option(
            "--perturbation",
            metavar="NAME[@DOSE]",
            help="What to apply; repeat it for several. After a fit with features also A+B or A@DOSE never seen.",
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Apply every perturbation the model knows.")] = False,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="SOURCE=FILE",
            help="What further perturbations are, in a file as fit was given: smiles=more.csv, genes=FILE, table=FILE.",
        ),
    ] = None,
    missing_genes: MissingGenes = "error",
    pilot: Annotated[
        Path | None,
        typer.Option(
            "--pilot", metavar="CELLS", help="A few perturbed cells of the same context, to learn from (mtcell)."
        ),
    ] = None,
    intervals: Annotated[
        float | None,
        typer.Option("--intervals", metavar="P", help="Write intervals that hold each gene's mean so often (mtcell)."),
    ] = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="Write whole counts too, from control cells that bring theirs.")
    ] = False,
    keep_cells: Annotated[
        bool, typer.Option("--keep-cells", help="Take the model's mean alone, and move each control cell to it.")
    ] = False,
    on_disk: OnDisk = None,
) -> None:
    """Predict how control cells would look under one or several perturbations."""
    from multipert.data import ENDINGS, check_ending, check_writable, read_features
    from multipert.models import load

    check_ending(out, ENDINGS)
    check_writable(out, inputs=[cells] if pilot is None else [cells, pilot])
    if bool(perturbation) == all_:
        raise InputError("say what to predict with --perturbation NAME, once or more, or with --all: one of the two")
    model = load(run)
    names = list(model.perturbations) if all_ else list(dict.fromkeys(perturbation or []))
    n_cells, made = model.predict_to(
        out,
        cells,
        names[0] if len(names) == 1 else names,
        features=None if features is None else read_features(features),
        missing_genes=missing_genes,
        pilot=pilot,
        intervals=intervals,
        counts=counts,
        cells="keep" if keep_cells else "model",
        run=run,
        on_disk=on_disk,
    )
    if model.left_out_ is None or not model.left_out_.lost:  # else it was said as a note
        print(made["left_out"])
    under = names[0] if len(names) == 1 else f"each of {len(names)} perturbations"
    n_genes = len(model.metadata_.genes)
    print(f"{n_cells // len(names):,} cells x {n_genes:,} genes under {under}; written to {out}")
