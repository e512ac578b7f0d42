"""What a data set can tell before anything is trained: which responses are there, which carry over, what is amiss.

For each perturbation in each context: is the response reproducible, and do other contexts show it? A response that one
half of the cells does not find again in the other half cannot be predicted, nor could anyone see that it was. One that
no other context shows cannot be learnt from other contexts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from multipert.data import Keys, PerturbationData, read_cells
from multipert.data.expression import Floats
from multipert.data.suggestions import some
from multipert.errors import InputError
from multipert.evaluation.calibration import calibrate_comparisons, summarise
from multipert.evaluation.findings import Finding, chosen_genes, find_faults
from multipert.evaluation.populations import Comparison, Population
from multipert.evaluation.registry import choose
from multipert.evaluation.responses import LEAST_CELLS, REPRODUCIBLE, Responses, correlation, each_response

if TYPE_CHECKING:
    from anndata import AnnData

Status = Literal["can be predicted", "differs by context", "too weak", "too little data"]

SHARED = 0.3
"""Correlation with the mean response of other contexts from which that counts as telling something."""

AFFORDABLE = 5.0
"""How many times the cells may be needed before a response counts as too weak rather than too little measured."""

CALIBRATED = 40
"""Most responses on which the metrics are tried."""

_DEPTHS = ("total_counts", "n_counts", "nCount_RNA", "n_umi", "nUMI", "ncounts", "depth")


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What a data set can tell.

    Attributes
    ----------
    groups
        A row for each context and perturbation (index levels ``context``, ``perturbation``):

        - ``cells``, ``controls``: how many there are;
        - ``depth_ratio``: median depth of perturbed over control cells (``depth`` of the data names the column);
        - ``reproducibility``: correlation of the response in two halves, each with its own half of the controls;
        - ``size``, ``noise``: length of the response, its sampling noise taken off, and of that noise, over all genes;
        - ``genes``: genes that respond (Wilcoxon, false discovery rate 5 %);
        - ``others``: correlation with the mean response of all other contexts; NaN without any;
        - ``cells_needed``: cells of each kind at which two halves would agree to 0.5, as far as can be foreseen;
        - ``status``: the verdict on it.
    perturbations
        A row for each perturbation: ``contexts`` (where it was measured), ``reproducible`` (in how many of them) and
        ``shared`` (what contexts have in common, over the mean response within a context, both squared and free of
        noise: 1 where all respond alike, 0 where they have nothing in common).
    similarity
        Cosine of the responses of two contexts over the perturbations that both have, noise taken off; NaN where one
        shows no response beyond noise.
    metrics
        A row for each metric: whether it can tell a replicate from a guess here (see ``summarise``); empty where no
        response has cells enough.
    findings
        What is amiss, worst first.
    verdict
        Three sentences.
    """

    name: str
    n_cells: int
    n_genes: int
    groups: pd.DataFrame
    perturbations: pd.DataFrame
    similarity: pd.DataFrame
    metrics: pd.DataFrame
    findings: tuple[Finding, ...]
    verdict: tuple[str, str, str]

    def __str__(self) -> str:
        table = self.groups.round(3).to_string()
        findings = [f"{finding.severity}: {finding.what} {finding.remedy}" for finding in self.findings]
        return "\n\n".join([" ".join(self.verdict), table, *findings])


def check(
    data: PerturbationData | AnnData | str | Path,
    keys: Keys | None = None,
    *,
    name: str | None = None,
    seed: int = 0,
    **columns: Any,
) -> DataCheck:
    """Find out what a data set can tell before anything is trained.

    Parameters
    ----------
    data
        The cells: checked ones, or an AnnData or the path of a file, with the keys.
    keys
        Which columns say what each cell is; not for ``PerturbationData``, which has them.
    **columns
        The keys one by one, in place of ``keys``: ``perturbation_key``, ``control``, ``context_key``, ... of ``Keys``.
    name
        What to call the data set; the file's name unless given.
    seed
        Seeds the halves.

    Returns
    -------
    DataCheck
        Tables, findings and a verdict; printed, a summary of them.

    Raises
    ------
    InputError
        As ``PerturbationData.from_anndata``; or the cells are on disk.
    """
    chosen: list[Finding] = []
    if not isinstance(data, PerturbationData):
        if keys is None and "context_key" not in columns:
            raise InputError("nothing says what the contexts are: give context_key, the column of obs that names them")
        keys = Keys(**columns) if keys is None else keys
        path = None if not isinstance(data, str | Path) else Path(data)
        name = name or (path.stem if path else None)
        adata = read_cells(path) if path is not None else data
        chosen = list(chosen_genes(adata))
        data = PerturbationData.read(adata, keys)
    if data.is_on_disk:
        raise InputError(
            "a check reads all cells at once: read them into memory (on_disk=False), or check some of them"
        )
    responses = Responses(data, seed)
    groups = _groups(data, responses)
    similarity = responses.similarity()
    return DataCheck(
        name=name or "the data",
        n_cells=len(data),
        n_genes=len(data.genes),
        groups=groups,
        perturbations=_perturbations(groups, responses),
        similarity=similarity,
        metrics=_metrics(data, groups, seed),
        findings=find_faults(data, groups, similarity, chosen),
        verdict=_verdict(groups),
    )


def _groups(data: PerturbationData, responses: Responses) -> pd.DataFrame:
    depth = cell_depth(data)
    rows = {}
    for context in data.contexts:
        controls = data.rows(condition=data.control, context=context)
        for perturbation in data.perturbations:
            cells = data.rows(condition=perturbation, context=context)
            if len(cells) == 0:
                continue
            place = (context, perturbation)
            agreement = responses.agreement.get(place, np.nan)
            others = responses.others(context, perturbation)
            told = (
                np.nan if others is None or place not in responses.mean else correlation(responses.mean[place], others)
            )
            fewest = min(len(cells), len(controls))
            rows[place] = {
                "cells": len(cells),
                "controls": len(controls),
                "depth_ratio": float(np.median(depth[cells]) / np.median(depth[controls])) if len(controls) else np.nan,
                "reproducibility": agreement,
                "size": np.sqrt(max(responses.signal.get(place, np.nan), 0)),
                "noise": np.sqrt(responses.noise.get(place, np.nan)),
                "genes": responses.genes.get(place, 0),
                "others": told,
                "cells_needed": _cells_needed(agreement, fewest),
                "status": _status(agreement, told, fewest),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["context", "perturbation"])


def cell_depth(data: PerturbationData) -> Floats:
    """Depth of each cell: the column of ``obs`` that tells its counts, else the number of genes seen, (cells,)."""
    for column in _DEPTHS:
        if column in data.obs and pd.api.types.is_numeric_dtype(data.obs[column]):
            return data.obs[column].to_numpy(dtype=np.float64)
    seen: Floats = np.diff(data.X.indptr).astype(np.float64)
    return seen


def _cells_needed(agreement: float, cells: int) -> float:
    """Cells at which two halves would correlate at 0.5: sampling noise falls as cells grow (Spearman and Brown)."""
    if not agreement > 0.02:
        return np.nan
    return float(np.ceil(cells * (1 - agreement) / agreement))


def _status(agreement: float, told: float, cells: int) -> Status:
    if cells < LEAST_CELLS or np.isnan(agreement):
        return "too little data"
    if agreement >= REPRODUCIBLE:
        return "differs by context" if told < SHARED else "can be predicted"
    needed = _cells_needed(agreement, cells)
    return "too little data" if needed <= AFFORDABLE * cells else "too weak"


def _metrics(data: PerturbationData, groups: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Which metrics can tell a replicate from a guess, over all responses or a random ``CALIBRATED`` of them."""
    enough = groups[(groups[["cells", "controls"]] >= LEAST_CELLS).all(axis=1)]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(enough))[:CALIBRATED])
    found, X = [], sparse.csr_array(data.X)
    for context, rows in enough.iloc[chosen].groupby(level="context", sort=False):
        controls = Population(X[data.rows(condition=data.control, context=str(context))])
        comparisons = {
            what: Comparison(
                controls, Population(X[data.rows(condition=what, context=str(context))]), controls, data.genes
            )
            for what in map(str, rows.index.get_level_values("perturbation"))
        }
        found.append(calibrate_comparisons(comparisons, choose(None, several=len(comparisons) > 1), seed=seed))
    return summarise(pd.concat(found, keys=range(len(found)))) if found else pd.DataFrame()


def _perturbations(groups: pd.DataFrame, responses: Responses) -> pd.DataFrame:
    by_name = groups.groupby(level="perturbation", sort=False)
    found = groups["status"].isin(["can be predicted", "differs by context"])
    return pd.DataFrame(
        {
            "contexts": by_name.size(),
            "reproducible": found.groupby(level="perturbation", sort=False).sum(),
            "shared": {name: responses.shared(str(name)) for name in by_name.groups},
        }
    )


def _verdict(groups: pd.DataFrame) -> tuple[str, str, str]:
    """Say in three sentences what can be predicted, what cannot, and what would help."""
    status, n = groups["status"], len(groups)
    fit, alone = groups[status == "can be predicted"], groups[status == "differs by context"]
    weak, little = groups[status == "too weak"], groups[status == "too little data"]
    several = groups.index.get_level_values("context").nunique() > 1
    if len(fit):
        how = "reproducible and shown by other contexts" if several else "reproducible"
        first = f"{_count(fit, n)} can be predicted, being {how}: {_named(fit, groups)}"
        if len(alone):
            first += f"; reproducible, but not shown by other contexts: {_named(alone, groups)}"
        first += "."
    elif len(alone):
        first = (
            f"Nothing but {_named(alone, groups)} is reproducible, of {n} responses, and no other context shows "
            f"{'it' if len(alone) == 1 else 'them'}: no model can learn {'it' if len(alone) == 1 else 'them'} there."
        )
    else:
        first = f"None of {n} responses can be predicted: no second half of the cells shows again what the first shows."
    parts = []
    if len(weak):
        parts.append(f"{_count(weak, n)} {'is' if len(weak) == 1 else 'are'} too weak: {_named(weak, groups)}")
    if len(little):
        parts.append(
            f"{_count(little, n)} {'has' if len(little) == 1 else 'have'} too little data: {_named(little, groups)}"
        )
    second = "; ".join(parts) + "." if parts else "None is too weak and none has too little data."
    return first, second, _help(little, weak, alone)


def _count(rows: pd.DataFrame, n: int) -> str:
    return f"All {n} responses" if len(rows) == n > 1 else f"{len(rows)} of {n} responses"


def _help(little: pd.DataFrame, weak: pd.DataFrame, alone: pd.DataFrame) -> str:
    """Say what further measurements would change."""
    advice = []
    if len(little):
        (context, perturbation), row = next(each_response(little.sort_values("cells_needed")))
        needed = row["cells_needed"] if np.isfinite(row["cells_needed"]) else LEAST_CELLS
        wanted = max(int(needed), LEAST_CELLS)
        advice.append(f"more cells (of {perturbation} in {context}, about {wanted} and as many controls)")
    if len(alone):
        contexts = list(dict.fromkeys(alone.index.get_level_values("context")))
        advice.append(
            f"a pilot in the very context to be predicted, as {some(contexts)} may answer in a way of its own"
        )
    if len(weak):
        advice.append("a stronger dose or perturbation where the response is too weak, since more cells hardly would")
    return f"What would help: {'; '.join(advice)}." if advice else "Nothing more is needed to train and to judge."


def _named(rows: pd.DataFrame, groups: pd.DataFrame) -> str:
    """Name responses, those of a perturbation in all its contexts as one."""
    everywhere = groups.groupby(level="perturbation").size()
    if groups.index.get_level_values("context").nunique() == 1:
        return some(rows.index.get_level_values("perturbation"))
    names = []
    for what, part in rows.groupby(level="perturbation", sort=False):
        where = list(part.index.get_level_values("context"))
        if len(where) > 1 and len(where) == everywhere[str(what)]:
            names.append(f"{what} in all {len(where)} contexts")
        else:
            names += [f"{what} in {context}" for context in where]
    return some(names)
