"""The pieces of work a study is made of: each knows what determines it, and gives one record."""

import resource
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import nan
from pathlib import Path
from typing import Any, ClassVar

import multipert
from multipert.benchmark.cells import prepare
from multipert.benchmark.held_out import HeldOutCells, overview, read_counts
from multipert.benchmark.predictions import ELSEWHERE, PredictedFiles
from multipert.benchmark.records import Overview, Record, Reference, TrialResult, digest
from multipert.benchmark.study import StudyDataset, StudyModel
from multipert.data import HeldOut, PerturbationData, Split, split_by
from multipert.models import Model, create, fit_together, model_class


class Work(ABC):
    """What an engine runs."""

    @property
    @abstractmethod
    def file(self) -> str:
        """What it is called, and where a record of it lies: no two have the same."""

    @abstractmethod
    def run(self) -> Any:
        """Do it."""


@dataclass(frozen=True)
class Job(Work):
    """A piece of work of a study.

    Attributes
    ----------
    dataset
        What it works on.
    content
        Stands for the data set's cells.
    """

    dataset: StudyDataset
    content: str

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
        return overview(prepare(self.dataset, self.content, None), self.dataset.name)


@dataclass(frozen=True)
class HeldOutJob(Job):
    """A piece of work on what is held out: a context, or a perturbation, a combination, a dose.

    Attributes
    ----------
    rule
        What.
    perturbations, metrics
        What is scored, and by what.
    """

    rule: HeldOut
    perturbations: Sequence[str]
    metrics: Sequence[str]

    @property
    def held_out(self) -> str:
        """What is held out, as tables call it."""
        return str(self.rule.label)

    def identity(self) -> dict[str, Any]:
        """All that determines the record."""
        return super().identity() | {
            "held_out": self.held_out if self.rule.kind == "context" else asdict(self.rule),
            "perturbations": self.perturbations,
            "metrics": self.metrics,
        }

    def data(self) -> PerturbationData:
        """All cells."""
        return prepare(self.dataset, self.content, self.rule)

    def split(self) -> Split:
        """Which of them train, and which are held out."""
        return split_by(self.data(), self.rule)

    def cells(self) -> HeldOutCells:
        """The cells that are held out, and the controls they are predicted from."""
        return HeldOutCells.of(self.data(), self.dataset.name, self.rule, self.perturbations, self.metrics)


@dataclass(frozen=True)
class ReferenceJob(HeldOutJob):
    """Measure what held-out cells themselves say: bounds, and what they look like."""

    folder: ClassVar[str] = "references"
    record: ClassVar[type[Record]] = Reference

    def run(self) -> Reference:
        """Score halves of the true cells against each other, and control cells against them."""
        return self.cells().reference(self.data(), self.split())


@dataclass(frozen=True)
class TrialJob(HeldOutJob):
    """Score one prediction of what is held out.

    Attributes
    ----------
    label, seed
        Whose it is.
    """

    label: str
    seed: int

    folder: ClassVar[str] = "trials"
    record: ClassVar[type[Record]] = TrialResult

    def identity(self) -> dict[str, Any]:
        """All that determines the record."""
        return super().identity() | {"label": self.label, "seed": self.seed}

    @property
    @abstractmethod
    def outset(self) -> TrialResult:
        """The record as far as it is known before anything is done."""

    def failed(self, error: BaseException) -> TrialResult:
        """Say how it failed."""
        return replace(
            self.outset,
            status="failed",
            error=f"{type(error).__name__}: {error}".splitlines()[0],
            traceback="".join(traceback.format_exception(error)),
        )


@dataclass(frozen=True)
class FitJob(TrialJob):
    """Fit a model with something held out, predict that, and score it."""

    model: StudyModel
    parameters: Mapping[str, Any]
    device: str

    def identity(self) -> dict[str, Any]:
        """All that determines the record; the model by its values, whatever preset gave them."""
        features = self.dataset.features
        described = {} if self.features is None or features is None else {"features": features.content}
        return (
            super().identity()
            | {"model": self.model.name, "preset": self.model.preset, "parameters": self.parameters}
            | described
        )

    @property
    def features(self) -> str | None:
        """What the model is told of perturbations, if it can be told."""
        features = self.dataset.features
        return features.source if features is not None and model_class(self.model.name).takes_features else None

    @property
    def batch_key(self) -> str:
        """The same for trials that differ in held-out context and seed alone: those that can be fitted together."""
        apart = {"held_out", "seed"} if self.dataset.preprocessing is None else {"seed"}
        return digest({name: value for name, value in self.identity().items() if name not in apart})

    @property
    def outset(self) -> TrialResult:
        """The model's names."""
        return TrialResult(self.dataset.name, self.label, self.model.name, self.model.preset, self.held_out, self.seed)

    def create(self) -> Model:
        """The model, not yet fitted."""
        return create(self.model.name, preset=self.model.preset, seed=self.seed, **self.model.changes)

    def run(self) -> TrialResult:
        """Fit, predict, score."""
        _forget_peak()
        data, model = self.data(), self.create()
        model.fit(data, self.split(), features=self.features, device=self.device, progress=False)
        return self.test(model)

    def test(self, model: Model) -> TrialResult:
        """Predict what is held out with a fitted model, and score it."""
        return replace(self.cells().test(model, self.label), peak_memory_mb=round(_peak_mb(), 1))


@dataclass(frozen=True)
class PredictedJob(TrialJob):
    """Score predictions that were made elsewhere."""

    predicted: PredictedFiles

    def identity(self) -> dict[str, Any]:
        """All that determines the record; the files by their content, wherever they lie."""
        predictions = self.predicted.predictions
        return super().identity() | {
            "predicted": [content for _, content in self.predicted.files],
            "predicted_keys": asdict(predictions.keys),
        }

    @property
    def outset(self) -> TrialResult:
        """Nothing is known of what they took."""
        names = (self.dataset.name, self.label, ELSEWHERE, "", self.held_out, self.seed)
        return TrialResult(*names, seconds_fit=nan, seconds_predict=nan, peak_memory_mb=nan)

    def run(self) -> TrialResult:
        """Read and score them."""
        cells = self.cells()
        layer = cells.counts_layer if read_counts(self.metrics) else None
        return cells.score(self.predicted.read(self.held_out, list(cells.truth), counts_layer=layer), self.outset)


def run_together(trials: Sequence[FitJob]) -> list[TrialResult]:
    """Do trials of one :attr:`~FitJob.batch_key` as one training."""
    _forget_peak()
    data, models = trials[0].data(), [trial.create() for trial in trials]
    splits = [split_by(data, trial.rule) for trial in trials]
    fit_together(models, data, splits, features=trials[0].features, device=trials[0].device, progress=False)
    return [trial.test(model) for trial, model in zip(trials, models, strict=True)]


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
