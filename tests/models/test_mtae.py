"""MTAe from end to end: configured, fitted, predicting, saved."""

import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from torch import nn

import multipert as mp
from models.conftest import KEYS
from multipert.models import MTAe
from multipert.training import History, trainer

FAST: dict[str, Any] = {"epochs": 2, "hidden": (16,), "latent": 8, "batch_size": 16}


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return mp.simulate(n_genes=60, contexts=("A", "B", "C"), cells_per_group=20, seed=3)


@pytest.fixture(scope="module")
def model(data: mp.PerturbationData) -> MTAe:
    return MTAe(**FAST).fit(data, mp.leave_context_out(data, "B"))


def test_a_prediction_is_the_given_cells_under_the_perturbation(
    model: MTAe, data: mp.PerturbationData, controls: AnnData
) -> None:
    predicted = model.predict(controls, "beta")
    assert predicted.shape == controls.shape
    assert list(predicted.var_names) == list(data.genes)
    assert list(predicted.obs_names) == list(controls.obs_names)
    assert set(predicted.obs["condition"]) == {"beta"}
    pd.testing.assert_series_equal(predicted.obs["cell_type"], controls.obs["cell_type"])
    assert predicted.X.dtype == np.float32
    assert predicted.X.min() >= 0
    assert set(controls.obs["condition"]) == {"control"}, "the caller's cells stay as they were"


def test_perturbations_differ(model: MTAe, controls: AnnData) -> None:
    assert not np.allclose(model.predict(controls, "alpha").X, model.predict(controls, "beta").X)


def test_genes_are_matched_by_name(model: MTAe, controls: AnnData) -> None:
    shuffled = controls[:, np.random.default_rng(0).permutation(controls.n_vars)].copy()
    extra = AnnData(np.zeros((controls.n_obs, 1), np.float32), obs=controls.obs, var=pd.DataFrame(index=["unheard-of"]))
    more = ad.concat([shuffled, extra], axis=1, merge="same")
    expected = model.predict(controls, "alpha")
    np.testing.assert_array_equal(model.predict(shuffled, "alpha").X, expected.X)
    np.testing.assert_array_equal(model.predict(more, "alpha").X, expected.X)


def test_cells_of_an_unseen_context_or_of_none_are_predicted(model: MTAe, controls: AnnData) -> None:
    unseen = controls.copy()
    unseen.obs["cell_type"] = "never seen"
    nameless = AnnData(controls.X, var=controls.var)
    expected = model.predict(controls, "alpha").X
    np.testing.assert_array_equal(model.predict(unseen, "alpha").X, expected)
    predicted = model.predict(nameless, "alpha")
    np.testing.assert_array_equal(predicted.X, expected)
    assert set(predicted.obs["condition"]) == {"alpha"}


def test_one_cell_is_predicted_as_among_others(model: MTAe, controls: AnnData) -> None:
    np.testing.assert_allclose(
        model.predict(controls[:1].copy(), "alpha").X, model.predict(controls, "alpha").X[:1], atol=1e-6
    )


def test_saved_and_loaded_it_predicts_the_same(model: MTAe, controls: AnnData, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model.safetensors",
        "model.json",
        "run.json",
        "history.csv",
    }
    loaded = mp.models.load(tmp_path / "run")
    assert repr(loaded.parameters) == repr(model.parameters)
    assert loaded.n_parameters == model.n_parameters
    np.testing.assert_array_equal(loaded.predict(controls, "alpha").X, model.predict(controls, "alpha").X)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["parameters"]["epochs"] == 2
    assert (run["device"], run["precision"]) == (loaded.device_, loaded.precision_) == ("cpu", "float32")
    assert run["steps"] == model.history_.steps == 2 * (160 // 16 - 1)
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 2
    assert {"model", "preset", "seed", "versions", "data_fingerprint", "seconds_fit", "n_parameters"} <= set(run)


def test_a_saved_run_is_not_overwritten_unasked(model: MTAe, tmp_path: Path) -> None:
    model.save(tmp_path)
    with pytest.raises(mp.InputError, match="already holds a run: choose another folder"):
        model.save(tmp_path)
    model.save(tmp_path, overwrite=True)
    mp.models.load(tmp_path)


@pytest.mark.parametrize("damage", ["model.safetensors", "model.json", "run.json", "history.csv"])
def test_a_damaged_run_is_refused_by_name(model: MTAe, tmp_path: Path, damage: str) -> None:
    model.save(tmp_path)
    (tmp_path / damage).write_bytes((tmp_path / damage).read_bytes()[:20] if damage != "history.csv" else b"")
    with pytest.raises(mp.InputError, match="is damaged .*: fit again or copy it anew"):
        mp.models.load(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(mp.InputError, match="holds no fitted model"):
        mp.models.load(tmp_path)


def test_a_stopped_fit_goes_on_in_its_run_folder(
    data: mp.PerturbationData, controls: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: MTAe
) -> None:
    split = mp.leave_context_out(data, "B")

    def fail_in_the_second_epoch(network: nn.Module, history: History) -> None:
        if len(history) == 2:
            raise RuntimeError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "CHECKPOINT_EVERY", 0.0)
        with pytest.raises(RuntimeError, match="the power went"):
            MTAe(**FAST).fit(data, split, run=tmp_path, on_epoch=fail_in_the_second_epoch)
    resumed = MTAe(**FAST).fit(data, split, run=tmp_path)
    np.testing.assert_array_equal(resumed.predict(controls, "alpha").X, model.predict(controls, "alpha").X)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_an_unfinished_run_of_other_parameters_is_refused(
    data: mp.PerturbationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(MTAe, "save", lambda *_: None)
    MTAe(**FAST).fit(data, run=tmp_path)
    with pytest.raises(mp.InputError, match="unfinished training with other parameters"):
        MTAe(**FAST, lr=0.5).fit(data, run=tmp_path)


def test_tensorboard_curves_on_request(data: mp.PerturbationData, tmp_path: Path) -> None:
    MTAe(**FAST).fit(data, run=tmp_path, tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_fit_without_a_split_trains_on_everything(data: mp.PerturbationData) -> None:
    fitted = MTAe(**FAST).fit(data)
    assert fitted.history_.steps == 2 * (len(data) // 16)
    assert "validation_mse" not in fitted.history_.table


def test_one_perturbation_needs_no_hidden_film_layer_and_several_do(adata: AnnData, model: MTAe) -> None:
    one = mp.PerturbationData.from_anndata(
        adata[adata.obs["condition"].isin(["control", "alpha"])],
        perturbation_key="condition",
        control="control",
        context_key="cell_type",
    )
    fitted = MTAe(**FAST, preset="study").fit(one)
    assert len(fitted.network_.decoder.films[0].hidden) == 0
    hidden = model.network_.decoder.films[0].hidden
    assert [layer.out_features for layer in hidden if isinstance(layer, nn.Linear)] == [16]


def test_the_study_preset_is_the_spec() -> None:
    p = MTAe(preset="study").parameters
    assert (p.hidden, p.latent, p.mask, p.dropout, p.film_hidden) == ((256,), 128, 0.2, 0.5, (16,))
    assert (p.lr, p.warmup_steps, p.batch_size, p.epochs) == (1e-5, 100, 64, 400)


def test_a_constructor_shows_what_it_takes() -> None:
    shown = inspect.signature(MTAe).parameters
    assert {name: one.default for name, one in shown.items()} == {"preset": "default", "seed": 1} | asdict(
        MTAe().parameters
    )
    assert (shown["hidden"].annotation, shown["lr"].annotation) == (tuple[int, ...], float)
    assert "lr : float, default 0.001\n    Learning rate." in str(inspect.getdoc(MTAe))


def test_a_model_is_its_repr() -> None:
    model = MTAe(epochs=30, hidden="64,32", seed=7)
    assert repr(model) == "MTAe(preset='default', seed=7, hidden=(64, 32), epochs=30)"
    assert eval(repr(model)).parameters == model.parameters


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 3}, "model 'mtae' has no parameter 'epoch'; did you mean 'epochs'?"),
        ({"epochs": 0}, "parameter 'epochs' of 'mtae' must be 1 or more, not 0"),
        ({"dropout": 1}, "parameter 'dropout' of 'mtae' must be 0 or more and less than 1, not 1.0"),
        ({"lr": "fast"}, "parameter 'lr' of 'mtae' takes a number, not 'fast'"),
        ({"latent": 1.5}, "parameter 'latent' of 'mtae' takes a whole number, not 1.5"),
        ({"hidden": "wide"}, "parameter 'hidden' of 'mtae' takes whole numbers, with commas between them"),
        ({"preset": "studie"}, "no preset 'studie'; did you mean 'study'?"),
    ],
)
def test_a_wrong_parameter_is_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(mp.InputError, match=message.replace("?", r"\?")):
        mp.models.create("mtae", **given)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(mp.InputError, match="there is no model 'mtea'; did you mean 'mtae'?"):
        mp.models.create("mtea")


@pytest.mark.parametrize(
    ("perturbation", "message"),
    [("bta", r"knows no perturbation 'bta'; did you mean 'beta'\?"), ("control", "'control'")],
)
def test_an_unknown_perturbation_is_named(model: MTAe, controls: AnnData, perturbation: str, message: str) -> None:
    with pytest.raises(mp.InputError, match=message):
        model.predict(controls, perturbation)


def test_missing_genes_are_counted_and_named_and_zero_only_when_asked(model: MTAe, controls: AnnData) -> None:
    lacking = controls[:, 3:].copy()
    named = ", ".join(map(repr, controls.var_names[:3])).replace("(", r"\(")
    with pytest.raises(mp.InputError, match=f"3 of the 60 genes the model was trained on are missing .{named}"):
        model.predict(lacking, "alpha")
    zeroed = controls.copy()
    X = zeroed.X.toarray()
    X[:, :3] = 0
    zeroed.X = X
    np.testing.assert_array_equal(
        model.predict(lacking, "alpha", missing_genes="zero").X, model.predict(zeroed, "alpha").X
    )
    strangers = controls.copy()
    strangers.var_names = [f"ENSG{i}" for i in range(60)]
    with pytest.raises(mp.InputError, match="no gene of the training data"):
        model.predict(strangers, "alpha", missing_genes="zero")


def test_perturbed_cells_are_not_taken_for_controls(model: MTAe, adata: AnnData) -> None:
    with pytest.raises(mp.InputError, match=r"60 of 80 cells are not control .*: predict from the control cells alone"):
        model.predict(adata[adata.obs["cell_type"] == "B"].copy(), "alpha")


def test_an_unfitted_model_says_so(controls: AnnData) -> None:
    with pytest.raises(mp.InputError, match="this MTAe is not fitted: call fit first"):
        MTAe().predict(controls, "alpha")


def test_a_split_of_other_data_is_refused(adata: AnnData, data: mp.PerturbationData) -> None:
    other = mp.PerturbationData.from_anndata(adata[:-1].copy(), **KEYS)
    with pytest.raises(mp.InputError, match="made for other data"):
        MTAe(**FAST).fit(data, mp.leave_context_out(other, "B"))


def test_fewer_cells_than_a_batch_are_refused(data: mp.PerturbationData) -> None:
    with pytest.raises(mp.InputError, match="240 training cells cannot fill a batch of 4096"):
        MTAe(batch_size=4096).fit(data)


@pytest.mark.parametrize("with_name", [True, False])
def test_doses_are_conditions_of_their_own(with_name: bool) -> None:
    adata = mp.simulate(n_genes=40, contexts=("A", "B"), perturbations=("drug",), doses=(0.1, 3), cells_per_group=20)
    keys: dict[str, Any] = {"perturbation_key": "compound", "control": "control"} if with_name else {"compound": "drug"}
    data = mp.PerturbationData.from_anndata(adata, dose_key="dose", context_key="cell_type", **keys)
    model = MTAe(**FAST).fit(data, mp.leave_context_out(data, "A"))
    predicted = model.predict(data.to_anndata(data.rows(condition="control")), "drug@3")
    assert set(predicted.obs["dose"]) == {3}
    if with_name:
        assert set(predicted.obs["compound"]) == {"drug"}
