"""What is amiss in a data set: too few cells, copies, confounded batches, depths apart, labels that may be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from multipert.data import PerturbationData
from multipert.data.expression import Floats, Matrix
from multipert.data.suggestions import some
from multipert.evaluation.responses import LEAST_CELLS, REPRODUCIBLE, each_response

if TYPE_CHECKING:
    from anndata import AnnData

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


def find_faults(
    data: PerturbationData, groups: pd.DataFrame, similarity: pd.DataFrame, chosen: Iterable[Finding]
) -> tuple[Finding, ...]:
    """Look for all of them.

    Parameters
    ----------
    data
        The cells.
    groups, similarity
        As ``DataCheck`` has them.
    chosen
        What was found before the cells were read.

    Returns
    -------
    tuple of Finding
        Worst first.
    """
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
            f"{len(few)} of {len(groups)} groups hold fewer than {LEAST_CELLS} cells: {some(sizes)}.",
            "Do not hold them out and read no score of them.",
        )


def chosen_genes(adata: AnnData) -> Iterable[Finding]:
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
            f"{len(names)} names of cells occur more than once ({some(map(str, names.unique()))}).",
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
                f"{column} ({some(apart)}).",
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
            f"{some(ratios)}.",
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
            f"Control cells that look perturbed: {some(_shares(like_perturbed))}.",
            "They may carry the wrong label: check it, for they dilute what every model learns.",
        )
    if like_control:
        yield Finding(
            "note",
            f"Perturbed cells that look like controls: {some(_shares(like_control))}.",
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


def _shares(found: Mapping[str, float]) -> Sequence[str]:
    return [f"{where}: {share:.0%}" for where, share in sorted(found.items(), key=lambda item: -item[1])]
