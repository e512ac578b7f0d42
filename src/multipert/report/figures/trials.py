"""Trials: how models were trained, and what they cost."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from multipert.report.figures.panels import Group, Panel, Section, key
from multipert.report.figures.style import COLOURS, SMALL, WIDE, mark_of, name_places, nice, plain
from multipert.report.numbers import number
from multipert.report.summary import DatasetSummary
from multipert.report.svg import INK, house_style

CURVES_DRAWN = 12
"""Training curves that are drawn: the main loss of each model, and its others where there is room."""

COSTS = (
    ("seconds_fit", "Time to fit one trial", "seconds"),
    ("peak_memory_mb", "Peak memory", "MB"),
    ("n_parameters", "Trained parameters", "parameters"),
)
_REMARKS = {
    "Peak memory": " Memory is that of the whole process, imports and data included.",
    "Trained parameters": " A model without trained parameters has no place in the last.",
}


def training_curves(summary: DatasetSummary) -> Section | None:
    """Draw how one trial of each model was trained: the first that was done."""
    trials = {label: next(one for one in summary.trials if one.label == label) for label in summary.models}
    histories = {label: pd.DataFrame(dict(trial.history)) for label, trial in trials.items()}
    losses = {label: found for label, history in histories.items() if (found := _losses(history))}
    if not losses:
        return None
    panels = []
    for label, names in losses.items():
        for loss in names[: max(1, CURVES_DRAWN // len(losses))]:
            history, trial = histories[label], trials[label]
            last = [
                f"{part} {number(float(history[column].dropna().iloc[-1]))}"
                for column, part in ((f"train_{loss}", "training"), (f"validation_{loss}", "validation"))
                if column in history and history[column].notna().any()
            ]
            panels.append(
                Panel(
                    curve(history, loss),
                    f"{label}: {loss}",
                    f"Training of {label}: {loss} by step",
                    f"Held out: {trial.held_out}; seed {trial.seed}. At the end {', '.join(last)}.",
                )
            )
    one = summary.trials[0]
    text = Markup(
        "One trial of each model that is trained (as a rule {} held out, seed {}): {}, a line; {}, dashed. A dotted "
        "line marks where a stage of training ends."
    ).format(one.held_out, one.seed, key("in-text true", "training"), key("in-text predicted", "validation"))
    return Section("training", "Training", "Training curves", text, [Group(panels, size="small-ones")])


def _losses(history: pd.DataFrame) -> list[str]:
    """Name the losses that were recorded: the one called so first, then those recorded most often."""
    columns = [str(name) for name in history if str(name).startswith(("train_", "validation_"))]
    known = {name: int(history[name].notna().sum()) for name in columns}
    fullest = sorted((name for name in columns if known[name]), key=lambda one: (one != "train_loss", -known[one]))
    return list(dict.fromkeys(name.partition("_")[2] for name in fullest))


def cost_and_accuracy(summary: DatasetSummary) -> Section | None:
    """Draw what each model took against its normalised score."""
    scores = {label: score for label, score in summary.normalised.items() if np.isfinite(score)}
    panels = []
    for column, caption, unit in COSTS:
        costs = {
            str(label): float(value)
            for label, value in summary.costs[column].items()
            if label in scores and np.isfinite(value) and value > 0
        }
        if len(costs) > 1:
            said = (f"{one}: {number(cost)} {unit}, {number(100 * scores[one], 0)}%" for one, cost in costs.items())
            title = f"{caption} against the normalised score, {summary.card.name}"
            panels.append(Panel(cost(costs, scores, summary.families, unit), caption, title, "; ".join(said)))
    if not panels:
        return None
    far = [label for label, score in scores.items() if score < -1]
    families = dict.fromkeys(summary.families.values())
    text = Markup(
        "Normalised score by {} against what one trial took; up and to the left is better. {} Dotted: the better "
        "floor; dashed: the ceiling.{}{}"
    ).format(
        summary.metric,
        Markup(" ").join(
            Markup('<span class="key-mark"><span style="color: {}" aria-hidden="true">{}</span> {}</span>').format(
                mark_of(family).colour, mark_of(family).sign, family
            )
            for family in families
        ),
        f" Below {number(-100, 0)}%, at the lower edge: {', '.join(far)}." if far else "",
        "".join(_REMARKS.get(panel.caption, "") for panel in panels),
    )
    return Section("cost", "Cost", "Cost and accuracy", text, [Group(panels, size="wide")])


@house_style()
def curve(history: pd.DataFrame, loss: str) -> Figure:
    """One loss against the training steps, with dotted lines where a stage begins.

    Parameters
    ----------
    history
        Columns ``step``, ``stage``, ``train_<loss>`` and ``validation_<loss>`` as far as there are.
    loss
        Its name.
    """
    figure = Figure(figsize=(SMALL, 1.6))
    axes = figure.add_subplot()
    for column, colour, dashes in (
        (f"train_{loss}", COLOURS["true"], "-"),
        (f"validation_{loss}", COLOURS["predicted"], (0, (4, 1.5))),
    ):
        if column in history:
            known = history[[column, "step"]].dropna()
            marker = "o" if len(known) < 3 else ""
            axes.plot(known["step"], known[column].astype(float), color=colour, ls=dashes, lw=1.4, marker=marker, ms=4)
    stages = history["stage"].to_numpy()
    for start in np.flatnonzero(stages[1:] != stages[:-1]):
        axes.axvline(float(history["step"].iloc[start]), color=INK, lw=0.6, ls=":")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("step")
    return figure


@house_style()
def cost(costs: Mapping[str, float], accuracy: Mapping[str, float], families: Mapping[str, str], name: str) -> Figure:
    """What models cost against how well they predict, each named.

    Parameters
    ----------
    costs
        By label, above 0.
    accuracy
        By label, the normalised score; what is below -1 is drawn at the edge.
    families
        Of each label.
    name
        Of the cost, with its unit.
    """
    figure = Figure(figsize=(WIDE, 4.1))
    axes = figure.add_subplot()
    labels = list(costs)
    x = np.array([costs[label] for label in labels])
    y = 100 * np.clip([accuracy[label] for label in labels], -1.05, None)
    axes.set_xscale("log")
    # Space on both sides, so that names have room.
    axes.set_xlim(x.min() / max(1.6, (x.max() / x.min()) ** 0.12), x.max() * max(1.6, (x.max() / x.min()) ** 0.12))
    axes.set_ylim(min(-12.0, float(y.min()) - 9), max(108.0, float(y.max()) + 8))
    axes.axhline(0, color=COLOURS["control"], lw=1.4, ls=(0, (1.5, 1.5)))
    axes.axhline(100, color=INK, lw=1, ls=(0, (5, 2)))
    for label, right, up in zip(labels, x, y, strict=True):
        mark = mark_of(families[label])
        axes.plot(right, up, mark.marker, ms=7, mfc=mark.colour, mec=INK, mew=0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    _few_decades(axes)
    axes.set(xlabel=name, ylabel="normalised score, %")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    across = np.geomspace(*axes.get_xlim(), 40)
    lines = np.concatenate([np.column_stack([across, np.full(40, level)]) for level in (0.0, 100.0)])
    name_places(figure, axes, labels, np.column_stack([x, y]), lines)
    return figure


def _few_decades(axes: Axes) -> None:
    low, high = axes.get_xlim()
    ticks = nice(low, high)
    inside = [tick for tick in ticks if low <= tick <= high]
    axes.xaxis.set_major_locator(FixedLocator(inside[:: 1 + len(inside) // 7]))
