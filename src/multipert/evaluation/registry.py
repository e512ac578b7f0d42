"""The one list of metrics: the command line, the documentation and every table read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from multipert.data.expression import Floats
from multipert.errors import InputError
from multipert.evaluation.populations import Comparison
from multipert.registry import Registry

Better: TypeAlias = Literal["high", "low", "one"]
Space: TypeAlias = Literal["genes", "components"]
Needs: TypeAlias = Literal["log-normalised", "counts"]
Guess: TypeAlias = Literal["cells", "others", "all", "control"]
ScoreOne: TypeAlias = Callable[[Comparison], float]
ScoreSeveral: TypeAlias = Callable[[Sequence[Comparison]], Floats]
Caveat: TypeAlias = Callable[[Comparison], str]


@dataclass(frozen=True)
class Metric:
    """A metric and what a reader must know of it.

    Parameters
    ----------
    name
        The column it fills.
    function
        Scores one comparison; or, with ``several``, all perturbations at once; none for those of raw counts, which a
        profile scores together.
    better
        Which way is better: ``"high"``, ``"low"``, or ``"one"`` (the nearer to 1).
    range
        Lowest and highest possible value.
    meaning
        One line for a reader.
    source
        Where the definition comes from.
    space
        What cells are compared by: their genes, or their principal components. Metrics of the two spaces share
        nothing, so they are computed side by side.
    several
        Whether a score needs several perturbations to be told apart.
    group
        The heading under which a report draws it; an empty string where it is told in tables alone.
    ratio
        Whether it is the distance to the truth over that to control, to be read against 1.
    shares_control
        Whether noise of the control cells enters on the true and on the predicted side. Where the prediction was made
        from the very control cells it is scored with, such a score is taken in crossed halves (``Comparison.crossed``).
    same_as
        The metric that has the same value in every row, so that tables can leave this one out.
    guess
        What calibration hands in as a guess: ``"cells"`` of other perturbations; or, where a single mean profile can be
        the prediction, the mean of the ``"others"``, of ``"all"`` perturbations (for what ranks them) or of
        ``"control"`` (for what is centred on the others).
    caveat
        What must be said beside this score of this comparison; an empty string when nothing.
    needs
        What it reads of cells: their log-normalised expression, or their raw counts.
    """

    name: str
    function: ScoreOne | ScoreSeveral | None
    better: Better
    range: tuple[float, float]
    meaning: str
    source: str
    space: Space = "genes"
    several: bool = False
    group: str = ""
    ratio: bool = False
    shares_control: bool = False
    same_as: str | None = None
    guess: Guess = "cells"
    caveat: Caveat | None = None
    needs: Needs = "log-normalised"

    def shortfall(self, scores: Floats) -> Floats:
        """Turn scores so that lower is better: themselves, negated, or their distance from 1."""
        if self.better == "one":
            return np.abs(scores - 1)
        return -scores if self.better == "high" else scores


METRICS: Registry[Metric] = Registry("metric", "multipert.metrics")
"""Every metric by name, in the order of the tables; then those of installed packages."""


def metric(
    *,
    better: Better,
    range: tuple[float, float],
    meaning: str,
    source: str,
    space: Space = "genes",
    group: str = "",
    ratio: bool = False,
    shares_control: bool = False,
    same_as: str | None = None,
    guess: Guess = "cells",
    caveat: Caveat | None = None,
) -> Callable[[ScoreOne], ScoreOne]:
    """Enter a function of one comparison as a metric named like the function; parameters as of :class:`Metric`.

    Raises
    ------
    InputError
        Another metric has that name.
    """

    def enter(function: ScoreOne) -> ScoreOne:
        name = function.__name__
        entry = Metric(
            name,
            function,
            better,
            range,
            meaning,
            source,
            space,
            False,
            group,
            ratio,
            shares_control,
            same_as,
            guess,
            caveat,
        )
        METRICS.add(name, entry)
        return function

    return enter


def metric_of_several(
    *, better: Better, range: tuple[float, float], meaning: str, source: str, guess: Guess = "cells"
) -> Callable[[ScoreSeveral], ScoreSeveral]:
    """Enter a function of all perturbations (one comparison each, one score each) as a metric."""

    def enter(function: ScoreSeveral) -> ScoreSeveral:
        name = function.__name__
        METRICS.add(name, Metric(name, function, better, range, meaning, source, several=True, guess=guess))
        return function

    return enter


def default_metrics() -> list[str]:
    """Name ours, without those of other packages, as far as they read log-normalised expression."""
    return [name for name in METRICS.ours if METRICS[name].needs == "log-normalised"]


def choose(names: Iterable[str] | None, *, several: bool) -> list[Metric]:
    """Choose metrics by name; all that apply when ``None``.

    Parameters
    ----------
    names
        Names, in the order wanted; by default ``default_metrics``.
    several
        Whether several perturbations are at hand.

    Raises
    ------
    InputError
        An unknown name, a metric of raw counts, or one that needs several perturbations where there is one.
    """
    if names is None:
        ours = (METRICS[name] for name in default_metrics())
        return [entry for entry in ours if several or not entry.several]
    names = list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in METRICS]:
        raise InputError(f"there is no metric named {', '.join(unknown)}: choose among {', '.join(METRICS)}")
    chosen = [METRICS[name] for name in names]
    if counted := [entry.name for entry in chosen if entry.needs == "counts"]:
        raise InputError(f"{', '.join(counted)} reads raw counts: ask for the profile it belongs to, vcc2026")
    if not several and (lone := [entry.name for entry in chosen if entry.several]):
        raise InputError(f"{', '.join(lone)} needs several perturbations: name the column that tells them apart")
    return chosen
