"""What the scores say, in plain words: whether the model beats doing nothing, and how far it is from the ceiling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from multipert.evaluation import METRICS
from multipert.report.score_table import number, shared_decimals

NO_CHANGE, CEILING = "no-change", "ceiling"

CALLED = {
    NO_CHANGE: "no change",
    "mean-shift": "the mean shift",
    "nearest-context": "the nearest context's shift",
    "linear": "the linear shift",
    "resample": "resampling",
}
"""The simple baselines, as sentences call them."""

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
        ``won`` against every baseline, ``partly`` (against no change, but not against its rival), ``lost``,
        ``disputed`` where most metrics contradict the judging one, or ``undecided``.
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


def rival(scores: pd.DataFrame, model: str) -> str | None:
    """Name the best baseline beside no change and the model itself, by the judging metric; none where there is none."""
    others = scores.index.difference([model, NO_CHANGE, CEILING])
    metric = judging_metric(scores)
    short = pd.Series(METRICS[metric].shortfall(scores[metric].loc[others].to_numpy(dtype=np.float64)), others)
    return str(short.idxmin()) if short.notna().any() else None


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
    best = rival(scores, model)
    duels = {
        name: duel(scores, model, name)
        for name in (NO_CHANGE, best)
        if name in scores.index and name not in (model, None)
    }
    decided = {name: result[metric] for name, result in duels.items() if metric in result}
    tone, answer, because = _sentence(model, decided, best)
    doubts = [_called(name) for name, sign in decided.items() if sign * duels[name].sum() < 0]
    if doubts:
        tone, answer = "disputed", "The metrics disagree."
        against = " and ".join(doubts)
        because = f"By {metric}, {because[0].lower()}{because[1:]} Against {against}, most metrics say the opposite."
    evidence = [_numbers(scores, metric), _way(scores, model), *_counts(duels), _spread(scores, model)]
    return Verdict(tone, answer, because, tuple(sentence for sentence in evidence if sentence), closed(scores, model))


def perturbations_won(tables: Sequence[pd.DataFrame], model: str) -> str:
    """Say in how many perturbations the model beats every baseline."""
    won = sum(judge(table, model).tone == "won" for table in tables)
    metric = judging_metric(tables[0])
    return f"By {metric}, it beats every baseline in {won} of {len(tables)} perturbations."


def _called(name: str) -> str:
    return CALLED.get(name, name)


def _sentence(model: str, decided: dict[str, int], best: str | None) -> tuple[Tone, str, str]:
    against = f"the best simple baseline, {_called(best)}" if best is not None else ""
    if not decided or (NO_CHANGE not in decided and model != NO_CHANGE):
        return "undecided", "No verdict.", "The scores do not tell the prediction from the baselines."
    if model == NO_CHANGE:
        beaten = best is None or decided.get(best, 0) > 0
        because = "This run is the no-change baseline itself: it predicts that nothing happens"
        if beaten:
            return "undecided", "A baseline.", f"{because}, and no other does better."
        return "lost", "A baseline.", f"{because}, and {_called(str(best))} comes nearer to the truth."
    if decided[NO_CHANGE] < 0:
        return "lost", "No.", "Predicting that nothing changes would have been nearer to the truth."
    if decided[NO_CHANGE] == 0:
        return "lost", "No.", "Predicting that nothing changes would have been as near to the truth."
    if model in CALLED:
        return "partly", "A baseline.", f"This run is the {model} baseline itself; it beats predicting no change."
    if best is None:
        return "partly", "Only in part.", "The prediction is nearer to the truth than doing nothing."
    if decided.get(best, 0) <= 0:
        return (
            "partly",
            "Only in part.",
            f"The prediction is nearer to the truth than doing nothing, but no nearer than {against}.",
        )
    return (
        "won",
        "Yes.",
        f"The prediction is nearer to the truth than doing nothing, and nearer than {against}.",
    )


def _numbers(scores: pd.DataFrame, metric: str) -> str:
    better = {"high": "higher is better", "low": "lower is better", "one": "1 is best"}[METRICS[metric].better]
    decimals = shared_decimals(scores[metric])
    values = ", ".join(f"{_called(str(row))} {number(value, decimals)}" for row, value in scores[metric].items())
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
    best = rival(scores, model)
    beside = closed(scores, best) if best is not None else float("nan")
    other = f"; {_called(str(best))} closes {number(100 * beside, 0)}%" if np.isfinite(beside) else ""
    if share >= 1:
        return f"It reaches the ceiling, what one half of the true cells says about the other{other}."
    return (
        f"It closes {number(100 * share, 0)}% of the gap between no change and the ceiling, what one half of the "
        f"true cells says about the other{other}."
    )


def _counts(duels: dict[str, pd.Series]) -> list[str]:
    counts = [
        f"{_called(name)} on {int((result > 0).sum())} of {len(result)}"
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
