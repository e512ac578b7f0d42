"""Which genes respond: the scores and the order of ``scanpy.tl.rank_genes_groups``, from sparse columns.

Scores, ties, zero-variance genes and order are those of scanpy (1.11) with its defaults and one reference group, bit
for bit; a test holds the lists equal. Two answers are ours, where scanpy refuses: the variance of a single cell is
taken as 0, and a single cell has a rank sum like any other population.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtr

from multipert.data.expression import Floats, Integers, Matrix, as_dense, is_sparse, slices


class Moments(Protocol):
    """What Welch's test needs to know of a population."""

    n_cells: int

    @property
    def mean(self) -> Floats:
        """Mean of each gene."""

    @property
    def variance(self) -> Floats:
        """Unbiased variance of each gene."""


def welch_scores(group: Moments, reference: Moments) -> Floats:
    """Welch's t of each gene, ``method="t-test"`` of scanpy.

    Parameters
    ----------
    group, reference
        Moments of the two populations over the same genes.

    Returns
    -------
    Array of shape (genes,). 0 where the means agree and neither population varies; infinite where neither varies and
    the means differ.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        # By way of the standard deviation, as scanpy hands it to scipy: rounding can leave a variance just below 0,
        # and its gene must then score 0 here as there.
        share_group = np.sqrt(group.variance) ** 2 / group.n_cells
        share_reference = np.sqrt(reference.variance) ** 2 / reference.n_cells
        scores: Floats = (group.mean - reference.mean) / np.sqrt(share_group + share_reference)
    scores[np.isnan(scores)] = 0
    return scores


def wilcoxon_scores(group: Matrix, reference: Matrix) -> Floats:
    """Wilcoxon rank-sum z of each gene, ``method="wilcoxon"`` of scanpy (normal approximation, no tie correction).

    Parameters
    ----------
    group, reference
        Expression, shapes (cells, genes) and (other cells, genes), sparse or dense.

    Returns
    -------
    Array of shape (genes,).
    """
    n, m = group.shape[0], reference.shape[0]
    deviation = np.sqrt(n * m * (n + m + 1) / 12.0)
    scores: Floats = (_rank_sums(group, reference) - n * ((n + m + 1) / 2.0)) / deviation
    return scores


def order_by_score(scores: Floats) -> Integers:
    """Order genes from the highest score to the lowest.

    The order among ties is scanpy's: what numpy's selection and sort leave when the whole list is asked for.
    """
    chosen = np.argpartition(scores, -len(scores))
    return chosen[np.argsort(scores[chosen])[::-1]]


def significant(scores: Floats, level: float = 0.05) -> NDArray[np.bool_]:
    """Call the genes whose two-sided p-value passes Benjamini and Hochberg's procedure (1995).

    Parameters
    ----------
    scores
        z of each gene, shape (genes,).
    level
        Bound on the false discovery rate.
    """
    called: NDArray[np.bool_] = adjust(2 * ndtr(-np.abs(scores))) <= level
    return called


def adjust(p: Floats) -> Floats:
    """Adjust p-values for their number (Benjamini and Hochberg 1995), shape (tests,)."""
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty_like(scaled)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return adjusted


def _rank_sums(group: Matrix, reference: Matrix) -> Floats:
    """Add up the midranks of ``group`` among all cells, for each gene."""
    n_genes, n_cells = group.shape[1], group.shape[0] + reference.shape[0]
    both_sparse = is_sparse(group) and is_sparse(reference)
    if both_sparse:
        group, reference = group.tocsc(), reference.tocsc()
    sums = np.empty(n_genes)
    # A value that is sorted takes several times its own room.
    sort, width = (_sort_stored, n_cells) if both_sparse else (_sort_all, 4 * n_cells)
    for genes in slices(n_genes, width=width):
        part, rest = group[:, genes], reference[:, genes]
        sums[genes] = _midrank_sums(*sort(part, rest), part.shape, n_cells)
    return sums


def _sort_stored(group: Matrix, reference: Matrix) -> tuple[Integers, Floats, NDArray[np.bool_]]:
    """Sort the stored values of two CSC matrices by gene, then value: gene, value, whether of ``group``."""
    cells = sparse.vstack([group, reference], format="csc")
    gene = np.repeat(np.arange(cells.shape[1]), np.diff(cells.indptr))
    by_value = np.argsort(cells.data)
    # In the smallest integers that hold them: numpy's stable sort of 16 bits takes linear time.
    small = gene.astype(np.min_scalar_type(cells.shape[1]))
    order = by_value[np.argsort(small[by_value], kind="stable")]
    return gene, cells.data[order], (cells.indices < group.shape[0])[order]


def _sort_all(group: Matrix, reference: Matrix) -> tuple[Integers, Floats, NDArray[np.bool_]]:
    """Sort every value likewise, where one of the two is dense."""
    cells = np.ascontiguousarray(np.concatenate([as_dense(group), as_dense(reference)]).T)
    order = np.argsort(cells, axis=1)
    gene = np.repeat(np.arange(cells.shape[0]), cells.shape[1])
    return gene, np.take_along_axis(cells, order, axis=1).ravel(), (order < group.shape[0]).ravel()


def _midrank_sums(
    gene: Integers, value: Floats, in_group: NDArray[np.bool_], shape: tuple[int, int], n_cells: int
) -> Floats:
    """Add up midranks of sorted values; the values of a gene that are not listed are zeros.

    Runs of equal values share their middle rank. The unlisted zeros of a gene are one more run, above its negative
    values and below its positive ones.
    """
    n_group, n_genes = shape
    zeros = n_cells - np.bincount(gene, minlength=n_genes)
    negatives = np.bincount(gene[value < 0], minlength=n_genes)
    zeros_in_group = n_group - np.bincount(gene[in_group], minlength=n_genes)
    sums: Floats = zeros_in_group * (negatives + (zeros + 1) / 2)
    if len(gene) == 0:
        return sums
    starts = np.flatnonzero(np.concatenate([[True], (gene[1:] != gene[:-1]) | (value[1:] != value[:-1])]))
    lengths = np.diff(np.append(starts, len(gene)))
    run_gene = gene[starts]
    before = starts - np.searchsorted(gene, np.arange(n_genes))[run_gene]
    before += np.where(value[starts] > 0, zeros[run_gene], 0)
    members = np.add.reduceat(in_group.astype(np.int64), starts)
    sums += np.bincount(run_gene, weights=members * (before + (lengths + 1) / 2), minlength=n_genes)
    return sums
