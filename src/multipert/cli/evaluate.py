"""``multipert evaluate``: score a prediction against the truth."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    control: Annotated[Path, typer.Option("--control", metavar="C.h5ad", help="Control cells.")],
    truth: Annotated[Path, typer.Option("--truth", metavar="T.h5ad", help="Truly perturbed cells.")],
    predicted: Annotated[Path, typer.Option("--predicted", metavar="P.h5ad", help="Predicted cells, of any tool.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="SCORES.csv", help="Where the scores go: a row for a perturbation.")
    ] = None,
    perturbation_key: Annotated[
        str | None,
        typer.Option(
            "--perturbation-key", metavar="K", help="Column of obs that tells several perturbations apart in T and P."
        ),
    ] = None,
    intervals: Annotated[
        int, typer.Option("--intervals", metavar="N", help="Bootstrap draws for 95 % intervals, 200 say; 0 for none.")
    ] = 0,
) -> None:
    """Score predicted cells against true ones, beside doing nothing and the noise ceiling."""
    from multipert.cli.tables import print_legend, print_scorecard
    from multipert.data import check_ending, check_writable, write_text
    from multipert.evaluation import scorecard

    if out is not None:
        check_ending(out, [".csv"])
        check_writable(out, inputs=[control, truth, predicted])
    card = scorecard(
        control=control, truth=truth, predicted=predicted, perturbation_key=perturbation_key, intervals=intervals
    )
    if perturbation_key is None:
        print_scorecard(card)
    else:
        for name in card.index.unique(0):
            print_scorecard(card.loc[name], title=str(name))
    print_legend()
    if out is not None:
        row = card["score"].to_frame().T if perturbation_key is None else card["score"].unstack(sort=False)
        write_text(out, row.to_csv(index=perturbation_key is not None))
        notes = out.with_suffix(f".notes{out.suffix}")
        write_text(notes, card[["drf", "bds", "can_tell", "note"]].to_csv())
        print(f"written to {out}, and what must be said beside the scores to {notes}")
