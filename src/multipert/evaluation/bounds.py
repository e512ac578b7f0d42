"""The bounds that a score is read between, measured on the same cells.

- **floor**: what predicting no change scores, the control cells handed in as the prediction. For metrics that take both
  sides' difference from control, a disjoint half of the control cells is handed in: they would else share its noise;
- **mean response**: what anyone would predict who knows the perturbations but not this context; handed in by the
  caller, who has the training cells;
- **ceiling**: what a replicate scores. True and control cells are split at random into halves, and one half of the
  truth, with its half of the controls, is scored as the prediction of the other; mean of 5 splits.

``normalised = (score - floor) / (ceiling - floor)``, with the better of the two floors, is the share of the possible
improvement that a model achieved. Where the nearer to 1 is the better, scores and bounds enter by their distance
from 1.

A ratio to the prediction's own distance from control has no floor: for no change it divides by zero. Its floor is then
infinite, ``normalised`` NaN unless there is a mean response, and whether the model is worse than doing nothing is
unknown (``<NA>``): ask ``edist_vs_control``. Where even the ceiling does not beat the floor the metric cannot tell a
replicate from doing nothing on these cells (a weak effect, or a metric like ``mean_pairwise``): ``normalised`` is NaN.
A single true cell cannot be split, so its ceiling is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from multipert.data.expression import Floats, Integers
from multipert.data.scored_cells import Source, Sources
from multipert.evaluation.calibration import what_can_tell
from multipert.evaluation.components import principal_components, standardised
from multipert.evaluation.populations import Comparison, Population, read_comparisons, with_mean_response
from multipert.evaluation.profiles import choose_metrics, reads_counts
from multipert.evaluation.registry import METRICS, Metric, choose
from multipert.evaluation.scoring import PERTURBATION, score
from multipert.evaluation.vcc2026 import scorecard_of_counts

SPLITS = 5
"""How often the true cells are split for the ceiling."""

METRIC = "metric"


def scorecard(
    *,
    control: Source,
    truth: Sources,
    predicted: Sources,
    perturbation_key: str | None = None,
    mean_response: Sources | None = None,
    metrics: Iterable[str] | None = None,
    profile: str = "default",
    counts_layer: str | None = None,
    intervals: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
    on_disk: bool | None = None,
) -> pd.DataFrame:
    """Score a prediction and show every score between its bounds.

    Parameters
    ----------
    control, truth, predicted, perturbation_key, metrics, profile, counts_layer
        As for ``evaluate``, or for several perturbations as for ``evaluate_many``. With a profile of raw counts the
        table is that of ``scorecard_of_counts``.
    mean_response
        The mean response as a prediction, in the form of ``predicted``; without it that bound is NaN.
    intervals
        Number of bootstrap draws for confidence intervals (200 is usual; each costs about one evaluation); 0 for none.
    confidence
        Coverage of the intervals.
    seed
        Seeds splits, draws and estimates.
    on_disk
        Whether only a sample of each file is read: of a perturbation at most 10,000 cells, of all 100,000, evenly
        spaced; by default where all would take up much of the memory.

    Returns
    -------
    pandas.DataFrame
        A row for each metric (where there may be several perturbations, for each of them and metric). Columns:
        ``score``, ``floor``, ``mean_response``, ``ceiling``, ``normalised``, ``worse_than_doing_nothing`` (boolean,
        ``<NA>`` where unknown), with intervals ``low`` and ``high``; ``drf``, ``bds`` and ``can_tell`` (whether the
        metric can tell a replicate from a guess on these cells, over all perturbations: see ``calibrate``); and
        ``note`` (what must be said beside a score; empty when nothing).

    Raises
    ------
    InputError
        As for ``evaluate``.

    Notes
    -----
    Intervals: control, true and predicted cells are drawn anew, each with replacement, in the principal components of
    all of them; a draw's deviation from the mean of the draws stands for the deviation of the score from its
    expectation. (The plain percentile interval would be off: a draw holds cells twice, which lowers distances within
    a population and so shifts every draw the same way.) Ends are kept within the metric's range.
    """
    if reads_counts(profile, metrics, counts_layer):
        return scorecard_of_counts(
            control=control,
            truth=truth,
            predicted=predicted,
            perturbation_key=perturbation_key,
            mean_response=mean_response,
            counts_layer=counts_layer,
            seed=seed,
        )
    by_name = isinstance(truth, Mapping)
    chosen = choose_metrics(profile, metrics, several=by_name or perturbation_key is not None)
    comparisons = read_comparisons(
        control=control,
        truth=truth,
        predicted=predicted,
        perturbation_key=perturbation_key,
        seed=seed,
        on_disk=on_disk,
    )
    scores, notes = score(comparisons, chosen)
    columns = {"score": scores, **_bounds(comparisons, chosen, mean_response, perturbation_key, seed)}
    table = between_bounds(_stack(columns))
    if intervals:
        ends = _intervals(comparisons, scores, chosen, intervals, confidence, seed)
        table = table.join(_stack(ends))
    table = table.join(what_can_tell(comparisons, chosen), on=METRIC)
    said = zip(notes.to_numpy().ravel(), table["note"], strict=True)
    table["note"] = ["; ".join(filter(None, both)) for both in said]
    return _named(table, PERTURBATION if by_name else perturbation_key)


def bounds(
    *,
    control: Source,
    truth: Sources,
    mean_response: Sources | None = None,
    perturbation_key: str | None = None,
    metrics: Iterable[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the bounds: they depend on the cells, not on a model, so once is enough for many models.

    Parameters
    ----------
    control, truth, perturbation_key, metrics
        As for ``evaluate`` and ``evaluate_many``; also one truth for each perturbation, by name.
    mean_response
        As for ``scorecard``.
    seed
        Seeds the splits and estimates.

    Returns
    -------
    pandas.DataFrame
        A row for each metric (for each perturbation and metric, with a key), columns ``floor``, ``mean_response`` and
        ``ceiling``.

    Raises
    ------
    InputError
        As for ``evaluate``.
    """
    by_name = isinstance(truth, Mapping)
    chosen = choose(metrics, several=by_name or perturbation_key is not None)
    comparisons = read_comparisons(
        control=control, truth=truth, predicted=None, perturbation_key=perturbation_key, seed=seed
    )
    table = _stack(_bounds(comparisons, chosen, mean_response, perturbation_key, seed))
    return _named(table, PERTURBATION if by_name else perturbation_key)


def between_bounds(table: pd.DataFrame) -> pd.DataFrame:
    """Add what the bounds say of each score.

    Parameters
    ----------
    table
        Columns ``score``, ``floor``, ``ceiling`` and, if known, ``mean_response``; the index, or its level ``metric``,
        names the metrics.

    Returns
    -------
    pandas.DataFrame
        The table with ``normalised`` and ``worse_than_doing_nothing`` (see the module).
    """
    level = METRIC if METRIC in table.index.names else 0
    names = [str(name) for name in table.index.get_level_values(level)]

    def short(column: str) -> Floats:
        if column not in table:
            return np.full(len(table), np.nan)
        found = [METRICS[name].shortfall(value) for name, value in zip(names, table[column], strict=True)]
        return np.array(found, dtype=np.float64)

    score, floor, ceiling = short("score"), short("floor"), short("ceiling")
    floors = np.stack([floor, short("mean_response")])
    better = np.min(np.where(np.isfinite(floors), floors, np.inf), axis=0)
    possible = better - ceiling
    with np.errstate(invalid="ignore"):
        normalised = (better - score) / np.where(np.isfinite(possible) & (possible > 0), possible, np.nan)
    worse = pd.array(score > np.where(np.isfinite(floor), floor, np.inf), dtype="boolean")
    worse[~np.isfinite(floor) | np.isnan(score)] = pd.NA
    return table.assign(
        normalised=np.where(np.isfinite(normalised), normalised, np.nan), worse_than_doing_nothing=worse
    )


def _bounds(
    comparisons: Mapping[str, Comparison],
    metrics: Sequence[Metric],
    mean_response: Sources | None,
    perturbation_key: str | None,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Floor, mean response and ceiling, each a row for a perturbation and a column for a metric."""
    control = next(iter(comparisons.values())).control
    # Numbered, so that the prediction is known to be the control cells and is taken in crossed halves.
    control = Population(control.X, pd.RangeIndex(control.n_cells))
    unchanged = {
        name: replace(comparison, control=control, predicted=control) for name, comparison in comparisons.items()
    }
    floor, _ = score(unchanged, metrics)
    if mean_response is None:
        mean = pd.DataFrame(np.nan, index=floor.index, columns=floor.columns)
    else:
        mean, _ = score(with_mean_response(comparisons, mean_response, perturbation_key), metrics)
    return {"floor": floor, "mean_response": mean, "ceiling": _ceiling(comparisons, metrics, seed)}


def _ceiling(comparisons: Mapping[str, Comparison], metrics: Sequence[Metric], seed: int) -> pd.DataFrame:
    """Score half of the true cells as the prediction of the other half, each with its own half of the controls."""
    rng = np.random.default_rng(seed)
    whole = {name: _Replicate(comparison) for name, comparison in comparisons.items() if comparison.truth.n_cells > 1}
    drawn = [
        score({name: replicate.draw(rng) for name, replicate in whole.items()}, metrics)[0].to_numpy()
        for _ in range(SPLITS)
    ]
    known = np.sum(~np.isnan(drawn), axis=0)
    ceiling = np.where(known > 0, np.nansum(drawn, axis=0), np.nan) / np.maximum(known, 1)
    table = pd.DataFrame(ceiling, index=list(whole), columns=[metric.name for metric in metrics])
    return table.reindex(list(comparisons))


class _Replicate:
    """True and control cells to be split: one half of both is the truth, the other the prediction.

    All splits hold the same cells, so the principal components are found once.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.space = cache(self._space)

    def _space(self, scaled: bool) -> tuple[Floats, ...]:
        cells = [self.comparison.control.X, self.comparison.truth.X]
        return principal_components(standardised(cells, cells) if scaled else cells)

    def draw(self, rng: np.random.Generator) -> Comparison:
        """Split at random."""
        control, truth = self.comparison.control, self.comparison.truth
        first, second = truth.halves(rng)
        control_first, control_second = control.halves(rng)

        def coordinates(scaled: bool) -> tuple[Floats, ...]:
            of_control, of_truth = self.space(scaled)
            return of_control[control_first], of_truth[first], of_truth[second]

        return replace(
            self.comparison,
            control=control.take(control_first),
            truth=truth.take(first),
            predicted=truth.take(second),
            predicted_control=control.take(control_second),
            coordinates=coordinates,
        )


def _intervals(
    comparisons: Mapping[str, Comparison],
    scores: pd.DataFrame,
    metrics: Sequence[Metric],
    draws: int,
    confidence: float,
    seed: int,
) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    drawn = np.stack([score(_redraw(comparisons, rng), metrics)[0].to_numpy() for _ in range(draws)])
    drawn[~np.isfinite(drawn)] = np.nan
    ends = np.full((2, *scores.shape), np.nan)
    for row, column in np.argwhere(np.isfinite(drawn).any(axis=0) & np.isfinite(scores.to_numpy())):
        values = drawn[:, row, column]
        deviations = values[np.isfinite(values)] - np.nanmean(values)
        tail = np.quantile(deviations, [(1 - confidence) / 2, (1 + confidence) / 2])
        ends[:, row, column] = np.clip(scores.iat[row, column] + tail, *metrics[column].range)
    return {
        name: pd.DataFrame(end, index=scores.index, columns=scores.columns)
        for name, end in zip(("low", "high"), ends, strict=True)
    }


def _redraw(comparisons: Mapping[str, Comparison], rng: np.random.Generator) -> dict[str, Comparison]:
    """Draw the cells of every population anew, with replacement; the control cells, being the same, once."""
    control = next(iter(comparisons.values())).control
    control_cells = rng.integers(control.n_cells, size=control.n_cells)
    controls = control.take(control_cells)
    drawn = {}
    for name, comparison in comparisons.items():
        parts = comparison.crossed
        redrawn = [_drawn_anew(part, rng) for part in parts] if parts != (comparison,) else []
        whole = _drawn_anew(comparison, rng, control_cells, controls)
        drawn[name] = replace(whole, parts=tuple(redrawn) or (whole,))
    return drawn


def _drawn_anew(
    comparison: Comparison,
    rng: np.random.Generator,
    control_cells: Integers | None = None,
    control: Population | None = None,
) -> Comparison:
    """Draw cells with replacement, in the components of those that they are drawn from."""
    if control_cells is None or control is None:
        control_cells = rng.integers(comparison.control.n_cells, size=comparison.control.n_cells)
        control = comparison.control.take(control_cells)
    truth, predicted = comparison.truth, comparison.predicted
    cells = [control_cells, *(rng.integers(some.n_cells, size=some.n_cells) for some in (truth, predicted))]

    def coordinates(scaled: bool) -> tuple[Floats, ...]:
        found = comparison.scaled_components if scaled else comparison.components
        return tuple(of[rows] for of, rows in zip(found.values(), cells, strict=True))

    return replace(
        comparison,
        control=control,
        truth=truth.take(cells[1]),
        predicted=predicted.take(cells[2]),
        coordinates=coordinates,
    )


def _stack(columns: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of perturbations x metrics as the columns of one long table."""
    first = next(iter(columns.values()))
    index = pd.MultiIndex.from_product([first.index, first.columns], names=[PERTURBATION, METRIC])
    return pd.DataFrame({name: table.to_numpy().ravel() for name, table in columns.items()}, index=index)


def _named(table: pd.DataFrame, perturbation_key: str | None) -> pd.DataFrame:
    """Rows by metric where there is one perturbation, else by perturbation (named like its column) and metric."""
    if perturbation_key is None:
        return table.droplevel(PERTURBATION)
    return table.rename_axis(index={PERTURBATION: perturbation_key})
