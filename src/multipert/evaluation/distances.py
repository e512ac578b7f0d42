"""Distances between two sets of cells, given by their coordinates (cells, components) in one space.

Pairs of cells are walked in blocks, so that memory stays bounded whatever the number of cells.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment

from multipert.data.expression import Floats, slices

EXACT_TRANSPORT_CELLS = 3_000
"""Largest set of cells for which optimal transport is solved exactly."""

TRANSPORT_DRAWS = 3
"""Beyond it: the mean over this many random draws ..."""

TRANSPORT_DRAW_CELLS = 2_000
"""... of this many cells from each set."""

BANDWIDTH_CELLS = 2_000
"""Most cells of which the median distance is taken for the bandwidth of a kernel."""


def mean_distance(X: Floats, Y: Floats | None = None) -> float:
    """Mean Euclidean distance over cross pairs, or over pairs of distinct cells of ``X`` alone.

    Parameters
    ----------
    X, Y
        Coordinates, shapes (n, components) and (m, components).

    Returns
    -------
    float
        ``sum_ij |x_i - y_j| / nm``, or ``sum_ij |x_i - x_j| / n(n-1)``; a single cell has no spread: 0.
    """
    if Y is None and len(X) == 1:
        return 0.0
    total = sum(float(np.sqrt(squares, out=squares).sum()) for squares in _squared_distances(X, Y))
    return total / (len(X) * (len(X) - 1) if Y is None else len(X) * len(Y))


def mean_gap(X: Floats, Y: Floats) -> float:
    """Euclidean distance between the two mean vectors."""
    return float(np.linalg.norm(X.mean(axis=0) - Y.mean(axis=0)))


def kernel_discrepancy(X: Floats, Y: Floats, *, seed: int = 0) -> float:
    """Squared maximum mean discrepancy with Gaussian kernels, U-statistic.

    ``k(x, y) = exp(-|x - y|^2 / 2 b^2)``, the mean over the bandwidths b = 0.5, 1 and 2 times the median distance
    between distinct cells of both sets (of at most ``BANDWIDTH_CELLS`` of them, drawn at random).

    Parameters
    ----------
    X, Y
        Coordinates, shapes (n, components) and (m, components).
    seed
        Seeds the draw for the bandwidth.

    Returns
    -------
    float
        ``mean_{i!=j} k(x_i, x_j) + mean_{i!=j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j)``: about 0 for equal populations,
        slightly negative at times. A set of a single cell has a mean kernel of 1 with itself. 0 when all cells of
        both sets are one point.

    References
    ----------
    Gretton et al. 2012, A kernel two-sample test, equation 3 and section 8 (median heuristic).
    """
    bandwidth = _median_distance(np.concatenate([X, Y]), seed)
    if bandwidth == 0:
        return 0.0
    return _mean_kernel(X, None, bandwidth) + _mean_kernel(Y, None, bandwidth) - 2 * _mean_kernel(X, Y, bandwidth)


def transport_cost(X: Floats, Y: Floats, *, seed: int = 0) -> float:
    """Optimal transport cost between two sets of equally weighted cells, squared Euclidean ground cost.

    Exact up to ``EXACT_TRANSPORT_CELLS`` cells in the larger set. Beyond it an estimate: the mean over
    ``TRANSPORT_DRAWS`` draws of the exact cost between ``TRANSPORT_DRAW_CELLS`` cells of each set. The cost between
    finite samples shrinks as they grow, so the estimate lies above the cost between all cells; the ratio of two such
    costs suffers less.

    Parameters
    ----------
    X, Y
        Coordinates, shapes (n, components) and (m, components).
    seed
        Seeds the draws.

    Returns
    -------
    float
        ``min_P sum_ij P_ij |x_i - y_j|^2`` over the plans P of margins 1/n and 1/m.
    """
    if transport_is_exact(len(X), len(Y)):
        return _exact_transport_cost(X, Y)
    rng = np.random.default_rng(seed)
    return float(np.mean([_exact_transport_cost(_draw(X, rng), _draw(Y, rng)) for _ in range(TRANSPORT_DRAWS)]))


def transport_is_exact(*sizes: int) -> bool:
    """Whether sets of these sizes are small enough for exact optimal transport."""
    return max(sizes) <= EXACT_TRANSPORT_CELLS


def gene_transport_distances(X: Floats, Y: Floats) -> Floats:
    """One-dimensional Wasserstein distance of each column: the area between two cumulative distributions.

    Parameters
    ----------
    X, Y
        Expression of the same genes, shapes (n, genes) and (m, genes).

    Returns
    -------
    Array of shape (genes,), in the units of expression.
    """
    values = np.concatenate([X, Y])
    order = np.argsort(values, axis=0)
    values = np.take_along_axis(values, order, axis=0)
    gap = np.cumsum(np.where(order < len(X), 1 / len(X), -1 / len(Y)), axis=0)
    area: Floats = np.sum(np.abs(gap[:-1]) * np.diff(values, axis=0), axis=0)
    return area


def squared_covariance(X: Floats) -> float:
    """Estimate the sum of squared covariances between different columns, ``sum_{g != h} C_gh^2``.

    The square of a sample covariance exceeds that of the covariance by its sampling variance, which is estimated and
    taken off.

    Parameters
    ----------
    X
        Cells, shape (n, genes), n > 1.
    """
    n = len(X)
    centred = X - X.mean(axis=0)
    squares = (centred.T @ centred / (n - 1)) ** 2
    noise = ((centred**2).T @ centred**2 / n - squares) / (n - 1)
    return _between_columns(squares - noise)


def product_of_covariances(X: Floats, Y: Floats) -> float:
    """Sum of products of the covariances of two sets of cells, ``sum_{g != h} C_gh D_gh``."""
    covariances = [(cells - cells.mean(axis=0)).T @ (cells - cells.mean(axis=0)) / (len(cells) - 1) for cells in (X, Y)]
    return _between_columns(covariances[0] * covariances[1])


def _between_columns(matrix: Floats) -> float:
    return float(matrix.sum() - np.trace(matrix))


def _squared_distances(X: Floats, Y: Floats | None) -> Iterator[Floats]:
    """Blocks of squared distances between rows; of ``X`` with itself when there is no ``Y``, diagonal exactly 0."""
    other = X if Y is None else Y
    lengths = np.sum(other**2, axis=1)
    for rows in slices(len(X), width=len(other)):
        part = X[rows]
        squares = part @ (-2 * other.T)
        squares += np.sum(part**2, axis=1)[:, None]
        squares += lengths
        if Y is None:
            squares[np.arange(len(part)), np.arange(rows.start, rows.stop)] = 0
        yield np.maximum(squares, 0, out=squares)


def _mean_kernel(X: Floats, Y: Floats | None, bandwidth: float) -> float:
    if Y is None and len(X) == 1:
        return 1.0
    total = 0.0
    for squares in _squared_distances(X, Y):
        # The widest kernel's powers are the other two: half the bandwidth is the fourth power.
        squares *= -1 / (8 * bandwidth**2)
        kernel = np.exp(squares, out=squares)
        for _ in range(3):
            total += float(kernel.sum()) / 3
            kernel *= kernel
            kernel *= kernel
    if Y is None:
        return (total - len(X)) / (len(X) * (len(X) - 1))
    return total / (len(X) * len(Y))


def _median_distance(cells: Floats, seed: int) -> float:
    """Median distance between distinct cells; the mean where more than half of the pairs coincide."""
    if len(cells) > BANDWIDTH_CELLS:
        cells = np.random.default_rng(seed).choice(cells, BANDWIDTH_CELLS, replace=False)
    squares = np.concatenate(list(_squared_distances(cells, None)))
    distances = np.sqrt(squares[np.triu_indices(len(cells), k=1)])
    return float(np.median(distances)) or float(np.mean(distances))


def _exact_transport_cost(X: Floats, Y: Floats) -> float:
    cost = np.concatenate(list(_squared_distances(X, Y)))
    if 1 in cost.shape:
        return float(cost.mean())
    if len(X) == len(Y):
        # Between sets of one size an optimal plan is a one-to-one assignment (Birkhoff's theorem).
        return float(cost[linear_sum_assignment(cost)].mean())
    # Only here: importing POT takes seconds, most of them for backends that are not needed.
    from ot.lp import emd2

    return float(emd2([], [], cost, numItermax=100_000_000))


def _draw(cells: Floats, rng: np.random.Generator) -> Floats:
    return rng.choice(cells, min(len(cells), TRANSPORT_DRAW_CELLS), replace=False)
