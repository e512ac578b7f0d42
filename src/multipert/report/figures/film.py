"""Perturbations by how they steer the decoder of a FiLM model."""

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from multipert.benchmark.records import TrialResult
from multipert.report.figures.panels import Group, Panel, Section, key
from multipert.report.figures.style import COLOURS, MARKERS, WIDE, Floats, name_places
from multipert.report.numbers import number
from multipert.report.summary import DatasetSummary
from multipert.report.svg import INK, house_style

MAPS_DRAWN = 4
"""Trials whose map is drawn, at most: one for each thing held out."""
NAMED = 24
"""Perturbations that are named, at most: unseen ones first, then those farthest from control."""


def film_map(summary: DatasetSummary) -> Section | None:
    """Draw perturbations where FiLM has them, for the best model that has FiLM."""
    label = next((one for one in summary.comparable if any(map(_mapped, _trials(summary, one)))), None)
    if label is None:
        return None
    first: dict[str, TrialResult] = {}
    for trial in filter(_mapped, _trials(summary, label)):
        first.setdefault(trial.held_out, trial)
    panels = [_panel(summary, trial) for trial in list(first.values())[:MAPS_DRAWN]]
    text = Markup(
        "How {} steers its decoder under each perturbation, {} {}: the coefficients of FiLM in all layers, placed in a "
        "plane so that distances are kept as well as they can be. Near ones do alike, whatever the cell; the farther "
        "from {}, the more they do."
    ).format(
        label,
        key("in-text true", "seen in training"),
        key("in-text predicted", "or not"),
        key("in-text control", "control"),
    )
    return Section("film", "FiLM map", "Perturbations in FiLM space", text, [Group(panels, size="wide")])


def _trials(summary: DatasetSummary, label: str) -> list[TrialResult]:
    return [trial for trial in summary.trials if trial.label == label]


def _mapped(trial: TrialResult) -> bool:
    return len(trial.film) > 0


def _panel(summary: DatasetSummary, trial: TrialResult) -> Panel:
    names, places = list(trial.film), np.array(list(trial.film.values()), dtype=np.float64)
    control = names.index(summary.card.conditions[0])
    # What is scored is what training never saw, where it is no context that is held out.
    unseen = np.array([name in trial.scores and trial.held_out in summary.card.unseen for name in names])
    away = np.linalg.norm(places - places[control], axis=1)
    order = sorted(range(len(names)), key=lambda place: (not unseen[place], -away[place]))
    named = [place for place in order if place != control][:NAMED]
    far = ", ".join(f"{names[place]} {number(float(away[place]), 2)}" for place in named[:6])
    return Panel(
        mapped(names, places, control, unseen, named),
        trial.held_out,
        f"Map of {len(names) - 1} perturbations in FiLM space, {trial.held_out} held out",
        f"Distance from control: {far}.",
    )


@house_style()
def mapped(names: list[str], places: Floats, control: int, unseen: np.ndarray, named: list[int]) -> Figure:
    """Conditions in a plane, both axes to one scale.

    Parameters
    ----------
    names, places
        Of the conditions; (conditions, 2).
    control, unseen
        Which is control, and (conditions,) which training never saw.
    named
        Those whose names are written.
    """
    figure = Figure(figsize=(WIDE, 3.6))
    axes = figure.add_subplot()
    axes.axhline(places[control, 1], color=INK, lw=0.6, ls=(0, (4, 3)), zorder=1)
    axes.axvline(places[control, 0], color=INK, lw=0.6, ls=(0, (4, 3)), zorder=1)
    kinds = np.where(np.arange(len(names)) == control, "control", np.where(unseen, "predicted", "true"))
    for kind in COLOURS:
        of = kinds == kind
        axes.scatter(places[of, 0], places[of, 1], s=30, marker=MARKERS[kind], color=COLOURS[kind], lw=0, zorder=2)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.15)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    name_places(figure, axes, [names[place] for place in named], places[named], places)
    return figure
