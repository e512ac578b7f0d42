"""What adversarial methods ask of the loop: unpaired sides, several optimisers on one loss, a measure of their own."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from multipert.errors import InputError
from multipert.networks import Lanes, Linear
from multipert.training import (
    Batch,
    Batches,
    Examples,
    Optimiser,
    SideBySide,
    Stage,
    TrainerConfig,
    Update,
    step_decay,
    train,
)

X = csr_matrix(np.random.default_rng(0).poisson(0.5, (40, 6)).astype(np.float32))
EXAMPLES = Examples(X, {"x": np.arange(40)}, {})


def side(name: str, *rows: int) -> Examples:
    return Examples(X, {name: np.array(rows, dtype=np.int64)}, {name: np.array(rows, dtype=np.int64)})


def test_sides_are_drawn_independently_and_gone_through_before_they_are_shuffled_anew() -> None:
    batches = SideBySide([side("a", *range(6)), side("b", *range(10, 18))], size=2, length=6)
    assert len(batches) == 6
    drawn = list(batches.epoch(3, seed=1))
    assert [len(batch) for batch in drawn] == [2] * 6
    first = torch.cat([batch.labels["a"].flatten() for batch in drawn]).tolist()
    second = torch.cat([batch.labels["b"].flatten() for batch in drawn]).tolist()
    assert sorted(first[:6]) == sorted(first[6:]) == list(range(6))
    assert first[:6] != first[6:]
    assert sorted(second[:8]) == list(range(10, 18))
    for batch in drawn:
        for name in ("a", "b"):
            np.testing.assert_array_equal(batch.cells[name].dense[0], X[batch.labels[name][0].numpy()].toarray())


def test_a_resumed_epoch_goes_on_where_it_stopped_and_the_next_is_another() -> None:
    batches = SideBySide([side("a", *range(9)), side("b", *range(9))], size=3, length=4)
    whole, rest, after = (
        [batch.labels["a"].tolist() for batch in batches.epoch(epoch, 1, start=start)]
        for epoch, start in ((0, 0), (0, 2), (1, 0))
    )
    assert whole[2:] == rest
    assert whole != after


def test_a_side_smaller_than_a_batch_repeats_and_one_without_cells_is_refused() -> None:
    (batch,) = SideBySide([side("a", 7), side("b", 1, 2)], size=4, length=1).epoch(0, 1)
    assert batch.labels["a"].tolist() == [[7] * 4]
    assert sorted(batch.labels["b"][0].tolist()) == [1, 1, 2, 2]
    with pytest.raises(InputError, match="no b cells to train on"):
        SideBySide([side("a", 7), side("b")], size=4, length=1)


class Regression(torch.nn.Module):
    def __init__(self, lanes: Lanes) -> None:
        super().__init__()
        self.first, self.second = Linear(lanes, 6, 4), Linear(lanes, 4, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch.cells["x"]
        return {"mse": (self.second(self.first(x)).squeeze(-1) - x.dense[..., 0]).square().mean(1)}


def fitted(stage: Stage, network: Regression, lanes: Lanes) -> dict[str, float | int | str]:
    return train(network, lanes, [stage], seed=5, config=TrainerConfig("cpu", progress=False), identity={}).rows[-1]


def test_several_optimisers_follow_one_loss_each_in_its_own_way() -> None:
    lanes = Lanes([5])
    ours, plain = Regression(lanes), Regression(Lanes([5]))
    optimisers = [Optimiser([ours.first], 0.05), Optimiser([ours.second], 0.02, betas=(0.5, 0.9))]
    fitted(Stage("only", Batches(EXAMPLES, 8), 2, [Update(optimisers, ours.loss, step_decay(0.5, 3))]), ours, lanes)
    theirs = [
        torch.optim.Adam(plain.first.parameters(), 0.05),
        torch.optim.Adam(plain.second.parameters(), 0.02, betas=(0.5, 0.9)),
    ]
    step = 0
    for epoch in range(2):
        for batch in Batches(EXAMPLES, 8).epoch(epoch, 5):
            for optimiser, lr in zip(theirs, (0.05, 0.02), strict=True):
                optimiser.param_groups[0]["lr"] = lr * (1.0, 0.5, 0.25, 0.125)[(step + 1) // 3]
                optimiser.zero_grad()
            plain.loss(batch)["mse"].sum().backward()
            for optimiser in theirs:
                optimiser.step()
            step += 1
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(dict(ours.named_parameters())[name], weight)


def test_early_stopping_goes_by_the_measure_where_one_is_given() -> None:
    lanes = Lanes([5])
    network = Regression(lanes)
    readings = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    seen: list[Tensor] = []

    def measure(batch: Batch) -> dict[str, Tensor]:
        assert not network.training
        seen.append(network.first.weight.detach().clone())
        return {"reading": torch.tensor([next(readings)])}

    updates = [Update(Optimiser([network], 0.05), network.loss)]
    stage = Stage("only", Batches(EXAMPLES, 8), 50, updates, EXAMPLES, patience=3, measure=measure)
    row = fitted(stage, network, lanes)
    assert row["epoch"] == 5
    assert row["validation_reading"] == 2.0
    assert "validation_mse" not in row
    assert torch.equal(network.first.weight, seen[1])


@pytest.mark.parametrize("epochs", [50, 4])
@pytest.mark.parametrize("keep", ["best", "last", "best-if-stopped"])
def test_a_stage_ends_with_the_weights_it_is_told_to_keep(keep: Any, epochs: int) -> None:
    """The second epoch is the best; with a patience of 3 the fifth is the last, unless the stage is over before."""
    lanes = Lanes([5])
    network = Regression(lanes)
    readings = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    seen: list[Tensor] = []

    def measure(batch: Batch) -> dict[str, Tensor]:
        seen.append(network.first.weight.detach().clone())
        return {"reading": torch.tensor([next(readings)])}

    updates = [Update(Optimiser([network], 0.05), network.loss)]
    stage = Stage("only", Batches(EXAMPLES, 8), epochs, updates, EXAMPLES, patience=3, keep=keep, measure=measure)
    row = fitted(stage, network, lanes)
    assert row["epoch"] == min(epochs, 5)
    best = keep == "best" or (keep == "best-if-stopped" and epochs == 50)
    assert torch.equal(network.first.weight, seen[1 if best else -1])
