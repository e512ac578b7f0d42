"""What is compared: control, true and predicted cells over the same genes, and what their metrics share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from multipert.data.expression import Floats, Integers, Matrix, as_dense, is_sparse, slices
from multipert.data.scored_cells import (
    Role,
    ScoredCells,
    Source,
    Sources,
    by_perturbation,
    check_one_perturbation,
    check_same_perturbations,
    check_same_scale,
    read_scored_cells,
)
from multipert.evaluation.components import principal_components, standardised
from multipert.evaluation.distances import mean_distance
from multipert.evaluation.ranking import order_by_score, welch_scores, wilcoxon_scores

RESAMPLES = 100
"""How often the cells are resampled for the three R2 (the study's number)."""

RESAMPLED_SHARE = 0.8
"""The share of a population's cells in each of those resamples (the study's number)."""


class Population:
    """The cells of one condition, and the moments of its genes.

    Parameters
    ----------
    X
        Log-normalised expression, shape (cells, genes), sparse or dense.
    names
        (cells,) names by which cells are known to be those of another population; they may repeat.
    """

    def __init__(self, X: Matrix, names: pd.Index | None = None) -> None:
        self.X = X
        self.names = names
        self.n_cells: int = X.shape[0]
        self.n_genes: int = X.shape[1]

    def __repr__(self) -> str:
        kind = "sparse" if is_sparse(self.X) else "dense"
        return f"Population({self.n_cells} cells x {self.n_genes} genes, {kind})"

    @cached_property
    def places(self) -> dict[object, int]:
        """Every name of a cell, once, numbered in the order of the cells."""
        return {name: place for place, name in enumerate(dict.fromkeys(() if self.names is None else self.names))}

    @cached_property
    def mean(self) -> Floats:
        """Mean of each gene, shape (genes,)."""
        return self._sum(lambda values: values) / self.n_cells

    @cached_property
    def variance(self) -> Floats:
        """Unbiased variance of each gene, shape (genes,); 0 for a single cell.

        With the arithmetic of scanpy's ranking: squares are taken in the precision of the data and summed in float64.
        Only so are the ranks of nearly tied genes those of scanpy.
        """
        n = self.n_cells
        if n == 1:
            return np.zeros(self.n_genes)
        variance: Floats = self._sum(lambda values: values * values) / n - self.mean**2
        return variance * (n / (n - 1))

    def _sum(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> Floats:
        """Sum a function of the values over the cells, in float64, (genes,)."""
        if is_sparse(self.X):
            sums = np.bincount(self.X.indices, weights=function(self.X.data), minlength=self.n_genes)
            return sums.astype(np.float64, copy=False)  # numpy counts in whole numbers where nothing is stored
        total = np.zeros(self.n_genes)
        for rows in slices(self.n_cells, width=self.n_genes):
            total += function(self.X[rows]).sum(axis=0, dtype=np.float64)
        return total

    def columns(self, genes: Integers) -> Floats:
        """Dense float64 values of a few genes, shape (cells, len(genes))."""
        return as_dense(self.X[:, genes]).astype(np.float64, copy=False)

    def take(self, cells: NDArray[Any]) -> Population:
        """Make a population of some of its cells (indices, repeats allowed, or a mask); it carries no names."""
        return Population(self.X[cells])

    def halves(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Split its cells at random: two sets of indices; of an odd number the second has one more.

        A single cell is both.
        """
        if self.n_cells < 2:
            return np.arange(self.n_cells), np.arange(self.n_cells)
        second, first = np.array_split(rng.permutation(self.n_cells), 2)
        return first, second

    def resampled_means(self) -> Floats:
        """Means of ``RESAMPLES`` random subsets of the cells, shape (genes, resamples).

        Resample i holds the cells of ``DataFrame.sample(frac=0.8, random_state=i)``; all of them are one product of
        the cells with a (cells, resamples) matrix. Dense cells are multiplied in their own precision, which BLAS keeps
        by summing in blocks; scipy sums sparse ones in a row, so in float64.
        """
        weights = _resampling_weights(self.n_cells)
        if not is_sparse(self.X):
            weights = weights.astype(self.X.dtype, copy=False)
        return np.asarray(self.X.T @ weights, dtype=np.float64)


@lru_cache(maxsize=2)
def _resampling_weights(n_cells: int) -> Floats:
    """Weight of each cell in each resample, shape (cells, resamples)."""
    size = round(RESAMPLED_SHARE * n_cells)
    weights = np.zeros((n_cells, RESAMPLES))
    for i in range(RESAMPLES):
        weights[np.random.RandomState(i).choice(n_cells, size=size, replace=False), i] = 1 / size
    return weights


@dataclass(frozen=True, eq=False)
class Comparison:
    """A prediction to be scored: three populations over the same genes, and what several metrics need of them.

    Metrics are functions of a comparison. What they share (gene rankings, principal components, mean distances) is
    computed when first asked for and kept.

    Parameters
    ----------
    control, truth, predicted
        The cells, genes in one order.
    genes
        Names of the genes.
    seed
        Seeds the random draws of estimates for large populations.
    coordinates
        Gives the coordinates of control, true and predicted cells in one space, each (cells, components), of scaled
        genes or of genes as they are; by default in the principal components of all three.
    predicted_control
        The control cells that predicted cells are set against, where they are not those of the true cells.
    parts
        What the comparison is taken apart into where both sides must not share the noise of one control population;
        found from the names of the cells unless given.
    """

    control: Population
    truth: Population
    predicted: Population
    genes: pd.Index[str]
    seed: int = 0
    coordinates: Callable[[bool], tuple[Floats, ...]] | None = None
    predicted_control: Population | None = None
    parts: tuple[Comparison, ...] | None = None
    _distances: dict[tuple[Role, Role, bool], float] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_cells(self) -> int:
        """Cells of all three populations."""
        return self.control.n_cells + self.truth.n_cells + self.predicted.n_cells

    @cached_property
    def crossed(self) -> tuple[Comparison, ...]:
        """The comparisons whose mean score shares no noise between prediction and controls.

        A prediction that moves control cells carries their noise. Where it was made from the very control cells it is
        scored with (its cells bear their names, or these with an ending such as ``-perturbation``), these are halved:
        what was predicted from one half is compared with the other half, and the other way round. Otherwise this
        comparison alone.
        """
        if self.parts is not None:
            return self.parts
        if self.control.names is None or self.predicted.names is None:
            return (self,)
        known = self.control.places
        place = _origins(self.predicted.names, known)
        if len(known) < 2 or (place < 0).all():
            return (self,)
        in_first = np.zeros(len(known), dtype=bool)
        in_first[np.random.default_rng(self.seed).permutation(len(known))[: len(known) // 2]] = True
        control_half = in_first[[known[name] for name in self.control.names]]
        # A predicted cell of another name shares its noise with neither half.
        halves = [(control_half, (place < 0) | ~in_first[place]), (~control_half, (place < 0) | in_first[place])]
        return tuple(
            replace(self, control=self.control.take(controls), predicted=self.predicted.take(cells))
            for controls, cells in halves
            if cells.any()
        )

    @cached_property
    def components(self) -> dict[Role, Floats]:
        """Coordinates of the cells by role, each (cells, components)."""
        return self._components(scaled=False)

    @cached_property
    def scaled_components(self) -> dict[Role, Floats]:
        """The same with every gene on one scale; see ``standardised``."""
        return self._components(scaled=True)

    def _components(self, *, scaled: bool) -> dict[Role, Floats]:
        if self.coordinates is not None:
            control, truth, predicted = self.coordinates(scaled)
        else:
            cells = [self.control.X, self.truth.X, self.predicted.X]
            control, truth, predicted = principal_components(standardised(cells, cells[:2]) if scaled else cells)
        return {"control": control, "truth": truth, "predicted": predicted}

    @cached_property
    def scale(self) -> float:
        """Root mean square distance of the cells from the origin of the components: what "near 0" is measured by."""
        cells = np.concatenate(list(self.components.values()))
        return float(np.sqrt(np.mean(np.sum(cells**2, axis=1))))

    def mean_distance(self, first: Role, second: Role, *, scaled: bool = False) -> float:
        """Mean Euclidean distance in the components; of one role with itself, over pairs of distinct cells."""
        if (first, second, scaled) not in self._distances:
            cells = self.scaled_components if scaled else self.components
            X, Y = cells[first], cells[second]
            self._distances[first, second, scaled] = mean_distance(X) if first == second else mean_distance(X, Y)
        return self._distances[first, second, scaled]

    @cached_property
    def welch_truth(self) -> Floats:
        """Welch t of each gene, true against control cells."""
        return welch_scores(self.truth, self.control)

    @cached_property
    def welch_predicted(self) -> Floats:
        """Welch t of each gene, predicted against the control cells of the true ones: as the study has it."""
        return welch_scores(self.predicted, self.control)

    @cached_property
    def wilcoxon_truth(self) -> Floats:
        """Wilcoxon z of each gene, true against control cells."""
        return wilcoxon_scores(self.truth.X, self.control.X)

    @cached_property
    def wilcoxon_predicted(self) -> Floats:
        """Wilcoxon z of each gene, predicted against their control cells."""
        return wilcoxon_scores(self.predicted.X, self._origin.X)

    @cached_property
    def _responding(self) -> Integers:
        return order_by_score(self.wilcoxon_truth)

    def top_genes(self, n: int) -> Integers:
        """Name the ``n`` genes (all, when there are fewer) of highest Wilcoxon score, true against control cells."""
        return self._responding[:n]

    @cached_property
    def true_shift(self) -> Floats:
        """Mean true minus mean control expression, shape (genes,)."""
        return self.truth.mean - self.control.mean

    @cached_property
    def predicted_shift(self) -> Floats:
        """Mean predicted minus mean expression of their control cells, shape (genes,)."""
        return self.predicted.mean - self._origin.mean

    @property
    def _origin(self) -> Population:
        return self.control if self.predicted_control is None else self.predicted_control

    @cached_property
    def resampled_means(self) -> tuple[Floats, Floats]:
        """Resampled mean profiles of the true and of the predicted cells, each (genes, resamples)."""
        return self.truth.resampled_means(), self.predicted.resampled_means()


def _origins(names: pd.Index, known: Mapping[object, int]) -> Integers:
    """Find each name, or a part of it before a hyphen, among the known ones: its place there, or -1."""
    found = []
    for name in names.tolist():
        place = known.get(name, -1)
        while place < 0 and isinstance(name, str) and "-" in name:
            name = name.rpartition("-")[0]
            place = known.get(name, -1)
        found.append(place)
    return np.array(found, dtype=np.int64)


def read_comparisons(
    *,
    control: Source,
    truth: Sources,
    predicted: Sources | None,
    perturbation_key: str | None = None,
    seed: int = 0,
    on_disk: bool | None = None,
) -> dict[str, Comparison]:
    """Read, check and align three sets of cells; one comparison for each perturbation.

    Parameters
    ----------
    control, truth, predicted
        AnnData (in memory or backed) or the path of an h5ad file, log-normalised ``X``; of truth and predicted also
        one for each perturbation, by name. Genes are matched by name and follow the order of ``truth``. Without
        predicted cells the control cells stand for them: no change is predicted.
    perturbation_key
        Column of ``obs`` of truth and predicted that names the perturbation; without it all cells are one.
    seed
        Handed to the comparisons.
    on_disk
        Whether only a sample of each file is read; by default where all would take up much of the memory.

    Returns
    -------
    dict
        Comparisons by perturbation, sorted; the only one is called ``""`` when there is no key and no names.

    Raises
    ------
    InputError
        Cells that cannot be scored (see ``multipert.data.scored_cells``), or perturbations that differ.
    """
    true_cells = read_scored_cells(truth, "truth", perturbation_key=perturbation_key, on_disk=on_disk)
    genes = true_cells[0].genes
    (control_cells,) = read_scored_cells(control, "control", genes=genes, on_disk=on_disk)
    controls = Population(control_cells.X, control_cells.names)
    comparisons = {
        name: Comparison(controls, cells, controls, genes, seed) for name, cells in _populations(true_cells).items()
    }
    if predicted is None:
        check_same_scale([controls.X], [cells.X for cells in true_cells])
        return comparisons
    predicted_cells = read_scored_cells(
        predicted, "predicted", perturbation_key=perturbation_key, genes=genes, on_disk=on_disk
    )
    if perturbation_key is None and not isinstance(truth, Mapping):
        check_one_perturbation(control_cells, true_cells, predicted_cells)
    return _with_prediction(comparisons, predicted_cells, "predicted")


def with_mean_response(
    comparisons: Mapping[str, Comparison], mean_response: Sources, perturbation_key: str | None = None
) -> dict[str, Comparison]:
    """Put another prediction, the mean response, in the place of the predicted cells; as ``read_comparisons``."""
    genes = next(iter(comparisons.values())).genes
    cells = read_scored_cells(mean_response, "mean_response", perturbation_key=perturbation_key, genes=genes)
    return _with_prediction(comparisons, cells, "mean_response")


def _with_prediction(
    comparisons: Mapping[str, Comparison], cells: Sequence[ScoredCells], role: Role
) -> dict[str, Comparison]:
    """Set cells against the truth, after a look at their scale and their perturbations."""
    controls = next(iter(comparisons.values())).control
    true = [comparison.truth.X for comparison in comparisons.values()]
    outside = [part.X for part in cells if not part.predicted_here]
    check_same_scale([controls.X], true, {role: outside} if outside else None)
    guessed = _populations(cells)
    check_same_perturbations(comparisons, guessed, role)
    return {name: replace(comparison, predicted=guessed[name]) for name, comparison in comparisons.items()}


def _populations(read: Iterable[ScoredCells]) -> dict[str, Population]:
    """Split cells by perturbation, names sorted; cells that share one are a population as they are."""
    return {name: Population(X, names) for name, (X, names) in by_perturbation(read).items()}
