"""scVIDR: its regression over contexts, its dose rule, its gene scores."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from anndata import AnnData
from scipy.spatial.distance import cosine
from sklearn.linear_model import LinearRegression, Ridge

import multipert as mp
from models.conftest import KEYS
from multipert.models.scgen import ScGen, balanced_weights, visible
from multipert.models.scvidr import (
    ScVIDR,
    ScVIDRDose,
    compounds,
    cosine_distances,
    regressed_delta,
    weighted_ridge,
)
from multipert.networks import VariationalAutoencoder
from multipert.training import Shuffled

FAST: dict[str, Any] = {"hidden": 16, "latent": 4, "batch_size": 16, "epochs": 10, "lr": 1e-2}
DOSED: dict[str, Any] = {
    "perturbation_key": "compound",
    "control": "control",
    "context_key": "cell_type",
    "dose_key": "dose",
}


@pytest.fixture(scope="module")
def data() -> mp.PerturbationData:
    adata = mp.simulate(
        n_genes=60, contexts=("A", "B", "C", "D"), perturbations=("alpha", "beta"), cells_per_group=20, seed=3
    )
    return mp.PerturbationData.from_anndata(adata, **KEYS)


@pytest.fixture(scope="module")
def dosed() -> mp.PerturbationData:
    adata = mp.simulate(
        n_genes=60, contexts=("A", "B", "C"), perturbations=("alpha", "beta"), doses=(0.1, 1, 30), cells_per_group=20
    )
    return mp.PerturbationData.from_anndata(adata, **DOSED)


@pytest.fixture(scope="module")
def controls(data: mp.PerturbationData) -> AnnData:
    return controls_of(data, "B")


@pytest.fixture(scope="module")
def model(data: mp.PerturbationData) -> ScVIDR:
    return ScVIDR(**FAST).fit(data, mp.leave_context_out(data, "B"))


@pytest.fixture(scope="module")
def of_doses(dosed: mp.PerturbationData) -> ScVIDRDose:
    return ScVIDRDose(**FAST).fit(dosed, mp.leave_context_out(dosed, "B"))


def controls_of(data: mp.PerturbationData, *contexts: str) -> AnnData:
    rows = [data.rows(condition="control", context=context) for context in contexts]
    return data.to_anndata(np.concatenate(rows))


def naive_delta(model: ScVIDR, data: mp.PerturbationData, held_out: str, perturbation: str) -> npt.NDArray[np.float64]:
    """Scikit-learn's linear regression over the training contexts, read off at the held-out one's control cells."""
    centroids, deltas = [], []
    for context in data.contexts:
        if context != held_out:
            control, perturbed = (
                model.latent(data.to_anndata(data.rows(condition=name, context=context)), perturbation).mean(axis=0)
                for name in ("control", perturbation)
            )
            centroids.append(control)
            deltas.append(perturbed - control)
    at = model.latent(controls_of(data, held_out), perturbation).mean(axis=0)
    return np.asarray(LinearRegression().fit(centroids, deltas).predict([at])[0])


# The network.


@pytest.mark.parametrize("name", ["scvidr", "scvidr-dose"])
def test_the_study_preset_is_the_spec(name: str) -> None:
    p = mp.models.create(name, preset="study").parameters
    assert (p.hidden, p.layers, p.latent, p.dropout) == (800, 2, 100, 0.2)
    assert (p.kl_weight, p.lr, p.epsilon, p.weight_decay) == (5e-5, 1e-3, 0.01, 1e-6)
    assert (p.batch_size, p.epochs, p.validation_share, p.patience) == (128, 100, 0.1, 25)
    assert (p.share_hidden, p.regression, p.matched_contexts) == (True, True, False)
    assert (p.initial, p.monitored_kl_weight, p.keep, p.drop_last) == ("torch", 1, "last", False)


def test_shared_hidden_layers_are_one_layer_passed_again_and_counted_once() -> None:
    def network(share: bool) -> VariationalAutoencoder:
        return VariationalAutoencoder(20, hidden=8, layers=4, latent=3, dropout=0.0, share_hidden=share).eval()

    shared, apart = network(True), network(False)
    one_layer = 8 * 8 + 8 + 2 * 8
    count = {which: sum(p.numel() for p in which.parameters()) for which in (shared, apart)}
    assert count[apart] - count[shared] == 2 * 2 * one_layer  # two layers fewer on either side
    assert len({tensor.data_ptr() for tensor in shared.state_dict().values()}) == len(shared.state_dict())

    # Apart, but with equal weights, it is the same function.
    for side in ("encoder", "decoder"):
        ours, theirs = getattr(shared, side), getattr(apart, side)
        theirs[0].load_state_dict(ours[0].state_dict())
        for layer in theirs[1:4]:
            layer.load_state_dict(ours[1].layer.state_dict())
    apart.heads.load_state_dict(shared.heads.state_dict())
    apart.decoder[4].load_state_dict(shared.decoder[2].state_dict())
    x = torch.rand(5, 20)
    torch.testing.assert_close(shared.decode(shared.encode(x)), apart.decode(apart.encode(x)))


def test_with_two_layers_nothing_is_left_to_share_and_the_autoencoder_is_scgens(data: mp.PerturbationData) -> None:
    counts = {
        model.fit(data).n_parameters
        for model in (ScGen(**FAST), ScVIDR(**FAST, share_hidden=False), ScVIDR(**FAST, share_hidden=True))
    }
    assert len(counts) == 1
    assert ScVIDR(**FAST, layers=1, share_hidden=True).fit(data).n_parameters < counts.pop()


# The regression.


def test_regression_finds_the_line_of_a_linear_world() -> None:
    rng = np.random.default_rng(0)
    slope, intercept = rng.normal(size=(3, 3)), rng.normal(size=3)
    centroids = rng.normal(size=(8, 3))
    deltas = centroids @ slope + intercept
    unseen = rng.normal(size=3)
    np.testing.assert_allclose(regressed_delta(unseen, centroids, deltas), unseen @ slope + intercept)
    deltas[2] = np.nan  # a context that training did not see perturbed
    np.testing.assert_allclose(regressed_delta(unseen, centroids, deltas), unseen @ slope + intercept)


@pytest.mark.parametrize("contexts", [1, 2, 5, 30])
def test_regression_is_scikit_learns(contexts: int) -> None:
    rng = np.random.default_rng(contexts)
    centroids, deltas, at = rng.normal(size=(contexts, 10)), rng.normal(size=(contexts, 10)), rng.normal(size=10)
    expected = LinearRegression().fit(centroids, deltas).predict([at])[0]
    np.testing.assert_allclose(regressed_delta(at, centroids, deltas), expected, atol=1e-10)


@torch.no_grad()
def test_the_held_out_context_moves_by_the_delta_read_off_its_control_cells(
    model: ScVIDR, data: mp.PerturbationData, controls: AnnData
) -> None:
    z = model.latent(controls, "beta") + naive_delta(model, data, "B", "beta")
    expected = model.network_[1].decode(torch.from_numpy(z.astype(np.float32))).clamp(min=0)
    np.testing.assert_allclose(model.predict(controls, "beta").X, expected, atol=1e-4)


def test_each_context_among_the_given_cells_moves_by_its_own_delta(model: ScVIDR, data: mp.PerturbationData) -> None:
    mixed = controls_of(data, "B", "D")
    order = np.random.default_rng(0).permutation(mixed.n_obs)
    mixed = mixed[order].copy()
    together = model.predict(mixed, "alpha")
    for context in ("B", "D"):
        alone = model.predict(controls_of(data, context), "alpha")
        np.testing.assert_allclose(together[alone.obs_names].X, alone.X, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("matched", [False, True])
def test_without_the_regression_all_contexts_move_by_one_balanced_delta(
    data: mp.PerturbationData, matched: bool
) -> None:
    split = mp.leave_context_out(data, "B")
    model = ScVIDR(**FAST, regression=False, matched_contexts=matched).fit(data, split)
    rows = visible(data, split, [0, 2])
    if matched:
        rows = rows[data.context[rows] != data.contexts.index("B")]
    z = model.latent(data.to_anndata(rows), "beta")
    delta = balanced_weights(data.condition[rows] == 2, data.context[rows], np.random.default_rng((1, 2))) @ z
    for context in ("A", "B"):
        controls = controls_of(data, context)
        moved = torch.from_numpy((model.latent(controls, "beta") + delta).astype(np.float32))
        expected = model.network_[1].decode(moved).clamp(min=0)
        np.testing.assert_allclose(model.predict(controls, "beta").X, expected, atol=1e-4)
    assert np.isfinite(model.gene_scores("beta", samples=50)).all()


def test_two_contexts_leave_one_delta_for_all(data: mp.PerturbationData) -> None:
    kept = np.flatnonzero(data.context < 2)
    lonely = data.rows(condition="beta", context="A")[1:]
    few = mp.PerturbationData.from_anndata(data.to_anndata(np.setdiff1d(kept, lonely)), **KEYS)
    fitted = ScVIDR(**FAST).fit(few, mp.leave_context_out(few, "B"))
    network = fitted.network_[1]
    at = fitted.latent(controls_of(few, "B"), "beta").mean(axis=0)
    np.testing.assert_allclose(
        regressed_delta(at, network.centroids.numpy(), network.deltas.numpy()), network.deltas[0], atol=1e-6
    )
    assert np.isfinite(fitted.predict(controls_of(few, "B"), "beta").X).all()


def test_a_perturbation_seen_only_in_the_held_out_context_is_refused(data: mp.PerturbationData) -> None:
    kept = np.flatnonzero((data.condition != 2) | (data.context == data.contexts.index("B")))
    lacking = mp.PerturbationData.from_anndata(data.to_anndata(kept), **KEYS)
    fitted = ScVIDR(**FAST).fit(lacking, mp.leave_context_out(lacking, "B"))
    with pytest.raises(mp.InputError, match="training saw no context with both"):
        fitted.predict(controls_of(lacking, "B"), "beta")
    with pytest.raises(mp.InputError, match="training saw too few control cells or cells of 'beta'"):
        fitted.gene_scores("beta")


# Doses.


def test_one_network_learns_every_dose_of_a_compound(of_doses: ScVIDRDose, dosed: mp.PerturbationData) -> None:
    split = mp.leave_context_out(dosed, "B")
    stages = of_doses._stages(of_doses.network_, dosed, split)
    assert [stage.name for stage in stages] == ["alpha: reconstruct", "beta: reconstruct"]
    assert isinstance(stages[1].batches, Shuffled)
    seen = np.concatenate([stages[1].batches.examples.cells["x"], stages[1].validation.cells["x"]])
    assert {dosed.conditions[code] for code in dosed.condition[seen]} == {"control", "beta@0.1", "beta@1", "beta@30"}
    assert not np.isin(seen, split.test).any()
    assert len(of_doses.network_) == 2
    assert list(compounds(of_doses.metadata_).values()) == [{1: 0.1, 2: 1.0, 3: 30.0}, {4: 0.1, 5: 1.0, 6: 30.0}]


@torch.no_grad()
@pytest.mark.parametrize("dose", [0.1, 1, 30])
def test_a_dose_goes_its_share_of_the_way_to_the_highest(
    of_doses: ScVIDRDose, dosed: mp.PerturbationData, dose: float
) -> None:
    delta = naive_delta(of_doses, dosed, "B", "beta@30") * np.log(1 + dose) / np.log(31)
    cells = controls_of(dosed, "B")
    z = of_doses.latent(cells, f"beta@{dose:g}") + delta
    expected = of_doses.network_[1].decode(torch.from_numpy(z.astype(np.float32))).clamp(min=0)
    predicted = of_doses.predict(cells, f"beta@{dose:g}")
    np.testing.assert_allclose(predicted.X, expected, atol=1e-4)
    assert set(predicted.obs["dose"]) == {dose}


def test_a_single_compound_by_its_doses_alone() -> None:
    adata = mp.simulate(n_genes=40, contexts=("A", "B"), perturbations=("drug",), doses=(0.1, 3), cells_per_group=20)
    data = mp.PerturbationData.from_anndata(adata, dose_key="dose", compound="drug", context_key="cell_type")
    fitted = ScVIDRDose(**FAST).fit(data, mp.leave_context_out(data, "A"))
    assert compounds(fitted.metadata_) == {"drug": {1: 0.1, 2: 3.0}}
    assert np.isfinite(fitted.predict(controls_of(data, "A"), "drug@0.1").X).all()
    assert fitted.latent(controls_of(data, "A")).shape == (20, 4), "one compound, one latent space"


def test_without_doses_it_is_scvidr_and_says_so(
    model: ScVIDR, data: mp.PerturbationData, controls: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fitted = ScVIDRDose(**FAST).fit(data, mp.leave_context_out(data, "B"))
    assert "the data name no doses" in caplog.text
    np.testing.assert_array_equal(fitted.predict(controls, "beta").X, model.predict(controls, "beta").X)


# Gene scores.


def test_weighted_ridge_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    inputs, outputs, weights = rng.normal(size=(50, 4)), rng.normal(size=(50, 7)), rng.uniform(0.5, 30, 50)
    expected = Ridge(alpha=1.0).fit(inputs, outputs, sample_weight=weights).coef_
    np.testing.assert_allclose(weighted_ridge(inputs, [outputs[:20], outputs[20:]], weights), expected)


def test_cosine_distances_are_scipys() -> None:
    vectors, direction = np.random.default_rng(0).normal(size=(6, 4)), np.array([1.0, 2, 0, -1])
    expected = [cosine(vector, direction) for vector in vectors]
    np.testing.assert_allclose(cosine_distances(vectors, direction), expected)


class LinearWorld:
    """Stands for a decoder in which gene g is ``z @ weights[:, g]``."""

    def __init__(self, weights: npt.NDArray[np.float64]) -> None:
        self.weights = torch.from_numpy(weights.astype(np.float32))

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.weights


@pytest.fixture
def linear(model: ScVIDR, data: mp.PerturbationData, monkeypatch: pytest.MonkeyPatch) -> LinearWorld:
    """The fitted model with a linear decoder: gene 7 lies along delta; the others are faint."""
    delta = naive_delta(model, data, "B", "beta")
    weights = np.random.default_rng(0).normal(size=(4, 60)) * 0.05
    weights[:, 7] = delta / np.linalg.norm(delta)
    weights[:, 8] = -0.5 * weights[:, 7]
    world = LinearWorld(weights)
    monkeypatch.setattr(model.network_[1], "decode", world)
    return world


def test_the_gene_along_delta_scores_highest(model: ScVIDR, data: mp.PerturbationData, linear: LinearWorld) -> None:
    scores = model.gene_scores("beta")
    assert list(scores.index[:2]) == [data.genes[7], data.genes[8]]
    assert scores.iloc[0] > 0 > scores.iloc[1]
    assert set(scores.index) == set(data.genes)
    assert scores.abs().is_monotonic_decreasing


def test_gene_scores_are_the_publisheds(model: ScVIDR, data: mp.PerturbationData, linear: LinearWorld) -> None:
    """Scikit-learn's ridge on all samples at once."""
    delta = naive_delta(model, data, "B", "beta")
    rows = np.setdiff1d(np.flatnonzero(np.isin(data.condition, [0, 2])), mp.leave_context_out(data, "B").test)
    z = model.latent(data.to_anndata(rows), "beta")
    drawn = np.random.default_rng(1).uniform(z.min(axis=0), z.max(axis=0), (500, 4))
    weights = [1 / cosine(one, delta) for one in drawn]
    coefficients = Ridge().fit(drawn, drawn @ linear.weights.numpy(), sample_weight=weights).coef_
    expected = (coefficients / np.linalg.norm(coefficients, axis=0)) @ delta
    found = model.gene_scores("beta", samples=500)[data.genes]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_gene_scores_of_a_dose_are_its_share(of_doses: ScVIDRDose) -> None:
    highest, lower = of_doses.gene_scores("beta@30"), of_doses.gene_scores("beta@1")
    np.testing.assert_allclose(lower[highest.index], highest * np.log(2) / np.log(31))


def test_gene_scores_of_another_context_and_of_all(model: ScVIDR, data: mp.PerturbationData) -> None:
    assert not model.gene_scores("beta", context="A").equals(model.gene_scores("beta"))
    everything = ScVIDR(**FAST).fit(data)
    assert np.isfinite(everything.gene_scores("alpha")).all()
    for wrong, message in ((("gamma", None), "no perturbation 'gamma'"), (("beta", "Z"), "no context 'Z'")):
        with pytest.raises(mp.InputError, match=message):
            model.gene_scores(wrong[0], context=wrong[1])


# What every model keeps.


def test_saved_and_loaded_it_predicts_and_scores_the_same(
    dosed: mp.PerturbationData, controls: AnnData, tmp_path: Path
) -> None:
    fitted = ScVIDRDose(**FAST, layers=3, share_hidden=True).fit(dosed, mp.leave_context_out(dosed, "B"))
    fitted.save(tmp_path)
    loaded = mp.models.load(tmp_path)
    assert isinstance(loaded, ScVIDRDose)
    cells = controls_of(dosed, "B")
    assert loaded.n_parameters == fitted.n_parameters
    np.testing.assert_array_equal(loaded.predict(cells, "beta@1").X, fitted.predict(cells, "beta@1").X)
    assert loaded.gene_scores("beta@1").equals(fitted.gene_scores("beta@1"))
