"""Cells that have a given mean, made from control cells: each is its control cell, moved.

For each gene a mean and a share of expressing cells are given. The positive values of the control cells are moved until
both are met, and go back to the cells in the order of the control cells' own values: what a cell had more of than its
neighbours it keeps more of, so that what genes have in common stays.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.special import ndtri

Doubles = npt.NDArray[np.float64]

LEVELS = (np.arange(8) + 0.5) / 8
"""At which quantiles positive values are described."""
ENOUGH = 8
"""Positive values of a gene from which their distribution is taken for known; fewer are, if no more are asked for."""


SPREAD = 0.4
"""Standard deviation over mean of positive values, for genes that hardly any control cell expresses."""


@dataclass(frozen=True)
class Marginals:
    """What the cells shall have, gene by gene.

    Attributes
    ----------
    mean
        (genes,) Mean over all cells.
    share
        (genes,) Share of cells with a positive value.
    change
        (genes, levels) What is added to the quantiles of the control cells' positive values before the mean is met.
    elsewhere
        (genes, levels) Quantiles of positive values, for genes of which the control cells have too few; NaN if unknown.
    """

    mean: Doubles
    share: Doubles
    change: Doubles
    elsewhere: Doubles


def positive_quantiles(X: csr_matrix) -> npt.NDArray[np.float32]:
    """Quantiles of each gene's positive values over cells ``X``, (genes, levels); NaN where there is none."""
    columns = X.tocsc()
    n_genes, count, first = X.shape[1], np.diff(columns.indptr), columns.indptr[:-1]
    gene = np.repeat(np.arange(n_genes), count)
    values = columns.data[np.lexsort((columns.data, gene))]
    found = np.full((n_genes, len(LEVELS)), np.nan, dtype=np.float32)
    some = count > 0
    at = np.clip(LEVELS * count[some, None] - 0.5, 0, count[some, None] - 1)
    below = at.astype(np.int64)
    above = np.minimum(below + 1, count[some, None] - 1)
    low, high = (values[first[some, None] + place] for place in (below, above))
    found[some] = low + (at - below) * (high - low)
    return found


def move(X: csr_matrix, wanted: Marginals, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Move control cells ``X`` (cells, genes), of one context, to the marginals wanted.

    The mean is met exactly wherever one cell or more is to express the gene. With the marginals of the control cells
    themselves and no change, they come back as they are.
    """
    n_cells, n_genes = X.shape
    columns = X.tocsc()
    moved = np.zeros((n_genes, n_cells), dtype=np.float32)
    share = _possible(wanted)
    # Rounded up as often as its fraction says, so that small shares of few cells are not lost.
    n_positive = np.minimum(np.floor(share * n_cells + 1e-6 + rng.random(n_genes)), n_cells).astype(np.int64)
    for gene in np.flatnonzero((n_positive > 0) & (wanted.mean > 0)):
        inside = slice(columns.indptr[gene], columns.indptr[gene + 1])
        cells, values = columns.indices[inside], columns.data[inside].astype(np.float64)
        n = n_positive[gene]
        order = np.argsort(values)
        positive = _positive_values(values[order], n, wanted.change[gene], wanted.elsewhere[gene])
        if share[gene] * n_cells >= 1:
            positive = _with_mean(positive, wanted.mean[gene] * n_cells / n, shift=share[gene] > 0.5)
        ranked = cells[order]
        if n > len(cells):  # cells that do not express the gene are all alike: chance picks those that begin to
            silent = np.ones(n_cells, dtype=bool)
            silent[cells] = False
            begin = rng.choice(np.flatnonzero(silent), n - len(cells), replace=False, shuffle=False)
            ranked = np.concatenate([begin, ranked])
        moved[gene, ranked[len(ranked) - n :]] = positive
    return np.ascontiguousarray(moved.T)


def keep(X: csr_matrix, mean: Doubles, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Move control cells ``X`` (cells, genes), of one context, to the mean that any model predicted for them, (genes,).

    The share of cells that express a gene follows the mean as it does from gene to gene in the control cells.
    """
    own, share = (np.asarray(values.mean(axis=0), dtype=np.float64).ravel() for values in (X, X > 0))
    from scipy.optimize import isotonic_regression  # only here: it takes long to import

    order = np.argsort(own)
    rising = isotonic_regression(share[order]).x
    change = np.interp(mean, own[order], rising) - np.interp(own, own[order], rising)
    wanted = np.clip(share + change, 0, 1)
    level = np.divide(mean, wanted, out=np.zeros_like(mean), where=wanted > 0)
    elsewhere = level[:, None] * np.maximum(1 + SPREAD * ndtri(LEVELS), 0)
    return move(X, Marginals(mean, wanted, np.zeros_like(elsewhere), elsewhere), rng)


def _possible(wanted: Marginals) -> Doubles:
    """The share of expressing cells, kept where the mean of their values stays within half and double of elsewhere."""
    level = wanted.elsewhere.mean(axis=1)
    implied = np.divide(wanted.mean, level, out=wanted.share.copy(), where=level > 0)
    share: Doubles = np.clip(np.clip(wanted.share, implied / 2, implied * 2), 0, 1)
    return share


def _positive_values(own: Doubles, n: int, change: Doubles, elsewhere: Doubles) -> Doubles:
    """``n`` ascending positive values, of the distribution of the control cells' ``own`` where these are enough."""
    at = (np.arange(n) + 0.5) / n
    if len(own) >= min(ENOUGH, n) or (len(own) and np.isnan(elsewhere[0])):
        values = own if n == len(own) else np.interp(at * len(own) - 0.5, np.arange(len(own)), own)
        return np.maximum.accumulate(values + np.interp(at, LEVELS, change))
    if np.isnan(elsewhere[0]):
        return np.ones(n)
    return np.interp(at, LEVELS, elsewhere)


def _with_mean(values: Doubles, mean: float, *, shift: bool) -> Doubles:
    """Move ascending values to a mean: by adding where a gene is mostly on, else by multiplying; none negative."""
    moved = np.maximum(values + (mean - values.mean()) if shift else values, 0)
    centre = moved.mean()
    scaled: Doubles = moved * (mean / centre) if centre > 0 else np.full(len(values), mean)
    return scaled
