"""Genes called otherwise: Ensembl ids for symbols, or the reverse, and ids with a version."""

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from multipert.errors import InputError

_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})(\.\d+)?")
_ENOUGH = 0.5  # share of the genes wanted that names must find to be taken as they are


def match_names(var: pd.DataFrame, wanted: pd.Index) -> tuple[pd.Index, str | None]:
    """Call the genes of a file as a model calls them.

    The names of ``var`` are taken if they find half of the genes wanted. Else whatever finds most is: these names or a
    column of ``var``, with the versions of Ensembl ids (``ENSG00000187608.10``) left off if need be.

    Parameters
    ----------
    var
        (genes of the file, columns) their table.
    wanted
        The model's genes.

    Returns
    -------
    tuple
        (genes of the file,) their names as the model has them, a name that comes again being left empty; and a note
        that says so, if these are not the names of ``var``.

    Raises
    ------
    InputError
        No gene is found: of what kind the names are here and there, and what to do.
    """
    found: dict[str, tuple[int, pd.Index]] = {}
    for source, names in _candidates(var):
        if "versions" in source:
            spelt = {_without_version(name): name for name in wanted}
            names = pd.Index([spelt.get(_without_version(name), name) for name in names])
        found[source] = int(wanted.isin(names).sum()), names
        if source == "names" and found[source][0] >= _ENOUGH * len(wanted):
            return names, None
    source = max(found, key=lambda one: found[one][0])
    n_found, names = found[source]
    if n_found == 0:
        raise InputError(_nothing_in_common(var, wanted))
    if source == "names":
        return names, None
    repeated = names.duplicated() & names.isin(wanted)
    again = f"; {repeated.sum()} that come twice count once" if repeated.any() else ""
    note = f"genes were matched by {source} ({n_found:,} of {len(wanted):,} found{again})"
    return names.where(~repeated, ""), note


SYMBOLS = {
    *("symbol", "symbols", "gene_symbol", "gene_symbols", "gene_name", "gene_names", "gene_short_name", "feature_name")
}
"""Columns of ``var`` that hold symbols, as common tools call them."""


def symbols(var: pd.DataFrame) -> pd.Index:
    """What readers call the genes of a file.

    Parameters
    ----------
    var
        (genes, columns) their table.

    Returns
    -------
    pandas.Index
        (genes,) its names; where these are Ensembl ids, a column of symbols if there is one. A symbol that is missing
        or comes again stays the id.
    """
    column = next((name for name in var.columns if str(name).lower() in SYMBOLS), None)
    if column is None or not _are_ids(var.index):
        return var.index.astype(str)
    ids, found = var.index.astype(str), var[column].astype(str).str.strip()
    usable = var[column].notna() & (found != "") & ~found.duplicated(keep=False)
    return pd.Index(np.where(usable, found, ids))


def _candidates(var: pd.DataFrame) -> Iterator[tuple[str, pd.Index]]:
    """What may hold the names, and in words where it stands."""
    texts = {"names": var.index}
    for column in var.columns:
        if not is_numeric_dtype(var[column]):
            texts[f"var[{column!r}]"] = pd.Index(var[column].astype(str))
    for source, names in texts.items():
        yield source, names.astype(str)
    for source, names in texts.items():
        if _are_ids(names):
            yield f"{source} without Ensembl versions", names.astype(str)


def _without_version(name: str) -> str:
    match = _ENSEMBL.fullmatch(str(name))
    return match[1] if match else str(name)


def _are_ids(names: pd.Index) -> bool:
    """Whether most names are Ensembl ids, by a look at some."""
    some = names[:200]
    return 2 * sum(bool(_ENSEMBL.fullmatch(str(name))) for name in some) > len(some)


def _nothing_in_common(var: pd.DataFrame, wanted: pd.Index) -> str:
    kinds = ["Ensembl ids" if _are_ids(names) else "symbols" for names in (wanted, var.index)]
    here, there = (f"{kind} (such as {one!r})" for kind, one in zip(kinds, (wanted[0], var.index[0]), strict=True))
    example = f"the model's genes are {here}, the cells' are {there}"
    if kinds[0] != kinds[1]:
        return (
            f"{example}, and no column of var holds {kinds[0]}: add one, for instance "
            f"adata.var['{'ensembl_id' if kinds[0] == 'Ensembl ids' else 'symbol'}']"
        )
    if set(map(str.casefold, map(str, wanted))) & set(map(str.casefold, map(str, var.index))):
        return f"{example}: they differ in upper and lower case, as those of human and mouse do; give them the model's"
    return f"no gene of the training data is there: {example}"
