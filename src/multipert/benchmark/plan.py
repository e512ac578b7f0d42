"""From a study to its pieces of work, and to what it says of itself on disk."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from multipert.benchmark.cells import fingerprint, prepare
from multipert.benchmark.held_out import read_counts
from multipert.benchmark.jobs import FitJob, Job, OverviewJob, PredictedJob, ReferenceJob, TrialJob
from multipert.benchmark.predictions import ELSEWHERE, StudyPredictions, find_trials, provenance
from multipert.benchmark.records import DatasetCard, ModelCard, TrialResult, read_record
from multipert.benchmark.results import FORMAT, PLAN, versions
from multipert.benchmark.study import Study, StudyDataset, StudyModel
from multipert.data import HeldOut, PerturbationData, did_you_mean, write_text
from multipert.errors import InputError, is_disk_full
from multipert.models import Model, create


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a study asks for.

    Attributes
    ----------
    study
        The study.
    datasets, models
        What it works on and with, as the report names them.
    jobs
        Every piece of work, in the order it is best done: data set by data set, what is quick and needed by all first.
    """

    study: Study
    datasets: Sequence[DatasetCard]
    models: Sequence[ModelCard]
    jobs: Sequence[Job]

    @property
    def trials(self) -> list[TrialJob]:
        """The trials among the jobs."""
        return [job for job in self.jobs if isinstance(job, TrialJob)]

    def missing(self, folder: Path, *, retry_failed: bool) -> list[Job]:
        """The jobs whose record is not in ``folder``; with ``retry_failed``, also trials that failed there."""

        def is_missing(job: Job) -> bool:
            record = read_record(folder / job.file, job.record)
            failed = isinstance(record, TrialResult) and record.status == "failed"
            return record is None or (failed and retry_failed)

        return [job for job in self.jobs if is_missing(job)]

    def write(self, folder: Path) -> None:
        """Write ``plan.json`` and ``study.toml``, and make room for the records.

        Raises
        ------
        InputError
            The folder cannot be written, or holds something else.
        """
        kinds = (OverviewJob, ReferenceJob, TrialJob)
        content: dict[str, Any] = {
            "format": FORMAT,
            "title": self.study.title,
            "question": self.study.question,
            "seeds": self.study.seeds,
            "metrics": self.study.metrics,
            "study_file": self.study.text,
            "versions": versions(),
            "datasets": [asdict(card) for card in self.datasets],
            "models": [asdict(card) for card in self.models],
            "files": {kind.folder: [job.file for job in self.jobs if isinstance(job, kind)] for kind in kinds},
        }
        try:
            for kind in kinds:
                (folder / kind.folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_disk_full(error):
                raise
            raise InputError(f"cannot write to {folder} ({error.strerror}): choose another folder") from error
        write_text(folder / PLAN, json.dumps(content, indent=1, default=list) + "\n")
        write_text(folder / "study.toml", self.study.text)


def plan_study(study: Study, *, device: str = "auto", announce: Callable[[str], Any] = lambda line: None) -> Plan:
    """Read a study's data and list its work.

    Parameters
    ----------
    study
        The study.
    device
        Where models train.
    announce
        Told, in a line each, what is being done.

    Raises
    ------
    InputError
        The data cannot be read, or lack a context or perturbation that the study names: file and line are named.
    """
    cards, jobs = [], list[Job]()
    for place, dataset in enumerate(study.datasets):
        content, data, perturbations = read_dataset(study, place, dataset, announce)
        rules = _rules(study, place, dataset, data)
        cards.append(
            DatasetCard.of(
                data,
                name=dataset.name,
                source=dataset.source,
                published=dataset.published,
                held_out=[str(rule.label) for rule in rules],
                perturbations=perturbations,
                unseen={str(rule.label): rule.kind_in_words for rule in rules if rule.kind != "context"},
            )
        )
        jobs += _jobs(study, dataset, content, rules, perturbations, device)
        for number, predictions in enumerate(study.predictions):
            if predictions.dataset == dataset.name:
                jobs += _predicted(study, number, dataset, content, data, rules, perturbations, announce)
    models = [ModelCard.of(_created(model), model.label) for model in study.models]
    return Plan(study, cards, [*models, *(_card(one, study) for one in study.predictions)], jobs)


def _jobs(
    study: Study,
    dataset: StudyDataset,
    content: str,
    rules: Sequence[HeldOut],
    perturbations: Sequence[str],
    device: str,
) -> Iterator[Job]:
    yield OverviewJob(dataset, content)
    asked = [(dataset, content, rule, _scored(rule, perturbations), study.metrics) for rule in rules]
    yield from (ReferenceJob(*one) for one in asked)
    for one, model, seed in product(asked, study.models, study.seeds):
        yield FitJob(*one, model.label, seed, model, asdict(_created(model, seed).parameters), device)


def _scored(rule: HeldOut, perturbations: Sequence[str]) -> Sequence[str]:
    """The perturbations that a trial scores: those asked for, of those that its rule holds out."""
    return [name for name in perturbations if name in rule.conditions] if rule.conditions else perturbations


def _predicted(
    study: Study,
    number: int,
    dataset: StudyDataset,
    content: str,
    data: PerturbationData,
    rules: Sequence[HeldOut],
    perturbations: Sequence[str],
    announce: Callable[[str], Any],
) -> Iterator[Job]:
    """The trials that predictions made elsewhere are of; those that their files do not hold are named."""
    predictions = study.predictions[number]
    announce(f"reading {predictions.label}: {predictions.written}")
    measured = {
        str(rule.label): [
            name
            for name in _scored(rule, perturbations)
            if len(data.rows(condition=name, context=rule.context, covariate=rule.covariate))
        ]
        for rule in rules
    }
    fixed = dataset.preprocessing is None or dataset.preprocessing["choose_on"] == "all"
    genes = pd.Index(data.genes) if fixed else None
    try:
        trials, missing = find_trials(
            predictions, measured, study.seeds, genes=genes, counts=read_counts(study.metrics)
        )
        if not trials:
            raise InputError(
                f"the files hold predictions of no held-out context whole: missing are {', '.join(missing)}"
            )
    except InputError as error:
        raise InputError(f"{study.where('predictions', number)}: {error}") from error
    if missing:
        asked = len(trials) + len(missing)
        announce(f"{predictions.label} lacks {len(missing)} of {asked} trials, left out: {', '.join(missing)}")
    by_label = {str(rule.label): rule for rule in rules}
    for (held_out, seed), files in trials.items():
        rule = by_label[held_out]
        asked_of = (dataset, content, rule, _scored(rule, perturbations), study.metrics)
        yield PredictedJob(*asked_of, predictions.label, seed, files)


def _card(predictions: StudyPredictions, study: Study) -> ModelCard:
    """Predictions made elsewhere, as the report names them."""
    return ModelCard(
        label=predictions.label,
        name=ELSEWHERE,
        preset="",
        changes=provenance(predictions),
        parameters={},
        meanings={},
        title=f"Predictions made elsewhere, by {predictions.source}",
        family=ELSEWHERE,
        source=predictions.written,
        seeds=len(predictions.seeds(study.seeds)),
    )


def _created(model: StudyModel, seed: int = 1) -> Model:
    return create(model.name, preset=model.preset, seed=seed, **model.changes)


def _rules(study: Study, place: int, dataset: StudyDataset, data: PerturbationData) -> list[HeldOut]:
    """What to hold out, in turn: contexts, then what is never seen in any of them.

    Contexts are those named; where nothing else is held out either, all that have control and perturbed cells.
    """
    unseen = list(dataset.unseen.rules(data, lambda *key: study.where("datasets", place, *key)))
    contexts = [] if unseen and dataset.held_out is None else _held_out(study, place, dataset, data)
    return [*(HeldOut("context", context=context) for context in contexts), *unseen]


def _held_out(study: Study, place: int, dataset: StudyDataset, data: PerturbationData) -> Sequence[str]:
    """The contexts to hold out: those named, or all that have control and perturbed cells."""
    complete = [
        context
        for code, context in enumerate(data.contexts)
        if len(np.unique(data.condition[data.context == code] != 0)) == 2
    ]
    if len(complete) < 2:
        raise InputError(
            f"{study.where('datasets', place)}: {dataset.name} has {len(complete)} contexts with both control and "
            f"perturbed cells: two are needed, one to learn from and one to hold out"
        )
    for number, context in enumerate(dataset.held_out or ()):
        if context not in complete:
            raise InputError(
                f"{study.where('datasets', place, 'held_out', number)}: {dataset.name} has no context {context!r} with "
                f"both control and perturbed cells; {did_you_mean(context, complete)}"
            )
    return dataset.held_out or complete


def read_dataset(
    study: Study, place: int, dataset: StudyDataset, announce: Callable[[str], Any]
) -> tuple[str, PerturbationData, Sequence[str]]:
    """Read the data set at a place of a study: its fingerprint, its cells and the perturbations to score.

    Raises
    ------
    InputError
        The cells cannot be read, or lack a context or perturbation that the study names: file and line are named.
    """
    announce(f"reading {dataset.name}: {dataset.source}")
    content = fingerprint(dataset)
    try:
        data = prepare(dataset, content, None)
    except InputError as error:
        withheld = ("held_out",) if dataset.withheld else ()
        raise InputError(f"{study.where('datasets', place, *withheld)}: {error}") from error
    return content, data, _scored_perturbations(study, place, dataset, data)


def _scored_perturbations(study: Study, place: int, dataset: StudyDataset, data: PerturbationData) -> Sequence[str]:
    """The perturbations to score: those named, or all."""
    for number, name in enumerate(dataset.perturbations or ()):
        if name not in data.perturbations:
            raise InputError(
                f"{study.where('datasets', place, 'perturbations', number)}: {dataset.name} has no perturbation "
                f"{name!r}; {did_you_mean(name, data.perturbations)}"
            )
    return dataset.perturbations or data.perturbations
