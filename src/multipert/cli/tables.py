"""Scores as tables on a terminal."""

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
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


def print_scorecard(card: pd.DataFrame) -> None:
    """Print every score between its bounds, marked where doing nothing would have been better."""
    console = standard_output()
    table, columns = _bounded(card)
    for name, row in card[_shown(card)].iterrows():
        worse = row["worse_than_doing_nothing"]
        mark = "worse than doing nothing" if not pd.isna(worse) and worse else ""
        _add_row(table, _cells(str(name), row, columns), mark, can_tell=bool(row["can_tell"]))
    console.print(table)
    _print_notes(console, {str(name): str(note) for name, note in card["note"].items()})


def print_trust(card: pd.DataFrame) -> None:
    """Print whether the prediction can be trusted: the answer, and a line for each side of it."""
    from multipert.evaluation.trust import trust

    console = standard_output()
    found = trust(card)
    console.print(f"[bold]Can it be trusted? {escape(found.answer)}[/] {escape(found.because)}", soft_wrap=True)
    for aspect in found.aspects:
        console.print(f"  {_SIGNS[aspect.state]} {aspect.name}: {escape(aspect.text)}", soft_wrap=True)


_SIGNS = {"right": "✓", "partly": "≈", "wrong": "✗", "unknown": "?"}


def print_summary(card: pd.DataFrame) -> None:
    """Print the scores of several perturbations: means over them, then the worst and the best few."""
    from multipert.evaluation import METRICS, between_bounds

    console = standard_output()
    by_metric = card.groupby(level="metric", sort=False)
    means = between_bounds(by_metric[["score", "floor", "mean_response", "ceiling"]].mean())
    n = card.index.get_level_values(0).nunique()
    table, columns = _bounded(means, title=f"means over {n} perturbations")
    can_tell = {str(name): bool(cells.any()) for name, cells in by_metric["can_tell"]}
    worse = {str(name): int(marks.sum()) for name, marks in by_metric["worse_than_doing_nothing"]}
    for name, row in means[_shown(means)].iterrows():
        n_worse = worse[str(name)]
        mark = f"{n_worse} worse than doing nothing" if n_worse else ""
        _add_row(table, _cells(str(name), row, columns), mark, can_tell=can_tell[str(name)])
    console.print(table)
    _print_notes(console, {str(name): _most_frequent(list(notes)) for name, notes in by_metric["note"]})
    judge = next((name for name in _JUDGES if name in means.index), str(means.index[0]))
    scores = card.xs(judge, level="metric")
    order = np.argsort(METRICS[judge].shortfall(scores["score"].to_numpy(dtype=np.float64)), kind="stable")
    order = order[~np.isnan(scores["score"].to_numpy(dtype=np.float64)[order])]
    ends = {"best": order[:_ENDS], "worst": order[::-1][:_ENDS]} if len(order) > 2 * _ENDS else {"best to worst": order}
    for which, rows in ends.items():
        some = scores.iloc[rows]
        table, columns = _bounded(some, title=f"{which} by {judge}", first=str(card.index.names[0]))
        for name, row in some.iterrows():
            marked = row["worse_than_doing_nothing"]
            mark = "worse than doing nothing" if not pd.isna(marked) and marked else ""
            _add_row(table, _cells(str(name), row, columns, metric=judge), mark, can_tell=bool(row["can_tell"]))
        console.print(table)


_BOUNDED = ("score", "low", "high", "floor", "mean_response", "ceiling", "normalised")
_ENDS = 5
_JUDGES = ("edist", "pearson_delta")
"""What perturbations are ordered by, as far as it was scored."""


def _bounded(card: pd.DataFrame, *, title: str | None = None, first: str = "metric") -> tuple[Table, list[str]]:
    """Begin a table of scores and bounds; those that were not measured are left out."""
    columns = [column for column in _BOUNDED if column in card and (column == "score" or card[column].notna().any())]
    table = Table(first, "better", box=None, pad_edge=False, title=title, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    table.add_column("")
    return table, columns


def _cells(name: str, row: "pd.Series[Any]", columns: list[str], *, metric: str | None = None) -> list[str]:
    from multipert.evaluation import METRICS

    values = [_share(row[column]) if column == "normalised" else number(row[column]) for column in columns]
    return [name, _ARROWS[METRICS[metric or name].better], *values]


def _add_row(table: Table, cells: Sequence[str], mark: str, *, can_tell: bool) -> None:
    """Add a row, dimmed where the metric cannot tell."""
    table.add_row(*cells, mark if can_tell else "cannot tell here", style=None if can_tell else "dim")


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"


def _shown(card: pd.DataFrame) -> list[bool]:
    """Leave out a metric that is another one's number."""
    from multipert.evaluation import METRICS

    return [METRICS[str(name)].same_as not in card.index for name in card.index]


def _most_frequent(notes: Sequence[str]) -> str:
    """What is said beside most of the scores that something is said of, and of how many."""
    said = Counter(note for note in notes if note)
    if not said:
        return ""
    note, times = said.most_common(1)[0]
    return note if times == len(notes) else f"{note} ({times} of {len(notes)})"


def _print_notes(console: Console, notes: Mapping[str, str]) -> None:
    """Print each note once, after the metrics it belongs to."""
    by_note: dict[str, list[str]] = {}
    for metric, note in notes.items():
        for part in note.split("; "):
            if not part.startswith("cannot tell here"):  # the table says that
                by_note.setdefault(part, []).append(metric)
    for note, metrics in by_note.items():
        if note:
            console.print(f"{', '.join(metrics)}: {note}")


def print_combined(card: pd.DataFrame, profile: str) -> None:
    """Print the scores of a profile that combine to one, between the mean response and a replicate."""
    from multipert.evaluation.vcc2026 import VCC2026

    columns = ("score", "mean_response", "ceiling", "normalised")
    table = Table("metric", "better", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for name, row in card.iterrows():
        arrow = _ARROWS["high" if VCC2026[str(name)].better == "high" else "low"]
        table.add_row(str(name), arrow, *(number(row[column]) for column in columns))
    table.add_row(profile, "", "", "", "", number(card.attrs["score"]), style="bold")
    console = standard_output()
    console.print(table)
    for metric, note in card["note"].items():
        if note:
            console.print(f"{metric}: {note}")
    console.print(
        "normalised: 0 at the mean response, 1 at a replicate (halves of the true cells, each with\n"
        f"its own half of the controls).  {profile}: the mean of the six."
    )


def print_legend(has_mean_response: bool = False) -> None:
    """Print how to read a scorecard."""
    lines = ["floor: predicting no change.  ceiling: half of the true cells as the prediction of the other half."]
    if has_mean_response:
        lines.append("mean response: what anyone would predict from other contexts.")
    better = "the better of floor and mean response" if has_mean_response else "floor"
    lines.append(f"normalised: share of the way from {better} to ceiling; none where a replicate is no better.")
    lines.append("cannot tell here: the metric does not tell a replicate from a guess on these cells; do not cite it.")
    standard_output().print("\n".join(lines))


def print_scores(results: "StudyResults") -> None:
    """Print the study's metrics of every model and bound, perturbation by perturbation."""
    from multipert.evaluation import METRICS, STUDY

    console = standard_output()
    both = pd.concat([results.scores, results.bounds])
    metrics = [name for name in STUDY if METRICS[name].same_as not in STUDY]
    for (perturbation, held_out), rows in both.groupby(["perturbation", "held_out"], sort=False):
        table = Table("", box=None, pad_edge=False, title=f"{perturbation} in {held_out}", title_justify="left")
        for name in metrics:
            table.add_column(f"{name} {_ARROWS[METRICS[name].better]}", justify="right", no_wrap=True)
        for _, row in rows.iterrows():
            table.add_row(str(row["label"]), *(number(row[name]) for name in metrics))
        console.print(table)


def print_rows(rows: pd.DataFrame, title: str) -> None:
    """Print a title and a table as it is, numbers in a few digits."""
    table = Table(*map(str, rows.index.names), box=None, pad_edge=False)
    for column in rows:
        table.add_column(str(column), justify="right" if pd.api.types.is_numeric_dtype(rows[column]) else "left")
    for label, row in rows.iterrows():
        labels = label if isinstance(label, tuple) else (label,)
        table.add_row(*map(str, labels), *(number(v) if isinstance(v, float) else str(v) for v in row))
    console = standard_output()
    console.print(title, style="italic")
    console.print(table)
