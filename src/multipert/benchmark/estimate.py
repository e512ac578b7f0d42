"""How long a study will take, found out on this machine before it starts."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from multipert.benchmark.jobs import HeldOutJob, Job, ReferenceJob, TrialJob
from multipert.data import PerturbationData, leave_context_out
from multipert.errors import InputError
from multipert.evaluation import evaluate_many
from multipert.models import NetworkModel
from multipert.training import History

CELLS_PER_GROUP = 25
"""Cells of each condition in each context that steps are measured on: with more of them a step costs the same."""

SCORINGS_PER_REFERENCE = 6
"""A floor, and a ceiling of five splits."""


class _Enough(Exception):  # noqa: N818  (no error)
    """Ends a training after its first epoch."""


def estimate_seconds(jobs: Sequence[Job]) -> dict[str, float]:
    """Measure one scoring and a few steps of each model, and multiply.

    Parameters
    ----------
    jobs
        What is to be done.

    Returns
    -------
    dict
        Seconds on one worker, by model label, and for floors and ceilings under ``"bounds"``. Trainings that stop
        early take less.
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
            training = (job.content, job.model.label)
            if training not in known:
                known[training] = _seconds_of_training(job)
            total[job.model.label] = total.get(job.model.label, 0.0) + known[training] + known[scoring]
    return total


def _seconds_of_scoring(job: HeldOutJob) -> float:
    cells = job.cells()
    unchanged = dict.fromkeys(cells.truth, cells.control)
    started = time.monotonic()
    evaluate_many(control=cells.control, truth=cells.truth, predicted=unchanged, metrics=job.metrics)
    return time.monotonic() - started


def _seconds_of_training(job: TrialJob) -> float:
    """Time of the first epoch on some cells, times the steps that all of them take over those it took."""
    data, model = job.data(), job.create()
    started = time.monotonic()
    if not isinstance(model, NetworkModel):
        model.fit(data, leave_context_out(data, job.held_out))
        return time.monotonic() - started
    seen: list[History] = []

    def stop(network: nn.Module, history: History) -> None:
        seen.append(history)
        raise _Enough

    for cells in (_some(data), data):
        try:
            model.fit(cells, leave_context_out(cells, job.held_out), device=job.device, progress=False, on_epoch=stop)
        except _Enough:
            break
        except InputError:  # too few cells to fill a batch: measured on all of them, or the trial's to report
            continue
    if not seen:
        return 0.0
    steps = model.planned_steps(data, leave_context_out(data, job.held_out))
    return seen[0].seconds / seen[0].steps * steps


def _some(data: PerturbationData) -> PerturbationData:
    """The first cells of each condition in each context."""
    group = data.context * len(data.conditions) + data.condition
    rows = np.concatenate([np.flatnonzero(group == one)[:CELLS_PER_GROUP] for one in np.unique(group)])
    return PerturbationData.read(data.to_anndata(np.sort(rows)), replace(data.keys, layer=None))
