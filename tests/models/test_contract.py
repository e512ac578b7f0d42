"""What every model must keep, whatever its method."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import multipert as mp
from multipert.models import MODELS, Model

KEYS = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
TINY: dict[str, Any] = {
    "batch_size": 4,
    "epochs": 2,
    "pretrain_epochs": 1,
    "transport_epochs": 1,
    "discriminator_epochs": 1,
    "joint_epochs": 1,
    "iterations": 3,
    "latent": 4,
}


def tiny(name: str, **changes: Any) -> Model:
    """A model that trains in a moment."""
    known = {field.name for field in dataclasses.fields(MODELS[name].Parameters)}
    return mp.models.create(name, **{key: value for key, value in TINY.items() if key in known}, **changes)


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return mp.simulate(
        n_genes=40, contexts=("A", "B", "C"), perturbations=("alpha", "beta"), cells_per_group=12, seed=3
    )


@pytest.fixture(scope="module")
def data(adata: AnnData) -> mp.PerturbationData:
    return mp.PerturbationData.from_anndata(adata, **KEYS)


@pytest.fixture(scope="module")
def controls(adata: AnnData) -> AnnData:
    return adata[(adata.obs["condition"] == "control") & (adata.obs["cell_type"] == "B")].copy()


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, data: mp.PerturbationData) -> Model:
    return tiny(request.param).fit(data, mp.leave_context_out(data, "B"))


def test_there_are_eighteen() -> None:
    families = [model.family for model in MODELS.values()]
    assert (families.count("multi-task"), families.count("published"), families.count("baseline")) == (8, 5, 5)


def test_it_predicts_one_cell_for_each_control_cell(model: Model, controls: AnnData) -> None:
    predicted = model.predict(controls, "beta")
    assert predicted.shape == controls.shape
    assert predicted.X.dtype == np.float32
    assert np.isfinite(predicted.X).all()
    assert predicted.X.min() >= 0
    assert set(predicted.obs["condition"]) == {"beta"}


def test_the_same_seed_gives_the_same_prediction_and_another_seed_another(
    model: Model, data: mp.PerturbationData, controls: AnnData
) -> None:
    split, expected = mp.leave_context_out(data, "B"), model.predict(controls, "alpha").X
    np.testing.assert_array_equal(tiny(model.name).fit(data, split).predict(controls, "alpha").X, expected)
    other = tiny(model.name, seed=2).fit(data, split).predict(controls, "alpha").X
    deterministic = model.family == "baseline" and model.name != "resample"
    assert np.array_equal(other, expected) == deterministic


def test_saved_and_loaded_it_predicts_the_same(model: Model, controls: AnnData, tmp_path: Path) -> None:
    model.save(tmp_path)
    loaded = mp.models.load(tmp_path)
    assert loaded.n_parameters == model.n_parameters
    for perturbation in ("alpha", "beta"):
        np.testing.assert_array_equal(loaded.predict(controls, perturbation).X, model.predict(controls, perturbation).X)


def test_the_held_out_cells_play_no_part(adata: AnnData, model: Model, controls: AnnData) -> None:
    """Whatever the held-out context's perturbed cells hold, the model comes out the same."""
    tampered = adata.copy()
    hidden = ((adata.obs["condition"] != "control") & (adata.obs["cell_type"] == "B")).to_numpy()
    X = tampered.X.toarray()
    X[hidden] = X[hidden][:, ::-1]
    tampered.X = X
    data = mp.PerturbationData.from_anndata(tampered, **KEYS)
    other = tiny(model.name).fit(data, mp.leave_context_out(data, "B"))
    np.testing.assert_array_equal(other.predict(controls, "alpha").X, model.predict(controls, "alpha").X)


@pytest.mark.parametrize("name", MODELS)
def test_two_contexts_one_perturbation_one_cell_in_a_group(name: str, adata: AnnData, controls: AnnData) -> None:
    few = adata[adata.obs["condition"].isin(["control", "alpha"]) & (adata.obs["cell_type"] != "C")]
    lonely = (few.obs["condition"] == "alpha") & (few.obs["cell_type"] == "A")
    data = mp.PerturbationData.from_anndata(few[~lonely | (lonely.cumsum() == 1)], **KEYS)
    predicted = tiny(name).fit(data, mp.leave_context_out(data, "B")).predict(controls, "alpha")
    assert np.isfinite(predicted.X).all()


@pytest.mark.parametrize("name", MODELS)
def test_nine_perturbations(name: str) -> None:
    names = [f"p{i}" for i in range(9)]
    data = mp.PerturbationData.from_anndata(
        mp.simulate(n_genes=30, contexts=("A", "B"), perturbations=names, cells_per_group=6), **KEYS
    )
    model = tiny(name).fit(data, mp.leave_context_out(data, "B"))
    controls = data.to_anndata(data.rows(condition="control", context="B"))
    predictions = [model.predict(controls, perturbation).X for perturbation in names]
    assert np.isfinite(predictions).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_its_repr(name: str) -> None:
    model = mp.models.create(name, seed=7)
    assert repr(model) == f"{type(model).__name__}(preset='default', seed=7)"
    assert mp.models.create(name, preset="study").preset == "study"
