"""Doses: at which a gene has half of its response."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from multipert.benchmark.profiles import Profile
from multipert.benchmark.records import Reference
from multipert.models.candidates import half_effective
from multipert.report.figures.genes import GENES_DRAWN, PLACES_DRAWN, predictions
from multipert.report.figures.metrics import drawn_doses
from multipert.report.figures.panels import Group, Panel, Section, key
from multipert.report.figures.style import COLOURS, PANEL, Floats, dose_axis, short
from multipert.report.numbers import number
from multipert.report.summary import DatasetSummary
from multipert.report.svg import INK, house_style

DRAWS = 200
"""Times that means are drawn anew, within their sampling noise."""
LEVEL = 0.9
"""Of the intervals."""


def half_effective_doses(summary: DatasetSummary) -> Section | None:
    """Draw the dose of half the largest change (EC50) of the genes that respond most, true and predicted."""
    if not summary.shown:
        return None
    series = drawn_doses(summary)
    panels = [
        panel
        for name, doses in series.items()
        if len(doses) > 2
        for reference in summary.references[:PLACES_DRAWN]
        if (panel := _panel(summary, reference, name, doses, several=len(series) > 1)) is not None
    ]
    if not panels:
        return None
    first, *second = summary.shown
    text = Markup(
        "The dose at which the mean of a gene has changed half as far as it does at most (EC50), read off the line "
        "between the doses of the study: squares {}, filled triangles {}{}; lines are {:.0%} intervals by the sampling "
        "noise of the cells. A gene past half at the lowest dose has none."
    ).format(
        key("in-text true", "true"),
        key("in-text predicted", f"predicted by {first}"),
        Markup(", open triangles {}").format(key("in-text predicted-too", f"predicted by {second[0]}"))
        if second
        else "",
        LEVEL,
    )
    return Section("ec50", "EC50", "Doses of half the effect", text, [Group(panels)])


def _panel(
    summary: DatasetSummary, reference: Reference, name: str, doses: Mapping[str, float], *, several: bool
) -> Panel | None:
    """EC50s in one context; None where too few doses were measured there or no gene has one."""
    control = summary.card.conditions[0]
    there = {condition: dose for condition, dose in doses.items() if condition in reference.profiles}
    genes = [gene for gene in summary.responding(next(iter(doses)), GENES_DRAWN) if gene in reference.genes]
    columns = [list(reference.genes).index(gene) for gene in genes]
    if len(there) < 3 or not genes:
        return None
    n_control = reference.n_cells[control]
    before = _drawn(reference.profiles[control], n_control, columns, 0)
    found: dict[str, Floats] = {}
    true = [_drawn(reference.profiles[one], reference.n_cells[one], columns, k) for k, one in enumerate(there, 1)]
    found["true"] = _half(np.stack(true) - before, list(there.values()))
    by_model = zip(*(predictions(summary, reference.held_out, one) for one in there), strict=True)
    for label, profiles in zip(summary.shown, by_model, strict=True):
        known = [profile for profile in profiles if profile is not None]
        if len(known) == len(there):
            # From the same control cells: a draw moves control and predicted cells alike, so it takes no part.
            predicted = np.stack([profile.mean[columns].astype(np.float64)[None] for profile in known])
            found[label] = _half(predicted - reference.profiles[control].mean[columns], list(there.values()))
    if not any(np.isfinite(ends[:, 1]).any() for ends in found.values()):
        return None
    where = f"{name}, {reference.held_out}" if several else reference.held_out
    said = (
        f"{gene}: "
        + ", ".join(
            f"{who} {number(float(ends[row, 1]), 2)}" for who, ends in found.items() if np.isfinite(ends[row, 1])
        )
        for row, gene in enumerate(genes)
    )
    return Panel(
        halves(genes, list(there.values()), list(found.values())),
        where,
        f"EC50 of the genes that respond most to {name} in {reference.held_out}",
        f"{'; '.join(said)}.",
    )


def _drawn(profile: Profile, n_cells: int, columns: Sequence[int], stream: int) -> Floats:
    """Means of some genes, (1 + draws, genes): as measured, then drawn within their sampling noise."""
    mean, variance = (getattr(profile, what)[columns].astype(np.float64) for what in ("mean", "variance"))
    noise = np.random.default_rng(stream).normal(size=(DRAWS, len(columns))) * np.sqrt(variance / max(1, n_cells))
    return np.concatenate([mean[None], mean + noise])


def _half(change: Floats, doses: Sequence[float]) -> Floats:
    """Low end, EC50 and high end by gene, (genes, 3), of changes (doses, 1 + draws, genes); NaN where there is none."""
    ladder = np.asarray(doses, dtype=np.float64)
    found = np.apply_along_axis(lambda curve: half_effective(curve, ladder), 0, change)  # (1 + draws, genes)
    ends = np.full((3, change.shape[2]), np.nan)
    ends[1] = found[0]
    enough = np.isfinite(found[1:]).sum(axis=0) >= DRAWS / 2
    ends[::2, enough] = np.nanquantile(found[1:, enough], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return ends.T


@house_style()
def halves(genes: Sequence[str], doses: Sequence[float], found: Sequence[Floats]) -> Figure:
    """A line for each gene: its EC50s with their intervals, true first, then predicted ones.

    Parameters
    ----------
    genes, doses
        Names of the lines, from the top, and the doses of the axis.
    found
        (genes, 3) low end, EC50 and high end each.
    """
    figure = Figure(figsize=(PANEL, 0.7 + 0.32 * len(genes)))
    axes = figure.add_subplot()
    dose_axis(axes, doses)
    axes.set_xlim(min(doses) / 1.3, max(doses) * 1.3)
    styles = (("s", COLOURS["true"]), ("^", COLOURS["predicted"]), ("^", "none"))
    for place, ((marker, fill), ends) in enumerate(zip(styles, found, strict=False)):
        colour = COLOURS["true" if place == 0 else "predicted"]
        y = np.arange(len(genes)) + 0.24 * (place - (len(found) - 1) / 2)
        axes.hlines(y, ends[:, 0], ends[:, 2], color=colour, lw=1.4)
        axes.plot(ends[:, 1], y, ls="", marker=marker, ms=5.5, mfc=fill, mec=colour)
    axes.set_yticks(range(len(genes)), [short(gene) for gene in genes])
    axes.set_ylim(len(genes) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for line in np.arange(len(genes) - 1) + 0.5:
        axes.axhline(line, color=INK, lw=0.3, alpha=0.3)
    return figure
