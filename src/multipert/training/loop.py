"""The one loop every network is trained by."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from multipert.errors import InputError
from multipert.networks import Lanes
from multipert.training.batches import Examples, in_order
from multipert.training.checkpoint import Checkpoint, optimiser_tensors, restore_optimiser, under, within
from multipert.training.history import History
from multipert.training.memory import keep_freed_memory
from multipert.training.progress import TrainingProgress
from multipert.training.stages import Optimiser, Stage, Update

CHECKPOINT_EVERY = 30.0
"""Seconds between two checkpoints, at least: what a killed training loses at most, and an epoch."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; where it has a folder, the same call goes on from the checkpoint there."""


@dataclass(frozen=True)
class Sitting:
    """How and where a training runs; nothing in it changes the result, but for the arithmetic of the device.

    Parameters
    ----------
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``: the accelerator's name in Lightning Fabric.
    folder
        Where checkpoints go; without one, nothing is written and nothing resumed.
    progress
        Whether to show progress; by default only on a terminal.
    """

    device: str = "auto"
    folder: Path | None = None
    progress: bool | None = None

    def fabric(self) -> Fabric:
        """The device, set up.

        Raises
        ------
        InputError
            If this machine has no such device.
        """
        try:
            return Fabric(accelerator=self.device, devices=1)
        except Exception as error:  # Lightning raises its own kinds, none of them public
            raise InputError(f"this machine cannot train on device {self.device!r} ({error}): try 'cpu'") from error


@dataclass
class _Best:
    """The best validation loss of the running stage, and the weights that gave it."""

    loss: float = float("inf")
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)


def train(
    network: nn.Module,
    lanes: Lanes,
    stages: Sequence[Stage],
    *,
    seed: int,
    sitting: Sitting,
    identity: Mapping[str, Any],
) -> History:
    """Train ``network`` through ``stages``; go on from the checkpoint in the sitting's folder if there is one.

    Parameters
    ----------
    network
        Moves in place; ends on the CPU, in evaluation mode.
    lanes
        The random streams the network draws from.
    stages
        What to minimise, over what, for how long.
    seed
        Of the order of the batches.
    sitting
        Where it runs, and where checkpoints go.
    identity
        What determines this training; a checkpoint of another identity is refused.

    Returns
    -------
    History
        One row for each epoch.

    Raises
    ------
    InputError
        If the folder holds a checkpoint of another training.
    Interrupted
        On Ctrl-C, once the batch in progress is done and, where there is a folder, the checkpoint is written.
    """
    keep_freed_memory()
    training = _Training(network, lanes, stages, seed, sitting, identity)
    # A thread of its own, for two reasons. Adam's moments of genes that are seldom seen decay into denormal numbers,
    # which slow a step down several times unless flushed to zero; that is a setting of the thread (and of the pool of
    # threads it starts), and the caller's arithmetic is not ours to change. And Ctrl-C reaches the caller's thread
    # alone, so that the batch in progress is always finished.
    with ThreadPoolExecutor(1, "training", initializer=torch.set_flush_denormal, initargs=(True,)) as thread:
        try:
            return thread.submit(training.run).result()
        except KeyboardInterrupt:
            training.interrupted = True
    if training.unfinished:
        raise Interrupted
    return training.history


class _Training:
    """A training in progress: what moves, and where it stands."""

    def __init__(
        self,
        network: nn.Module,
        lanes: Lanes,
        stages: Sequence[Stage],
        seed: int,
        sitting: Sitting,
        identity: Mapping[str, Any],
    ) -> None:
        self.fabric = sitting.fabric()
        self.network = network.to(self.fabric.device)
        self.lanes, self.stages, self.seed = lanes, stages, seed
        self.sitting, self.identity = sitting, identity
        lanes.to(self.fabric.device)
        # In the order of their first use, each once: two stages may share one.
        named = dict.fromkeys(
            optimiser for stage in stages for update in stage.updates for optimiser in update.optimisers
        )
        self.optimisers: dict[Optimiser, torch.optim.Optimizer] = {optimiser: optimiser.build() for optimiser in named}
        self.history = History()
        self.stage = self.epoch = self.step = self.steps = 0
        self.sums: dict[str, Tensor] = {}
        self.best = _Best()
        self.seconds_before = 0.0
        self.started = self.saved = time.monotonic()
        self.interrupted = False

    @property
    def seconds(self) -> float:
        """Time in training, over all sittings."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def unfinished(self) -> bool:
        """Whether stages are left."""
        return self.stage < len(self.stages)

    def run(self) -> History:
        """Go through what is left of every stage."""
        self._resume()
        with TrainingProgress(self.sitting.progress) as progress:
            while self.unfinished:
                self._run_stage(self.stages[self.stage], progress)
                self.stage, self.epoch = self.stage + 1, 0
        self.network.eval().cpu()
        return self.history

    def _run_stage(self, stage: Stage, progress: TrainingProgress) -> None:
        progress.stage(stage.name, stage.epochs, self.epoch)
        while self.epoch < stage.epochs:
            losses = self._run_epoch(stage)
            self.epoch += 1
            self.history.add(stage.name, self.epoch, self.steps, self.seconds, losses)
            progress.epoch(self.epoch, losses)
            if stage.patience is not None and self._out_of_patience(stage, losses):
                break
            if time.monotonic() - self.saved > CHECKPOINT_EVERY:
                self._checkpoint()
        if self.best.weights:
            self.network.load_state_dict(self.best.weights)
        self.best = _Best()

    def _run_epoch(self, stage: Stage) -> dict[str, float]:
        """Train one epoch and measure the validation loss: the means of all terms."""
        self.network.train()
        # Each stage shuffles in its own order, so that no stage repeats another's batches.
        for batch in stage.batches.epoch(self.epoch, self.seed + 1000 * self.stage, start=self.step):
            batch = batch.to(self.fabric.device)
            first_step = self.epoch * len(stage.batches)
            for update in stage.updates:
                terms = self._update(update, batch, first_step + self.step)
                for name, value in terms.items():
                    self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
            self.step += 1
            self.steps += 1
            if self.interrupted:
                self._checkpoint()
                raise Interrupted
        losses = {f"train_{name}": (total / self.step).mean().item() for name, total in self.sums.items()}
        self.step, self.sums = 0, {}
        if stage.validation is not None and len(stage.validation):
            losses |= self._validate(stage, stage.validation)
        return losses

    def _update(self, update: Update, batch: Any, step: int) -> dict[str, Tensor]:
        """Follow one loss's gradient once; only this update's parameters get one."""
        optimisers = [self.optimisers[named] for named in update.optimisers]
        groups = [group for optimiser in optimisers for group in optimiser.param_groups]
        for named, group in zip(update.optimisers, groups, strict=True):  # a group each
            group["lr"] = named.lr * update.schedule(step)
        with self.fabric.autocast():
            terms = update.loss(batch)
        for optimiser in optimisers:
            optimiser.zero_grad()
        # Lanes do not touch each other, so the gradient of their sum is each one's own.
        moving = [p for group in groups for p in group["params"]]
        self.fabric.backward(next(iter(terms.values())).sum(), inputs=moving)
        for optimiser in optimisers:
            optimiser.step()
        return {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def _validate(self, stage: Stage, examples: Examples) -> dict[str, float]:
        """The stage's measured loss over all of ``examples``, nothing moving and nothing dropped."""
        self.network.eval()
        measure = stage.measure or stage.updates[0].loss
        sums: dict[str, Tensor] = {}
        for batch in in_order(examples, max(stage.batches.size, 256), self.epoch):
            batch = batch.to(self.fabric.device)
            with self.fabric.autocast():
                terms = measure(batch)
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * len(batch)
        return {f"validation_{name}": (total / len(examples)).mean().item() for name, total in sums.items()}

    def _out_of_patience(self, stage: Stage, losses: Mapping[str, float]) -> bool:
        """Keep the best weights; say whether the wait for better ones is over."""
        loss = next((value for name, value in losses.items() if name.startswith("validation_")), None)
        if loss is None:
            return False
        if loss < self.best.loss:
            weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
            self.best = _Best(loss, self.epoch, weights)
        assert stage.patience is not None
        return self.epoch - self.best.epoch >= stage.patience

    def _checkpoint(self) -> None:
        if self.sitting.folder is None:
            return
        tensors = under("network", self.network.state_dict()) | {"lanes": self.lanes.state()}
        for index, optimiser in enumerate(self.optimisers.values()):
            tensors |= under(f"optimiser{index}", optimiser_tensors(optimiser))
        tensors |= under("sums", self.sums) | under("best", self.best.weights)
        position = {
            "stage": self.stage,
            "epoch": self.epoch,
            "step": self.step,
            "steps": self.steps,
            "seconds": self.seconds,
            "best": [self.best.loss, self.best.epoch] if self.best.weights else None,
            "terms": list(self.sums),
            "history": self.history.rows,
        }
        Checkpoint(self.identity, position, tensors).save(self.sitting.folder)
        self.saved = time.monotonic()

    def _resume(self) -> None:
        checkpoint = Checkpoint.load(self.sitting.folder) if self.sitting.folder else None
        if checkpoint is None:
            return
        if checkpoint.identity != self.identity:
            differing = [key for key in self.identity if checkpoint.identity.get(key) != self.identity[key]]
            raise InputError(
                f"{self.sitting.folder} holds an unfinished training with other {', '.join(differing)}: "
                "repeat that call to finish it, or choose another folder"
            )
        tensors, position = checkpoint.tensors, checkpoint.position
        self.network.load_state_dict(within("network", tensors))
        self.lanes.restore(tensors["lanes"])
        for index, optimiser in enumerate(self.optimisers.values()):
            restore_optimiser(optimiser, within(f"optimiser{index}", tensors))
        self.stage, self.epoch, self.step = position["stage"], position["epoch"], position["step"]
        self.steps, self.seconds_before = position["steps"], position["seconds"]
        sums = within("sums", tensors)
        # In the order they were measured in: safetensors keeps names sorted.
        self.sums = {name: sums[name].to(self.fabric.device) for name in position["terms"]}
        if position["best"] is not None:
            loss, epoch = position["best"]
            self.best = _Best(loss, epoch, within("best", tensors))
        self.history = History(list(position["history"]))
