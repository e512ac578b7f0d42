"""The figures of a study: small panels that stand side by side on a wide page and below each other on a phone.

Many models would need many colours, so colour names the family only; the best model of each family is drawn with its
mark, the others as faint dots. A mark's shape says what its colour says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from multipert.report.figures import COLOURS, Floats
from multipert.report.labels import place_labels
from multipert.report.standing import FLOOR
from multipert.report.svg import CLASS, INK, house_style
from multipert.report.verdict import CEILING

PANEL = 3.6
"""Width of a panel in inches: 260 points, which a phone enlarges a little and a wide page as much, three in a row."""
SMALL, WIDE = 2.5, 4.4
"""Width of panels of which four stand in a row, and of those that hold many names."""


@dataclass(frozen=True)
class Mark:
    """How a family is drawn: its colour, its marker, and the marker as text."""

    colour: str
    marker: str
    sign: str


FAMILIES: Mapping[str, Mark] = {
    "multi-task": Mark("#7b52b9", "o", "●"),
    "published": Mark("#00846b", "s", "■"),
    "baseline": Mark("#a86f00", "^", "▲"),
}
OTHER = Mark("#808080", "D", "◆")
"""Families that others registered."""

_POINTS = 56  # of a density
_TURNS = 4  # of drawing cells
_LOG_FROM = 4.0  # ratios that span more than this factor are drawn on a logarithmic axis
_NAME = 16  # characters of a context's name


def mark_of(family: str) -> Mark:
    """How a family is drawn."""
    return FAMILIES.get(family, OTHER)


@house_style()
def metric_by_row(table: pd.DataFrame, families: Mapping[str, str], best: Sequence[str], *, ratio: bool) -> Figure:
    """One metric of every model, a row of dots for each context (or perturbation).

    Parameters
    ----------
    table
        Rows to be drawn from the top; columns by label, floor and ceiling among them.
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
    axes.plot(table[CEILING], rows, "|", ms=13, mec=INK, mew=1.6, zorder=1)
    for label in reversed(best):
        mark = mark_of(families[label])
        axes.plot(table[label], rows, mark.marker, ms=6.5, mfc=mark.colour, mec=INK, mew=0.7, ls="none", zorder=3)
    axes.set_yticks(rows, [_short(str(name)) for name in table.index])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(table) - 0.5, -0.5)
    return figure


@house_style()
def metric_by_dose(
    table: pd.DataFrame, doses: Sequence[float], families: Mapping[str, str], best: Sequence[str], *, ratio: bool
) -> Figure:
    """One metric of every model against the dose.

    Parameters
    ----------
    table
        A row for each dose; columns by label, floor and ceiling among them.
    doses
        All above 0.
    families, best, ratio
        As for ``metric_by_row``.
    """
    figure = Figure(figsize=(PANEL, 2.2))
    axes = figure.add_subplot()
    _dose_axis(axes, doses)
    table = _value_axis(axes, "y", table, ratio=ratio)
    for label, family in families.items():
        if label not in best:
            axes.plot(doses, table[label], color=mark_of(family).colour, lw=0.9, alpha=0.4)
    axes.plot(doses, table[FLOOR], color=COLOURS["control"], lw=1.4, ls=(0, (1.5, 1.5)))
    axes.plot(doses, table[CEILING], color=INK, lw=1.2, ls=(0, (5, 2)))
    for label in reversed(best):
        mark = mark_of(families[label])
        axes.plot(doses, table[label], color=mark.colour, lw=1.6, marker=mark.marker, ms=5, mec=INK, mew=0.5)
    return figure


@house_style()
def gene_by_context(groups: Mapping[str, Sequence[Floats]]) -> Figure:
    """Distributions of one gene's expression: a group of lying half violins for each context.

    Parameters
    ----------
    groups
        By context: control, true, and the cells predicted by one model or two, each (cells,).
    """
    lines = max(map(len, groups.values()))
    figure = Figure(figsize=(PANEL, 0.4 + len(groups) * (0.14 * lines + 0.08)))
    axes = figure.add_subplot()
    high = max((float(cells.max()) for cells in _all(groups) if len(cells)), default=1.0) or 1.0
    low = min((float(cells.min()) for cells in _all(groups) if len(cells)), default=0.0)
    grid = np.linspace(low - 0.04 * (high - low), high + 0.06 * (high - low), _POINTS)
    places = []
    for number, group in enumerate(groups.values()):
        top = number * (lines + 0.6)
        places.append(top + (lines - 1) / 2 - 0.4)
        if number:
            axes.axhline(top - 1.1, color=INK, lw=0.4, alpha=0.3)
        for place, cells in enumerate(group):
            if len(cells):
                _ridge(axes, grid, cells, top + place, place)
    axes.set_yticks(places, [_short(context) for context in groups])
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
    density = np.exp(-0.5 * ((grid[:, None] - cells) / width) ** 2).sum(axis=1)
    return np.asarray(density / density.max())


def _all(groups: Mapping[str, Sequence[Floats]]) -> list[Floats]:
    return [cells for group in groups.values() for cells in group]


@house_style()
def dose_response(doses: Sequence[float], control: float, true: Floats, predicted: Sequence[Floats]) -> Figure:
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
    _dose_axis(axes, doses)
    axes.axhline(control, color=COLOURS["control"], lw=1.6, ls=(0, (1.5, 1.5)))
    styles = (("-", COLOURS["predicted"]), ((0, (4, 2)), "none"))
    for values, (dashes, fill) in reversed(list(zip(predicted, styles, strict=False))):
        colour = COLOURS["predicted"]
        axes.plot(doses, values, color=colour, ls=dashes, lw=1.4, marker="^", ms=5.5, mfc=fill, mec=colour)
    axes.plot(doses, true, color=COLOURS["true"], lw=1.6, marker="s", ms=5)
    axes.yaxis.set_major_locator(MaxNLocator(4))
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
        middles = np.stack([_densest(places[kinds == name]) for name in present])
        _name(figure, axes, present, middles)
    return figure


def _densest(places: Floats) -> Floats:
    """The cell whose nearest others are nearest: cells of one kind may lie in several clouds, with nothing between."""
    some = places[:: 1 + len(places) // 500]
    gaps = np.linalg.norm(some[:, None] - some[None], axis=2)
    near = np.partition(gaps, min(20, len(some) - 1), axis=1)[:, min(20, len(some) - 1)]
    return np.asarray(some[int(np.argmin(near))])


def _dots(axes: Axes, places: Floats, colour: str) -> None:
    """Draw dots as one path of strokes without length and with round ends: sharp, and a tenth of the bytes of marks."""
    if len(places) == 0:
        return
    path = Path(np.repeat(places, 2, axis=0), [Path.MOVETO, Path.LINETO] * len(places))
    path.should_simplify = False  # or the strokes without length would go
    axes.add_patch(PathPatch(path, fill=False, ec=colour, lw=3, capstyle="round", alpha=0.85))


@house_style()
def training(history: pd.DataFrame, loss: str) -> Figure:
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
        By label, the share of the way from floor to ceiling; what is below -1 is drawn at the edge.
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
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    _few_decades(axes)
    axes.set(xlabel=name, ylabel="gap closed, %")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    across = np.geomspace(*axes.get_xlim(), 80)
    lines = [np.column_stack([across, np.full(80, level)]) for level in (0.0, 100.0)]
    _name(figure, axes, labels, np.column_stack([x, y]), avoid=np.concatenate(lines))
    return figure


def _name(figure: Figure, axes: Axes, names: Sequence[str], places: Floats, *, avoid: Floats | None = None) -> None:
    """Write a name beside each place, off the others and off what is to be avoided."""
    size = 9.0
    figure.draw_without_rendering()  # only now is it known where the axes lie
    dots = axes.transData.transform(places)
    texts = [_short(name, 22) for name in names]
    sizes = np.array([(0.58 * size * len(text), 1.15 * size) for text in texts])
    box = axes.get_window_extent()
    others = dots if avoid is None else np.concatenate([dots, axes.transData.transform(avoid)])
    centres = place_labels(dots, sizes, (box.x0, box.y0, box.x1, box.y1), others)
    for text, dot, centre, place in zip(texts, dots, centres, places, strict=True):
        tie = {"arrowstyle": "-", "color": INK, "lw": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3}
        label = axes.annotate(
            text,
            xy=tuple(place),
            xytext=tuple(centre - dot),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            arrowprops=tie,
            zorder=5,
        )
        label.set_gid(f"{CLASS}label")
        label.set_in_layout(False)  # or the axes would move away from where the labels were placed


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
        axis.set_major_locator(FixedLocator(_nice(low, high)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
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
    bounds = table[[FLOOR, CEILING]].to_numpy(dtype=np.float64)
    bounds = bounds[np.isfinite(bounds)]
    if len(bounds) == 0 or len(values) == 0:
        return low, high
    gap = float(np.ptp(bounds))
    most = np.quantile(values, [0.1, 0.9])
    return (
        max(low, min(float(bounds.min()) - gap, float(most[0]))),
        min(high, max(float(bounds.max()) + gap, float(most[1]))),
    )


def _nice(low: float, high: float) -> list[float]:
    """Values to be marked on a logarithmic axis: 1, 2 and 5 of each decade, or decades alone where they are many."""
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 60 else (1,)
    return [float(step * 10**decade) for decade in decades for step in steps]


def _dose_axis(axes: Axes, doses: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("dose")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(list(doses)))
    # Of close doses every second is named.
    often = 1 if len(doses) <= 6 else 2
    named = {float(dose) for dose in list(doses)[::-often]}
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value in named else ""))


def _few_decades(axes: Axes) -> None:
    low, high = axes.get_xlim()
    ticks = _nice(low, high)
    inside = [tick for tick in ticks if low <= tick <= high]
    axes.xaxis.set_major_locator(FixedLocator(inside[:: 1 + len(inside) // 7]))


def _plain(value: float) -> str:
    """A tick of a logarithmic axis: 0.01, 5, 200, 10k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size and value >= 1e4:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _short(name: str, most: int = _NAME) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def shades(names: Sequence[str]) -> dict[str, str]:
    """Colours from light to dark for names in an order, as doses have."""
    ramp = colormaps["viridis_r"]
    places = np.linspace(0.12, 1.0, len(names))
    return {name: _hex(ramp(place)) for name, place in zip(names, places, strict=True)}


PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7b52b9", "#8a6d3b", "#b5b800", "#5b8c85")
"""Colours for names without an order; what is coloured so is named beside."""


def distinct(names: Sequence[str]) -> dict[str, str]:
    """Colours for names without an order; they come again where the names are many."""
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}


def _hex(colour: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour[:3])
