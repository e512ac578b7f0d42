"""Files in and out: a read that says what is wrong, a write that is whole or not there at all."""

import errno
import glob
import hashlib
import io
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import anndata
from anndata import AnnData
from pandas.api.types import is_scalar

from multipert.data.expression import check_format
from multipert.data.hdf5_check import check_hdf5
from multipert.errors import InputError, is_disk_full

ENDINGS = (".h5ad", ".zarr")
"""What a file of cells may end in."""

_LARGE, _DENSEST = 2**30, 5000
"""Bytes of an array that are looked at twice, and how many of them a stored byte may stand for (gzip: a thousand)."""


def read_cells(path: str | Path, *, on_disk: bool | None = False) -> AnnData:
    """Read an h5ad file or a zarr folder, told by its ending.

    Parameters
    ----------
    path
        Where it is. What does not end in ``.zarr`` is read as h5ad.
    on_disk
        Whether ``X`` and the layers stay there (then nothing is read but these, ``obs``, ``var`` and ``uns``); none for
        those that would take up much of the memory.

    Returns
    -------
    AnnData
        What it holds; every sparse matrix that is in memory is whole.

    Raises
    ------
    InputError
        It is absent, may not be read, is no file of cells, or is truncated or damaged.
    """
    path = _sane(path)
    is_zarr = path.suffix == ".zarr"
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist: check the path")
        if is_zarr and not path.is_dir():
            raise InputError(f"{path} is no zarr folder: write one with adata.write_zarr(path)")
        if not is_zarr and path.is_dir():
            raise InputError(f"{path} is a folder: name the h5ad file itself, or a folder that ends in .zarr")
        check_no_device(path)
        with warnings.catch_warnings():
            # Repeated cell names are allowed, and repeated gene names are refused where they matter.
            warnings.filterwarnings("ignore", message=".*names are not unique")
            if not is_zarr:
                check_hdf5(path)
            _check_named(path, is_zarr)
            adata = None if on_disk is False else _opened(path, is_zarr, on_disk)
            if adata is None:
                adata = anndata.read_zarr(path) if is_zarr else anndata.read_h5ad(path)
            _check_labels(adata, path)
    except InputError:
        raise
    except PermissionError:
        raise InputError(f"{path} may not be read: check its permissions") from None
    except OSError as error:
        if "signature not found" in str(error):
            raise InputError(f"{path} is no h5ad file: write one with adata.write_h5ad(path)") from None
        raise InputError(f"{path} is truncated or damaged: copy or download it again") from error
    except Exception as error:  # a file of another kind fails wherever anndata first stumbles
        kind = "a zarr folder but holds no AnnData" if is_zarr else "an HDF5 file but no h5ad"
        writer = "write_zarr" if is_zarr else "write_h5ad"
        raise InputError(f"{path} is {kind}, or damaged: write one with adata.{writer}(path)") from error
    _check_sparse(adata, path)
    return adata


def content_of(path: str | Path) -> str:
    """Stand for all that a file, or a zarr folder, holds: 32 hexadecimal digits of its bytes.

    Raises
    ------
    InputError
        It cannot be read.
    """
    path = Path(path)
    check_no_device(path)
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    try:
        digests = []
        for one in files:
            with one.open("rb") as file:
                digests.append(hashlib.file_digest(file, "blake2b").hexdigest()[:32])
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path") from error
    if not path.is_dir():
        return digests[0]
    named = [f"{one.relative_to(path)} {digest}" for one, digest in zip(files, digests, strict=True)]
    return hashlib.blake2b("\n".join(named).encode(), digest_size=16).hexdigest()


def find_cells(pattern: str | Path) -> list[Path]:
    """Find files of cells (h5ad, or zarr folders).

    Parameters
    ----------
    pattern
        A file, a folder that holds some, or a path with ``*``, ``?`` or ``[...]``.

    Returns
    -------
    list of Path
        Sorted; empty where there are none.
    """
    pattern = Path(pattern)
    if pattern.suffix not in ENDINGS and pattern.is_dir():
        pattern = pattern / "*"
    return sorted(Path(found) for found in glob.glob(str(pattern)) if Path(found).suffix in ENDINGS)


def write_cells(adata: AnnData, path: str | Path) -> None:
    """Write an h5ad file or a zarr folder, told by its ending, whole or not at all.

    Parameters
    ----------
    adata
        What to write.
    path
        Where; what is there already is replaced.

    Raises
    ------
    InputError
        The path ends otherwise, or cannot be written.
    OSError
        The disk is full.
    """
    with path_of_cells(path) as temporary, tables_that_can_be_written():
        if temporary.suffix == ".zarr":
            adata.write_zarr(temporary)
        else:
            temporary.write_bytes(_as_h5ad(adata))


@contextmanager
def path_of_cells(path: str | Path) -> Iterator[Path]:
    """Lend a path as :func:`atomic_path` does, by its ending of an h5ad file or of a zarr folder still to be made."""
    check_ending(path, ENDINGS)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(zarr v2 data|no specification|autosharding).*")
        if temporary.suffix == ".zarr":
            temporary.unlink()
        yield temporary


@contextmanager
def tables_that_can_be_written() -> Iterator[None]:
    """Raise an InputError where a column of a table holds what a file cannot: neither texts nor numbers."""
    try:
        yield
    except TypeError as error:
        where = " ".join(getattr(error, "__notes__", ["in some column of obs, var or uns"]))
        raise InputError(f"the cells cannot be written ({error}: {where}): drop or mend that column") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Parameters
    ----------
    path
        The file; one already there is replaced.
    text
        What to write.

    Raises
    ------
    InputError
        The path cannot be written.
    OSError
        The disk is full.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_no_device(path: str | Path) -> None:
    """Refuse what is there but is neither file nor folder: reading it might never end.

    Raises
    ------
    InputError
        The path is a device, a pipe or a socket.
    """
    # Not by Path's methods, which fail at a name that is too long.
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise InputError(f"{path} is no file but a device: name a file")


def check_ending(path: str | Path, endings: Sequence[str]) -> None:
    """Refuse a path that promises another kind of file than will be written.

    Raises
    ------
    InputError
        It ends in none of ``endings``.
    """
    if Path(path).suffix not in endings:
        raise InputError(f"{path} must end in {' or '.join(endings)}: what it holds is told by its ending")


def check_writable(path: str | Path, *, inputs: Sequence[str | Path] = ()) -> None:
    """Find out, before the work that would be lost, whether a file can be written.

    Parameters
    ----------
    path
        The file to be written later.
    inputs
        Files that are read for it, and must not be written over.

    Raises
    ------
    InputError
        The path is a folder or one of ``inputs``, or its folder is absent or not writable.
    """
    path = Path(path)
    _claim(path).unlink()
    for given in inputs:
        if path.exists() and Path(given).exists() and path.samefile(given):
            raise InputError(f"{path} is read and would be written over: name another file for the output")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Lend a temporary file beside ``path`` that takes its place once the block ends well.

    Parameters
    ----------
    path
        The file to be written; one already there stays as it is until the block ends, and for good if it fails. The
        block may put a folder in place of the temporary file.

    Yields
    ------
    Path
        An empty file in the same folder, with the same suffix.

    Raises
    ------
    InputError
        The path is a folder (but a zarr), or its folder is absent or not writable.
    """
    path = Path(path)
    temporary = _claim(path)
    try:
        yield temporary
        if path.is_dir() or temporary.is_dir():  # a zarr folder: only an empty one could be replaced at one stroke
            _replace_folder(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


@contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Be the only process that writes into a folder, as long as the block lasts.

    A lock of the system, which goes with the process, however it ends; where the file system has none, as some shared
    ones, nothing is locked.

    Raises
    ------
    InputError
        Another process is at it.
    """
    handle = None
    try:
        import fcntl  # not on Windows

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if handle is not None:
            os.close(handle)
        raise InputError(f"another process is writing to {folder}: wait for it, or choose another folder") from None
    except (ImportError, OSError):
        pass
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _replace_folder(temporary: Path, path: Path) -> None:
    """Put a folder in the place of another, also while other processes do the same."""
    old = temporary.with_name(f"{temporary.name}.old")
    while True:
        with suppress(FileNotFoundError):
            path.rename(old)
        try:
            temporary.rename(path)
            break
        except OSError as error:  # another process was faster: its folder is replaced in turn
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                old.rename(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _claim(path: Path) -> Path:
    """Create the temporary file: only trying tells whether a folder can be written."""
    path = _sane(path)
    if path.is_dir() and path.suffix != ".zarr":
        raise InputError(f"cannot write {path}: it is a folder, name a file in it")
    if path.is_file() and path.suffix == ".zarr":
        raise InputError(f"cannot write {path}: it is a file, name a folder, or delete it first")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}, create it first")
    temporary = path.with_name(f".{uuid4().hex[:12]}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InputError(f"cannot write {path}: {error.strerror}, choose another folder") from error
    return temporary


def _sane(path: str | Path) -> Path:
    """The path, if a file system can hold it."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except ValueError:
        raise InputError(f"{str(path)!r} is no path (it has a null character): check it") from None
    except OSError as error:
        raise InputError(f"{path} cannot be a file ({error.strerror}): give it another name") from None
    return Path(path)


def _as_h5ad(adata: AnnData) -> memoryview:
    """The bytes of an h5ad file: made in memory, for HDF5 does not survive a full disk."""
    import h5py

    adata.strings_to_categoricals()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        anndata.io.write_elem(file, "/", adata, dataset_kwargs={"compression": "gzip"})
    return buffer.getbuffer()


def _opened(path: Path, is_zarr: bool, wanted: bool | None) -> AnnData | None:
    """The cells with ``X`` and layers left on disk; none where they are small enough to be read."""
    from anndata.io import read_elem, sparse_dataset

    from multipert.data.on_disk import is_large

    file = _root(path, is_zarr)
    layers = {name: file["layers"][name] for name in file.get("layers") or ()}
    nodes: dict[str | None, Any] = {None: file.get("X"), **layers}
    matrices = {name: node for name, node in nodes.items() if node is not None and _is_matrix(node)}
    if not wanted and not any(map(is_large, matrices.values())):
        if not is_zarr:
            file.close()
        return None
    held = {name: node if hasattr(node, "shape") else sparse_dataset(node) for name, node in matrices.items()}
    tables = {name: read_elem(file[name]) for name in ("obs", "var", "uns") if name in file}
    return AnnData(held.pop(None, None), layers=held, **tables)


def _root(path: Path, is_zarr: bool) -> Any:
    """The root group, opened to be read."""
    if is_zarr:
        import zarr

        return zarr.open_group(path, mode="r")
    import h5py

    return h5py.File(path, "r")


def _is_matrix(node: Any) -> bool:
    return hasattr(node, "shape") or node.attrs.get("encoding-type") in ("csr_matrix", "csc_matrix")


def _check_named(path: Path, is_zarr: bool) -> None:
    """Refuse a file without the names of its cells or genes: anndata would number them."""
    root = _root(path, is_zarr)
    with nullcontext(root) if is_zarr else root as file:
        if "obs" not in file and "var" not in file:
            raise ValueError("no AnnData")
        for table, what in (("obs", "cells"), ("var", "genes")):
            # Before version 0.7 anndata wrote tables as arrays of records, names among them.
            node = file.get(table)
            if node is None or not (hasattr(node, "dtype") or "_index" in node.attrs):
                raise InputError(f"{path} holds no names of {what} ({table}): write it again, or copy it anew")
        if not is_zarr:
            file.visititems(partial(_check_size, path))


def _check_size(path: Path, name: str, node: Any) -> None:
    """Refuse an array that says to be larger than what is stored of it can be: reading would fill the memory."""
    if hasattr(node, "nbytes") and node.nbytes > _LARGE and node.nbytes > _DENSEST * node.id.get_storage_size():
        raise InputError(
            f"{path} is truncated or damaged: {name} says to hold {node.nbytes / 2**30:,.0f} GiB, of which hardly "
            "anything is stored: copy or download it again"
        )


def _check_labels(adata: AnnData, path: Path) -> None:
    """Refuse columns whose labels are none, but lists of some."""
    for name, table in (("obs", adata.obs), ("var", adata.var)):
        for column in table.select_dtypes(["category", "object"]):
            labels = getattr(table[column], "cat", None)
            if not all(map(is_scalar, table[column] if labels is None else labels.categories)):
                raise InputError(f"{path} is damaged: {name}[{column!r}] holds lists where labels belong")


def _check_sparse(adata: AnnData, path: Path) -> None:
    """Refuse sparse matrices whose indices point outside of them: to work on one would end the process."""
    held: list[tuple[str, Any]] = [("X", adata.X)]
    for name in ("layers", "obsm", "varm", "obsp", "varp"):
        held += [(f"{name}[{key!r}]", matrix) for key, matrix in getattr(adata, name).items()]
    if adata.raw is not None:
        held.append(("raw.X", adata.raw.X))
    for where, matrix in held:
        try:
            check_format(matrix)
        except InputError as error:
            raise InputError(f"{path}: {where}: {error}") from None
