"""``multipert explain``: which genes a fitted model moves, and by what."""

from pathlib import Path
from typing import Annotated

import typer

from multipert.cli.keys import MissingGenes
from multipert.errors import InputError

UNITS = 10
"""Units that are printed."""


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that fit wrote.", show_default=False)],
    perturbation: Annotated[str, typer.Option("--perturbation", metavar="NAME[@DOSE]", help="What to explain.")],
    cells: Annotated[
        Path | None,
        typer.Option(
            "--cells",
            metavar="CELLS",
            help="Control cells whose response is explained, h5ad or zarr; most networks need some.",
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option("--context", help="In place of --cells, a context of training; by default the held-out one."),
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="Genes to print.")] = 20,
    out: Annotated[Path | None, typer.Option("--out", metavar="GENES.csv", help="Where all genes go.")] = None,
    missing_genes: MissingGenes = "error",
) -> None:
    """Print the genes that a model moves most under a perturbation.

    Of scvidr by its gene scores; of other models by the predicted change of their mean, of mtcell with intervals of
    0.9. Of the multi-task family also the units of the decoder that FiLM steers most.
    """
    from multipert.cli.tables import print_rows
    from multipert.data import check_ending, check_writable, write_text
    from multipert.models import explain, load

    if out is not None:
        check_ending(out, [".csv"])
        check_writable(out, inputs=[] if cells is None else [cells])
    explained = explain(load(run), perturbation, cells, context=context, missing_genes=missing_genes)
    genes, units = explained.genes, explained.units
    if out is not None and genes is None:
        raise InputError("without control cells there are no effects on genes to write: give some with --cells")
    if genes is not None:
        print_rows(genes.head(top), f"{explained.perturbation}, {explained.of}: {len(genes):,} genes, the strongest")
    if units is not None:
        print_rows(units.head(UNITS).set_index(["layer", "unit"]), "units of the decoder that FiLM steers most")
    if genes is None:
        print("Give control cells with --cells for the effects on genes.")
    if out is not None and genes is not None:
        write_text(out, genes.to_csv())
        written = f"written to {out}"
        if units is not None:
            beside = out.with_suffix(f".units{out.suffix}")
            write_text(beside, units.to_csv(index=False))
            written += f", the units to {beside}"
        print(written)
