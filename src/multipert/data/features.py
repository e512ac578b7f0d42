"""What a perturbation is, in numbers: a table of perturbations and their features, from one of several sources.

=========== ============================================================ =====================================
source      a perturbation is described by                               read from
=========== ============================================================ =====================================
``members`` itself: a number of its own, which its combinations share    the names
``dose``    as ``members``; its doses by a smooth basis                  the names and the doses
``smiles``  the Morgan fingerprint of its structure                      a table of SMILES
``genes``   where the gene lies among the others in unperturbed cells,   training controls, or a file: sets of
            the gene sets it is in, or a vector of the user's            genes (``.gmt``) or a table
``table``   any vector of the user's                                     a table
=========== ============================================================ =====================================

Every source gives vectors of *members*: of compounds or genes. How those of a combination and of a dose are made of
them is the same for all (:mod:`.condition_vectors`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from multipert.data.condition_names import members_at
from multipert.data.hdf5_check import check_hdf5
from multipert.data.suggestions import did_you_mean, some
from multipert.errors import InputError

if TYPE_CHECKING:
    from multipert.data.perturbation_data import PerturbationData
    from multipert.data.splits import Split

Source = Literal["members", "dose", "smiles", "genes", "table"]

ONE_HOT = "onehot"
"""What is said where conditions shall be told apart by number alone: no features."""

BITS, RADIUS = 1024, 2
"""Length of a Morgan fingerprint, and how many bonds around each atom it looks."""

COMPONENTS = 20
"""Principal components of genes, at most."""


@dataclass(frozen=True, eq=False, repr=False)
class PerturbationFeatures:
    """A table of perturbations and their features.

    Attributes
    ----------
    source
        Where they come from.
    names
        The perturbations: compounds or genes, no combinations.
    table
        (perturbations, features) float32.
    """

    source: Source
    names: tuple[str, ...]
    table: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.table.ndim != 2 or len(self.names) != len(self.table) or self.table.size == 0:
            raise InputError(f"features need a row for each name: {len(self.names)} names, a table {self.table.shape}")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InputError(f"features describe {twice!r} more than once: give each perturbation one row")
        wrong = [name for name, row in zip(self.names, self.table, strict=True) if not np.isfinite(row).all()]
        if wrong:
            raise InputError(f"features of {some(map(repr, wrong))} are no finite numbers: fill them in")

    def __repr__(self) -> str:
        return f"PerturbationFeatures: {self.source}, {len(self.names):,} names x {self.table.shape[1]:,} features"

    @classmethod
    def from_members(cls, data: PerturbationData, *, source: Source = "members") -> PerturbationFeatures:
        """Give every member of a perturbation a number of its own (a one-hot), which its combinations share."""
        names = member_names(data.perturbations, data.doses)
        return cls(source, names, np.eye(len(names), dtype=np.float32))

    @classmethod
    def from_doses(cls, data: PerturbationData) -> PerturbationFeatures:
        """As :meth:`from_members`, of cells that were read with doses.

        Raises
        ------
        InputError
            They were not.
        """
        if not any(dose is not None for name in data.perturbations for _, dose in members_at(name, data.doses)):
            raise InputError("features by dose need doses: read the cells with dose_key, the column that gives them")
        return cls.from_members(data, source="dose")

    @classmethod
    def from_table(
        cls, table: str | Path | pd.DataFrame | Mapping[str, Any], *, source: Source = "table"
    ) -> PerturbationFeatures:
        """Take vectors as they are.

        Parameters
        ----------
        table
            A data frame with a row for each perturbation (such as ``pd.DataFrame(adata.varm["ESM2"],
            index=adata.var_names)``), vectors by name, or a file: csv, tsv or parquet with the names in the first
            column, npz with the arrays ``names`` and ``table``, or ``cells.h5ad:KEY``, genes and their vectors in
            ``varm[KEY]``.
        source
            What to call it.

        Raises
        ------
        InputError
            The file cannot be read, or holds something else.
        """
        if isinstance(table, str | Path):
            return _read_table(str(table), source)
        frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame.from_dict(dict(table), orient="index")
        try:
            values = frame.to_numpy(dtype=np.float32)
        except (ValueError, TypeError):
            raise InputError(
                "a table of features holds numbers alone beside the names: drop its other columns"
            ) from None
        return cls(source, tuple(map(str, frame.index)), values)

    @classmethod
    def from_smiles(cls, smiles: str | Path | Mapping[str, str]) -> PerturbationFeatures:
        """Describe drugs by the Morgan fingerprints of their structures (Rogers 2010): 1,024 bits, radius 2.

        Parameters
        ----------
        smiles
            SMILES by name, or a csv file with the names in the first column and SMILES in the column ``smiles``.

        Raises
        ------
        InputError
            RDKit is not installed, the file cannot be read, or a structure cannot.
        """
        from multipert.data.structures import fingerprints, read_smiles

        structures = smiles if isinstance(smiles, Mapping) else read_smiles(smiles)
        return cls("smiles", tuple(structures), fingerprints(structures, n_bits=BITS, radius=RADIUS))

    @classmethod
    def from_gene_sets(cls, path: str | Path) -> PerturbationFeatures:
        """Describe genes by the sets they are in, a feature each.

        Parameters
        ----------
        path
            A GMT file: a set a line, its name, a description and its genes with tabs between them.

        Raises
        ------
        InputError
            The file cannot be read or holds no sets.
        """
        lines = [line.rstrip("\n").split("\t") for line in _text(path).splitlines() if line.strip()]
        sets = [{gene for gene in line[2:] if gene} for line in lines]
        if not any(sets):
            raise InputError(f"{path} holds no gene sets: GMT has name, description and genes, with tabs between them")
        names = tuple(sorted(set().union(*sets)))
        table = np.array([[gene in one for one in sets] for gene in names], dtype=np.float32)
        return cls("genes", names, table)

    @classmethod
    def from_genes(cls, data: PerturbationData, split: Split | None = None) -> PerturbationFeatures:
        """Describe genes by how they vary together in unperturbed cells: by principal components of genes.

        Control cells of training alone; each gene standardised within its context. With the singular value
        decomposition ``X = U S V'`` of (cells, genes), the gene is described by its row of ``V S / sqrt(cells)``: its
        covariance with the first 20 components.

        Parameters
        ----------
        data, split
            The cells, and which of them train.
        """
        rows = np.arange(len(data)) if split is None else np.sort(np.concatenate([split.train, split.validation]))
        rows = data.sample(rows[data.condition[rows] == 0])
        X = data.X[rows].toarray().astype(np.float64)
        for context in np.unique(data.context[rows]):
            X[data.context[rows] == context] -= X[data.context[rows] == context].mean(axis=0)
        spread = X.std(axis=0)
        X /= np.where(spread > 0, spread, 1)
        variances, axes = np.linalg.eigh(X.T @ X / max(len(X), 1))
        kept = np.argsort(variances)[::-1][: min(COMPONENTS, len(X), len(variances))]
        table = axes[:, kept] * np.sqrt(np.maximum(variances[kept], 0))
        table *= np.sign(table[np.abs(table).argmax(axis=0), np.arange(len(kept))])  # an axis has no sign of its own
        return cls("genes", tuple(map(str, data.genes)), table.astype(np.float32))

    def check(self, conditions: Iterable[str], doses: Mapping[str, float]) -> None:
        """Refuse to go on where a perturbation has no features.

        Raises
        ------
        InputError
            Some have none: the sentence names them.
        """
        known = set(self.names)
        missing = [name for name in member_names(conditions, doses) if name not in known]
        if missing:
            raise InputError(
                f"the features ({self.source}) do not describe {some(map(repr, missing))}: add a row for each "
                f"perturbation, or leave out its cells; {did_you_mean(missing[0], self.names)}"
            )


def read_features(
    source: str, data: PerturbationData | None = None, split: Split | None = None
) -> PerturbationFeatures | None:
    """Read features as the command line and study files name them.

    Parameters
    ----------
    source
        ``onehot`` (none), ``members``, ``dose``, ``genes``, or a source and its file: ``smiles=drugs.csv``,
        ``genes=hallmark.gmt``, ``genes=esm2.parquet``, ``table=mine.npz``.
    data, split
        What they are to describe, and which cells train; for sources with a file they play no part.

    Raises
    ------
    InputError
        There is no such source, its file is missing or cannot be read.
    """
    kind, _, path = source.partition("=")
    check_source(source)
    if kind == ONE_HOT:
        return None
    if not path and data is None:
        raise InputError(f"features by {kind} are read off the cells of the fit: give a source with a file")
    if data is not None and not path:
        if kind == "genes":
            return PerturbationFeatures.from_genes(data, split)
        return PerturbationFeatures.from_members(data) if kind == "members" else PerturbationFeatures.from_doses(data)
    if kind == "smiles":
        return PerturbationFeatures.from_smiles(path)
    if kind == "genes" and path.endswith(".gmt"):
        return PerturbationFeatures.from_gene_sets(path)
    return PerturbationFeatures.from_table(path, source="genes" if kind == "genes" else "table")


def check_source(source: str) -> None:
    """Refuse a source of features that there is none of, or that lacks its file, before any cell is read.

    Raises
    ------
    InputError
        As there.
    """
    kind, _, path = source.partition("=")
    kinds = (ONE_HOT, *get_args(Source))
    if kind not in kinds:
        raise InputError(f"there is no source of features {kind!r}; {did_you_mean(kind, kinds)}")
    if kind in ("smiles", "table") and not path:
        raise InputError(f"features by {kind} need a file: {kind}=FILE, such as {kind}=drugs.csv")
    if kind in (ONE_HOT, "members", "dose") and path:
        raise InputError(f"features by {kind} are read off the cells: leave out {path!r}")
    if path and not os.path.isfile(file_of(path)):
        raise InputError(f"there is no file {path} of features: check the path")


def file_of(path: str) -> str:
    """The file that a path of features names: ``cells.h5ad:KEY`` names a key in one."""
    return path.rpartition(":")[0] if ".h5ad:" in path else path


def member_names(conditions: Iterable[str], doses: Mapping[str, float]) -> tuple[str, ...]:
    """The members of perturbations, each once, sorted: what features are to describe."""
    return tuple(sorted({member for name in conditions for member, _ in members_at(name, doses)}))


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the features {path} ({error}): check the file") from None


def _read_table(path: str, source: Source) -> PerturbationFeatures:
    try:
        if ".h5ad:" in path:
            import anndata

            file, _, key = path.rpartition(":")
            check_hdf5(Path(file))
            cells = anndata.read_h5ad(file, backed="r")
            if key not in cells.varm:
                raise InputError(f"{file} has no varm[{key!r}]; {did_you_mean(key, cells.varm)}")
            frame = pd.DataFrame(np.asarray(cells.varm[key]), index=cells.var_names)
        elif path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as arrays:
                frame = pd.DataFrame(arrays["table"], index=arrays["names"])
        elif path.endswith(".parquet"):
            frame = pd.read_parquet(path)
            if isinstance(frame.index, pd.RangeIndex):
                frame = frame.set_index(frame.columns[0])
        else:
            frame = pd.read_csv(path, sep="\t" if path.endswith(".tsv") else ",", index_col=0)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"cannot read the features {path} ({error}): give csv, tsv, parquet or npz") from None
    return PerturbationFeatures.from_table(frame, source=source)
