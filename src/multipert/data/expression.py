"""The expression matrix of an AnnData: taken out in one form, and checked."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Matrix: TypeAlias = Any
"""Expression, (cells, genes): sparse in rows without stored zeros, or a two-dimensional array."""

BLOCK = 4_000_000
"""Most numbers (32 MB in float64) that a temporary block of a long array or a tall matrix holds."""

_LARGEST_LOG = 30.0  # log1p of ten trillion: nothing log-normalised comes near it

_INSPECTED_CELLS = 50
_INSPECTED_VALUES = 100  # fewer tell nothing
_WHOLE_WITHIN = 0.005  # one number in a hundred lies so near to a whole one by chance


def take_expression(
    adata: AnnData,
    layer: str | None,
    *,
    own: bool = False,
    borrow: bool = False,
    dense: bool = False,
    below_zero: float = 0.0,
    on_disk: bool | None = False,
) -> Matrix:
    """Take the expression out of an AnnData, whatever it is kept in, in one canonical form.

    Parameters
    ----------
    adata
        Dense or sparse (any layout), in memory or backed.
    layer
        The layer to take in place of ``X``.
    own
        Whether nobody else uses ``adata``: its expression then need not be copied, which spares as much memory.
    borrow
        Whether it is only read and soon let go: it is then not copied where it is in canonical form already.
    dense
        Whether a dense array stays dense.
    below_zero
        How far below zero a value may lie for the rounding of another tool; such values become zero.
    on_disk
        Whether what is backed by a file stays there; none for what would take up much of the memory.

    Returns
    -------
    csr_matrix or ndarray or MatrixOnDisk
        (cells, genes) float32; sparse with sorted indices and no stored zeros unless ``dense``. Unless it is ours,
        shares nothing that is written to with ``adata``.

    Raises
    ------
    InputError
        No such layer, no cells, no genes, repeated genes, no numbers, or a value that is NaN, infinite or negative.
    """
    if layer is not None and layer not in adata.layers:
        raise InputError(f"there is no layer {layer!r}; {did_you_mean(layer, layer_names(adata))}")
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise InputError(f"there is no expression in it: {adata.n_obs} cells x {adata.n_vars} genes")
    _check_genes(adata.var_names)
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise InputError(f"X is empty: name the layer that holds expression; {did_you_mean('', layer_names(adata))}")
    from multipert.data.on_disk import MatrixOnDisk, stays_on_disk

    stays = stays_on_disk(matrix, on_disk)
    X = MatrixOnDisk(getattr(matrix, "group", matrix)) if stays else canonical(matrix, own, dense, borrow=borrow)
    _check_values(X, adata.obs_names, adata.var_names, below_zero)
    if stays:
        X.note_all_read()
    if below_zero > 0 and any((values := stored_values(block)).size and values.min() < 0 for _, block in row_blocks(X)):
        X = X.then(_above_zero, X.shape[1]) if stays else _above_zero(X)
    return X


def _above_zero(X: Matrix) -> Matrix:
    return np.maximum(X, 0) if not is_sparse(X) else X.maximum(0).tocsr()


def check_log_normalised(X: Matrix) -> None:
    """Refuse expression that was not normalised and log-transformed, once.

    Raises
    ------
    InputError
        The values are all zero, whole numbers, too large to be logarithms, multiples of a count that were not
        log-transformed, or were log-transformed twice.
    """
    remedy = "log-normalise first, with multipert.preprocess(adata) or `multipert preprocess`"
    largest = max(float(stored_values(block).max(initial=0)) for _, block in row_blocks(X))
    if largest == 0:
        raise InputError("every value is zero: there is no expression in it")
    if are_whole(X):
        raise InputError(f"the values are raw counts (all are whole numbers): {remedy}")
    if largest > _LARGEST_LOG:
        raise InputError(f"the values reach {largest:g}, too large to be log-normalised: {remedy}")
    found = _transformed(X)
    if found == "never":
        raise InputError(
            f"the values (up to {largest:g}) are multiples of a count, cell by cell: normalised, but not "
            f"log-transformed: {remedy}"
        )
    if found == "twice":
        raise InputError(
            f"the values (up to {largest:g}) were log-transformed twice: undo one of them with np.expm1, or start "
            "again from the counts"
        )


def is_sparse(matrix: Matrix) -> bool:
    """Whether a matrix is sparse."""
    return bool(sparse.issparse(matrix))


def as_dense(matrix: Matrix) -> NDArray[Any]:
    """Give the array of a matrix, sparse or dense."""
    return np.asarray(matrix.toarray() if is_sparse(matrix) else matrix)


def stored_values(matrix: Matrix) -> NDArray[Any]:
    """All values of a matrix in one row; of a sparse one, those that are stored."""
    return np.asarray(matrix.data if is_sparse(matrix) else matrix.reshape(-1))


def layer_names(adata: AnnData) -> list[str]:
    """The names of the layers; since anndata 0.13 the mapping has ``X``, too, under no name."""
    return [name for name in adata.layers if name is not None]


def take_counts(
    adata: AnnData, layer: str | None, *, own: bool = False, on_disk: bool | None = False
) -> sparse.csr_matrix:
    """Take raw counts, as :func:`take_expression` does.

    Raises
    ------
    InputError
        As there, or the values are no whole numbers.
    """
    counts = take_expression(adata, layer, own=own, on_disk=on_disk)
    if not are_whole(counts):
        where = "the values" if layer is None else f"the values of layer {layer!r}"
        raise InputError(
            f"{where} are no raw counts (some are not whole numbers): name the layer that holds the counts; "
            f"{did_you_mean('counts', layer_names(adata))}"
        )
    return counts


def check_format(matrix: Any) -> None:
    """Refuse a sparse matrix whose row or column indices cannot be: to work on it could end the process.

    Raises
    ------
    InputError
        What is wrong.
    """
    if not sparse.issparse(matrix) or matrix.format not in ("csr", "csc"):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is only odd is said again as an error
            matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError) as error:  # texts for indices, say
        raise InputError(f"the sparse matrix is damaged ({error}): write the file again, or copy it anew") from None


def are_whole(X: Matrix) -> bool:
    """Whether all values are whole numbers; the first few that are not settle it."""
    return all(bool((some == np.rint(some)).all()) for _, rows in row_blocks(X) for some in blocks(stored_values(rows)))


def row_blocks(X: Matrix, rows: Integers | None = None) -> Iterator[tuple[Integers, Matrix]]:
    """Go through all cells of a matrix, or those at ``rows``: which, and what they hold.

    What is in memory is one block; of what is on disk, as many cells at a time as take little memory.
    """
    if hasattr(X, "blocks"):
        yield from X.blocks(rows)
    else:
        yield (np.arange(X.shape[0]), X) if rows is None else (rows, X[rows])


def blocks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Go through a long array piece by piece, where all at once would need another array as long."""
    return (values[piece] for piece in slices(len(values)))


def slices(length: int, *, width: int = 1, size: int | None = None) -> Iterator[slice]:
    """Cover ``range(length)`` with slices of at most ``size`` numbers (``BLOCK``), where a row holds ``width``."""
    step = max(1, (size or BLOCK) // max(1, width))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _transformed(X: Matrix) -> Literal["never", "once", "twice"] | None:
    """Find out how often counts were log-transformed after they were scaled; none where that does not show.

    Scaled to one total, the counts of a cell are multiples of its smallest: whole multiples, where that one is a
    single count. They become so again when the logarithms taken of them are undone, and only then.
    """
    undo: dict[Literal["never", "once", "twice"], Callable[[Floats], Floats]] = {
        "once": np.expm1,
        "never": lambda values: values,
        "twice": lambda values: np.expm1(np.expm1(values)),
    }
    cells = np.unique(np.linspace(0, X.shape[0] - 1, min(_INSPECTED_CELLS, X.shape[0])).astype(np.int64))
    shown = X[cells]
    # A row as a matrix: scipy 1.12 gives no row of a sparse array.
    found = [stored_values(shown[[cell]]).astype(np.float64) for cell in range(len(cells))]
    for times, inverse in undo.items():
        with np.errstate(over="ignore", invalid="ignore"):
            undone = [inverse(values[values > 0]) for values in found]
            multiples = np.concatenate([values / values.min() for values in undone if values.size] or [np.empty(0)])
        multiples = multiples[(multiples > 1.5) & (multiples < 50)]
        whole = np.abs(multiples - np.rint(multiples)) < _WHOLE_WITHIN
        if len(whole) >= _INSPECTED_VALUES and whole.mean() > 0.9:
            return times
    return None


def canonical(matrix: Any, own: bool, dense: bool = False, *, borrow: bool = False) -> Matrix:
    """Bring a matrix to the one form that :func:`take_expression` gives, values unchecked."""
    if hasattr(matrix, "to_memory"):  # sparse and backed by a file
        matrix = matrix.to_memory()
    elif not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
        if matrix.dtype == np.float16:  # which scipy does not know
            matrix = matrix.astype(np.float32)
    check_format(matrix)
    if matrix.dtype.kind not in "fiub":
        raise InputError(f"the expression is of type {matrix.dtype}, not numbers: convert it to float32")
    shared = not own and getattr(matrix, "format", None) == "csr"
    if borrow and shared and matrix.dtype == np.float32 and matrix.has_canonical_format and matrix.data.all():
        return matrix
    # What follows works in place, and the caller's matrix is the caller's: copy where conversion does not.
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused by name
        if dense and not sparse.issparse(matrix):
            return np.ascontiguousarray(matrix, dtype=np.float32)
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


def _check_values(X: Matrix, cells: pd.Index, genes: pd.Index, below_zero: float) -> None:
    smallest = largest = 0.0
    for _, block in row_blocks(X):
        if (values := stored_values(block)).size:  # NaN, if there is one, wins both
            smallest = float(np.minimum(smallest, values.min()))
            largest = float(np.maximum(largest, values.max()))
    if smallest >= -below_zero and largest < np.inf:
        return
    faults: tuple[tuple[str, Callable[[NDArray[Any]], NDArray[np.bool_]], str], ...] = (
        ("NaN", np.isnan, "fill or drop them"),
        ("infinite", np.isinf, "mend or drop them"),
        (
            "negative",
            lambda values: values < -below_zero,
            f"the lowest is {smallest:.3g}, so set negative predictions to zero where the model means zero"
            if below_zero
            else "expression must not be scaled or centred, give the log-normalised values or counts",
        ),
    )
    for fault, is_wrong, remedy in faults:
        number, where = 0, ""
        for rows, block in row_blocks(X):
            wrong = is_wrong(stored_values(block))
            if wrong.any() and not number:
                first = int(wrong.argmax())
                if is_sparse(block):
                    cell, gene = int(np.searchsorted(block.indptr, first, side="right")) - 1, int(block.indices[first])
                else:
                    cell, gene = divmod(first, block.shape[1])
                where = f"cell {cells[rows[cell]]!r}, gene {genes[gene]!r}"
            number += int(wrong.sum())
        if number:
            raise InputError(f"{number} values are {fault} (the first in {where}): {remedy}")
