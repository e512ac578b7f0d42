"""Cells: predicted means against true ones, the three populations, and the map of the data."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from multipert.benchmark.profiles import ROLES, Profile
from multipert.benchmark.records import Reference
from multipert.report.figures.genes import intervals_given, predictions
from multipert.report.figures.panels import Group, Panel, Section, key
from multipert.report.figures.style import COLOURS, MARKERS, PANEL, WIDE, Floats, distinct, name_places, shades
from multipert.report.numbers import DASH, number
from multipert.report.summary import DatasetSummary, welch
from multipert.report.svg import INK, house_style

GENES_NAMED = 8
"""Genes named in a scatter of means."""
PLACES_DRAWN = 8
"""Contexts and perturbations of which means and populations are drawn."""
NAMED_CONDITIONS = 10
"""Conditions that get a colour each in the UMAP; of more, control stands against all others."""

_TURNS = 4  # of drawing cells


def predicted_means(summary: DatasetSummary) -> Section | None:
    """Draw the mean expression of every gene, as the best model predicts it, against the true one."""
    panels = [_means_panel(summary, *place) for place in predicted_places(summary)]
    if not panels:
        return None
    text = Markup(
        "As {} predicts it. Each dot is a gene; on the dashed line the prediction is right. The {} genes that respond "
        "most clearly are named; a grey ring marks where their control mean would put them, and the {} line how far "
        "the model moved them. Over all genes r² says little: beside it stands that of control cells in place of the "
        "prediction.{}"
    ).format(
        summary.shown[0],
        GENES_NAMED,
        key("in-text predicted", "orange"),
        " A broad line is the 90% interval that the model gives for the mean." if intervals_given(summary) else "",
    )
    return Section("means", "Means", "Predicted and true mean expression", text, [Group(panels, size="wide")])


def predicted_places(summary: DatasetSummary) -> list[tuple[Reference, str, Profile]]:
    """Contexts and perturbations to draw, and what the best model predicts there."""
    if not summary.shown:
        return []
    found = [(one, name, predictions(summary, one.held_out, name)[0]) for one, name in summary.places(PLACES_DRAWN)]
    return [(reference, name, profile) for reference, name, profile in found if profile is not None]


def named_place(summary: DatasetSummary, reference: Reference, perturbation: str) -> str:
    """A context and perturbation, as captions call them."""
    several = len(summary.card.perturbations) > 1
    return f"{perturbation} in {reference.held_out}" if several else reference.held_out


def _means_panel(summary: DatasetSummary, reference: Reference, perturbation: str, predicted: Profile) -> Panel:
    control = summary.card.conditions[0]
    before, true = (reference.profiles[one].mean.astype(np.float64) for one in (control, perturbation))
    order = np.argsort(-np.abs(welch(reference, control, perturbation)), kind="stable")[:GENES_NAMED]
    named = {reference.genes[gene]: int(gene) for gene in order}
    after = predicted.mean.astype(np.float64)
    r2, r2_control = _r2(true, after), _r2(true, before)
    intervals = predicted.intervals.astype(np.float64) if len(predicted.intervals) else None
    held = ""
    if intervals is not None:
        seen = np.isfinite(intervals).all(axis=1) & ((true > 0) | (after > 0))
        inside = (intervals[:, 0] <= true) & (true <= intervals[:, 1])
        held = f"; intervals hold {100 * inside[seen].mean():.0f}% of true means"
    return Panel(
        mean_expression(true, after, before, named, intervals),
        f"{named_place(summary, reference, perturbation)}: r² {r2} (control {r2_control}){held}",
        f"Predicted against true mean expression, {perturbation} in {reference.held_out}",
        f"Scatter plot of {len(true):,} genes; r² = {r2}. Named, from the clearest response: {', '.join(named)}.",
    )


def _r2(first: Floats, second: Floats) -> str:
    """Squared Pearson correlation, as printed."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return DASH
    return number(float(np.corrcoef(first, second)[0, 1]) ** 2, 3)


def populations(summary: DatasetSummary) -> Section | None:
    """Draw control, true and predicted cells in the first two of their principal components."""
    panels = [_components_panel(summary, *place) for place in predicted_places(summary) if len(place[2].places)]
    if not panels:
        return None
    text = Markup(
        "{} {} {} As {} predicts them. Each dot is a cell, placed in the first two principal components of all three "
        "together. Large marks are the means; arrows lead from the mean of control to the others: the better the "
        "prediction, the closer the two arrows, and the more alike the two clouds. Above each, over all genes: how "
        "long the predicted shift is beside the true one, and the angle between them."
    ).format(*(key(role, role) for role in ROLES), summary.shown[0])
    return Section("populations", "Populations", "The three populations", text, [Group(panels, size="wide")])


def _components_panel(summary: DatasetSummary, reference: Reference, perturbation: str, predicted: Profile) -> Panel:
    control = reference.profiles[summary.card.conditions[0]].mean
    said = _direction(reference.profiles[perturbation].mean - control, predicted.mean - control)
    cells = {role: predicted.places[predicted.roles == place].astype(np.float64) for place, role in enumerate(ROLES)}
    return Panel(
        components(cells, (float(predicted.shares[0]), float(predicted.shares[1]))),
        f"{named_place(summary, reference, perturbation)}: {said}",
        f"Control, true and predicted cells in two principal components, {perturbation} in {reference.held_out}",
        f"Scatter plot of cells. The predicted shift: {said}.",
    )


def _direction(true: np.ndarray, predicted: np.ndarray) -> str:
    """How the predicted shift compares with the true one, over all genes."""
    length, moved = float(np.linalg.norm(true)), float(np.linalg.norm(predicted))
    if not moved > 1e-6 * length:
        return "no shift"
    if not length > 0:
        return "no true shift"
    angle = np.degrees(np.arccos(np.clip(float(true @ predicted) / (length * moved), -1, 1)))
    return f"{number(100 * moved / length, 0)}% as long, {number(float(angle), 0)}° off"


def split_map(summary: DatasetSummary) -> Section | None:
    """Draw a UMAP of the cells three times: by their part in the first split, by context and by condition."""
    card, overview = summary.card, summary.overview
    if overview is None or not len(overview.umap.get("x", ())) or not card.held_out:
        return None
    places = np.column_stack([overview.umap["x"], overview.umap["y"]]).astype(np.float64)
    contexts, conditions = ([str(name) for name in overview.umap[column]] for column in ("context", "condition"))
    control, first = card.conditions[0], card.held_out[0]
    split = [
        "held out" if context == first and condition != control else "training"
        for context, condition in zip(contexts, conditions, strict=True)
    ]
    colours = {"training": COLOURS["control"], "held out": COLOURS["predicted"]}
    by_condition, names = _condition_colours(summary), conditions
    if by_condition is None:
        by_condition = {control: COLOURS["control"], "perturbed": COLOURS["true"]}
        names = [control if condition == control else "perturbed" for condition in conditions]
    drawn: Sequence[tuple[str, str, Sequence[str], Mapping[str, str], Sequence[str]]] = (
        ("split", "Training and held out", split, colours, ()),
        ("context", "Context", contexts, distinct(list(card.contexts)), card.contexts),
        ("condition", "Condition", names, by_condition, ()),
    )
    panels = []
    for what, caption, kinds, colour, named in drawn:
        counts = Counter(kinds)
        said = ", ".join(f"{name} {counts[name]}" for name in colour if counts[name])
        legend = [(name, tone) for name, tone in colour.items() if counts[name]]
        figure = cells_by_name(places, kinds, colour, named=list(named))
        panels.append(Panel(figure, caption, f"UMAP of {card.name} by {what}", f"Cells drawn: {said}.", legend))
    text = Markup(
        "A UMAP of the cells.{} The perturbed cells of {} are kept from training and its control cells are not."
    ).format(" Each context is held out in turn; drawn is the first split." if len(card.held_out) > 1 else "", first)
    return Section("split", "Split", "The split", text, [Group(panels)])


def _condition_colours(summary: DatasetSummary) -> dict[str, str] | None:
    """A colour for each condition: shades for doses; none where there are too many to tell apart."""
    control, *perturbed = summary.card.conditions
    grey, series = {control: COLOURS["control"]}, list(summary.doses.values())
    if len(series) == 1 and set(series[0]) == set(perturbed):
        return grey | shades(list(series[0]))
    return grey | distinct(perturbed) if len(perturbed) <= NAMED_CONDITIONS else None


@house_style()
def mean_expression(
    true: Floats, predicted: Floats, control: Floats, named: Mapping[str, int], intervals: Floats | None = None
) -> Figure:
    """Mean expression of each gene, predicted against true, with some genes named.

    A named gene also shows, as a ring, where its control mean would put it: the way the model moved it.

    Parameters
    ----------
    true, predicted, control
        (genes,) mean expression.
    named
        The genes to name: name to index.
    intervals
        (genes, 2) ends of the interval of each predicted mean, if the model gives any; drawn for the named genes.
    """
    figure = Figure(figsize=(WIDE, 4.2))
    axes = figure.add_subplot()
    chosen = np.fromiter(named.values(), dtype=np.int64, count=len(named))
    shown = np.concatenate([true, predicted, control[chosen]])
    if intervals is not None:
        shown = np.append(shown, intervals[chosen][np.isfinite(intervals[chosen])])
    low, high = min(0.0, float(shown.min())), float(shown.max()) or 1.0
    margin = 0.05 * (high - low)
    limits = (low - margin, high + margin)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="true mean", ylabel="predicted mean")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.plot(limits, limits, color=INK, lw=0.7, ls=(0, (4, 3)), zorder=1)
    axes.scatter(true, predicted, s=7, color=COLOURS["control"], alpha=0.55, lw=0, rasterized=True, zorder=2)
    axes.vlines(true[chosen], control[chosen], predicted[chosen], color=COLOURS["predicted"], lw=0.8, alpha=0.6)
    if intervals is not None:
        axes.vlines(true[chosen], *intervals[chosen].T, color=COLOURS["predicted"], lw=5, alpha=0.3)
    axes.scatter(true[chosen], control[chosen], s=14, facecolor="none", edgecolor=COLOURS["control"], lw=1, zorder=3)
    axes.scatter(true[chosen], predicted[chosen], s=20, color=COLOURS["predicted"], lw=0, zorder=4)
    line = np.linspace(limits[0], limits[1], 30)
    ends = predicted[chosen] if intervals is None else np.fmax(predicted, intervals[:, 1])[chosen]
    ways = np.column_stack([np.tile(true[chosen], 8), np.linspace(control[chosen], ends, 8).ravel()])
    name_places(
        figure,
        axes,
        list(named),
        np.column_stack([true, predicted])[chosen],
        np.concatenate([np.column_stack([line, line]), ways]),
    )
    return figure


@house_style()
def components(cells_of: Mapping[str, Floats], shares: tuple[float, float]) -> Figure:
    """Cells of each population in the first two principal components of all of them together.

    Large marks are the means; arrows lead from the mean of control to the others.

    Parameters
    ----------
    cells_of
        Name (``control``, ``true``, ``predicted``) to (cells, 2) coordinates.
    shares
        Share of all variance along each of the two.
    """
    figure = Figure(figsize=(WIDE, 4.0))
    axes = figure.add_subplot()
    rng = np.random.default_rng(0)
    drawn = {name: np.array_split(rng.permutation(cells), _TURNS) for name, cells in cells_of.items()}
    # Drawn in turns, so that no population lies on top of another.
    for turn in range(_TURNS):
        for name, parts in drawn.items():
            _dots(axes, parts[turn], COLOURS[name], alpha=0.5)
    axes.update_datalim(np.concatenate(list(cells_of.values())))
    axes.autoscale_view()
    centres = {name: cells.mean(axis=0) for name, cells in cells_of.items()}
    for name, centre in centres.items():
        if name != "control":
            arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.2, "shrinkA": 0, "shrinkB": 5}
            axes.annotate("", xy=tuple(centre), xytext=tuple(centres["control"]), arrowprops=arrow)
    for name, centre in centres.items():
        marker = MARKERS[name]
        axes.plot(*centre, marker, ms=9, mfc=COLOURS[name], mec=INK, mew=1.2, ls="none", label=name, zorder=4)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"PC1 ({shares[0]:.0%} of variance)")
    axes.set_ylabel(f"PC2 ({shares[1]:.0%})")
    figure.legend(loc="outside upper center", ncols=3, handletextpad=0.2, columnspacing=1.4)
    return figure


@house_style()
def cells_by_name(
    places: Floats, names: Sequence[str], colours: Mapping[str, str], *, named: Sequence[str] = ()
) -> Figure:
    """Cells in two dimensions, coloured by what they are.

    Parameters
    ----------
    places
        (cells, 2).
    names
        What each cell is.
    colours
        By name.
    named
        Names to write where their cells are densest.
    """
    figure = Figure(figsize=(PANEL, 3.1))
    axes = figure.add_subplot()
    kinds = np.array(names)
    rng = np.random.default_rng(0)
    # Drawn in turns, so that no kind lies on top of another.
    for turn in np.array_split(rng.permutation(len(kinds)), _TURNS):
        for name, colour in colours.items():
            _dots(axes, places[turn[kinds[turn] == name]], colour)
    axes.update_datalim(places)
    axes.autoscale_view()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set(xlabel="UMAP 1", ylabel="UMAP 2")
    present = [name for name in named if (kinds == name).any()]
    if present:
        name_places(figure, axes, present, np.stack([_densest(places[kinds == name]) for name in present]))
    return figure


def _densest(places: Floats) -> Floats:
    """The cell whose nearest others are nearest: cells of one kind may lie in several clouds, with nothing between."""
    some = places[:: 1 + len(places) // 500]
    gaps = np.linalg.norm(some[:, None] - some[None], axis=2)
    near = np.partition(gaps, min(20, len(some) - 1), axis=1)[:, min(20, len(some) - 1)]
    return np.asarray(some[int(np.argmin(near))])


def _dots(axes: Axes, places: Floats, colour: str, alpha: float = 0.85) -> None:
    """Draw dots as one path of strokes without length and with round ends: sharp, and a tenth of the bytes of marks."""
    if len(places) == 0:
        return
    path = Path(np.repeat(places, 2, axis=0), [Path.MOVETO, Path.LINETO] * len(places))
    path.should_simplify = False  # or the strokes without length would go
    axes.add_patch(PathPatch(path, fill=False, ec=colour, lw=3, capstyle="round", alpha=alpha))
