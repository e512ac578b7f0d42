"""The pictures of the explanations, drawn from the models themselves."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

BLUE, ORANGE, GREY, PALE = "#0b6e99", "#c2410c", "0.45", "#d7e9f1"


def film_autoencoder(n_genes: int, n_conditions: int, hidden: Sequence[int], latent: int) -> Figure:
    """The network of the multi-task family: its layers as bars as high as they are wide, the condition beside them."""
    widths = [n_genes, *hidden, latent, *reversed(hidden), n_genes]
    names = ["control\ncell", *["hidden"] * len(hidden), "latent", *["hidden"] * len(hidden), "predicted\ncell"]
    figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    height = np.log2(widths)
    for place, (width, name, tall) in enumerate(zip(widths, names, height, strict=True)):
        steered = len(hidden) + 1 < place < len(widths) - 1
        colour = BLUE if place == len(hidden) + 1 else ORANGE if steered else GREY
        axes.bar(place, tall, 0.28, bottom=-tall / 2, color=colour, alpha=0.85)
        axes.text(place, tall / 2 + 0.4, f"{name}\n(cells, {width:,})", ha="center", va="bottom")
        if place:
            axes.add_patch(_arrow((place - 0.84, 0), (place - 0.16, 0), GREY))
        if steered:
            axes.add_patch(_arrow((place, -11.2), (place, -tall / 2 - 0.2), ORANGE))
            axes.text(place + 0.08, -8.6, "gamma(c) h + beta(c)", color=ORANGE, va="center")
    end = len(hidden) + 2, len(widths) - 2
    _box(axes, (end[0] - 0.45, -13.4), end[1] - end[0] + 0.9, 2.1, f"condition c\n(cells, {n_conditions})", ORANGE)
    middle = (len(hidden) + 1) / 2
    axes.text(middle, -8.6, "the encoder is told nothing\nof the condition", ha="center", va="center", color=GREY)
    axes.set(xlim=(-0.6, len(widths) - 0.4), ylim=(-13.8, height[0] / 2 + 3.6))
    axes.axis("off")
    return figure


def families(members: dict[str, Sequence[str]]) -> Figure:
    """What is trained, and how often, in each family; under it the models that belong there."""
    steps = {
        "multi-task": ("one model\nfor all perturbations", ["control cell", "encode", "decode | condition", "cell"]),
        "published": ("one model\nfor each perturbation", ["control cell", "encode", "move or translate", "cell"]),
        "baseline": ("arithmetic\non training cells", ["control cell", "mean of the training contexts", "cell"]),
    }
    figure, every = plt.subplots(1, 3, figsize=(8.4, 4.4), layout="constrained")
    for axes, (family, (what, chain)) in zip(every, steps.items(), strict=True):
        axes.text(0.5, 1.0, family, ha="center", weight="bold", size=11)
        axes.text(0.5, 0.955, what, ha="center", va="top", color=GREY)
        place = np.linspace(0.76, 0.38, len(chain))
        for y, step in zip(place, chain, strict=True):
            _box(axes, (0.08, y - 0.04), 0.84, 0.075, step, BLUE)
        for above, below in pairwise(place):
            axes.add_patch(_arrow((0.5, above - 0.045), (0.5, below + 0.04), GREY))
        axes.text(0.5, 0.29, _in_rows(members[family], 2), ha="center", va="top", size=8)
        axes.set(xlim=(0, 1), ylim=(-0.02, 1.05))
        axes.axis("off")
    return figure


def mtcell_steps(
    control: np.ndarray, predicted: np.ndarray, true: np.ndarray, genes: Sequence[str], shown: int
) -> Figure:
    """The four steps of mtcell on cells (cells, genes): means, shares, one gene's values, and who gets them."""
    figure, every = plt.subplots(2, 2, figsize=(7.6, 6.4), layout="constrained")
    for axes, title, of in (
        (every[0, 0], "1. Mean shift of each gene", lambda cells: cells.mean(axis=0)),
        (every[0, 1], "2. Change of the share that expresses it", lambda cells: (cells > 0).mean(axis=0)),
    ):
        x, y = of(predicted) - of(control), of(true) - of(control)
        axes.axline((0, 0), slope=1, color="0.7", linewidth=0.8)
        axes.scatter(x, y, s=8, color=BLUE)
        axes.scatter(x[shown], y[shown], s=40, facecolor="none", edgecolor=ORANGE)
        axes.annotate(genes[shown], (x[shown], y[shown]), xytext=(-8, -12), textcoords="offset points", ha="right")
        axes.set(title=title, xlabel="predicted", ylabel="true")
    axes = every[1, 0]
    for name, cells, colour in (("control", control, GREY), ("predicted", predicted, BLUE), ("true", true, ORANGE)):
        values = np.sort(cells[:, shown][cells[:, shown] > 0])
        axes.step(values, np.linspace(0, 1, len(values)), where="post", color=colour, label=name)
    axes.set(title=f"3. Values of {genes[shown]} where expressed", xlabel="expression", ylabel="share of values below")
    axes.legend(frameon=False)
    axes = every[1, 1]
    axes.axline((0, 0), slope=1, color="0.7", linewidth=0.8)
    axes.scatter(control[:, shown], predicted[:, shown], s=12, color=BLUE, alpha=0.7)
    axes.set(
        title="4. Each cell, moved in its own rank", xlabel=f"{genes[shown]}, control cell", ylabel="predicted cell"
    )
    return figure


def violins(populations: Mapping[str, np.ndarray], genes: Sequence[str]) -> Figure:
    """Each gene's expression in each population of cells (cells, genes), a violin each; a dash at the mean."""
    colours = [GREY, ORANGE, "#7c6fae", BLUE]
    rows = -(-len(genes) // 4)  # four side by side can be read on a phone
    figure, every = plt.subplots(rows, 4, figsize=(5.8, 1.5 * rows), layout="constrained")
    for axes in every.flat[len(genes) :]:
        axes.axis("off")
    for place, (axes, gene) in enumerate(zip(every.flat, genes, strict=False)):
        for x, (cells, colour) in enumerate(zip(populations.values(), colours, strict=True)):
            values = cells[:, place]
            if np.ptp(values) > 0:  # cells that are all alike have a mean and nothing else
                body = axes.violinplot(values, [x], widths=0.85, showextrema=False)["bodies"][0]
                body.set(facecolor=colour, alpha=0.75, linewidth=0)
            axes.hlines(values.mean(), x - 0.35, x + 0.35, color=colour, linewidth=1.5)
        axes.set_title(gene, size=9)
        axes.set(xticks=[], ylim=(-0.1, None))
        axes.tick_params(labelsize=7)
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in colours]
    figure.legend(handles, populations, loc="outside lower center", ncols=len(colours), frameon=False)
    return figure


def _in_rows(names: Sequence[str], each: int) -> str:
    return "\n".join(", ".join(names[start : start + each]) for start in range(0, len(names), each))


def _box(axes: Axes, corner: tuple[float, float], width: float, height: float, text: str, colour: str) -> None:
    style = "round,pad=0,rounding_size=0.02"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=PALE, edgecolor=colour))
    axes.text(corner[0] + width / 2, corner[1] + height / 2, text, ha="center", va="center")


def _arrow(start: tuple[float, float], end: tuple[float, float], colour: str) -> FancyArrowPatch:
    return FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=colour, shrinkA=0, shrinkB=0)
