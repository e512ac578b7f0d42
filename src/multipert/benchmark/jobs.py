"""The pieces of work a study is made of: each knows what determines it, and gives one record."""

import resource
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

import multipert
from multipert.benchmark.cells import prepare
from multipert.benchmark.held_out import HeldOutCells
from multipert.benchmark.records import (
    CELLS_KEPT,
    Expression,
    Means,
    Overview,
    Record,
    Reference,
    TrialResult,
    digest,
)
from multipert.benchmark.results import as_scores
from multipert.benchmark.study import StudyDataset, StudyModel
from multipert.data import PerturbationData, leave_context_out
from multipert.evaluation import bounds, evaluate_many
from multipert.models import Model, create, fit_together

CURVE_ROWS = 100
"""Rows of a training curve that are kept."""

MAP_CELLS = 2000
"""Cells on the map of a data set."""

DrawnGenes = Mapping[str, Sequence[str]]
"""By perturbation, the genes whose expression is kept to be drawn."""


@dataclass(frozen=True)
class Job(ABC):
    """A piece of work.

    Attributes
    ----------
    dataset
        What it works on.
    content
        Stands for the data set's cells.
    genes
        By perturbation, the genes to be drawn.
    """

    dataset: StudyDataset
    content: str
    genes: DrawnGenes = field(repr=False)

    folder: ClassVar[str]
    record: ClassVar[type[Record]]

    @abstractmethod
    def run(self) -> Record:
        """Do it."""

    def identity(self) -> dict[str, Any]:
        """All that determines the record."""
        return {
            "multipert": multipert.__version__,
            "dataset": self.dataset.name,
            "content": self.content,
            "keys": asdict(self.dataset.keys),
            "preprocessing": self.dataset.preprocessing,
            "genes": self.genes,
        }

    @property
    def file(self) -> str:
        """Where the record lies in the benchmark directory."""
        return f"{self.folder}/{digest(self.identity())}.json"


@dataclass(frozen=True)
class OverviewJob(Job):
    """Count the cells of a data set, and map them."""

    folder: ClassVar[str] = "overviews"
    record: ClassVar[type[Record]] = Overview

    def run(self) -> Overview:
        """Count and map."""
        data = prepare(self.dataset, self.content, None)
        counts = {
            context: {condition: len(data.rows(condition=condition, context=context)) for condition in data.conditions}
            for context in data.contexts
        }
        return Overview(self.dataset.name, counts, self.genes, _map(data))


@dataclass(frozen=True)
class HeldOutJob(Job):
    """A piece of work on one held-out context.

    Attributes
    ----------
    held_out
        The context.
    perturbations, metrics
        What is scored, and by what.
    """

    held_out: str
    perturbations: Sequence[str]
    metrics: Sequence[str]

    def identity(self) -> dict[str, Any]:
        """All that determines the record."""
        return super().identity() | {
            "held_out": self.held_out,
            "perturbations": self.perturbations,
            "metrics": self.metrics,
        }

    def data(self) -> PerturbationData:
        """All cells."""
        return prepare(self.dataset, self.content, self.held_out)

    def cells(self) -> HeldOutCells:
        """The cells of the context."""
        return HeldOutCells.of(self.data(), self.held_out, self.perturbations)


@dataclass(frozen=True)
class ReferenceJob(HeldOutJob):
    """Measure what a held-out context itself says: floor, ceiling, true expression."""

    folder: ClassVar[str] = "references"
    record: ClassVar[type[Record]] = Reference

    def run(self) -> Reference:
        """Score halves of the true cells against each other, and control cells against them."""
        cells, control = self.cells(), self.data().control
        table = bounds(control=cells.control, truth=cells.truth, metrics=self.metrics)
        by_condition = {control: cells.control, **cells.truth}
        drawn = {**self.genes, control: list(dict.fromkeys(gene for some in self.genes.values() for gene in some))}
        return Reference(
            self.dataset.name,
            self.held_out,
            as_scores(table["floor"].unstack("metric")),
            as_scores(table["ceiling"].unstack("metric")),
            *_drawn(by_condition, drawn),
            {condition: found.n_obs for condition, found in by_condition.items()},
        )


@dataclass(frozen=True)
class TrialJob(HeldOutJob):
    """Fit a model with one context held out, predict that context, and score it."""

    model: StudyModel
    parameters: Mapping[str, Any]
    seed: int
    device: str

    folder: ClassVar[str] = "trials"
    record: ClassVar[type[Record]] = TrialResult

    def identity(self) -> dict[str, Any]:
        """All that determines the record; the model by its values, whatever preset gave them."""
        return super().identity() | {
            "model": self.model.name,
            "label": self.model.label,
            "preset": self.model.preset,
            "parameters": self.parameters,
            "seed": self.seed,
        }

    @property
    def named(self) -> dict[str, Any]:
        """What its result is called."""
        return {
            "dataset": self.dataset.name,
            "label": self.model.label,
            "model": self.model.name,
            "preset": self.model.preset,
            "held_out": self.held_out,
            "seed": self.seed,
        }

    @property
    def kin(self) -> str:
        """The same for trials that differ in held-out context and seed alone: those that can be fitted together."""
        apart = {"held_out", "seed"} if self.dataset.preprocessing is None else {"seed"}
        return digest({name: value for name, value in self.identity().items() if name not in apart})

    def create(self) -> Model:
        """The model, not yet fitted."""
        return create(self.model.name, preset=self.model.preset, seed=self.seed, **self.model.changes)

    def run(self) -> TrialResult:
        """Fit, predict, score."""
        _forget_peak()
        data, model = self.data(), self.create()
        model.fit(data, leave_context_out(data, self.held_out), device=self.device, progress=False)
        return self.test(model)

    def test(self, model: Model) -> TrialResult:
        """Predict the held-out context with a fitted model, and score it."""
        import torch

        cells = self.cells()
        started = time.monotonic()
        predicted = cells.predict(model)
        seconds_predict = time.monotonic() - started
        scores = evaluate_many(control=cells.control, truth=cells.truth, predicted=predicted, metrics=self.metrics)
        expression, means = _drawn(predicted, self.genes)
        return TrialResult(
            **self.named,
            scores=as_scores(scores),
            notes=scores.attrs["notes"],
            seconds_fit=round(model.seconds_fit_, 3),
            seconds_predict=round(seconds_predict, 3),
            peak_memory_mb=round(_peak_mb(), 1),
            n_parameters=model.n_parameters,
            steps=model.history_.steps,
            threads=torch.get_num_threads(),
            history=_thinned(model.history_.table),
            expression=expression,
            means=means,
        )

    def failed(self, error: BaseException) -> TrialResult:
        """Say how it failed."""
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return TrialResult(
            **self.named, status="failed", error=line, traceback="".join(traceback.format_exception(error))
        )


def run_together(trials: Sequence[TrialJob]) -> list[TrialResult]:
    """Do trials of one :attr:`~TrialJob.kin` as the lanes of one training."""
    _forget_peak()
    data, models = trials[0].data(), [trial.create() for trial in trials]
    splits = [leave_context_out(data, trial.held_out) for trial in trials]
    fit_together(models, data, splits, device=trials[0].device, progress=False)
    return [trial.test(model) for trial, model in zip(trials, models, strict=True)]


def responding_genes(data: PerturbationData, per_perturbation: int = 4) -> dict[str, list[str]]:
    """Choose the genes to be drawn: those that rise or fall most, over all contexts, in units of their own noise.

    All doses of a compound share the genes of its highest dose, so that a gene can be followed across doses.
    """
    X, squares = data.X, data.X.multiply(data.X).tocsr()

    def moments(rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mean = np.asarray(X[rows].mean(axis=0), dtype=np.float64).ravel()
        return mean, np.asarray(squares[rows].mean(axis=0)).ravel() - mean**2

    totals = {name: np.zeros(len(data.genes)) for name in data.perturbations}
    for context in data.contexts:
        control = data.rows(condition=data.control, context=context)
        if len(control) < 2:
            continue
        mean, variance = moments(control)
        for name in data.perturbations:
            rows = data.rows(condition=name, context=context)
            if len(rows) >= 2:
                other, spread = moments(rows)
                noise = np.sqrt(np.maximum(variance / len(control) + spread / len(rows), 1e-8))
                totals[name] += (other - mean) / noise
    highest: dict[str, str] = {}
    for name in sorted(data.perturbations, key=lambda name: data.doses.get(name, 0.0)):
        highest[data.compound(name)] = name
    chosen = {
        compound: [str(data.genes[i]) for i in np.argsort(-np.abs(totals[name]), kind="stable")[:per_perturbation]]
        for compound, name in highest.items()
    }
    return {name: chosen[data.compound(name)] for name in data.perturbations}


def _drawn(cells: Mapping[str, AnnData], genes: DrawnGenes) -> tuple[Expression, Means]:
    """Keep the expression of the genes that are drawn: evenly spaced cells, and the mean over all."""
    expression: dict[str, dict[str, list[float]]] = {}
    means: dict[str, dict[str, float]] = {}
    for condition, found in cells.items():
        known = [gene for gene in genes[condition] if gene in found.var_names]
        values = found[:, known].X
        dense = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
        some = dense[np.linspace(0, len(dense) - 1, min(CELLS_KEPT, len(dense))).astype(int)]
        expression[condition] = {
            gene: [round(float(value), 3) for value in column] for gene, column in zip(known, some.T, strict=True)
        }
        means[condition] = {gene: float(mean) for gene, mean in zip(known, dense.mean(axis=0), strict=True)}
    return expression, means


def _map(data: PerturbationData) -> dict[str, list[Any]]:
    """Place some cells by UMAP on their principal components."""
    import scanpy as sc  # seconds to import, and only this job needs it

    rows = np.sort(np.random.default_rng(0).permutation(len(data))[:MAP_CELLS])
    cells = data.to_anndata(rows)
    sc.pp.pca(cells, n_comps=min(30, len(rows) - 1, len(data.genes) - 1), random_state=0)
    sc.pp.neighbors(cells, n_neighbors=min(15, len(rows) - 1), random_state=0)
    sc.tl.umap(cells, random_state=0)
    x, y = np.round(cells.obsm["X_umap"], 3).T
    return {
        "x": x.tolist(),
        "y": y.tolist(),
        "context": [data.contexts[code] for code in data.context[rows]],
        "condition": [data.conditions[code] for code in data.condition[rows]],
    }


def _thinned(history: pd.DataFrame) -> dict[str, list[Any]]:
    """At most ``CURVE_ROWS`` rows, evenly spaced, the last among them; five digits of each loss."""
    rows = np.unique(np.linspace(0, max(len(history) - 1, 0), min(CURVE_ROWS, len(history))).astype(int))
    some = history.iloc[rows]
    return {
        str(name): [float(f"{value:.5g}") if isinstance(value, float) else value for value in column.tolist()]
        for name, column in some.items()
    }


def _forget_peak() -> None:
    """Start the count of peak memory anew, where the system can: Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_mb() -> float:
    """Highest resident memory in MB (2^20 bytes): since :func:`_forget_peak` on Linux, elsewhere of all the time."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
