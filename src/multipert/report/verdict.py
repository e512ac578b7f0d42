"""What a study says, in plain words: its best model, what it must beat, and where even it is worse than nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from multipert.evaluation import METRICS
from multipert.models import MODELS
from multipert.report.numbers import BETTER, number, shared_decimals
from multipert.report.summary import BASELINE, CEILING, FLOOR, MEAN_RESPONSE, NO_CHANGE, DatasetSummary

BOUNDS_CALLED = {FLOOR: "no change", MEAN_RESPONSE: "the mean response"}
"""The bounds that no model is behind, as sentences call them."""

SPREAD = "variance_ratio"
COLLAPSED = 0.1
"""Below this share of the true variance, predicted cells are called alike."""

Tone = Literal["won", "partly", "disputed", "lost", "undecided"]

_NAMED = 6  # places or models named in a sentence; of more, the number of the rest


@dataclass(frozen=True)
class Verdict:
    """The verdict on one data set.

    Attributes
    ----------
    dataset
        Its name.
    tone
        Of the best model: ``won`` against every baseline, ``partly`` (against no change, but not against its rival),
        ``lost``, ``disputed`` where most metrics contradict the judging one, or ``undecided``.
    answer
        The answer in a word or two.
    because
        The sentences after the answer.
    evidence
        How far ahead it is, and where it fails.
    details
        The numbers behind it, and what other metrics say.
    """

    dataset: str
    tone: Tone
    answer: str
    because: str
    evidence: Sequence[str]
    details: Sequence[str]


def verdict(summary: DatasetSummary) -> Verdict:
    """Reach a verdict on the best model of a data set; of baselines alone, on the best of them."""
    only_baselines = all(card.family == BASELINE for card in summary.results.models)
    best = summary.best_baseline if only_baselines else summary.best
    if best is None:
        return Verdict(
            summary.card.name,
            "undecided",
            "No verdict.",
            "No model has a score in every held-out context that was tried, so there is none to compare.",
            _told(_left_out(summary)),
            (),
        )
    rival = next((label for label in summary.baselines if label != best), None)
    means = summary.means.drop(columns=[metric for metric in summary.cannot_tell if metric in summary.means])
    duels = {name: duel(means, best, name) for name in (FLOOR, rival) if name is not None}
    tone, answer, because = _judged(summary, best, rival, duels)
    return Verdict(
        summary.card.name,
        tone,
        answer,
        f"{_best(summary, best)} {because}",
        _told(_margin(summary, best, rival), _places(summary, best), _left_out(summary)),
        _told(_numbers(summary, best, rival), _counts(duels), _alike(summary, best)),
    )


def duel(means: pd.DataFrame, model: str, other: str) -> "pd.Series[int]":
    """Compare two rows by metric: 1 where the model is better than the other, -1 where worse, 0 where they tie.

    Only metrics that give both a finite score are in it: a ratio that is infinite for a prediction that does not move
    is a win for whatever moves, right or wrong.
    """
    pair = means.loc[[model, other]].astype(np.float64)
    pair = pair[pair.columns[np.isfinite(pair.to_numpy()).all(axis=0)]]
    better = {name: METRICS[str(name)].shortfall(column.to_numpy()) for name, column in pair.items()}
    return pd.Series({name: int(np.sign(theirs - ours)) for name, (ours, theirs) in better.items()}, dtype=np.int64)


def _judged(
    summary: DatasetSummary, best: str, rival: str | None, duels: Mapping[str, "pd.Series[int]"]
) -> tuple[Tone, str, str]:
    """Tone, answer and reason; where most metrics contradict the judging one, that comes first."""
    if (why := summary.cannot_tell.get(summary.metric)) is not None:
        return "undecided", "No verdict.", f"By {summary.metric}, nothing can be said: it {why}."
    decided = {name: int(result[summary.metric]) for name, result in duels.items() if summary.metric in result}
    tone, answer, because = _sentence(summary.models[best].family, decided, rival)
    doubts = [_called(name) for name, sign in decided.items() if sign * duels[name].sum() < 0]
    if not doubts:
        return tone, answer, because
    said = f"By {summary.metric}, {because[0].lower()}{because[1:]}"
    return (
        "disputed",
        "The metrics disagree.",
        f"{said} Against {' and '.join(doubts)}, most metrics say the opposite.",
    )


def _sentence(family: str, decided: Mapping[str, int], rival: str | None) -> tuple[Tone, str, str]:
    if FLOOR not in decided:
        return "undecided", "No verdict.", "The scores do not tell the prediction from the baselines."
    if decided[FLOOR] <= 0:
        near = "nearer" if decided[FLOOR] < 0 else "as near"
        return "lost", "No.", f"Predicting that nothing changes would have been {near} to the truth."
    if family == BASELINE:
        return "partly", "A baseline.", "It is nearer to the truth than doing nothing."
    nearer = "The prediction is nearer to the truth than doing nothing"
    if rival is None:
        return "partly", "Only in part.", f"{nearer}."
    against = f"the best simple baseline, {_called(rival)}"
    if decided.get(rival, 0) <= 0:
        return "partly", "Only in part.", f"{nearer}, but no nearer than {against}."
    return "won", "Yes.", f"{nearer}, and nearer than {against}."


def _told(*sentences: str) -> list[str]:
    return [sentence for sentence in sentences if sentence]


def overall_tone(verdicts: Sequence[Verdict]) -> Tone:
    """Sum up over data sets: one tone where they agree, else ``partly``."""
    tones = {verdict.tone for verdict in verdicts}
    return tones.pop() if len(tones) == 1 else "partly"


def _called(label: str) -> str:
    """What sentences call a bound, or the model that has a label."""
    model = MODELS.get(label)
    return BOUNDS_CALLED.get(label, model.called if model is not None else label)


def _best(summary: DatasetSummary, best: str) -> str:
    metric = summary.metric
    if summary.best is None:
        return f"Only baselines were tried; the best by {metric} is {best}."
    models = [label for label in summary.comparable if summary.models[label].family != BASELINE]
    if len(models) == 1:
        return f"The only model to compare is {best}."
    return f"The best of {len(models)} models by {metric} is {best}."


def _numbers(summary: DatasetSummary, best: str, rival: str | None) -> str:
    metric = METRICS[summary.metric]
    decimals = shared_decimals(summary.means[metric.name])
    spread = summary.deviation(best)
    give = [f"{best} {number(summary.mean(best), decimals)}"]
    if np.isfinite(spread):
        give[0] += f" (± {number(spread, decimals)} over seeds)"
    if rival is not None:
        give.append(f"{_called(rival)}, the best simple baseline, {number(summary.mean(rival), decimals)}")
    give.append(f"no change {number(summary.mean(FLOOR), decimals)}")
    if np.isfinite(summary.mean(MEAN_RESPONSE)):
        give.append(f"the mean response {number(summary.mean(MEAN_RESPONSE), decimals)}")
    give.append(f"the ceiling {number(summary.mean(CEILING), decimals)}")
    return f"{metric.name} ({metric.meaning}; {BETTER[metric.better]}): {'; '.join(give)}."


def _margin(summary: DatasetSummary, best: str, rival: str | None) -> str:
    """By how much the best model beats the best baseline, whether seeds could turn it, and how far both have come."""
    lead = _lead(summary, best, rival) if rival is not None else ""
    return " ".join(_told(lead, _way(summary, best, rival)))


def _lead(summary: DatasetSummary, best: str, rival: str) -> str:
    margin = summary.shortfall(rival) - summary.shortfall(best)
    if not np.isfinite(margin):
        return ""
    size = number(abs(margin), shared_decimals(summary.means[summary.metric]))
    said = (
        f"{best} is ahead of {_called(rival)} by {size}"
        if margin > 0
        else f"No model beats {_called(rival)}: {best} is behind it by {size}"
    )
    noise = float(np.nanmax([0, summary.deviation(best), summary.deviation(rival)]))
    return f"{said}, no more than seeds alone make of it." if abs(margin) < 2 * noise else f"{said}."


def _way(summary: DatasetSummary, best: str, rival: str | None) -> str:
    share = summary.normalised[best]
    if not np.isfinite(share):
        return (
            f"By this metric the ceiling, one half of the cells predicting the other, is no better than "
            f"{_called(summary.better_floor)}: there is no way to go."
        )
    if share <= 0:
        floor = _called(summary.better_floor)
        return (
            f"By its normalised score, {number(100 * share, 0)}%, {floor} is nearer to the truth." if share < 0 else ""
        )
    beside = summary.normalised[rival] if rival is not None else np.nan
    other = f", {_called(str(rival))} {number(100 * beside, 0)}%" if np.isfinite(beside) else ""
    floor = _called(summary.better_floor)
    return f"{best} goes {number(100 * share, 0)}% of the way from {floor} to the ceiling{other}."


def _places(summary: DatasetSummary, best: str) -> str:
    """Where the best model beats every baseline, where even it is worse than nothing, and which others are."""
    where = summary.worse_than_nothing(best)
    scored = len(summary.scores.loc[best])
    unit = "held-out contexts" if len(summary.card.perturbations) == 1 else "pairs of a perturbation and a context"
    if where:
        here = f"Even {best} is worse than doing nothing in {len(where)} of {scored} {unit}: {_listed(where)}."
    else:
        here = f"{best} is nowhere worse than doing nothing ({scored} {unit})." if scored > 1 else ""
    if scored > 1 and summary.baselines:
        here = f"It beats every baseline in {summary.won(best)} of {scored} {unit}. {here}"
    others = [
        label
        for label, card in summary.models.items()
        if card.name != NO_CHANGE and label not in summary.incomplete and summary.is_worse_than_nothing(label)
    ]
    if not others:
        return here
    verb = "is" if len(others) == 1 else "are"
    return f"{here} On average, {_listed(others)} {verb} worse than doing nothing."


def _counts(duels: Mapping[str, "pd.Series[int]"]) -> str:
    counts = [
        f"{_called(name)} on {int((result > 0).sum())} of {len(result)}"
        for name, result in duels.items()
        if len(result)
    ]
    return f"Over all metrics that can tell, it beats {' and '.join(counts)}." if counts else ""


def _alike(summary: DatasetSummary, best: str) -> str:
    """Warn of a prediction whose cells are all alike: its mean may be right, and it is still no population."""
    ratio = summary.mean(best, SPREAD)
    if not ratio < COLLAPSED:
        return ""
    return (
        f"The predicted cells vary far less than true ones ({SPREAD} {number(ratio, 3)}): read the prediction as a "
        "mean response, not as single cells."
    )


def _left_out(summary: DatasetSummary) -> str:
    out = sorted(summary.incomplete)
    if not out:
        return ""
    verb = "has" if len(out) == 1 else "have"
    return f"Not compared: {_listed(out)}, which {verb} no score in some held-out contexts."


def _listed(names: Sequence[str]) -> str:
    shown = list(names) if len(names) <= _NAMED + 1 else [*names[:_NAMED], f"{len(names) - _NAMED} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
