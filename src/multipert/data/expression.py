"""The expression matrix of an AnnData: taken out in one form, and checked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError

_LARGEST_LOG = 30.0  # log1p of ten trillion: nothing log-normalised comes near it
_BLOCK = 1 << 20


def take_expression(adata: AnnData, layer: str | None, *, own: bool = False) -> sparse.csr_matrix:
    """Take the expression out of an AnnData, whatever it is kept in, in one canonical form.

    Parameters
    ----------
    adata
        Dense or sparse (any layout), in memory or backed.
    layer
        The layer to take in place of ``X``.
    own
        Whether nobody else uses ``adata``: its expression then need not be copied, which spares as much memory.

    Returns
    -------
    csr_matrix
        (cells, genes) float32, sorted indices, no stored zeros; unless it is ours, shares nothing with ``adata``.

    Raises
    ------
    InputError
        No such layer, no cells, no genes, repeated genes, no numbers, or a value that is NaN, infinite or negative.
    """
    if layer is not None and layer not in adata.layers:
        raise InputError(f"there is no layer {layer!r}; {did_you_mean(layer, adata.layers)}")
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise InputError(f"there is no expression in it: {adata.n_obs} cells x {adata.n_vars} genes")
    _check_genes(adata.var_names)
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise InputError(f"X is empty: name the layer that holds the expression; {did_you_mean('', adata.layers)}")
    X = _canonical(matrix, own)
    _check_values(X, adata.obs_names, adata.var_names)
    return X


def check_log_normalised(X: sparse.csr_matrix) -> None:
    """Refuse expression that was not normalised and log-transformed.

    Raises
    ------
    InputError
        The values are all zero, whole numbers, or too large to be logarithms.
    """
    remedy = "log-normalise first, with multipert.preprocess(adata) or `multipert preprocess`"
    if X.nnz == 0:
        raise InputError("every value is zero: there is no expression to learn from")
    if are_whole(X.data):
        raise InputError(f"the values are raw counts (all are whole numbers): {remedy}")
    if X.data.max() > _LARGEST_LOG:
        raise InputError(f"the values reach {X.data.max():g}, too large to be log-normalised: {remedy}")


def take_counts(adata: AnnData, layer: str | None, *, own: bool = False) -> sparse.csr_matrix:
    """Take raw counts, as :func:`take_expression` does.

    Raises
    ------
    InputError
        As there, or the values are no whole numbers.
    """
    counts = take_expression(adata, layer, own=own)
    if not are_whole(counts.data):
        where = "the values" if layer is None else f"the values of layer {layer!r}"
        raise InputError(
            f"{where} are no raw counts (some are not whole numbers): name the layer that holds the counts; "
            f"{did_you_mean('counts', adata.layers)}"
        )
    return counts


def are_whole(values: NDArray[np.float32]) -> bool:
    """Whether all values are whole numbers; the first few that are not settle it."""
    return all(bool((block == np.rint(block)).all()) for block in blocks(values))


def blocks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Go through a long array piece by piece, where all at once would need another array as long."""
    return (values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK))


def _canonical(matrix: Any, own: bool) -> sparse.csr_matrix:
    if hasattr(matrix, "to_memory"):  # sparse and backed by a file
        matrix = matrix.to_memory()
    elif not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
        if matrix.dtype == np.float16:  # which scipy does not know
            matrix = matrix.astype(np.float32)
    if matrix.dtype.kind not in "fiub":
        raise InputError(f"the expression is of type {matrix.dtype}, not numbers: convert it to float32")
    # What follows works in place, and the caller's matrix is the caller's: copy where conversion does not.
    shared = not own and getattr(matrix, "format", None) == "csr"
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused by name
        X = sparse.csr_matrix(matrix).astype(np.float32, copy=shared)
    X.sum_duplicates()
    X.eliminate_zeros()
    return X


def _check_genes(genes: pd.Index) -> None:
    repeated = genes[genes.duplicated()].unique()
    if len(repeated):
        named = ", ".join(map(repr, repeated[:5])) + (", ..." if len(repeated) > 5 else "")
        raise InputError(
            f"{len(repeated)} gene names occur more than once ({named}): make them unique, "
            "for instance with adata.var_names_make_unique()"
        )


def _check_values(X: sparse.csr_matrix, cells: pd.Index, genes: pd.Index) -> None:
    smallest, largest = (X.data.min(), X.data.max()) if X.nnz else (0.0, 0.0)  # NaN, where there is one, wins both
    if smallest >= 0 and largest < np.inf:
        return
    for fault, wrong, remedy in (
        ("NaN", np.isnan(X.data), "fill or drop them"),
        ("infinite", np.isinf(X.data), "mend or drop them"),
        ("negative", X.data < 0, "expression must not be scaled or centred, give the log-normalised values or counts"),
    ):
        if wrong.any():
            first = int(wrong.argmax())
            cell = int(np.searchsorted(X.indptr, first, side="right")) - 1
            raise InputError(
                f"{wrong.sum()} values are {fault} "
                f"(the first in cell {cells[cell]!r}, gene {genes[X.indices[first]]!r}): {remedy}"
            )
