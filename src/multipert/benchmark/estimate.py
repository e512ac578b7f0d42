"""How long a study will take, found out on this machine before it starts."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from torch import nn

from multipert.benchmark.jobs import FitJob, HeldOutJob, Job, ReferenceJob, TrialJob
from multipert.data import PerturbationData, split_by
from multipert.errors import InputError
from multipert.models import NetworkModel
from multipert.training import History

CELLS_PER_GROUP = 25
"""Cells of each condition in each context that steps are measured on: with more of them a step costs the same."""

SCORINGS_PER_REFERENCE = 9
"""Two floors, a ceiling of five splits, and two controls that say whether metrics can tell."""


WARM_UP = 1
"""Epochs that are not counted: in the first steps loops are compiled, memory is claimed, libraries are loaded."""

MEASURED_SECONDS, MEASURED_EPOCHS = 1.0, 20
"""How long, or how many epochs, steps are measured after that."""


class _Enough(Exception):  # noqa: N818  (no error)
    """Ends a training once its steps have been measured."""


def estimate_seconds(jobs: Sequence[Job]) -> dict[str, float]:
    """Measure one scoring and a few steps of each model, and multiply.

    Parameters
    ----------
    jobs
        What is to be done.

    Returns
    -------
    dict
        Seconds on one worker, by model label, and for floors and ceilings under ``"bounds"``. A training that may stop
        early is taken to do so midway.
    """
    total: dict[str, float] = {}
    known: dict[tuple[str, str], float] = {}
    for job in jobs:
        if not isinstance(job, HeldOutJob):
            continue
        scoring = (job.content, "")
        if scoring not in known:
            known[scoring] = _seconds_of_scoring(job)
        if isinstance(job, ReferenceJob):
            total["bounds"] = total.get("bounds", 0.0) + SCORINGS_PER_REFERENCE * known[scoring]
        elif isinstance(job, TrialJob):
            training = (job.content, job.label)
            if training not in known:
                known[training] = _seconds_of_training(job) if isinstance(job, FitJob) else 0.0
            total[job.label] = total.get(job.label, 0.0) + known[training] + known[scoring]
    return total


def _seconds_of_scoring(job: HeldOutJob) -> float:
    cells = job.cells()
    unchanged = dict.fromkeys(cells.truth, cells.control)
    started = time.monotonic()
    cells.scores_of(unchanged)
    return time.monotonic() - started


def _seconds_of_training(job: FitJob) -> float:
    """Time of the steps after the first epochs, on some cells, times the steps that all cells take."""
    data, model = job.data(), job.create()
    started = time.monotonic()
    if not isinstance(model, NetworkModel):
        model.fit(data, job.split(), features=job.features)
        return time.monotonic() - started
    steps = model.planned_steps(data, job.split())
    preparation = time.monotonic() - started
    for cells in (_some(data), data):
        try:
            return preparation + steps * _seconds_per_step(job, cells)
        except InputError:  # too few cells to fill a batch: measured on all of them, or the trial's to report
            continue
    return 0.0


def _seconds_per_step(job: FitJob, cells: PerturbationData) -> float:
    """Train a little, and time the steps after the warm-up; all of them where there are no others."""
    times: list[tuple[float, int]] = []

    def measure(network: nn.Module, history: History) -> None:
        times.append((history.seconds, history.steps))
        after = len(times) - WARM_UP
        if after >= MEASURED_EPOCHS or (after >= 1 and history.seconds - times[WARM_UP - 1][0] > MEASURED_SECONDS):
            raise _Enough

    with suppress(_Enough):
        job.create().fit(
            cells,
            split_by(cells, job.rule),
            features=job.features,
            device=job.device,
            progress=False,
            on_epoch=measure,
        )
    before = times[WARM_UP - 1] if len(times) > WARM_UP else (0.0, 0)
    return (times[-1][0] - before[0]) / (times[-1][1] - before[1])


def _some(data: PerturbationData) -> PerturbationData:
    """The first cells of each condition in each context."""
    group = data.context * len(data.conditions) + data.condition
    rows = np.concatenate([np.flatnonzero(group == one)[:CELLS_PER_GROUP] for one in np.unique(group)])
    return PerturbationData.read(data.to_anndata(np.sort(rows)), replace(data.keys, layer=None))
