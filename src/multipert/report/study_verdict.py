"""What a study says, in plain words: its best model, what it must beat, and where even it is worse than nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multipert.evaluation import METRICS
from multipert.report.score_table import BETTER, number, shared_decimals
from multipert.report.standing import BASELINE, FLOOR, Standing
from multipert.report.verdict import CALLED, CEILING, NO_CHANGE, Tone, Verdict, judge

_NAMED = 6  # places or models named in a sentence; of more, the number of the rest


@dataclass(frozen=True)
class DatasetVerdict:
    """The verdict on one data set.

    Attributes
    ----------
    dataset
        Its name.
    tone, answer
        As of a run's verdict.
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


def study_verdict(standing: Standing) -> DatasetVerdict:
    """Reach a verdict on the best model of a data set."""
    only_baselines = all(card.family == BASELINE for card in standing.results.models)
    best = standing.best_baseline if only_baselines else standing.best
    if best is None:
        return DatasetVerdict(
            standing.card.name,
            "undecided",
            "No verdict.",
            "No model has a score in every held-out context that was tried, so there is none to compare.",
            _told(_left_out(standing)),
            (),
        )
    verdict = _judged(standing, best)
    return DatasetVerdict(
        standing.card.name,
        verdict.tone,
        verdict.answer,
        f"{_best(standing, best)} {verdict.because}",
        _told(_margin(standing, best), _worse(standing, best), _left_out(standing)),
        # Of the run's evidence: the counts over all metrics, and whether the predicted cells are alike.
        _told(_numbers(standing, best), *verdict.evidence[2:]),
    )


def _told(*sentences: str) -> list[str]:
    return [sentence for sentence in sentences if sentence]


def overall_tone(verdicts: Sequence[DatasetVerdict]) -> Tone:
    """Sum up over data sets: one tone where they agree, else ``partly``."""
    tones = {verdict.tone for verdict in verdicts}
    return tones.pop() if len(tones) == 1 else "partly"


def _judged(standing: Standing, best: str) -> Verdict:
    """Judge a model as on the page of a run: beside the baselines, no change being the floor."""
    baselines = [
        label
        for label, card in standing.models.items()
        if card.family == BASELINE and card.name != NO_CHANGE and label not in standing.incomplete and label != best
    ]
    table = standing.means.loc[[best, FLOOR, *baselines, CEILING]]
    return judge(table.rename(index={FLOOR: NO_CHANGE}), best)


def _called(label: str) -> str:
    return CALLED.get(label, label)


def _best(standing: Standing, best: str) -> str:
    metric = standing.metric
    if standing.best is None:
        return f"Only baselines were tried; the best by {metric} is {best}."
    models = [label for label in standing.comparable if standing.models[label].family != BASELINE]
    if len(models) == 1:
        return f"The only model to compare is {best}."
    return f"The best of {len(models)} models by {metric} is {best}."


def _numbers(standing: Standing, best: str) -> str:
    metric = METRICS[standing.metric]
    decimals = shared_decimals(standing.means[metric.name])
    rival, spread = _rival(standing, best), standing.deviation(best)
    give = [f"{best} {number(standing.mean(best), decimals)}"]
    if np.isfinite(spread):
        give[0] += f" (± {number(spread, decimals)} over seeds)"
    if rival is not None:
        give.append(f"{_called(rival)}, the best simple baseline, {number(standing.mean(rival), decimals)}")
    give.append(f"no change {number(standing.mean(FLOOR), decimals)}")
    give.append(f"the ceiling {number(standing.mean(CEILING), decimals)}")
    return f"{metric.name} ({metric.meaning}; {BETTER[metric.better]}): {'; '.join(give)}."


def _margin(standing: Standing, best: str) -> str:
    """By how much the best model beats the best baseline, whether seeds could turn it, and how far both have come."""
    rival = _rival(standing, best)
    lead = _lead(standing, best, rival) if rival is not None else ""
    return " ".join(_told(lead, _way(standing, best, rival)))


def _lead(standing: Standing, best: str, rival: str) -> str:
    margin = standing.shortfall(rival) - standing.shortfall(best)
    if not np.isfinite(margin):
        return ""
    size = number(abs(margin), shared_decimals(standing.means[standing.metric]))
    said = (
        f"{best} is ahead of {_called(rival)} by {size}"
        if margin > 0
        else f"No model beats {_called(rival)}: {best} is behind it by {size}"
    )
    noise = float(np.nanmax([0, standing.deviation(best), standing.deviation(rival)]))
    return f"{said}, no more than seeds alone make of it." if abs(margin) < 2 * noise else f"{said}."


def _way(standing: Standing, best: str, rival: str | None) -> str:
    share = standing.closed[best]
    if not np.isfinite(share):
        return (
            "By this metric the ceiling is no better than no change: true and control cells differ no more than two "
            "halves of the true cells do, and no gap is left to close."
        )
    if share <= 0:
        return ""
    beside = standing.closed[rival] if rival is not None else np.nan
    other = f", {_called(str(rival))} {number(100 * beside, 0)}%" if np.isfinite(beside) else ""
    return f"{best} closes {number(100 * share, 0)}% of the gap between no change and the ceiling{other}."


def _rival(standing: Standing, best: str) -> str | None:
    return standing.best_baseline if standing.best_baseline != best else None


def _worse(standing: Standing, best: str) -> str:
    where = standing.worse_than_nothing(best)
    scored = len(standing.scores.loc[best])
    unit = "held-out contexts" if len(standing.card.perturbations) == 1 else "pairs of a perturbation and a context"
    if where:
        here = f"Even {best} is worse than doing nothing in {len(where)} of {scored} {unit}: {_listed(where)}."
    else:
        here = f"{best} is nowhere worse than doing nothing ({scored} {unit})." if scored > 1 else ""
    others = [
        label
        for label, card in standing.models.items()
        if card.name != NO_CHANGE and label not in standing.incomplete and standing.is_worse_than_nothing(label)
    ]
    if not others:
        return here
    verb = "is" if len(others) == 1 else "are"
    return f"{here} On average, {_listed(others)} {verb} worse than doing nothing."


def _left_out(standing: Standing) -> str:
    out = sorted(standing.incomplete)
    if not out:
        return ""
    verb = "has" if len(out) == 1 else "have"
    return f"Not compared: {_listed(out)}, which {verb} no score in some held-out contexts."


def _listed(names: Sequence[str]) -> str:
    shown = list(names) if len(names) <= _NAMED + 1 else [*names[:_NAMED], f"{len(names) - _NAMED} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
