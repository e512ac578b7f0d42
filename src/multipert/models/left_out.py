"""How a run did on what it left out: kept with it, so that whoever predicts with it is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from multipert.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from multipert.data import PerturbationData, Split
    from multipert.models.base import Model

BASELINES = ("mean-shift", "linear")
"""What a run is measured against, beside no change."""

CLEARLY = 1.1
"""By what factor the distances of two models differ if one is to be called the better."""

_GROUPS, _CELLS = 20, 300
"""Of how many conditions and contexts, and from how many control cells of each, the score is taken, at most."""

_Group = tuple[int, str, npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class LeftOutScore:
    """How near the predicted means of left-out cells came to the true ones.

    Attributes
    ----------
    held_out
        What was left out.
    n
        How many conditions, each in a context, were predicted.
    distance
        Euclidean distance of the predicted from the true mean profile over that of the control mean, which predicts
        no change (below 1 is better than that); the median of them.
    baselines
        The same of simple baselines fitted to the same cells, by name.
    """

    held_out: str
    n: int
    distance: float
    baselines: Mapping[str, float]

    @classmethod
    def of(cls, model: Model, data: PerturbationData, split: Split) -> Self | None:
        """Score a model fitted to ``data`` with ``split``; none where nothing was left out that it can predict."""
        groups = list(_groups(data, split))
        if not groups or split.held_out is None:
            return None
        groups = [
            groups[at] for at in np.unique(np.linspace(0, len(groups) - 1, min(len(groups), _GROUPS)).astype(int))
        ]
        found: dict[str, list[float]] = {}
        try:
            for name in (model.name, *BASELINES):
                one = model if name == model.name else _fitted(name, data, split)
                found[name] = [_distance(one, data, *group) for group in groups]
        except InputError:  # what nobody was shown, not all of them can predict
            return None
        medians = {name: float(np.median(values)) for name, values in found.items()}
        return cls(split.held_out, len(groups), medians.pop(model.name), medians)

    @property
    def lost(self) -> bool:
        """Whether no change or a baseline came clearly nearer."""
        return self.distance > CLEARLY * min([1.0, *self.baselines.values()])

    def __str__(self) -> str:
        others = ", ".join(f"{name} {value:.2f}" for name, value in self.baselines.items())
        of = "" if self.n == 1 else f", the median of {self.n}"
        score = f"predicted {self.distance:.2f} times as far from the truth as no change ({others}{of})"
        if self.lost:
            return f"this model lost to simpler ones: {self.held_out}, left out of training, was {score}"
        return f"{self.held_out}, left out of training, was {score}"


def _fitted(name: str, data: PerturbationData, split: Split) -> Model:
    from multipert.models.registry import create

    return create(name).fit(data, split)


def _groups(data: PerturbationData, split: Split) -> Iterator[_Group]:
    """What was left out, by condition and context: both, the cells, and the control cells to predict them from."""
    of_test = data.condition[split.test] * len(data.contexts) + data.context[split.test]
    for group in np.unique(of_test):
        condition, context = divmod(int(group), len(data.contexts))
        truth = split.test[of_test == group]
        levels = np.unique(data.covariate[truth])
        same = (data.context == context) & np.isin(data.covariate, levels)
        controls = np.flatnonzero((data.condition == 0) & same)
        if len(controls):
            some = np.unique(np.linspace(0, len(controls) - 1, min(len(controls), _CELLS)).astype(np.int64))
            yield condition, data.contexts[context], truth, controls[some]


def _distance(
    model: Model,
    data: PerturbationData,
    condition: int,
    context: str,
    truth: npt.NDArray[np.int64],
    controls: npt.NDArray[np.int64],
) -> float:
    from multipert.models.base import Question

    X = data.X[controls]
    answer = model._answer(Question(X, np.zeros(len(controls), dtype=np.int64), (context,), condition))
    before, true = _mean(X), _mean(data.X[truth])
    guess = np.maximum(answer.cells, 0).mean(axis=0, dtype=np.float64)
    return float(np.linalg.norm(guess - true) / max(float(np.linalg.norm(before - true)), 1e-12))


def _mean(X: csr_matrix) -> npt.NDArray[np.float64]:
    return np.asarray(X.mean(axis=0, dtype=np.float64)).ravel()
