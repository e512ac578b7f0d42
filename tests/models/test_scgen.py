"""scGen: its delta, and what it learns from."""

from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData
from torch import nn

import multipert as mp
from models.conftest import KEYS
from multipert.models.metadata import FitMetadata
from multipert.models.scgen import ScGen, balanced, balanced_weights, visible
from multipert.training import Shuffled

FAST: dict[str, Any] = {"hidden": 16, "latent": 4, "batch_size": 16, "epochs": 2}


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return mp.simulate(
        n_genes=60, contexts=("A", "B", "C"), perturbations=("alpha", "beta"), cells_per_group=20, seed=3
    )


@pytest.fixture(scope="module")
def model(data: mp.PerturbationData) -> ScGen:
    return ScGen(**FAST).fit(data, mp.leave_context_out(data, "B"))


def test_the_study_preset_is_the_spec() -> None:
    p = ScGen(preset="study").parameters
    assert (p.hidden, p.layers, p.latent, p.dropout) == (800, 2, 100, 0.2)
    assert (p.kl_weight, p.lr, p.epsilon, p.weight_decay) == (5e-5, 1e-3, 0.01, 1e-6)
    assert (p.batch_size, p.epochs, p.validation_share, p.patience) == (32, 100, 0.1, 25)
    assert p.matched_contexts is False
    assert (p.initial, p.monitored_kl_weight, p.keep, p.drop_last) == ("torch", 1, "last", False)


@pytest.mark.parametrize("preset", ["default", "study"])
def test_weights_start_xavier_uniform_and_in_the_study_as_torchs(data: mp.PerturbationData, preset: str) -> None:
    metadata = FitMetadata.of(data, mp.train_on_everything(data))
    network = ScGen(preset=preset, hidden=40, latent=20)._one_network(metadata)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            n_in, n_out = module.in_features, module.out_features
            bound = n_in**-0.5 if preset == "study" else (6 / (n_in + n_out)) ** 0.5
            assert 0.95 * bound < module.weight.abs().max() <= bound


def test_with_the_divergence_in_full_training_stops_sooner(data: mp.PerturbationData) -> None:
    """The divergence only grows while latents spread to hold the cells."""
    weights: dict[str, Any] = {
        "monitored_kl_weight": 100.0,
        "patience": 3,
        "epochs": 30,
        "hidden": 16,
        "latent": 4,
        "batch_size": 16,
    }
    stopped, patient = (len(ScGen(**weights | more).fit(data).history_.table) for more in ({}, {"patience": 30}))
    assert stopped < patient


def test_each_network_learns_from_control_and_its_own_cells_a_tenth_of_them_to_validate(
    model: ScGen, data: mp.PerturbationData
) -> None:
    split = mp.leave_context_out(data, "B")
    stages = model._stages(model.network_, data, split)
    assert [stage.name for stage in stages] == ["alpha: reconstruct", "beta: reconstruct"]
    for condition, stage in enumerate(stages, start=1):
        assert isinstance(stage.batches, Shuffled)
        training, validation = stage.batches.examples.cells["x"], stage.validation.cells["x"]
        assert len(validation) == 10  # of 60 control cells and 40 perturbed ones
        expected = np.flatnonzero(np.isin(data.condition, [0, condition]))
        np.testing.assert_array_equal(
            np.sort(np.concatenate([training, validation])), np.setdiff1d(expected, split.test)
        )
        assert set(data.condition[validation]) == {0, condition}, "chosen at random, not the last in the file"


def test_balancing_draws_every_context_up_to_the_largest() -> None:
    context = np.repeat([4, 0, 2], [3, 10, 1])
    cells = np.arange(14)
    drawn = balanced(cells, context, np.random.default_rng(0))
    assert np.bincount(context[drawn]).tolist() == [10, 0, 10, 0, 10]
    assert set(drawn[context[drawn] == 4]) <= {0, 1, 2}


def test_delta_is_the_difference_of_balanced_means() -> None:
    """Plain loops over the same draws."""
    z = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    perturbed = np.arange(60) % 3 == 0
    context = np.random.default_rng(2).integers(0, 3, 60)
    rng = np.random.default_rng(5)
    sides = []
    for side in (False, True):
        rows = [[i for i in range(60) if perturbed[i] == side and context[i] == one] for one in range(3)]
        sides.append([i for one in rows for i in rng.choice(one, max(map(len, rows)))])
    size = min(map(len, sides))
    means = []
    for chosen in sides:
        total = np.zeros(3)
        for i in rng.choice(chosen, size, replace=False):
            total += z[i]
        means.append(total / size)
    found = balanced_weights(perturbed, context, np.random.default_rng(5)) @ z
    np.testing.assert_allclose(found, means[1] - means[0], atol=1e-6)


def test_balanced_contexts_count_equally_whatever_their_sizes() -> None:
    """Every cell of a group alike, the largest group as large on either side: the answer does not hang on the draw."""
    sizes = {(0, False): 30, (1, False): 2, (0, True): 1, (1, True): 30}
    place = {(0, False): 0.0, (1, False): 10.0, (0, True): 3.0, (1, True): 17.0}
    z = np.concatenate([np.full((n, 2), place[group], np.float32) for group, n in sizes.items()])
    context = np.concatenate([np.full(n, one) for (one, _), n in sizes.items()])
    perturbed = np.concatenate([np.full(n, side) for (_, side), n in sizes.items()])
    np.testing.assert_allclose(balanced_weights(perturbed, context, np.random.default_rng(0)) @ z, [5.0, 5.0])


@pytest.mark.parametrize("matched", [True, False])
def test_delta_is_read_off_the_cells_training_may_see(data: mp.PerturbationData, matched: bool) -> None:
    """With matched contexts the held-out one, of which only control is seen, does not count."""
    split = mp.leave_context_out(data, "B")
    model = ScGen(**FAST, matched_contexts=matched).fit(data, split)
    rows = visible(data, split, [0, 2])
    if matched:
        rows = rows[data.context[rows] != data.contexts.index("B")]
    z = model.latent(data.to_anndata(rows), "beta")
    expected = balanced_weights(data.condition[rows] == 2, data.context[rows], np.random.default_rng((1, 2))) @ z
    np.testing.assert_allclose(model.network_[1].get_buffer("delta"), expected, atol=1e-5)


@torch.no_grad()
def test_a_prediction_is_the_decoded_latent_plus_delta(model: ScGen, controls: AnnData) -> None:
    network = model.network_[1]
    z = torch.from_numpy(model.latent(controls, "beta"))
    expected = network.decode(z + network.delta).clamp(min=0)
    np.testing.assert_allclose(model.predict(controls, "beta").X, expected, atol=1e-5)


def test_cells_are_predicted_one_by_one_as_together(model: ScGen, controls: AnnData) -> None:
    together = model.predict(controls, "alpha").X
    np.testing.assert_allclose(model.predict(controls[:1].copy(), "alpha").X, together[:1], atol=1e-5)


def test_parameters_are_counted_for_every_network(model: ScGen) -> None:
    encoder = (60 * 16 + 16) + 2 * 16 + (16 * 16 + 16) + 2 * 16 + 2 * (16 * 4 + 4)
    decoder = (4 * 16 + 16) + 2 * 16 + (16 * 16 + 16) + 2 * 16 + (16 * 60 + 60)
    assert model.n_parameters == 2 * (encoder + decoder)


def test_latent_needs_a_name_only_where_there_are_several_spaces(
    model: ScGen, data: mp.PerturbationData, controls: AnnData
) -> None:
    with pytest.raises(mp.InputError, match="a latent space for each of 2 perturbations: name one of them"):
        model.latent(controls)
    assert not np.allclose(model.latent(controls, "alpha"), model.latent(controls, "beta"))
    one = mp.PerturbationData.from_anndata(data.to_anndata(np.flatnonzero(data.condition < 2)), **KEYS)
    fitted = ScGen(**FAST).fit(one)
    assert fitted.latent(controls).shape == (20, 4)
    np.testing.assert_array_equal(fitted.latent(controls), fitted.latent(controls, "alpha"))


def test_a_perturbation_seen_only_in_the_held_out_context_is_refused(data: mp.PerturbationData) -> None:
    kept = np.flatnonzero((data.condition != 2) | (data.context == data.contexts.index("B")))
    lacking = mp.PerturbationData.from_anndata(data.to_anndata(kept), **KEYS)
    fitted = ScGen(**FAST).fit(lacking, mp.leave_context_out(lacking, "B"))
    controls = lacking.to_anndata(lacking.rows(condition="control", context="B"))
    assert np.isfinite(fitted.predict(controls, "alpha").X).all()
    with pytest.raises(mp.InputError, match="training saw no context with both control cells and cells of this"):
        fitted.predict(controls, "beta")
