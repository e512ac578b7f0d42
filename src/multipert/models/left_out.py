"""How a run did on what it left out: kept with it, so that whoever predicts with it is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
import numpy.typing as npt

from multipert.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from multipert.data import PerturbationData, PerturbationFeatures, Split
    from multipert.models.base import Model

BASELINES = ("mean-shift", "linear")
"""What a run is measured against, beside no change."""

CLEARLY = 1.1
"""By what factor the distances of two models differ if one is to be called the better."""

_GROUPS, _CELLS = 20, 300
"""Of how many conditions and contexts, and from how many control cells of each, the score is taken, at most."""

_CONTEXTS, _CHEAP = 4, 50_000
"""How many contexts are left out in turn where all cells were shown, and of how many cells the fits are cheap."""

T = TypeVar("T")

_Group = tuple[int, str, npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class LeftOutScore:
    """How near the predicted means of left-out cells came to the true ones.

    Attributes
    ----------
    held_out
        What was left out; ``each of 4 contexts in turn`` of a run that was shown all cells.
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
        if split.held_out is None:
            return None
        return cls._of(split.held_out, _distances(model, data, split, _GROUPS))

    @classmethod
    def of_each_context(
        cls, model: Model, data: PerturbationData, features: PerturbationFeatures | str | None
    ) -> Self | None:
        """Score a model that was shown all cells, by fits without each context, or each of some, in turn.

        None where fits are not to be had in seconds: of a model that is trained in steps, or to many cells.
        """
        from multipert.data import leave_context_out

        if model.history_.steps or len(data) > _CHEAP:
            return None
        left_out = []
        for context in _some(data.contexts, _CONTEXTS):
            try:
                split = leave_context_out(data, context)
                anew = type(model)(preset=model.preset, seed=model.seed, **asdict(model.parameters))
                anew.fit(data, split, features=features, progress=False)
            except InputError:  # it lacks controls or perturbed cells, or the others are too few
                continue
            left_out.append(_distances(anew, data, split, _GROUPS // _CONTEXTS))
        scored = [found for found in left_out if found]
        together = {name: [value for found in scored for value in found[name]] for name in (scored or [{}])[0]}
        return cls._of(f"each of {len(scored)} contexts in turn", together)

    @classmethod
    def _of(cls, held_out: str, found: Mapping[str, Sequence[float]]) -> Self | None:
        """From the distances of the model, which comes first, and of the others."""
        if not found:
            return None
        (own, *_), medians = found, {name: float(np.median(values)) for name, values in found.items()}
        return cls(held_out, len(found[own]), medians.pop(own), medians)

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


def _distances(model: Model, data: PerturbationData, split: Split, at_most: int) -> dict[str, list[float]]:
    """Those of a model and of baselines, for what was left out; empty where one of them cannot predict it."""
    from multipert.models.registry import create

    groups = _some(list(_groups(data, split)), at_most)
    found: dict[str, list[float]] = {}
    try:
        for name in (model.name, *BASELINES) if groups else ():
            one = model if name == model.name else create(name).fit(data, split)
            found[name] = [_distance(one, data, *group) for group in groups]
    except InputError:  # what nobody was shown, not all of them can predict
        return {}
    return found


def _some(all_of_them: Sequence[T], at_most: int) -> list[T]:
    """A list, or so many of it, evenly spaced."""
    places = np.linspace(0, len(all_of_them) - 1, min(len(all_of_them), at_most)).astype(int)
    return [all_of_them[place] for place in np.unique(places)]


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
            yield condition, data.contexts[context], truth, np.array(_some(controls.tolist(), _CELLS))


def _distance(
    model: Model,
    data: PerturbationData,
    condition: int,
    context: str,
    truth: npt.NDArray[np.int64],
    controls: npt.NDArray[np.int64],
) -> float:
    from multipert.models.questions import Question

    X = data.X[controls]
    answer = model._answer(Question(X, np.zeros(len(controls), dtype=np.int64), (context,), condition))
    before, true = _mean(X), _mean(data.X[data.sample(truth)])
    guess = np.maximum(answer.cells, 0).mean(axis=0, dtype=np.float64)
    return float(np.linalg.norm(guess - true) / max(float(np.linalg.norm(before - true)), 1e-12))


def _mean(X: csr_matrix) -> npt.NDArray[np.float64]:
    return np.asarray(X.mean(axis=0, dtype=np.float64)).ravel()
