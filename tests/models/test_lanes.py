"""Fits trained together as lanes: each must come out as if it were alone."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import multipert as mp
from multipert.models import MODELS, Model
from multipert.models.base import FitMetadata
from multipert.models.network_model import NetworkModel
from multipert.models.together import fit_together, lanes_at_once
from multipert.networks import Lanes
from multipert.training import Interrupted, TrainerConfig, loop, train_lanes

NETWORKS = [name for name, model in MODELS.items() if issubclass(model, NetworkModel)]
LR = 1e-4
TINY: dict[str, Any] = {
    "batch_size": 7,
    "epochs": 2,
    "pretrain_epochs": 1,
    "transport_epochs": 2,
    "discriminator_epochs": 2,
    "joint_epochs": 2,
    "iterations": 4,
    "warmup_steps": 10,
    "lr": LR,
    "latent": 5,
    "control_hidden": (8,),
    "perturbed_hidden": (8,),
    "shared": 6,
    "layers": 1,
    "patience": 1,
}


def tiny(name: str, seed: int, **changes: Any) -> NetworkModel:
    """A model that trains in a moment."""
    known = {field.name for field in dataclasses.fields(MODELS[name].Parameters)}
    chosen = {key: value for key, value in (TINY | changes).items() if key in known}
    if "hidden" in known:
        chosen["hidden"] = 12 if "layers" in known else (12,)
    model = mp.models.create(name, seed=seed, **chosen)
    assert isinstance(model, NetworkModel)
    return model


@pytest.fixture(scope="module")
def data() -> mp.PerturbationData:
    """Contexts of unequal size, so that lanes differ in the length of an epoch."""
    adata = mp.simulate(n_genes=40, contexts=("A", "B", "C"), perturbations=("p", "q"), cells_per_group=(8, 30), seed=5)
    return mp.PerturbationData.from_anndata(
        adata, perturbation_key="condition", control="control", context_key="cell_type"
    )


LANES = [("A", 1), ("B", 2), ("B", 1)]


@pytest.fixture(scope="module")
def splits(data: mp.PerturbationData) -> list[mp.Split]:
    return [mp.leave_context_out(data, context) for context, _ in LANES]


def assert_equal_fits(together: Model, alone: Model) -> None:
    """The same weights, history and metadata, to float tolerance.

    But for what is never determined: Adam makes steps of full length of a gradient that is nothing but rounding. Such
    is that of every bias before batch normalisation, which the running mean follows; and, in the published methods'
    many small layers, that of a weight here and there.
    """
    determined = 1.0 if together.family == "multi-task" else 0.95
    ours, theirs = together._arrays(), alone._arrays()
    assert list(ours) == list(theirs)
    adrift = {name.removesuffix("norm.running_mean") for name in ours if name.endswith("norm.running_mean")}
    for name, array in ours.items():
        if name.removesuffix("linear.bias") in adrift:
            continue
        slack = 20 * LR if name.endswith("running_mean") else 0.0
        equal = np.isclose(array, theirs[name], rtol=1e-4, atol=1e-5 + slack, equal_nan=True)
        assert equal.mean() >= determined, name
    table, expected = (model.history_.table.drop(columns="seconds") for model in (together, alone))
    trained = [name for name in table if not str(name).startswith("validation_")]
    pd.testing.assert_frame_equal(table[trained], expected[trained], rtol=1e-4, atol=1e-6)
    pd.testing.assert_frame_equal(table, expected, rtol=1e-2)
    assert together.metadata_ == alone.metadata_


@pytest.mark.parametrize("name", NETWORKS)
def test_each_lane_comes_out_as_if_it_were_alone(
    name: str, data: mp.PerturbationData, splits: Sequence[mp.Split], tmp_path: Path
) -> None:
    models = [tiny(name, seed) for _, seed in LANES]
    fit_together(models, data, splits, device="cpu", progress=False)
    for model, split, (_, seed) in zip(models, splits, LANES, strict=True):
        alone = tiny(name, seed).fit(data, split, device="cpu", progress=False)
        assert_equal_fits(model, alone)
    if name != "scpregan":
        assert len({model.history_.steps for model in models}) > 1, "the lanes were to differ in their steps"
    models[1].save(tmp_path / "run")
    controls = data.to_anndata(data.rows(condition="control", context="B"))
    np.testing.assert_array_equal(
        mp.models.load(tmp_path / "run").predict(controls, "q").X, models[1].predict(controls, "q").X
    )


def test_lanes_that_stop_early_stop_each_in_its_own_time(data: mp.PerturbationData, splits: Sequence[mp.Split]) -> None:
    models = [tiny("scgen", seed, epochs=40, patience=2, lr=0.05) for _, seed in LANES]
    fit_together(models, data, splits, device="cpu", progress=False)
    epochs = [model.history_.table.groupby("stage")["epoch"].max().tolist() for model in models]
    assert len({number for own in epochs for number in own}) > 1
    assert max(number for own in epochs for number in own) < 40


def test_a_fits_seconds_are_its_share(data: mp.PerturbationData, splits: Sequence[mp.Split]) -> None:
    models = [tiny("mtae", seed) for _, seed in LANES]
    fit_together(models, data, splits, device="cpu", progress=False)
    assert len({model.seconds_fit_ for model in models}) == 1
    assert 0 < models[0].history_.seconds <= models[0].seconds_fit_


def test_resumed_lanes_end_as_undisturbed_ones(
    data: mp.PerturbationData, splits: Sequence[mp.Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(folder: Path | None) -> tuple[dict[str, torch.Tensor], list[pd.DataFrame]]:
        models = [tiny("mtae-adv", seed) for _, seed in LANES]
        lanes = Lanes([seed for _, seed in LANES])
        network = models[0]._network(lanes, FitMetadata.of(data, splits[0]))
        stages = [model._stages(network, data, split) for model, split in zip(models, splits, strict=True)]
        config = TrainerConfig("cpu", folder, progress=False)
        histories = train_lanes(network, lanes, stages, seeds=lanes.seeds, config=config, identity={"of": "all"})
        return network.state_dict(), [history.table.drop(columns="seconds") for history in histories]

    checkpoint, saved = loop._Training._checkpoint, 0

    def stop_now_and_then(training: loop._Training) -> None:
        nonlocal saved
        saved += 1
        checkpoint(training)
        if saved % 4 == 0:
            raise Interrupted

    expected, undisturbed = fit(None)
    starts = 0
    with monkeypatch.context() as patched:
        patched.setattr(loop, "CHECKPOINT_EVERY", 0.0)
        patched.setattr(loop._Training, "_checkpoint", stop_now_and_then)
        while True:
            starts += 1
            try:
                weights, histories = fit(tmp_path)
                break
            except Interrupted:
                continue
    assert starts > 3
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name
    for ours, theirs in zip(histories, undisturbed, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


def test_only_fits_of_one_kind_go_together(data: mp.PerturbationData, splits: Sequence[mp.Split]) -> None:
    with pytest.raises(mp.InputError, match="2 models of 2 kinds with 2 splits cannot be fitted together"):
        fit_together([tiny("mtae", 1), tiny("mtae", 1, latent=4)], data, splits[:2])
    with pytest.raises(mp.InputError, match="1 models of 1 kinds with 2 splits"):
        fit_together([tiny("mtae", 1)], data, splits[:2])
    with pytest.raises(mp.InputError, match="mean-shift trains no network"):
        fit_together([mp.models.create("mean-shift")], data, splits[:1])


def test_fits_that_lack_a_stage_are_refused() -> None:
    adata = mp.simulate(n_genes=30, contexts=("A", "B", "C"), perturbations=("p", "q"), cells_per_group=20, seed=1)
    only_in_a = (adata.obs["condition"] != "q") | (adata.obs["cell_type"] == "A")
    data = mp.PerturbationData.from_anndata(
        adata[only_in_a].copy(), perturbation_key="condition", control="control", context_key="cell_type"
    )
    splits = [mp.leave_context_out(data, context) for context in ("A", "B")]
    with pytest.raises(mp.InputError, match="do not go through the same stages .*: fit them one by one"):
        fit_together([tiny("scgen", 1), tiny("scgen", 1)], data, splits, device="cpu", progress=False)


def test_one_fit_at_a_time_on_a_cpu(data: mp.PerturbationData) -> None:
    assert lanes_at_once(tiny("mtae", 1), data, device="cpu") == 1
