"""The six metrics of the Virtual Cell Challenge 2026 and how they combine to one score.

All read raw counts of one context: control cells, true and predicted cells of several perturbations. Numbers are those
of ``cell-eval2`` 0.20 (a test holds them to it). A score is read on a scale from the mean response (0) to a replicate
(1), both measured on the same cells; the score of a context is the mean of the six.

A perturbation that is named after a gene (or several, ``A+B``) does not count that gene; ``pds_cosine`` leaves out the
genes that any perturbation is named after.

Each metric has a value for each perturbation, and its score is the mean of those that have one. For
``expr_mse_unbiased_capped_norm``, which is a ratio of sums, a perturbation's value is its own error over the mean of
all true effects, so that the mean is that ratio.

References
----------
Virtual Cell Challenge 2026 metric reference, August 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import inf, isfinite, nan
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from multipert.data.expression import Floats
from multipert.data.scored_cells import Source, Sources
from multipert.evaluation.counts import CountPanel, predict_mean_response, read_panels
from multipert.evaluation.registry import METRICS, Metric

PURITY = 0.9
"""Share of right signs that ``direction_reach`` asks of a prefix."""

LEAST_GENES = 10
"""Fewest truly called genes for which ``lfc_nmae`` is defined."""

SPLITS = 5
"""How often true and control cells are halved for the replicate."""


@dataclass(frozen=True)
class ScaledMetric:
    """A metric and how its score is read between the mean response and a replicate.

    Attributes
    ----------
    name
        The column it fills.
    better
        Which way is better.
    lowest, highest
        What the scaled score is kept within.
    meaning
        One line for a reader.
    range
        Lowest and highest value of the metric itself.
    """

    name: str
    better: Literal["high", "low"]
    lowest: float
    highest: float
    meaning: str
    range: tuple[float, float] = (0, 1)

    def scale(self, score: float, baseline: float, replicate: float) -> float:
        """Place a score between the mean response (0) and the replicate (1).

        Parameters
        ----------
        score, baseline, replicate
            Values of the metric; a score that is not finite takes the lowest place.

        Returns
        -------
        float
            ``(score - baseline) / (replicate - baseline)``, kept within ``lowest`` and ``highest``. NaN where the
            replicate is no better than the mean response: the metric cannot tell them apart.
        """
        room = replicate - baseline if self.better == "high" else baseline - replicate
        if not (isfinite(room) and room > 0):
            return nan
        if not isfinite(score):
            return self.lowest if isfinite(self.lowest) else -baseline / room
        gain = score - baseline if self.better == "high" else baseline - score
        return min(max(gain / room, self.lowest), self.highest)


PDS = "pds_cosine"
MSE = "expr_mse_unbiased_capped_norm"
FIDELITY = "de_wilcoxon_direction_fidelity_yield_raw"
REACH = "de_wilcoxon_direction_reach_raw"
JACCARD = "de_wilcoxon_sig_jaccard"
NMAE = "de_wilcoxon_lfc_nmae"

VCC2026: dict[str, ScaledMetric] = {
    metric.name: metric
    for metric in (
        ScaledMetric(PDS, "high", -inf, inf, "rank of the right perturbation by cosine distance of effects"),
        ScaledMetric(
            MSE, "low", 0, 1, "squared error of the effect less sampling noise, over the effect's size", (-inf, inf)
        ),
        ScaledMetric(FIDELITY, "high", -inf, inf, "right signs among called genes, over called or truly called"),
        ScaledMetric(REACH, "high", -inf, inf, "truly called genes reached at 90 % right signs, most confident first"),
        ScaledMetric(JACCARD, "high", -inf, inf, "overlap of the two sets of called genes"),
        ScaledMetric(NMAE, "low", -6, inf, "error of fold changes of truly called genes, over their size", (0, inf)),
    )
}
"""The six, in the order of the reference."""

COMBINED = "vcc2026"
"""The score of a context: the mean of the six, each scaled."""

_SOURCE = "Virtual Cell Challenge 2026 metric reference; cell-eval2 0.20"
for _one in VCC2026.values():
    METRICS.add(
        _one.name,
        Metric(_one.name, None, _one.better, _one.range, _one.meaning, _SOURCE, several=True, needs="counts"),
    )
METRICS.add(
    COMBINED,
    Metric(
        COMBINED,
        None,
        "high",
        (-inf, inf),
        "mean of the six, each from 0 at the mean response to 1 at a replicate; one number a context",
        _SOURCE,
        several=True,
        needs="counts",
    ),
)


def score_panel(truth: CountPanel, predicted: CountPanel) -> pd.DataFrame:
    """Score predicted cells by the six metrics.

    Parameters
    ----------
    truth, predicted
        The same perturbations and genes. The predicted cells are compared with the controls of ``predicted``: the
        same real ones as of ``truth``, except where two halves are compared.

    Returns
    -------
    pandas.DataFrame
        A row for each perturbation and a column for each metric; NaN where a perturbation has no value:
        ``pds_cosine`` of a single perturbation, the error where no effect exceeds noise, directions where no gene is
        truly called, ``lfc_nmae`` where fewer than 10 are.
    """
    if truth.perturbations != predicted.perturbations:
        raise ValueError("Truth and prediction hold different perturbations.")
    columns = {
        PDS: _discrimination(truth, predicted),
        MSE: _error(truth, predicted),
        **_responses(truth, predicted),
    }
    return pd.DataFrame({name: columns[name] for name in VCC2026}, index=pd.Index(truth.perturbations))


def replicate_scores(truth: CountPanel, seed: int = 0, splits: int = SPLITS) -> pd.DataFrame:
    """Score one half of the true cells as the prediction of the other, each with its own half of the controls.

    Parameters
    ----------
    truth
        The true cells.
    seed
        Seeds the splits.
    splits
        How many.

    Returns
    -------
    pandas.DataFrame
        A row for each split and perturbation, a column for each metric. ``lfc_nmae`` takes the genes and the effect's
        size from all true cells, and from the halves their fold changes alone: a half calls fewer genes.
    """
    drawn = {}
    for split, split_seed in enumerate(np.random.SeedSequence(seed).generate_state(splits)):
        first, second = truth.halves(np.random.default_rng(int(split_seed)))
        drawn[split] = score_panel(first, second)
        change = second.responses.log_fold_change - first.responses.log_fold_change
        drawn[split][NMAE] = _fold_change_error(truth, change)
    return pd.concat(drawn, names=["split", "perturbation"])


def combine(scores: pd.DataFrame) -> pd.Series[float]:
    """Give the score of a context by each metric: the mean over perturbations that have a value, then over splits."""
    if "split" in scores.index.names:
        return scores.groupby(level="split").mean().mean()
    return scores.mean()


def scaled_scores(
    scores: pd.Series[float], baseline: pd.Series[float], replicate: pd.Series[float]
) -> pd.Series[float]:
    """Place the six scores of a context on the scale from mean response (0) to replicate (1).

    Parameters
    ----------
    scores, baseline, replicate
        The six metrics of the prediction, of the mean response and of a replicate.

    Returns
    -------
    pandas.Series
        Scaled scores by metric. The score of the context is their mean.
    """
    return pd.Series(
        {name: metric.scale(scores[name], baseline[name], replicate[name]) for name, metric in VCC2026.items()}
    )


def baseline_scores(truth: CountPanel, seed: int = 0) -> pd.DataFrame:
    """Score the mean response as a prediction; NaN for a single perturbation, whose mean response is the truth."""
    if len(truth.groups) < 2:
        return pd.DataFrame(np.nan, index=pd.Index(truth.perturbations), columns=list(VCC2026))
    return score_panel(truth, predict_mean_response(truth, seed))


def evaluate_counts(
    *,
    control: Source,
    truth: Sources,
    predicted: Sources,
    perturbation_key: str | None = None,
    counts_layer: str | None = None,
) -> pd.DataFrame:
    """Score predicted counts by the six; as ``evaluate_many`` with ``profile="vcc2026"``."""
    truth_panel, predicted_panel = read_panels(
        control=control, truth=truth, predicted=predicted, perturbation_key=perturbation_key, counts_layer=counts_layer
    )
    scores = score_panel(truth_panel, predicted_panel)
    scores.index.name = perturbation_key or "perturbation"
    scores.attrs["notes"] = _notes(scores)
    return scores


def scorecard_of_counts(
    *,
    control: Source,
    truth: Sources,
    predicted: Sources,
    perturbation_key: str | None = None,
    mean_response: Sources | None = None,
    counts_layer: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score the prediction of a context by the six, and read each between the mean response and a replicate.

    Parameters
    ----------
    control, truth, predicted, perturbation_key, counts_layer
        As for ``evaluate_many`` with ``profile="vcc2026"``.
    mean_response
        What anyone would predict who knows the perturbations but not this context, in the form of ``predicted``; by
        default the mean of the true responses to all perturbations, of which there must then be two at least.
    seed
        Seeds the halves.

    Returns
    -------
    pandas.DataFrame
        A row for each metric: ``score``, ``mean_response``, ``ceiling`` (a replicate), ``normalised`` (0 at the mean
        response, 1 at the replicate, kept within the metric's limits) and ``note``. ``attrs["score"]`` is the mean of
        the six normalised scores; NaN where one of them is.
    """
    read = partial(
        read_panels, control=control, truth=truth, perturbation_key=perturbation_key, counts_layer=counts_layer
    )
    truth_panel, predicted_panel = read(predicted=predicted)
    each = score_panel(truth_panel, predicted_panel)
    if mean_response is None:
        baseline = combine(baseline_scores(truth_panel, seed))
    else:
        baseline = combine(score_panel(truth_panel, read(predicted=mean_response)[1]))
    replicate = combine(replicate_scores(truth_panel, seed))
    scores = combine(each)
    scaled = scaled_scores(scores, baseline, replicate)
    said = _notes(each)
    card = pd.DataFrame(
        {
            "score": scores,
            "mean_response": baseline,
            "ceiling": replicate,
            "normalised": scaled,
            "note": [_note(said.get(name, ""), baseline[name], scaled[name]) for name in VCC2026],
        }
    ).rename_axis("metric")
    card.attrs["score"] = float(scaled.mean(skipna=False))
    return card


def _notes(scores: pd.DataFrame) -> dict[str, str]:
    """Say beside which metric that perturbations have no value."""
    why = {
        PDS: "a rank needs several perturbations",
        MSE: "no effect exceeds sampling noise",
        FIDELITY: "no gene is called",
        REACH: "no gene is truly called",
        NMAE: f"fewer than {LEAST_GENES} genes are truly called",
    }
    missing = scores.isna().sum()
    return {
        name: f"no value for {missing[name]} of {len(scores)} perturbations: {reason}"
        for name, reason in why.items()
        if missing[name]
    }


def _note(said: str, baseline: float, scaled: float) -> str:
    if not isfinite(baseline):
        said = f"{said}; no mean response to read it from" if said else "no mean response to read it from"
    elif not isfinite(scaled):
        said = f"{said}; cannot tell here: a replicate is no better than the mean response".removeprefix("; ")
    return said


def _discrimination(truth: CountPanel, predicted: CountPanel) -> Floats:
    """Rank the true match among all true effects by cosine distance: 1 - rank / (n - 1), ties averaged."""
    n = len(truth.groups)
    if n < 2:
        return np.full(n, nan)
    kept = np.ones(len(truth.genes), dtype=bool)
    kept[np.concatenate(truth.targets)] = False
    distances = _cosine_distances(predicted.effects[:, kept], truth.effects[:, kept])
    own = np.diag(distances)[:, None]
    rank = (distances < own).sum(axis=1) + ((distances == own).sum(axis=1) - 1) / 2
    scores: Floats = 1 - rank / (n - 1)
    return scores


def _cosine_distances(first: Floats, second: Floats) -> Floats:
    """Cosine distance of each row of the one to each row of the other; 1 from a zero vector."""
    sizes = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
    similarity = np.divide(first @ second.T, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    distances: Floats = np.clip(1 - similarity, 0, 2)
    return distances


def _error(truth: CountPanel, predicted: CountPanel) -> Floats:
    """Squared error of the profile less the sampling noise of both, over the mean true effect less its noise.

    The noise that a prediction may subtract is capped twice: by the truth's for each perturbation, and in total by
    the spread of its own profiles between perturbations; a prediction that varies among cells but not in sum would
    otherwise be paid for noise that its profile does not have.
    """
    counted = np.ones(truth.profiles.shape, dtype=bool)
    for row, genes in enumerate(truth.targets):
        counted[row, genes] = False
    weight = 1 / np.maximum(counted.sum(axis=1), 1)
    credit = np.minimum(predicted.noise, truth.noise)
    claim, budget = float(weight @ credit), _spread(predicted.profiles, counted, weight)
    if claim > budget:
        credit = credit * (budget / claim)
    squares = np.where(counted, (predicted.profiles - truth.profiles) ** 2, 0).sum(axis=1)
    error = weight * (squares - credit - truth.noise)
    effects = np.where(counted, truth.effects**2, 0).sum(axis=1)
    effect = weight * (effects - truth.noise - truth.control_noise)
    total = float(effect.mean())
    return error / total if total > 0 else np.full(len(error), nan)


def _spread(profiles: Floats, counted: NDArray[np.bool_], weight: Floats) -> float:
    """Weighted sum of squared deviations of profiles from their weighted mean, over the genes that count."""
    weights = weight[:, None] * counted
    total = weights.sum(axis=0)
    mean = (weights * profiles).sum(axis=0) / np.where(total > 0, total, 1)
    squares = (weights * (profiles - mean) ** 2).sum(axis=0)
    return float(squares[counted.sum(axis=0) >= 2].sum())


def _responses(truth: CountPanel, predicted: CountPanel) -> dict[str, Floats]:
    """Score called genes, directions and fold changes."""
    true, guessed = truth.responses, predicted.responses
    called, guessed_called = _without_targets(true.significant, truth), _without_targets(guessed.significant, truth)
    both = called | guessed_called
    jaccard = np.where(both.any(axis=1), (called & guessed_called).sum(axis=1) / np.maximum(both.sum(axis=1), 1), 1)

    direction = np.sign(true.log_fold_change)
    decided = (direction != 0) & true.tested & guessed.tested
    right = decided & (np.sign(guessed.log_fold_change) == direction)
    claimed = guessed_called & decided
    most = np.maximum(claimed.sum(axis=1), called.sum(axis=1))
    fidelity = np.where(most > 0, (claimed & right).sum(axis=1) / np.maximum(most, 1), nan)

    names = np.asarray(truth.genes, dtype=str)
    order_by_name = np.argsort(np.argsort(names))
    reach = np.full(len(called), nan)
    for row in np.flatnonzero(called.any(axis=1)):
        genes = np.flatnonzero(called[row] & guessed.tested)
        confidence = (
            order_by_name[genes],
            -np.abs(guessed.log_fold_change[row, genes]),
            guessed.p[row, genes],
            guessed.p_adjusted[row, genes],
        )
        genes = genes[np.lexsort(confidence)]
        reach[row] = _deepest(right[row, genes][decided[row, genes]]) / called[row].sum()
    error = _fold_change_error(truth, guessed.log_fold_change - true.log_fold_change)
    return {FIDELITY: fidelity, REACH: reach, JACCARD: jaccard, NMAE: error}


def _deepest(right: NDArray[np.bool_]) -> int:
    """Find the longest prefix of which at least ``PURITY`` is right."""
    pure = np.flatnonzero(np.cumsum(right) / np.arange(1, len(right) + 1) >= PURITY)
    return int(pure[-1]) + 1 if len(pure) else 0


def _fold_change_error(truth: CountPanel, error: Floats) -> Floats:
    """Mean absolute error over mean absolute fold change, over the truly called genes of each perturbation."""
    called = _without_targets(truth.responses.significant, truth)
    number = called.sum(axis=1)
    size = np.where(called, np.abs(truth.responses.log_fold_change), 0).sum(axis=1)
    errors = np.where(called, np.abs(error), 0).sum(axis=1)
    defined = (number >= LEAST_GENES) & (size > 0)
    return np.where(defined, errors / np.where(defined, size, 1), nan)


def _without_targets(called: NDArray[np.bool_], truth: CountPanel) -> NDArray[np.bool_]:
    """Calls without those of the genes that a perturbation is named after."""
    called = called.copy()
    for row, genes in enumerate(truth.targets):
        called[row, genes] = False
    return called
