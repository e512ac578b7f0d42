"""What a method says of its training: stages, and in each the losses that move its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from multipert.training.examples import Batch, Examples, Sampler

if TYPE_CHECKING:
    from torch import Tensor, nn

Terms: TypeAlias = "Mapping[str, Tensor]"
"""Losses of a batch by name. The first is minimised; the others are only recorded."""

Loss = Callable[[Batch], Terms]
Keep = Literal["best", "last", "best-if-stopped"]
"""Which weights a stage ends with: those of the best validation loss, the last ones, or the best where it stopped early
and the last where it went to its end."""

Schedule = Callable[[int], float]


@dataclass(eq=False)
class Optimiser:
    """A rule of change for the parameters of some modules.

    Two stages that name the same object share its state (Adam's moments); a new object starts afresh.

    Parameters
    ----------
    modules
        Whose parameters move.
    rule
        Adam (Kingma 2015) or plain stochastic gradient descent.
    lr
        Learning rate before any schedule.
    betas, epsilon, weight_decay
        Adam's, with torch's defaults.
    """

    modules: Sequence[nn.Module]
    lr: float
    rule: Literal["adam", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What moves."""
        return [parameter for module in self.modules for parameter in module.parameters()]


def constant(step: int) -> float:
    """The learning rate as it is, at every step."""
    return 1.0


def warmup(steps: int) -> Schedule:
    """Linear from 0 at the stage's first step to 1 at step ``steps``, then constant."""
    return lambda step: min(1.0, step / steps) if steps else 1.0


def step_decay(factor: float, every: int) -> Schedule:
    """Multiplied by ``factor`` at the stage's step number ``every``, twice that and so on, the first being number 1."""
    return lambda step: factor ** ((step + 1) // every)


@dataclass(frozen=True)
class Update:
    """One move in every batch: the loss, the parameters that follow its gradient, and how fast.

    Parameters
    ----------
    optimiser
        What follows the gradient: one rule of change, or several for different modules.
    loss
        What is minimised.
    schedule
        What every learning rate is multiplied by, step by step.
    """

    optimiser: Optimiser | Sequence[Optimiser]
    loss: Loss
    schedule: Schedule = constant

    @property
    def optimisers(self) -> Sequence[Optimiser]:
        """All that follow the gradient."""
        return [self.optimiser] if isinstance(self.optimiser, Optimiser) else self.optimiser


@dataclass(frozen=True)
class Stage:
    """One phase of training.

    Parameters
    ----------
    name
        How the history and the progress line call it.
    batches
        What it trains on.
    epochs
        How many passes over the batches, at most.
    updates
        The moves made in every batch, in order.
    validation
        Examples on which a loss is measured after each epoch, nothing moving.
    patience
        Stop after this many epochs without a better validation loss.
    keep
        Which weights it ends with, where there is a patience; without one, the last.
    measure
        The loss that is measured on the validation examples; by default the first update's.
    """

    name: str
    batches: Sampler
    epochs: int
    updates: Sequence[Update]
    validation: Examples | None = None
    patience: int | None = None
    keep: Keep = "best"
    measure: Loss | None = None
