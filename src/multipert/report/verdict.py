"""What a study says, in plain words: whether its best model can be trusted, what it must beat, and where it fails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from multipert.evaluation import METRICS
from multipert.evaluation.trust import Aspect, Lead, Tone, lead, of_signs, trust
from multipert.models import MODELS
from multipert.report.numbers import BETTER, number, shared_decimals
from multipert.report.reliable import reliable_genes
from multipert.report.summary import BASELINE, CEILING, FLOOR, MEAN_RESPONSE, NO_CHANGE, DatasetSummary

BOUNDS_CALLED = {FLOOR: "no change", MEAN_RESPONSE: "the mean response"}
"""The bounds that no model is behind, as sentences call them."""

_NAMED = 6  # places or models named in a sentence; of more, the number of the rest
_GENES = 5


@dataclass(frozen=True)
class Verdict:
    """The verdict on one data set.

    Attributes
    ----------
    dataset
        Its name.
    tone
        Whether the judged model can be trusted: ``won``, ``partly``, ``lost``, or ``undecided``.
    answer
        The answer in a word or two.
    because
        The sentence after the answer.
    aspects
        Direction, size, population, genes, and how sure all that is.
    evidence
        How far ahead of simple baselines it is, and where it fails.
    details
        The numbers behind it, and what other metrics say.
    """

    dataset: str
    tone: Tone
    answer: str
    because: str
    aspects: Sequence[Aspect]
    evidence: Sequence[str]
    details: Sequence[str]


def verdict(summary: DatasetSummary) -> Verdict:
    """Reach a verdict on the model that is judged: that of a run, or the best of a study."""
    subject = summary.subject
    if subject is None or not np.isfinite(summary.mean(subject)):
        none = "No model has a score in every held-out context that was tried, so there is none to compare."
        return Verdict(summary.card.name, "undecided", "No verdict.", none, (), _told(_left_out(summary)), ())
    table, rival = summary.between(subject), summary.rival
    found = trust(table, summary.cannot_tell, who=subject, judge=summary.metric)
    beside = lead(table, "rival", _called(rival), judge=summary.metric) if rival is not None else None
    tone, because = found.tone, found.because
    if tone == "won" and beside is not None and beside.mean <= 0:
        tone, because = "partly", f"{because} So is the best simple baseline, {beside.rival}."
    means = summary.means[[name for name in summary.distinct_metrics if name not in summary.cannot_tell]]
    duels = {name: duel(means, subject, name) for name in (FLOOR, rival) if name is not None}
    return Verdict(
        summary.card.name,
        tone,
        found.answer,
        because,
        [_with_names(summary, subject, aspect) for aspect in found.aspects],
        _told(
            _chosen(summary, subject),
            *([] if found.tone == "undecided" else [_beside(subject, beside), _places(summary, subject)]),
            _left_out(summary),
        ),
        _told(_numbers(summary, subject, rival), _counts(duels)),
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


def _chosen(summary: DatasetSummary, subject: str) -> str:
    """Say which model is judged, where there was a choice."""
    models = [label for label in summary.comparable if summary.models[label].family != BASELINE]
    if not models and summary.results.study_file:
        return f"Only baselines were tried; the best by {summary.metric} is {summary.comparable[0]}."
    return f"The best of {len(models)} models by {summary.metric} is {subject}." if len(models) > 1 else ""


def _with_names(summary: DatasetSummary, subject: str, aspect: Aspect) -> Aspect:
    """Name the genes that can be relied on."""
    genes = reliable_genes(summary, subject) if aspect.name == "Genes" else None
    if genes is None:
        return aspect
    right = f", {len(genes.reliable)} of them within a factor of 2" if genes.reliable else ""
    text = f"of {genes.responding} that respond, {genes.right_way} go the right way wherever they respond{right}"
    if genes.reliable:
        text += f": {_listed(genes.reliable, _GENES)}"
    if genes.astray:
        text += f". Not to be relied on: {_listed(genes.astray, _GENES)}"
    return replace(aspect, state=of_signs(genes.right_way / genes.responding), text=f"{text}.")


def _beside(subject: str, beside: Lead | None) -> str:
    """How far the judged model is ahead of the best simple baseline."""
    if beside is None:
        return ""
    chance = ", no more than chance" if beside.n > 1 and not beside.sure and beside.mean > 0 else ""
    told = replace(beside, rival="it").told()
    return f"The best simple baseline is {beside.rival}: {subject} is {told}{chance}."


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


def _places(summary: DatasetSummary, best: str) -> str:
    """Where the best model beats every baseline, where even it is worse than nothing, and which others are."""
    where = summary.worse_than_nothing(best)
    scored = len(summary.scores.loc[best])
    if scored == 1:
        return ""
    unit = "held-out contexts" if len(summary.card.perturbations) == 1 else "pairs of a perturbation and a context"
    if where:
        here = f"Even {best} is worse than doing nothing in {len(where)} of {scored} {unit}: {_listed(where)}."
    else:
        here = f"{best} is nowhere worse than doing nothing ({scored} {unit})."
    if summary.baselines:
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


def _left_out(summary: DatasetSummary) -> str:
    out = sorted(summary.incomplete)
    if not out:
        return ""
    verb = "has" if len(out) == 1 else "have"
    return f"Not compared: {_listed(out)}, which {verb} no score in some held-out contexts."


def _listed(names: Sequence[str], most: int = _NAMED) -> str:
    shown = list(names) if len(names) <= most + 1 else [*names[:most], f"{len(names) - most} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
