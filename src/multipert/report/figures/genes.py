"""Genes: expression in control, true and predicted cells, across contexts and across doses."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.neighbors import KernelDensity

from multipert.benchmark.profiles import Profile
from multipert.benchmark.records import Reference
from multipert.report.figures.metrics import drawn_doses
from multipert.report.figures.panels import Group, Panel, Section, key, shown_keys
from multipert.report.figures.style import COLOURS, PANEL, SMALL, Floats, dose_axis, short
from multipert.report.numbers import number
from multipert.report.summary import DatasetSummary
from multipert.report.svg import INK, house_style

GENES_DRAWN = 6
"""Genes whose expression is drawn."""
MORE_DRAWN = 20
"""Those of a single context, folded after the first."""
PLACES_DRAWN = 8
"""Contexts, or contexts and perturbations, in which genes are drawn."""

INTERVALS_TOLD = " The line under a prediction is the 90% interval that its model gives for the mean."
PERTURBATIONS_DRAWN = 2
"""Perturbations under which genes are drawn across contexts: those farthest from control."""

_POINTS = 56  # of a density


def genes_across(summary: DatasetSummary) -> Section | None:
    """Draw the genes that respond most across contexts, for the perturbations with the largest effect."""
    # Of doses, the one farthest from control: the others have the dose-response curves.
    several = min(PERTURBATIONS_DRAWN, max(1, PLACES_DRAWN // max(1, len(summary.references))))
    places = summary.places(PLACES_DRAWN, perturbations=1 if summary.doses else several)
    groups: list[Group] = []
    for perturbation in dict.fromkeys(one for _, one in places):
        contexts = [reference for reference, one in places if one == perturbation]
        # Of one context more genes are drawn: of several they would make the page long to load.
        genes = summary.responding(perturbation, MORE_DRAWN if len(contexts) == 1 and not groups else GENES_DRAWN)
        panels = [_by_context(summary, contexts, perturbation, gene) for gene in genes]
        heading = f"Under {perturbation}" if len(summary.card.perturbations) > 1 else ""
        groups.append(Group(panels[:GENES_DRAWN], heading))
        if more := panels[GENES_DRAWN:]:
            groups.append(Group(more, f"{len(more)} more genes", folded=True))
    if not groups:
        return None
    few = sum(not group.folded for group in groups) < len(summary.card.perturbations)
    text = Markup(
        "Log-normalised expression of the genes that respond most{}. In every context, from the top: {} A bar marks "
        "the mean, the arrow the direction of the true response.{} The models drawn are {} and what it must beat.{}"
    ).format(
        ", under the perturbations farthest from control" if few else "",
        shown_keys(summary),
        INTERVALS_TOLD if intervals_given(summary) else "",
        summary.shown[0],
        f" Genes are drawn in the first {PLACES_DRAWN} contexts." if len(summary.references) > PLACES_DRAWN else "",
    )
    return Section("genes", "Genes", "Genes across contexts", text, groups)


def predictions(summary: DatasetSummary, context: str, perturbation: str) -> list[Profile | None]:
    """What the models that are drawn predict in one place; none where a model has no prediction."""
    trials = [summary.trial(label, context) for label in summary.shown]
    return [trial.profiles.get(perturbation) if trial is not None else None for trial in trials]


def intervals_given(summary: DatasetSummary) -> bool:
    """Whether a model that is drawn gives intervals."""
    found = (one for place in summary.places(1) for one in predictions(summary, place[0].held_out, place[1]))
    return any(one is not None and len(one.intervals) > 0 for one in found)


def _by_context(summary: DatasetSummary, references: Sequence[Reference], perturbation: str, gene: str) -> Panel:
    control = summary.card.conditions[0]
    groups, intervals, up = {}, {}, 0.0
    for reference in references:
        if gene not in reference.genes:
            continue
        at = list(reference.genes).index(gene)
        before, after = reference.profiles[control], reference.profiles[perturbation]
        cells = [before, after, *predictions(summary, reference.held_out, perturbation)]
        groups[reference.held_out] = [
            one.cells[:, at].astype(np.float64) if one is not None else np.empty(0) for one in cells
        ]
        intervals[reference.held_out] = [
            one.intervals[at] if one is not None and len(one.intervals) else None for one in cells
        ]
        up += float(after.mean[at] - before.mean[at])
    names = ["control", "true", *summary.shown]
    means = "; ".join(
        f"{context}: "
        + ", ".join(f"{who} {number(float(c.mean()), 2)}" for who, c in zip(names, cells, strict=True) if len(c))
        for context, cells in groups.items()
    )
    return Panel(
        by_context(groups, intervals),
        f"{gene} {'↑' if up > 0 else '↓'}",
        title=f"Expression of {gene} under {perturbation} by context: control, true and predicted cells",
        description=f"Means of the cells drawn: {means}",
    )


def dose_response(summary: DatasetSummary) -> Section | None:
    """Draw genes across doses: the mean over contexts of several, and the first context by context."""
    groups = [group for name, series in drawn_doses(summary).items() for group in _across_doses(summary, name, series)]
    if not groups or not summary.shown:
        return None
    first, *second = summary.shown
    text = Markup(
        "Mean log-normalised expression against the dose: squares {}, filled triangles {}{}; dotted, the {} cells."
    ).format(
        key("in-text true", "true"),
        key("in-text predicted", f"predicted by {first}"),
        Markup(", open triangles and dashes {}").format(key("in-text predicted-too", f"predicted by {second[0]}"))
        if second
        else "",
        key("in-text control", "control"),
    )
    return Section("doses", "Doses", "Dose-response curves", text, groups)


def _across_doses(summary: DatasetSummary, name: str, series: Mapping[str, float]) -> list[Group]:
    genes, references = summary.responding(next(iter(series)), GENES_DRAWN), summary.references
    curves = {reference.held_out: _curves(summary, reference, genes, list(series)) for reference in references}

    def draw(gene: int, contexts: Sequence[str], caption: str) -> Panel:
        stack = np.stack([curves[context][..., gene] for context in contexts])
        # A dose that one context lacks is the mean over the others; one that all lack stays open.
        known = np.isfinite(stack)
        curve = np.where(known, stack, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
        control, true, *predicted = curve
        where = contexts[0] if len(contexts) == 1 else f"mean over {len(contexts)} contexts"
        who = ["True", *summary.shown]
        said = (
            f"{one}: {', '.join(number(float(v), 2) for v in values)}."
            for one, values in zip(who, curve[1:], strict=True)
        )
        return Panel(
            by_dose(list(series.values()), float(control[0]), true, predicted),
            caption,
            title=f"Mean expression of {genes[gene]} by dose of {name}, {where}",
            description=f"Control {number(float(control[0]), 2)}. {' '.join(said)}",
        )

    if not genes or not references:
        return []
    held_out = list(curves)
    remark = f"Mean over {len(held_out)} held-out contexts" if len(held_out) > 1 else held_out[0]
    all_genes = [draw(gene, held_out, genes[gene]) for gene in range(len(genes))]
    groups = [Group(all_genes, f"Genes by dose of {name}", remark, "small-ones")]
    if len(held_out) > 1:
        by_one = [draw(0, [context], context) for context in held_out[:PLACES_DRAWN]]
        groups.append(Group(by_one, f"{genes[0]} by dose of {name} in each context", "", "small-ones"))
    return groups


def _curves(summary: DatasetSummary, reference: Reference, genes: Sequence[str], conditions: Sequence[str]) -> Floats:
    """(control, true and predicted; conditions; genes) mean expression; NaN where it was not measured."""
    at = {gene: place for place, gene in enumerate(reference.genes)}
    columns = [at.get(gene, -1) for gene in genes]

    def means(profile: Profile | None) -> Floats:
        if profile is None:
            return np.full(len(genes), np.nan)
        return np.where(np.array(columns) < 0, np.nan, profile.mean[columns].astype(np.float64))

    control = means(reference.profiles[summary.card.conditions[0]])
    rows = [
        [control, means(reference.profiles.get(one)), *map(means, predictions(summary, reference.held_out, one))]
        for one in conditions
    ]
    return np.array(rows).transpose(1, 0, 2)


@house_style()
def by_context(
    groups: Mapping[str, Sequence[Floats]], intervals: Mapping[str, Sequence[Floats | None]] | None = None
) -> Figure:
    """Distributions of one gene's expression: a group of lying half violins for each context.

    Parameters
    ----------
    groups
        By context: control, true, and the cells predicted by one model or two, each (cells,).
    intervals
        By context, in that order: the interval of the mean, (2,), where a model gives one.
    """
    lines = max(map(len, groups.values()))
    figure = Figure(figsize=(PANEL, 0.4 + len(groups) * (0.14 * lines + 0.08)))
    axes = figure.add_subplot()
    values = np.concatenate([cells for group in groups.values() for cells in group])
    low, high = float(values.min()), float(values.max()) or 1.0
    grid = np.linspace(low - 0.04 * (high - low), high + 0.06 * (high - low), _POINTS)
    places = []
    for rank, (context, group) in enumerate(groups.items()):
        top = rank * (lines + 0.6)
        places.append(top + (lines - 1) / 2 - 0.4)
        if rank:
            axes.axhline(top - 1.1, color=INK, lw=0.4, alpha=0.3)
        for place, cells in enumerate(group):
            if len(cells):
                _ridge(axes, grid, cells, top + place, place)
            interval = intervals[context][place] if intervals is not None else None
            if interval is not None and np.isfinite(interval).all():
                axes.plot(interval, [top + place] * 2, color=INK, lw=2.6, solid_capstyle="butt", zorder=3)
    axes.set_yticks(places, [short(context) for context in groups])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(grid[0], grid[-1])
    axes.set_ylim(len(groups) * (lines + 0.6) - 1.3, -1.2)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def _ridge(axes: Axes, grid: Floats, cells: Floats, base: float, place: int) -> None:
    """A half violin that stands on its line, with a bar at the mean: filled, or only outlined for the fourth."""
    colour = (*COLOURS.values(), COLOURS["predicted"])[place]
    height = base - 0.86 * _density(cells, grid)
    if place < len(COLOURS):
        corners = np.array([grid[-1], grid[0]])
        axes.fill(np.append(grid, corners), np.append(height, [base, base]), color=colour, alpha=0.75, lw=0)
    else:
        axes.plot(grid, height, color=colour, lw=1.1)
    mean = float(cells.mean())
    axes.plot([mean, mean], [base, base - 0.86], color=INK, lw=1.5, solid_capstyle="butt")


def _density(cells: Floats, grid: Floats) -> Floats:
    """A Gaussian kernel density, its peak 1: half of Silverman's bandwidth, so that zeros stay apart from the rest."""
    width = max(0.5 * float(cells.std()) * len(cells) ** -0.2, 1.2 * float(grid[1] - grid[0]))
    density = np.exp(KernelDensity(bandwidth=width).fit(cells[:, None]).score_samples(grid[:, None]))
    return np.asarray(density / density.max())


@house_style()
def by_dose(doses: Sequence[float], control: float, true: Floats, predicted: Sequence[Floats]) -> Figure:
    """Mean expression of one gene against the dose.

    Parameters
    ----------
    doses
        All above 0.
    control
        Mean expression without any.
    true, predicted
        (doses,) mean expression of true cells, and of those predicted by one model or two.
    """
    figure = Figure(figsize=(SMALL, 1.9))
    axes = figure.add_subplot()
    dose_axis(axes, doses)
    axes.axhline(control, color=COLOURS["control"], lw=1.6, ls=(0, (1.5, 1.5)))
    styles = (("-", COLOURS["predicted"]), ((0, (4, 2)), "none"))
    for values, (dashes, fill) in reversed(list(zip(predicted, styles, strict=False))):
        colour = COLOURS["predicted"]
        axes.plot(doses, values, color=colour, ls=dashes, lw=1.4, marker="^", ms=5.5, mfc=fill, mec=colour)
    axes.plot(doses, true, color=COLOURS["true"], lw=1.6, marker="s", ms=5)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    return figure
