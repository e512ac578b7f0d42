"""How long a study will take, found out on this machine before it starts."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Cost:
    """What some work costs on one worker.

    Attributes
    ----------
    steps
        Training steps; of a training that may stop early, up to midway.
    stepping
        Seconds these take.
    beside
        Seconds of everything else: preparation, scoring, models without steps.
    """

    steps: int = 0
    stepping: float = 0.0
    beside: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.stepping + self.beside

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.steps + other.steps, self.stepping + other.stepping, self.beside + other.beside)


Clock = Callable[[], float]


def estimate_costs(jobs: Sequence[Job], *, clock: Clock = time.monotonic) -> dict[str, Cost]:
    """Measure one scoring and a few steps of each model, and multiply.

    Parameters
    ----------
    jobs
        What is to be done.
    clock
        Tells seconds: ``time.process_time`` where other work keeps the processors busy.

    Returns
    -------
    dict
        By model label, and for floors and ceilings under ``"bounds"``.
    """
    total: dict[str, Cost] = {}
    known: dict[tuple[str, str], Cost] = {}
    for job in jobs:
        if not isinstance(job, HeldOutJob):
            continue
        scoring = (job.content, "")
        if scoring not in known:
            known[scoring] = _cost_of_scoring(job, clock)
        if isinstance(job, ReferenceJob):
            total["bounds"] = sum([known[scoring]] * SCORINGS_PER_REFERENCE, total.get("bounds", Cost()))
        elif isinstance(job, TrialJob):
            training = (job.content, job.label)
            if training not in known:
                known[training] = _cost_of_training(job, clock) if isinstance(job, FitJob) else Cost()
            total[job.label] = total.get(job.label, Cost()) + known[training] + known[scoring]
    return total


def _cost_of_scoring(job: HeldOutJob, clock: Clock) -> Cost:
    cells = job.cells()
    unchanged = dict.fromkeys(cells.truth, cells.control)
    started = clock()
    cells.scores_of(unchanged)
    return Cost(beside=clock() - started)


def _cost_of_training(job: FitJob, clock: Clock) -> Cost:
    """Time of the steps after the first epochs, on some cells, times the steps that all cells take."""
    data, model = job.data(), job.create()
    started = clock()
    if not isinstance(model, NetworkModel):
        model.fit(data, job.split(), features=job.features)
        return Cost(beside=clock() - started)
    steps = model.planned_steps(data, job.split())
    preparation = clock() - started
    for cells in (_some(data), data):
        try:
            return Cost(steps, steps * seconds_per_step(job, cells, clock), preparation)
        except InputError:  # too few cells to fill a batch: measured on all of them, or the trial's to report
            continue
    return Cost()


def seconds_per_step(job: FitJob, cells: PerturbationData, clock: Clock = time.monotonic) -> float:
    """Train a little, and time the steps after the warm-up; all of them where there are no others."""
    times = [(clock(), 0)]

    def measure(network: nn.Module, history: History) -> None:
        times.append((clock(), history.steps))
        after = len(times) - 1 - WARM_UP
        if after >= MEASURED_EPOCHS or (after >= 1 and times[-1][0] - times[WARM_UP][0] > MEASURED_SECONDS):
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
    before = times[WARM_UP] if len(times) > 1 + WARM_UP else times[0]
    return (times[-1][0] - before[0]) / (times[-1][1] - before[1])


def _some(data: PerturbationData) -> PerturbationData:
    """The first cells of each condition in each context."""
    group = data.context * len(data.conditions) + data.condition
    rows = np.concatenate([np.flatnonzero(group == one)[:CELLS_PER_GROUP] for one in np.unique(group)])
    return PerturbationData.read(data.to_anndata(np.sort(rows)), replace(data.keys, layer=None))
