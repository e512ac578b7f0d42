"""Cells handed in to be scored: control, true and predicted, each checked alone and then against the others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Literal, Self, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from multipert.data.expression import (
    Floats,
    Matrix,
    are_whole,
    check_log_normalised,
    is_sparse,
    slices,
    stored_values,
    take_counts,
    take_expression,
)
from multipert.data.files import read_cells
from multipert.data.on_disk import is_backed, take_sample
from multipert.data.suggestions import did_you_mean, some
from multipert.errors import InputError

Source: TypeAlias = AnnData | str | PathLike[str]
Sources: TypeAlias = Source | Mapping[str, Source]
Role: TypeAlias = Literal["control", "truth", "predicted", "mean_response"]

CALLED: Mapping[Role, str] = {
    "control": "control cells",
    "truth": "true cells",
    "predicted": "predicted cells",
    "mean_response": "cells of the mean response",
}
"""The roles, as sentences call them."""

ROUNDING_BELOW_ZERO = 1e-3
"""How far below zero a predicted value may lie: rounding, taken for zero. Lower ones are refused."""

_TOTALS_APART = 3.0
"""Measured cells of one experiment whose totals differ by more than this factor were scaled differently."""

_SOME_APART = 1.15
"""Some of the predicted cells may differ from all by this factor; a logarithm more or less moves sums farther."""

_CELLS_TO_COMPARE = 2_000  # of each role: more tell the scale no better
_GENES_TO_COMPARE = 100  # of fewer genes a perturbation may move the total


@dataclass(frozen=True, eq=False)
class ScoredCells:
    """Cells of one role, checked.

    Attributes
    ----------
    X
        (cells, genes) float32, log-normalised; sparse, or a dense array where it was one.
    genes
        Their names, unique.
    names
        (cells,) the names of the cells; they may repeat.
    obs
        The caller's table of cells.
    perturbation
        (cells,) the perturbation of each cell, or the one of all.
    predicted_here
        Whether they say (``uns["multipert"]``) that a model of this package predicted them, and still hold the values
        that it left: these are on the scale of their control cells, however poor the model.
    """

    X: Matrix
    genes: pd.Index
    names: pd.Index
    obs: pd.DataFrame
    perturbation: NDArray[np.object_] | str
    predicted_here: bool


def read_scored_cells(
    sources: Sources,
    role: Role,
    *,
    perturbation_key: str | None = None,
    genes: pd.Index | None = None,
    counts: bool = False,
    counts_layer: str | None = None,
    on_disk: bool | None = None,
) -> list[ScoredCells]:
    """Read and check the cells of one role.

    Parameters
    ----------
    sources
        AnnData (in memory or backed) or the path of an h5ad file, log-normalised ``X``; or one for each perturbation,
        by name.
    role
        What they are: of predicted cells, rounding below zero is mended (``ROUNDING_BELOW_ZERO``).
    perturbation_key
        The column of ``obs`` that names the perturbation; not read where sources come by name.
    genes
        The genes wanted, in order; those of the first source unless given.
    counts
        Whether raw counts are wanted in place of log-normalised expression.
    counts_layer
        The layer that holds them; by default ``X`` where its numbers are whole, else the layer ``counts``.
    on_disk
        Whether only a sample of a file is read (see ``multipert.data.on_disk.take_sample``); by default where all
        would take up much of the memory.

    Returns
    -------
    list of ScoredCells
        One for each source, all of the same genes in the same order.

    Raises
    ------
    InputError
        There are no cells; a file cannot be read; the expression is not log-normalised, or holds values that cannot
        be; the key is missing; genes differ.
    """
    parts: list[tuple[Source, str | None, str]]
    if isinstance(sources, Mapping):
        if not sources:
            raise InputError(f"there are no {CALLED[role]}: give those of one perturbation at least")
        parts = [(source, None, name) for name, source in sources.items()]
    else:
        parts = [(sources, perturbation_key, "")]
    read = [_read(source, role, key, name, counts, counts_layer, on_disk) for source, key, name in parts]
    wanted = read[0].genes if genes is None else genes
    return [_in_order(cells, wanted, role) for cells in read]


def by_perturbation(read: Iterable[ScoredCells]) -> dict[str, tuple[Matrix, pd.Index]]:
    """Split cells by perturbation, sorted: expression and names of cells. Those that share one stay as they are."""
    found: dict[str, tuple[Matrix, pd.Index]] = {}
    for cells in read:
        X, names, labels = cells.X, cells.names, cells.perturbation
        if isinstance(labels, str):
            found[labels] = (X, names)
        else:
            codes, found_labels = pd.factorize(labels)
            if (np.diff(codes) < 0).any():
                order = np.argsort(codes, kind="stable")
                X, names, codes = X[order], names[order], codes[order]
            ends = np.append(0, np.cumsum(np.bincount(codes)))
            for name, rows in zip(found_labels, map(slice, ends, ends[1:]), strict=False):
                found[name] = (_rows(X, rows), names[rows])
    return dict(sorted(found.items()))


def _rows(X: Matrix, rows: slice) -> Matrix:
    """Cells that stand together, without copying them."""
    if not is_sparse(X):
        return X[rows]
    stored = slice(X.indptr[rows.start], X.indptr[rows.stop])
    # Not by way of the constructor, which would look through all that was looked through before.
    part = sparse.csr_array((rows.stop - rows.start, X.shape[1]), dtype=X.dtype)
    part.data, part.indices = X.data[stored], X.indices[stored]
    part.indptr = X.indptr[rows.start : rows.stop + 1] - stored.start
    return part


def check_same_perturbations(true: Iterable[str], predicted: Iterable[str], role: Role = "predicted") -> None:
    """Refuse predictions of other perturbations than the true ones.

    Raises
    ------
    InputError
        Some are missing, or more are predicted.
    """
    known, guessed = set(true), set(predicted)
    if missing := sorted(known - guessed):
        raise InputError(
            f"the {CALLED[role]} hold none of {len(missing)} perturbations of the true cells "
            f"({', '.join(missing)}): predict them too, or leave them out of the true cells"
        )
    if unknown := sorted(guessed - known):
        raise InputError(
            f"the {CALLED[role]} hold {len(unknown)} perturbations that the true cells do not "
            f"({', '.join(unknown)}): leave them out, or add their true cells"
        )


def check_one_perturbation(
    control: ScoredCells, truth: Sequence[ScoredCells], predicted: Sequence[ScoredCells]
) -> None:
    """Refuse true and predicted cells of several perturbations that nobody asked to be told apart.

    A column of ``obs`` tells perturbations apart where truth and predicted name the same ones in it, and control
    cells all name another.

    Raises
    ------
    InputError
        There is such a column.
    """
    for column in control.obs.columns:
        if not all(column in cells.obs for cells in (*truth, *predicted)):
            continue
        labels = [
            {label for cells in group for label in cells.obs[column].astype(str).unique()}
            for group in ([control], truth, predicted)
        ]
        if len(labels[0]) == 1 and len(labels[1]) > 1 and labels[1] == labels[2] and not labels[0] & labels[1]:
            raise InputError(
                f"the true and the predicted cells hold {len(labels[1])} perturbations, told apart by "
                f"obs[{column!r}] ({some(sorted(labels[1]))}): score each by itself, with "
                f"perturbation_key={column!r} (evaluate_many, scorecard; --perturbation-key {column}), or drop the "
                "column"
            )


def check_same_scale(
    control: Sequence[Matrix], truth: Sequence[Matrix], predictions: Mapping[Role, Sequence[Matrix]] | None = None
) -> None:
    """Refuse cells that were not brought to one scale: scores would be of the scale, not of a response.

    Measured cells: their totals (sums of expm1) must be alike, within a factor of 3, and where each file's are
    constant, within 2 %. Predicted cells: their mean must not be that of the measured ones logged once more, or not
    logged; a prediction that is only poor passes.

    Raises
    ------
    InputError
        Scales differ: with the figures of both.
    """
    if truth[0].shape[1] < _GENES_TO_COMPARE:
        return
    true, measured = _Scale(truth), _Scale(control)
    low, high = sorted([true.total, measured.total])
    constant = true.is_constant and measured.is_constant and high > 1.02 * low
    if high > _TOTALS_APART * low or constant:
        raise InputError(_scales_differ("control", measured, true))
    for role, matrices in (predictions or {}).items():
        guessed = _Scale(matrices)
        if guessed.is_transformed((true, measured)):
            raise InputError(_scales_differ(role, guessed, true))


class _Scale:
    """What tells the scale of cells: means of genes, totals, the largest value."""

    def __init__(self, matrices: Sequence[Matrix]) -> None:
        step = -(-sum(X.shape[0] for X in matrices) // _CELLS_TO_COMPARE)
        self.matrices = [X[::step] for X in matrices]

    @cached_property
    def mean(self) -> Floats:
        """(genes,) mean of the values."""
        return self._mean(None)

    @cached_property
    def mean_log(self) -> Floats:
        """(genes,) mean of ``log1p`` of the values: what these cells would be, logged once more."""
        return self._mean(np.log1p)

    @cached_property
    def mean_exp(self) -> Floats:
        """(genes,) mean of ``expm1`` of the values: what these cells would be, not logged."""
        return self._mean(np.expm1)

    @cached_property
    def totals(self) -> Floats:
        """(cells,) sum of ``expm1`` of the values: what a cell was scaled to, as far as its genes are here."""
        return np.concatenate([_sums(X, np.expm1, axis=1) for X in self.matrices])

    @property
    def total(self) -> float:
        """Median of the totals."""
        return float(np.median(self.totals))

    @property
    def is_constant(self) -> bool:
        """Whether all cells have one total, as they have when no gene was left out."""
        return len(self.totals) >= 3 and bool(np.ptp(self.totals) < 0.01 * self.total)

    @property
    def largest(self) -> float:
        """The largest value."""
        return max(float(stored_values(X).max(initial=0)) for X in self.matrices)

    def _mean(self, function: np.ufunc | None) -> Floats:
        sums = np.sum([_sums(X, function, axis=0) for X in self.matrices], axis=0)
        mean: Floats = sums / sum(X.shape[0] for X in self.matrices)
        return mean

    def is_transformed(self, others: Sequence[Self]) -> bool:
        """Whether these means are those of one of the others logged once more, or not logged, rather than as they are.

        Logged once more, by their size clearly and by their shape rather than not; not logged, whatever they were
        scaled to, by their shape clearly.
        """

        def misfit(of: str, *, scaled: bool) -> float:
            return min(self._misfit(getattr(other, of), scaled=scaled) for other in others)

        size, shape = (misfit("mean", scaled=scaled) for scaled in (False, True))
        logged = (
            misfit("mean_log", scaled=False) < min(0.25, size / 3) and 1.2 * misfit("mean_log", scaled=True) < shape
        )
        return logged or misfit("mean_exp", scaled=True) < min(0.25, shape / 3)

    def _misfit(self, model: Floats, *, scaled: bool) -> float:
        """Squared error of these means by another's, or by what is proportional to it, as a share of their square."""
        factor = float(self.mean @ model) / max(float(model @ model), 1e-300) if scaled else 1.0
        return float(np.sum((self.mean - factor * model) ** 2)) / max(float(self.mean @ self.mean), 1e-300)


def _sums(X: Matrix, function: np.ufunc | None, *, axis: int) -> Floats:
    """Sum of a function of the values, one that leaves 0 where it is, over the cells (0) or the genes (1)."""
    sums: Floats
    with np.errstate(over="ignore"):
        if is_sparse(X):
            values = (X.data if function is None else function(X.data)).astype(np.float64)
            index = X.indices if axis == 0 else np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
            sums = np.bincount(index, weights=values, minlength=X.shape[1 - axis]).astype(np.float64)
            return sums
        pieces: list[Floats] = [
            np.sum(X[rows] if function is None else function(X[rows]), axis=axis, dtype=np.float64)
            for rows in slices(len(X), width=X.shape[1])
        ]
    sums = np.sum(pieces, axis=0) if axis == 0 else np.concatenate(pieces)
    return sums


def _scales_differ(role: Role, other: _Scale, true: _Scale) -> str:
    return (
        f"the {CALLED[role]} and the true cells are not on one scale: a cell's total (sum of expm1) is "
        f"{other.total:.4g} against {true.total:.4g} (medians), the largest value {other.largest:.4g} against "
        f"{true.largest:.4g}: log-normalise all cells alike, once, to one target sum"
    )


def _read(
    source: Source,
    role: Role,
    key: str | None,
    perturbation: str,
    counts: bool,
    counts_layer: str | None,
    on_disk: bool | None,
) -> ScoredCells:
    name = f"the {CALLED[role]}" + (f" of {perturbation!r}" if perturbation else "")
    if not isinstance(source, AnnData | str | PathLike):
        raise InputError(f"{name} are of type {type(source).__name__}: give an AnnData or the path of an h5ad file")
    path = None if isinstance(source, AnnData) else Path(source)
    try:
        adata = source if isinstance(source, AnnData) else read_cells(Path(source), on_disk=on_disk)
        if path is not None and is_backed(adata):
            adata = take_sample(adata, np.zeros(adata.n_obs) if key is None else _labels(adata.obs, key), name)
        if counts:
            X: Matrix = take_counts(adata, _layer_of_counts(adata, counts_layer), own=path is not None)
        else:
            below_zero = ROUNDING_BELOW_ZERO if role in ("predicted", "mean_response") else 0.0
            X = take_expression(adata, None, own=path is not None, borrow=True, dense=True, below_zero=below_zero)
            check_log_normalised(X)
        X = sparse.csr_array(X) if is_sparse(X) else X
        labels = perturbation if key is None else _labels(adata.obs, key)
    except InputError as error:
        # What a file cannot be read for names the file already.
        where = name if path is None or str(error).startswith(str(path)) else f"{name} ({path})"
        raise InputError(f"{where}: {error}") from error.__cause__
    here = not counts and _as_predicted(X, adata.uns.get("multipert"))
    return ScoredCells(X, pd.Index(adata.var_names), adata.obs_names, adata.obs, labels, here)


def values_of(X: Matrix) -> dict[str, float]:
    """Summarise expression, so that cells that were transformed since can be told: by the last axis of ``X``, genes.

    Returns
    -------
    dict
        ``sum`` of a cell's values, its mean over cells, and the ``largest`` value.
    """
    stored = stored_values(X)
    n_cells = int(np.prod(X.shape[:-1]))
    return {
        "sum": float(stored.sum(dtype=np.float64)) / max(n_cells, 1),
        "largest": float(stored.max(initial=0)),
    }


def _as_predicted(X: Matrix, made: object) -> bool:
    """Whether cells, or some of those that were predicted, hold the values that their model left."""
    try:
        left, now = made["values"], values_of(X)  # type: ignore[index]
        apart = abs(np.log(max(now["sum"], 1e-300) / max(float(left["sum"]), 1e-300)))
        return bool(apart < np.log(_SOME_APART) and now["largest"] <= 1.01 * float(left["largest"]))
    except (KeyError, IndexError, TypeError, ValueError):  # made by something else, or by hand
        return False


def _layer_of_counts(adata: AnnData, named: str | None) -> str | None:
    """Find the layer that holds raw counts; none where ``X`` does, or where nothing else could."""
    if named is not None or "counts" not in adata.layers or adata.X is None:
        return named
    X = adata.X
    return None if are_whole(X if isinstance(X, np.ndarray) else sparse.csr_matrix(X[:])) else "counts"


def _labels(obs: pd.DataFrame, key: str) -> NDArray[np.object_]:
    if key not in obs:
        raise InputError(f"the perturbation key {key!r} is not a column of obs; {did_you_mean(key, obs.columns)}")
    if missing := int(obs[key].isna().sum()):
        raise InputError(
            f"the perturbation key obs[{key!r}] is empty (NaN) in {missing} cells: label these cells or drop them"
        )
    return obs[key].astype(str).to_numpy(dtype=object)


def _in_order(cells: ScoredCells, genes: pd.Index, role: Role) -> ScoredCells:
    if cells.genes.equals(genes):
        return cells
    missing, others = genes.difference(cells.genes), cells.genes.difference(genes)
    if len(missing) or len(others):
        differences = [
            f"{verb} {len(names)} {what} ({some(names)})"
            for verb, names, what in (
                ("lack", missing, f"of the {len(genes)} genes of the true cells"),
                ("have", others, "genes that the true cells do not"),
            )
            if len(names)
        ]
        raise InputError(f"the {CALLED[role]} {' and '.join(differences)}: give all three the same genes")
    X = cells.X[:, cells.genes.get_indexer(genes)]
    if is_sparse(X):
        X.sort_indices()
    return replace(cells, X=X, genes=genes)
