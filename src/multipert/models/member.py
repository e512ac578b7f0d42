"""A network's mean as one more member of mtcell's sum.

mtcell reads every gene by itself; a network of the multi-task family reads whole cells. Its *shift* of a context is the
mean, over the control cells, of what they are decoded to under the perturbation less what they are decoded to under
control, so that what it gets wrong of the cells themselves cancels. Of what lies between this and mtcell's own shift
the part ``w`` is taken, the same for all genes, perturbations and contexts. It is chosen by leaving out one training
context at a time, of the network and of mtcell alike (cross-fitting): stacking, as the terms are (:mod:`.transfer`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError, InputWarning
from multipert.models.network_model import PREDICTED_AT_ONCE, NetworkModel
from multipert.models.parameters import DEFAULT, parameter, preset_values
from multipert.models.registry import MODELS, model_class
from multipert.models.run_folder import Arrays, check_arrays
from multipert.models.transfer import Doubles, caution, weight

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from multipert.data import PerturbationData, Split
    from multipert.models.metadata import FitMetadata
    from multipert.models.mtcell import MTCell
    from multipert.training import TrainerConfig

NONE = "none"
PART = 0.25
"""Part of its epochs for which a member is trained, so that eight fits take as long as two; by simulation no worse than
half of them."""
PREFIX = "member."
"""Begins the names of the arrays of a run folder that hold a member; those of its network go on with ``network.``."""


@dataclass(frozen=True, kw_only=True)
class MemberParameters:
    """What mtcell can be told."""

    member: str = parameter(
        NONE,
        "a network of the multi-task family, such as mtae-adv, that has as much say in the mean as left-out training "
        "contexts give it; it is fitted for a quarter of its epochs, once and once without each of them",
    )

    def __post_init__(self) -> None:
        if self.member != NONE and not (self.member in MODELS and _can_be(self.member)):
            known = [NONE, *filter(_can_be, MODELS.ours)]
            raise InputError(
                f"mtcell's member is a network of the multi-task family, or {NONE}, not {self.member!r}; "
                f"{did_you_mean(self.member, known)}"
            )


def _can_be(name: str) -> bool:
    kind = model_class(name)
    return issubclass(kind, NetworkModel) and kind.family == "multi-task"


@dataclass(frozen=True)
class Member:
    """A network that has a say in the mean.

    Attributes
    ----------
    network
        The fitted model.
    weight
        Part of the way from mtcell's own shifts to the network's that is gone, 0 to 1.
    shifts
        (conditions, contexts, genes) its shifts of the contexts of training, by their control cells.
    """

    network: NetworkModel
    weight: float
    shifts: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, model: MTCell, data: PerturbationData, split: Split, config: TrainerConfig) -> Member | None:
        """Fit and weigh the member that ``model`` asks for, whose own means are fitted already.

        None, and a warning says so, where there are no two training contexts to leave out.
        """
        from multipert.progress import Progress

        name = model.parameters.member
        cells = model.learnt_["cells"].copy()
        cells[model.learnt_["unseen"]] = 0
        contexts = np.flatnonzero((cells[0] > 0) & (cells[1:] > 0).any(axis=0)).tolist()
        if len(contexts) < 2:
            warnings.warn(
                f"there are no two training contexts to choose the weight of {name} by: mtcell goes without a member",
                InputWarning,
                stacklevel=4,
            )
            return None
        products = moments = 0.0
        with Progress(config.progress, amount=lambda done, total: f"fit {done}/{total}") as progress:
            progress.begin(f"{name}, member of mtcell", len(contexts) + 1)
            for done, context in enumerate(contexts, 1):
                network = _fitted(model, data, _without(split, data, context), config)
                controls = data.X[_controls(data, split, context)]
                for apart, missed, counts in _left_out(model, context, network, controls):
                    products += counts * float(apart @ apart)
                    moments += counts * float(apart @ missed)
                progress.update(done, f"without {data.contexts[context]}")
            network = _fitted(model, data, split, config)
            progress.update(len(contexts) + 1, "with all contexts")
        penalty = caution(len(contexts)) * products
        part = min(max(moments / (products + penalty), 0.0), 1.0) if products > 0 else 0.0
        shifts = np.zeros((len(data.conditions), len(data.contexts), len(data.genes)), dtype=np.float32)
        for context in np.flatnonzero(cells[0]).tolist():
            controls = data.X[_controls(data, split, context)]
            for condition in range(1, len(data.conditions)):
                shifts[condition, context] = shift(network, controls, condition)
        return cls(network, part, shifts)

    def arrays(self) -> Arrays:
        """What a run folder keeps."""
        network = {f"{PREFIX}network.{name}": array for name, array in self.network._arrays().items()}
        return {f"{PREFIX}weight": np.array([self.weight]), f"{PREFIX}shifts": self.shifts, **network}

    @classmethod
    def take(cls, name: str, seed: int, metadata: FitMetadata, arrays: Arrays) -> tuple[Member | None, Arrays]:
        """The member in what a run folder holds, if there is one, and the other arrays.

        Raises
        ------
        InputError
            It is damaged.
        """
        own = {key: array for key, array in arrays.items() if key.startswith(PREFIX)}
        others = {key: array for key, array in arrays.items() if key not in own}
        if name == NONE or not own:
            return None, arrays
        network = _network(name, seed)
        network.metadata_ = metadata
        shape = len(metadata.conditions), len(metadata.contexts), len(metadata.genes)
        layout = {f"{PREFIX}network.{key}": wanted for key, wanted in network._layout().items()}
        check_arrays(own, {f"{PREFIX}weight": ((1,), "f"), f"{PREFIX}shifts": (shape, "f"), **layout})
        network._restore({key.removeprefix(f"{PREFIX}network."): own[key] for key in layout})
        return cls(network, float(own[f"{PREFIX}weight"][0]), own[f"{PREFIX}shifts"]), others


def shift(network: NetworkModel, X: csr_matrix, condition: int) -> Doubles:
    """A network's shift of control cells ``X`` (cells, genes), (genes,)."""
    total = np.zeros(X.shape[1])
    for start in range(0, X.shape[0], PREDICTED_AT_ONCE):
        some = X[start : start + PREDICTED_AT_ONCE]
        group = np.zeros(some.shape[0], dtype=np.int64)
        total += network._predict(some, group, condition).sum(axis=0, dtype=np.float64)
        total -= network._predict(some, group, 0).sum(axis=0, dtype=np.float64)
    mean: Doubles = total / X.shape[0]
    return mean


def _network(name: str, seed: int) -> NetworkModel:
    """An unfitted member, to be trained for part of its epochs."""
    kind = model_class(name)
    few = {key: max(1, round(PART * n)) for key, n in preset_values(kind, DEFAULT).items() if key.endswith("epochs")}
    network = kind(seed=seed, **few)
    assert isinstance(network, NetworkModel)
    return network


def _fitted(model: MTCell, data: PerturbationData, split: Split, config: TrainerConfig) -> NetworkModel:
    network = _network(model.parameters.member, model.seed)
    return network.fit(data, split, device=config.device, precision=config.precision, progress=False)


def _without(split: Split, data: PerturbationData, context: int) -> Split:
    """A split in which the perturbed cells of a training context take no part."""
    here = (data.context == context) & (data.condition > 0)
    return replace(split, train=split.train[~here[split.train]], validation=split.validation[~here[split.validation]])


def _controls(data: PerturbationData, split: Split, context: int) -> npt.NDArray[np.int64]:
    """The control cells of a context that training may see."""
    rows = split.visible
    return data.sample(rows[(data.context[rows] == context) & (data.condition[rows] == 0)])


def _left_out(
    model: MTCell, context: int, network: NetworkModel, controls: csr_matrix
) -> Iterator[tuple[Doubles, Doubles, float]]:
    """How a context is predicted that neither saw perturbed.

    Yields, for each perturbation that other contexts tell of, how far the network's mean lies from mtcell's own and how
    far the truth does, (genes,) each; and how much it counts.
    """
    seen, alone = model.learnt_["cells"][:, context], copy.copy(model)
    cells = model.learnt_["cells"].copy()
    cells[1:, context] = 0
    alone.learnt_ = {**model.learnt_, "cells": cells}
    alone._stack(["mean"])
    for condition in range(1, len(seen)):
        if seen[condition] == 0 or condition in model.learnt_["unseen"] or not len(alone._seen(condition)):
            continue
        control, own, _ = alone.known_response(condition, context)
        truth = model._of("mean", condition, np.array([context]))[0]
        apart = np.maximum(control + shift(network, controls, condition), 0) - own
        yield apart, truth - own, weight(truth - control)
