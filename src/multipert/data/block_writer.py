"""Cells written as they come, block after block: the file is whole, or not there at all."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import write_elem
from numpy.typing import NDArray
from scipy import sparse

from multipert.data.files import path_of_cells, tables_that_can_be_written

_CHUNK, _SHARD = 2**15, 2**22
"""Values that are compressed together, and those that share a file of a zarr folder: 128 kB of float32, and 16 MB."""

_SPARE = 2**20  # bytes left on a disk that is called full: HDF5 does not survive one that is


class BlockWriter:
    """Writes cells to an open h5ad or zarr, all matrices as float32 compressed sparse rows.

    Parameters
    ----------
    file
        The root group, of h5py or zarr.
    folder
        Where it lies.
    n_genes
        Genes of every matrix.
    layers
        The layers that come with ``X``.
    """

    def __init__(self, file: Any, folder: Path, n_genes: int, layers: Sequence[str]) -> None:
        self._file, self._folder, self.n_genes = file, folder, n_genes
        self._matrices = [_Rows(file, name, n_genes) for name in ("X", *(f"layers/{layer}" for layer in layers))]

    def append(self, *matrices: sparse.csr_matrix) -> None:
        """Write more cells: their ``X``, and their layers.

        Raises
        ------
        OSError
            The disk is full.
        """
        for written, matrix in zip(self._matrices, matrices, strict=True):
            if shutil.disk_usage(self._folder).free < matrix.data.nbytes + matrix.indices.nbytes + _SPARE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.append(matrix)

    def finish(self, obs: pd.DataFrame, var: pd.DataFrame, uns: dict[str, Any]) -> None:
        """Write what is left, and the tables of the cells (as many as were appended) and the genes."""
        for matrix in self._matrices:
            matrix.finish()
        for name in ("layers", "obsm", "varm", "obsp", "varp"):
            if name not in self._file:
                self._file.create_group(name)
            self._file[name].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        tables = AnnData(obs=obs, var=var)
        tables.strings_to_categoricals()  # as anndata does before it writes: columns may lack some of their texts
        with tables_that_can_be_written():
            for name, table in (("obs", tables.obs), ("var", tables.var), ("uns", uns)):
                write_elem(self._file, name, table)
        self._file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})


@contextmanager
def write_in_blocks(path: str | Path, n_genes: int, layers: Sequence[str] = ()) -> Iterator[BlockWriter]:
    """Lend a writer; once the block ends well, and the writer was finished, the file is at ``path``.

    Parameters
    ----------
    path
        An h5ad file or a zarr folder, by its ending; what is there already is replaced.
    n_genes, layers
        As for :class:`BlockWriter`.

    Raises
    ------
    InputError
        The path ends otherwise, or cannot be written.
    OSError
        The disk is full.
    """
    with path_of_cells(path) as temporary:
        if temporary.suffix == ".zarr":
            import zarr

            yield BlockWriter(zarr.open_group(temporary, mode="w", zarr_format=3), temporary.parent, n_genes, layers)
        else:
            import h5py

            with h5py.File(temporary, "w") as file:
                yield BlockWriter(file, temporary.parent, n_genes, layers)


class _Rows:
    """A sparse matrix that grows."""

    def __init__(self, file: Any, name: str, n_genes: int) -> None:
        self.group, self.n_genes = file.create_group(name), n_genes
        self.lengths: list[NDArray[np.int64]] = []
        self.columns: dict[str, np.dtype[Any]] = {"data": np.dtype(np.float32), "indices": np.dtype(np.int32)}
        self.written = dict.fromkeys(self.columns, 0)
        self.waiting: dict[str, list[NDArray[Any]]] = {name: [] for name in self.columns}
        for name, dtype in self.columns.items():
            _empty(self.group, name, dtype)

    def append(self, matrix: sparse.csr_matrix) -> None:
        self.lengths.append(np.diff(matrix.indptr).astype(np.int64))
        for name in self.columns:
            self.waiting[name].append(getattr(matrix, name))
            if sum(map(len, self.waiting[name])) >= _SHARD:
                self._write(name, whole=False)

    def finish(self) -> None:
        for name in self.columns:
            self._write(name, whole=True)
        starts = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, dtype=np.int64), *self.lengths]))])
        write_elem(self.group, "indptr", starts)
        shape = np.array([len(starts) - 1, self.n_genes])
        is_zarr = not hasattr(self.group, "id")
        self.group.attrs.update(
            {
                "encoding-type": "csr_matrix",
                "encoding-version": "0.1.0",
                "shape": shape.tolist() if is_zarr else shape,
            }
        )

    def _write(self, name: str, *, whole: bool) -> None:
        """Write what waits: all of it, or as many values as fill files, so that none is written again."""
        values = np.concatenate([np.zeros(0, dtype=self.columns[name]), *self.waiting[name]])
        n = len(values) if whole else len(values) // _SHARD * _SHARD
        array, start = self.group[name], self.written[name]
        array.resize((start + n,))
        if n:
            array[start : start + n] = values[:n].astype(self.columns[name], copy=False)
        self.written[name], self.waiting[name] = start + n, [values[n:].copy()]


def _empty(group: Any, name: str, dtype: np.dtype[Any]) -> None:
    """An array of no values yet, that can grow."""
    if hasattr(group, "id"):
        shape = {"shape": (0,), "maxshape": (None,), "chunks": (_CHUNK,)}
        group.create_dataset(name, **shape, dtype=dtype, compression="gzip", compression_opts=1, shuffle=True)
    else:
        from zarr.codecs import BloscCodec

        codec = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
        group.create_array(name, shape=(0,), chunks=(_CHUNK,), shards=(_SHARD,), dtype=dtype, compressors=codec)
