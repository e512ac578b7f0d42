"""Files in and out: a read that says what is wrong, a write that is whole or not there at all."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import anndata
from anndata import AnnData

from multipert.errors import InputError


def read_h5ad(path: str | Path) -> AnnData:
    """Read an h5ad file into memory.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    AnnData
        What the file holds.

    Raises
    ------
    InputError
        The file is absent, a folder, may not be read, is no h5ad, or is truncated.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the h5ad file itself")
    try:
        with warnings.catch_warnings():
            # Repeated cell names are allowed, and repeated gene names are refused where they matter.
            warnings.filterwarnings("ignore", message=".*names are not unique")
            return anndata.read_h5ad(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path") from None
    except PermissionError:
        raise InputError(f"{path} may not be read: check its permissions") from None
    except OSError as error:
        if "signature not found" in str(error):
            raise InputError(f"{path} is no h5ad file: write one with adata.write_h5ad(path)") from None
        raise InputError(f"{path} is truncated or damaged: copy or download it again") from error
    except Exception as error:  # an HDF5 file of another kind fails wherever anndata first stumbles
        raise InputError(f"{path} is an HDF5 file but no h5ad: write one with adata.write_h5ad(path)") from error


def write_h5ad(adata: AnnData, path: str | Path) -> None:
    """Write an h5ad file, whole or not at all.

    Parameters
    ----------
    adata
        What to write.
    path
        The file; one already there is replaced.

    Raises
    ------
    InputError
        The path cannot be written.
    """
    with atomic_path(path) as temporary:
        adata.write_h5ad(temporary, compression="gzip")


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
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_writable(path: str | Path) -> None:
    """Find out, before the work that would be lost, whether a file can be written.

    Parameters
    ----------
    path
        The file to be written later.

    Raises
    ------
    InputError
        The path is a folder, or its folder is absent or not writable.
    """
    _claim(Path(path)).unlink()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Lend a temporary file beside ``path`` that takes its place once the block ends well.

    Parameters
    ----------
    path
        The file to be written; one already there stays as it is until the block ends, and for good if it fails.

    Yields
    ------
    Path
        An empty file in the same folder, with the same suffix.

    Raises
    ------
    InputError
        The path is a folder, or its folder is absent or not writable.
    """
    path = Path(path)
    temporary = _claim(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _claim(path: Path) -> Path:
    """Create the temporary file: only trying tells whether a folder can be written."""
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}, create it first")
    temporary = path.with_name(f".{path.stem}.{uuid4().hex[:8]}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}, choose another folder") from error
    return temporary
