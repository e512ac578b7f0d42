"""From cells to scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import cast

import numpy as np
import pandas as pd
from threadpoolctl import ThreadpoolController

import multipert.evaluation.metrics  # noqa: F401  (enters the metrics)
from multipert.data.scored_cells import Source, Sources
from multipert.errors import InputError
from multipert.evaluation.populations import Comparison, read_comparisons
from multipert.evaluation.profiles import choose_metrics, reads_counts
from multipert.evaluation.registry import Metric, ScoreOne, ScoreSeveral, Space
from multipert.evaluation.vcc2026 import evaluate_counts

PERTURBATION = "perturbation"

CROSSED = "predicted from the control cells it is scored with: mean of two crossed halves of them"
"""What is said beside a score that would else share noise with its controls."""

THREADED_CELLS = 1_500
"""Cells from which linear algebra is worth several threads."""


def evaluate(
    *,
    control: Source,
    truth: Source,
    predicted: Source,
    metrics: Iterable[str] | None = None,
    profile: str = "default",
    counts_layer: str | None = None,
    seed: int = 0,
) -> pd.Series[float]:
    """Score one prediction: one held-out context, one perturbation.

    Parameters
    ----------
    control, truth, predicted
        Control, true perturbed and predicted cells: AnnData (in memory or backed) or paths of h5ad files;
        log-normalised ``X``, sparse or dense. Genes are matched by name.
    metrics
        Names of the metrics wanted (see ``METRICS``); by default those of the profile, but for what needs several
        perturbations (``evaluate_many``).
    profile
        Which set of metrics: ``"default"``, ``"study"`` (the study's nine) or ``"vcc2026"`` (of raw counts; see
        ``PROFILES``).
    counts_layer
        With a profile of raw counts, the layer that holds them; by default ``X`` where its numbers are whole, else the
        layer ``counts``.
    seed
        Seeds estimates for large populations; all other scores are free of chance.

    Returns
    -------
    pandas.Series
        Scores by metric, float. ``attrs["notes"]`` says, by metric, what must be said beside a score: whether it is
        an estimate, was taken in crossed halves, or why it cannot tell.

    Raises
    ------
    InputError
        Cells that cannot be compared, or an unknown metric: one sentence says which and what to do.
    """
    if reads_counts(profile, metrics, counts_layer):
        counted = evaluate_counts(control=control, truth=truth, predicted=predicted, counts_layer=counts_layer)
        scores = pd.Series(counted.iloc[0], name="score")
        scores.attrs["notes"] = counted.attrs["notes"]
        return scores
    chosen = choose_metrics(profile, metrics, several=False)
    table, notes = score(read_comparisons(control=control, truth=truth, predicted=predicted, seed=seed), chosen)
    scores = pd.Series(table.iloc[0], name="score")
    scores.attrs["notes"] = _first(notes)
    return scores


def evaluate_many(
    *,
    control: Source,
    truth: Sources,
    predicted: Sources,
    perturbation_key: str | None = None,
    metrics: Iterable[str] | None = None,
    profile: str = "default",
    counts_layer: str | None = None,
    seed: int = 0,
    each: Callable[[str, Comparison], object] | None = None,
) -> pd.DataFrame:
    """Score the predictions of several perturbations of one held-out context.

    Parameters
    ----------
    control, truth, predicted, metrics, profile, counts_layer, seed
        As for ``evaluate``, or truth and predicted as one source for each perturbation, by name; metrics that need
        several perturbations are among them (NaN where there is one).
    perturbation_key
        Column of ``obs`` of truth and predicted that names the perturbation; not needed where they come by name.
    each
        Called with each perturbation and its comparison once it is scored, while what its metrics share (principal
        components, rankings) is still at hand.

    Returns
    -------
    pandas.DataFrame
        A row for each perturbation, sorted by name; a column for each metric. ``attrs["notes"]`` as for ``evaluate``,
        the first of each metric where perturbations differ.

    Raises
    ------
    InputError
        As for ``evaluate``, and where truth and predicted do not hold the same perturbations.
    """
    if perturbation_key is None and not isinstance(truth, Mapping):
        raise InputError("nothing tells the perturbations apart: name the column that does, or give each its own cells")
    if reads_counts(profile, metrics, counts_layer):
        return evaluate_counts(
            control=control,
            truth=truth,
            predicted=predicted,
            perturbation_key=perturbation_key,
            counts_layer=counts_layer,
        )
    chosen = choose_metrics(profile, metrics, several=True)
    comparisons = read_comparisons(
        control=control, truth=truth, predicted=predicted, perturbation_key=perturbation_key, seed=seed
    )
    scores, notes = score(comparisons, chosen, each)
    scores.index.name = perturbation_key or PERTURBATION
    scores.attrs["notes"] = _first(notes)
    return scores


def score(
    comparisons: Mapping[str, Comparison],
    metrics: Sequence[Metric],
    each: Callable[[str, Comparison], object] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score comparisons: a row for each and a column for each metric; ``each`` as for ``evaluate_many``.

    Returns
    -------
    scores, notes
        What must be said beside a score stands in its place in the second table, or nothing.
    """
    names = [metric.name for metric in metrics]
    scores = pd.DataFrame(np.nan, index=list(comparisons), columns=names)
    notes = pd.DataFrame("", index=list(comparisons), columns=names)

    def fill(row: int, comparison: Comparison, space: Space) -> None:
        for column, metric in enumerate(metrics):
            if not metric.several and metric.space == space:
                scores.iat[row, column], notes.iat[row, column] = _score_one(comparison, metric)

    both_spaces = any(metric.space == "components" for metric in metrics if not metric.several)
    with ThreadPoolExecutor(1, "components") as beside:
        for row, (name, comparison) in enumerate(comparisons.items()):
            # A fresh one: what its metrics share is let go with it, whatever the number of perturbations.
            fresh = replace(comparison)
            if any(metric.shares_control for metric in metrics):
                _ = fresh.crossed  # found before two threads ask for it
            # Small products gain nothing from threads, and on a busy machine wait for them a hundred times over.
            with _threads().limit(limits=1 if fresh.n_cells < THREADED_CELLS else None, user_api="blas"):
                in_components = beside.submit(fill, row, fresh, "components") if both_spaces else None
                fill(row, fresh, "genes")
                if in_components is not None:
                    in_components.result()
            if each is not None:
                each(name, fresh)
    for column, metric in enumerate(metrics):
        if metric.several:
            scores.isetitem(column, cast(ScoreSeveral, metric.function)(list(comparisons.values())))
    return scores, notes


def _first(notes: pd.DataFrame) -> dict[str, str]:
    """By metric, the first note that any perturbation has."""
    found = {str(metric): next((note for note in column if note), "") for metric, column in notes.items()}
    return {metric: note for metric, note in found.items() if note}


def _score_one(comparison: Comparison, metric: Metric) -> tuple[float, str]:
    """Score one perturbation, and say what must be said beside the score.

    Where prediction and controls must not share noise, the score is the mean over crossed halves.
    """
    parts = comparison.crossed if metric.shares_control else (comparison,)
    values = np.array([cast(ScoreOne, metric.function)(part) for part in parts])
    told = [metric.caveat(part) for part in parts] if metric.caveat is not None else []
    if len(parts) > 1:
        told.append(CROSSED)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan"), "; ".join(dict.fromkeys(one for one in told if one))


@cache
def _threads() -> ThreadpoolController:
    """Find the libraries whose threads are counted: once, since looking for them takes longer than a small score."""
    return ThreadpoolController()
