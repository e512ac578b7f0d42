"""The estimate of a study: what a step costs once the first are over, and how many there will be."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import multipert as mp
from multipert.benchmark.estimate import MEASURED_EPOCHS, seconds_per_step
from multipert.data import HeldOut
from multipert.training import History


@pytest.fixture(scope="module")
def data() -> mp.PerturbationData:
    return mp.PerturbationData.from_anndata(
        mp.simulate(n_genes=30, contexts=("A", "B"), perturbations=("alpha",), cells_per_group=40),
        perturbation_key="condition",
        control="control",
        context_key="cell_type",
    )


def measured(seconds: Callable[[int], float], epochs: int, data: mp.PerturbationData) -> tuple[float, int]:
    """Seconds a step of a model that takes some up to each epoch of ten steps; and how many epochs were run."""
    now, ran = 0.0, 0

    def fit(*_: Any, on_epoch: Callable[[Any, History], None], **__: Any) -> None:
        nonlocal now, ran
        history = History()
        for epoch in range(1, epochs + 1):
            now, ran = seconds(epoch), epoch
            history.add("main", epoch, 10 * epoch, now, {})
            on_epoch(None, history)

    rule = HeldOut("context", context="A")
    job: Any = SimpleNamespace(create=lambda: SimpleNamespace(fit=fit), rule=rule, features=None, device="cpu")
    return seconds_per_step(job, data, lambda: now), ran


def test_the_first_steps_which_are_slower_are_not_multiplied(data: mp.PerturbationData) -> None:
    step, epochs = measured(lambda epoch: 30 + 0.02 * epoch, 400, data)
    assert step == pytest.approx(0.002)
    assert epochs == 1 + MEASURED_EPOCHS


def test_long_epochs_are_measured_once(data: mp.PerturbationData) -> None:
    step, epochs = measured(lambda epoch: 30 + 5.0 * epoch, 400, data)
    assert step == pytest.approx(0.5)
    assert epochs == 2


def test_a_training_of_one_epoch_is_measured_whole(data: mp.PerturbationData) -> None:
    assert measured(lambda epoch: 3.0 * epoch, 1, data)[0] == pytest.approx(0.3)


def test_a_training_that_may_stop_early_is_taken_to_stop_midway(data: mp.PerturbationData) -> None:
    split = mp.leave_context_out(data, "A")

    def steps(**changes: int) -> int:
        model = mp.models.create("scgen", batch_size=8, **changes)
        return model.planned_steps(data, split)  # type: ignore[attr-defined]

    assert steps(epochs=100, patience=25) == pytest.approx(steps(epochs=50, patience=50), abs=1)
    assert steps(epochs=10, patience=25) == 10 * steps(epochs=1, patience=25)
