"""What a data set can tell before anything is trained: which responses are there, which carry over, what is amiss.

For each perturbation in each context: is the response reproducible, and do other contexts show it? A response that one
half of the cells does not find again in the other half cannot be predicted, nor could anyone see that it was. One that
no other context shows cannot be learnt from other contexts.

All responses are differences of mean log-normalised expression from the control cells of the same context. Where two
are compared, each has control cells of its own: shared ones would put their sampling noise on both sides and feign
agreement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from multipert.data import Keys, PerturbationData, read_cells
from multipert.data.expression import Floats, Matrix
from multipert.errors import InputError
from multipert.evaluation.calibration import calibrate_comparisons, summarise
from multipert.evaluation.populations import Comparison, Population
from multipert.evaluation.ranking import significant, wilcoxon_scores
from multipert.evaluation.registry import choose

if TYPE_CHECKING:
    from anndata import AnnData

Status = Literal["can be predicted", "differs by context", "too weak", "too little data"]

SPLITS = 10
"""How often cells are halved."""

REPRODUCIBLE = 0.3
"""Correlation of the response in two halves from which it counts as reproducible."""

SHARED = 0.3
"""Correlation with the mean response of other contexts from which that counts as telling something."""

LEAST_CELLS = 20
"""Fewest perturbed, and fewest control, cells of which a response is read."""

AFFORDABLE = 5.0
"""How many times the cells may be needed before a response counts as too weak rather than too little measured."""

CALIBRATED = 40
"""Most responses on which the metrics are tried."""

_DEPTHS = ("total_counts", "n_counts", "nCount_RNA", "n_umi", "nUMI", "ncounts", "depth")
_DEPTH_APART = 1.5
_MOST_LEVELS = 50
_OVERLAP = 0.5
_SEPARATED = 3.0
_MISLABELLED = 0.02


@dataclass(frozen=True)
class Finding:
    """Something amiss in the data.

    Attributes
    ----------
    severity
        ``"error"`` (results would be wrong), ``"warning"`` (results would mislead) or ``"note"``.
    what
        One sentence: what, where and how much.
    remedy
        What to do about it.
    """

    severity: Literal["error", "warning", "note"]
    what: str
    remedy: str


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
    *,
    perturbation_key: str | None = None,
    control: str | None = None,
    context_key: str | Sequence[str] | None = None,
    dose_key: str | None = None,
    compound: str | None = None,
    covariate_key: str | Sequence[str] | None = None,
    layer: str | None = None,
    name: str | None = None,
    seed: int = 0,
) -> DataCheck:
    """Find out what a data set can tell before anything is trained.

    Parameters
    ----------
    data
        The cells: checked ones, or an AnnData or the path of a file, with the keys.
    perturbation_key, control, context_key, dose_key, compound, covariate_key, layer
        As for ``PerturbationData.from_anndata``; not for ``PerturbationData``, which has them.
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
        As ``PerturbationData.from_anndata``.
    """
    chosen: list[Finding] = []
    if not isinstance(data, PerturbationData):
        if context_key is None:
            raise InputError("nothing says what the contexts are: give context_key, the column of obs that names them")
        path = None if not isinstance(data, str | Path) else Path(data)
        name = name or (path.stem if path else None)
        adata = read_cells(path) if path is not None else data
        chosen = list(_chosen_genes(adata))
        keys = Keys(
            perturbation_key=perturbation_key,
            control=control,
            context_key=context_key,
            dose_key=dose_key,
            compound=compound,
            covariate_key=covariate_key,
            layer=layer,
        )
        data = PerturbationData.read(adata, keys)
    responses = _Responses(data, seed)
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
        findings=_findings(data, groups, similarity, chosen),
        verdict=_verdict(groups),
    )


def each_response(table: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.Series[Any]]]:
    """Go through a table of responses: (context, perturbation) and its row."""
    return cast("Iterator[tuple[tuple[str, str], pd.Series[Any]]]", table.iterrows())


class _Responses:
    """The response to each perturbation in each context, whole and in halves.

    Attributes
    ----------
    mean
        (context, perturbation) -> mean response of each gene.
    signal, noise
        (context, perturbation) -> squared length of the response, noise taken off; expected squared length of noise.
    agreement
        (context, perturbation) -> correlation of the responses of two halves, mean of the splits.
    """

    def __init__(self, data: PerturbationData, seed: int) -> None:
        self.data = data
        self.mean: dict[tuple[str, str], Floats] = {}
        self.signal: dict[tuple[str, str], float] = {}
        self.noise: dict[tuple[str, str], float] = {}
        self.agreement: dict[tuple[str, str], float] = {}
        self.genes: dict[tuple[str, str], int] = {}
        rng = np.random.default_rng(seed)
        for context in data.contexts:
            controls = data.X[data.rows(condition=data.control, context=context)]
            if controls.shape[0] < 2:
                continue
            control, halves = Population(controls), _half_means(controls, rng)
            for perturbation in data.perturbations:
                cells = data.X[data.rows(condition=perturbation, context=context)]
                if cells.shape[0] < 2:
                    continue
                place, perturbed = (context, perturbation), Population(cells)
                self.mean[place] = perturbed.mean - control.mean
                noise = perturbed.variance.sum() / perturbed.n_cells + control.variance.sum() / control.n_cells
                self.noise[place] = float(noise)
                self.signal[place] = float(self.mean[place] @ self.mean[place] - noise)
                first, second = _half_means(cells, rng) - halves
                self.agreement[place] = float(
                    np.mean([_correlation(*pair) for pair in zip(first, second, strict=True)])
                )
                self.genes[place] = int(significant(wilcoxon_scores(cells, controls)).sum())

    def others(self, context: str, perturbation: str) -> Floats | None:
        """Mean response to a perturbation in all other contexts; none where it was measured in no other."""
        found = [mean for (where, what), mean in self.mean.items() if what == perturbation and where != context]
        return np.mean(found, axis=0) if found else None

    def shared(self, perturbation: str) -> float:
        """Mean inner product of responses of two contexts over the mean squared length within one."""
        places = [place for place in self.mean if place[1] == perturbation]
        if len(places) < 2:
            return np.nan
        stacked = np.stack([self.mean[place] for place in places])
        products = stacked @ stacked.T
        between = (products.sum() - np.trace(products)) / (len(places) * (len(places) - 1))
        within = float(np.mean([self.signal[place] for place in places]))
        spread = float(np.mean([self.noise[place] for place in places]))
        return float(between / within) if within > 0.1 * spread else np.nan

    def similarity(self) -> pd.DataFrame:
        """Cosine of responses between contexts, over the perturbations that both have, noise taken off."""
        contexts = self.data.contexts
        table = pd.DataFrame(np.nan, index=list(contexts), columns=list(contexts))
        for a in contexts:
            for b in contexts:
                both = [what for where, what in self.mean if where == a and (b, what) in self.mean]
                size_a, size_b = (sum(self.signal[where, what] for what in both) for where in (a, b))
                noise_a, noise_b = (sum(self.noise[where, what] for what in both) for where in (a, b))
                if a == b:
                    table.loc[a, b] = 1.0
                elif both and size_a > 0.1 * noise_a and size_b > 0.1 * noise_b:
                    product = sum(float(self.mean[a, what] @ self.mean[b, what]) for what in both)
                    table.loc[a, b] = float(np.clip(product / np.sqrt(size_a * size_b), -1, 1))
        return table


def _half_means(cells: Matrix, rng: np.random.Generator) -> Floats:
    """Means of two halves in each split, shape (2, splits, genes)."""
    n = cells.shape[0]
    weights = np.zeros((2, SPLITS, n))
    for split in range(SPLITS):
        first, second = np.array_split(rng.permutation(n), 2)
        weights[0, split, first], weights[1, split, second] = 1 / len(first), 1 / len(second)
    means: Floats = (cells.T @ weights.reshape(-1, n).T).T.reshape(2, SPLITS, -1)
    return means


def _correlation(first: Floats, second: Floats) -> float:
    a, b = first - first.mean(), second - second.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else 0.0


def _groups(data: PerturbationData, responses: _Responses) -> pd.DataFrame:
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
                np.nan if others is None or place not in responses.mean else _correlation(responses.mean[place], others)
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


def _perturbations(groups: pd.DataFrame, responses: _Responses) -> pd.DataFrame:
    by_name = groups.groupby(level="perturbation", sort=False)
    found = groups["status"].isin(["can be predicted", "differs by context"])
    return pd.DataFrame(
        {
            "contexts": by_name.size(),
            "reproducible": found.groupby(level="perturbation", sort=False).sum(),
            "shared": {name: responses.shared(str(name)) for name in by_name.groups},
        }
    )


def _findings(
    data: PerturbationData, groups: pd.DataFrame, similarity: pd.DataFrame, chosen: Sequence[Finding]
) -> tuple[Finding, ...]:
    found = [
        *chosen,
        *_small_groups(data, groups),
        *_repeated_cells(data),
        *_confounded(data),
        *_depth_apart(groups),
        *_swapped(groups, similarity),
        *_mislabelled(data, groups),
    ]
    order = ("error", "warning", "note")
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def _small_groups(data: PerturbationData, groups: pd.DataFrame) -> Iterable[Finding]:
    """Contexts without controls, and groups of a few cells."""
    for context in data.contexts:
        n = len(data.rows(condition=data.control, context=context))
        if n < LEAST_CELLS:
            yield Finding(
                "error" if n == 0 else "warning",
                f"{context} has {n} control cells.",
                "Its responses cannot be read: measure controls there, or leave the context out.",
            )
    few = groups[groups["cells"] < LEAST_CELLS]
    if len(few):
        sizes = [f"{what} in {where} ({row['cells']})" for (where, what), row in each_response(few)]
        yield Finding(
            "warning",
            f"{len(few)} of {len(groups)} groups hold fewer than {LEAST_CELLS} cells: {_some(sizes)}.",
            "Do not hold them out and read no score of them.",
        )


def _chosen_genes(adata: AnnData) -> Iterable[Finding]:
    """Genes chosen by their variance among all cells, as far as scanpy's marks in the file tell."""
    if "hvg" in adata.uns or "highly_variable" in adata.var:
        yield Finding(
            "note",
            f"The {adata.n_vars:,} genes were chosen by their variance (scanpy's highly_variable_genes), as far as the "
            "file says on all cells.",
            "Whatever is held out then had a say in it: choose genes without it (multipert preprocess --hold-out).",
        )


def _repeated_cells(data: PerturbationData) -> Iterable[Finding]:
    """The same cell twice, by its expression and by its name."""
    digests = np.array(
        [
            hashlib.blake2b(
                data.X.indices[start:end].tobytes() + data.X.data[start:end].tobytes(), digest_size=8
            ).hexdigest()
            for start, end in zip(data.X.indptr[:-1], data.X.indptr[1:], strict=True)
        ]
    )
    table = pd.DataFrame({"cell": digests, "group": data.context * len(data.conditions) + data.condition})
    table = table[np.diff(data.X.indptr) > 0]
    repeated = table[table.duplicated("cell", keep=False)]
    if len(repeated):
        across = int((repeated.groupby("cell")["group"].nunique() > 1).sum())
        copies = len(repeated) - repeated["cell"].nunique()
        yield Finding(
            "error",
            f"{copies} cells are copies of another cell"
            + (f", {across} of them under another label." if across else "."),
            "Drop the copies before splitting: a held-out cell would be seen in training.",
        )
    names = data.cells[data.cells.duplicated()]
    if len(names):
        yield Finding(
            "note",
            f"{len(names)} names of cells occur more than once ({_some(map(str, names.unique()))}).",
            "Make them unique (adata.obs_names_make_unique()), or predicted cells cannot be traced to controls.",
        )


def _confounded(data: PerturbationData) -> Iterable[Finding]:
    """Columns of ``obs`` (batch, donor, sample) whose levels hold perturbed or control cells but not both."""
    keys = {data.keys.perturbation_key, data.keys.context_key, data.keys.dose_key}
    for column in data.obs.columns:
        values = data.obs[column]
        if column in keys or pd.api.types.is_float_dtype(values) or not 2 <= values.nunique() <= _MOST_LEVELS:
            continue
        levels = values.astype(str).to_numpy()
        if _renames(levels, data):
            continue
        apart = []
        for context in data.contexts:
            controls = levels[data.rows(condition=data.control, context=context)]
            for perturbation in data.perturbations:
                cells = levels[data.rows(condition=perturbation, context=context)]
                if len(cells) and len(controls) and np.isin(cells, np.unique(controls)).mean() < _OVERLAP:
                    apart.append(f"{perturbation} in {context}")
        if apart:
            yield Finding(
                "warning",
                f"Perturbation is confounded with {column!r}: most perturbed cells have no control of the same "
                f"{column} ({_some(apart)}).",
                f"The response cannot be told from a difference between levels of {column}: use controls of the same "
                f"{column}, or treat what is predicted as both.",
            )


def _renames(levels: NDArray[np.object_], data: PerturbationData) -> bool:
    """Whether a column is another name for the condition (a guide, a treatment) and not a circumstance."""
    table = pd.DataFrame({"level": levels, "condition": data.condition}).drop_duplicates()
    return not table.duplicated("level").any()


def _depth_apart(groups: pd.DataFrame) -> Iterable[Finding]:
    ratio = groups["depth_ratio"]
    apart = groups[(ratio > _DEPTH_APART) | (ratio < 1 / _DEPTH_APART)]
    if len(apart):
        ratios = [f"{what} in {where} ({row['depth_ratio']:.2g} x)" for (where, what), row in each_response(apart)]
        yield Finding(
            "warning",
            f"Perturbed and control cells differ in depth by more than {_DEPTH_APART:g} times in {len(apart)} groups: "
            f"{_some(ratios)}.",
            "Rare genes then differ by depth alone: thin the counts to one depth, or read weak responses with doubt.",
        )


def _swapped(groups: pd.DataFrame, similarity: pd.DataFrame) -> Iterable[Finding]:
    """A context whose responses point the opposite way: its labels may be exchanged."""
    for context in similarity.index:
        others = similarity.loc[context].drop(context).dropna()
        if len(others) and others.max() < -0.3:
            yield Finding(
                "error",
                f"Responses in {context} point the opposite way to those of other contexts "
                f"(cosine {others.max():.2f} at most).",
                "Perturbed and control may be exchanged there: check its labels.",
            )


def _mislabelled(data: PerturbationData, groups: pd.DataFrame) -> Iterable[Finding]:
    """Control cells that look perturbed and perturbed cells that look like controls, where the two are far apart."""
    rng = np.random.default_rng(0)
    like_perturbed: dict[str, float] = {}
    like_control: dict[str, float] = {}
    for (context, perturbation), row in each_response(groups):
        if min(row["cells"], row["controls"]) < LEAST_CELLS or not row["reproducibility"] >= REPRODUCIBLE:
            continue
        controls = data.X[data.rows(condition=data.control, context=context)]
        cells = data.X[data.rows(condition=perturbation, context=context)]
        placed_controls, placed_cells = _placed(controls, cells, rng)
        middle, far = np.median(placed_controls), np.median(placed_cells)
        spread = 1.4826 * max(
            np.median(np.abs(placed - np.median(placed))) for placed in (placed_controls, placed_cells)
        )
        if far - middle < _SEPARATED * spread:
            continue
        share = float(np.mean(placed_controls > far - spread))
        if share > _MISLABELLED and share * len(placed_controls) >= 3:
            like_perturbed[f"{context} ({perturbation})"] = share
        share = float(np.mean(placed_cells < middle + spread))
        if share > _MISLABELLED and share * len(placed_cells) >= 3:
            like_control[f"{perturbation} in {context}"] = share
    if like_perturbed:
        yield Finding(
            "warning",
            f"Control cells that look perturbed: {_some(_shares(like_perturbed))}.",
            "They may carry the wrong label: check it, for they dilute what every model learns.",
        )
    if like_control:
        yield Finding(
            "note",
            f"Perturbed cells that look like controls: {_some(_shares(like_control))}.",
            "They may have escaped the perturbation or carry the wrong label.",
        )


def _placed(controls: Matrix, cells: Matrix, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Where each cell lies along the response; the direction is that of the half that the cell is not in."""
    halves = [np.array_split(rng.permutation(part.shape[0]), 2) for part in (controls, cells)]
    placed = [np.empty(part.shape[0]) for part in (controls, cells)]
    for this, other in ((0, 1), (1, 0)):
        middle = np.asarray(controls[halves[0][other]].mean(axis=0)).ravel()
        response = np.asarray(cells[halves[1][other]].mean(axis=0)).ravel() - middle
        response /= max(float(response @ response), 1e-300)
        for place, part in enumerate((controls, cells)):
            rows = halves[place][this]
            placed[place][rows] = part[rows] @ response - middle @ response
    return placed[0], placed[1]


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
            f"a pilot in the very context to be predicted, as {_some(contexts)} may answer in a way of its own"
        )
    if len(weak):
        advice.append("a stronger dose or perturbation where the response is too weak, since more cells hardly would")
    return f"What would help: {'; '.join(advice)}." if advice else "Nothing more is needed to train and to judge."


def _named(rows: pd.DataFrame, groups: pd.DataFrame) -> str:
    """Name responses, those of a perturbation in all its contexts as one."""
    everywhere = groups.groupby(level="perturbation").size()
    if groups.index.get_level_values("context").nunique() == 1:
        return _some(rows.index.get_level_values("perturbation"))
    names = []
    for what, part in rows.groupby(level="perturbation", sort=False):
        where = list(part.index.get_level_values("context"))
        if len(where) > 1 and len(where) == everywhere[str(what)]:
            names.append(f"{what} in all {len(where)} contexts")
        else:
            names += [f"{what} in {context}" for context in where]
    return _some(names)


def _shares(found: Mapping[str, float]) -> Sequence[str]:
    return [f"{where}: {share:.0%}" for where, share in sorted(found.items(), key=lambda item: -item[1])]


def _some(names: Iterable[str], most: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
