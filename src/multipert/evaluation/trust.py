"""Whether a prediction can be trusted, in words: read from its scores between their bounds.

- **Direction**: ``pearson_delta`` on the way from its floor to its ceiling, where two halves of the truth agree at all;
  of several perturbations also ``perturbed_pearson``, what is the perturbation's own.
- **Size**: ``amplitude``, the slope of predicted on true response.
- **Population**: the judging metric between the better floor and the ceiling, and what a distance overlooks: cells that
  are all alike (``variance_ratio``), genes that no longer hang together (``covariance_distance``).
- **Genes**: how many go the right way (``sign_deg100``) and are found again (``de_recall``).
- **How sure**: the lead over either floor, paired over contexts (over perturbations where there is one context), with a
  95 % t interval. One context cannot tell.

A metric that cannot tell a replicate from a guess on these cells has no say.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import t as student

from multipert.evaluation.registry import METRICS

JUDGE = "edist"
"""The metric that decides: a distance of whole populations that no ratio can flatter."""

BOUNDS_CALLED = {"floor": "doing nothing", "mean_response": "the mean response"}
"""The two floors, as sentences call them."""

REPRODUCIBLE = 0.3
"""Correlation of the response in two halves of the truth from which a direction can be right or wrong."""
RIGHT, PARTLY = 0.7, 0.35
"""Shares of the way from floor to ceiling from which an aspect is right, or partly so."""
RIGHT_SIZE, PARTLY_SIZE = 1.5, 3.0
"""Factors within which a size is right, or partly so."""
OWN = 0.25
"""Share of the way from floor to ceiling below which a response is not this perturbation's own."""
ALIKE = 0.1
"""Below this share of the true variance, predicted cells are called alike."""
INDEPENDENT = 0.8
"""``covariance_distance`` from which genes vary independently of each other."""
REPLICATED = 0.5
"""``covariance_distance`` that a replicate must fall below for that to be told."""
ROUNDING = 1e-6
"""A score that differs from a rival's by less than this share of it is the same."""
FAR = "its population is some way from the true one"
"""What is said of a population that is neither all alike nor without structure, and yet wrong."""
CONFIDENCE = 0.95
"""Of the intervals of a lead."""

State = Literal["right", "partly", "wrong", "unknown"]
Tone = Literal["won", "partly", "lost", "undecided"]


@dataclass(frozen=True)
class Aspect:
    """One side of a prediction: how it is, and a sentence or two with the numbers."""

    name: str
    state: State
    text: str
    fault: str = ""


@dataclass(frozen=True)
class Lead:
    """How much nearer to the truth a prediction is than a rival, paired over units (contexts or perturbations).

    Attributes
    ----------
    rival
        What it is compared with, as sentences call it.
    mean
        Mean over units of the rival's shortfall less the prediction's: above 0 the prediction is ahead.
    low, high
        Ends of the 95 % t interval; NaN for a single unit.
    ahead, n
        In how many of how many units it is ahead.
    unit
        What these are.
    """

    rival: str
    mean: float
    low: float
    high: float
    ahead: int
    n: int
    unit: str

    @property
    def in_full(self) -> str:
        """What the answer itself calls the rival, for those who read no further."""
        return f"{self.rival} seen in training" if self.rival == BOUNDS_CALLED["mean_response"] else self.rival

    @property
    def sure(self) -> bool:
        """Whether it is ahead by more than the units differ by chance."""
        return self.low > 0

    def told(self) -> str:
        """As a clause: by how much, between which ends, in how many units."""
        if self.mean == 0:
            return f"as near as {self.rival}"
        said = f"{'ahead of' if self.mean > 0 else 'behind'} {self.rival} by {_number(abs(self.mean))}"
        if not np.isfinite(self.low):
            return said
        low, high = (self.low, self.high) if self.mean > 0 else (-self.high, -self.low)
        ends = f"{_number(low)} to {_number(high)}"
        return f"{said} (95% interval {ends}; ahead in {self.ahead} of {self.n} {self.unit}s)"


@dataclass(frozen=True)
class Trust:
    """Whether a prediction can be trusted.

    Attributes
    ----------
    tone
        ``won``, ``partly``, ``lost``, or ``undecided`` where the cells cannot tell.
    answer, because
        The answer in a word or two, and one sentence.
    aspects
        Direction, size, population, genes, how sure.
    """

    tone: Tone
    answer: str
    because: str
    aspects: Sequence[Aspect]


def trust(
    table: pd.DataFrame, cannot_tell: Collection[str] | None = None, *, who: str = "The prediction", judge: str = JUDGE
) -> Trust:
    """Judge a prediction by its scores and their bounds.

    Parameters
    ----------
    table
        Columns ``score``, ``floor``, ``mean_response`` (NaN where unknown) and ``ceiling``; the last level of the index
        names the metric, those before it the place, if there are several: ``held_out`` (a context; called ``unseen``
        where it is what training never saw anywhere) and the perturbation. What
        ``scorecard`` gives is such a table.
    cannot_tell
        Metrics that cannot tell a replicate from a guess on these cells; by default those that the table's column
        ``can_tell`` says so of.
    who
        What the sentence calls the prediction.
    judge
        The metric that decides.
    """
    if cannot_tell is None:
        cannot_tell = set(table.index.get_level_values(-1)[~table["can_tell"].to_numpy(dtype=bool)])
    leads = [
        found
        for bound, called in BOUNDS_CALLED.items()
        if bound in table and (found := lead(table, bound, called, judge)) is not None
    ]
    aspects = [
        _direction(table, cannot_tell),
        _size(table),
        _population(table, cannot_tell, judge),
        _genes(table),
        _certainty(leads, judge in cannot_tell),
    ]
    return Trust(*_answer(who, aspects, [] if judge in cannot_tell else leads), aspects)


def lead(table: pd.DataFrame, rival: str, called: str, judge: str = JUDGE) -> Lead | None:
    """Compare a prediction with a column of the table by the judging metric, unit by unit; none where one is NaN."""
    if judge not in table.index.get_level_values(-1):
        return None
    rows = table.xs(judge, level=-1) if table.index.nlevels > 1 else table.loc[[judge]]
    unit, short = _unit(table), METRICS[judge].shortfall
    gap = pd.Series(short(rows[rival].to_numpy(dtype=float)) - short(rows["score"].to_numpy(dtype=float)), rows.index)
    if not np.isfinite(gap).all() or gap.empty:
        return None
    gap[gap.abs() <= ROUNDING * np.abs(rows[rival].astype(float))] = 0.0
    gaps = gap.groupby(level=_level(table, unit)).mean().to_numpy() if table.index.nlevels > 1 else gap.to_numpy()
    mean, n = float(gaps.mean()), len(gaps)
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1) * gaps.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    return Lead(called, mean, mean - half, mean + half, int((gaps > 0).sum()), n, unit)


def _unit(table: pd.DataFrame) -> str:
    """What leads are paired over: contexts, or perturbations where there is one context."""
    names = [str(name) for name in table.index.names[:-1]]
    several = [name for name in names if table.index.get_level_values(name).nunique() > 1]
    alone = not several and "unseen" not in names
    return "context" if several[:1] == ["held_out"] or alone else "perturbation"


def _level(table: pd.DataFrame, unit: str) -> int:
    names = list(table.index.names)
    return names.index("held_out") if unit == "context" and "held_out" in names else table.index.nlevels - 2


def _direction(table: pd.DataFrame, cannot_tell: Collection[str]) -> Aspect:
    rows = _rows(table, "pearson_delta")
    known = rows[rows["ceiling"] >= REPRODUCIBLE]
    share, score, floor, ceiling = _between(known, "pearson_delta")
    if not np.isfinite(share):
        agree = rows["ceiling"].mean()
        found = f" ({_number(agree)})" if np.isfinite(agree) else ""
        return Aspect("Direction", "unknown", f"cannot be told: halves of the true cells do not agree on it{found}.")
    state: State = "right" if share >= RIGHT else "partly" if share >= PARTLY else "wrong"
    where = ""
    if len(known) < len(rows):
        names = [_place(place) for place in known.index[:3]]
        more = " and others" if len(known) > 3 else ""
        where = f" Only {len(known)} of {len(rows)} responses are reproducible: {', '.join(names)}{more}."
    said = {"right": "right", "partly": "roughly right", "wrong": "wrong"}[state]
    text = (
        f"the predicted response correlates with the true one at {_number(score)}; a replicate reaches "
        f"{_number(ceiling)}, control cells {_number(floor)}.{where}"
    )
    own_share, own, _, own_ceiling = _between(_rows(table, "perturbed_pearson"), "perturbed_pearson")
    if "perturbed_pearson" not in cannot_tell and np.isfinite(own_share):
        text += f" Beyond what all perturbations share it is {_number(own)} (a replicate {_number(own_ceiling)})."
        if own_share < OWN:
            fault = "it is the response to any perturbation rather than to this one"
            return Aspect("Direction", "wrong", f"not this perturbation's own: {text}", fault)
    fault = {"right": "", "partly": "its direction is only roughly right", "wrong": "its direction is wrong"}[state]
    return Aspect("Direction", state, f"{said}: {text}", fault)


def _place(names: object) -> str:
    """A place as sentences call it: the perturbation, in its context if that is told."""
    return " in ".join(map(str, reversed(names))) if isinstance(names, tuple) else str(names)


def _size(table: pd.DataFrame) -> Aspect:
    size = _rows(table, "amplitude")["score"].mean()
    if not np.isfinite(size):
        return Aspect("Size", "unknown", "cannot be told: too few genes respond significantly.")
    off = max(size, 1 / size) if size > 0 else np.inf
    state: State = "right" if off <= RIGHT_SIZE else "partly" if off <= PARTLY_SIZE else "wrong"
    said = "right" if state == "right" else "too weak" if size < 1 else "too strong"
    times = f"the predicted response is {_number(size)} times as large as the true one, over genes that respond."
    fault = "" if state == "right" else f"its response is {said} ({_number(size)} times the true one)"
    return Aspect("Size", state, f"{said}: {times}", fault)


def _population(table: pd.DataFrame, cannot_tell: Collection[str], judge: str) -> Aspect:
    rows = _rows(table, judge)
    share, score, floor, ceiling = _between(rows, judge, floors=("floor", "mean_response"))
    state: State = "unknown"
    if judge in cannot_tell:
        text = f"by {judge}, a replicate is no better than a guess"
    elif not np.isfinite(share):
        text = f"{judge} has no value, or a replicate is no better than doing nothing"
    else:
        state = "right" if share >= RIGHT else "partly" if share >= PARTLY else "wrong"
        way = f"{100 * share:.0f}% of the way from" if share >= 0 else "none of the way from"
        text = (
            f"{judge} {_number(score)}, {way} {BOUNDS_CALLED[_better_floor(rows, judge)]} ({_number(floor)}) to a "
            f"replicate ({_number(ceiling)})"
        )
    fault = "" if state in ("right", "unknown") else FAR
    apart, floor, ceiling = (_mean(table, "covariance_distance", name) for name in ("score", "floor", "ceiling"))
    shows = "covariance_distance" not in cannot_tell and ceiling < REPLICATED
    if _mean(table, "variance_ratio") < ALIKE:
        state, fault, text = "wrong", "its cells are all alike", f"{text}; the cells are all alike"
    elif shows and apart > max(INDEPENDENT, floor):
        state, fault = "wrong", "the genes of a cell do not belong together"
        text += "; the genes of a cell do not belong together, their covariances are lost"
    said = {"right": "right", "partly": "partly right", "wrong": "wrong", "unknown": "cannot be told"}[state]
    return Aspect("Population", state, f"{said}: {text}.", fault)


def _genes(table: pd.DataFrame) -> Aspect:
    signs, found = _mean(table, "sign_deg100"), _mean(table, "de_recall")
    if not np.isfinite(signs):
        return Aspect("Genes", "unknown", "cannot be told: too few genes respond significantly.")
    state = of_signs(signs)
    text = f"of the genes that rise most, {100 * signs:.0f}% go the right way"
    if np.isfinite(found):
        text += f"; of all that respond, the prediction finds {100 * found:.0f}%"
    return Aspect("Genes", state, f"{text}.")


def of_signs(share: float) -> State:
    """How genes are of which a share goes the right way; half would by chance."""
    return "right" if share >= 0.9 else "partly" if share >= 0.7 else "wrong"


def _certainty(leads: Sequence[Lead], silent: bool) -> Aspect:
    if silent or not leads:
        return Aspect("How sure", "unknown", "nothing here tells the prediction from a guess.")
    unit = leads[0].unit
    state: State = "right" if all(one.sure for one in leads) else "unknown"
    text = f"{', '.join(one.told() for one in leads)}."
    if leads[0].n == 1:
        text += f" One {unit} cannot tell whether that holds elsewhere."
    elif state == "unknown" and all(one.mean > 0 for one in leads):
        text += f" Over {leads[0].n} {unit}s that is no more than chance can do."
    return Aspect("How sure", state, text)


def _answer(who: str, aspects: Sequence[Aspect], leads: Sequence[Lead]) -> tuple[Tone, str, str]:
    direction, size, population, *_ = aspects
    faults = [aspect.fault for aspect in (direction, size, population) if aspect.fault]
    if not leads:
        told = "On these cells a replicate of the truth does no better than a guess: nothing supports the prediction."
        fault = f" As far as it can be told, {_listed(faults)}." if faults else ""
        return "undecided", "Not on this evidence.", told + fault
    behind = [one for one in leads if one.mean <= 0]
    if behind and behind[0] is leads[0]:
        near = "as near" if behind[0].mean == 0 else "nearer"
        why = f": {_listed(faults)}" if faults else ""
        return "lost", "No.", f"Predicting that nothing changes would have been {near} to the truth{why}."
    if direction.state == "wrong":
        return "lost", "No.", f"{who} is nearer to the truth than doing nothing, but {_listed(faults)}."
    if behind:
        less = f"{who} is nearer to the truth than doing nothing, but not than {behind[0].in_full}."
        return "partly", "Only in part.", less
    ahead = " and ".join(one.in_full for one in leads)
    nearer = f"{who} is nearer to the truth than {ahead}"
    if faults:
        answer = "As a mean response only." if faults == [population.fault] != [FAR] else "Only in part."
        return "partly", answer, f"{nearer}, but {_listed(faults)}."
    right = [aspect.name.lower() for aspect in (direction, size, population) if aspect.state == "right"]
    nearer += f", and right in {_listed(right)}" if right else ""
    n, unit = leads[0].n, leads[0].unit
    if n == 1:
        return "won", "Here, yes.", f"{nearer}. One held-out {unit} cannot tell whether it would be elsewhere."
    if not all(one.sure for one in leads):
        chance = next(one.rival for one in leads if not one.sure)
        return "partly", "Perhaps.", f"{nearer}; but over {n} {unit}s its lead on {chance} may be chance."
    return "won", "Yes.", f"{nearer}, by more than chance."


def _rows(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Score and bounds of one metric, a row for each place; no rows where it was not measured."""
    here = table.loc[table.index.get_level_values(-1) == metric, ["score", "floor", "mean_response", "ceiling"]]
    here = here.astype(np.float64)
    return here.droplevel(-1) if here.index.nlevels > 1 else here


def _mean(table: pd.DataFrame, metric: str, column: str = "score") -> float:
    return float(_rows(table, metric)[column].mean())


def _better_floor(rows: pd.DataFrame, metric: str) -> str:
    short = METRICS[metric].shortfall
    mean_response, floor = (float(short(np.array(rows[name].mean()))) for name in ("mean_response", "floor"))
    return "mean_response" if mean_response < floor else "floor"


def _between(rows: pd.DataFrame, metric: str, floors: Sequence[str] = ("floor",)) -> tuple[float, float, float, float]:
    """Share of the way from the better floor to the ceiling, the score, that floor, the ceiling: means over places.

    The share is NaN where the ceiling is no better than the floor.
    """
    floor = _better_floor(rows, metric) if len(floors) > 1 else floors[0]
    means = rows[["score", floor, "ceiling"]].mean().to_numpy(dtype=np.float64)
    score, start, end = METRICS[metric].shortfall(means)
    share = (start - score) / (start - end) if start > end else np.nan
    return float(share), float(means[0]), float(means[1]), float(means[2])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: float) -> str:
    decimals = 2 if abs(value) >= 0.1 or value == 0 else 3
    text = f"{value:.{decimals}f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")
