"""Public datasets on this machine: where they are kept, and how they get here."""

import json
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import anndata
import pandas as pd
from anndata import AnnData

from multipert.data.catalogue import Dataset, Part, dataset
from multipert.data.conditions import read_conditions
from multipert.data.downloads import download, no_room
from multipert.data.expression import take_expression
from multipert.data.files import atomic_path, read_cells, write_cells, write_text
from multipert.data.hdf5_check import check_hdf5
from multipert.errors import InputError


def cache_folder() -> Path:
    """The folder of downloads: ``MULTIPERT_CACHE``, else where this system keeps caches; it may not exist yet."""
    named = os.environ.get("MULTIPERT_CACHE")
    if named:
        return Path(named)
    import pooch

    return Path(pooch.os_cache("multipert")).expanduser()


def find(name: str) -> Path | None:
    """Look for a dataset on this machine: in the folder ``MULTIPERT_DATA``, then in the cache.

    Parameters
    ----------
    name
        One of ``DATASETS``.

    Returns
    -------
    Path or None
        Its h5ad file; none if it is not here.

    Raises
    ------
    InputError
        No dataset is called so.
    """
    file = f"{dataset(name).name}.h5ad"
    return next((folder / file for folder in _folders() if (folder / file).is_file()), None)


def locate(name: str) -> Path:
    """Find a dataset, or say how to get it.

    Raises
    ------
    InputError
        No dataset is called so, or it is not here: what to do.
    """
    path = find(name)
    if path is not None:
        return path
    one = dataset(name)
    fetch_it = f"run `multipert datasets fetch {name}`, or" if one.parts else f"{one.manual}, and"
    raise InputError(
        f"{name} is not on this machine (no {name}.h5ad in {' nor in '.join(map(str, _folders()))}): "
        f"{fetch_it} register a file of your own with `{_registering(one)}`"
    )


def fetch(name: str, *, progress: bool = True) -> Path:
    """Download a dataset into the cache, unless it is on this machine.

    A download that was stopped or broke off goes on where it ended. The first download of a file records its checksum
    (``checksums.json`` in the cache), later ones must match it.

    Parameters
    ----------
    name
        One of ``DATASETS``.
    progress
        Whether to say on standard error how far it is.

    Returns
    -------
    Path
        Its h5ad file.

    Raises
    ------
    InputError
        It cannot be downloaded: why, and what to do.
    """
    here = find(name)
    if here is not None:
        return here
    one = dataset(name)
    if not one.parts:
        raise InputError(
            f"{name} cannot be downloaded by itself: {one.manual}, then register it with `{_registering(one)}`"
        )
    record = _cache() / "checksums.json"
    folder = _made(_cache() / f"{name}.parts")
    known = _checksums(record)
    addresses = " and ".join(part.url for part in one.parts)
    for part in one.parts:
        download(
            part.url,
            folder / part.file,
            sha256=known.get(part.url),
            recorded_in=record,
            by_hand=f"download by hand from {addresses} and run `{_registering(one)}`",
            progress=progress,
        )
    files = [folder / part.file for part in one.parts]
    try:
        cells = _read(one, files)
    except InputError as error:
        shutil.rmtree(folder)  # or the next try would find the same
        raise InputError(
            f"what was downloaded is not {name} as the catalogue has it ({error}): it may have changed where it is "
            f"published; register a file of your own with `{_registering(one)}`"
        ) from error
    _record(record, one.parts, files)
    path = _store(one, files, cells)
    shutil.rmtree(folder)
    return path


def register(name: str, files: Sequence[Path]) -> Path:
    """Copy files of the user's into the cache as a dataset, in place of what is there.

    Parameters
    ----------
    name
        One of ``DATASETS``.
    files
        One h5ad file that holds all of it, or the files it is published as, which are concatenated: in the catalogue's
        order if they are called as published, else in the order given.

    Returns
    -------
    Path
        Its h5ad file in the cache.

    Raises
    ------
    InputError
        The files are not this dataset, or cannot be read or copied.
    """
    one = dataset(name)
    files = _in_order(one, files)
    return _store(one, files, _read(one, files))


def _folders() -> list[Path]:
    named = os.environ.get("MULTIPERT_DATA")
    return [*([Path(named)] if named else []), cache_folder()]


def _cache() -> Path:
    return _made(cache_folder())


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise no_room(folder, error) from error
    return folder


def _registering(one: Dataset) -> str:
    """The command that registers local files."""
    named = " ".join(part.file for part in one.parts) if len(one.parts) > 1 else "FILE"
    return f"multipert datasets fetch {one.name} --from {named}"


def _checksums(record: Path) -> dict[str, str]:
    """The sha256 of every file downloaded so far, by its URL."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{record} cannot be read ({error}): remove it, and checksums are recorded anew") from error
    return dict(known)


def _record(record: Path, parts: Sequence[Part], files: Sequence[Path]) -> None:
    import pooch

    new = {part.url: pooch.file_hash(file, alg="sha256") for part, file in zip(parts, files, strict=True)}
    write_text(record, json.dumps(_checksums(record) | new, indent=2) + "\n")


def _in_order(one: Dataset, files: Sequence[Path]) -> list[Path]:
    """The files in the catalogue's order, if there are as many as it takes."""
    by_name = {file.name: file for file in files}
    wanted = [part.file for part in one.parts]
    parts = f"the {len(wanted)} files {', '.join(wanted)}" if len(wanted) > 1 else "one file"
    if len(files) not in (1, len(wanted)):
        raise InputError(f"{len(files)} files are given as {one.name}: give {parts}, or one that holds all of it")
    if len(files) < len(wanted) and files[0].name in wanted:
        raise InputError(
            f"{files[0]} is called as only a part of {one.name}: give {parts}, or one that holds all of it"
        )
    return [by_name[name] for name in wanted] if set(by_name) == set(wanted) else list(files)


def _read(one: Dataset, files: Sequence[Path]) -> AnnData:
    """Check that files are the dataset: one is only opened, several are concatenated in memory."""
    with warnings.catch_warnings():
        # Neither is this user's doing: how old the published files are, and how their cells are called.
        warnings.simplefilter("ignore", anndata.OldFormatWarning)
        warnings.filterwarnings("ignore", message=".*names are not unique")
        cells = _concatenated(files) if len(files) > 1 else _opened(files[0])
    try:
        read_conditions(cells.obs, one.keys)
        if cells.n_vars == 0:
            raise InputError("there are no genes in it")
    except InputError as error:
        raise InputError(f"{' + '.join(map(str, files))} does not read as {one.name}: {error}") from None
    finally:
        if cells.isbacked:
            cells.file.close()
    return cells


def _opened(file: Path) -> AnnData:
    """All but the expression, where the file lets it be."""
    try:
        check_hdf5(file)
        return anndata.read_h5ad(file, backed="r")
    except Exception:  # an old layout, which can be read only whole, or a fault, which reading whole puts into words
        return read_cells(file)


def _concatenated(files: Sequence[Path]) -> AnnData:
    """The cells of several files, one of which at a time is in memory as it was stored; the rest are sparse."""
    parts: list[AnnData] = []
    genes = pd.Index([])
    for file in files:
        cells = read_cells(file)
        try:
            X = take_expression(cells, None)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        part = AnnData(X, obs=cells.obs, var=cells.var)
        del cells
        if not parts:
            genes = part.var_names
        elif not part.var_names.equals(genes):
            if set(part.var_names) != set(genes):
                n_other = len(part.var_names.symmetric_difference(genes))
                raise InputError(
                    f"{file} and {files[0]} differ in {n_other} genes: give the files that were published together"
                )
            part = part[:, genes].copy()
        parts.append(part)
    # The genes are the same, so that `outer` speaks of the columns of obs alone: all are kept.
    return anndata.concat(parts, join="outer", merge="same")


def _store(one: Dataset, files: Sequence[Path], cells: AnnData) -> Path:
    """Put a dataset into the cache: a single file as it is, several as the cells that came of them."""
    path = _cache() / f"{one.name}.h5ad"
    try:
        with atomic_path(path) as temporary:
            if len(files) == 1:
                shutil.copyfile(files[0], temporary)
            else:
                write_cells(cells, temporary)
    except OSError as error:
        raise no_room(path.parent, error) from error
    return path
