"""The tables of a study on its page."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from multipert.evaluation import METRICS, STUDY, Metric
from multipert.evaluation.trust import ROUNDING
from multipert.report.numbers import ARROWS, BETTER, DASH, number, shared_decimals
from multipert.report.summary import CEILING, FLOOR, MEAN_RESPONSE, DatasetSummary

BOUND_NOTES = {
    FLOOR: "no change: the control cells as they are",
    MEAN_RESPONSE: "what other contexts do on average",
    CEILING: "half the true cells for the other half",
}


MAP_CELLS = 60
"""Scores in a table by context or perturbation up to which there is one for each metric."""
PERTURBATIONS_SHOWN = 24
"""Perturbations in a table of their own; of more, those farthest from control."""


@dataclass(frozen=True)
class Column:
    """A metric at the head of a column: the order a first click sorts in, and why it says nothing on these cells."""

    name: str
    arrow: str
    better: str
    meaning: str
    first: str
    cannot_tell: str

    @classmethod
    def of(cls, metric: Metric, cannot_tell: str = "") -> "Column":
        """The head of a metric's column."""
        first = "descending" if metric.better == "high" else "ascending"
        return cls(metric.name, ARROWS[metric.better], BETTER[metric.better], metric.meaning, first, cannot_tell)


@dataclass(frozen=True)
class Cell:
    """A score: as printed, as sorted, its spread over seeds, whether it is the best, why there is none, if it tells."""

    text: str
    key: str
    spread: str
    best: bool
    missing: str
    dull: bool


@dataclass(frozen=True)
class Normalised:
    """A normalised score: as printed, as sorted, and the part of a bar it fills, 0 to 1."""

    text: str
    key: str
    filled: float
    lost: bool


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard: who, how far, and each score."""

    name: str
    family: str
    note: str
    normalised: Normalised | None
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Leaderboard:
    """Models from the best to the worst, and the bounds."""

    caption: str
    columns: Sequence[Column]
    judged: int | None
    models: Sequence[Entry]
    bounds: Sequence[Entry]
    missing: Sequence[str]


@dataclass(frozen=True)
class HeatCell:
    """A score in a context: its normalised score colours it."""

    text: str
    key: str
    normalised: float
    lost: bool
    best: bool


@dataclass(frozen=True)
class HeatMap:
    """One metric: a row for each model, a column for each context, the mean last; floor and ceiling below."""

    caption: str
    metric: str
    first: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[HeatCell]]]
    bounds: Sequence[tuple[str, Sequence[str]]]


def normalised(value: float) -> Normalised:
    """Make a normalised score printable."""
    if not np.isfinite(value):
        return Normalised(DASH, "", 0.0, lost=False)
    text = number(100 * value, 0)
    return Normalised(f"{text}%", repr(float(value)), float(np.clip(value, 0, 1)), lost=value < 0 and text != "0")


def leaderboards(summary: DatasetSummary) -> list[Leaderboard]:
    """Make the table with the judging metric and the study's nine, and the one with all others."""
    main = _main_metrics(summary)
    others = [name for name in summary.distinct_metrics if name not in main]
    where = f"{summary.card.name}, mean over {'all that is held out' if summary.card.unseen else 'held-out contexts'}"
    tables = [leaderboard(summary, main, f"Leaderboard of {where}", judged=True)]
    return tables + ([leaderboard(summary, others, f"More metrics of {where}", judged=False)] if others else [])


def leaderboards_by_kind(summary: DatasetSummary) -> list[Leaderboard]:
    """Make the first table again for each kind of what is held out, where there are several: they are not alike."""
    return [
        leaderboard(of, _main_metrics(of), f"Leaderboard of {of.card.name} by kind: {kind}", judged=True)
        for kind, of in summary.kinds.items()
        if of.trials
    ]


def _main_metrics(summary: DatasetSummary) -> list[str]:
    judge = summary.metric
    return [judge, *(name for name in summary.distinct_metrics if name in STUDY and name != judge)]


def heat_maps(summary: DatasetSummary) -> tuple[list[HeatMap], list[HeatMap]]:
    """Make the tables by context and by perturbation: of the judging metric and of shared genes, and of all others.

    There is none for one context, or for one perturbation; the others are made where they are small.
    """
    shown: list[HeatMap] = []
    others: list[HeatMap] = []
    contexts, far = list(summary.card.held_out), summary.strongest(PERTURBATIONS_SHOWN)
    which = "every perturbation" if len(far) == len(summary.card.perturbations) else f"{len(far)} perturbations"
    held_out = "for all that is held out" if summary.card.unseen else "in every held-out context"
    levels = (("held_out", contexts, held_out), ("perturbation", far, f"for {which}"))
    for level, columns, where in levels:
        if len(columns) < 2:
            continue
        main = [summary.metric, "degs"] if level == "held_out" else [summary.metric]
        for metric in dict.fromkeys([*main, *summary.distinct_metrics]):
            if metric not in summary.metrics or (metric not in main and len(columns) * len(summary.models) > MAP_CELLS):
                continue
            caption = f"{metric} of every model {where} of {summary.card.name}"
            (shown if metric in main else others).append(heat_map(summary, metric, level, columns, caption))
    return shown, others


def _with_kind(summary: DatasetSummary, held_out: str) -> str:
    """What is held out, and, where it is no context, what of it training never saw."""
    kind = summary.card.unseen.get(held_out)
    return held_out if kind is None else f"{held_out} ({kind})"


def heat_map(summary: DatasetSummary, metric: str, level: str, columns: Sequence[str], caption: str) -> HeatMap:
    """Make the table of one metric by model and by some contexts (or perturbations), and the mean over all."""
    table = summary.by(level, metric).loc[list(columns)]
    table.loc["mean"] = summary.means[metric]
    table.loc["mean", list(summary.incomplete)] = np.nan
    normalised, tells = summary.normalise(table, metric), metric not in summary.cannot_tell
    decimals = shared_decimals(table.to_numpy().ravel())
    whole = [label for label in summary.models if label not in summary.incomplete]
    short = pd.DataFrame(METRICS[metric].shortfall(table[whole].to_numpy()), table.index, whole)
    best = short.min(axis=1).where((short.nunique(axis=1) > 1) & tells)
    return HeatMap(
        caption,
        metric,
        "descending" if METRICS[metric].better == "high" else "ascending",
        [_with_kind(summary, str(name)) if level == "held_out" else str(name) for name in table.index],
        [
            (
                label,
                "not compared" if label in summary.incomplete else "",
                [
                    HeatCell(
                        number(value, decimals),
                        _key(metric, value),
                        0.0 if np.isnan(part) or not tells else float(np.clip(part, -1, 1)),
                        tells and bool(part < -ROUNDING),
                        label in short and bool(short.at[row, label] == best[row]),
                    )
                    for row, value, part in zip(table.index, table[label], normalised[label], strict=True)
                ],
            )
            for label in summary.ranking
        ],
        [(bound.replace("_", " "), [number(value, decimals) for value in table[bound]]) for bound in _bounds(summary)],
    )


def leaderboard(summary: DatasetSummary, metrics: Sequence[str], caption: str, *, judged: bool) -> Leaderboard:
    """Make a table of models and bounds: rows sorted by the judging metric, which comes first where ``judged``."""
    cells = {metric: _cells(summary, METRICS[metric]) for metric in metrics}

    def entry(name: str, family: str, note: str, score: float) -> Entry:
        scores, shown = [cells[metric][name] for metric in metrics], normalised(score) if judged else None
        return Entry(name.replace("_", " ") if name in BOUND_NOTES else name, family, note, shown, scores)

    bounds, at = _bounds(summary), {summary.better_floor: 0.0, CEILING: 1.0}
    missing = (cell.missing for column in cells.values() for cell in column.values() if cell.missing)
    return Leaderboard(
        caption,
        [Column.of(METRICS[metric], summary.cannot_tell.get(metric, "")) for metric in metrics],
        0 if judged else None,
        [
            entry(label, summary.models[label].family, _note(summary, label), summary.normalised[label])
            for label in summary.ranking
        ],
        [entry(bound, "", BOUND_NOTES[bound], at.get(bound, np.nan)) for bound in bounds],
        list(dict.fromkeys(missing)),
    )


def _bounds(summary: DatasetSummary) -> list[str]:
    """The bounds that were measured: there is no mean response where nothing is learnt from other contexts."""
    return [bound for bound in BOUND_NOTES if bound != MEAN_RESPONSE or np.isfinite(summary.mean(bound))]


def _cells(summary: DatasetSummary, metric: Metric) -> dict[str, Cell]:
    """A column, by label; models that are not to be compared, and bounds, cannot be the best."""
    means = {str(label): float(mean) for label, mean in summary.means[metric.name].items()}
    short = {label: float(metric.shortfall(np.array(mean))) for label, mean in means.items()}
    rivals = [short[label] for label in summary.models if label not in summary.incomplete and np.isfinite(means[label])]
    # Where all score the same, or the metric cannot tell, none is the best.
    best = min(rivals) if len(set(rivals)) > 1 and metric.name not in summary.cannot_tell else np.nan
    decimals = shared_decimals(means.values())

    def cell(label: str, mean: float) -> Cell:
        spread = summary.deviation(label, metric.name)
        fit = label in summary.models and label not in summary.incomplete
        return Cell(
            number(mean, decimals),
            _key(metric.name, mean),
            f"± {number(spread, decimals)}" if np.isfinite(spread) else "",
            fit and short[label] == best,
            _missing(mean),
            metric.name in summary.cannot_tell,
        )

    return {label: cell(label, mean) for label, mean in means.items()}


def _missing(value: float) -> str:
    if np.isnan(value):
        return "undefined: the metric has nothing to measure here"
    if np.isinf(value):
        return "infinite: a ratio to a distance of zero, as for a prediction that does not move from control"
    return ""


def _note(summary: DatasetSummary, label: str) -> str:
    """The family, and what of a model is missing."""
    family = summary.models[label].family
    lacking = summary.lacking.get(label, 0)
    if not lacking:
        return family
    asked = summary.asked(label)
    apart = ", not compared" if label in summary.incomplete else ""
    return f"{family}; {asked - lacking} of {asked} trials{apart}"


def _key(metric: str, value: float) -> str:
    """What a score is sorted by."""
    if not np.isfinite(value):
        return ""
    return repr(float(abs(value - 1) if METRICS[metric].better == "one" else value))
