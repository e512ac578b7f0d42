"""From raw counts to log-normalised expression of the variable genes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from multipert.data.alignment import positions, select_genes
from multipert.data.block_writer import write_in_blocks
from multipert.data.expression import row_blocks, take_counts
from multipert.data.files import write_cells
from multipert.data.gene_names import match_names
from multipert.data.on_disk import SAMPLE, Expression, MatrixOnDisk
from multipert.data.scale import UNS, ExpressionSpace, Preprocessing
from multipert.errors import InputError

_TRANSCRIPTOME = 10_000
"""Genes from which on a file is no panel."""


def preprocess(
    adata: AnnData,
    *,
    min_counts: int | None = None,
    min_genes: int | None = None,
    min_cells: int | None = None,
    n_top_genes: int | None = 5000,
    layer: str | None = None,
    choose_on: NDArray[np.bool_] | None = None,
) -> AnnData:
    """Filter, normalise and log-transform counts, and keep the most variable genes.

    Cells with few counts or few expressed genes go, then genes seen in few cells. Each cell is scaled to the median
    total, then log1p is taken, and the genes most variable by scanpy's default flavour are kept (the recipe of the
    scVIDR study).

    Parameters
    ----------
    adata
        (cells, genes) raw counts; left as it is.
    min_counts, min_genes
        What a cell must have to stay: by default 500 counts and 720 expressed genes, as in the study; of fewer than
        10,000 genes, as many fewer: 50 and 72 of 1,000. What is not given may cost no more than half of the cells.
    min_cells
        How many of these cells a gene must be seen in to stay: by default one in a hundred, but no fewer than 3 and no
        more than 100, as in the study.
    n_top_genes
        How many variable genes to keep; all, if none.
    layer
        The layer that holds the counts, in place of ``X``.
    choose_on
        (cells of ``adata``,) the cells that decide what is learnt from cells: which genes are seen often enough, the
        median total, the variable genes (see :func:`training_mask`); all, if none.

    Returns
    -------
    AnnData
        (kept cells, kept genes): ``X`` sparse float32, ``layers["counts"]`` the counts, ``obs`` and ``var`` as given,
        and under ``uns["multipert_preprocessing"]`` what was done, by which a model trained on these cells brings
        others to their scale; ``steps`` there says how many cells and genes each step left.

    Raises
    ------
    InputError
        The values are no counts, ``choose_on`` does not fit, or a filter leaves nothing, or less than half of the cells
        though it was not asked for.
    """
    counts = take_counts(adata, layer)
    return _chosen(
        adata,
        counts,
        min_counts=min_counts,
        min_genes=min_genes,
        min_cells=min_cells,
        n_top_genes=n_top_genes,
        choose_on=choose_on,
    ).in_memory(counts)


def preprocess_like(
    adata: AnnData,
    space: ExpressionSpace,
    *,
    missing_genes: str = "error",
    min_counts: int | None = None,
    min_genes: int | None = None,
    layer: str | None = None,
) -> AnnData:
    """Make raw counts what they would have become among the training cells of a model.

    Parameters
    ----------
    adata
        (cells, genes) raw counts, genes in any order and by any name that ``var`` holds; left as it is.
    space
        The model's genes, and how its training cells were made.
    missing_genes
        What to do when a gene is missing: ``"error"`` refuses, ``"zero"`` takes it as zero in every cell.
    min_counts, min_genes
        What a cell must have to stay, if not what training cells had to have.
    layer
        The layer that holds the counts, in place of ``X``.

    Returns
    -------
    AnnData
        (kept cells, the model's genes), as of :func:`preprocess`.

    Raises
    ------
    InputError
        The values are no counts, genes are missing, the model does not know how its cells were made, or less than half
        of the cells are good enough, though that was not asked for.
    """
    counts = take_counts(adata, layer)
    return _like(
        adata, counts, space, missing_genes=missing_genes, min_counts=min_counts, min_genes=min_genes
    ).in_memory(counts)


def preprocess_to(
    out: str | Path,
    adata: AnnData,
    *,
    like: ExpressionSpace | None = None,
    layer: str | None = None,
    on_disk: bool | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write what :func:`preprocess`, or :func:`preprocess_like`, gives back to a file.

    Where the counts are on disk, they are gone through in blocks, and so is the file written; the variable genes are
    chosen on at most 20,000 of the training cells, evenly spaced.

    Parameters
    ----------
    out
        An h5ad file or a zarr folder, by its ending.
    adata
        The cells; of a large file, as ``read_cells(path, on_disk=True)`` gives them.
    like
        The genes and scale of a model, for :func:`preprocess_like`.
    layer, options
        As there.
    on_disk
        Whether what is on disk stays there; by default where it would take up much of the memory.

    Returns
    -------
    dict
        What was done: ``uns["multipert_preprocessing"]`` of the file.

    Raises
    ------
    InputError
        As there, or the file cannot be written.
    OSError
        The disk is full.
    """
    counts = take_counts(adata, layer, own=True, on_disk=on_disk)
    recipe = _chosen(adata, counts, **options) if like is None else _like(adata, counts, like, **options)
    if isinstance(counts, MatrixOnDisk):
        recipe.write(counts, out)
    else:
        write_cells(recipe.in_memory(counts), out)
    return recipe.done


@dataclass(frozen=True, eq=False)
class _Recipe:
    """What is made of counts: which cells stay, what of them, and what is said of it."""

    rows: NDArray[np.int64]
    change: Callable[[sparse.csr_matrix], tuple[sparse.csr_matrix, sparse.csr_matrix]]
    obs: pd.DataFrame
    var: pd.DataFrame
    done: dict[str, Any]

    def in_memory(self, counts: sparse.csr_matrix) -> AnnData:
        X, kept = self.change(counts[self.rows])
        return AnnData(X, obs=self.obs, var=self.var, layers={"counts": kept}, uns={UNS: self.done})

    def write(self, counts: MatrixOnDisk, out: str | Path) -> None:
        with write_in_blocks(out, len(self.var), ["counts"]) as writer:
            for _, block in counts.blocks(self.rows):
                writer.append(*self.change(block))
            writer.finish(self.obs, self.var, {UNS: self.done})


def _chosen(
    adata: AnnData,
    counts: Expression,
    *,
    min_counts: int | None = None,
    min_genes: int | None = None,
    min_cells: int | None = None,
    n_top_genes: int | None = None,
    choose_on: NDArray[np.bool_] | None = None,
) -> _Recipe:
    """What :func:`preprocess` makes of counts."""
    chosen = np.ones(adata.n_obs, dtype=bool) if choose_on is None else np.asarray(choose_on)
    if chosen.shape != (adata.n_obs,) or chosen.dtype != bool:
        raise InputError(f"choose_on must hold one true or false for each of the {adata.n_obs} cells")
    part = min(1.0, adata.n_vars / _TRANSCRIPTOME)
    least = _Least(round(500 * part), round(720 * part)).with_given(min_counts, min_genes)
    min_cells = min(100, max(3, int(chosen.sum()) // 100)) if min_cells is None else min_cells

    steps = _Steps(counts.shape)
    cells = _good_cells(counts, least, steps)
    training = np.flatnonzero(cells & chosen)
    if not len(training):
        raise InputError("no cell that choose_on names is left after filtering: lower min_counts or min_genes")
    seen_in = np.sum([block.getnnz(axis=0) for _, block in row_blocks(counts, training)], axis=0)
    seen = np.flatnonzero(seen_in >= min_cells)
    if not len(seen):
        raise InputError(f"no gene is seen in {min_cells} cells (at most in {seen_in.max()}): lower min_cells")
    names = adata.var_names[seen]
    steps.add(f"genes seen in {min_cells} cells", (int(cells.sum()), len(seen)))

    totals = [np.asarray(block[:, seen].sum(axis=1)).ravel() for _, block in row_blocks(counts, training)]
    how = Preprocessing(float(np.median(np.concatenate(totals))), tuple(names), least.counts, least.genes)
    kept = np.arange(len(seen))
    if n_top_genes is not None and n_top_genes < len(seen):
        if isinstance(counts, MatrixOnDisk) and len(training) > SAMPLE:
            training = training[np.linspace(0, len(training) - 1, SAMPLE).astype(np.int64)]
        shown = AnnData(how.normalise(counts[training][:, seen], names, names), var=pd.DataFrame(index=names))
        kept = np.flatnonzero(_variable(shown, n_top_genes))
        steps.add(f"the {n_top_genes} most variable genes", (int(cells.sum()), len(kept)))

    def change(block: sparse.csr_matrix) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        block = block[:, seen]
        X = how.normalise(block, names, names)
        return (X, block) if len(kept) == len(seen) else (X[:, kept], block[:, kept])

    done = how.to_uns() | {"steps": steps.table()}
    return _Recipe(np.flatnonzero(cells), change, adata.obs[cells].copy(), adata.var.iloc[seen[kept]].copy(), done)


def _like(
    adata: AnnData,
    counts: Expression,
    space: ExpressionSpace,
    *,
    missing_genes: str = "error",
    min_counts: int | None = None,
    min_genes: int | None = None,
) -> _Recipe:
    """What :func:`preprocess_like` makes of counts."""
    how, genes = space.recipe(), pd.Index(space.genes)
    names, note = match_names(adata.var, genes)
    position = positions(names, genes, zero_missing=missing_genes == "zero")
    steps = _Steps(counts.shape)
    least = _Least(how.min_counts or 0, how.min_genes or 0).with_given(min_counts, min_genes)
    cells = _good_cells(counts, least, steps)
    steps.add("the genes of the run" + (f" ({note})" if note else ""), (int(cells.sum()), len(genes)))

    def change(block: sparse.csr_matrix) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        return select_genes(how.normalise(block, names, genes), position), select_genes(block, position)

    done = how.to_uns() | {"steps": steps.table()}
    return _Recipe(np.flatnonzero(cells), change, adata.obs[cells].copy(), pd.DataFrame(index=genes), done)


@dataclass
class _Steps:
    """How many cells and genes each step left."""

    given: tuple[int, int]
    done: list[tuple[str, int, int]] = field(default_factory=list)

    def add(self, step: str, shape: tuple[int, int]) -> None:
        self.done.append((step, *shape))

    def table(self) -> pd.DataFrame:
        rows = [("as given", *self.given), *self.done]
        return pd.DataFrame([row[1:] for row in rows], columns=["cells", "genes"], index=[row[0] for row in rows])


@dataclass(frozen=True)
class _Least:
    """What a cell must have to stay, and which of it the user asked for."""

    counts: int
    genes: int
    asked: frozenset[str] = frozenset()

    def with_given(self, min_counts: int | None, min_genes: int | None) -> "_Least":
        given = {"min_counts": min_counts, "min_genes": min_genes}
        return _Least(
            self.counts if min_counts is None else min_counts,
            self.genes if min_genes is None else min_genes,
            frozenset(name for name, value in given.items() if value is not None),
        )


def _good_cells(counts: Expression, least: _Least, steps: _Steps) -> NDArray[np.bool_]:
    """(cells,) which cells stay; a loss of more than half that nobody asked for is refused, naming its cause."""
    of_blocks = [(np.asarray(block.sum(axis=1)).ravel(), block.getnnz(axis=1)) for _, block in row_blocks(counts)]
    total, n_genes = (np.concatenate([one[which] for one in of_blocks]) for which in (0, 1))
    has_counts, has_genes = total >= least.counts, n_genes >= least.genes
    good = np.asarray(has_counts & has_genes)
    steps.add(f"cells with {least.counts} counts", (int(has_counts.sum()), counts.shape[1]))
    steps.add(f"cells with {least.genes} expressed genes", (int(good.sum()), counts.shape[1]))
    # The cause is what leaves fewest, and whatever alone leaves less than half.
    fewest = min(has_counts.sum(), has_genes.sum())
    causes = {
        option: f"{option}={limit} leaves {has.sum():,} (the median cell has {np.median(value):,.0f})"
        for option, limit, has, value in (
            ("min_counts", least.counts, has_counts, total),
            ("min_genes", least.genes, has_genes, n_genes),
        )
        if has.sum() == fewest or 2 * has.sum() < len(has)
    }
    if not good.any() or (2 * good.sum() < len(good) and not least.asked >= causes.keys()):
        meant = "" if not good.any() else ", or give it yourself if that loss is meant"
        raise InputError(
            f"only {good.sum():,} of {len(good):,} cells would stay: {' and '.join(causes.values())}; "
            f"lower {' and '.join(causes)}{meant}"
        )
    return good


def _variable(training: AnnData, n_top_genes: int) -> NDArray[np.bool_]:
    """(genes,) the most variable ones among log-normalised training cells."""
    import scanpy as sc  # takes seconds to import, and only this function needs it

    try:
        table: pd.DataFrame = sc.pp.highly_variable_genes(training, n_top_genes=n_top_genes, inplace=False)
    except (IndexError, ValueError) as error:  # no gene has a dispersion, or none that can be told from others
        raise InputError(
            "hardly any gene varies from cell to cell, so none can be chosen: keep all (n_top_genes=None, --genes 0)"
        ) from error
    return table["highly_variable"].to_numpy(dtype=bool)
