"""Moments of each gene over the cells of a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from multipert.models.baselines import mean_shifts
from multipert.models.cells import LEVELS, positive_quantiles

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from multipert.data import PerturbationData
    from multipert.models.run_folder import Arrays

Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Moments = dict[str, Doubles]
"""``mean``, ``variance`` and ``share`` of positive values, (genes,) each."""


def gene_moments(data: PerturbationData, rows: Rows) -> Arrays:
    """Moments of each gene by (condition, context, gene), quantiles of its positive values, and numbers of cells.

    0, and NaN the quantiles, where there are no cells. Of cells on disk, a sample of each group
    (:meth:`PerturbationData.sample`).
    """
    shape = len(data.conditions), len(data.contexts)
    cells = np.zeros(shape, dtype=np.int64)
    found = {what: np.zeros((*shape, len(data.genes)), dtype=np.float32) for what in ("mean", "variance", "share")}
    quantiles = np.full((*shape, len(data.genes), len(LEVELS)), np.nan, dtype=np.float32)
    group = data.condition[rows] * shape[1] + data.context[rows]
    for number in np.unique(group):
        at = divmod(int(number), shape[1])
        members = data.X[data.sample(rows[group == number])]
        cells[at] = members.shape[0]
        quantiles[at] = positive_quantiles(members)
        for what, values in moments(members).items():
            found[what][at] = values
    if data.covariates:  # compare like with like: perturbed cells and controls of the same donor or batch
        for what in ("mean", "share"):
            matched = found[what][0] + mean_shifts(data, rows, shares=what == "share")
            found[what] = np.where(np.isnan(matched), found[what], np.maximum(matched, 0)).astype(np.float32)
    return {**found, "quantiles": quantiles, "cells": cells}


def moments(X: csr_matrix) -> Moments:
    """Mean, variance (of the population) and share of positive values of each gene, over cells ``X``."""
    n, n_genes = X.shape
    values = X.data.astype(np.float64)
    mean, square = (np.bincount(X.indices, weights=v, minlength=n_genes) / n for v in (values, values**2))
    share = np.bincount(X.indices, minlength=n_genes) / n
    return {"mean": mean, "variance": np.maximum(square - mean**2, 0), "share": share}


def sampling_variance(moments: Mapping[str, Doubles], what: str, n_cells: npt.NDArray[np.int64] | int) -> Doubles:
    """Sampling variance of a mean, or of a share, over ``n_cells`` cells."""
    variance = moments["variance"] if what == "mean" else moments["share"] * (1 - moments["share"])
    sampled: Doubles = variance / np.maximum(np.asarray(n_cells) - 1, 1)
    return sampled
