"""What a pilot would add: scores of a model that was told of a few perturbed cells."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from multipert.benchmark.records import TrialResult
from multipert.evaluation import METRICS
from multipert.report.figures.panels import Group, Panel, Section, key
from multipert.report.figures.style import COLOURS, SMALL
from multipert.report.numbers import ARROWS, number
from multipert.report.summary import DatasetSummary
from multipert.report.svg import INK, house_style

DRAWN = ("edist", "pearson_delta", "amplitude", "gene_wasserstein")
"""Metrics that are drawn, as far as they can tell."""


def pilot_curves(summary: DatasetSummary) -> Section | None:
    """Draw scores against the number of cells of a pilot, for the best model that learns from one."""
    label = next((one for one in summary.comparable if _piloted(summary, one)), None)
    if label is None:
        return None
    metrics = [name for name in DRAWN if name in summary.distinct_metrics and name not in summary.cannot_tell]
    panels = [_panel(summary, label, metric) for metric in metrics]
    if not panels:
        return None
    text = Markup(
        "How near {} comes if it is told of a few perturbed cells of the context, scored with the other cells; "
        "0 is the prediction without any. {}: the mean over perturbations and the contexts that have cells enough{}."
    ).format(
        label,
        key("in-text predicted", "line and triangles"),
        "; thin lines, each context" if len(summary.references) > 1 else "",
    )
    return Section("pilots", "Pilot", "What a pilot would add", text, [Group(panels, size="small-ones")])


def _piloted(summary: DatasetSummary, label: str) -> list[TrialResult]:
    """The trials of a model that learns from pilots in which it was told of some."""
    return [trial for trial in summary.trials if trial.label == label and len(trial.pilots) > 1]


def _panel(summary: DatasetSummary, label: str, metric: str) -> Panel:
    rows = [
        {"context": trial.held_out, "size": int(size), "score": scores[metric]}
        for trial in _piloted(summary, label)
        for size, by_perturbation in trial.pilots.items()
        for scores in by_perturbation.values()
    ]
    table = pd.DataFrame(rows).groupby(["size", "context"])["score"].mean().unstack("context")
    # A mean over other contexts for every size would say nothing of the size.
    whole = table.loc[:, table.notna().all()]
    mean = whole.mean(axis=1) if whole.shape[1] else table.mean(axis=1)
    said = ", ".join(f"{number(float(value))} with {size}" for size, value in mean.items())
    return Panel(
        by_size({str(name): column for name, column in table.items()}, mean),
        f"{metric} {ARROWS[METRICS[metric].better]}",
        title=f"{metric} of {label} by the number of cells of a pilot, {summary.card.name}",
        description=f"Means: {said} cells.",
    )


@house_style()
def by_size(contexts: Mapping[str, "pd.Series[float]"], mean: "pd.Series[float]") -> Figure:
    """One metric against the number of cells of a pilot, evenly spaced.

    Parameters
    ----------
    contexts
        Scores by size, NaN where a context has too few cells; by context.
    mean
        Over contexts, by size.
    """
    figure = Figure(figsize=(SMALL, 1.9))
    axes = figure.add_subplot()
    places = np.arange(len(mean))
    if len(contexts) > 1:
        for scores in contexts.values():
            axes.plot(places, scores.reindex(mean.index), color=INK, lw=0.6, alpha=0.45)
    axes.plot(places, mean, color=COLOURS["predicted"], lw=1.6, marker="^", ms=5.5)
    axes.set_xticks(places, [str(size) for size in mean.index])
    axes.set_xlabel("cells of the pilot")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    return figure
