"""From what a model answers to the cells a user gets: checks before, names, intervals and counts after."""

import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from multipert.data import PerturbationFeatures
from multipert.data.alignment import AlignedCells, read_aligned
from multipert.data.scored_cells import values_of
from multipert.errors import InputError, InputWarning
from multipert.models.base import Answer, Model, Question
from multipert.models.cells import keep
from multipert.models.counts import to_counts
from multipert.models.described import asked
from multipert.models.pilot import read_pilot


def predict(
    model: Model,
    controls: AnnData | str | Path,
    perturbation: str | Sequence[str],
    *,
    features: PerturbationFeatures | None,
    missing_genes: str,
    pilot: AnnData | str | Path | None,
    intervals: float | None,
    counts: bool,
    cells: str,
) -> AnnData:
    """What :meth:`Model.predict` gives back."""
    model, names = asked(model, perturbation, features)
    metadata = model.metadata_
    if intervals is not None and not 0 < intervals < 1:
        raise InputError(f"intervals is a probability between 0 and 1, such as 0.9, not {intervals!r}")
    if cells not in ("model", "keep"):
        raise InputError(f"cells takes 'model' or 'keep', not {cells!r}")
    given = read_aligned(controls, metadata.space, metadata.keys, missing_genes=missing_genes, controls_only=True)
    if counts and given.counts is None:
        raise InputError(
            "counts need the control cells' own: give raw counts as X, or log-normalised cells with the layer of "
            "counts that training named (counts_layer)"
        )
    told: Mapping[str, csr_matrix | None] = dict.fromkeys(names)
    if pilot is not None:
        _check_one_context(given.context)
        labels = {name: metadata.labels[name] for name in names}
        told = read_pilot(pilot, metadata.space, metadata.keys, labels, missing_genes=missing_genes)

    X, answers = np.empty((len(names), *given.X.shape), dtype=np.float32), []
    for under, name in zip(X, names, strict=True):
        condition = metadata.conditions.index(name)
        question = Question(given.X, given.context, given.contexts, condition, told[name], intervals)
        answers.append(model._answer(question))
        np.maximum(answers[-1].cells, 0, out=under)
        if cells == "keep":
            rng = np.random.default_rng((model.seed, condition))
            for group in np.unique(given.context):
                of = given.context == group
                under[of] = keep(given.X[of], under[of].mean(axis=0, dtype=np.float64), rng)

    notes = list(dict.fromkeys(note for answer in answers for note in answer.notes))
    if model.left_out_ is not None and model.left_out_.lost:
        notes.insert(0, str(model.left_out_))
    if notes:
        more = f" (and {len(notes) - 1} notes more in uns['multipert']['warnings'])" if len(notes) > 1 else ""
        warnings.warn(notes[0] + more, InputWarning, stacklevel=3)
    predicted = AnnData(
        X.reshape(-1, X.shape[-1]),
        obs=_obs(given.obs, names, metadata.labels, renamed=not isinstance(perturbation, str) or len(names) > 1),
        var=pd.DataFrame(index=pd.Index(metadata.genes)),
        uns={"multipert": _provenance(model, given, names, notes) | {"cells": cells, "values": values_of(X)}},
    )
    if intervals is not None:
        predicted.uns["multipert"]["intervals"] = intervals
        _add_intervals(predicted, names, answers, given)
    if counts and given.counts is not None:
        sizes = np.tile(np.asarray(given.counts.sum(axis=1), dtype=np.float64).ravel(), len(names))
        predicted.layers["counts"] = to_counts(predicted.X, sizes, np.random.default_rng(model.seed))
    return predicted


def _check_one_context(context: npt.NDArray[np.int64]) -> None:
    several = len(np.unique(context))
    if several > 1:
        raise InputError(f"a pilot tells of one context, and the control cells are of {several}: predict one at a time")


def _obs(
    controls: pd.DataFrame, names: Sequence[str], labels: Mapping[str, Mapping[str, object]], *, renamed: bool
) -> pd.DataFrame:
    """The table of control cells, once for each perturbation, labelled with it."""
    n_cells = len(controls)
    obs = controls.iloc[np.tile(np.arange(n_cells), len(names))]
    if renamed:
        obs = obs.set_axis([f"{cell}-{name}" for name in names for cell in controls.index])
    for column in labels[names[0]]:
        labelled = np.repeat([labels[name][column] for name in names], n_cells)
        obs = obs.assign(**{column: pd.Categorical(labelled) if labelled.dtype.kind == "U" else labelled})
    return obs


def _provenance(model: Model, cells: AlignedCells, names: Sequence[str], notes: Sequence[str]) -> dict[str, Any]:
    """What a prediction keeps of how it was made, in types that h5ad and zarr can hold."""
    return {
        "model": repr(model),
        "version": importlib.metadata.version("multipert"),
        "data_fingerprint": model.metadata_.fingerprint,
        "held_out": model.metadata_.rule.label or "",
        "left_out": says_of_left_out(model),
        "perturbations": np.array(names, dtype=object),
        "genes_filled": np.array(cells.filled, dtype=object),
        "scale": cells.scale,
        "warnings": np.array([*cells.notes, *notes], dtype=object),
    }


def says_of_left_out(model: Model) -> str:
    """How the model did on what its run left out, or that this is not known."""
    if model.left_out_ is not None:
        return str(model.left_out_)
    why = "nothing was left out of training" if model.metadata_.rule.label is None else "its run was not scored"
    return f"how far this model is right about a new context is not known: {why}"


def _add_intervals(predicted: AnnData, names: Sequence[str], answers: Sequence[Answer], given: AlignedCells) -> None:
    """Put the ends of intervals into ``varm``: a column for each perturbation, and for each of several contexts."""
    columns = list(names)
    if len(np.unique(given.context)) > 1:
        columns = [f"{name}, {given.contexts[group]}" for name in names for group in np.unique(given.context)]
    ends = np.concatenate([answer.intervals for answer in answers if answer.intervals is not None])
    for end, name in enumerate(("mean_low", "mean_high")):
        predicted.varm[name] = pd.DataFrame(ends[:, :, end].T, index=predicted.var_names, columns=columns)
