"""Expression that stays in its file: rows are read when they are asked for."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from multipert.data.expression import BLOCK, canonical, check_format, slices
from multipert.errors import InputError, InputWarning

SHARE = 0.25
"""Share of the memory at hand that expression may take up before it stays on disk."""

SAMPLE = 20_000
"""Cells of a group (condition and context), evenly spaced in its file, that stand for it where its cells are on disk
and all of them would have to be in memory at once."""

SCORED, SCORED_OF_ALL = 10_000, 100_000
"""Cells of a perturbation, and of all in a file, that are scored at most where the file is left on disk."""

_NEAR = 16  # rows not wanted that are read along rather than read around
_ALONG = 1_000_000  # values that are read at once where most of them are not wanted

Rows: TypeAlias = NDArray[np.int64]


def stays_on_disk(matrix: Any, wanted: bool | None) -> bool:
    """Whether a matrix backed by a file stays there: as ``wanted``, or if it would take up much of the memory."""
    node = getattr(matrix, "group", matrix)
    if wanted is False or not hasattr(node, "attrs") or isinstance(matrix, np.ndarray) or sparse.issparse(matrix):
        return False
    return wanted is True or is_large(node)


def is_large(node: Any) -> bool:
    """Whether a matrix of h5py or zarr, as canonical rows in memory, would take up more than ``SHARE`` of it."""
    return is_much(node.size if hasattr(node, "shape") else node["data"].shape[0])


def is_much(n_values: int) -> bool:
    """Whether so many values and the places of them would take up more than ``SHARE`` of the memory at hand."""
    import psutil

    return bool(8 * n_values > SHARE * psutil.virtual_memory().available)


def is_backed(adata: AnnData) -> bool:
    """Whether expression is left in its file."""
    return any(stays_on_disk(matrix, True) for matrix in (adata.X, *adata.layers.values()))


def take_rows(adata: AnnData, rows: "Rows") -> AnnData:
    """Cells at ``rows`` of a file, in memory, with their ``X`` and layers."""

    def read(matrix: Any) -> sparse.csr_matrix:
        return MatrixOnDisk(getattr(matrix, "group", matrix))[rows]

    layers = {name: read(matrix) for name, matrix in adata.layers.items() if name is not None}
    X = None if adata.X is None else read(adata.X)
    return AnnData(X, obs=adata.obs.iloc[rows].copy(), var=adata.var, uns=adata.uns, layers=layers)


def take_sample(adata: AnnData, labels: NDArray[Any], called: str) -> AnnData:
    """Cells of a file, in memory, that stand for all: of each label as many, evenly spaced; warns if some are left."""
    members = [np.flatnonzero(labels == one) for one in pd.unique(labels)]
    most = min(SCORED, SCORED_OF_ALL // max(1, len(members)))
    chosen = [one[np.linspace(0, len(one) - 1, min(len(one), most)).astype(np.int64)] for one in members]
    rows = np.sort(np.concatenate(chosen))
    if len(rows) < adata.n_obs:
        warnings.warn(
            f"of {called}, {adata.n_obs:,}, {len(rows):,} stand for all, evenly spaced: the file is left on disk",
            InputWarning,
            stacklevel=2,
        )
    return take_rows(adata, rows)


class MatrixOnDisk:
    """(cells, genes) float32 expression in an h5ad file or a zarr folder, sparse in rows or dense.

    ``matrix[rows]``, for a slice or row indices in any order, reads these rows: a csr_matrix in canonical form. Rows
    that lie near each other are read together, so that to ask for many at once costs little more than to read on.

    Parameters
    ----------
    node
        The group of a sparse matrix, or a dense array, of h5py or zarr.
    """

    def __init__(self, node: Any) -> None:
        self._then: tuple[Callable[[sparse.csr_matrix], sparse.csr_matrix], ...] = ()
        self._canonical, self._odd = False, False
        with _read_soundly():
            self.shape, self._starts, self._arrays = _opened(node)
        self._n_stored = self.shape[1]
        if (dtype := self._arrays[0].dtype).kind not in "fiub":
            raise InputError(f"the expression is of type {dtype}, not numbers: convert it to float32")

    @property
    def n_values(self) -> int:
        """How many values are stored."""
        return int(self.shape[0] * self.shape[1] if self._starts is None else self._starts[-1])

    def __getitem__(self, rows: slice | NDArray[Any]) -> sparse.csr_matrix:
        wanted = np.arange(self.shape[0])[rows]
        if len(wanted) == 0:
            return self._finished(sparse.csr_matrix((0, self._n_stored), dtype=np.float32))
        ascending = wanted if (np.diff(wanted) > 0).all() else np.unique(wanted)
        gaps = np.flatnonzero(np.diff(ascending) > _NEAR)
        firsts, ends = ascending[np.append(0, gaps + 1)], ascending[np.append(gaps, -1)] + 1
        n_read, n_wanted = self._n_values(firsts, ends), self._n_values(ascending, ascending + 1)
        if n_read > max(_ALONG, 2 * n_wanted) and len(ascending) > 1:  # much lies between: a part at a time
            parts = np.array_split(ascending, min(len(ascending), -(-n_read // _ALONG)))
            found = sparse.vstack([self[part] for part in parts], format="csr")
            return found if ascending is wanted else found[np.searchsorted(ascending, wanted)]
        with _read_soundly():
            read, which = self._read(firsts, ends), _ranges(firsts, ends)
        return self._finished(read if np.array_equal(which, wanted) else read[np.searchsorted(which, wanted)])

    def _n_values(self, firsts: Rows, ends: Rows) -> int:
        """How many values are stored in runs of rows."""
        lengths = (
            (ends - firsts) * self._n_stored if self._starts is None else self._starts[ends] - self._starts[firsts]
        )
        return int(lengths.sum())

    def blocks(self, rows: Rows | None = None) -> Iterator[tuple[Rows, sparse.csr_matrix]]:
        """Go through all cells, or those at ``rows``, some at a time: which rows, and what they hold."""
        rows = np.arange(self.shape[0]) if rows is None else rows
        width = -(-self.n_values // max(1, self.shape[0]))
        for part in slices(len(rows), width=width, size=BLOCK):
            yield rows[part], self[rows[part]]

    def then(self, change: Callable[[sparse.csr_matrix], sparse.csr_matrix], n_genes: int) -> Self:
        """The same cells, what is read of them changed by a function of rows; (cells, ``n_genes``)."""
        changed = object.__new__(type(self))
        changed.__dict__ |= self.__dict__ | {"shape": (self.shape[0], n_genes), "_then": (*self._then, change)}
        return changed

    def _read(self, firsts: Rows, ends: Rows) -> sparse.csr_matrix:
        """Runs of rows, each from one of ``firsts`` to before one of ``ends``, in canonical form."""
        if self._starts is None:
            return canonical(_runs(self._arrays[0], firsts, ends), own=True)
        values, columns = (_runs(array, self._starts[firsts], self._starts[ends]) for array in self._arrays)
        lengths = [np.diff(self._starts[first : end + 1]) for first, end in zip(firsts, ends, strict=True)]
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int32)
        read = sparse.csr_matrix((values, columns, starts), shape=(len(starts) - 1, self._n_stored))
        if self._canonical:
            read.has_sorted_indices = read.has_canonical_format = True
            return read
        check_format(read)
        # Before that form is made: afterwards nothing tells.
        as_it_is = read.dtype == np.float32 and read.has_canonical_format and bool(read.data.all())
        self._odd |= not as_it_is
        return read if as_it_is else canonical(read, own=True)

    def note_all_read(self) -> None:
        """Say that every row was read: if all were in canonical form, they need not be looked at again."""
        self._canonical = self._starts is not None and not self._odd

    def _finished(self, rows: sparse.csr_matrix) -> sparse.csr_matrix:
        for change in self._then:
            rows = change(rows)
        return rows


@contextmanager
def _read_soundly() -> Iterator[None]:
    """Say in a sentence that a file does not hold what it says."""
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError, OSError) as error:
        if isinstance(error, InputError):
            raise
        said = " ".join(str(error).split())
        raise InputError(f"the expression is damaged ({said}): write the file again, or copy it anew") from error


def _opened(node: Any) -> tuple[tuple[int, int], Rows | None, tuple[Any, ...]]:
    """The shape of a matrix on disk, where the values of each row begin (none of a dense one), and its arrays."""
    if hasattr(node, "shape"):
        return tuple(node.shape), None, (node,)
    if (kind := node.attrs.get("encoding-type")) != "csr_matrix":
        raise InputError(
            f"cells on disk are read by rows, and the expression is stored as {kind!r}: write it again as a csr_matrix "
            "(adata.X = adata.X.tocsr()), or read it into memory"
        )
    shape = (int(node.attrs["shape"][0]), int(node.attrs["shape"][1]))
    if (kind := node["indptr"].dtype.kind) not in "iuf":
        raise InputError(f"the sparse matrix is damaged (where its rows begin is of kind {kind!r}): copy it anew")
    starts = np.asarray(node["indptr"][:], dtype=np.int64)
    arrays = node["data"], node["indices"]  # opened once: to open one takes longer than to read of it
    stored = min(array.shape[0] for array in arrays)
    if starts.shape != (shape[0] + 1,) or any(array.ndim != 1 for array in arrays):
        raise InputError("the sparse matrix is damaged (its parts have other shapes than it says): copy it anew")
    if starts[0] or (np.diff(starts) < 0).any() or starts[-1] > stored:
        raise InputError("the sparse matrix is damaged (its rows do not lie one after the other): copy it anew")
    return shape, starts, arrays


def _runs(array: Any, firsts: Rows, ends: Rows) -> NDArray[Any]:
    """Runs of an array's rows, one after the other."""
    if len(firsts) > 1 and hasattr(array, "oindex"):  # zarr, to which each question takes longer than its answer
        return np.asarray(array.oindex[_ranges(firsts, ends)])
    return np.concatenate([array[int(first) : int(end)] for first, end in zip(firsts, ends, strict=True)])


def _ranges(firsts: Rows, ends: Rows) -> Rows:
    return np.concatenate([np.arange(first, end) for first, end in zip(firsts, ends, strict=True)])


Expression: TypeAlias = Any
"""(cells, genes) float32: a csr_matrix, or a MatrixOnDisk; ``matrix[rows]`` is a csr_matrix of these rows."""
