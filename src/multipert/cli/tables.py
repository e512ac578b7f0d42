"""Scores as tables on a terminal."""

import math
import shutil
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from multipert.benchmark import StudyResults

_ARROWS = {"high": "↑", "low": "↓", "one": "→1"}


def standard_output() -> Console:
    """Standard output; off a terminal, wide enough that no column is cut."""
    console = Console(highlight=False)
    return (
        console if console.is_terminal else Console(highlight=False, width=max(160, shutil.get_terminal_size().columns))
    )


def number(value: float) -> str:
    """A score in a few digits; a dash where there is none."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def print_scorecard(card: pd.DataFrame, *, title: str | None = None) -> None:
    """Print every score between its floor and ceiling, marked where doing nothing would have been better."""
    from multipert.evaluation import METRICS

    table = Table("metric", "better", box=None, pad_edge=False, title=title, title_justify="left")
    measured = [column for column in ("score", "low", "high", "floor", "ceiling") if column in card]
    for column in (*measured, "normalised"):
        table.add_column(column, justify="right")
    table.add_column("")
    for name, row in card.iterrows():
        share = row["normalised"]
        normalised = "-" if math.isnan(share) else f"{share:.0%}"
        worse = row["worse_than_doing_nothing"]
        mark = "worse than doing nothing" if not pd.isna(worse) and worse else ""
        values = [number(row[column]) for column in measured]
        if not row["can_tell"]:
            mark = "cannot tell here"
        style = None if row["can_tell"] else "dim"
        table.add_row(str(name), _ARROWS[METRICS[str(name)].better], *values, normalised, mark, style=style)
    console = standard_output()
    console.print(table)
    for metric, note in card["note"].items():
        if note and not note.startswith("cannot tell here"):
            console.print(f"{metric}: {note}")


def print_legend() -> None:
    """Print how to read a scorecard."""
    standard_output().print(
        "floor: predicting no change.  ceiling: one half of the true cells as the prediction of the other.\n"
        "normalised: share of the way from floor to ceiling.\n"
        "cannot tell here: the metric does not tell a replicate from a guess on these cells; do not cite it."
    )


def print_scores(results: "StudyResults") -> None:
    """Print the study's nine metrics of every model and bound, perturbation by perturbation."""
    from multipert.evaluation import METRICS, STUDY

    console = standard_output()
    both = pd.concat([results.scores, results.bounds])
    for (perturbation, held_out), rows in both.groupby(["perturbation", "held_out"], sort=False):
        table = Table("", box=None, pad_edge=False, title=f"{perturbation} in {held_out}", title_justify="left")
        for name in STUDY:
            table.add_column(f"{name} {_ARROWS[METRICS[name].better]}", justify="right", no_wrap=True)
        for _, row in rows.iterrows():
            table.add_row(str(row["label"]), *(number(row[name]) for name in STUDY))
        console.print(table)
