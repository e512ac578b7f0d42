"""Scores as a table to read: rounded alike, the best marked, what is no number explained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from multipert.evaluation import METRICS, STUDY, Metric

ARROWS = {"high": "↑", "low": "↓", "one": "→ 1"}
BETTER = {"high": "higher is better", "low": "lower is better", "one": "the nearer to 1 the better"}
DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def number(value: float, decimals: int | None = None) -> str:
    """Print a number: three digits that matter unless told otherwise, a dash where there is none."""
    if not np.isfinite(value):
        return DASH
    if decimals is None:
        decimals = shared_decimals([value])
    if decimals > 5:
        return f"{value:.2e}".replace("-", _MINUS)
    text = f"{value:,.{decimals}f}"
    # Nothing is left of a small negative number: its sign would only puzzle.
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", _MINUS)


def shared_decimals(values: Iterable[float]) -> int:
    """Choose decimals that leave three digits to a typical value of a column; none where all are whole."""
    sizes = np.abs([value for value in values if np.isfinite(value) and value != 0])
    if len(sizes) == 0 or np.all(sizes == np.round(sizes)):
        return 0
    return max(0, 2 - int(np.floor(np.log10(np.median(sizes)))))


@dataclass(frozen=True)
class Column:
    """A metric at the head of a column; ``first`` is the order a first click sorts in."""

    name: str
    arrow: str
    better: str
    meaning: str
    first: str


@dataclass(frozen=True)
class Cell:
    """A score: as printed, as sorted, whether it is the best of the methods, and why there is none."""

    text: str
    key: str
    best: bool
    missing: str


@dataclass(frozen=True)
class Row:
    """A method and its scores."""

    name: str
    note: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class ScoreTable:
    """A table of scores: the methods, and the bound above them."""

    caption: str
    columns: Sequence[Column]
    methods: Sequence[Row]
    bounds: Sequence[Row]

    @property
    def missing(self) -> list[str]:
        """Why some scores are no numbers, each reason once."""
        cells = (cell for row in (*self.methods, *self.bounds) for cell in row.cells)
        return list(dict.fromkeys(cell.missing for cell in cells if cell.missing))


def score_tables(scores: pd.DataFrame, notes: dict[str, str], bounds: Sequence[str], caption: str) -> list[ScoreTable]:
    """Put the study's metrics in one table and ours in another.

    Parameters
    ----------
    scores
        A row for each method and each bound; a column for each metric.
    notes
        A remark on a row, by its name.
    bounds
        The rows that are no methods: they cannot be the best.
    caption
        What the scores are of.
    """
    names = [str(column) for column in scores.columns]
    parts = {
        "the nine metrics of the study": [name for name in names if name in STUDY],
        "metrics beyond the study": [name for name in names if name not in STUDY],
    }
    return [_table(scores[part], notes, bounds, f"{caption}: {which}") for which, part in parts.items() if part]


def _table(scores: pd.DataFrame, notes: dict[str, str], bounds: Sequence[str], caption: str) -> ScoreTable:
    methods = [str(row) for row in scores.index if row not in bounds]
    columns = {str(name): _cells(METRICS[str(name)], scores[name], methods) for name in scores.columns}
    rows = {
        str(row): Row(str(row), notes.get(str(row), ""), [cells[str(row)] for cells in columns.values()])
        for row in scores.index
    }
    return ScoreTable(
        caption,
        [_column(METRICS[name]) for name in columns],
        [rows[name] for name in methods],
        [row for name, row in rows.items() if name in bounds],
    )


def _column(metric: Metric) -> Column:
    first = "descending" if metric.better == "high" else "ascending"
    return Column(metric.name, ARROWS[metric.better], BETTER[metric.better], metric.meaning, first)


def _cells(metric: Metric, scores: "pd.Series[float]", methods: Sequence[str]) -> dict[str, Cell]:
    values = {str(row): float(score) for row, score in scores.items()}
    shortfall = dict(zip(values, metric.shortfall(np.array(list(values.values()))), strict=True))
    rivals = [shortfall[row] for row in methods if np.isfinite(values[row])]
    # Where all methods score the same, none is the best.
    best = min(rivals) if len(set(rivals)) > 1 else np.nan
    decimals = shared_decimals(values.values())
    return {
        row: Cell(
            number(value, decimals),
            repr(float(abs(value - 1) if metric.better == "one" else value)) if np.isfinite(value) else "",
            row in methods and shortfall[row] == best,
            _missing(value),
        )
        for row, value in values.items()
    }


def _missing(value: float) -> str:
    if np.isnan(value):
        return "undefined: the metric has nothing to measure here"
    if np.isinf(value):
        return "infinite: a ratio to a distance of zero, as for a prediction that does not move from control"
    return ""
