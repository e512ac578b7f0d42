"""On what scale expression is: kept with a model, so that cells it meets later are brought to it or refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from multipert.data.on_disk import Expression
from multipert.errors import InputError

UNS = "multipert_preprocessing"
"""Where ``uns`` of preprocessed cells says how they were made."""

_AT_ONCE = 4096  # cells whose logarithms are undone together
_SAME = 0.02  # relative difference between targets, and between totals, that pass for the same
_ENOUGH = 10  # cells whose totals cannot be the same by chance
_SLACK = 0.1  # of the logarithm of totals, beyond how they vary among training cells


@dataclass(frozen=True)
class Preprocessing:
    """How raw counts were made log-normalised expression: ``log1p(target_sum * count / total)``.

    Attributes
    ----------
    target_sum
        What every cell's total is scaled to.
    counted_genes
        The genes that a total is counted over; none for the genes that are kept.
    min_counts, min_genes
        What a cell must have had to stay; none where that is not known.
    """

    target_sum: float
    counted_genes: tuple[str, ...] | None = None
    min_counts: int | None = None
    min_genes: int | None = None

    def good_cells(self, counts: sparse.csr_matrix) -> NDArray[np.bool_]:
        """(cells,) which cells of raw counts (cells, genes of the file) have enough counts and expressed genes."""
        total, n_genes = np.asarray(counts.sum(axis=1)).ravel(), counts.getnnz(axis=1)
        return np.asarray((total >= (self.min_counts or 0)) & (n_genes >= (self.min_genes or 0)))

    def normalise(self, counts: sparse.csr_matrix, names: pd.Index, genes: pd.Index) -> sparse.csr_matrix:
        """Scale counts (cells, names) to the target and take log1p; a cell without counts stays empty.

        Parameters
        ----------
        counts
            Raw counts.
        names
            (columns of ``counts``,) gene names.
        genes
            The genes that are kept, over which totals are counted if nothing else is said.
        """
        counted = names.isin(genes if self.counted_genes is None else self.counted_genes)
        total = np.asarray(counts[:, counted].sum(axis=1, dtype=np.float64)).ravel()
        X = counts.astype(np.float32)
        factor = np.divide(self.target_sum, total, out=np.zeros_like(total), where=total > 0)
        X.data = np.log1p(X.data * np.repeat(factor, np.diff(X.indptr))).astype(np.float32)
        X.eliminate_zeros()
        return X

    def to_uns(self) -> dict[str, Any]:
        """What an AnnData keeps of it under ``uns``, in types that h5ad and zarr can hold."""
        kept = {name: getattr(self, name) for name in ("target_sum", "min_counts", "min_genes")}
        known = {name: value for name, value in kept.items() if value is not None}
        if self.counted_genes is not None:
            known["counted_genes"] = np.array(self.counted_genes, dtype=object)
        return known

    @classmethod
    def from_mapping(cls, kept: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_uns` or ``dataclasses.asdict`` gave, whatever else stands beside it.

        Raises
        ------
        InputError
            It is not as either writes it.
        """
        try:
            target = float(kept["target_sum"])
            genes = kept.get("counted_genes")
            limits = (None if kept.get(name) is None else int(kept[name]) for name in ("min_counts", "min_genes"))
            if not 0 < target < np.inf:
                raise ValueError(target)
            return cls(target, None if genes is None else tuple(map(str, genes)), *limits)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"uns[{UNS!r}] is not as multipert writes it: preprocess the counts again, or delete it"
            ) from None


@dataclass(frozen=True)
class ExpressionScale:
    """What the totals of training cells are, counted over their genes, logarithms undone.

    Attributes
    ----------
    low, high
        The smallest and the largest median total among the groups (condition and context) of cells.
    spread
        Standard deviation of the logarithm of all totals; 0 where every cell was scaled to one total.
    gene_means
        (genes,) what each gene adds to a cell's total, on average.
    """

    low: float
    high: float
    spread: float
    gene_means: tuple[float, ...]

    @classmethod
    def of(cls, X: Expression, rows: NDArray[np.int64], group: NDArray[np.int64]) -> Self:
        """Measure the log-normalised cells (cells, genes) at ``rows`` (chosen,), which fall into groups (chosen,)."""
        totals, gene_means = unlogged(X, rows)
        medians = pd.Series(totals).groupby(group).median()
        means = tuple(float(f"{mean:.5g}") for mean in gene_means)  # nobody needs more digits, and JSON is long
        return cls(float(medians.min()), float(medians.max()), _spread(totals), means)

    def check(self, X: Expression, present: NDArray[np.bool_]) -> None:
        """Refuse log-normalised cells (cells, genes) whose totals are not those of training.

        The median may lie as far outside those of the training groups as single cells of training vary, and farther
        where it is of few cells. ``present`` says which genes
        were measured; totals over those alone are compared.

        Raises
        ------
        InputError
            The median total does not fit: both figures, and what to do.
        """
        means = np.array(self.gene_means)
        share = means[present].sum() / means.sum()
        median = float(np.median(unlogged(X)[0]))
        slack = np.exp(_SLACK + self.spread * (1 + 3 / np.sqrt(X.shape[0])))
        if self.low * share / slack <= median <= self.high * share * slack:
            return
        raise InputError(
            f"these cells are on another scale than those the model was trained on: their totals (logarithm undone, "
            f"over the model's genes) are {median:.4g} in the median, those of training cells "
            f"{_range(self.low * share, self.high * share)}; {_CURE}"
        )


@dataclass(frozen=True)
class ExpressionSpace:
    """The genes of a model, and the scale of its expression.

    Attributes
    ----------
    genes
        In the model's order.
    preprocessing
        How counts become its expression; none where that is not known.
    scale
        What totals its training cells have; none where any will do.
    """

    genes: tuple[str, ...]
    preprocessing: Preprocessing | None = None
    scale: ExpressionScale | None = None

    def recipe(self) -> Preprocessing:
        """How counts become the model's expression.

        Raises
        ------
        InputError
            It is not known.
        """
        if self.preprocessing is None:
            raise InputError(
                "the values are raw counts (all are whole numbers), and the model was trained on cells that were "
                "normalised elsewhere, so that it cannot know how: give cells log-normalised in the same way"
            )
        return self.preprocessing


_CURE = (
    "give the raw counts, which predict scales as training was, or scale the file so with "
    "`multipert preprocess COUNTS --like RUN`"
)


def check_target(found: Preprocessing | None, trained: Preprocessing | None) -> None:
    """Refuse cells known to be scaled to another total than training cells were.

    Raises
    ------
    InputError
        Both totals are known and differ: both figures, and what to do.
    """
    if found is None or trained is None:
        return
    if abs(np.log(found.target_sum / trained.target_sum)) > _SAME:
        raise InputError(
            f"these cells were scaled to a total of {found.target_sum:.6g}, those the model was trained on to "
            f"{trained.target_sum:.6g}: {_CURE}"
        )


def read_preprocessing(adata: AnnData, X: Expression) -> Preprocessing | None:
    """Find out how log-normalised cells were made: from ``uns``, or because all totals are the same.

    Parameters
    ----------
    adata
        The cells.
    X
        (cells, genes) their log-normalised expression.

    Returns
    -------
    Preprocessing or None
        None where nothing tells: the cells were made elsewhere, and genes that were counted are gone.

    Raises
    ------
    InputError
        ``uns`` speaks of another logarithm than the natural, or of a total that the cells exceed.
    """
    base = adata.uns.get("log1p", {}).get("base") if isinstance(adata.uns.get("log1p"), Mapping) else None
    if base is not None and not (isinstance(base, int | float | np.number) and np.isclose(base, np.e)):
        raise InputError(
            f"the values are logarithms to base {base!s:.20} (uns['log1p']): multipert takes natural ones, as "
            "scanpy.pp.log1p(adata) gives"
        )
    totals, _ = unlogged(X)
    if UNS in adata.uns:
        known = Preprocessing.from_mapping(adata.uns[UNS])
        if totals.max() > known.target_sum * (1 + _SAME):
            raise InputError(
                f"uns[{UNS!r}] says that cells were scaled to a total of {known.target_sum:.6g}, but one has "
                f"{totals.max():.6g}: preprocess the counts again, or delete that entry if the values were made anew"
            )
        return known
    if len(totals) < _ENOUGH:
        return None
    low, high = np.quantile(totals, (0.05, 0.95))
    if high > low * (1 + _SAME) or low <= 0:
        return None
    return Preprocessing(float(np.median(totals)), tuple(adata.var_names))


def unlogged(X: Expression, rows: NDArray[np.int64] | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Undo the logarithm of expression (cells, genes), of all cells or of those at ``rows``, some at a time.

    Returns
    -------
    tuple
        (chosen,) the totals of cells, and (genes,) the means of genes.
    """
    rows = np.arange(X.shape[0]) if rows is None else rows
    totals, sums = np.zeros(len(rows)), np.zeros(X.shape[1])
    for start in range(0, len(rows), _AT_ONCE):
        part = X[rows[start : start + _AT_ONCE]].astype(np.float64)
        part.data = np.expm1(part.data)
        totals[start : start + _AT_ONCE] = np.asarray(part.sum(axis=1)).ravel()
        sums += np.asarray(part.sum(axis=0)).ravel()
    return totals, sums / len(rows)


def _spread(totals: NDArray[np.float64]) -> float:
    positive = totals[totals > 0]
    spread = float(np.std(np.log(positive))) if len(positive) else 0.0
    return spread if spread > _SAME else 0.0


def _range(low: float, high: float) -> str:
    return f"{low:.4g}" if high < low * (1 + _SAME) else f"{low:.4g} to {high:.4g}, group by group"
