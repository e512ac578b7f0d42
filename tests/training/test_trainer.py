"""The loop: stages, optimisers, checkpoints, early stopping, against plain torch."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from multipert.errors import InputError
from multipert.networks.layers import HiddenLayer
from multipert.training import (
    Batch,
    DataLoader,
    Examples,
    History,
    Interrupted,
    Optimiser,
    Sampler,
    Shuffled,
    Stage,
    TrainerConfig,
    Update,
    random_stream,
    step_decay,
    train,
    trainer,
    warmup,
)

rng = np.random.default_rng(0)
X = csr_matrix(rng.poisson(0.5, (40, 6)).astype(np.float32))
EXAMPLES = Examples(X, {"x": np.arange(40)}, {"y": rng.normal(size=40).astype(np.float32)})
BATCHES = Shuffled(EXAMPLES, 8)
LOADER = DataLoader(torch.device("cpu"))
CONFIG = TrainerConfig("cpu", progress=False, precision="float32")


class Regression(nn.Module):
    """Predicts y from x, with dropout so that the random stream matters."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.first, self.drop, self.second = nn.Linear(6, 4), nn.Dropout(rate), nn.Linear(4, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        out = self.second(self.drop(self.first(batch.cells["x"]))).squeeze(-1)
        return {"mse": (out - batch.labels["y"]).square().mean()}


def untrained(rate: float = 0.0) -> Regression:
    with random_stream(5):
        return Regression(rate)


def fit(
    stages: Callable[[Regression], Sequence[Stage]],
    *,
    rate: float = 0.0,
    folder: Path | None = None,
    on_epoch: Callable[[nn.Module, History], None] | None = None,
    **identity: Any,
) -> tuple[Regression, History]:
    config = replace(CONFIG, folder=folder, on_epoch=on_epoch)
    with random_stream(5):
        network = Regression(rate)
        return network, train(network, stages(network), seed=5, config=config, identity=identity)


def one_stage(epochs: int = 3, **options: Any) -> Callable[[Regression], list[Stage]]:
    return lambda network: [
        Stage("only", BATCHES, epochs, [Update(Optimiser([network], 0.05), network.loss)], **options)
    ]


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def dense(batch: Batch) -> Batch:
    return Batch({role: x.to_dense() for role, x in batch.cells.items()}, batch.labels, batch.epoch)


def epoch_of(sampler: Sampler, epoch: int, seed: int) -> list[Batch]:
    return [dense(batch) for batch in islice(LOADER.endless(sampler, seed, epoch * len(sampler)), len(sampler))]


def all_of(examples: Examples) -> Batch:
    return dense(next(LOADER.in_order(examples, len(examples))))


def test_training_is_plain_adam_over_the_same_batches() -> None:
    def stages(network: Regression) -> list[Stage]:
        return [Stage("only", BATCHES, 3, [Update(Optimiser([network], 0.05), network.loss, warmup(4))], EXAMPLES)]

    trained, history = fit(stages)
    plain = untrained()
    optimiser = torch.optim.Adam(plain.parameters(), lr=0.05)
    step = 0
    for epoch in range(3):
        losses = []
        for batch in epoch_of(BATCHES, epoch, 5):
            optimiser.param_groups[0]["lr"] = 0.05 * min(1.0, step / 4)
            loss = plain.loss(batch)["mse"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            step += 1
        row = history.rows[epoch]
        assert row["train_mse"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert row["validation_mse"] == pytest.approx(plain.loss(all_of(EXAMPLES))["mse"].item(), rel=1e-5)
    torch.testing.assert_close(weights(trained), weights(plain))
    assert history.steps == 15


def test_several_optimisers_follow_one_loss_each_in_its_own_way() -> None:
    def stages(network: Regression) -> list[Stage]:
        optimisers = [Optimiser([network.first], 0.05), Optimiser([network.second], 0.02, betas=(0.5, 0.9))]
        return [Stage("only", BATCHES, 2, [Update(optimisers, network.loss, step_decay(0.5, 3))])]

    trained, _ = fit(stages)
    plain = untrained()
    theirs = [
        torch.optim.Adam(plain.first.parameters(), 0.05),
        torch.optim.Adam(plain.second.parameters(), 0.02, betas=(0.5, 0.9)),
    ]
    step = 0
    for epoch in range(2):
        for batch in epoch_of(BATCHES, epoch, 5):
            for optimiser, lr in zip(theirs, (0.05, 0.02), strict=True):
                optimiser.param_groups[0]["lr"] = lr * 0.5 ** ((step + 1) // 3)
                optimiser.zero_grad()
            plain.loss(batch)["mse"].backward()
            for optimiser in theirs:
                optimiser.step()
            step += 1
    torch.testing.assert_close(weights(trained), weights(plain))


def test_the_same_seed_gives_the_same_weights_and_the_callers_random_stream_stays_as_it_was() -> None:
    before = torch.get_rng_state()
    first = weights(fit(one_stage(), rate=0.5)[0])
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(weights(fit(one_stage(), rate=0.5)[0]), first)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_long_training_compiles_its_loops_and_the_same_seed_gives_the_same(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Layered(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.first = HiddenLayer(6, 4, dropout=rate)  # type: ignore[assignment]

    def losses() -> list[float]:
        with random_stream(5):
            network = Layered()
            history = train(network, one_stage()(network), seed=5, config=CONFIG, identity={})
        return [float(row["train_mse"]) for row in history.rows]

    short = losses()
    monkeypatch.setattr(trainer, "WORTH_COMPILING", 0)
    long = losses()
    assert losses() == long
    assert (long == pytest.approx(short, rel=1e-4)) == (rate == 0), "dropout alone draws otherwise"


def test_only_the_named_modules_move() -> None:
    network, _ = fit(lambda n: [Stage("head", BATCHES, 2, [Update(Optimiser([n.second], 0.05), n.loss)])])
    assert torch.equal(network.first.weight, untrained().first.weight)
    assert not torch.equal(network.second.weight, untrained().second.weight)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("shared", [True, False])
def test_two_stages_share_an_optimisers_state_only_if_they_name_the_same(shared: bool) -> None:
    def stages(network: Regression) -> list[Stage]:
        first = Optimiser([network], 0.05)
        second = first if shared else Optimiser([network], 0.05)
        return [
            Stage(name, BATCHES, 1, [Update(optimiser, network.loss)])
            for name, optimiser in (("one", first), ("two", second))
        ]

    trained, _ = fit(stages)
    plain = untrained()
    optimiser = torch.optim.Adam(plain.parameters(), lr=0.05)
    for stage in range(2):
        if stage and not shared:
            optimiser = torch.optim.Adam(plain.parameters(), lr=0.05)
        for batch in epoch_of(BATCHES, 0, 5 + 1000 * stage):
            optimiser.zero_grad()
            plain.loss(batch)["mse"].backward()
            optimiser.step()
    torch.testing.assert_close(weights(trained), weights(plain))


# Early stopping.

VALIDATION = Examples(X, {"x": np.arange(10)}, {"y": EXAMPLES.labels["y"][:10]})


def test_early_stopping_returns_to_the_best_weights() -> None:
    network, history = fit(one_stage(200, validation=VALIDATION, patience=3))
    losses = history.table["validation_mse"]
    best = int(losses.argmin())
    assert len(history) == best + 1 + 3 < 200
    assert network.loss(all_of(VALIDATION))["mse"].item() == pytest.approx(losses[best], rel=1e-5)


def test_early_stopping_goes_by_the_measure_where_one_is_given() -> None:
    readings = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    seen: list[Tensor] = []

    def stages(network: Regression) -> list[Stage]:
        def measure(batch: Batch) -> dict[str, Tensor]:
            assert not network.training
            seen.append(weights(network))
            return {"reading": torch.tensor(next(readings))}

        return one_stage(50, validation=EXAMPLES, patience=3, measure=measure)(network)

    network, history = fit(stages)
    row = history.rows[-1]
    assert (row["epoch"], row["validation_reading"]) == (5, 2.0)
    assert "validation_mse" not in row
    assert torch.equal(weights(network), seen[1])


@pytest.mark.parametrize("keep", ["best", "last", "best-if-stopped"])
@pytest.mark.parametrize("readings", [(1.0, 2.0, 3.0), (1.0, 2.0, 0.5, 3.0)], ids=["stopped", "to the end"])
def test_a_stage_ends_with_the_weights_it_is_told_to_keep(keep: str, readings: tuple[float, ...]) -> None:
    seen: list[Tensor] = []
    stopped = len(readings) == 3

    def stages(network: Regression) -> list[Stage]:
        def measure(batch: Batch) -> dict[str, Tensor]:
            seen.append(weights(network))
            return {"reading": torch.tensor(readings[len(seen) - 1])}

        return one_stage(4, validation=EXAMPLES, patience=2, measure=measure, keep=keep)(network)

    network, history = fit(stages)
    assert len(history) == len(readings)
    best = keep == "best" or (keep == "best-if-stopped" and stopped)
    assert torch.equal(weights(network), seen[int(np.argmin(readings))] if best else seen[-1])


# Interruption and resumption.


@pytest.mark.parametrize("ends_a_wait", [True, False], ids=["plain", "restarting"])
@pytest.mark.parametrize("at", [2, 5, 7])
def test_ctrl_c_leaves_a_checkpoint_from_which_the_result_is_the_undisturbed_one(
    tmp_path: Path, request: pytest.FixtureRequest, at: int, ends_a_wait: bool
) -> None:
    """Also where a library has set the signal to restart what it interrupted, as importing polars does."""
    request.addfinalizer(lambda: signal.siginterrupt(signal.SIGINT, True))
    signal.siginterrupt(signal.SIGINT, ends_a_wait)

    def stages(network: Regression) -> list[Stage]:
        shared = Optimiser([network], 0.05)
        first = Stage("first", BATCHES, 4, [Update(shared, network.loss)], VALIDATION, 4)
        return [first, Stage("second", BATCHES, 1, [Update(shared, network.loss)])]

    expected, undisturbed = fit(stages, rate=0.5)
    calls = 0

    def interrupting(network: Regression) -> list[Stage]:
        loss, made = network.loss, stages

        def interrupted(batch: Batch) -> dict[str, Tensor]:
            nonlocal calls
            calls += network.training
            if calls == at and network.training:
                calls += 1
                os.kill(os.getpid(), signal.SIGINT)
                threading.Event().wait(0.5)  # the main thread hears of it while this batch is still in progress
            return loss(batch)

        network.loss = interrupted  # type: ignore[method-assign]
        return made(network)

    with pytest.raises(Interrupted):
        fit(interrupting, rate=0.5, folder=tmp_path, data="same")
    resumed, history = fit(stages, rate=0.5, folder=tmp_path, data="same")
    assert torch.equal(weights(resumed), weights(expected))
    assert history.table.drop(columns="seconds").equals(undisturbed.table.drop(columns="seconds"))


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY", 0.0)
    fit(one_stage(), folder=tmp_path, data="one", seed=1)
    with pytest.raises(InputError, match="holds an unfinished training with other data: repeat that call to finish it"):
        fit(one_stage(), folder=tmp_path, data="two", seed=1)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(InputError, match="no checkpoint that can be read .*: delete it to start anew"):
        fit(one_stage(), folder=tmp_path)


# A look from outside.


def test_progress_off_a_terminal_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    network = untrained()
    config = TrainerConfig("cpu", progress=True, precision="float32")
    train(network, one_stage()(network), seed=5, config=config, identity={})
    assert "only: epoch 3/3  train_mse" in capsys.readouterr().err


def test_each_epoch_can_be_looked_at_and_the_time_that_takes_does_not_count() -> None:
    seen: list[tuple[int, bool, Tensor]] = []

    def look(network: nn.Module, history: History) -> None:
        time.sleep(0.5)
        seen.append((len(history), network.training, weights(network)))

    network, history = fit(one_stage(4), on_epoch=look)
    assert [rows for rows, _, _ in seen] == [1, 2, 3, 4]
    assert not any(training for _, training, _ in seen)
    assert torch.equal(seen[-1][2], weights(network))
    assert not torch.equal(seen[0][2], seen[1][2])
    assert history.seconds < 1.5
    assert torch.equal(weights(fit(one_stage(4))[0]), weights(network))


def test_the_callers_arithmetic_keeps_its_denormal_numbers() -> None:
    fit(one_stage(1))
    assert (torch.full((4,), 1e-39) * 0.5).count_nonzero() == 4
