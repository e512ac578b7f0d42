"""The one loop every network is trained by: one lane, or several in lockstep."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from multipert.errors import InputError
from multipert.networks import Lanes, set_precision
from multipert.training.batches import Batch, Feed, Loader, in_order
from multipert.training.checkpoint import Checkpoint, under, within
from multipert.training.config import Interrupted, TrainerConfig
from multipert.training.history import History
from multipert.training.lane_optimiser import LaneOptimiser
from multipert.training.memory import keep_freed_memory
from multipert.training.progress import TrainingProgress
from multipert.training.stages import Optimiser, Stage, Update
from multipert.training.threads import release_threads

CHECKPOINT_EVERY = 30.0
"""Seconds between two checkpoints, at least: what a killed training loses at most, and an epoch."""

MEASURED_AT_ONCE = (256, 2048)
"""Validation cells that pass through a network together, at least: on a CPU, on an accelerator."""

HEARS_CTRL_C_WITHIN = 0.1
"""Seconds the caller's thread sleeps at a time while another trains."""

STREAM = "stream"
"""Under which name a lane that is done keeps its random stream, beside what it keeps of the network."""


@dataclass
class _Best:
    """The best validation loss of the running stage, and what of the lane gave it."""

    loss: float = float("inf")
    epoch: int = -1
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class _Lane:
    """A lane's own course through the training.

    Attributes
    ----------
    number
        Its place among the lanes.
    stages
        What it goes through.
    seed
        Of the order of its batches.
    epoch, steps
        Epochs done in the running stage; batches over all stages.
    best
        Where early stopping returns to.
    kept
        When it is done with the running stage before the others: what of it goes on moving, as it was then.
    """

    number: int
    stages: Sequence[Stage]
    seed: int
    history: History = field(default_factory=History)
    epoch: int = 0
    steps: int = 0
    best: _Best = field(default_factory=_Best)
    kept: dict[str, Tensor] | None = None


def train(
    network: nn.Module,
    lanes: Lanes,
    stages: Sequence[Stage],
    *,
    seed: int,
    config: TrainerConfig,
    identity: Mapping[str, Any],
) -> History:
    """Train a network of one lane; see :func:`train_lanes`."""
    return train_lanes(network, lanes, [stages], seeds=[seed], config=config, identity=identity)[0]


def train_lanes(
    network: nn.Module,
    lanes: Lanes,
    stages: Sequence[Sequence[Stage]],
    *,
    seeds: Sequence[int],
    config: TrainerConfig,
    identity: Mapping[str, Any],
) -> list[History]:
    """Train ``network`` through ``stages``; go on from the checkpoint in the folder of ``config`` if there is one.

    The lanes go in lockstep: a step moves all of them, each by a batch of its own. A lane with fewer batches to an
    epoch is sooner through its epochs, and one may stop early; it then stands still until the last is done with the
    stage. Each comes out as if it were trained alone, up to the order in which numbers are added.

    Parameters
    ----------
    network
        Moves in place; ends on the CPU, in evaluation mode.
    lanes
        The random streams the network draws from.
    stages
        For each lane: what to minimise, over what, for how long. The losses that move the network are those of the
        first lane, and see all lanes at once; what is measured on validation examples is each lane's own.
    seeds
        For each lane, of the order of its batches.
    config
        Where it runs, and where checkpoints go.
    identity
        What determines this training; a checkpoint of another identity is refused.

    Returns
    -------
    list of History
        For each lane, one row for each epoch. Its seconds are the lane's share of the time spent on all.

    Raises
    ------
    InputError
        If the lanes differ in their stages, or the folder holds a checkpoint of another training.
    Interrupted
        On Ctrl-C, once the batch in progress is done and, where there is a folder, the checkpoint is written.
    """
    keep_freed_memory()
    release_threads()
    training = _Training(network, lanes, stages, seeds, config, identity)
    # A thread of its own, for two reasons. Adam's moments of genes that are seldom seen decay into denormal numbers,
    # which slow a step down several times unless flushed to zero; that is a setting of the thread (and of the pool of
    # threads it starts), and the caller's arithmetic is not ours to change. And Ctrl-C reaches the caller's thread
    # alone, so that the batch in progress is always finished.
    with ThreadPoolExecutor(1, "training", initializer=torch.set_flush_denormal, initargs=(True,)) as thread:
        try:
            running = thread.submit(training.run)
            # Looks up now and then, because a library that puts its own handler of Ctrl-C before Python's (polars does)
            # may keep the signal from ending a wait.
            while not wait([running], timeout=HEARS_CTRL_C_WITHIN).done:
                pass
            return running.result()
        except KeyboardInterrupt:
            training.interrupted = True
    if training.unfinished:
        raise Interrupted
    return training.histories


class _Training:
    """A training in progress: what moves, and where it stands."""

    def __init__(
        self,
        network: nn.Module,
        lanes: Lanes,
        stages: Sequence[Sequence[Stage]],
        seeds: Sequence[int],
        config: TrainerConfig,
        identity: Mapping[str, Any],
    ) -> None:
        shapes = {tuple((stage.name, stage.batches.lockstep, len(stage.updates)) for stage in own) for own in stages}
        if len(shapes) > 1:
            raise InputError(
                "these fits do not go through the same stages (one of them lacks the cells for some) or not in batches "
                "of the same sizes, so that they cannot be trained together: fit them one by one"
            )
        self.fabric = config.fabric()
        self.network = network.to(self.fabric.device)
        set_precision(network, config.precision, self.fabric.device)
        self.streams = lanes
        lanes.to(self.fabric.device)
        self.loader = Loader(self.fabric.device)
        self.lanes = [_Lane(n, own, seed) for n, (own, seed) in enumerate(zip(stages, seeds, strict=True))]
        self.stages = stages[0]
        self.config, self.identity = config, identity
        self.optimisers: dict[Optimiser, LaneOptimiser] = {}
        self.stage = self.step = 0
        self.sums: dict[str, Tensor] = {}
        self.seconds_before = 0.0
        self.started = self.saved = time.monotonic()
        self.interrupted = False

    @property
    def seconds(self) -> float:
        """Time in training, over all starts."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def unfinished(self) -> bool:
        """Whether stages are left."""
        return self.stage < len(self.stages)

    @property
    def histories(self) -> list[History]:
        """What happened in each lane."""
        return [lane.history for lane in self.lanes]

    @property
    def going(self) -> list[_Lane]:
        """The lanes that are not yet done with the running stage."""
        return [lane for lane in self.lanes if lane.kept is None]

    def run(self) -> list[History]:
        """Go through what is left of every stage."""
        self._resume()
        with TrainingProgress(self.config.progress) as progress:
            while self.unfinished:
                self._run_stage(self.stages[self.stage], progress)
                self._end_stage()
        self.network.eval().cpu()
        return self.histories

    def _run_stage(self, stage: Stage, progress: TrainingProgress) -> None:
        for optimiser in dict.fromkeys(optimiser for update in stage.updates for optimiser in update.optimisers):
            self._optimiser(optimiser)
        own = [lane.stages[self.stage] for lane in self.lanes]
        # Each stage shuffles in its own order, so that no stage repeats another's batches.
        seeds = [lane.seed + 1000 * self.stage for lane in self.lanes]
        feed = Feed([one.batches for one in own], seeds, self.loader)
        progress.stage(stage.name, stage.epochs, [lane.epoch for lane in self.lanes])
        self.network.train()
        while going := self.going:
            self._move(stage, feed.at(self.step), [lane.number for lane in going])
            self.step += 1
            ended = [lane for lane in going if self.step % len(own[lane.number].batches) == 0]
            for lane in ended:
                losses = self._end_epoch(lane, own[lane.number])
                progress.epoch(lane.number, lane.epoch, losses)
            if self.interrupted:
                self._checkpoint()
                raise Interrupted
            if ended and time.monotonic() - self.saved > CHECKPOINT_EVERY:
                self._checkpoint()

    def _optimiser(self, optimiser: Optimiser) -> LaneOptimiser:
        """The optimiser at work; built when first asked for."""
        if optimiser not in self.optimisers:
            self.optimisers[optimiser] = LaneOptimiser(optimiser)
        return self.optimisers[optimiser]

    def _move(self, stage: Stage, batch: Batch, lanes: Sequence[int]) -> None:
        """Make all moves of one batch, in ``lanes``."""
        for update in stage.updates:
            for name, value in self._update(update, batch, lanes).items():
                self.sums[name] = value + self.sums.get(name, 0.0)

    def _update(self, update: Update, batch: Batch, lanes: Sequence[int]) -> dict[str, Tensor]:
        """Follow one loss's gradient once; only this update's parameters get one."""
        optimisers = [self.optimisers[named] for named in update.optimisers]
        terms = update.loss(batch)
        moving = [parameter for optimiser in optimisers for parameter in optimiser.parameters]
        # Lanes do not touch each other, so that the gradient of their sum is each one's own.
        loss = next(iter(terms.values()))
        torch.autograd.backward(loss, torch.ones_like(loss), inputs=moving)
        for optimiser in optimisers:
            optimiser.step(lanes, update.schedule(self.step))
        return {name: value.detach() for name, value in terms.items()}

    def _end_epoch(self, lane: _Lane, stage: Stage) -> dict[str, float]:
        """Enter a lane's epoch into its history, the validation loss measured; see whether the lane is done."""
        self.network.eval()
        length = len(stage.batches)
        losses = {f"train_{name}": total[lane.number] / length for name, total in self.sums.items()}
        losses |= self._as_one(lane, lambda: self._validate(stage, lane.epoch))
        # Read at once: on a GPU, this is where the host waits for it.
        read = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        for total in self.sums.values():
            total[lane.number] = 0.0
        lane.epoch += 1
        lane.steps += length
        lane.history.add(stage.name, lane.epoch, lane.steps, self.seconds / len(self.lanes), read)
        if (on_epoch := self.config.on_epoch) is not None:
            before = time.monotonic()
            self._as_one(lane, lambda: on_epoch(self.network, lane.history))
            self.started += time.monotonic() - before
        stopped = self._out_of_patience(lane, stage, read)
        if stopped or lane.epoch == stage.epochs:
            self._end_lane(lane, stage, stopped)
        self.network.train()
        return read

    @torch.no_grad()
    def _validate(self, stage: Stage, epoch: int) -> dict[str, Tensor]:
        """The stage's measured loss over its validation examples, nothing moving and nothing dropped."""
        if stage.validation is None or len(stage.validation) == 0:
            return {}
        measure = stage.measure or stage.updates[0].loss
        size = max(stage.batches.size, MEASURED_AT_ONCE[self.fabric.device.type != "cpu"])
        sums: dict[str, Tensor] = {}
        for batch in in_order(stage.validation, size, epoch, self.loader):
            for name, value in measure(batch).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * len(batch)
        return {f"validation_{name}": total[0] / len(stage.validation) for name, total in sums.items()}

    def _as_one(self, lane: _Lane, do: Callable[[], Any]) -> Any:
        """What ``do`` gives while the network is that lane's alone: its weights, its random stream."""
        tensors = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        own = {f"network.{name}": tensor[lane.number : lane.number + 1] for name, tensor in tensors.items()}
        generators = self.streams.generators
        self.streams.generators = [generators[lane.number]]
        try:
            return functional_call(_Caller(self.network), own, (do,))
        finally:
            self.streams.generators = generators

    def _out_of_patience(self, lane: _Lane, stage: Stage, losses: Mapping[str, float]) -> bool:
        """Keep a lane's best weights; say whether the wait for better ones is over."""
        loss = next((value for name, value in losses.items() if name.startswith("validation_")), None)
        if stage.patience is None or loss is None:
            return False
        if loss < lane.best.loss:
            kept = [] if stage.keep == "last" else [*self._buffers(), *self._moving()]
            lane.best = _Best(loss, lane.epoch, self._take(lane, kept))
        return lane.epoch - lane.best.epoch >= stage.patience

    def _end_lane(self, lane: _Lane, stage: Stage, stopped: bool) -> None:
        """A lane is done with the stage: its weights stand still from now on, and the rest of it is kept."""
        if stage.keep == "best" or (stage.keep == "best-if-stopped" and stopped):
            self._put(lane, lane.best.tensors)
        lane.kept = self._take(lane, self._buffers()) | {STREAM: self.streams.state()[lane.number]}

    def _end_stage(self) -> None:
        """All lanes are done with the stage: on to the next, each as it was when it was done."""
        for lane in self.lanes:
            assert lane.kept is not None
            # A clone, because one that was read from a checkpoint is not aligned for torch.
            self.streams.generators[lane.number].set_state(lane.kept.pop(STREAM).clone())
            self._put(lane, lane.kept)
            lane.epoch, lane.best, lane.kept = 0, _Best(), None
        self.stage, self.step, self.sums = self.stage + 1, 0, {}
        later = {optimiser for stage in self.stages[self.stage :] for u in stage.updates for optimiser in u.optimisers}
        self.optimisers = {named: optimiser for named, optimiser in self.optimisers.items() if named in later}

    def _buffers(self) -> list[str]:
        """The names of what training changes in the network though no optimiser moves it (running means...)."""
        parameters = dict(self.network.named_parameters())
        return [name for name in self.network.state_dict() if name not in parameters]

    def _moving(self) -> list[str]:
        """The names of the parameters that the running stage moves."""
        updates = self.stages[self.stage].updates
        moving = {id(p) for update in updates for named in update.optimisers for p in named.parameters}
        return [name for name, parameter in self.network.named_parameters() if id(parameter) in moving]

    def _take(self, lane: _Lane, names: Sequence[str]) -> dict[str, Tensor]:
        """A copy of a lane's share of some of the network's tensors."""
        state = self.network.state_dict()
        return {name: state[name][lane.number].clone() for name in names}

    def _put(self, lane: _Lane, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`_take` took."""
        state = self.network.state_dict()
        for name, tensor in tensors.items():
            state[name][lane.number] = tensor

    def _checkpoint(self) -> None:
        if self.config.folder is None:
            return
        tensors = under("network", self.network.state_dict()) | {"lanes": self.streams.state()}
        for number, named in enumerate(self._named()):
            if named in self.optimisers:
                tensors |= under(f"optimiser{number}", self.optimisers[named].state())
        tensors |= under("sums", self.sums)
        for lane in self.lanes:
            tensors |= under(f"best{lane.number}", lane.best.tensors) | under(f"kept{lane.number}", lane.kept or {})
        position = {
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
            "terms": list(self.sums),
            "lanes": [
                {
                    "epoch": lane.epoch,
                    "steps": lane.steps,
                    "best": [lane.best.loss, lane.best.epoch] if lane.best.epoch > 0 else None,
                    "done": lane.kept is not None,
                    "history": lane.history.rows,
                }
                for lane in self.lanes
            ],
        }
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
        self.network.load_state_dict(within("network", tensors))
        self.streams.restore(tensors["lanes"])
        for number, named in enumerate(self._named()):
            if state := within(f"optimiser{number}", tensors):
                self._optimiser(named).restore(state)
        self.stage, self.step, self.seconds_before = position["stage"], position["step"], position["seconds"]
        sums = within("sums", tensors)
        # In the order they were measured in: safetensors keeps names sorted.
        self.sums = {name: sums[name].to(self.fabric.device) for name in position["terms"]}
        for lane, told in zip(self.lanes, position["lanes"], strict=True):
            lane.epoch, lane.steps, lane.history = told["epoch"], told["steps"], History(list(told["history"]))
            if told["best"] is not None:
                loss, epoch = told["best"]
                lane.best = _Best(loss, epoch, within(f"best{lane.number}", tensors))
            lane.kept = within(f"kept{lane.number}", tensors) if told["done"] else None

    def _named(self) -> list[Optimiser]:
        """The optimisers of all stages in the order of their first use, each once: two stages may share one."""
        updates = (update for stage in self.stages for update in stage.updates)
        return list(dict.fromkeys(optimiser for update in updates for optimiser in update.optimisers))


class _Caller(nn.Module):
    """Calls a function as if it were a module's, so that the tensors of ``network`` can be exchanged for the call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, do: Callable[[], Any]) -> Any:
        """What ``do`` gives."""
        return do()
