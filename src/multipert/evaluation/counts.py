"""Raw counts of one context, as the metrics of the Virtual Cell Challenge 2026 read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from multipert.data.expression import Floats, Matrix, as_dense, slices
from multipert.data.scored_cells import (
    Source,
    Sources,
    by_perturbation,
    check_same_perturbations,
    read_scored_cells,
)

if TYPE_CHECKING:
    from multipert.evaluation.differential_expression import ResponseTable

TARGET_SUM = 50_000.0
"""What the counts of a pseudo-bulk are scaled to before the logarithm."""


@dataclass(frozen=True, eq=False)
class CountPanel:
    """Counts of the control cells of one context and of its cells under each perturbation, true or predicted.

    Parameters
    ----------
    control
        Counts of the control cells, sparse (cells, genes).
    groups
        Counts of each perturbation's cells, by name, each sparse (cells, genes).
    genes
        The genes' names.
    """

    control: Matrix
    groups: Mapping[str, Matrix]
    genes: pd.Index[str]

    @property
    def perturbations(self) -> list[str]:
        """Names of the perturbations, in order."""
        return list(self.groups)

    @cached_property
    def profiles(self) -> Floats:
        """``log(1 + 50,000 share)`` of each gene in the summed counts of a perturbation, (perturbations, genes)."""
        return np.array([pseudo_bulk(cells) for cells in self.groups.values()])

    @cached_property
    def control_profile(self) -> Floats:
        """The same of the control cells, (genes,)."""
        return pseudo_bulk(self.control)

    @property
    def effects(self) -> Floats:
        """Profiles less that of control, (perturbations, genes)."""
        return self.profiles - self.control_profile

    @cached_property
    def noise(self) -> Floats:
        """Expected squared error of each profile, summed over genes, (perturbations,)."""
        return np.array([sampling_noise(cells) for cells in self.groups.values()])

    @cached_property
    def control_noise(self) -> float:
        """The same of the control profile."""
        return sampling_noise(self.control)

    @cached_property
    def responses(self) -> ResponseTable:
        """Which genes respond to each perturbation."""
        # Only here: numba takes a second to import, and most evaluations read no counts.
        from multipert.evaluation.differential_expression import response_table

        return response_table(list(self.groups.values()), self.control)

    @cached_property
    def targets(self) -> list[NDArray[np.int64]]:
        """The genes that each perturbation is named after (``A``, or ``A+B``); none for a drug."""
        found = [self.genes.get_indexer(pd.Index(name.split("+"))) for name in self.groups]
        return [np.unique(places[places >= 0]) for places in found]

    def halves(self, rng: np.random.Generator) -> tuple[CountPanel, CountPanel]:
        """Split every group of cells, the controls too, into two halves of one size; an odd cell is left out."""
        first, second = {}, {}
        for name in sorted([*self.groups, ""]):
            cells = self.groups[name] if name else self.control
            order = rng.permutation(cells.shape[0])
            half = len(order) // 2
            first[name], second[name] = cells[order[:half]], cells[order[half : 2 * half]]
        return tuple(  # type: ignore[return-value]
            replace(self, control=part[""], groups={name: part[name] for name in self.groups})
            for part in (first, second)
        )


def gene_totals(cells: Matrix) -> Floats:
    """Sum each gene over cells, in float64 (scipy sums in the precision of the data), (genes,)."""
    totals: Floats = np.ones(cells.shape[0]) @ cells
    return totals


def cell_totals(cells: Matrix) -> Floats:
    """Sum each cell over genes, in float64, (cells,)."""
    totals: Floats = cells @ np.ones(cells.shape[1])
    return totals


def pseudo_bulk(cells: Matrix) -> Floats:
    """Give the profile of cells together: ``log(1 + 50,000 share)`` of each gene, (genes,); zeros without counts."""
    total = gene_totals(cells)
    profile: Floats = np.log1p(total * (TARGET_SUM / total.sum() if total.sum() > 0 else 0))
    return profile


def sampling_noise(cells: Matrix) -> float:
    """Estimate the expected squared error of ``pseudo_bulk`` by leaving out one cell at a time, summed over genes.

    Parameters
    ----------
    cells
        Counts, sparse (cells, genes).

    Returns
    -------
    float
        ``(n - 1) / n * sum_g sum_i (v_ig - mean_i v_ig)^2``, where v_i is the profile without cell i; 0 for fewer than
        two cells.

    References
    ----------
    Efron and Stein 1981, The jackknife estimate of variance.
    """
    n, n_genes = cells.shape
    gene_total, cell_total = gene_totals(cells), cell_totals(cells)
    total = gene_total.sum()
    if n < 2 or total == 0:
        return 0.0
    whole = np.log1p(gene_total * (TARGET_SUM / total))
    sums, squares = np.zeros(n_genes), np.zeros(n_genes)
    for rows in slices(n, width=n_genes, size=64 * n_genes):
        # As deviations from the whole profile: they are small, and their squares lose no digits.
        rest = total - cell_total[rows, None]
        profile = gene_total - as_dense(cells[rows]).astype(np.float64)
        profile *= TARGET_SUM / np.where(rest > 0, rest, 1)
        deviation = np.log1p(profile, out=profile)
        deviation[rest[:, 0] <= 0] = 0
        deviation -= whole
        sums += deviation.sum(axis=0)
        squares += np.einsum("ij,ij->j", deviation, deviation)
    return max(float((n - 1) / n * (squares - sums**2 / n).sum()), 0.0)


def predict_mean_response(truth: CountPanel, seed: int = 0) -> CountPanel:
    """Predict the mean response for every perturbation: what one could say who knows them all but none in particular.

    Parameters
    ----------
    truth
        The true cells. The profile is the mean over perturbations of their mean counts; a gene's mean leaves out the
        perturbations that target it.
    seed
        Seeds the choice of control cells.

    Returns
    -------
    CountPanel
        As many cells for each perturbation as there are true ones: control cells drawn with replacement, the counts
        of each gene scaled by profile over control mean. Not whole numbers.
    """
    means = np.array([gene_totals(cells) / cells.shape[0] for cells in truth.groups.values()])
    counted = np.ones_like(means)
    for row, genes in enumerate(truth.targets):
        counted[row, genes] = 0
    number = counted.sum(axis=0)
    profile = np.where(number > 0, (means * counted).sum(axis=0) / np.maximum(number, 1), means.mean(axis=0))
    control = gene_totals(truth.control) / truth.control.shape[0]
    scale = np.where(control > 0, profile / np.where(control > 0, control, 1), 0)
    rng = np.random.default_rng(seed)
    groups = {}
    for name in sorted(truth.groups):
        drawn = sparse.csr_array(truth.control)[rng.integers(0, truth.control.shape[0], truth.groups[name].shape[0])]
        drawn.data = (drawn.data * scale[drawn.indices]).astype(np.float32)
        groups[name] = drawn
    return replace(truth, groups={name: groups[name] for name in truth.groups})


def read_panels(
    *,
    control: Source,
    truth: Sources,
    predicted: Sources,
    perturbation_key: str | None = None,
    counts_layer: str | None = None,
) -> tuple[CountPanel, CountPanel]:
    """Read and check raw counts of control, true and predicted cells; the real control cells belong to both panels.

    Parameters
    ----------
    control, truth, predicted, perturbation_key
        As for ``evaluate_many``, but raw counts; without a key, and with one truth, the perturbation is called ``""``.
    counts_layer
        The layer that holds the counts; by default ``X`` where its numbers are whole, else the layer ``counts``.

    Raises
    ------
    InputError
        Cells that cannot be read, numbers that are no counts, genes or perturbations that differ.
    """
    read = partial(read_scored_cells, counts=True, counts_layer=counts_layer)
    true = read(truth, "truth", perturbation_key=perturbation_key)
    genes = true[0].genes
    (controls,) = read(control, "control", genes=genes)
    guessed = read(predicted, "predicted", perturbation_key=perturbation_key, genes=genes)
    true_groups, guessed_groups = (
        {name: X for name, (X, _) in by_perturbation(cells).items()} for cells in (true, guessed)
    )
    check_same_perturbations(true_groups, guessed_groups)
    return tuple(CountPanel(controls.X, groups, genes) for groups in (true_groups, guessed_groups))  # type: ignore[return-value]
