"""Cells handed to a fitted model, brought into the order and form it was trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from multipert.data.conditions import joint_labels
from multipert.data.expression import check_log_normalised, take_expression
from multipert.data.files import read_h5ad
from multipert.data.keys import Keys
from multipert.errors import InputError

_NAMED = 5


@dataclass(frozen=True, eq=False)
class AlignedCells:
    """Cells, checked, their genes those of a model.

    Attributes
    ----------
    X
        (cells, genes) float32, log-normalised, the genes those asked for.
    obs
        The caller's table of cells, as it was.
    context
        (cells,) a number for each context among the cells; all 0 where ``obs`` does not name contexts.
    """

    X: sparse.csr_matrix
    obs: pd.DataFrame
    context: NDArray[np.int64]


def read_aligned(
    cells: AnnData | str | Path,
    genes: tuple[str, ...],
    keys: Keys,
    *,
    missing_genes: str = "error",
    controls_only: bool = False,
) -> AlignedCells:
    """Check cells, and bring their genes into the order asked for.

    Parameters
    ----------
    cells
        The cells, or the path of an h5ad file. The layer of ``keys`` is read where they have it, else ``X``.
    genes
        The genes wanted, in order; others are dropped.
    keys
        The columns that name condition and context; the cells may lack either.
    missing_genes
        What to do when a gene is missing: ``"error"`` refuses, ``"zero"`` takes it as zero in every cell.
    controls_only
        Whether cells that say they are not control are refused.

    Raises
    ------
    InputError
        Genes are missing, cells are not control though all should be, or the expression is not log-normalised.
    """
    if missing_genes not in ("error", "zero"):
        raise InputError(f"missing_genes takes 'error' or 'zero', not {missing_genes!r}")
    path = None if isinstance(cells, AnnData) else Path(cells)
    adata = cells if isinstance(cells, AnnData) else read_h5ad(cells)
    try:
        if controls_only:
            _check_control(adata.obs, keys)
        layer = keys.layer if keys.layer in adata.layers else None
        X = take_expression(adata, layer)
        check_log_normalised(X)
        X = _align(X, adata.var_names, pd.Index(genes), missing_genes == "zero")
    except InputError as error:
        if path is None:
            raise
        raise InputError(f"{path}: {error}") from None
    context = np.zeros(adata.n_obs, dtype=np.int64)
    if all(column in adata.obs for column in keys.context_columns):
        known = adata.obs[list(keys.context_columns)].astype(str)  # cells that nobody named are a group too
        context, _ = joint_labels(known, keys.context_columns, "context key")
    return AlignedCells(X, adata.obs, context)


def _check_control(obs: pd.DataFrame, keys: Keys) -> None:
    """Where the cells say what they are, all must be control: a response added to a response predicts nothing."""
    if keys.perturbation_key is not None:
        column, control = keys.perturbation_key, keys.control
        other = obs[column].astype(str) != control if column in obs else None
    else:
        column, control = str(keys.dose_key), "0"
        other = pd.to_numeric(obs[column].astype(object), errors="coerce") != 0 if column in obs else None
    if other is not None and other.any():
        raise InputError(
            f"{int(other.sum())} of {len(obs)} cells are not control (obs[{column!r}] is not {control!r}): "
            "predict from the control cells alone"
        )


def _align(X: sparse.csr_matrix, have: pd.Index, wanted: pd.Index, zero_missing: bool) -> sparse.csr_matrix:
    position = have.get_indexer(wanted)
    missing = wanted[position < 0]
    if len(missing) and not zero_missing:
        named = ", ".join(map(repr, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        raise InputError(
            f"{len(missing)} of the {len(wanted)} genes the model was trained on are missing ({named}): bring them, "
            "or ask to take them as zero (missing_genes='zero', --missing-genes zero)"
        )
    if len(missing) == len(wanted):
        raise InputError("no gene of the training data is there: names must be of the same kind (symbols, ids)")
    if len(missing) == 0 and np.array_equal(position, np.arange(len(have))):
        return X
    X = sparse.hstack([X, sparse.csr_matrix((X.shape[0], 1), dtype=X.dtype)], format="csc")
    # A missing gene's position, -1, is the empty column appended.
    aligned = X[:, position].tocsr()
    aligned.sort_indices()
    return aligned
