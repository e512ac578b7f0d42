"""The page of a data check: which responses are there, which carry over, what is amiss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from multipert.evaluation import METRICS, DataCheck
from multipert.evaluation.data_check import SHARED
from multipert.evaluation.responses import LEAST_CELLS, REPRODUCIBLE, SPLITS, each_response
from multipert.report.figures.style import COLOURS, name_places
from multipert.report.frame import render
from multipert.report.numbers import number
from multipert.report.svg import INK, house_style, to_svg

MARKS = {
    "can be predicted": ("●", "o", COLOURS["true"]),
    "differs by context": ("◐", "D", "#cc79a7"),
    "too weak": ("○", "v", COLOURS["predicted"]),
    "too little data": ("\N{MULTIPLICATION SIGN}", "x", COLOURS["control"]),
}
"""What stands for each verdict: in a table, in a figure, and its colour."""

_COLUMNS = (
    ("cells", "cells", "perturbed cells"),
    ("controls", "controls", "control cells of the same context"),
    ("depth_ratio", "depth", "median depth of perturbed over control cells"),
    ("reproducibility", "reproducibility", "correlation of the response in two halves, each with its own controls"),
    ("others", "other contexts", "correlation with the mean response of all other contexts"),
    ("size", "size", "length of the response over all genes, its noise taken off"),
    ("noise", "noise", "length of the sampling noise over all genes"),
    ("genes", "genes", "genes that respond (Wilcoxon, false discovery rate 5 %)"),
    ("cells_needed", "cells needed", "cells of either kind at which two halves would correlate at 0.5"),
)
_NAMED = 8  # responses named in the figure
_PLACE = ["noise", "size"]


@dataclass(frozen=True)
class Cell:
    """A number in a table: as text, as a sorting key, and how deep its colour is."""

    text: str
    key: float
    part: int = 0
    lost: bool = False
    mark: str = ""
    status: str = ""


def check_page(check: DataCheck) -> str:
    """Write the page of a data check.

    Parameters
    ----------
    check
        What was found.

    Returns
    -------
    str
        HTML in one piece: it opens offline, on a phone and on paper.
    """
    groups = check.groups
    contexts = list(dict.fromkeys(groups.index.get_level_values("context")))
    status = groups["status"].value_counts()
    fit = int(status.get("can be predicted", 0))
    return render(
        "check.html.j2",
        check=check,
        contexts=contexts,
        perturbations=list(check.perturbations.index),
        tone="won" if fit == len(groups) else ("partly" if fit else "lost"),
        marks=[(sign, name, int(status.get(name, 0))) for name, (sign, _, _) in MARKS.items()],
        map=_map(groups, contexts, list(check.perturbations.index)),
        columns=_COLUMNS,
        rows=[_row(index, row) for index, row in each_response(groups)],
        shared=_shared(check.perturbations) if len(contexts) > 1 else [],
        similarity=_similarity(check.similarity) if len(contexts) > 1 else [],
        figure=_figure(groups),
        metrics=_metrics(check.metrics),
        least_cells=LEAST_CELLS,
        reproducible=REPRODUCIBLE,
        shared_from=SHARED,
        splits=SPLITS,
    )


def _map(groups: pd.DataFrame, contexts: Sequence[str], perturbations: Sequence[str]) -> list[tuple[str, list[Cell]]]:
    """Reproducibility of every perturbation (rows) in every context (columns)."""
    found = {}
    for place, row in each_response(groups):
        value, status = float(row["reproducibility"]), str(row["status"])
        depth = int(100 * np.clip(value, 0, 1)) if np.isfinite(value) else 0
        found[place] = Cell(number(value, 2), value, depth, False, MARKS[status][0], status)
    missing = Cell("not measured", np.nan)
    return [(what, [found.get((where, what), missing) for where in contexts]) for what in perturbations]


def _row(index: tuple[str, str], row: pd.Series[Any]) -> tuple[tuple[str, str], list[Cell], str, str]:
    """One response: where, its numbers, and the verdict on it."""
    whole = {"cells", "controls", "genes", "cells_needed"}
    cells = []
    for name, _, _ in _COLUMNS:
        value = float(row[name])
        text = f"{value:,.0f}" if name in whole and np.isfinite(value) else number(value, 2)
        cells.append(Cell(text, value))
    return index, cells, str(row["status"]), MARKS[row["status"]][0]


def _shared(perturbations: pd.DataFrame) -> list[tuple[str, int, int, Cell]]:
    """Of each perturbation: contexts, those where it is reproducible, and how much they have in common."""
    return [
        (
            str(name),
            int(row["contexts"]),
            int(row["reproducible"]),
            Cell(number(row["shared"], 2), float(row["shared"])),
        )
        for name, row in perturbations.iterrows()
    ]


def _similarity(table: pd.DataFrame) -> list[tuple[str, list[Cell]]]:
    rows = []
    for context, values in table.iterrows():
        cells = [
            Cell(number(value, 2), value, int(100 * min(abs(value), 1)) if np.isfinite(value) else 0, value < 0)
            for value in map(float, values)
        ]
        rows.append((str(context), cells))
    return rows


def _metrics(table: pd.DataFrame) -> list[tuple[str, str, Cell, Cell, bool]]:
    """Of each metric: name, meaning, dynamic range, bound discrimination, whether it can tell."""
    return [
        (
            str(name),
            METRICS[str(name)].meaning,
            Cell(number(row["drf"], 2), float(row["drf"])),
            Cell(number(row["bds"], 2), float(row["bds"])),
            bool(row["can_tell"]),
        )
        for name, row in table.iterrows()
    ]


def _figure(groups: pd.DataFrame) -> Markup:
    """Draw size beside noise."""
    known = groups[np.isfinite(groups["noise"])]
    return to_svg(
        size_beside_noise(known),
        "size",
        title="Size of every response beside its noise",
        description=f"{len(known)} responses; those above the diagonal are larger than their sampling noise.",
    )


@house_style()
def size_beside_noise(groups: pd.DataFrame) -> Figure:
    """Draw the length of each response against that of its sampling noise.

    Parameters
    ----------
    groups
        A row for each response: ``size``, ``noise``, ``status``; the index names context and perturbation.
    """
    figure = Figure(figsize=(4.7, 4.0))
    axes = figure.add_subplot()
    high = 1.08 * float(np.nanmax([*groups["noise"], *groups["size"], 1e-9]))
    right = 1.25 * float(np.nanmax([*groups["noise"], 1e-9]))
    axes.plot([0, high], [0, high], color=INK, lw=0.7, ls=(0, (4, 3)), zorder=1)
    for name, (_, marker, colour) in MARKS.items():
        part = groups[groups["status"] == name]
        if len(part):
            edge = colour if marker == "x" else INK
            axes.plot(
                part["noise"],
                part["size"],
                marker,
                ms=6,
                mfc=colour,
                mec=edge,
                mew=1.3 if marker == "x" else 0.6,
                label=name,
                ls="none",
            )
    axes.set(xlim=(0, right), ylim=(-0.02 * high, high), xlabel="length of sampling noise", ylabel="length of response")
    figure.legend(loc="outside upper center", ncols=2, handletextpad=0.2, columnspacing=1.2)
    found = groups[groups["status"].isin(["can be predicted", "differs by context"])]
    clear = (found["size"] / found["noise"]).sort_values(ascending=False).index[:_NAMED]
    several = groups.index.get_level_values("perturbation").nunique() > 1
    alone = groups.index.get_level_values("context").nunique() == 1
    names = [what if alone else f"{what}, {where}" if several else where for where, what in clear]
    name_places(figure, axes, names, found.loc[clear, _PLACE].to_numpy(), groups[_PLACE].to_numpy())
    return figure
