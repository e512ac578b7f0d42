"""Cells handed to a fitted model, brought to the genes, the order and the scale it was trained on."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from multipert.data.conditions import joint_labels
from multipert.data.expression import (
    are_whole,
    check_log_normalised,
    layer_names,
    row_blocks,
    take_counts,
    take_expression,
)
from multipert.data.files import read_cells
from multipert.data.gene_names import match_names
from multipert.data.keys import Keys
from multipert.data.on_disk import Expression, MatrixOnDisk
from multipert.data.scale import ExpressionSpace, check_target, read_preprocessing
from multipert.errors import InputError, InputWarning

_NAMED = 5
_AS_GIVEN = "log-normalised when given"


@dataclass(frozen=True, eq=False)
class AlignedCells:
    """Cells, checked, their genes and their scale those of a model.

    Attributes
    ----------
    X
        (cells, genes) float32, log-normalised, the genes those asked for.
    obs
        The caller's table of cells, as it was.
    context
        (cells,) a number for each context among the cells; all 0 where ``obs`` does not name contexts.
    contexts
        The name of each context by its number; empty where ``obs`` does not name contexts.
    filled
        Genes that the cells lack, taken as zero.
    counts
        (cells, genes) the raw counts, where the cells have them.
    scale
        How the expression came to its scale, in words.
    notes
        What the user should know, and was warned of: sentences.
    """

    X: Expression
    obs: pd.DataFrame
    context: NDArray[np.int64]
    contexts: tuple[str, ...]
    filled: tuple[str, ...]
    counts: Expression | None
    scale: str
    notes: tuple[str, ...]


def read_aligned(
    cells: AnnData | str | Path,
    space: ExpressionSpace,
    keys: Keys,
    *,
    missing_genes: str = "error",
    controls_only: bool = False,
    on_disk: bool | None = False,
) -> AlignedCells:
    """Check cells, and bring them to the genes and the scale of a model.

    Genes are matched by name, or by the column of ``var`` that holds the model's names. Raw counts are normalised as
    training data were; log-normalised cells are checked to be on their scale.

    Parameters
    ----------
    cells
        The cells, or the path of a file. The layer of ``keys`` is read where they have it, else ``X``.
    space
        The genes and the scale wanted; other genes are dropped.
    keys
        The columns that name condition and context; the cells may lack either.
    missing_genes
        What to do when a gene is missing: ``"error"`` refuses, ``"zero"`` takes it as zero in every cell.
    controls_only
        Whether cells that say they are not control are refused.
    on_disk
        Whether expression stays in its file, and is aligned as it is read; none for where it is large.

    Raises
    ------
    InputError
        Genes are missing, cells are not control though all should be, counts come to a model that does not know how its
        expression was made, or the expression is not log-normalised or on another scale.
    """
    if missing_genes not in ("error", "zero"):
        raise InputError(f"missing_genes takes 'error' or 'zero', not {missing_genes!r}")
    path = None if isinstance(cells, AnnData) else Path(cells)
    adata = cells if isinstance(cells, AnnData) else read_cells(cells, on_disk=on_disk)
    try:
        if controls_only:
            _check_control(adata.obs, keys)
        layer = keys.layer if keys.layer in adata.layers else None
        X = take_expression(adata, layer, on_disk=on_disk)
        genes = pd.Index(space.genes)
        names, note = match_names(adata.var, genes)
        given = X
        X, scale, notes = _on_scale(adata, X, names, space)
        position = positions(names, genes, zero_missing=missing_genes == "zero")
        X = _changed(X, lambda rows: select_genes(rows, position), len(genes))
        counts = given if scale is not _AS_GIVEN else None
        if counts is None and keys.counts_layer in layer_names(adata):
            counts = take_counts(adata, keys.counts_layer, on_disk=on_disk)
        if counts is not None:
            counts = _changed(counts, lambda rows: select_genes(rows, position), len(genes))
        if scale is _AS_GIVEN and space.scale is not None:
            space.scale.check(X, position >= 0)
    except InputError as error:
        if path is None:
            raise
        raise InputError(f"{path}: {error}") from None
    context, contexts = np.zeros(adata.n_obs, dtype=np.int64), list[str]()
    if all(column in adata.obs for column in keys.context_columns):
        known = adata.obs[list(keys.context_columns)].astype(str)  # cells that nobody named are a group too
        context, contexts = joint_labels(known, keys.context_columns, "context key")
    filled = tuple(genes[position < 0])
    if note is not None:
        notes.insert(0, note)
    if filled:
        notes.append(f"{len(filled):,} of {len(genes):,} genes are missing and were taken as zero ({_listed(filled)})")
    for note in notes:
        warnings.warn(note, InputWarning, stacklevel=3)
    return AlignedCells(X, adata.obs, context, tuple(contexts), filled, counts, scale, tuple(notes))


def _on_scale(
    adata: AnnData, X: Expression, names: pd.Index, space: ExpressionSpace
) -> tuple[Expression, str, list[str]]:
    """Normalise counts as training data were, or make sure that log-normalised cells do not say they are otherwise.

    Returns
    -------
    tuple
        (cells, genes of the file) log-normalised; how it came to its scale; what the user should know.
    """
    if not are_whole(X) or not any(block.nnz for _, block in row_blocks(X)):
        check_log_normalised(X)
        check_target(read_preprocessing(adata, X), space.preprocessing)
        return X, _AS_GIVEN, []
    how = space.recipe()
    few = ~np.concatenate([how.good_cells(block) for _, block in row_blocks(X)])
    notes = (
        [
            f"{few.sum():,} of {len(few):,} cells have fewer than {how.min_counts} counts or {how.min_genes} expressed "
            "genes, and would not have been trained on; they are predicted all the same"
        ]
        if few.any()
        else []
    )
    genes = pd.Index(space.genes)
    log = _changed(X, lambda rows: how.normalise(rows, names, genes), len(names))
    return log, f"raw counts, scaled to a total of {how.target_sum:.6g} as in training", notes


def _changed(X: Expression, change: Callable[[sparse.csr_matrix], sparse.csr_matrix], n_genes: int) -> Expression:
    """Cells changed by a function of rows: now, or on disk as they are read."""
    return X.then(change, n_genes) if isinstance(X, MatrixOnDisk) else change(X)


def _check_control(obs: pd.DataFrame, keys: Keys) -> None:
    """Where the cells say what they are, all must be control: a response added to a response predicts nothing."""
    if keys.perturbation_key is not None:
        column, control = keys.perturbation_key, str(keys.control)
        other = obs[column].astype(str) != control if column in obs else None
    else:
        column, control = str(keys.dose_key), "0"
        other = pd.to_numeric(obs[column].astype(object), errors="coerce") != 0 if column in obs else None
    if other is not None and other.any():
        raise InputError(
            f"{int(other.sum())} of {len(obs)} cells are not control (obs[{column!r}] is not {control!r}): "
            "predict from the control cells alone"
        )


def positions(have: pd.Index, wanted: pd.Index, *, zero_missing: bool) -> NDArray[np.int64]:
    """(wanted,) where each gene wanted is among those there are; -1 where it is not."""
    first = pd.Series(np.arange(len(have)), index=have)
    first = first[~first.index.duplicated()]
    position = first.reindex(wanted, fill_value=-1).to_numpy(dtype=np.int64)
    missing = wanted[position < 0]
    if len(missing) and not zero_missing:
        raise InputError(
            f"{len(missing)} of the {len(wanted)} genes the model was trained on are missing ({_listed(missing)}): "
            "bring them, or ask to take them as zero (missing_genes='zero', --missing-genes zero)"
        )
    return position


def select_genes(X: sparse.csr_matrix, position: NDArray[np.int64]) -> sparse.csr_matrix:
    """The columns at ``position``; empty ones where it is -1."""
    if np.array_equal(position, np.arange(X.shape[1])):
        return X
    X = sparse.hstack([X, sparse.csr_matrix((X.shape[0], 1), dtype=X.dtype)], format="csc")
    # A missing gene's position, -1, is the empty column appended.
    aligned = X[:, position].tocsr()
    aligned.sort_indices()
    return aligned


def _listed(genes: Iterable[str]) -> str:
    some = list(genes)
    return ", ".join(map(repr, some[:_NAMED])) + (", ..." if len(some) > _NAMED else "")
