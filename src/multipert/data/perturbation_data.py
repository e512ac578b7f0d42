"""The checked view of an AnnData that every other package works on."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from multipert.data.conditions import read_conditions
from multipert.data.expression import blocks, check_log_normalised, row_blocks, take_counts, take_expression
from multipert.data.files import read_cells
from multipert.data.gene_names import symbols
from multipert.data.keys import Keys
from multipert.data.on_disk import SAMPLE, Expression, MatrixOnDisk
from multipert.data.scale import ExpressionScale, ExpressionSpace, Preprocessing, read_preprocessing
from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError, InputWarning


@dataclass(frozen=True, eq=False, repr=False)
class PerturbationData:
    """Log-normalised expression of cells whose condition and context are known.

    Made by :meth:`from_anndata`, which checks everything before work starts.

    Attributes
    ----------
    X
        (cells, genes) float32, log-normalised, with sorted indices and no stored zeros; in memory or on disk.
    genes
        The genes, unique.
    obs
        The caller's table of cells, as it was.
    conditions
        The names: control first, then the perturbations by name and, within a name, by dose (``name@dose``).
    condition
        (cells,) index into ``conditions``.
    contexts
        The names, sorted.
    context
        (cells,) index into ``contexts``.
    doses
        The dose of each condition (0 for control); empty without a dose key.
    covariates
        The names of the levels of the covariate (donors, batches), sorted; empty without a covariate key.
    covariate
        (cells,) index into ``covariates``; all 0 without a covariate key.
    keys
        Where all this was read.
    counts
        (cells, genes) float32, the raw counts; none without a counts layer.
    preprocessing
        How the expression was made from counts, where the file or its totals tell.
    symbols
        What readers call the genes, as reports print them: a column of symbols where ``genes`` are Ensembl ids.
    """

    X: Expression
    genes: pd.Index
    obs: pd.DataFrame
    conditions: tuple[str, ...]
    condition: NDArray[np.int64]
    contexts: tuple[str, ...]
    context: NDArray[np.int64]
    doses: dict[str, float]
    covariates: tuple[str, ...]
    covariate: NDArray[np.int64]
    keys: Keys
    counts: Expression | None = None
    preprocessing: Preprocessing | None = None
    symbols: pd.Index | None = None

    @classmethod
    def from_anndata(
        cls,
        adata: AnnData | str | Path,
        *,
        perturbation_key: str | None = None,
        control: str | None = None,
        context_key: str | Sequence[str],
        dose_key: str | None = None,
        compound: str | None = None,
        covariate_key: str | Sequence[str] | None = None,
        layer: str | None = None,
        counts_layer: str | None = None,
        on_disk: bool | None = None,
    ) -> Self:
        """Check an AnnData and take from it what models need.

        Parameters
        ----------
        adata
            The cells, or the path of an h5ad or zarr file: log-normalised expression, sparse or dense, in memory or
            backed.
        perturbation_key
            The column of ``obs`` that names the perturbation.
        control
            What control cells are labelled in it. Without ``perturbation_key``: what to call the cells at dose 0.
        context_key
            The column of ``obs`` that names the context (cell type, species, patient, cell line). Several columns
            together make a context, such as ``B | patient 3``.
        dose_key
            The column of ``obs`` that gives the dose. Beside ``perturbation_key``, each perturbation at each dose is
            a condition ``name@dose``, and the dose of control cells is not read. Alone, dose 0 is the control.
        compound
            The name of the one compound, where ``dose_key`` stands alone (by default ``dose_key`` itself).
        covariate_key
            The column (or columns) of ``obs`` that names the donor or batch, within which perturbed cells are compared
            with control cells.
        layer
            The layer to read in place of ``X``.
        counts_layer
            The layer that holds the raw counts beside it.
        on_disk
            Whether expression stays in its file, and is read as it is needed; by default where it would take up more
            than a quarter of the memory at hand. See ``docs/disk.md``.

        Raises
        ------
        InputError
            A key, layer or label is missing, or the expression is not log-normalised: what is wrong, in one sentence.
        """
        keys = Keys(
            perturbation_key=perturbation_key,
            control=control,
            context_key=context_key,
            dose_key=dose_key,
            compound=compound,
            covariate_key=covariate_key,
            layer=layer,
            counts_layer=counts_layer,
        )
        return cls.read(adata, keys, on_disk=on_disk)

    @classmethod
    def read(cls, source: AnnData | str | Path, keys: Keys, *, on_disk: bool | None = None) -> Self:
        """Do what :meth:`from_anndata` does, the columns given as one.

        Raises
        ------
        InputError
            As :meth:`from_anndata`.
        """
        path = None if isinstance(source, AnnData) else source
        adata = source if isinstance(source, AnnData) else read_cells(source, on_disk=on_disk)
        try:
            found = read_conditions(adata.obs, keys)
            own = path is not None
            X = take_expression(adata, keys.layer, own=own, on_disk=on_disk)
            check_log_normalised(X)
            preprocessing = read_preprocessing(adata, X)
            layer = keys.counts_layer
            counts = None if layer is None else take_counts(adata, layer, own=own, on_disk=on_disk)
        except InputError as error:
            if path is None:
                raise
            raise InputError(f"{path}: {error}") from None
        if found.note:
            warnings.warn(found.note, InputWarning, stacklevel=3)
        return cls(
            X=X,
            genes=adata.var_names.copy(),
            obs=adata.obs.copy(),
            conditions=found.conditions,
            condition=found.condition,
            contexts=found.contexts,
            context=found.context,
            doses=found.doses,
            covariates=found.covariates,
            covariate=found.covariate,
            keys=keys,
            counts=counts,
            preprocessing=preprocessing,
            symbols=symbols(adata.var),
        )

    @property
    def cells(self) -> pd.Index:
        """The names of the cells; they may repeat."""
        return self.obs.index

    @property
    def control(self) -> str:
        """The name of the control condition."""
        return self.conditions[0]

    @property
    def perturbations(self) -> tuple[str, ...]:
        """The names of all conditions but control."""
        return self.conditions[1:]

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that stand for the expression, genes, conditions, contexts and covariate.

        The same for the same content, however the matrix was stored; cell names and other columns play no part.
        """
        digest = hashlib.blake2b(digest_size=8)
        names = (self.X.shape, list(self.genes), self.conditions, self.contexts)
        digest.update(json.dumps(names).encode())
        codes = [self.condition, self.context]
        if self.covariates:
            digest.update(json.dumps(self.covariates).encode())
            codes.append(self.covariate)
        # Byte order and width are fixed, so that another machine agrees.
        lengths = [np.diff(block.indptr) for _, block in row_blocks(self.X)]
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
        columns = (block.indices for _, block in row_blocks(self.X))
        expression = (block.data for _, block in row_blocks(self.X))
        for values in chain(codes, [starts], columns, expression):
            width = "<f4" if values.dtype.kind == "f" else "<i8"
            for block in blocks(values):
                digest.update(block.astype(width).tobytes())
        return digest.hexdigest()

    def expression_space(self, rows: NDArray[np.int64]) -> ExpressionSpace:
        """The genes and the scale of the cells at ``rows`` (chosen,), those a model is trained on."""
        group = self.condition[rows] * len(self.contexts) + self.context[rows]
        return ExpressionSpace(tuple(self.genes), self.preprocessing, ExpressionScale.of(self.X, rows, group))

    @property
    def is_on_disk(self) -> bool:
        """Whether expression stays in its file."""
        return isinstance(self.X, MatrixOnDisk)

    def sample(self, rows: NDArray[np.int64], most: int = SAMPLE) -> NDArray[np.int64]:
        """Those cells at ``rows``, a group, that stand for it: in memory all, on disk ``most``, evenly spaced."""
        if not self.is_on_disk or len(rows) <= most:
            return rows
        return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]

    def rows(
        self, *, condition: str | None = None, context: str | None = None, covariate: str | None = None
    ) -> NDArray[np.int64]:
        """Find the cells of a condition, of a context, of a level of the covariate, or of several of these.

        Parameters
        ----------
        condition
            One of ``conditions``; any, if not given.
        context
            One of ``contexts``; any, if not given.
        covariate
            One of ``covariates``; any, if not given.

        Returns
        -------
        ndarray
            (found,) row indices, in file order.

        Raises
        ------
        InputError
            The condition, the context or the level is unknown.
        """
        wanted = np.ones(len(self), dtype=bool)
        if condition is not None:
            wanted &= self.condition == _index("condition", condition, self.conditions)
        if context is not None:
            wanted &= self.context == _index("context", context, self.contexts)
        if covariate is not None:
            wanted &= self.covariate == _index("level of the covariate", covariate, self.covariates)
        return np.flatnonzero(wanted)

    def compound(self, condition: str) -> str:
        """The name of a condition, its dose left off."""
        dosed = condition in self.doses and condition != self.control
        return condition.rpartition("@")[0] if dosed else condition

    def labels(self, condition: str) -> dict[str, str | float]:
        """Say what the columns of ``obs`` hold in a cell of a condition.

        Parameters
        ----------
        condition
            One of ``conditions``.

        Returns
        -------
        dict
            Column to value: the perturbation's name, its dose, or both, as ``keys`` has it.

        Raises
        ------
        InputError
            The condition is unknown.
        """
        _index("condition", condition, self.conditions)
        labels: dict[str, str | float] = {}
        if self.keys.perturbation_key is not None:
            labels[self.keys.perturbation_key] = self.compound(condition)
        if self.keys.dose_key is not None:
            labels[self.keys.dose_key] = self.doses[condition]
        return labels

    def to_anndata(self, rows: NDArray[np.int64] | None = None) -> AnnData:
        """Give cells back as an AnnData of their own.

        Parameters
        ----------
        rows
            (chosen,) row indices; all cells, if not given.

        Returns
        -------
        AnnData
            (chosen, genes): ``X`` sparse float32, ``obs`` as it was given, counts in the layer they were in.
        """
        X = self.X[:] if rows is None else self.X[rows]
        obs = self.obs.copy() if rows is None else self.obs.iloc[rows].copy()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Observation names are not unique")
            adata = AnnData(X, obs=obs, var=pd.DataFrame(index=self.genes))
        if self.counts is not None:
            adata.layers[self.keys.counts_layer] = self.counts[:] if rows is None else self.counts[rows]
        return adata

    def __len__(self) -> int:
        return len(self.obs)

    def __repr__(self) -> str:
        n_controls = int((self.condition == 0).sum())
        return (
            f"PerturbationData: {len(self):,} cells x {len(self.genes):,} genes\n"
            f"  control: {self.control!r} ({n_controls:,} cells)\n"
            f"  {_listed('perturbations', self.perturbations)}\n"
            f"  {_listed('contexts', self.contexts)}"
            + (f"\n  {_listed('covariate levels', self.covariates)}" if self.covariates else "")
        )


def _index(role: str, name: str, known: tuple[str, ...]) -> int:
    if name not in known:
        raise InputError(f"there is no {role} {name!r}; {did_you_mean(name, known)}")
    return known.index(name)


def _listed(what: str, names: tuple[str, ...]) -> str:
    return f"{what} ({len(names)}): {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
