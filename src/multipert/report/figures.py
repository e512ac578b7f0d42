"""The figures: each a function of data, none that knows where it will be shown.

Colours are Okabe and Ito's, told apart by all eyes and legible on light and dark paper; wherever a colour speaks,
order, shape or a word says the same.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from multipert.report.labels import place_labels
from multipert.report.svg import CLASS, INK, house_style

Floats = NDArray[np.float64]

COLOURS = {"control": "#8c8c8c", "true": "#0072b2", "predicted": "#d55e00"}
"""The three populations, in the order they are always shown."""

_SHORT = {"control": "ctrl", "true": "true", "predicted": "pred."}
_MARKERS = {"control": "o", "true": "s", "predicted": "^"}
_MOST_CELLS = 2_000  # of a population in a scatter: more would only hide each other
_LABEL_SIZE = 9.5


@house_style()
def mean_expression(true: Floats, predicted: Floats, control: Floats, named: Mapping[str, int]) -> Figure:
    """Mean expression of each gene, predicted against true, with some genes named.

    A named gene also shows, as a ring, where its control mean would put it: the way the model moved it.

    Parameters
    ----------
    true, predicted, control
        (genes,) mean expression.
    named
        The genes to name: name to index.
    """
    figure = Figure(figsize=(4.7, 4.5))
    axes = figure.add_subplot()
    chosen = np.fromiter(named.values(), dtype=np.int64, count=len(named))
    shown = np.concatenate([true, predicted, control[chosen]])
    low, high = min(0.0, float(shown.min())), float(shown.max()) or 1.0
    margin = 0.05 * (high - low)
    limits = (low - margin, high + margin)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="true mean", ylabel="predicted mean")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.plot(limits, limits, color=INK, lw=0.7, ls=(0, (4, 3)), zorder=1)
    axes.scatter(true, predicted, s=7, color=COLOURS["control"], alpha=0.55, lw=0, rasterized=True, zorder=2)
    axes.vlines(true[chosen], control[chosen], predicted[chosen], color=COLOURS["predicted"], lw=0.8, alpha=0.6)
    axes.scatter(true[chosen], control[chosen], s=14, facecolor="none", edgecolor=COLOURS["control"], lw=1, zorder=3)
    axes.scatter(true[chosen], predicted[chosen], s=20, color=COLOURS["predicted"], lw=0, zorder=4)
    _name_dots(figure, axes, list(named), true, predicted, control, chosen)
    return figure


def _name_dots(
    figure: Figure,
    axes: Axes,
    names: Sequence[str],
    true: Floats,
    predicted: Floats,
    control: Floats,
    chosen: NDArray[np.int64],
) -> None:
    """Write names beside the chosen dots, each tied to its dot by a thin line."""
    if not names:
        return
    figure.draw_without_rendering()  # only now is it known where the axes lie
    dots = axes.transData.transform(np.column_stack([true, predicted]))
    # The ways from the control means to the dots.
    ways = np.linspace(control[chosen], predicted[chosen], 8)
    moves = axes.transData.transform(np.column_stack([np.tile(true[chosen], 8), ways.ravel()]))
    line = np.linspace(axes.transAxes.transform((0, 0)), axes.transAxes.transform((1, 1)), 60)
    texts = [name if len(name) <= 18 else f"{name[:17]}…" for name in names]
    sizes = np.array([(0.62 * _LABEL_SIZE * len(text), 1.2 * _LABEL_SIZE) for text in texts])
    box = axes.get_window_extent()
    others = np.concatenate([dots, moves, line])
    centres = place_labels(dots[chosen], sizes, (box.x0, box.y0, box.x1, box.y1), others)
    for text, dot, centre, gene in zip(texts, dots[chosen], centres, chosen, strict=True):
        label = axes.annotate(
            text,
            xy=(true[gene], predicted[gene]),
            xytext=tuple(centre - dot),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_LABEL_SIZE,
            arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 2},
            zorder=5,
        )
        label.set_gid(f"{CLASS}label")
        label.set_in_layout(False)  # or the axes would move away from where the labels were placed


@house_style()
def violins(populations: Mapping[str, Floats]) -> Figure:
    """Distribution of one gene's expression in each population.

    Parameters
    ----------
    populations
        Name (``control``, ``true``, ``predicted``) to (cells,) expression.
    """
    figure = Figure(figsize=(2.2, 1.9))
    axes = figure.add_subplot()
    for place, (name, values) in enumerate(populations.items()):
        axes.violinplot(
            [values],
            [place],
            widths=0.85,
            showextrema=False,
            points=120,
            facecolor=(COLOURS[name], 0.75),
            linecolor=COLOURS[name],
        )
        mean = float(values.mean())
        axes.plot([place - 0.26, place + 0.26], [mean, mean], color=INK, lw=1.6, solid_capstyle="round")
    axes.set_xticks(range(len(populations)), [_SHORT[name] for name in populations])
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlim(-0.6, len(populations) - 0.4)
    axes.set_ylim(bottom=min(0.0, *(float(values.min()) for values in populations.values())))
    return figure


@house_style()
def components(populations: Mapping[str, Floats], shares: tuple[float, float]) -> Figure:
    """Cells of each population in the first two principal components of all of them together.

    Large marks are the means; arrows lead from the mean of control to the others.

    Parameters
    ----------
    populations
        Name (``control``, ``true``, ``predicted``) to (cells, components) coordinates.
    shares
        Share of all variance along each of the two.
    """
    figure = Figure(figsize=(4.7, 4.3))
    axes = figure.add_subplot()
    rng = np.random.default_rng(0)
    drawn = {name: rng.permutation(_plane(cells))[:_MOST_CELLS] for name, cells in populations.items()}
    # All in one random order, so that no population lies on top of another.
    order = rng.permutation(sum(map(len, drawn.values())))
    cells = np.concatenate(list(drawn.values()))[order]
    colours = np.repeat([COLOURS[name] for name in drawn], [len(part) for part in drawn.values()])[order]
    size = float(np.clip(9_000 / len(cells), 4, 16))
    axes.scatter(cells[:, 0], cells[:, 1], s=size, c=colours, alpha=0.5, lw=0, rasterized=True)
    centres = {name: _plane(cells).mean(axis=0) for name, cells in populations.items()}
    for name, centre in centres.items():
        if name != "control":
            arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.2, "shrinkA": 0, "shrinkB": 5}
            axes.annotate("", xy=tuple(centre), xytext=tuple(centres["control"]), arrowprops=arrow)
    for name, centre in centres.items():
        marker = _MARKERS[name]
        axes.plot(*centre, marker, ms=9, mfc=COLOURS[name], mec=INK, mew=1.2, ls="none", label=name, zorder=4)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"PC1 ({shares[0]:.0%} of variance)")
    axes.set_ylabel(f"PC2 ({shares[1]:.0%})")
    figure.legend(loc="outside upper center", ncols=3, handletextpad=0.2, columnspacing=1.4)
    return figure


def _plane(cells: Floats) -> Floats:
    """(cells, 2) the first two components; the second is 0 where there is only one."""
    return np.pad(cells, ((0, 0), (0, max(0, 2 - cells.shape[1]))))[:, :2]


@house_style()
def training_curve(history: pd.DataFrame, loss: str) -> Figure:
    """One loss over all epochs, in training and in validation.

    Parameters
    ----------
    history
        A row for each epoch: ``stage``, and ``train_<loss>`` and ``validation_<loss>`` as far as there are.
    loss
        Its name.
    """
    figure = Figure(figsize=(4.7, 2.7))
    axes = figure.add_subplot()
    epoch = np.arange(1, len(history) + 1)
    for prefix, name, colour, dashes in (
        ("train", "training", COLOURS["true"], "-"),
        ("validation", "validation", COLOURS["predicted"], (0, (5, 2))),
    ):
        if f"{prefix}_{loss}" in history:
            values = history[f"{prefix}_{loss}"].to_numpy(dtype=np.float64)
            known = np.isfinite(values)
            marker = "o" if known.sum() < 3 else ""
            axes.plot(epoch[known], values[known], color=colour, ls=dashes, lw=1.6, marker=marker, ms=4, label=name)
    stages = history["stage"].to_numpy()
    starts = np.flatnonzero(stages[1:] != stages[:-1]) + 1
    if len(starts):
        for start in (0, *starts):
            if start:
                axes.axvline(start + 0.5, color=INK, lw=0.6, ls=":")
            stage = axes.annotate(
                str(stages[start]),
                (start + 0.7, 1),
                xycoords=("data", "axes fraction"),
                xytext=(2, -2),
                textcoords="offset points",
                va="top",
                fontsize=8.5,
            )
            stage.set_in_layout(False)
    axes.set(xlabel="epoch", ylabel=loss)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.legend(loc="outside upper center", ncols=2)
    return figure
