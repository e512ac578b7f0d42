"""The options that several commands share: how cells are to be read, and where work is done."""

from typing import Annotated

import typer

PerturbationKey = Annotated[
    str | None, typer.Option("--perturbation-key", metavar="K", help="Column of obs that names the perturbation.")
]
Control = Annotated[str | None, typer.Option("--control", metavar="LABEL", help="Label of control cells in it.")]
ContextKey = Annotated[
    list[str],
    typer.Option(
        "--context-key",
        metavar="K",
        help="Column of obs that names the context (cell type, species); several together make a context 'a | b'.",
    ),
]
DoseKey = Annotated[
    str | None, typer.Option("--dose-key", metavar="K", help="Column of obs that gives the dose; control is dose 0.")
]
Compound = Annotated[
    str | None, typer.Option("--compound", metavar="NAME", help="The one compound, where only a dose key is given.")
]
CovariateKey = Annotated[
    list[str] | None,
    typer.Option(
        "--covariate-key",
        metavar="K",
        help="Column of obs that names donors or batches: cells are compared with controls of their own.",
    ),
]
Layer = Annotated[str | None, typer.Option("--layer", metavar="NAME", help="Layer to read in place of X.")]
CountsLayer = Annotated[
    str | None,
    typer.Option("--counts-layer", metavar="NAME", help="Layer of raw counts, for models that learn from counts."),
]
OnDisk = Annotated[
    bool | None,
    typer.Option(
        "--on-disk/--in-memory",
        help="Leave cells in their file and read them as they are needed; by default where they would take up much "
        "of the memory.",
        show_default=False,
    ),
]
HoldOut = Annotated[
    str | None, typer.Option("--hold-out", metavar="CONTEXT", help="Hide this context's perturbed cells.")
]
HoldOutCovariate = Annotated[
    str | None,
    typer.Option(
        "--hold-out-covariate",
        metavar="LEVEL",
        help="Hide the perturbed cells of this donor or batch; beside --hold-out, those in that context alone.",
    ),
]
MissingGenes = Annotated[
    str, typer.Option("--missing-genes", help="Genes the cells lack: 'error', or 'zero' to take them as zero.")
]
Features = Annotated[
    str | None,
    typer.Option(
        "--features",
        metavar="SOURCE[=FILE]",
        help="What perturbations are, so that unseen ones can be predicted: dose, members, smiles=drugs.csv, genes, "
        "genes=sets.gmt, genes=FILE or table=FILE (csv, tsv, parquet, npz, cells.h5ad:KEY).",
    ),
]
Workers = Annotated[
    int, typer.Option(metavar="N", min=1, help="Processes on this machine; its GPUs are dealt out to them.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers do the work, such as tcp://node7:8786."),
]


def check_workers(workers: int, scheduler: str | None) -> None:
    """Refuse processes on this machine beside a cluster's."""
    if scheduler is not None and workers != 1:
        raise typer.BadParameter("--workers are processes on this machine; a cluster brings its own: give one of them")
