"""The one loop every network is trained by."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor, nn

from multipert.errors import InputError
from multipert.progress import Progress
from multipert.training.acceleration import FusedAdam, GradientDescent, accelerate, switched_on
from multipert.training.checkpoint import Checkpoint, under, within
from multipert.training.config import Interrupted, TrainerConfig
from multipert.training.device import restore_stream, stream_state
from multipert.training.examples import Batch
from multipert.training.history import History
from multipert.training.loading import DataLoader
from multipert.training.stages import Optimiser, Stage, Update

CHECKPOINT_EVERY = 30.0
"""Seconds between two checkpoints, at least: what a killed training loses at most, and an epoch; the first is after
one epoch."""

MEASURED_AT_ONCE = (256, 2048)
"""Validation cells that pass through a network together, at least: on a CPU, on an accelerator."""

WORTH_COMPILING = 4000
"""Steps from which compiled loops gain more time than it takes to compile them, where no earlier fit did."""

HEARS_CTRL_C_WITHIN = 0.1
"""Seconds the caller's thread sleeps at a time while another trains."""


def train(
    network: nn.Module,
    stages: Sequence[Stage],
    *,
    seed: int,
    config: TrainerConfig,
    identity: Mapping[str, Any],
) -> History:
    """Train ``network`` through ``stages``; go on from the checkpoint in the folder of ``config`` if there is one.

    Dropout and noise draw from torch's own generator: see :func:`~multipert.training.random_stream`.

    Parameters
    ----------
    network
        Moves in place; ends on the CPU, in evaluation mode.
    stages
        What to minimise, over what, for how long.
    seed
        Of the order of the batches.
    config
        Where it runs, and where checkpoints go; resolved, nothing in it ``"auto"``.
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
    trainer = Trainer(network, stages, seed, config, identity)
    # A thread of its own, for two reasons. Adam's moments of genes that are seldom seen decay into denormal numbers,
    # which slow a step down several times unless flushed to zero; that is a setting of the thread (and of the pool of
    # threads it starts), and the caller's arithmetic is not ours to change. And Ctrl-C reaches the caller's thread
    # alone, so that the batch in progress is always finished.
    going, outcome = Event(), Future[None]()

    def run() -> None:
        going.wait()
        if trainer.interrupted:  # before it began
            return
        torch.set_flush_denormal(True)
        try:
            trainer.run()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    thread = Thread(target=run, name="training", daemon=True)
    try:
        thread.start()
        going.set()
        # Looks up now and then, because a library that puts its own handler of Ctrl-C before Python's (polars does) may
        # keep the signal from ending a wait.
        while not wait([outcome], HEARS_CTRL_C_WITHIN).done:
            pass
        outcome.result()
    except KeyboardInterrupt:
        trainer.interrupted, began = True, going.is_set()
        going.set()
        if began:  # not by joining the thread, which an interrupt makes Python take for one that ended
            wait([outcome])
            with suppress(Interrupted):
                outcome.result()
    if trainer.unfinished:
        raise Interrupted
    return trainer.history


@dataclass
class EarlyStopping:
    """The best validation loss of a stage so far, and the weights that gave it."""

    stage: Stage
    loss: float = float("inf")
    epoch: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def stops(self, network: nn.Module, losses: Mapping[str, float], epoch: int) -> bool:
        """Keep the best weights; say whether the stage ends with this epoch, and if so leave it with those it keeps."""
        stage, stopped = self.stage, False
        loss = next((value for name, value in losses.items() if name.startswith("validation_")), None)
        if stage.patience is not None and loss is not None:
            if loss < self.loss:
                self.loss, self.epoch = loss, epoch
                self.tensors = {} if stage.keep == "last" else self._changing(network)
            stopped = epoch - self.epoch >= stage.patience
        ends = stopped or epoch == stage.epochs
        if ends and (stage.keep == "best" or (stage.keep == "best-if-stopped" and stopped)):
            network.load_state_dict(self.tensors, strict=False)
        return ends

    def _changing(self, network: nn.Module) -> dict[str, Tensor]:
        """A copy of the parameters that the stage moves, and of all buffers."""
        still = set(map(id, network.parameters())) - {
            id(parameter) for update in self.stage.updates for one in update.optimisers for parameter in one.parameters
        }
        return {
            name: tensor.detach().clone()
            for name, tensor in network.state_dict(keep_vars=True).items()
            if id(tensor) not in still
        }


class Trainer:
    """A training in progress: what moves, and where it stands. See :func:`train`."""

    def __init__(
        self,
        network: nn.Module,
        stages: Sequence[Stage],
        seed: int,
        config: TrainerConfig,
        identity: Mapping[str, Any],
    ) -> None:
        self.device = torch.device(config.device)
        self.network, self.stages, self.seed = network.to(self.device), stages, seed
        self.config, self.identity = config, identity
        self.loader = DataLoader(self.device)
        self.optimisers: dict[Optimiser, FusedAdam | GradientDescent] = {}
        self.history = History()
        self.stage = self.epoch = self.step = 0
        self.sums: dict[str, Tensor] = {}
        self.best: EarlyStopping | None = None
        self.seconds_before = 0.0
        self.started, self.saved = time.monotonic(), -inf
        self.interrupted = False

    @property
    def seconds(self) -> float:
        """Time in training, over all starts."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def unfinished(self) -> bool:
        """Whether stages are left."""
        return self.stage < len(self.stages)

    def run(self) -> None:
        """Go through what is left of every stage."""
        on_cpu, steps = self.device.type == "cpu", sum(stage.epochs * len(stage.batches) for stage in self.stages)
        plain = accelerate(
            self.network,
            self.stages[0].batches.matrix.shape[1] if self.stages else 0,
            sparse=on_cpu and switched_on("sparse-input"),
            bfloat16=self.config.precision == "bfloat16",
            compiled=on_cpu and switched_on("compiled-loops") and steps >= WORTH_COMPILING,
        )
        try:
            self._resume()
            with epoch_progress(self.config) as progress:
                while self.unfinished:
                    self._run_stage(self.stages[self.stage], progress)
                    self._end_stage()
        finally:
            plain()
            self.network.eval().cpu()

    def _run_stage(self, stage: Stage, progress: Progress) -> None:
        for optimiser in dict.fromkeys(one for update in stage.updates for one in update.optimisers):
            self._at_work(optimiser)
        self.best = self.best or EarlyStopping(stage)
        # Each stage shuffles in its own order, so that no stage repeats another's batches.
        batches = self.loader.endless(stage.batches, self.seed + 1000 * self.stage, self.step)
        progress.begin(stage.name, stage.epochs, self.epoch)
        self.network.train()
        ends = False
        while not ends:
            self._move(stage, next(batches))
            self.step += 1
            if ended := self.step % len(stage.batches) == 0:
                losses = self._end_epoch(stage)
                ends = self.best.stops(self.network, losses, self.epoch)
                progress.update(self.epoch, as_text(losses))
            if self.interrupted and not ends:
                self._checkpoint()
                raise Interrupted
            if ended and not ends and time.monotonic() - self.saved > CHECKPOINT_EVERY:
                self._checkpoint()

    def _end_stage(self) -> None:
        """On to the next stage."""
        self.stage, self.epoch, self.step, self.best = self.stage + 1, 0, 0, None
        later = {one for stage in self.stages[self.stage :] for update in stage.updates for one in update.optimisers}
        self.optimisers = {named: optimiser for named, optimiser in self.optimisers.items() if named in later}
        if self.unfinished and self.interrupted:
            self._checkpoint()
            raise Interrupted

    def _at_work(self, named: Optimiser) -> FusedAdam | GradientDescent:
        """The optimiser at work; built when first asked for."""
        if named not in self.optimisers:
            self.optimisers[named] = (
                GradientDescent(named.parameters, named.lr)
                if named.rule == "sgd"
                else FusedAdam(named.parameters, named.lr, named.betas, named.epsilon, named.weight_decay)
            )
        return self.optimisers[named]

    def _move(self, stage: Stage, batch: Batch) -> None:
        """Make all moves of one batch."""
        for update in stage.updates:
            for name, value in self._update(update, batch).items():
                self.sums[name] = self.sums.get(name, 0.0) + value.detach()

    def _update(self, update: Update, batch: Batch) -> Mapping[str, Tensor]:
        """Follow one loss's gradient once; only this update's parameters get one."""
        terms = update.loss(batch)
        optimisers = [self.optimisers[named] for named in update.optimisers]
        moving = [parameter for optimiser in optimisers for parameter in optimiser.parameters]
        torch.autograd.backward(next(iter(terms.values())), inputs=moving)
        for optimiser in optimisers:
            optimiser.step(update.schedule(self.step))
        return terms

    def _end_epoch(self, stage: Stage) -> dict[str, float]:
        """Measure the validation loss and enter the epoch into the history."""
        self.network.eval()
        length = len(stage.batches)
        losses = {f"train_{name}": total / length for name, total in self.sums.items()}
        losses |= validate(stage, self.loader, self.epoch)
        # Read at once: on a GPU, this is where the host waits for it.
        read = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        self.sums = {}
        self.epoch += 1
        self.history.add(stage.name, self.epoch, self.history.steps + length, self.seconds, read)
        if self.config.on_epoch is not None:
            before = time.monotonic()
            self.config.on_epoch(self.network, self.history)
            self.started += time.monotonic() - before
        self.network.train()
        return read

    def _checkpoint(self) -> None:
        if self.config.folder is None:
            return
        tensors = under("network", self.network.state_dict()) | under("stream", stream_state(self.device))
        for number, named in enumerate(self._named()):
            if named in self.optimisers:
                tensors |= under(f"optimiser{number}", self.optimisers[named].state())
        tensors |= under("sums", self.sums)
        position: dict[str, Any] = {
            "stage": self.stage,
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "terms": list(self.sums),
            "history": self.history.rows,
        }
        if self.best is not None:
            tensors |= under("best", self.best.tensors)
            position |= {"best": [self.best.loss, self.best.epoch] if self.best.epoch else None}
        Checkpoint(self.identity, position, tensors).save(self.config.folder)
        self.saved = time.monotonic()

    def _resume(self) -> None:
        checkpoint = Checkpoint.load(self.config.folder) if self.config.folder else None
        if checkpoint is None:
            return
        if checkpoint.identity != self.identity:
            differing = [key for key in self.identity if checkpoint.identity.get(key) != self.identity[key]]
            raise InputError(
                f"{self.config.folder} holds an unfinished training with other {', '.join(differing)}: "
                "repeat that call to finish it, or choose another folder"
            )
        tensors, position = checkpoint.tensors, checkpoint.position
        self.saved = time.monotonic()
        self.network.load_state_dict(within("network", tensors))
        restore_stream(within("stream", tensors), self.device)
        for number, named in enumerate(self._named()):
            if state := within(f"optimiser{number}", tensors):
                self._at_work(named).restore(state)
        self.stage, self.epoch, self.step = position["stage"], position["epoch"], position["step"]
        self.seconds_before, self.history = position["seconds"], History(list(position["history"]))
        # In the order they were measured in: safetensors keeps names sorted.
        self.sums = {name: tensors[f"sums/{name}"].to(self.device) for name in position["terms"]}
        if position.get("best"):
            loss, epoch = position["best"]
            self.best = EarlyStopping(self.stages[self.stage], loss, epoch, within("best", tensors))

    def _named(self) -> list[Optimiser]:
        """The optimisers of all stages in the order of their first use, each once: two stages may share one."""
        updates = (update for stage in self.stages for update in stage.updates)
        return list(dict.fromkeys(optimiser for update in updates for optimiser in update.optimisers))


def epoch_progress(config: TrainerConfig) -> Progress:
    """Shows the epochs done in a stage, and its losses."""
    return Progress(config.progress, amount=lambda done, total: f"epoch {done}/{total}")


def as_text(losses: Mapping[str, float]) -> str:
    """Losses by name, in a line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in losses.items())


@torch.no_grad()
def validate(stage: Stage, loader: DataLoader, epoch: int) -> dict[str, Tensor]:
    """The stage's measured loss over its validation examples; its network is in evaluation mode."""
    if stage.validation is None or len(stage.validation) == 0:
        return {}
    measure = stage.measure or stage.updates[0].loss
    size = max(stage.batches.size, MEASURED_AT_ONCE[loader.device.type != "cpu"])
    sums: dict[str, Tensor] = {}
    for batch in loader.in_order(stage.validation.in_file_order, size, epoch):
        for name, value in measure(batch).items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value * len(batch)
    return {f"validation_{name}": total / len(stage.validation) for name, total in sums.items()}
