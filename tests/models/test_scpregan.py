"""scPreGAN: what moves and how fast, and the model from end to end."""

from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData
from torch import nn

import multipert as mp
from models.conftest import KEYS
from multipert.models.metadata import FitMetadata
from multipert.models.scpregan import ScPreGAN
from multipert.networks import CrossGenerator
from multipert.training import SideBySide, Stage
from multipert.training.acceleration.accelerate import stored_weight

FAST: dict[str, Any] = {"hidden": (12, 8), "latent": 4, "batch_size": 8, "epochs": 2, "iterations": 3}


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return mp.simulate(
        n_genes=30, contexts=("A", "B", "C"), perturbations=("alpha", "beta"), cells_per_group=10, seed=3
    )


@pytest.fixture(scope="module")
def model(data: mp.PerturbationData) -> ScPreGAN:
    return ScPreGAN(**FAST).fit(data, mp.leave_context_out(data, "B"))


def untrained(model: ScPreGAN, data: mp.PerturbationData) -> nn.ModuleList:
    network = model._untrained(FitMetadata.of(data, mp.leave_context_out(data, "B")))
    assert isinstance(network, nn.ModuleList)
    return network


def training(model: ScPreGAN, data: mp.PerturbationData, condition: int = 1) -> tuple[CrossGenerator, Stage]:
    network = untrained(model, data)[condition - 1]
    assert isinstance(network, CrossGenerator)
    (stage,) = model._one_training(network, data, mp.leave_context_out(data, "B"), [condition])
    return network, stage


@pytest.mark.parametrize("preset", ["default", "study"])
def test_weights_start_xavier_uniform_and_in_the_study_as_torchs(data: mp.PerturbationData, preset: str) -> None:
    network, _ = training(ScPreGAN(preset=preset, hidden=(40, 30)), data)
    for module in network.modules():
        if isinstance(module, nn.Linear) and module.weight.numel() > 100:
            torchs, xavier = module.in_features**-0.5, (6 / (module.in_features + module.out_features)) ** 0.5
            bound = torchs if preset == "study" else xavier
            assert 0.95 * bound < stored_weight(module).abs().max() <= bound
            assert module.bias.abs().max() <= torchs


# Training.


def test_every_batch_moves_the_discriminators_first_then_encoder_and_generators(data: mp.PerturbationData) -> None:
    network, stage = training(ScPreGAN(preset="study", hidden=(12, 8)), data)
    first, second = stage.updates
    (discriminators,) = first.optimisers
    assert discriminators.modules == [network.discriminators]
    assert (discriminators.rule, discriminators.lr, discriminators.betas) == ("adam", 1e-3, (0.5, 0.9))
    encoder, generators = second.optimisers
    assert encoder.modules == [network.encoder]
    assert (encoder.rule, encoder.lr, encoder.betas) == ("adam", 1e-4, (0.9, 0.999))
    assert generators.modules == [network.generators]
    assert (generators.rule, generators.lr, generators.betas) == ("adam", 1e-3, (0.5, 0.9))
    for update in stage.updates:
        assert [update.schedule(step) for step in (0, 9_998, 9_999, 19_998)] == pytest.approx([1, 1, 0.9, 0.9])
    assert stage.epochs * len(stage.batches) == 20_000


@pytest.mark.parametrize(
    ("still", "stays"), [({"lr": 0.0}, {"generators", "discriminators"}), ({"encoder_lr": 0.0}, {"encoder"})]
)
def test_what_has_no_learning_rate_stays(data: mp.PerturbationData, still: dict[str, Any], stays: set[str]) -> None:
    model = ScPreGAN(**FAST, **still).fit(data, mp.leave_context_out(data, "B"))
    for before, after in zip(untrained(model, data), model.network_, strict=True):
        for part in ("encoder", "generators", "discriminators"):
            pairs = zip(getattr(before, part).parameters(), getattr(after, part).parameters(), strict=True)
            assert all(torch.equal(*pair) for pair in pairs) == (part in stays)


def test_sides_hold_all_visible_cells_of_control_and_of_one_perturbation(data: mp.PerturbationData) -> None:
    _, stage = training(ScPreGAN(**FAST), data, condition=2)
    split = mp.leave_context_out(data, "B")
    assert isinstance(stage.batches, SideBySide)
    control, perturbed, next_control, next_perturbed = stage.batches.sides
    np.testing.assert_array_equal(control.cells["control"], data.rows(condition="control"))
    np.testing.assert_array_equal(perturbed.cells["perturbed"], np.setdiff1d(data.rows(condition="beta"), split.test))
    np.testing.assert_array_equal(next_control.cells["next control"], control.cells["control"])
    np.testing.assert_array_equal(next_perturbed.labels["next perturbed"], perturbed.labels["perturbed"])
    assert set(data.context[control.cells["control"]]) == {0, 1, 2}, "the held-out context's controls take part"
    assert set(data.context[perturbed.cells["perturbed"]]) == {0, 2}
    np.testing.assert_array_equal(perturbed.labels["perturbed"], data.context[perturbed.cells["perturbed"]])


def test_the_study_preset_is_the_spec() -> None:
    p = ScPreGAN(preset="study").parameters
    assert (p.hidden, p.latent, p.initial, p.label_slip) == ((512, 256), 16, "torch", True)
    assert (p.lr, p.beta1, p.beta2, p.encoder_lr) == (1e-3, 0.5, 0.9, 1e-4)
    assert (p.decay, p.decay_every, p.batch_size, p.epochs * p.iterations) == (0.9, 10_000, 64, 20_000)
    assert (p.reconstruction_weight, p.adversarial_weight, p.encoding_weight) == (1, 0.001, 0.1)


# From end to end.


def test_one_network_for_each_perturbation(model: ScPreGAN, data: mp.PerturbationData, controls: AnnData) -> None:
    assert list(model.history_.table["stage"].unique()) == ["alpha: adversarial", "beta: adversarial"]
    assert model.history_.steps == 2 * 2 * 3
    one = sum(p.numel() for p in training(model, data)[0].parameters())
    assert model.n_parameters == 2 * one
    assert not np.allclose(model.predict(controls, "alpha").X, model.predict(controls, "beta").X)


def test_a_prediction_is_the_perturbed_generators_cell(model: ScPreGAN, controls: AnnData) -> None:
    network = model.network_[1]
    assert isinstance(network, CrossGenerator)
    with torch.no_grad():
        expected = network.generators["perturbed"](network.encoder(torch.from_numpy(controls.X.toarray()))).numpy()
    np.testing.assert_allclose(model.predict(controls, "beta").X, expected, atol=1e-6)


def test_a_perturbation_without_training_cells_is_refused(adata: AnnData) -> None:
    kept = adata[(adata.obs["condition"] != "beta") | (adata.obs["cell_type"] == "B")]
    data = mp.PerturbationData.from_anndata(kept, **KEYS)
    with pytest.raises(mp.InputError, match="no perturbed cells to train on"):
        ScPreGAN(**FAST).fit(data, mp.leave_context_out(data, "B"))
