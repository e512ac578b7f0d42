"""Bounds of the six metrics of counts on one held-out context, and whether they can tell there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd

from multipert.data.scored_cells import Source
from multipert.evaluation.calibration import calibrated
from multipert.evaluation.counts import read_panels
from multipert.evaluation.registry import METRICS
from multipert.evaluation.vcc2026 import COMBINED, VCC2026, combine, replicate_scores, scaled_scores, score_panel


def bounds_of_counts(
    *,
    control: Source,
    truth: Mapping[str, Source],
    mean_response: Mapping[str, Source] | None = None,
    counts_layer: str | None = None,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """Measure the bounds of the six, and of what they combine to.

    Parameters
    ----------
    control, truth, mean_response, counts_layer
        As for ``scorecard_of_counts``; one source of cells for each perturbation.
    seed
        Seeds the halves.

    Returns
    -------
    dict
        ``floor`` (control cells as the prediction), ``mean_response`` (NaN without one) and ``ceiling`` (a replicate,
        mean over splits): each a row for a perturbation and a column for a metric.
    """
    read = partial(read_panels, control=control, truth=truth, counts_layer=counts_layer)
    truth_panel, unchanged = read(predicted=dict.fromkeys(truth, control))
    floor = score_panel(truth_panel, unchanged)
    if mean_response is None:
        mean = pd.DataFrame(np.nan, index=floor.index, columns=floor.columns)
    else:
        mean = score_panel(truth_panel, read(predicted=mean_response)[1])
    splits = replicate_scores(truth_panel, seed)
    ceiling = splits.groupby(level="perturbation").mean().reindex(floor.index)
    bounds = {"floor": floor, "mean_response": mean, "ceiling": ceiling}
    return {name: table.assign(**{COMBINED: context_score(table, mean, ceiling)}) for name, table in bounds.items()}


def context_score(scores: pd.DataFrame, mean_response: pd.DataFrame, ceiling: pd.DataFrame) -> float:
    """Combine the scores of a context: the mean of the six, scaled; NaN where one of them has no scale."""
    names = list(VCC2026)
    ends = (combine(table[names]) for table in (scores, mean_response, ceiling))
    return float(scaled_scores(*ends).mean(skipna=False))


def calibrate_counts(bounds: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Say whether the six can tell a replicate from the mean response.

    Parameters
    ----------
    bounds
        What ``bounds_of_counts`` gives.

    Returns
    -------
    dict
        ``drf``, the dynamic range of every perturbation and metric, and ``wins``, whether the replicate is the better
        one; NaN without a mean response.
    """
    ceiling, mean_response = bounds["ceiling"], bounds["mean_response"]
    tables = {}
    for name, metric in VCC2026.items():
        perfect = METRICS[name].range[1] if metric.better == "high" else 0.0
        positive, negative = (table[name].to_numpy(dtype=np.float64) for table in (ceiling, mean_response))
        found = calibrated([str(one) for one in ceiling.index], positive, negative, perfect, metric.better)
        tables[name] = found[np.isfinite(positive) & np.isfinite(negative)].reindex(found.index)
    return {column: pd.DataFrame({name: table[column] for name, table in tables.items()}) for column in ("drf", "wins")}
