"""The bounds that a score is read between, measured on the same cells.

- **floor**: what predicting no change scores, the control cells handed in as the prediction;
- **ceiling**: what a perfect model could score with as many cells, the true cells split at random into halves and one
  half scored as the prediction of the other, mean of 5 splits.

``normalised = (score - floor) / (ceiling - floor)`` is the share of the possible improvement that a model achieved.
Where the nearer to 1 is the better, scores and bounds enter by their distance from 1.

A ratio to the prediction's own distance from control has no floor: for no change it divides by zero. Its floor is then
infinite, ``normalised`` NaN, and whether the model is worse than doing nothing is unknown (``<NA>``): ask
``edist_vs_control``. Where even the ceiling does not beat the floor the metric cannot tell a perfect model from doing
nothing on these cells (a weak effect, or a metric like ``mean_pairwise``): ``normalised`` is NaN. A single true cell
cannot be split, so its ceiling is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from multipert.data.expression import Floats
from multipert.data.scored_cells import Source, Sources
from multipert.evaluation.components import principal_components
from multipert.evaluation.populations import Comparison, read_comparisons
from multipert.evaluation.registry import METRICS, Metric, choose
from multipert.evaluation.scoring import PERTURBATION, notes, score

SPLITS = 5
"""How often the true cells are split for the ceiling."""

METRIC = "metric"


def scorecard(
    *,
    control: Source,
    truth: Source,
    predicted: Source,
    perturbation_key: str | None = None,
    metrics: Iterable[str] | None = None,
    intervals: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a prediction and show every score between its bounds.

    Parameters
    ----------
    control, truth, predicted, perturbation_key, metrics
        As for ``evaluate`` and ``evaluate_many``.
    intervals
        Number of bootstrap draws for confidence intervals (200 is usual; each costs about one evaluation); 0 for none.
    confidence
        Coverage of the intervals.
    seed
        Seeds splits, draws and estimates.

    Returns
    -------
    pandas.DataFrame
        A row for each metric (for each perturbation and metric, with a key). Columns: ``score``, ``floor``,
        ``ceiling``, ``normalised``, ``worse_than_doing_nothing`` (boolean, ``<NA>`` where unknown), with intervals
        ``low`` and ``high``, and ``note`` (what must be said beside a score; empty when nothing).

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
    several = perturbation_key is not None
    chosen = choose(metrics, several=several)
    comparisons = read_comparisons(
        control=control, truth=truth, predicted=predicted, perturbation_key=perturbation_key, seed=seed
    )
    scores = score(comparisons, chosen)
    columns = {"score": scores, **_bounds(comparisons, chosen, seed)}
    table = between_bounds(_stack(columns))
    if intervals:
        ends = _intervals(comparisons, scores, chosen, intervals, confidence, seed)
        table = table.join(_stack(ends))
    said = notes(comparisons, chosen)
    table["note"] = [said.get(metric, "") for metric in table.index.get_level_values(METRIC)]
    return _named(table, perturbation_key)


def bounds(
    *,
    control: Source,
    truth: Sources,
    perturbation_key: str | None = None,
    metrics: Iterable[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure floor and ceiling: they depend on the cells, not on a model, so once is enough for many models.

    Parameters
    ----------
    control, truth, perturbation_key, metrics
        As for ``evaluate`` and ``evaluate_many``; also one truth for each perturbation, by name.
    seed
        Seeds the splits and estimates.

    Returns
    -------
    pandas.DataFrame
        A row for each metric (for each perturbation and metric, with a key), columns ``floor`` and ``ceiling``.

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
    table = _stack(_bounds(comparisons, chosen, seed))
    return _named(table, PERTURBATION if by_name else perturbation_key)


def between_bounds(table: pd.DataFrame) -> pd.DataFrame:
    """Add what the bounds say of each score.

    Parameters
    ----------
    table
        Columns ``score``, ``floor`` and ``ceiling``; the index, or its level ``metric``, names the metrics.

    Returns
    -------
    pandas.DataFrame
        The table with ``normalised`` and ``worse_than_doing_nothing`` (see the module).
    """
    level = METRIC if METRIC in table.index.names else 0
    names = [str(name) for name in table.index.get_level_values(level)]
    short = {
        column: np.array(
            [METRICS[name].shortfall(value) for name, value in zip(names, table[column], strict=True)], dtype=np.float64
        )
        for column in ("score", "floor", "ceiling")
    }
    known = np.isfinite(short["floor"]) & ~np.isnan(short["score"])
    floor = np.where(np.isfinite(short["floor"]), short["floor"], np.nan)
    possible = floor - short["ceiling"]
    normalised = (floor - short["score"]) / np.where(possible > 0, possible, np.nan)
    worse = pd.array(short["score"] > floor, dtype="boolean")
    worse[~known] = pd.NA
    return table.assign(
        normalised=np.where(np.isfinite(normalised), normalised, np.nan), worse_than_doing_nothing=worse
    )


def _bounds(comparisons: Mapping[str, Comparison], metrics: Sequence[Metric], seed: int) -> dict[str, pd.DataFrame]:
    """Floor and ceiling, each a row for a perturbation and a column for a metric."""
    unchanged = {name: replace(comparison, predicted=comparison.control) for name, comparison in comparisons.items()}
    rng = np.random.default_rng(seed)
    whole = {name: _Halves(comparison) for name, comparison in comparisons.items() if comparison.truth.n_cells > 1}
    drawn = [score({name: halves.draw(rng) for name, halves in whole.items()}, metrics) for _ in range(SPLITS)]
    ceiling = sum(drawn[1:], start=drawn[0]) / SPLITS
    return {"floor": score(unchanged, metrics), "ceiling": ceiling.reindex(list(comparisons))}


class _Halves:
    """True cells to be split: one half the truth, the other the prediction.

    All splits hold the same cells, so the principal components are found once.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.truth = comparison.truth
        self.comparison = comparison
        self.space = cache(lambda: principal_components([comparison.control.X, comparison.truth.X]))

    def draw(self, rng: np.random.Generator) -> Comparison:
        """Split at random; of an odd number the prediction gets one more."""
        second, first = np.array_split(rng.permutation(self.truth.n_cells), 2)

        def coordinates() -> tuple[Floats, ...]:
            control, truth = self.space()
            return control, truth[first], truth[second]

        return replace(
            self.comparison,
            truth=self.truth.take(first),
            predicted=self.truth.take(second),
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
    drawn = np.stack([score(_redraw(comparisons, rng), metrics).to_numpy() for _ in range(draws)])
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
    controls = next(iter(comparisons.values())).control
    control_cells = rng.integers(controls.n_cells, size=controls.n_cells)
    control = controls.take(control_cells)
    drawn = {}
    for name, comparison in comparisons.items():
        cells = [control_cells] + [
            rng.integers(population.n_cells, size=population.n_cells)
            for population in (comparison.truth, comparison.predicted)
        ]

        def coordinates(comparison: Comparison = comparison, cells: list[np.ndarray] = cells) -> tuple[Floats, ...]:
            return tuple(
                coordinates[rows] for coordinates, rows in zip(comparison.components.values(), cells, strict=True)
            )

        drawn[name] = replace(
            comparison,
            control=control,
            truth=comparison.truth.take(cells[1]),
            predicted=comparison.predicted.take(cells[2]),
            coordinates=coordinates,
        )
    return drawn


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
