"""The loop: stages, optimisers, checkpoints, early stopping, against plain torch."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

import multipert.training.loop as loop
from multipert.errors import InputError
from multipert.networks import Dropout, Lanes, Linear
from multipert.training import (
    Batch,
    Batches,
    Examples,
    History,
    Interrupted,
    Optimiser,
    Stage,
    TrainerConfig,
    Update,
    in_order,
    train,
    warmup,
)

rng = np.random.default_rng(0)
X = csr_matrix(rng.poisson(0.5, (40, 6)).astype(np.float32))
EXAMPLES = Examples(X, {"x": np.arange(40)}, {"y": rng.normal(size=40).astype(np.float32)})


class Regression(torch.nn.Module):
    """Predicts y from x, with dropout so that the random stream matters."""

    def __init__(self, lanes: Lanes, rate: float = 0.0) -> None:
        super().__init__()
        self.first, self.drop, self.second = Linear(lanes, 6, 4), Dropout(lanes, rate), Linear(lanes, 4, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        out = self.second(self.drop(self.first(batch.cells["x"]))).squeeze(-1)
        return {"mse": (out - batch.labels["y"]).square().mean(1)}


def fit(
    stages: Callable[[Regression], Sequence[Stage]], *, rate: float = 0.0, folder: Path | None = None, **identity: Any
) -> tuple[Regression, History]:
    lanes = Lanes([5])
    network = Regression(lanes, rate)
    config = TrainerConfig("cpu", folder, progress=False)
    return network, train(network, lanes, stages(network), seed=5, config=config, identity=identity)


def one_stage(epochs: int = 3, **options: Any) -> Callable[[Regression], list[Stage]]:
    return lambda network: [
        Stage("only", Batches(EXAMPLES, 8), epochs, [Update(Optimiser([network], 0.05), network.loss)], **options)
    ]


def weights(network: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_training_is_plain_adam_over_the_same_batches() -> None:
    trained, history = fit(
        lambda network: [
            Stage(
                "only", Batches(EXAMPLES, 8), 3, [Update(Optimiser([network], 0.05), network.loss, warmup(4))], EXAMPLES
            )
        ]
    )
    plain = Regression(Lanes([5]))
    optimiser = torch.optim.Adam(plain.parameters(), lr=0.05)
    step = 0
    for epoch in range(3):
        losses = []
        for batch in Batches(EXAMPLES, 8).epoch(epoch, 5):
            optimiser.param_groups[0]["lr"] = 0.05 * min(1.0, step / 4)
            loss = plain.loss(batch)["mse"].sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            step += 1
        row = history.rows[epoch]
        assert row["train_mse"] == pytest.approx(np.mean(losses), rel=1e-5)
        everything = plain.loss(next(in_order(EXAMPLES, 40)))["mse"].item()
        assert row["validation_mse"] == pytest.approx(everything, rel=1e-5)
    torch.testing.assert_close(weights(trained), weights(plain))
    assert history.steps == 15


def test_an_epoch_holds_every_example_once_but_for_the_short_last_batch() -> None:
    batches = Batches(EXAMPLES, 12)
    seen = torch.cat([batch.labels["y"].flatten() for batch in batches.epoch(0, 1)])
    assert len(seen) == 36
    assert len(set(seen.tolist())) == 36
    again = torch.cat([batch.labels["y"].flatten() for batch in batches.epoch(1, 1)])
    assert not torch.equal(seen, again)


def test_too_few_examples_for_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match="40 training cells cannot fill a batch of 64: set batch_size to 40 or less"):
        Batches(EXAMPLES, 64)


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = (weights(fit(one_stage(), rate=0.5)[0]) for _ in range(2))
    assert torch.equal(first, second)


def test_only_the_named_modules_move() -> None:
    start = Regression(Lanes([5]))
    network, _ = fit(
        lambda network: [
            Stage("head", Batches(EXAMPLES, 8), 2, [Update(Optimiser([network.second], 0.05), network.loss)])
        ]
    )
    assert torch.equal(network.first.weight, start.first.weight)
    assert not torch.equal(network.second.weight, start.second.weight)


@pytest.mark.parametrize("shared", [True, False])
def test_two_stages_share_an_optimisers_state_only_if_they_name_the_same(shared: bool) -> None:
    def stages(network: Regression) -> list[Stage]:
        first = Optimiser([network], 0.05)
        second = first if shared else Optimiser([network], 0.05)
        return [
            Stage(name, Batches(EXAMPLES, 8), 1, [Update(optimiser, network.loss)])
            for name, optimiser in (("one", first), ("two", second))
        ]

    trained, _ = fit(stages)
    plain = Regression(Lanes([5]))
    optimiser = torch.optim.Adam(plain.parameters(), lr=0.05)
    for stage in range(2):
        if stage and not shared:
            optimiser = torch.optim.Adam(plain.parameters(), lr=0.05)
        for batch in Batches(EXAMPLES, 8).epoch(0, 5 + 1000 * stage):
            optimiser.zero_grad()
            plain.loss(batch)["mse"].sum().backward()
            optimiser.step()
    torch.testing.assert_close(weights(trained), weights(plain))


def test_early_stopping_returns_to_the_best_weights() -> None:
    validation = Examples(X, {"x": np.arange(10)}, {"y": EXAMPLES.labels["y"][:10]})
    network, history = fit(one_stage(200, validation=validation, patience=3))
    losses = history.table["validation_mse"]
    best = int(losses.argmin())
    assert len(history) == best + 1 + 3 < 200
    assert network.loss(next(in_order(validation, 10)))["mse"].item() == pytest.approx(losses[best], rel=1e-5)


@pytest.mark.parametrize("ends_a_wait", [True, False], ids=["plain", "restarting"])
@pytest.mark.parametrize("at", [2, 5, 7])
def test_ctrl_c_leaves_a_checkpoint_from_which_the_result_is_the_undisturbed_one(
    tmp_path: Path, request: pytest.FixtureRequest, at: int, ends_a_wait: bool
) -> None:
    """Also where a library has set the signal to restart what it interrupted, as importing polars does."""
    request.addfinalizer(lambda: signal.siginterrupt(signal.SIGINT, True))
    signal.siginterrupt(signal.SIGINT, ends_a_wait)
    expected, undisturbed = fit(one_stage(4, validation=EXAMPLES), rate=0.5)
    calls = 0

    def interrupting(network: Regression) -> list[Stage]:
        def loss(batch: Batch) -> dict[str, Tensor]:
            nonlocal calls
            calls += network.training
            if calls == at and network.training:
                calls += 1
                os.kill(os.getpid(), signal.SIGINT)
                threading.Event().wait(0.5)  # the main thread hears of it while this batch is still in progress
            return network.loss(batch)

        update = Update(Optimiser([network], 0.05), loss)
        return [Stage("only", Batches(EXAMPLES, 8), 4, [update], EXAMPLES)]

    with pytest.raises(Interrupted):
        fit(interrupting, rate=0.5, folder=tmp_path, data="same")
    resumed, history = fit(one_stage(4, validation=EXAMPLES), rate=0.5, folder=tmp_path, data="same")
    assert torch.equal(weights(resumed), weights(expected))
    assert history.table.drop(columns="seconds").equals(undisturbed.table.drop(columns="seconds"))


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 0.0)
    fit(one_stage(), folder=tmp_path, data="one", seed=1)
    with pytest.raises(InputError, match="holds an unfinished training with other data: repeat that call to finish it"):
        fit(one_stage(), folder=tmp_path, data="two", seed=1)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(InputError, match="no checkpoint that can be read .*: delete it to start anew"):
        fit(one_stage(), folder=tmp_path)


def test_progress_off_a_terminal_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lanes = Lanes([5])
    network = Regression(lanes)
    train(network, lanes, one_stage()(network), seed=5, config=TrainerConfig("cpu", progress=True), identity={})
    assert "only: epoch 3/3  train_mse" in capsys.readouterr().err


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(InputError, match="cannot train on device 'abacus' .*: try 'cpu'"):
        TrainerConfig("abacus").fabric()


def test_the_callers_arithmetic_keeps_its_denormal_numbers() -> None:
    fit(one_stage(1))
    assert (torch.full((4,), 1e-39) * 0.5).count_nonzero() == 4
