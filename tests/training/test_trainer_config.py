"""How and where a training runs: devices, precision, a look at it epoch by epoch; what it holds in memory."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from multipert.errors import InputError
from multipert.networks import Lanes, Linear
from multipert.training import (
    Batch,
    Batches,
    Examples,
    History,
    Optimiser,
    Stage,
    TrainerConfig,
    Update,
    loop,
    train,
    train_lanes,
)

X = csr_matrix(np.random.default_rng(0).poisson(0.5, (40, 6)).astype(np.float32))


class Regression(nn.Module):
    """Predicts the first gene from all, by two layers."""

    def __init__(self, lanes: Lanes) -> None:
        super().__init__()
        self.first, self.second = Linear(lanes, 6, 4), Linear(lanes, 4, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch.cells["x"]
        return {"mse": (self.second(self.first(x)).squeeze(-1) - x.dense[..., 0]).square().mean(1)}


def stages(network: Regression, cells: int = 40, **options: Any) -> list[Stage]:
    """The second layer alone, then both; the second keeps its optimiser."""
    batches = Batches(Examples(X, {"x": np.arange(cells)}, {}), 8)
    first, second = Optimiser([network.first], 0.05), Optimiser([network.second], 0.05)
    return [
        Stage("second", batches, 2, [Update(second, network.loss)], **options),
        Stage("both", batches, 3, [Update([first, second], network.loss)], **options),
    ]


def run(config: TrainerConfig) -> tuple[Regression, History]:
    lanes = Lanes([5])
    network = Regression(lanes)
    return network, train(network, lanes, stages(network), seed=5, config=config, identity={})


def test_each_epoch_can_be_looked_at_and_the_time_that_takes_does_not_count() -> None:
    seen: list[tuple[int, bool, float]] = []

    def look(network: nn.Module, history: History) -> None:
        time.sleep(0.2)
        assert isinstance(network, Regression)
        seen.append((len(history), network.training, network.second.weight.sum().item()))

    network, history = run(TrainerConfig("cpu", progress=False, on_epoch=look))
    assert [rows for rows, _, _ in seen] == [1, 2, 3, 4, 5]
    assert not any(training for _, training, _ in seen)
    assert len({weight for _, _, weight in seen}) == 5
    assert seen[-1][2] == network.second.weight.sum().item()
    assert history.seconds < 0.8
    undisturbed, _ = run(TrainerConfig("cpu", progress=False))
    assert torch.equal(network.first.weight, undisturbed.first.weight)


def test_of_several_lanes_each_is_looked_at_alone() -> None:
    seen: dict[int, list[Tensor]] = {}

    def look(network: nn.Module, history: History) -> None:
        assert isinstance(network, Regression)
        assert network.first.weight.shape[0] == 1
        seen.setdefault(id(history), []).append(network.first.weight.detach().clone())

    lanes = Lanes([1, 2])
    network = Regression(lanes)
    courses = [stages(network, cells) for cells in (40, 24)]
    config = TrainerConfig("cpu", progress=False, on_epoch=look)
    histories = train_lanes(network, lanes, courses, seeds=[1, 2], config=config, identity={})
    for lane, history in enumerate(histories):
        assert len(seen[id(history)]) == 5
        torch.testing.assert_close(seen[id(history)][-1][0], network.first.weight[lane])


def test_an_optimiser_is_there_from_its_first_stage_to_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    move = loop._Training._move

    def counting(training: loop._Training, stage: Stage, batch: Batch, lanes: Sequence[int]) -> None:
        move(training, stage, batch, lanes)
        held.append(len(training.optimisers))

    monkeypatch.setattr(loop._Training, "_move", counting)
    lanes = Lanes([5])
    network = Regression(lanes)
    alone = Stage(
        "first again",
        Batches(Examples(X, {"x": np.arange(40)}, {}), 8),
        1,
        [Update(Optimiser([network.first], 0.05), network.loss)],
    )
    config = TrainerConfig("cpu", progress=False)
    train(network, lanes, [*stages(network), alone], seed=5, config=config, identity={})
    assert held == [1] * 10 + [2] * 15 + [1] * 5
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_this_machine_lacks_is_named() -> None:
    for device in ("cpu:1", "cuda:x", "cuda:99"):
        with pytest.raises(InputError, match=f"cannot train on device '{device}' .*: try 'cpu'"):
            TrainerConfig(device).fabric()
    with pytest.raises(InputError, match="there is no precision 'float16'"):
        run(TrainerConfig("cpu", progress=False, precision="float16"))  # type: ignore[arg-type]


def test_lanes_of_other_stages_are_refused() -> None:
    lanes = Lanes([1, 2])
    network = Regression(lanes)
    courses = [stages(network), stages(network)[:1]]
    with pytest.raises(InputError, match="do not go through the same stages"):
        train_lanes(network, lanes, courses, seeds=[1, 2], config=TrainerConfig("cpu", progress=False), identity={})
