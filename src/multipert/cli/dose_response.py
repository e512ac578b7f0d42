"""``multipert dose-response``: curves of genes along doses, and the dose of half the effect."""

from pathlib import Path
from typing import Annotated

import typer

from multipert.cli.keys import MissingGenes
from multipert.cli.rank import Level, Runs


def dose_response(
    runs: Runs,
    cells: Annotated[Path, typer.Option("--cells", metavar="CELLS", help="Control cells at dose 0, h5ad or zarr.")],
    gene: Annotated[list[str], typer.Option("--gene", metavar="GENE", help="Whose curve; repeatable.")],
    compound: Annotated[
        str | None, typer.Option("--compound", metavar="NAME", help="Which; the only one by default.")
    ] = None,
    dose: Annotated[
        list[float] | None,
        typer.Option(
            "--dose",
            metavar="D",
            help="A dose of the curve; repeatable. By default 25 from the lowest to the highest that was measured, of "
            "a model that was told of doses (fit --features dose); of another those that were measured.",
        ),
    ] = None,
    level: Level = 0.9,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="CURVES.csv", help="Where the curves go; the EC50s go to CURVES.ec50.csv."),
    ] = None,
    missing_genes: MissingGenes = "error",
) -> None:
    """Print the dose of half the largest predicted change (EC50) of genes, with its interval."""
    from multipert.cli.tables import print_rows
    from multipert.data import check_ending, check_writable, write_text
    from multipert.models import dose_response as along_doses
    from multipert.models import load

    if out is not None:
        check_ending(out, [".csv"])
        check_writable(out, inputs=[cells])
    curves, ec50 = along_doses(
        [load(run) for run in runs],
        cells,
        list(dict.fromkeys(gene)),
        compound=compound,
        doses=sorted(set(dose)) if dose else None,
        level=level,
        missing_genes=missing_genes,
    )
    doses = sorted(set(curves["dose"]))
    print_rows(ec50, f"dose of half the largest change, along {len(doses)} doses from {doses[0]:g} to {doses[-1]:g}")
    if out is not None:
        write_text(out, curves.to_csv(index=False))
        beside = out.with_suffix(f".ec50{out.suffix}")
        write_text(beside, ec50.to_csv())
        print(f"written to {out}, the doses of half the change to {beside}")
