"""``multipert evaluate``: score a prediction against the truth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multipert.cli.keys import CountsLayer

if TYPE_CHECKING:
    import pandas as pd


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
    mean_response: Annotated[
        Path | None,
        typer.Option(
            "--mean-response",
            metavar="M.h5ad",
            help="What anyone would predict from the other contexts (the prediction of a mean-shift run): "
            "the second floor.",
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="Which metrics: default, study (its nine) or vcc2026 (six, of raw counts).")
    ] = "default",
    counts_layer: CountsLayer = None,
    intervals: Annotated[
        int, typer.Option("--intervals", metavar="N", help="Bootstrap draws for 95 % intervals, 200 say; 0 for none.")
    ] = 0,
    on_disk: Annotated[
        bool | None,
        typer.Option(
            "--on-disk/--in-memory",
            help="Read only a sample of each file, 10,000 cells of a perturbation; by default where all would take up "
            "much of the memory.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Score predicted cells against true ones, between doing nothing and a replicate.

    Of several perturbations the means are shown, and the worst and best five; --out holds them all.
    """
    from multipert.cli.tables import print_combined, print_legend, print_scorecard, print_summary, print_trust
    from multipert.data import check_ending, check_writable, write_text
    from multipert.evaluation import scorecard
    from multipert.evaluation.profiles import find_profile

    if out is not None:
        check_ending(out, [".csv"])
        check_writable(out, inputs=[control, truth, predicted, *([mean_response] if mean_response is not None else [])])
    card = scorecard(
        control=control,
        truth=truth,
        predicted=predicted,
        perturbation_key=perturbation_key,
        mean_response=mean_response,
        profile=profile,
        counts_layer=counts_layer,
        intervals=intervals,
        on_disk=on_disk,
    )
    if find_profile(profile).combined:
        print_combined(card, profile)
        if out is not None:
            write_text(out, _combined_row(card, profile).to_csv(index=False))
            print(f"written to {out}")
        return
    if perturbation_key is None:
        print_scorecard(card)
    else:
        print_summary(card)
    print_legend(mean_response is not None)
    print_trust(card)
    if out is not None:
        write_text(out, _as_rows(card, perturbation_key).to_csv(index=perturbation_key is not None))
        notes = out.with_suffix(f".notes{out.suffix}")
        write_text(notes, card[["drf", "bds", "can_tell", "note"]].to_csv())
        print(f"written to {out}, and what must be said beside the scores to {notes}")


def _as_rows(card: "pd.DataFrame", perturbation_key: str | None) -> "pd.DataFrame":
    """A row for each perturbation: the scores, then their bounds and what these make of them."""
    import pandas as pd

    def rows(column: str) -> pd.DataFrame:
        one = card[column]
        return one.unstack(sort=False) if perturbation_key is not None else one.to_frame().T.reset_index(drop=True)

    bounds = [name for name in ("low", "high", "floor", "mean_response", "ceiling", "normalised") if name in card]
    known = [name for name in bounds if card[name].notna().any()]
    return pd.concat([rows("score"), *(rows(name).add_suffix(f"_{name}") for name in known)], axis=1)


def _combined_row(card: "pd.DataFrame", profile: str) -> "pd.DataFrame":
    """One row for the context: its scores, their bounds, and what they combine to."""
    import pandas as pd

    ends = ("mean_response", "ceiling", "normalised")
    row: pd.Series[float] = pd.concat([card["score"], *(card[end].add_suffix(f"_{end}") for end in ends)])
    row[profile] = card.attrs["score"]
    return row.to_frame().T
