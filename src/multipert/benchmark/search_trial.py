"""One trial of a search: a model with some values, tried on one inner context after the other."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import isfinite
from statistics import fmean, median

import numpy as np
from torch import nn

from multipert.benchmark.jobs import FitJob, Work
from multipert.benchmark.records import digest
from multipert.benchmark.study import StudyModel
from multipert.evaluation import METRICS
from multipert.models import Model, NetworkModel
from multipert.training import History

LOOKS = (5, 10, 20, 40, 80, 160, 320, 640)
"""Epochs after which a training is looked at."""

CONTEXT = 1000
"""Steps from one inner context to the next: step 2010 is the third context after ten epochs."""

LEAST_EARLIER = 5
"""Trials that must have come as far before one is called hopeless."""


@dataclass(frozen=True)
class InnerContext:
    """A training context that a search holds out, to try values on.

    Attributes
    ----------
    fit
        Of the model that the search begins with.
    floor, ceiling
        What no change and a replicate score there, means over its perturbations.
    """

    fit: FitJob
    floor: float
    ceiling: float

    @property
    def name(self) -> str:
        """The data set and the context."""
        return f"{self.fit.dataset.name}: {self.fit.held_out}"

    @property
    def metric(self) -> str:
        """What predictions are scored by."""
        return self.fit.metrics[0]

    @property
    def can_tell(self) -> bool:
        """Whether a replicate scores better there than no change, so that scores can be normalised."""
        floor, ceiling = self._shortfalls(self.floor, self.ceiling)
        return bool(isfinite(floor) and isfinite(ceiling) and ceiling < floor)

    def value(self, score: float, *, normalised: bool) -> float:
        """What a search makes the most of: the score between the bounds, or itself, turned so that more is better."""
        short, floor, ceiling = self._shortfalls(score, self.floor, self.ceiling)
        return (floor - short) / (floor - ceiling) if normalised else -short

    def _shortfalls(self, *scores: float) -> list[float]:
        return [float(one) for one in METRICS[self.metric].shortfall(np.array(scores))]


@dataclass(frozen=True)
class SearchOutcome:
    """How a trial went.

    Attributes
    ----------
    scores
        In each inner context that it came to the end of, the mean over perturbations.
    steps
        By step, the mean value over inner contexts so far, the last one as far as it was trained.
    stopped
        Where it was given up, in words; empty if it was not.
    seconds
        Wall time.
    """

    scores: Sequence[float] = ()
    steps: Mapping[int, float] = field(default_factory=dict)
    stopped: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class SearchTrial(Work):
    """Try a model's values on inner contexts, in turn, and give up once the trial is hopeless.

    Hopeless is a trial whose mean value so far, after the same epochs in the same contexts, lies below the median of
    the trials that were not given up (the median stopping rule of Golovin et al. 2017, at the very step).

    Attributes
    ----------
    number
        Of the trial, from 0.
    contexts
        Inner contexts, in the order they are tried.
    model
        With the values to try.
    normalised
        Whether scores are read between their bounds.
    earlier
        The steps of each trial that came to its end.
    device
        Where it trains.
    """

    number: int
    contexts: Sequence[InnerContext]
    model: StudyModel
    normalised: bool
    earlier: Sequence[Mapping[int, float]]
    device: str

    def value(self, scores: Sequence[float]) -> float:
        """The mean value of scores in the first contexts."""
        reached = zip(self.contexts, scores, strict=False)
        return fmean(context.value(score, normalised=self.normalised) for context, score in reached)

    @property
    def file(self) -> str:
        """Named by what is tried."""
        return f"search/{self.number}-{digest({'model': self.model.name, 'values': dict(self.model.changes)})}"

    def run(self) -> SearchOutcome:
        """Try the values."""
        started, course = time.monotonic(), _Course(self)
        with suppress(_Hopeless):
            for context in self.contexts:
                course.through(context)
        return SearchOutcome(course.scores, course.steps, course.stopped, time.monotonic() - started)


class _Hopeless(Exception):  # noqa: N818  (no error)
    """Ends a trial."""


class _Course:
    """A trial as far as it has come."""

    def __init__(self, trial: SearchTrial) -> None:
        self.trial = trial
        self.scores: list[float] = []
        self.steps: dict[int, float] = {}
        self.stopped = ""

    def through(self, context: InnerContext) -> None:
        """Train without a context's response, predict it, and score that; look at it on the way."""
        before = len(self.scores) * CONTEXT
        fit = replace(context.fit, model=self.trial.model, device=self.trial.device)
        data, split, model, cells = fit.data(), fit.split(), fit.create(), fit.cells()

        def score(fitted: Model) -> float:
            mean = float(cells.scores_by(fitted)[context.metric].mean(skipna=False))
            if not isfinite(mean):
                raise ValueError(f"{context.metric} of what was predicted in {context.name} is {mean}")
            return mean

        def look(network: nn.Module, history: History) -> None:
            if len(history) in LOOKS and isinstance(model, NetworkModel):
                now = model.in_progress(network, data, split)
                if now is not None:
                    place = f"after {len(history)} epochs in {context.name}"
                    self._judge([*self.scores, score(now)], before + len(history), place)

        model.fit(data, split, features=fit.features, device=fit.device, progress=False, on_epoch=look)
        self.scores.append(score(model))
        if len(self.scores) < len(self.trial.contexts):
            self._judge(self.scores, before + CONTEXT, f"after {context.name}")

    def _judge(self, scores: Sequence[float], step: int, place: str) -> None:
        """Note the mean value at a step, and give up where it is hopeless."""
        self.steps[step] = self.trial.value(scores)
        there = [earlier[step] for earlier in self.trial.earlier if step in earlier]
        if len(there) >= LEAST_EARLIER and self.steps[step] < median(there):
            self.stopped = place
            raise _Hopeless
