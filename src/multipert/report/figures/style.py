"""What all figures share: colours, marks, sizes, axes and names beside dots.

Colours are Okabe and Ito's, told apart by all eyes and legible on light and dark paper; wherever a colour speaks,
order, shape or a word says the same. Many models would need many colours, so colour names the family only; the best
model of each family is drawn with its mark, the others as faint dots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from adjustText import adjust_text  # type: ignore[import-untyped]
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from multipert.report.svg import CLASS, INK

Floats = NDArray[np.float64]

PANEL = 3.6
"""Width of a panel in inches: 260 points, which a phone enlarges a little and a wide page as much, three in a row."""
SMALL, WIDE = 2.5, 4.4
"""Width of panels of which four stand in a row, and of those that hold many names."""

COLOURS = {"control": "#8c8c8c", "true": "#0072b2", "predicted": "#d55e00"}
"""The three populations, in the order they are always shown."""
MARKERS = {"control": "o", "true": "s", "predicted": "^"}

NAME = 16
"""Characters of a name on an axis."""


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


def mark_of(family: str) -> Mark:
    """How a family is drawn."""
    return FAMILIES.get(family, OTHER)


def short(name: str, most: int = NAME) -> str:
    """A name that fits."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def name_places(figure: Figure, axes: Axes, names: Sequence[str], places: Floats, others: Floats | None = None) -> None:
    """Write a name beside each place, off each other and off other dots, tied to its place by a thin line.

    Parameters
    ----------
    figure, axes
        Where; the limits are set already.
    names
        What to write.
    places
        (names, 2) in the units of the axes.
    others
        (dots, 2) what the names had better not cover.
    """
    if not names:
        return
    FigureCanvasAgg(figure)  # measures the texts
    figure.draw_without_rendering()  # only now is it known where the axes lie
    figure.set_layout_engine("none")  # and there they stay: names take no room from them
    texts = [axes.text(x, y, short(name, 22), fontsize=9, zorder=5) for name, (x, y) in zip(names, places, strict=True)]
    dots = places if others is None else np.concatenate([places, others])
    tie = {"arrowstyle": "-", "color": INK, "lw": 0.5, "alpha": 0.6}
    adjust_text(texts, dots[:, 0], dots[:, 1], ax=axes, arrowprops=tie, iter_lim=100, **MOVES)
    for text in texts:
        text.set_gid(f"{CLASS}label")


MOVES = {"expand": (1.2, 1.5), "force_text": (0.8, 1.2), "force_static": (0.3, 0.4), "force_explode": (0.8, 1.2)}
"""How far adjustText pushes names apart."""


def dose_axis(axes: Axes, doses: Sequence[float]) -> None:
    """A logarithmic axis of doses, each marked; of close ones every second is named."""
    axes.set_xscale("log")
    axes.set_xlabel("dose")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(list(doses)))
    often = 1 if len(doses) <= 6 else 2
    named = {float(dose) for dose in list(doses)[::-often]}
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value in named else ""))


def nice(low: float, high: float) -> list[float]:
    """Values to be marked on a logarithmic axis: 1, 2 and 5 of each decade, or decades alone where they are many."""
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 60 else (1,)
    return [float(step * 10**decade) for decade in decades for step in steps]


def plain(value: float) -> str:
    """A tick of a logarithmic axis: 0.01, 5, 200, 10k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size and value >= 1e4:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def shades(names: Sequence[str]) -> dict[str, str]:
    """Colours from light to dark for names in an order, as doses have."""
    ramp = colormaps["viridis_r"]
    places = np.linspace(0.12, 1.0, len(names))
    return {name: to_hex(ramp(place)) for name, place in zip(names, places, strict=True)}


PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7b52b9", "#8a6d3b", "#b5b800", "#5b8c85")
"""Colours for names without an order; what is coloured so is named beside."""


def distinct(names: Sequence[str]) -> dict[str, str]:
    """Colours for names without an order; they come again where the names are many."""
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}
