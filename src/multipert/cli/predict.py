"""``multipert predict``: perturbed cells from control cells."""

from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that fit wrote.")],
    cells: Annotated[Path, typer.Option("--cells", metavar="CELLS.h5ad", help="Control cells of any context.")],
    perturbation: Annotated[str, typer.Option("--perturbation", metavar="NAME[@DOSE]", help="What to apply.")],
    out: Annotated[Path, typer.Option("--out", metavar="PRED.h5ad", help="Where the predicted cells go.")],
    missing_genes: Annotated[
        str, typer.Option("--missing-genes", help="Genes the cells lack: 'error', or 'zero' to take them as zero.")
    ] = "error",
) -> None:
    """Predict how control cells would look under a perturbation."""
    from multipert.data import check_writable, write_h5ad
    from multipert.models import load

    check_writable(out)
    predicted = load(run).predict(cells, perturbation, missing_genes=missing_genes)
    write_h5ad(predicted, out)
    print(f"{predicted.n_obs:,} cells x {predicted.n_vars:,} genes under {perturbation}; written to {out}")
