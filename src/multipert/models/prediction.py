"""From what a model answers to the cells a user gets: checks before, names, intervals and counts after."""

import importlib.metadata
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from multipert.data import PerturbationFeatures, read_cells, write_cells
from multipert.data.alignment import AlignedCells, read_aligned
from multipert.data.block_writer import write_in_blocks
from multipert.data.on_disk import MatrixOnDisk, is_much
from multipert.data.scored_cells import values_of
from multipert.errors import InputError, InputWarning
from multipert.models.base import Model
from multipert.models.cells import keep
from multipert.models.counts import to_counts
from multipert.models.described import asked
from multipert.models.pilot import read_pilot
from multipert.models.questions import Answer, Question

_FEWEST, _VALUES = 4_000, 16_000_000
"""Control cells that are predicted at a time where they are on disk, at least; and (cells x genes) values, at most."""

_FIGURE = re.compile(r"\d+(\.\d+)?")

Rows = npt.NDArray[np.int64]
_Block = tuple[csr_matrix, ...]
Floats = npt.NDArray[np.float32]


@dataclass(eq=False)
class _Request:
    """What is asked of a model, checked; and what came up while it was answered."""

    model: Model
    names: Sequence[str]
    given: AlignedCells
    told: Mapping[str, csr_matrix | None]
    intervals: float | None
    counts: bool
    cells: str
    renamed: bool
    notes: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Model,
        controls: AnnData | str | Path,
        perturbation: str | Sequence[str],
        *,
        features: PerturbationFeatures | None = None,
        missing_genes: str = "error",
        pilot: AnnData | str | Path | None = None,
        intervals: float | None = None,
        counts: bool = False,
        cells: str = "model",
        on_disk: bool | None = False,
    ) -> Self:
        model, names = asked(model, perturbation, features)
        space, keys, labels = model.metadata_.space, model.metadata_.keys, model.metadata_.labels
        if intervals is not None and not 0 < intervals < 1:
            raise InputError(f"intervals is a probability between 0 and 1, such as 0.9, not {intervals!r}")
        if cells not in ("model", "keep"):
            raise InputError(f"cells takes 'model' or 'keep', not {cells!r}")
        given = read_aligned(controls, space, keys, missing_genes=missing_genes, controls_only=True, on_disk=on_disk)
        if counts and given.counts is None:
            raise InputError(
                "counts need the control cells' own: give raw counts as X, or log-normalised cells with the layer of "
                "counts that training named (counts_layer)"
            )
        told: Mapping[str, csr_matrix | None] = dict.fromkeys(names)
        if pilot is not None:
            _check_one_context(given.context)
            told = read_pilot(pilot, space, keys, {name: labels[name] for name in names}, missing_genes=missing_genes)
        renamed = not isinstance(perturbation, str) or len(names) > 1
        return cls(model, names, given, told, intervals, counts, cells, renamed)

    @property
    def is_large(self) -> bool:
        """Whether the control cells are on disk, or the predicted ones would take up much of the memory."""
        n_values = len(self.names) * self.given.X.shape[0] * self.given.X.shape[1]
        return isinstance(self.given.X, MatrixOnDisk) or is_much(n_values)

    def answer(self, name: str, rows: Rows | None = None) -> tuple[Answer, Floats]:
        """What the model says of all control cells, or those at ``rows``, and the cells that they become."""
        given, condition = self.given, self.model.metadata_.conditions.index(name)
        X, context = (given.X[:], given.context) if rows is None else (given.X[rows], given.context[rows])
        answer = self.model._answer(Question(X, context, given.contexts, condition, self.told[name], self.intervals))
        predicted = np.maximum(answer.cells, 0, dtype=np.float32)
        if self.cells == "keep":
            rng = np.random.default_rng((self.model.seed, condition))
            for group in np.unique(context):
                of = context == group
                predicted[of] = keep(X[of], predicted[of].mean(axis=0, dtype=np.float64), rng)
        for note in answer.notes:  # of a perturbation once, and not of every part with another figure
            self.notes.setdefault((name, _FIGURE.sub("", note)), note)
        return answer, predicted

    def whole_counts(self, predicted: Floats, rng: np.random.Generator, rows: Rows | None = None) -> csr_matrix:
        """Counts of predicted cells, in each as many as in its control cell."""
        assert self.given.counts is not None
        given = self.given.counts[:] if rows is None else self.given.counts[rows]
        sizes = np.asarray(given.sum(axis=1), dtype=np.float64).ravel()
        return to_counts(predicted, np.tile(sizes, len(predicted) // max(1, len(sizes))), rng)

    @property
    def obs(self) -> pd.DataFrame:
        """The table of the predicted cells."""
        return _obs(self.given.obs, self.names, self.model.metadata_.labels, renamed=self.renamed)

    def uns(self, values: Mapping[str, float]) -> dict[str, Any]:
        """What the predicted cells keep of how they were made; warns of what there is to know."""
        notes = list(dict.fromkeys(self.notes.values()))
        if self.model.left_out_ is not None and self.model.left_out_.lost:
            notes.insert(0, str(self.model.left_out_))
        if notes:
            more = f" (and {len(notes) - 1} notes more in uns['multipert']['warnings'])" if len(notes) > 1 else ""
            warnings.warn(notes[0] + more, InputWarning, stacklevel=4)
        return _provenance(self.model, self.given, self.names, notes) | {"cells": self.cells, "values": dict(values)}


def predict(model: Model, controls: AnnData | str | Path, perturbation: str | Sequence[str], **options: Any) -> AnnData:
    """What :meth:`Model.predict` gives back."""
    return _in_memory(_Request.of(model, controls, perturbation, **options))


def predict_to(
    out: str | Path,
    model: Model,
    controls: AnnData | str | Path,
    perturbation: str | Sequence[str],
    *,
    run: str | Path | None,
    on_disk: bool | None,
    **options: Any,
) -> tuple[int, dict[str, Any]]:
    """What :meth:`Model.predict_to` does."""
    request = _Request.of(model, controls, perturbation, on_disk=on_disk, **options)
    noted = {} if run is None else {"run": str(Path(run).resolve())}
    if on_disk is False or not (on_disk or request.is_large):
        predicted = _in_memory(request)
        predicted.uns["multipert"] |= noted
        write_cells(predicted, out)
        return predicted.n_obs, predicted.uns["multipert"]
    if request.intervals is not None:
        raise InputError(
            "intervals are of all cells of a context together, and these are predicted in parts: give fewer control "
            "cells (--in-memory), or leave --intervals out"
        )
    return _in_parts(request, Path(out), noted)


def _in_memory(request: _Request) -> AnnData:
    names, given, seed = request.names, request.given, request.model.seed
    X, answers = np.empty((len(names), *given.X.shape), dtype=np.float32), []
    for under, name in zip(X, names, strict=True):
        answer, under[:] = request.answer(name)
        answers.append(answer)
    predicted = AnnData(
        X.reshape(-1, X.shape[-1]),
        obs=request.obs,
        var=pd.DataFrame(index=pd.Index(request.model.metadata_.genes)),
        uns={"multipert": request.uns(values_of(X))},
    )
    if request.intervals is not None:
        predicted.uns["multipert"]["intervals"] = request.intervals
        _add_intervals(predicted, names, answers, given)
    if request.counts:
        predicted.layers["counts"] = request.whole_counts(predicted.X, np.random.default_rng(seed))
    return predicted


def _in_parts(request: _Request, out: Path, noted: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    genes = request.model.metadata_.genes
    parts = _parts(request.given.context, max(_FEWEST, _VALUES // len(genes)))
    order, rng = np.concatenate(parts), np.random.default_rng(request.model.seed)
    sums, largest, layers = 0.0, 0.0, ["counts"] if request.counts else []
    with write_in_blocks(out, len(genes), layers) as writer:
        for name in request.names:
            blocks = _blocks(request, name, parts, rng)
            if (np.diff(order) < 0).any():
                blocks = _reordered(blocks, np.argsort(order), out, len(genes), layers)
            for block in blocks:
                writer.append(*block)
                sums += block[0].sum(dtype=np.float64)
                largest = max(largest, float(block[0].max()))
        obs = request.obs
        made = request.uns({"sum": sums / len(obs), "largest": largest}) | dict(noted)
        writer.finish(obs, pd.DataFrame(index=pd.Index(genes)), {"multipert": made})
    return len(obs), made


def _parts(context: Rows, most: int) -> list[Rows]:
    """Rows of control cells that are predicted together: a context's in equal parts, of small contexts several."""
    parts: list[Rows] = []
    for group in pd.unique(context):
        of = np.flatnonzero(context == group)
        if parts and len(parts[-1]) + len(of) <= most:
            parts[-1] = np.concatenate([parts[-1], of])
        else:
            parts += np.array_split(of, -(-len(of) // most))
    return [np.sort(part) for part in parts]


def _blocks(request: _Request, name: str, parts: Sequence[Rows], rng: np.random.Generator) -> Iterator[_Block]:
    """Predicted cells, and their counts if these are wanted, part by part."""
    for rows in parts:
        _, predicted = request.answer(name, rows)
        counts = [request.whole_counts(predicted, rng, rows)] if request.counts else []
        yield csr_matrix(predicted), *counts


def _reordered(
    blocks: Iterable[_Block], order: Rows, out: Path, n_genes: int, layers: Sequence[str]
) -> Iterator[_Block]:
    """The same cells in another order, by way of a file beside the one that is written."""
    with TemporaryDirectory(prefix=".", dir=out.parent) as folder:
        path, most = Path(folder) / "parts.h5ad", 0
        with write_in_blocks(path, n_genes, layers) as writer:
            for block in blocks:
                writer.append(*block)
                most = max(most, block[0].shape[0])
            index = pd.RangeIndex(len(order)).astype(str)
            writer.finish(pd.DataFrame(index=index), pd.DataFrame(index=pd.RangeIndex(n_genes).astype(str)), {})
        cells = read_cells(path, on_disk=True)
        matrices = [MatrixOnDisk(matrix.group) for matrix in (cells.X, *(cells.layers[name] for name in layers))]
        for start in range(0, len(order), most):
            yield tuple(matrix[order[start : start + most]] for matrix in matrices)


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
