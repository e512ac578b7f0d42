"""From raw counts to log-normalised expression of the variable genes."""

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from multipert.data.conditions import read_conditions
from multipert.data.expression import take_counts
from multipert.data.keys import Keys
from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError


def preprocess(
    adata: AnnData,
    *,
    min_counts: int = 500,
    min_genes: int = 720,
    min_cells: int = 100,
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
        What a cell must have to stay.
    min_cells
        How many of these cells a gene must be seen in to stay.
    n_top_genes
        How many variable genes to keep; all, if none.
    layer
        The layer that holds the counts, in place of ``X``.
    choose_on
        (cells of ``adata``,) which cells the variable genes are chosen on (see :func:`training_mask`); all, if none.

    Returns
    -------
    AnnData
        (kept cells, kept genes): ``X`` sparse float32, ``layers["counts"]`` the counts, ``obs`` and ``var`` as given.

    Raises
    ------
    InputError
        The values are no counts, ``choose_on`` does not fit, or a filter leaves nothing.
    """
    import scanpy as sc  # takes seconds to import, and only this function needs it

    counts = take_counts(adata, layer)
    chosen = np.ones(adata.n_obs, dtype=bool) if choose_on is None else np.asarray(choose_on)
    if chosen.shape != (adata.n_obs,) or chosen.dtype != bool:
        raise InputError(f"choose_on must hold one true or false for each of the {adata.n_obs} cells")

    has_counts, total = sc.pp.filter_cells(counts, min_counts=min_counts)
    has_genes, n_genes = sc.pp.filter_cells(counts, min_genes=min_genes)
    cells = has_counts & has_genes
    if not cells.any():
        raise InputError(
            f"no cell has {min_counts} counts and {min_genes} expressed genes (the median cell has "
            f"{np.median(total):g} and {np.median(n_genes):g}): lower min_counts or min_genes"
        )
    counts = counts[cells]
    genes, n_cells = sc.pp.filter_genes(counts, min_cells=min_cells)
    if not genes.any():
        raise InputError(f"no gene is seen in {min_cells} cells (at most in {n_cells.max():g}): lower min_cells")
    counts = counts[:, genes]

    result = AnnData(counts.copy(), obs=adata.obs[cells].copy(), var=adata.var[genes].copy(), layers={"counts": counts})
    sc.pp.normalize_total(result)
    sc.pp.log1p(result)
    if n_top_genes is None or n_top_genes >= result.n_vars:
        return result
    if not chosen[cells].any():
        raise InputError("no cell that choose_on names is left after filtering: lower min_counts or min_genes")
    variable: pd.DataFrame = sc.pp.highly_variable_genes(result[chosen[cells]], n_top_genes=n_top_genes, inplace=False)
    return result[:, variable["highly_variable"].to_numpy()].copy()


def training_mask(adata: AnnData, keys: Keys, held_out: str) -> NDArray[np.bool_]:
    """Find the cells that training may see: all but the perturbed cells of the held-out context.

    Parameters
    ----------
    adata
        The cells, preprocessed or not: only ``obs`` is read.
    keys
        Which columns to read.
    held_out
        The context to hold out.

    Returns
    -------
    ndarray
        (cells,) true where training may see the cell.

    Raises
    ------
    InputError
        A key or label is missing, or the context is unknown.
    """
    found = read_conditions(adata.obs, keys)
    if held_out not in found.contexts:
        raise InputError(f"there is no context {held_out!r}; {did_you_mean(held_out, found.contexts)}")
    in_context = found.context == found.contexts.index(held_out)
    return np.asarray(~in_context | (found.condition == 0))
