"""Each metric of every model: across contexts, across perturbations, across doses."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from multipert.benchmark import BOUNDS
from multipert.evaluation import METRICS
from multipert.report.figures.panels import Group, Panel, Section
from multipert.report.figures.style import COLOURS, FAMILIES, PANEL, Floats, dose_axis, mark_of, nice, plain, short
from multipert.report.numbers import ARROWS, number, shared_decimals
from multipert.report.summary import BASELINE, CEILING, FLOOR, MEAN_RESPONSE, DatasetSummary
from multipert.report.svg import INK, house_style

PERTURBATIONS_DRAWN = 24
"""Perturbations that are drawn one by one; of more, those farthest from control."""
SERIES_DRAWN = 3
"""Series of doses that are drawn; of more, those that go farthest from control."""

_LOG_FROM = 4.0  # ratios that span more than this factor are drawn on a logarithmic axis
_BOUND_COLOURS = {
    "floor, no change": COLOURS["control"],
    "mean response": FAMILIES[BASELINE].colour,
    "ceiling": "currentColor",
}
_RATIOS = (
    "Where a metric is a ratio (the distance to the truth over that to control), on the thin line, at 1, the "
    "prediction is as far from one as from the other. No change is no distance from control, so few have a floor."
)


def metrics_across(summary: DatasetSummary) -> Section | None:
    """Draw each metric that has a group across contexts, and across perturbations or doses."""
    if not summary.trials:
        return None
    series = drawn_doses(summary)
    several = len(summary.card.perturbations) > 1
    # Of one context alone the leaderboard says as much.
    alone = several and len(summary.card.held_out) == 1
    groups = [] if alone else _groups(summary, "context", summary.by_metric("held_out"))
    if several and not series:
        far = summary.strongest(PERTURBATIONS_DRAWN)
        tables = {metric: table.loc[far] for metric, table in summary.by_metric("perturbation").items()}
        groups += _groups(summary, "perturbation", tables)
    for name, doses in series.items():
        tables = {metric: table.loc[list(doses)] for metric, table in summary.by_metric("perturbation").items()}
        groups += _groups(summary, f"dose of {name}" if len(series) > 1 else "dose", tables, list(doses.values()))
    keys = Markup(" ").join(
        Markup(
            '<span class="key-mark"><span style="color: {}" aria-hidden="true">{}</span> {}, the best: {}</span>'
        ).format(mark_of(family).colour, mark_of(family).sign, family, label)
        for family, label in summary.best_of_family.items()
    )
    text = Markup(
        '{} <span class="key-mark"><span class="faint" aria-hidden="true">●</span> the other models, in their '
        "family's colour</span> {} What lies far beyond the others is drawn at the edge.{}{}"
    ).format(
        keys,
        Markup(" ").join(
            Markup('<span class="key-mark"><strong style="color: {}" aria-hidden="true">❘</strong> {}</span>').format(
                colour, name
            )
            for name, colour in _BOUND_COLOURS.items()
        ),
        _limits(summary),
        " Across doses they are dotted, dashed and dotted, and dashed." if series else "",
    )
    return Section("metrics", "Metrics", "Metric by metric", text, groups)


def drawn_doses(summary: DatasetSummary) -> dict[str, dict[str, float]]:
    """The series of doses that are drawn."""
    series = summary.doses
    if len(series) <= SERIES_DRAWN:
        return series
    floor = summary.by("perturbation", summary.metric)[FLOOR]
    effect = pd.Series(METRICS[summary.metric].shortfall(floor.to_numpy()), floor.index).fillna(-np.inf)
    farthest = sorted(series, key=lambda name: -effect[list(series[name])].max())[:SERIES_DRAWN]
    return {name: doses for name, doses in series.items() if name in farthest}


def _limits(summary: DatasetSummary) -> str:
    """Say what is left out so that the page stays small."""
    n, series = len(summary.card.perturbations), len(summary.doses)
    few = (
        f" Of {n} perturbations, the {PERTURBATIONS_DRAWN} farthest from control are drawn."
        if n > PERTURBATIONS_DRAWN
        else ""
    )
    return few + (f" Of {series} series of doses, {SERIES_DRAWN} are drawn." if series > SERIES_DRAWN else "")


def _groups(
    summary: DatasetSummary, across: str, tables: Mapping[str, pd.DataFrame], doses: Sequence[float] | None = None
) -> list[Group]:
    """A group of panels for each group of metrics: rows of dots, or lines against the dose."""
    drawn: dict[str, list[Panel]] = {}
    for metric, table in tables.items():
        entry = METRICS[metric]
        if not entry.group:
            continue
        if doses is None:
            figure = by_row(table, summary.families, list(summary.best_of_family.values()), ratio=entry.ratio)
        else:
            figure = by_dose(table, doses, summary.families, list(summary.best_of_family.values()), ratio=entry.ratio)
        one = Panel(
            figure,
            f"{metric} {ARROWS[entry.better]}",
            title=f"{metric} of every model by {across}, {summary.card.name}",
            description=_ends(table, list(summary.best_of_family.values())),
        )
        drawn.setdefault(entry.group, []).append(one)
    ratios = {METRICS[metric].group for metric in tables if METRICS[metric].ratio}
    return [
        Group(panels, f"{group} across {across}s", _RATIOS if group in ratios else "")
        for group, panels in drawn.items()
    ]


def _ends(table: pd.DataFrame, best: Sequence[str]) -> str:
    """Describe a panel in words: the means of what is marked."""
    means = {str(label): float(table[label].mean()) for label in [*best, *BOUNDS]}
    decimals = shared_decimals(means.values())
    return "Means: " + ", ".join(f"{label} {number(value, decimals)}" for label, value in means.items()) + "."


@house_style()
def by_row(table: pd.DataFrame, families: Mapping[str, str], best: Sequence[str], *, ratio: bool) -> Figure:
    """One metric of every model, a row of dots for each context (or perturbation).

    Parameters
    ----------
    table
        Rows to be drawn from the top; columns by label, bounds among them.
    families
        Of each label.
    best
        The labels drawn with their family's mark.
    ratio
        Whether the metric is a ratio of distances, to be read against 1.
    """
    figure = Figure(figsize=(PANEL, 0.5 + 0.27 * len(table)))
    axes = figure.add_subplot()
    rows = np.arange(len(table))
    for row in rows:
        axes.axhline(float(row), color=INK, lw=0.4, alpha=0.25, zorder=0)
    table = _value_axis(axes, "x", table, ratio=ratio)
    for label, family in families.items():
        if label not in best:
            mark = mark_of(family)
            axes.plot(table[label], rows, "o", ms=4.2, mfc=mark.colour, mew=0, alpha=0.45, zorder=2)
    axes.plot(table[FLOOR], rows, "|", ms=13, mec=COLOURS["control"], mew=2.2, zorder=1)
    axes.plot(table[MEAN_RESPONSE], rows, "|", ms=13, mec=FAMILIES[BASELINE].colour, mew=1.6, zorder=1)
    axes.plot(table[CEILING], rows, "|", ms=13, mec=INK, mew=1.6, zorder=1)
    for label in reversed(best):
        mark = mark_of(families[label])
        axes.plot(table[label], rows, mark.marker, ms=6.5, mfc=mark.colour, mec=INK, mew=0.7, ls="none", zorder=3)
    axes.set_yticks(rows, [short(str(name)) for name in table.index])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(table) - 0.5, -0.5)
    return figure


@house_style()
def by_dose(
    table: pd.DataFrame, doses: Sequence[float], families: Mapping[str, str], best: Sequence[str], *, ratio: bool
) -> Figure:
    """One metric of every model against the dose.

    Parameters
    ----------
    table
        A row for each dose; columns by label, bounds among them.
    doses
        All above 0.
    families, best, ratio
        As for ``by_row``.
    """
    figure = Figure(figsize=(PANEL, 2.2))
    axes = figure.add_subplot()
    dose_axis(axes, doses)
    table = _value_axis(axes, "y", table, ratio=ratio)
    for label, family in families.items():
        if label not in best:
            axes.plot(doses, table[label], color=mark_of(family).colour, lw=0.9, alpha=0.4)
    axes.plot(doses, table[FLOOR], color=COLOURS["control"], lw=1.4, ls=(0, (1.5, 1.5)))
    axes.plot(doses, table[MEAN_RESPONSE], color=FAMILIES[BASELINE].colour, lw=1.2, ls=(0, (5, 1.5, 1, 1.5)))
    axes.plot(doses, table[CEILING], color=INK, lw=1.2, ls=(0, (5, 2)))
    for label in reversed(best):
        mark = mark_of(families[label])
        axes.plot(doses, table[label], color=mark.colour, lw=1.6, marker=mark.marker, ms=5, mec=INK, mew=0.5)
    return figure


def _value_axis(axes: Axes, which: str, table: pd.DataFrame, *, ratio: bool) -> pd.DataFrame:
    """Set limits and ticks; a logarithmic axis for ratios that span much.

    Returns the table with what lies beyond the limits moved to the edge.
    """
    values = table.to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    axis = axes.xaxis if which == "x" else axes.yaxis
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if ratio:
        low, high = min(low, 1.0), max(high, 1.0)
        line = axes.axvline if which == "x" else axes.axhline
        line(1, color=INK, lw=0.7, alpha=0.7, zorder=0.5)
    if ratio and low > 0 and high / low > _LOG_FROM:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis.set_major_locator(FixedLocator(nice(low, high)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        axis.set_minor_locator(NullLocator())
        set_limits(low / (high / low) ** 0.04, high * (high / low) ** 0.04)
        return table
    low, high = _without_outliers(table, values, low, high)
    margin = 0.05 * (high - low) or 0.5
    set_limits(low - margin, high + margin)
    axis.set_major_locator(MaxNLocator(5))
    return table.replace([np.inf, -np.inf], np.nan).clip(low - margin / 2, high + margin / 2)


def _without_outliers(table: pd.DataFrame, values: Floats, low: float, high: float) -> tuple[float, float]:
    """Narrow a range: one model that is many times worse than nothing must not press all others together.

    Floor and ceiling stay inside, with as much room again beyond either, and nine in ten values.
    """
    bounds = table[list(BOUNDS)].to_numpy(dtype=np.float64)
    bounds = bounds[np.isfinite(bounds)]
    if len(bounds) == 0 or len(values) == 0:
        return low, high
    gap = float(np.ptp(bounds))
    most = np.quantile(values, [0.1, 0.9])
    return (
        max(low, min(float(bounds.min()) - gap, float(most[0]))),
        min(high, max(float(bounds.max()) + gap, float(most[1]))),
    )
