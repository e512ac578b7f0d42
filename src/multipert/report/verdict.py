"""What the scores say, in plain words: whether the model beats doing nothing, and how far it is from the ceiling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from multipert.evaluation import METRICS
from multipert.report.score_table import number, shared_decimals

NO_CHANGE, MEAN_SHIFT, CEILING = "no-change", "mean-shift", "ceiling"

JUDGE = "edist"
"""The metric that decides where metrics disagree: a distance of whole populations that no ratio can flatter."""

SPREAD = "variance_ratio"
COLLAPSED = 0.1
"""Below this share of the true variance, predicted cells are called alike."""

Tone = Literal["won", "partly", "disputed", "lost", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """The verdict on one table of scores.

    Attributes
    ----------
    tone
        ``won`` against both baselines, ``partly`` (against no change alone), ``lost``, ``disputed`` where most metrics
        contradict the judging one, or ``undecided``.
    answer
        The answer in a word or two.
    because
        The sentence after it.
    evidence
        The sentences that back it: the numbers of the judging metric, and the count over all metrics.
    closed
        Share of the way from no change to the ceiling, by the judging metric; NaN where there is no way to go.
    """

    tone: Tone
    answer: str
    because: str
    evidence: tuple[str, ...]
    closed: float


def judging_metric(scores: pd.DataFrame) -> str:
    """Name the column that decides: ``edist``, or the first where it was not measured."""
    return JUDGE if JUDGE in scores else str(scores.columns[0])


def closed(scores: pd.DataFrame, method: str) -> float:
    """Compute the share of the possible improvement, (score - floor) / (ceiling - floor), by the judging metric.

    NaN where the ceiling does not lie above the floor: there is nothing to close.
    """
    metric = judging_metric(scores)
    shortfall = pd.Series(METRICS[metric].shortfall(scores[metric].to_numpy(dtype=np.float64)), scores.index)
    possible = shortfall[NO_CHANGE] - shortfall[CEILING]
    gained = shortfall[NO_CHANGE] - shortfall[method]
    return float(gained / possible) if np.isfinite(possible) and possible > 0 else float("nan")


def duel(scores: pd.DataFrame, model: str, baseline: str) -> pd.Series:
    """Compare two rows by metric: 1 where the model is better than the baseline, -1 where worse, 0 where they tie.

    Only metrics that give both a finite score are in it: a ratio that is infinite for a prediction that does not move
    is a win for whatever moves, right or wrong.
    """
    pair = scores.loc[[model, baseline]].astype(np.float64)
    pair = pair[pair.columns[np.isfinite(pair.to_numpy()).all(axis=0)]]
    better = {name: METRICS[str(name)].shortfall(column.to_numpy()) for name, column in pair.items()}
    return pd.Series({name: int(np.sign(theirs - ours)) for name, (ours, theirs) in better.items()}, dtype=np.int64)


def judge(scores: pd.DataFrame, model: str) -> Verdict:
    """Reach a verdict on a model.

    Parameters
    ----------
    scores
        A row for the model, for each baseline and for the ceiling; a column for each metric.
    model
        Its row.
    """
    metric = judging_metric(scores)
    duels = {
        name: duel(scores, model, name) for name in (NO_CHANGE, MEAN_SHIFT) if name in scores.index and name != model
    }
    decided = {name: result[metric] for name, result in duels.items() if metric in result}
    tone, answer, because = _sentence(model, decided)
    doubts = [_CALLED[name] for name, sign in decided.items() if sign * duels[name].sum() < 0]
    if doubts:
        tone, answer = "disputed", "The metrics disagree."
        against = " and ".join(doubts)
        because = f"By {metric}, {because[0].lower()}{because[1:]} Against {against}, most metrics say the opposite."
    evidence = [_numbers(scores, metric), _way(scores, model), *_counts(duels), _spread(scores, model)]
    return Verdict(tone, answer, because, tuple(sentence for sentence in evidence if sentence), closed(scores, model))


def perturbations_won(tables: Sequence[pd.DataFrame], model: str) -> str:
    """Say in how many perturbations the model beats both baselines."""
    won = sum(judge(table, model).tone == "won" for table in tables)
    metric = judging_metric(tables[0])
    return f"By {metric}, it beats every baseline in {won} of {len(tables)} perturbations."


_CALLED = {NO_CHANGE: "no change", MEAN_SHIFT: "the mean shift"}


def _sentence(model: str, decided: dict[str, int]) -> tuple[Tone, str, str]:
    if not decided or (NO_CHANGE not in decided and model != NO_CHANGE):
        return "undecided", "No verdict.", "The scores do not tell the prediction from the baselines."
    if model == NO_CHANGE:
        beaten = decided.get(MEAN_SHIFT, 0) > 0
        because = "This run is the no-change baseline itself: it predicts that nothing happens"
        if beaten:
            return "undecided", "A baseline.", f"{because}, and the mean shift does no better."
        return "lost", "A baseline.", f"{because}, and the mean shift comes nearer to the truth."
    if decided[NO_CHANGE] < 0:
        return "lost", "No.", "Predicting that nothing changes would have been nearer to the truth."
    if decided[NO_CHANGE] == 0:
        return "lost", "No.", "Predicting that nothing changes would have been as near to the truth."
    if model == MEAN_SHIFT:
        return "partly", "A baseline.", "This run is the mean-shift baseline itself; it beats predicting no change."
    if decided.get(MEAN_SHIFT, 0) <= 0:
        return (
            "partly",
            "Only in part.",
            "The prediction is nearer to the truth than doing nothing, but no nearer than the mean shift, the average "
            "response of the other contexts.",
        )
    return (
        "won",
        "Yes.",
        "The prediction is nearer to the truth than doing nothing, and nearer than the mean shift, the average "
        "response of the other contexts.",
    )


def _numbers(scores: pd.DataFrame, metric: str) -> str:
    better = {"high": "higher is better", "low": "lower is better", "one": "1 is best"}[METRICS[metric].better]
    decimals = shared_decimals(scores[metric])
    values = ", ".join(
        f"{_CALLED.get(str(row), row)} {number(value, decimals)}" for row, value in scores[metric].items()
    )
    return f"Judged by {metric} ({METRICS[metric].meaning}; {better}): {values}."


def _way(scores: pd.DataFrame, model: str) -> str:
    share = closed(scores, model)
    if model == NO_CHANGE:
        return ""
    if not np.isfinite(share):
        return (
            "How far it is from the ceiling cannot be said: by this metric, true and control cells differ no more than "
            "two halves of the true cells do."
        )
    if share < 0:
        return "It leads away from the truth: the gap to the ceiling is wider than without any prediction."
    beside = closed(scores, MEAN_SHIFT) if MEAN_SHIFT in scores.index and model != MEAN_SHIFT else float("nan")
    other = f"; the mean shift closes {number(100 * beside, 0)}%" if np.isfinite(beside) else ""
    if share >= 1:
        return f"It reaches the ceiling, what one half of the true cells says about the other{other}."
    return (
        f"It closes {number(100 * share, 0)}% of the gap between no change and the ceiling, what one half of the "
        f"true cells says about the other{other}."
    )


def _counts(duels: dict[str, pd.Series]) -> list[str]:
    counts = [
        f"{_CALLED[name]} on {int((result > 0).sum())} of {len(result)}"
        for name, result in duels.items()
        if len(result)
    ]
    return [f"Over all metrics that can tell, it beats {' and '.join(counts)}."] if counts else []


def _spread(scores: pd.DataFrame, model: str) -> str:
    """Warn of a prediction whose cells are all alike: its mean may be right, and it is still no population."""
    ratio = float(scores[SPREAD][model]) if SPREAD in scores else float("nan")
    if not ratio < COLLAPSED:
        return ""
    return (
        f"The predicted cells vary far less than true ones ({SPREAD} {number(ratio, 3)}): read the prediction as a "
        "mean response, not as single cells."
    )
