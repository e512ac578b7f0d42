"""Which genes respond, for many perturbations at once: one rank test of counts against the same control cells.

The test is that of the Virtual Cell Challenge 2026: a two-sided Wilcoxon rank sum (normal approximation with tie and
continuity correction) of counts per million in each cell; genes of more than 5 counts per million in the mean control
cell; Benjamini and Hochberg's adjustment within each perturbation.

The control cells are sorted once. A perturbed cell finds its place among them by bisection, so that a further
perturbation costs little more than its own values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtr

from multipert.data.expression import Floats, Matrix
from multipert.evaluation.counts import cell_totals, gene_totals
from multipert.evaluation.ranking import adjust

PER_MILLION = 1e6

Loop = TypeVar("Loop", bound=Callable[..., Any])

LEAST_MEAN = 5.0
"""Counts per million that a gene's mean control cell must exceed for the gene to be tested."""

PSEUDO_MEAN = 1e-9
"""Added to both means of a fold change, in counts per million."""

LEVEL = 0.05
"""Bound on the false discovery rate of what is called significant."""


@dataclass(frozen=True, eq=False)
class ResponseTable:
    """What the test says of every perturbation and gene.

    Attributes
    ----------
    tested
        Whether a gene was tested, shape (genes,). One that was not has p-values of 1 and no fold change.
    p, p_adjusted
        Two-sided p-values, as they are and adjusted within each perturbation, shape (perturbations, genes).
    log_fold_change
        log2 of the ratio of mean counts per million to those of control, shape (perturbations, genes).
    """

    tested: NDArray[np.bool_]
    p: Floats
    p_adjusted: Floats
    log_fold_change: Floats

    @property
    def significant(self) -> NDArray[np.bool_]:
        """What is called at ``LEVEL``, shape (perturbations, genes)."""
        called: NDArray[np.bool_] = self.p_adjusted < LEVEL
        return called


def response_table(groups: Sequence[Matrix], control: Matrix) -> ResponseTable:
    """Test each group of cells against the control cells.

    Parameters
    ----------
    groups
        Raw counts of each perturbation's cells, each sparse (cells, genes).
    control
        Raw counts of the control cells, sparse (cells, genes).
    """
    reference = _per_million(control)
    reference_mean = gene_totals(reference) / reference.shape[0]
    tested = np.flatnonzero(reference_mean > LEAST_MEAN)
    shape = (len(groups), control.shape[1])
    p, adjusted, change = np.ones(shape), np.ones(shape), np.zeros(shape)
    sorted_reference = _sorted_columns(reference[:, tested])
    ties = _tie_terms(*sorted_reference)

    def test(row: int) -> None:
        cells = _per_million(groups[row])
        mean = gene_totals(cells)[tested] / cells.shape[0]
        z = _rank_test(*_sorted_columns(cells[:, tested]), cells.shape[0], *sorted_reference, reference.shape[0], ties)
        p[row, tested] = np.minimum(2 * ndtr(-z), 1)
        adjusted[row, tested] = adjust(p[row, tested])
        change[row, tested] = np.log2((mean + PSEUDO_MEAN) / (reference_mean[tested] + PSEUDO_MEAN))

    with ThreadPoolExecutor(_cores()) as threads:
        list(threads.map(test, range(len(groups))))
    mask = np.zeros(shape[1], dtype=bool)
    mask[tested] = True
    return ResponseTable(mask, p, adjusted, change)


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compiled(loop: Loop) -> Loop:
    """Compile a loop; once for a machine, where there is a folder to keep the outcome in."""
    try:
        return cast(Loop, njit(cache=True, nogil=True)(loop))
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return cast(Loop, njit(nogil=True)(loop))


def _per_million(counts: Matrix) -> sparse.csr_array:
    """Scale each cell to a million counts, in float64; a cell without counts stays empty."""
    counts = sparse.csr_array(counts)
    total = cell_totals(counts)
    scale = np.where(total > 0, total, 1) / PER_MILLION
    data = counts.data / np.repeat(scale, np.diff(counts.indptr))
    return sparse.csr_array((data, counts.indices, counts.indptr), shape=counts.shape)


def _sorted_columns(cells: sparse.csr_array) -> tuple[NDArray[np.int64], Floats]:
    """Where each gene's values start, and its stored values in order.

    The logarithm changes no rank; it makes ties of values that differ by rounding alone.
    """
    columns = cells.tocsc()
    starts = columns.indptr.astype(np.int64)
    values = np.log1p(columns.data)
    _sort_each(starts, values)
    return starts, values


@_compiled
def _sort_each(starts: NDArray[np.int64], values: Floats) -> None:
    for gene in range(len(starts) - 1):
        values[starts[gene] : starts[gene + 1]].sort()


@_compiled
def _tie_terms(starts: NDArray[np.int64], values: Floats) -> Floats:
    """``sum t^3 - t`` over the runs of equal stored values of each gene."""
    terms = np.zeros(len(starts) - 1)
    for gene in range(len(terms)):
        i, end = starts[gene], starts[gene + 1]
        while i < end:
            first = i
            while i < end and values[i] == values[first]:
                i += 1
            run = float(i - first)
            terms[gene] += run**3 - run
    return terms


@_compiled
def _rank_test(
    group_starts: NDArray[np.int64],
    group: Floats,
    n: int,
    reference_starts: NDArray[np.int64],
    reference: Floats,
    m: int,
    ties: Floats,
) -> Floats:
    """Size of z for each gene: how far the rank sum lies from its mean, less the continuity correction.

    Values that are not stored are zeros, the smallest there are: they tie with each other.
    """
    z = np.zeros(len(ties))
    for gene in range(len(ties)):
        at, stop = reference_starts[gene], reference_starts[gene + 1]
        i, end = group_starts[gene], group_starts[gene + 1]
        start = at
        zeros, reference_zeros = n - (end - i), m - (stop - at)
        both = float(zeros + reference_zeros)
        tie = ties[gene] + both**3 - both
        # The number of pairs in which the perturbed cell has more, a tie counting half.
        u = zeros * reference_zeros / 2
        while i < end:
            value, first = group[i], i
            while i < end and group[i] == value:
                i += 1
            at = _first_not_below(reference, at, stop, value)
            less = at - start
            while at < stop and reference[at] == value:
                at += 1
            run, equal = float(i - first), float(at - start - less)
            u += run * (reference_zeros + less + equal / 2)
            tie += (run + equal) ** 3 - (run + equal) - (equal**3 - equal)
        total = float(n + m)
        variance = n * m / 12 * (total + 1 - tie / (total * (total - 1)))
        if variance > 0:
            z[gene] = (abs(u - n * m / 2) - 0.5) / np.sqrt(variance)
    return z


@_compiled
def _first_not_below(values: Floats, low: int, high: int, value: float) -> int:
    """Where ``value`` belongs among sorted values, between two positions."""
    while low < high:
        middle = (low + high) // 2
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low
