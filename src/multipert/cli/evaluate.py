"""``multipert evaluate``: score a prediction against the truth."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    control: Annotated[Path, typer.Option("--control", metavar="C.h5ad", help="Control cells.")],
    truth: Annotated[Path, typer.Option("--truth", metavar="T.h5ad", help="Truly perturbed cells.")],
    predicted: Annotated[Path, typer.Option("--predicted", metavar="P.h5ad", help="Predicted cells, of any tool.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="SCORES.csv", help="Where the scores go, one row.")
    ] = None,
) -> None:
    """Score predicted cells against true ones, beside doing nothing and the noise ceiling."""
    from multipert.cli.tables import print_scorecard
    from multipert.data import check_writable, write_text
    from multipert.evaluation import scorecard

    if out is not None:
        check_writable(out)
    card = scorecard(control=control, truth=truth, predicted=predicted)
    print_scorecard(card)
    if out is not None:
        write_text(out, card["score"].to_frame().T.to_csv(index=False))
        print(f"written to {out}")
