"""The catalogue of public datasets: what each is, where it is on this machine, and how it gets here."""

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
from anndata import AnnData

from multipert.data.conditions import read_conditions
from multipert.data.downloads import download, no_room
from multipert.data.expression import take_expression
from multipert.data.files import atomic_path, read_cells, write_cells, write_text
from multipert.data.keys import Keys
from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError


@dataclass(frozen=True)
class Part:
    """One file of a dataset.

    Attributes
    ----------
    url
        Where it is published.
    file
        What it is called there.
    """

    url: str
    file: str


@dataclass(frozen=True)
class Dataset:
    """A public dataset.

    Attributes
    ----------
    name
        What it is called here; on disk ``<name>.h5ad``.
    title
        What it is, in one phrase.
    source
        The publication, and who preprocessed it.
    size
        Cells x genes, as published.
    keys
        Where its cells say what they are.
    contexts
        The names of its contexts; empty where they are not known before it is here.
    preprocessing
        What it still needs: the arguments of :func:`multipert.data.preprocess`, and under ``choose_on`` which cells the
        study chose variable genes on (``"all"``); none where it is log-normalised already.
    published
        The published table its scores belong to.
    parts
        The files it is downloaded as, concatenated in this order; empty where it cannot be downloaded by itself.
    manual
        How to get it, where ``parts`` is empty.
    """

    name: str
    title: str
    source: str
    size: str
    keys: Keys
    contexts: tuple[str, ...]
    preprocessing: Mapping[str, Any] | None
    published: str | None
    parts: tuple[Part, ...]
    manual: str


def _keys(perturbation: str, context: str, control: str = "control") -> Keys:
    return Keys(perturbation_key=perturbation, control=control, context_key=context)


_BLOOD = ("B", "CD14+Mono", "CD4T", "CD8T", "Dendritic", "FCGR3A+Mono", "NK")
_KANG = "Kang et al. 2018, Nature Biotechnology 36:89; as preprocessed by the scGen study (Lotfollahi et al. 2019)"
_KANG_VALID = Part("https://www.dropbox.com/s/nqi971n0tk4nbfj/valid_pbmc.h5ad?dl=1", "valid_pbmc.h5ad")

DATASETS: Mapping[str, Dataset] = {
    one.name: one
    for one in (
        Dataset(
            name="kang",
            title="human blood cells (PBMCs) with and without interferon beta",
            source=_KANG,
            size="18,868 cells x 6,998 genes",
            keys=_keys("condition", "cell_type"),
            contexts=_BLOOD,
            preprocessing=None,
            published="kang",
            parts=(
                Part("https://www.dropbox.com/s/wk5zewf2g1oat69/train_pbmc.h5ad?dl=1", "train_pbmc.h5ad"),
                _KANG_VALID,
            ),
            manual="",
        ),
        Dataset(
            name="nault",
            title="mouse liver nuclei under eight doses of TCDD",
            source="Nault et al. 2021, 2022; GEO GSE184506",
            size="about 131,000 nuclei before filtering",
            keys=Keys(context_key="celltype", dose_key="Dose", compound="TCDD"),
            contexts=(),
            preprocessing={
                "min_counts": 500,
                "min_genes": 720,
                "min_cells": 100,
                "n_top_genes": 5000,
                "choose_on": "all",
            },
            published="nault",
            parts=(),
            manual=(
                "take the h5ad linked from the README of https://github.com/BhattacharyaLab/scVIDR, or make one of the "
                "counts and the metadata table at https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE184506 "
                "(obs columns 'celltype' and 'Dose', in ug/kg)"
            ),
        ),
        Dataset(
            name="hagai",
            title="mononuclear phagocytes of four species with and without lipopolysaccharide, 6 h",
            source="Hagai et al. 2018, Nature 563:197; as preprocessed by the scGen study (Lotfollahi et al. 2019)",
            size="77,642 cells x 6,619 genes",
            keys=_keys("condition", "species", control="unst"),
            contexts=("mouse", "pig", "rabbit", "rat"),
            preprocessing=None,
            published="hagai",
            parts=(
                Part("https://www.dropbox.com/s/eprgwhd98c9quiq/train_species.h5ad?dl=1", "train_species.h5ad"),
                Part("https://www.dropbox.com/s/bwq18z0mzy6h5d7/valid_species.h5ad?dl=1", "valid_species.h5ad"),
            ),
            manual="",
        ),
        Dataset(
            name="kang_subset",
            title="a tenth of kang: its validation file",
            source=_KANG,
            size="1,975 cells x 6,998 genes",
            keys=_keys("condition", "cell_type"),
            contexts=_BLOOD,
            preprocessing=None,
            published="kang",
            parts=(_KANG_VALID,),
            manual="",
        ),
        Dataset(
            name="mcfaline_subset",
            title="three glioblastoma cell lines under nine CRISPRi knock-downs",
            source="a subset of McFaline-Figueroa et al. 2024, Cell Genomics 4:100487",
            size="2,586 cells x 438 genes",
            keys=_keys("perturbation", "cell_line"),
            contexts=("A172", "T98G", "U87MG"),
            preprocessing=None,
            published=None,
            parts=(),
            manual=(
                "this subset is published nowhere; the whole is at "
                "https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE225775: make an h5ad of log-normalised cells "
                "(obs columns 'perturbation', with label 'control', and 'cell_line')"
            ),
        ),
    )
}
"""By name."""


def dataset(name: str) -> Dataset:
    """Look a dataset up.

    Raises
    ------
    InputError
        No dataset is called so.
    """
    if name not in DATASETS:
        raise InputError(f"there is no dataset {name!r} in the catalogue; {did_you_mean(name, DATASETS)}")
    return DATASETS[name]


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
