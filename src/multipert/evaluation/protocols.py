"""The protocols by which the field compares means, as scperteval names them, for calibration beside our own metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from multipert.data.expression import Floats, Integers
from multipert.evaluation.calibration import Duplicate, calibrated
from multipert.evaluation.distances import mean_distance


@dataclass(frozen=True)
class Protocol:
    """A way to compare means that the field calibrates: one row of what scperteval calls its table.

    Attributes
    ----------
    name
        scperteval's name, its parameter written out (``mse_top_k=50``).
    score
        Of (true, predicted, weights), each (genes,), or of two populations' cells.
    better, perfect
        Which way is better, and what a flawless prediction scores.
    centre
        What is subtracted from both means.
    genes
        Which genes count, as indices; all if none.
    weights
        What genes weigh; alike if none.
    populations
        Whether cells are compared rather than means.
    """

    name: str
    score: Callable[..., float]
    better: str = "high"
    perfect: float = 1.0
    centre: str | None = None
    genes: Callable[[Duplicate], Integers] | None = None
    weights: Callable[[Duplicate], Floats] | None = None
    populations: bool = False

    def controls(self, duplicate: Duplicate) -> tuple[float, float]:
        """Score the positive and the negative control of one perturbation."""
        genes = slice(None) if self.genes is None else self.genes(duplicate)
        if self.populations:
            return tuple(  # type: ignore[return-value]
                self.score(*(cells.columns(np.arange(cells.n_genes)[genes]) for cells in (duplicate.truth, candidate)))
                for candidate in (duplicate.half, duplicate.sample())
            )
        weights = np.ones(duplicate.truth.n_genes) if self.weights is None else self.weights(duplicate)
        # Each half is centred on its own controls; centred on the others, no change is the guess.
        centres: dict[str | None, tuple[Floats | float, Floats | float, Floats]] = {
            None: (0.0, 0.0, duplicate.others_mean),
            "control": (duplicate.control.mean, duplicate.half_control.mean, duplicate.others_mean),
            "others": (duplicate.others_mean, duplicate.others_mean, duplicate.half_control.mean),
        }
        true_centre, centre, guess = centres[self.centre]
        true = duplicate.truth.mean - true_centre
        return tuple(  # type: ignore[return-value]
            self.score(true[genes], (candidate - centre)[genes], weights[genes])
            for candidate in (duplicate.interpolated, guess)
        )


def _pearson(true: Floats, predicted: Floats, weights: Floats) -> float:
    """Correlation, weighted; NaN where either side is constant."""
    weights = weights / weights.sum()
    a, b = true - weights @ true, predicted - weights @ predicted
    size = np.sqrt((weights @ a**2) * (weights @ b**2))
    return float(weights @ (a * b) / size) if size > 0 else np.nan


def _mean_square(true: Floats, predicted: Floats, weights: Floats) -> float:
    return float(np.average((true - predicted) ** 2, weights=weights))


def _length(true: Floats, predicted: Floats, weights: Floats) -> float:
    return float(np.linalg.norm(true - predicted))


def _explained(true: Floats, predicted: Floats, weights: Floats) -> float:
    """Coefficient of determination: unlike a squared correlation it charges for size."""
    spread = np.average((true - np.average(true, weights=weights)) ** 2, weights=weights)
    return float(1 - _mean_square(true, predicted, weights) / spread) if spread > 0 else np.nan


def _energy(true: Floats, predicted: Floats) -> float:
    return 2 * mean_distance(true, predicted) - mean_distance(true) - mean_distance(predicted)


def _top(duplicate: Duplicate, n: int) -> Integers:
    """Give the genes that set the truth most apart from the other perturbations."""
    return np.argsort(-np.abs(duplicate.distinct))[:n]


def _expressed(duplicate: Duplicate, n: int) -> Integers:
    """Give the genes that control cells express most."""
    return np.argsort(-duplicate.control.mean)[:n]


def _by_effect(duplicate: Duplicate) -> Floats:
    """Weigh genes by the square of how far they set the truth apart, from 0 to 1 (Mejia et al. 2025)."""
    size = np.abs(duplicate.distinct)
    spread = size.max() - size.min()
    return ((size - size.min()) / spread) ** 2 if spread > 0 else np.ones_like(size)


_TOP, _EXPRESSED = partial(_top, n=50), partial(_expressed, n=1000)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("pearson_ctrl", _pearson, centre="control"),
        Protocol("pearson_ctrl_top_k=50", _pearson, centre="control", genes=_TOP),
        Protocol("pearson_ctrl_heg_k=1000", _pearson, centre="control", genes=_EXPRESSED),
        Protocol("weighted_pearson_ctrl_exp2", _pearson, centre="control", weights=_by_effect),
        Protocol("pearson_pert", _pearson, centre="others"),
        Protocol("pearson_pert_top_k=50", _pearson, centre="others", genes=_TOP),
        Protocol("r2_ctrl", _explained, centre="control"),
        Protocol("r2_ctrl_top_k=50", _explained, centre="control", genes=_TOP),
        Protocol("r2_pert", _explained, centre="others"),
        Protocol("mse", _mean_square, "low", 0.0),
        Protocol("mse_top_k=50", _mean_square, "low", 0.0, genes=_TOP),
        Protocol("wmse_exp2", _mean_square, "low", 0.0, weights=_by_effect),
        Protocol("l2_heg_k=1000", _length, "low", 0.0, genes=_EXPRESSED),
        Protocol("energy_distance_top_k=50", _energy, "low", 0.0, genes=_TOP, populations=True),
    )
}
"""Protocols by scperteval's names, for comparison with the field; our own metrics are calibrated the same way."""


def calibrate_protocols(halved: Mapping[str, Duplicate], names: Iterable[str] | None = None) -> pd.DataFrame:
    """Calibrate the field's protocols.

    Parameters
    ----------
    halved
        What ``duplicates`` gives.
    names
        Which of ``PROTOCOLS``; all unless given.

    Returns
    -------
    pandas.DataFrame
        As ``calibrate``.
    """
    rows = {}
    for name in PROTOCOLS if names is None else names:
        protocol = PROTOCOLS[name]
        scores = np.array([protocol.controls(duplicate) for duplicate in halved.values()]).reshape(-1, 2)
        rows[name] = calibrated(list(halved), scores[:, 0], scores[:, 1], protocol.perfect, protocol.better)
    return pd.concat(rows, names=["metric", "perturbation"]).swaplevel()
