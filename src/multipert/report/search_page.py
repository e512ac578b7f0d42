"""The page of a search: what was found, how sure that is, what mattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from multipert.benchmark import SearchResults, duration
from multipert.models import Range, model_class, space_in_words
from multipert.report.check_page import Cell
from multipert.report.figures.panels import Panel
from multipert.report.figures.style import COLOURS, SMALL, WIDE, nice, plain, short
from multipert.report.frame import render
from multipert.report.numbers import number
from multipert.report.svg import INK, house_style, to_svg

SIGNS = {"done": "●", "stopped": "○", "failed": "\N{MULTIPLICATION SIGN}", "unfinished": "…"}
"""What stands for how a trial ended."""

LOWEST = -1.0
"""Normalised scores below are drawn at the lower edge where any is above: so far below no change all say the same."""


def search_page(search: SearchResults) -> str:
    """Write the page of a search.

    Parameters
    ----------
    search
        What was found, finished or not.

    Returns
    -------
    str
        HTML in one piece: it opens offline, on a phone and on paper.
    """
    about, trials = search.about, search.trials
    counts = trials["state"].value_counts()
    paired = _paired(search)
    answer, because, tone = _verdict(search, paired)
    return render(
        "search.html.j2",
        about=about,
        search=search,
        tone=tone,
        answer=answer,
        because=because,
        counts=[(SIGNS[state], state, int(counts.get(state, 0))) for state in SIGNS if counts.get(state, 0)],
        took=duration(float(trials["seconds"].sum())),
        paired=[(name, *(_cell(value) for value in row)) for name, *row in paired.itertuples()],
        pairs=to_svg(
            pairs(search, paired), "pairs", title="Best values against those it began with", description=because
        )
        if len(paired)
        else "",
        history=to_svg(
            history(search),
            "history",
            title="The value of every trial, and the best so far",
            description=f"{len(trials)} trials. {answer}",
        ),
        importances=_importances(search),
        slices=[
            (one.caption, to_svg(one.figure, f"slice-{place}", title=one.title, description=one.description))
            for place, one in enumerate(_slices(search))
        ],
        preset=_preset(search),
        rows=[_row(search, row) for _, row in trials.iterrows()],
    )


def _verdict(search: SearchResults, paired: pd.DataFrame) -> tuple[str, str, str]:
    """What was found in a sentence, why, and in which tone."""
    if not len(search.done):
        return "No trial has come to its end yet.", "", "partly"
    best, begun, objective = search.best, search.start, search.about["objective"]
    if not len(paired):
        return (
            f"The best of {len(search.done)} trials has {objective} {number(best['value'], 3)}.",
            "The values it began with have no score to compare it with.",
            "partly",
        )
    if best["trial"] == begun["trial"]:
        return "Nothing was found that beats the values it began with.", "The preset holds those.", "lost"
    difference = paired["difference"]
    better = int((difference > 0).sum())
    where = f"{better} of {len(difference)} inner context{'s' if len(difference) != 1 else ''}"
    answer = (
        f"Trial {best['trial']} has {objective} {number(best['value'], 3)}, against {number(begun['value'], 3)} of the "
        "values it began with."
    )
    because = f"It is better in {where}."
    if len(difference) > 1:
        error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
        because += (
            f" The mean difference is {number(float(difference.mean()), 3)}, with a standard error over contexts of "
            f"{number(error, 3)}."
        )
    if search.about["normalised"] and best["value"] < 0:
        return answer, f"{because} Even so it is worse than predicting no change.", "lost"
    return answer, because, "won" if better == len(difference) else "partly"


def _paired(search: SearchResults) -> pd.DataFrame:
    """Value of the first and of the best trial in each inner context, and the difference."""
    if not len(search.done) or search.start["state"] != "done":
        return pd.DataFrame(columns=["begun", "best", "difference"])
    columns = [f"in {name}" for name in search.contexts]
    begun, best = (one[columns].astype(float).to_numpy() for one in (search.start, search.best))
    return pd.DataFrame({"begun": begun, "best": best, "difference": best - begun}, index=search.contexts)


def _cell(value: float) -> Cell:
    return Cell(number(value, 3), value, lost=value < 0)


# Figures.


@house_style()
def history(search: SearchResults) -> Figure:
    """The value of each trial that was done, the best so far, and where trials were given up."""
    figure = Figure(figsize=(WIDE, 3.2))
    axes = figure.add_subplot()
    done, stopped = search.done, search.trials[search.trials["state"] == "stopped"]
    low, high = _limits(search)
    axes.set_ylim(low, high)
    inside = np.clip(done["value"].to_numpy(float), low, high)
    axes.plot(done["trial"], inside, "o", ms=5, mfc=COLOURS["true"], mec=INK, mew=0.5, label="done")
    if len(stopped):
        edge = np.full(len(stopped), low)
        axes.plot(stopped["trial"], edge, "o", ms=5, mfc="none", mec=INK, mew=0.8, clip_on=False, label="stopped")
    if len(done):
        best = np.clip(np.maximum.accumulate(done["value"].to_numpy(float)), low, high)
        end = [*done["trial"], search.trials["trial"].max()]
        axes.step(end, [*best, best[-1]], where="post", color=COLOURS["predicted"], lw=1.6, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel="trial", ylabel=search.about["objective"])
    figure.legend(loc="outside upper center", ncols=3, handletextpad=0.3, columnspacing=1.2)
    return figure


@house_style()
def pairs(search: SearchResults, paired: pd.DataFrame) -> Figure:
    """Each inner context as a line from the values the search began with to the best ones."""
    figure = Figure(figsize=(WIDE, 0.9 + 0.34 * len(paired)))
    axes = figure.add_subplot()
    places = np.arange(len(paired))[::-1]
    axes.hlines(places, paired["begun"], paired["best"], color=INK, lw=0.8, alpha=0.6)
    axes.plot(paired["begun"], places, "o", ms=6, mfc=COLOURS["control"], mec=INK, mew=0.5, label="began with")
    axes.plot(paired["best"], places, "s", ms=6, mfc=COLOURS["true"], mec=INK, mew=0.5, label="best")
    axes.set_yticks(places, [short(str(name), 26) for name in paired.index])
    axes.set_ylim(-0.6, len(paired) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(search.about["objective"])
    figure.legend(loc="outside upper center", ncols=2, handletextpad=0.2, columnspacing=1.2)
    return figure


def _slices(search: SearchResults) -> Sequence[Panel]:
    """A panel for each parameter: its values against what came of them."""
    if not len(search.done):
        return []
    names = [*search.importances, *(name for name in search.space if name not in search.importances)]
    return [
        Panel(
            value_by(search, name),
            name,
            f"{search.about['objective']} by {name}",
            f"The best trial has {name} {_shown(search.best[name])}; it began with {_shown(search.start[name])}.",
        )
        for name in names
    ]


@house_style()
def value_by(search: SearchResults, name: str) -> Figure:
    """The value of each trial that was done against its value of one parameter; the best and the first stand out."""
    figure = Figure(figsize=(SMALL, 1.9))
    axes = figure.add_subplot()
    space, done = search.space[name], search.done
    low, high = _limits(search)
    if isinstance(space, Range):
        places = {trial: float(value) for trial, value in done[name].items()}
        if space.log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            tried = [float(value) for value in places.values()]
            ticks = [tick for tick in nice(min(tried) / 2, 2 * max(tried)) if min(tried) <= tick <= max(tried)]
            axes.xaxis.set_major_locator(FixedLocator(ticks[:: 1 + len(ticks) // 5] or tried[:1]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
    else:
        choices = [",".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in space]
        # Beside each other where several trials have the same, in their order.
        often = dict(done[name].map(done[name].value_counts()).items())
        among = dict(done.groupby(name).cumcount().items())
        places = {
            trial: choices.index(str(value)) + 0.5 * ((among[trial] + 0.5) / often[trial] - 0.5)
            for trial, value in done[name].items()
        }
        axes.set_xlim(-0.6, len(choices) - 0.4)
        axes.set_xticks(range(len(choices)), [_shown(one) for one in choices], rotation=30 if len(choices) > 4 else 0)
    heights = dict(done["value"].clip(low, high).items())
    axes.plot(
        [places[one] for one in heights],
        list(heights.values()),
        "o",
        ms=4.5,
        mfc=COLOURS["true"],
        mec="none",
        alpha=0.6,
    )
    for trial, marker, colour in ((search.start, "D", COLOURS["control"]), (search.best, "s", COLOURS["predicted"])):
        if trial.name in places:
            axes.plot(places[trial.name], heights[trial.name], marker, ms=6, mfc=colour, mec=INK, mew=0.6)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    return figure


def _limits(search: SearchResults) -> tuple[float, float]:
    """From just below the lowest value that is worth a look to just above the best."""
    values = search.done["value"].to_numpy(float)
    if not len(values):
        return 0.0, 1.0
    high = float(values.max())
    low = float(values.min())
    if search.about["normalised"] and high > LOWEST:
        low = max(low, LOWEST)
    else:
        low = max(low, float(np.median(values)) - 3 * max(high - float(np.median(values)), 1e-9))
    room = 0.06 * max(high - low, 1e-9)
    return low - room, high + room


# Tables.


def _importances(search: SearchResults) -> list[tuple[str, str, Cell]]:
    """Of each parameter: its name, its meaning, the share of the variance that it explains."""
    meanings = _meanings(search)
    return [
        (name, meanings.get(name, ""), Cell(f"{number(100 * share, 0)} %", share, round(100 * share)))
        for name, share in search.importances.items()
    ]


def _preset(search: SearchResults) -> list[tuple[str, str, str, str, str]]:
    """Of each parameter searched: name, meaning, what could be tried, what it began with, what was found."""
    meanings = _meanings(search)
    best = search.best if len(search.done) else None
    return [
        (
            name,
            meanings.get(name, ""),
            space_in_words(space),
            _shown(search.start[name]),
            "" if best is None else _shown(best[name]),
        )
        for name, space in search.space.items()
    ]


def _meanings(search: SearchResults) -> dict[str, str]:
    declared = fields(model_class(search.about["model"]).Parameters)
    return {one.name: one.metadata.get("meaning", "") for one in declared}


def _row(search: SearchResults, row: pd.Series[Any]) -> tuple[Cell, str, str, Cell, Cell, list[Cell], str]:
    """A trial: number, sign and word of its end, value, seconds, parameters, remark."""
    best = bool(len(search.done)) and row["trial"] == search.best["trial"]
    value = float(row["value"])
    remark = row["problem"] or (f"given up {row['stopped']}" if row["stopped"] else "")
    return (
        Cell(str(row["trial"]), float(row["trial"]), mark="★" if best else ""),
        SIGNS[row["state"]],
        row["state"],
        Cell(number(value, 3), value),
        Cell(number(float(row["seconds"]), 1), float(row["seconds"])),
        [Cell(_shown(row[name]), _key(row[name])) for name in search.space],
        remark,
    )


def _shown(value: Any) -> str:
    """A value of a parameter: widths with commas, numbers with three digits that matter."""
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, str):
        return value.replace(",", ", ") or "none"
    return "" if pd.isna(value) else f"{value:.3g}"


def _key(value: Any) -> float:
    """What a column is sorted by: of widths, their sum."""
    if isinstance(value, str):
        parts = [part for part in value.split(",") if part]
        return float(sum(map(float, parts))) if all(part.replace(".", "", 1).isdigit() for part in parts) else 0.0
    return float(value)
