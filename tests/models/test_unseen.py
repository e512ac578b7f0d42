"""Models that are told what perturbations are, and predict those that training never saw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import multipert as mp
from multipert.models import MODELS, Model
from multipert.models.film_model import FilmModel

FAMILY = [name for name, model in MODELS.items() if issubclass(model, FilmModel)]
Tiny = Callable[..., Model]


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return mp.simulate(
        n_genes=40, contexts=("A", "B"), perturbations=("x", "y", "z"), combinations=("x+y", "y+z"), cells_per_group=8
    )


@pytest.fixture(scope="module")
def split(data: mp.PerturbationData) -> mp.Split:
    return mp.leave_combination_out(data, "x+y")


@pytest.fixture(scope="module")
def controls(adata: AnnData) -> AnnData:
    return adata[adata.obs["condition"] == "control"].copy()


@pytest.mark.parametrize("name", FAMILY)
def test_a_combination_never_seen_is_predicted_and_saved(
    name: str, tiny: Tiny, data: mp.PerturbationData, split: mp.Split, controls: AnnData, tmp_path: Path
) -> None:
    model = tiny(name).fit(data, split, features="members")
    asked = ["x", "x+y", "x+z"]
    predicted = model.predict(controls, asked)
    assert list(dict.fromkeys(predicted.obs["condition"])) == asked
    assert model.perturbations == data.perturbations, "the fitted model stays as it was"
    model.save(tmp_path / "run")
    again = mp.models.load(tmp_path / "run").predict(controls, asked)
    np.testing.assert_array_equal(again.X, predicted.X)


def test_told_by_number_alone_a_model_refuses_what_it_never_saw(
    tiny: Tiny, data: mp.PerturbationData, split: mp.Split, controls: AnnData
) -> None:
    model = tiny("mtae").fit(data, split)
    with pytest.raises(mp.InputError, match="or fit it with features"):
        model.predict(controls, "x+y")
    with pytest.raises(mp.InputError, match=r"no perturbation 'x\+z'"):
        model.predict(controls, "x+z")
    with pytest.raises(mp.InputError, match="fitted without features"):
        model.predict(controls, "x+z", features=mp.PerturbationFeatures.from_table({"q": [1.0]}))


def test_features_of_onehot_are_none(tiny: Tiny, data: mp.PerturbationData, controls: AnnData) -> None:
    plain, told = tiny("mtae").fit(data), tiny("mtae").fit(data, features="onehot")
    np.testing.assert_array_equal(plain.predict(controls, "x").X, told.predict(controls, "x").X)
    assert told.vectors_ is None
    assert told.metadata_.features is None


def test_a_dose_is_read_off_and_dose_0_is_the_control(tiny: Tiny) -> None:
    adata = mp.simulate(n_genes=40, contexts=("A", "B"), perturbations=("x",), doses=(1.0, 10.0), cells_per_group=20)
    data = mp.PerturbationData.from_anndata(
        adata, perturbation_key="compound", control="control", context_key="cell_type", dose_key="dose"
    )
    model = tiny("mtae", epochs=20, dropout=0.0, mask=0.0).fit(data, features="dose")
    controls = adata[adata.obs["compound"] == "control"].copy()
    predicted = model.predict(controls, ["x@0", "x@1e-9", "x@1", "x@3", "x@10"])
    assert sorted(set(predicted.obs["dose"])) == [0.0, 1e-9, 1.0, 3.0, 10.0]
    zero, tiny_dose, low, middle, high = (predicted.X[predicted.obs["dose"] == d].mean(0) for d in (0, 1e-9, 1, 3, 10))
    np.testing.assert_allclose(tiny_dose, zero, atol=1e-5)
    between = np.linalg.norm(middle - low) + np.linalg.norm(high - middle)
    assert between < 1.2 * np.linalg.norm(high - low), "the way through the dose in between is hardly longer"
    for name, message in (("x", "no dose"), ("x@-1", "no dose"), ("q@3", "no perturbation 'q'")):
        with pytest.raises(mp.InputError, match=message):
            model.predict(controls, name)


def test_a_perturbation_is_told_of_when_it_is_asked_for(
    tiny: Tiny, data: mp.PerturbationData, controls: AnnData
) -> None:
    table = {"x": [1.0, 0.0], "y": [0.0, 1.0], "z": [1.0, 1.0]}
    model = tiny("mtae").fit(data, features=mp.PerturbationFeatures.from_table(table))
    with pytest.raises(mp.InputError, match="no perturbation 'q'"):
        model.predict(controls, "q")
    twin = model.predict(controls, "q", features=mp.PerturbationFeatures.from_table({"q": [1.0, 0.0]}))
    np.testing.assert_array_equal(twin.X, model.predict(controls, "x").X)
    assert isinstance(model, FilmModel)
    np.testing.assert_array_equal(model.film("z+y")[0][0], model.film("y+z")[0][0])


def test_a_number_never_seen_says_nothing(tiny: Tiny, data: mp.PerturbationData, controls: AnnData) -> None:
    model = tiny("mtae").fit(data, mp.leave_combination_out(data, "x+y", seen=1), features="members")
    model.predict(controls, "x+y")
    with pytest.raises(mp.InputError, match="training saw nothing of 'y'"):
        model.predict(controls, "y")


def test_a_model_that_takes_no_features_says_so(tiny: Tiny, data: mp.PerturbationData) -> None:
    with pytest.raises(mp.InputError, match="scgen tells perturbations apart by number"):
        tiny("scgen").fit(data, features="members")


def test_until_training_finds_one_there_is_no_interaction(data: mp.PerturbationData) -> None:
    import torch

    from multipert.networks import ConditionEncoder

    vectors = torch.randn(3, 2, 4)
    encoder = ConditionEncoder(vectors)
    codes = torch.tensor([2, 0])
    torch.testing.assert_close(encoder(codes), vectors[codes].sum(1))
    with torch.no_grad():
        encoder.interaction.weight.copy_(torch.eye(4))
    inner = vectors[codes] @ encoder.members.weight.T
    torch.testing.assert_close(encoder(codes), vectors[codes].sum(1) + inner[:, 0] * inner[:, 1])


def test_fits_together_with_features_are_those_of_each_alone(tiny: Tiny, data: mp.PerturbationData) -> None:
    splits = [mp.leave_context_out(data, context) for context in ("A", "B")]
    options: dict[str, Any] = {"dropout": 0.0, "mask": 0.0, "batch_size": 32}
    fit: dict[str, Any] = {"features": "members", "device": "cpu", "precision": "float32"}
    together = [tiny("mtae", seed=seed, **options) for seed in (1, 2)]
    mp.models.fit_together(together, data, splits, **fit)
    for model, split in zip(together, splits, strict=True):
        alone = tiny("mtae", seed=model.seed, **options).fit(data, split, **fit)
        for name, array in alone._arrays().items():
            np.testing.assert_allclose(model._arrays()[name], array, atol=1e-3, err_msg=name)
