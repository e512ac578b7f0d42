"""Several fits of one network trained as one: their weights stacked, each step a ``vmap`` over the members."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from multipert.progress import Progress
from multipert.training.acceleration import FusedAdam, accelerate
from multipert.training.config import TrainerConfig
from multipert.training.examples import Batch, Examples
from multipert.training.history import History
from multipert.training.loading import DataLoader
from multipert.training.stages import Stage, Update
from multipert.training.trainer import EarlyStopping, as_text, epoch_progress, validate

Tensors = dict[str, Tensor]


@dataclass(eq=False)
class Member:
    """One fit among several.

    Attributes
    ----------
    network
        The plain network; holds the member's weights as they were at the end of its last epoch.
    stages
        What it goes through.
    seed
        Of the order of its batches.
    history
        One row for each of its epochs; the seconds are its share of the time spent on all.
    """

    network: nn.Module
    stages: Sequence[Stage]
    seed: int
    history: History = field(default_factory=History)


def can_be_stacked(members: Sequence[Member]) -> bool:
    """Whether the members go through the same stages in batches of the same size, each optimiser in one stage alone.

    That their losses look at nothing but the tensors of a batch, as ``vmap`` needs it, only the method can know.
    """
    shapes = {
        tuple((stage.name, stage.batches.size, stage.batches.always_full, len(stage.updates)) for stage in one.stages)
        for one in members
    }
    stages = members[0].stages
    used = [one for stage in stages for one in {o for update in stage.updates for o in update.optimisers}]
    return (
        len(shapes) == 1
        and all(stage.batches.always_full for stage in stages)
        and len(set(used)) == len(used)
        and all(optimiser.rule == "adam" for optimiser in used)
    )


def train_ensemble(members: Sequence[Member], config: TrainerConfig) -> None:
    """Train all members through their stages; afterwards each network is on the CPU, in evaluation mode.

    The members go in lockstep: a step moves all of them, each by a batch of its own. A member with fewer batches to an
    epoch is sooner through its epochs, and one may stop early; what it does until the last is done with the stage is
    forgotten. Each comes out as if it were trained alone, but for the random numbers of dropout and noise.

    Parameters
    ----------
    members
        Of networks of one shape; :func:`can_be_stacked`.
    config
        Where it runs; resolved, nothing in it ``"auto"``. There are no checkpoints.
    """
    device = torch.device(config.device)
    plain = [
        accelerate(
            one.network.to(device),
            one.stages[0].batches.matrix.shape[1],
            sparse=False,
            bfloat16=config.precision == "bfloat16",
        )
        for one in members
    ]
    ensemble = _Ensemble(members, DataLoader(device))
    with epoch_progress(config) as progress:
        for stage in range(len(members[0].stages)):
            ensemble.run_stage(stage, progress)
    for one, restore in zip(members, plain, strict=True):
        restore()
        one.network.eval().cpu()


class _Ensemble:
    """The members, and their stacked weights while a stage runs."""

    def __init__(self, members: Sequence[Member], loader: DataLoader) -> None:
        self.members, self.loader = members, loader
        self.caller = _Caller(members[0].network)
        self.orders: dict[Member, Examples] = {}
        self.started = time.monotonic()

    def run_stage(self, number: int, progress: Progress) -> None:
        """Train until every member is done with the stage; then each network holds its weights."""
        stages = [one.stages[number] for one in self.members]
        first = stages[0]
        stacked = stack_module_state([one.network.train() for one in self.members])
        self.parameters: dict[str, nn.Parameter] = stacked[0]
        self.buffers: Tensors = stacked[1]
        names = {id(parameter): name for name, parameter in self.members[0].network.named_parameters()}
        moving = [[names[id(p)] for o in update.optimisers for p in o.parameters] for update in first.updates]
        optimisers = [
            [
                FusedAdam(
                    [self.parameters[names[id(p)]] for p in o.parameters], o.lr, o.betas, o.epsilon, o.weight_decay
                )
                for o in update.optimisers
            ]
            for update in first.updates
        ]
        best = [EarlyStopping(stage) for stage in stages]
        epochs, going, step = [0] * len(stages), set(range(len(stages))), 0
        sums: Tensors = {}
        progress.begin(f"{first.name} ({len(stages)} fits)", first.epochs * len(stages))
        while going:
            cells, labels = self._batch(stages, number, step)
            for update, names_, follow in zip(first.updates, moving, optimisers, strict=True):
                for name, value in self._gradients(update, names_, cells, labels).items():
                    sums[name] = sums.get(name, 0.0) + value
                for optimiser in follow:
                    optimiser.step(update.schedule(step))
            step += 1
            for n in [n for n in sorted(going) if step % len(stages[n].batches) == 0]:
                losses = self._end_epoch(n, stages[n], epochs[n], {name: total[n] for name, total in sums.items()})
                for total in sums.values():
                    total[n] = 0.0
                epochs[n] += 1
                if best[n].stops(self.members[n].network, losses, epochs[n]):
                    going.remove(n)
                progress.update(sum(epochs), as_text(losses))
                self.members[0].network.train()

    def _batch(self, stages: Sequence[Stage], number: int, step: int) -> tuple[Tensors, Tensors]:
        """The batches of all members: cells ``(members, cells, genes)`` and labels ``(members, cells)``, by name."""
        parts = []
        for member, stage in zip(self.members, stages, strict=True):
            sampler, (epoch, within) = stage.batches, divmod(step, len(stage.batches))
            if within == 0:
                self.orders[member] = sampler.order(epoch, member.seed + 1000 * number)
            parts.append(self.orders[member].at(slice(within * sampler.size, (within + 1) * sampler.size)))
        first = parts[0]
        together = Examples(
            first.matrix,
            {role: np.concatenate([part.cells[role] for part in parts]) for role in first.cells},
            {name: np.concatenate([part.labels[name] for part in parts]) for name in first.labels},
        )
        (batch,) = self.loader.in_order(together, len(together))
        shape = (len(parts), len(first))
        cells = {role: profiles.to_dense().view(*shape, -1) for role, profiles in batch.cells.items()}
        return cells, {name: label.view(shape) for name, label in batch.labels.items()}

    def _gradients(self, update: Update, moving: Sequence[str], cells: Tensors, labels: Tensors) -> Tensors:
        """Leave each member's gradient at the parameters that move; give the loss's terms, each ``(members,)``."""

        def loss(own: Tensors, still: Tensors, buffers: Tensors, x: Tensors, y: Tensors) -> tuple[Tensor, Tensors]:
            state = {f"network.{name}": tensor for name, tensor in (own | still | buffers).items()}
            terms = functional_call(self.caller, state, (lambda: update.loss(Batch(x, y)),))
            return next(iter(terms.values())), {name: value.detach() for name, value in terms.items()}

        values = {name: parameter.detach() for name, parameter in self.parameters.items()}
        own = {name: values.pop(name) for name in moving}
        step = vmap(grad(loss, has_aux=True), randomness="different")
        gradients, terms = step(own, values, self.buffers, cells, labels)
        for name, gradient in gradients.items():
            self.parameters[name].grad = gradient
        return dict(terms)

    @torch.no_grad()
    def _end_epoch(self, number: int, stage: Stage, epoch: int, sums: Tensors) -> dict[str, float]:
        """Hand a member its weights, measure its validation loss and enter the epoch into its history."""
        member = self.members[number]
        state = member.network.state_dict()
        for name, tensor in (self.parameters | self.buffers).items():
            state[name].copy_(tensor[number])
        member.network.eval()
        length = len(stage.batches)
        losses = {f"train_{name}": total / length for name, total in sums.items()}
        losses |= validate(stage, self.loader, epoch)
        read = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        seconds = (time.monotonic() - self.started) / len(self.members)
        member.history.add(stage.name, epoch + 1, member.history.steps + length, seconds, read)
        return read


class _Caller(nn.Module):
    """Calls a function as if it were a module's, so that the tensors of ``network`` can be exchanged for the call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, do: Callable[[], Mapping[str, Any]]) -> Any:
        """What ``do`` gives."""
        return do()
