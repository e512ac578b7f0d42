from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from models.conftest import KEYS
from multipert.data import (
    PerturbationData,
    leave_combination_out,
    leave_context_out,
    leave_dose_out,
    simulate,
    train_on_everything,
)
from multipert.errors import InputError
from multipert.evaluation import STUDY, evaluate
from multipert.models import Model, load
from multipert.models.baselines import (
    SHARPNESS,
    Additive,
    Linear,
    MeanShift,
    NearestContext,
    NoChange,
    Resample,
    correlations,
    group_means,
)

RIDGE = 1.0


def shift_baselines(seed: int = 1) -> list[Model]:
    return [MeanShift(), Additive(), NearestContext(), Linear(ridge=RIDGE), Resample(seed=seed)]


def world(**settings: Any) -> PerturbationData:
    settings = {"n_genes": 120, "cells_per_group": 30, "counts_per_gene": 1, "seed": 4} | settings
    return PerturbationData.from_anndata(simulate(**settings), **KEYS)


def controls_of(data: PerturbationData, context: str) -> AnnData:
    return data.to_anndata(data.rows(condition="control", context=context))


def without(data: PerturbationData, condition: str, contexts: Sequence[str]) -> PerturbationData:
    """The data less the cells of a condition in some contexts."""
    dropped = np.concatenate([data.rows(condition=condition, context=context) for context in contexts])
    kept = np.setdiff1d(np.arange(len(data)), dropped)
    return PerturbationData.from_anndata(data.to_anndata(kept), **KEYS)


def mean(data: PerturbationData, condition: str, context: str) -> npt.NDArray[np.float64]:
    return np.asarray(data.X[data.rows(condition=condition, context=context)].toarray().mean(axis=0, dtype=np.float64))


def shift(data: PerturbationData, condition: str, context: str) -> npt.NDArray[np.float64]:
    return mean(data, condition, context) - mean(data, "control", context)


def likeness(data: PerturbationData, context: str, other: str) -> float:
    return float(np.corrcoef(mean(data, "control", context), mean(data, "control", other))[0, 1])


# The rules, each against its formula written plainly.


def moved(data: PerturbationData, context: str, by: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(data.X[data.rows(condition="control", context=context)].toarray() + by, 0, dtype=np.float64)


def test_no_change_gives_the_controls_back() -> None:
    data = world()
    predicted = NoChange().fit(data, leave_context_out(data, "B")).predict(controls_of(data, "B"), "alpha")
    np.testing.assert_array_equal(predicted.X, controls_of(data, "B").X.toarray())


def test_mean_shift_counts_contexts_equally() -> None:
    data = world(cells_per_group=(5, 60))
    predicted = MeanShift().fit(data, leave_context_out(data, "B")).predict(controls_of(data, "B"), "beta")
    expected = np.mean([shift(data, "beta", context) for context in "ACDE"], axis=0)
    np.testing.assert_allclose(predicted.X, moved(data, "B", expected), atol=1e-5)


def test_additive_adds_up_the_members_of_a_combination() -> None:
    data = world(combinations=("alpha+beta", "alpha+gamma"))
    split = leave_combination_out(data, "alpha+beta")
    model, controls = Additive().fit(data, split), controls_of(data, "B")
    members = [np.mean([shift(data, name, context) for context in data.contexts], axis=0) for name in ("alpha", "beta")]
    np.testing.assert_allclose(model.predict(controls, "alpha+beta").X, moved(data, "B", sum(members)), atol=1e-5)
    # What training saw is not put together.
    plain = MeanShift().fit(data, split).predict(controls, "alpha+gamma")
    np.testing.assert_array_equal(model.predict(controls, "alpha+gamma").X, plain.X)


def test_additive_puts_a_dose_between_its_neighbours() -> None:
    cells = simulate(n_genes=120, perturbations=("alpha",), doses=(0.1, 1, 10), cells_per_group=30, seed=4)
    keys: dict[str, Any] = {
        "perturbation_key": "compound",
        "dose_key": "dose",
        "control": "control",
        "context_key": "cell_type",
    }
    data = PerturbationData.from_anndata(cells, **keys)
    predicted = Additive().fit(data, leave_dose_out(data, 1)).predict(controls_of(data, "B"), "alpha@1")
    neighbours = [np.mean([shift(data, f"alpha@{dose}", c) for c in data.contexts], axis=0) for dose in (0.1, 10)]
    np.testing.assert_allclose(predicted.X, moved(data, "B", np.mean(neighbours, axis=0)), atol=1e-5)


def test_additive_refuses_a_combination_of_which_it_saw_no_member() -> None:
    data = world(combinations=("alpha+beta",))
    model = Additive().fit(data, leave_combination_out(data, "alpha+beta", seen=0))
    with pytest.raises(InputError, match=r"'alpha\+beta'"):
        model.predict(controls_of(data, "B"), "alpha+beta")


def test_nearest_context_takes_the_shift_of_the_most_similar_context_that_has_the_perturbation() -> None:
    data = world()
    nearest, second = sorted("ACDE", key=lambda other: -likeness(data, "B", other))[:2]
    for cells, expected in ((data, nearest), (without(data, "beta", [nearest]), second)):
        predicted = NearestContext().fit(cells, leave_context_out(cells, "B")).predict(controls_of(cells, "B"), "beta")
        np.testing.assert_allclose(predicted.X, moved(cells, "B", shift(cells, "beta", expected)), atol=1e-5)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
def test_linear_is_scikit_learns_ridge(ridge: float) -> None:
    from sklearn.linear_model import Ridge

    data = world()
    profiles = np.array([mean(data, "control", context) for context in "ACDE"])
    shifts = np.array([shift(data, "alpha", context) for context in "ACDE"])
    unit = np.square(profiles - profiles.mean(axis=0)).sum(axis=1).mean()
    regression = Ridge(alpha=ridge * unit).fit(profiles, shifts)
    expected = regression.predict(mean(data, "control", "B")[None])[0]
    predicted = Linear(ridge=ridge).fit(data, leave_context_out(data, "B")).predict(controls_of(data, "B"), "alpha")
    np.testing.assert_allclose(predicted.X, moved(data, "B", expected), atol=1e-4)


def test_linear_without_a_penalty_passes_through_every_context() -> None:
    data = world()
    model = Linear(ridge=0).fit(data)
    for context in data.contexts:
        predicted = model.predict(controls_of(data, context), "gamma")
        np.testing.assert_allclose(predicted.X, moved(data, context, shift(data, "gamma", context)), atol=1e-4)


def resample_means(
    data: PerturbationData, condition: str, context: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The target mean of every gene, and the mean that exchanges can reach."""
    others = [other for other in data.contexts if other != context]
    r = np.array([likeness(data, context, other) for other in others])
    weights = np.exp(SHARPNESS * (r - r.max()))
    weights /= weights.sum()
    control = mean(data, "control", context)
    target = np.maximum(control + weights @ np.array([shift(data, condition, other) for other in others]), 0)
    reached = target.copy()
    pools = [data.X[data.rows(condition=condition, context=other)].toarray() for other in others]
    values = np.concatenate(pools)
    weight = np.concatenate([np.full(len(pool), w / len(pool)) for pool, w in zip(pools, weights, strict=True)])
    for gene in np.flatnonzero(target > control):
        positive = values[:, gene] > 0
        highest = np.average(values[positive, gene], weights=weight[positive])
        reached[gene] = max(control[gene], min(target[gene], highest))
    return target, reached


def test_resample_reaches_the_target_means() -> None:
    data = world(response=0.5)
    split, controls = leave_context_out(data, "B"), controls_of(data, "B")
    target, reached = resample_means(data, "alpha", "B")
    assert np.isclose(target, reached).mean() > 0.95
    models = [Resample(seed=seed).fit(data, split) for seed in range(200)]
    means = [model.predict(controls, "alpha").X.mean(axis=0, dtype=np.float64) for model in models]
    error = np.std(means, axis=0) / np.sqrt(len(means))
    assert (np.abs(np.mean(means, axis=0) - reached) <= 4.5 * error + 1e-5).all()


def test_resampled_values_are_values_of_cells() -> None:
    data = world()
    split, controls = leave_context_out(data, "B"), controls_of(data, "B")
    predicted = Resample().fit(data, split).predict(controls, "alpha").X
    before, target = controls.X.toarray(), resample_means(data, "alpha", "B")[0]
    pool = data.X[np.setdiff1d(data.rows(condition="alpha"), split.test)].toarray()
    up = target > before.mean(axis=0)
    for gene in range(len(data.genes)):
        changed = predicted[:, gene] != before[:, gene]
        assert np.isin(predicted[changed, gene], pool[pool[:, gene] > 0, gene] if up[gene] else [0]).all()
    assert (predicted != before).any(axis=0).mean() > 0.5


def test_resample_leaves_genes_that_do_not_shift() -> None:
    data = world()
    quiet = np.arange(len(data.genes)) % 2 == 0
    cells = data.to_anndata()
    # Every cell of a context the same in these genes, under whatever condition.
    X = cells.X.toarray()
    X[:, quiet] = 1 + data.context[:, None]
    cells.X = sparse.csr_matrix(X)
    data = PerturbationData.from_anndata(cells, **KEYS)
    predicted = Resample().fit(data, leave_context_out(data, "C")).predict(controls_of(data, "C"), "beta")
    np.testing.assert_array_equal(predicted.X[:, quiet], 3)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cells=st.integers(1, 5),
    contexts=st.integers(1, 3),
    response=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_small_worlds_are_predicted(seed: int, cells: int, contexts: int, response: float) -> None:
    data = world(n_genes=20, contexts="ABC"[:contexts], cells_per_group=cells, response=response, seed=seed)
    for model in shift_baselines():
        predicted = model.fit(data).predict(controls_of(data, "A"), "alpha")
        assert predicted.shape == (cells, 20)
        assert np.isfinite(predicted.X).all()
        assert (predicted.X >= 0).all()


# What holds for all of them.


def test_one_training_context_gives_its_own_shift() -> None:
    data = world(contexts=("A", "B"))
    split, controls = leave_context_out(data, "B"), controls_of(data, "B")
    for model in shift_baselines()[:3]:
        predicted = model.fit(data, split).predict(controls, "alpha")
        np.testing.assert_allclose(predicted.X, moved(data, "B", shift(data, "alpha", "A")), atol=1e-5)


def test_a_context_is_predicted_the_same_alone_or_among_others() -> None:
    data = world()
    everyone = data.to_anndata(np.random.default_rng(0).permutation(data.rows(condition="control")))
    for model in shift_baselines():
        together = model.fit(data, leave_context_out(data, "B")).predict(everyone, "beta")
        for context in ("B", "D"):
            of_it = (everyone.obs["cell_type"] == context).to_numpy()
            alone = model.predict(everyone[of_it].copy(), "beta")
            np.testing.assert_array_equal(alone.X, together.X[of_it])


def test_contexts_that_lack_a_group_are_passed_over() -> None:
    data = without(without(world(), "alpha", ["A"]), "control", ["C"])
    expected = np.mean([shift(data, "alpha", context) for context in "DE"], axis=0)
    models = shift_baselines()
    for model in models:
        predicted = model.fit(data, leave_context_out(data, "B")).predict(controls_of(data, "B"), "alpha")
        assert np.isfinite(predicted.X).all()
        if isinstance(model, MeanShift):
            np.testing.assert_allclose(predicted.X, moved(data, "B", expected), atol=1e-5)


def test_a_perturbation_no_training_context_has_is_refused() -> None:
    data = without(world(), "alpha", "ACDE")
    for model in shift_baselines():
        model.fit(data, leave_context_out(data, "B"))
        with pytest.raises(InputError, match=r"training saw no context with both control cells and cells of 'alpha'"):
            model.predict(controls_of(data, "B"), "alpha")
        assert model.predict(controls_of(data, "B"), "beta").n_obs == 30


def test_nothing_of_the_held_out_response_is_learnt() -> None:
    data = world()
    cells = data.to_anndata()
    X = cells.X.tolil()
    for row in leave_context_out(data, "B").test:
        X[row] = 1
    cells.X = X.tocsr()
    other = PerturbationData.from_anndata(cells, **KEYS)
    for one, two in zip(shift_baselines(), shift_baselines(), strict=True):
        first = one.fit(data, leave_context_out(data, "B")).predict(controls_of(data, "B"), "alpha")
        second = two.fit(other, leave_context_out(other, "B")).predict(controls_of(data, "B"), "alpha")
        np.testing.assert_array_equal(first.X, second.X)


def test_seed_saving_and_loading(tmp_path: Path) -> None:
    data = world()
    split, controls = leave_context_out(data, "B"), controls_of(data, "B")
    for model, again in zip(shift_baselines(), shift_baselines(), strict=True):
        predicted = model.fit(data, split).predict(controls, "gamma")
        model.save(tmp_path / model.name)
        loaded = load(tmp_path / model.name)
        np.testing.assert_array_equal(predicted.X, again.fit(data, split).predict(controls, "gamma").X)
        np.testing.assert_array_equal(predicted.X, loaded.predict(controls, "gamma").X)
    other = Resample(seed=2).fit(data, split).predict(controls, "gamma")
    assert (other.X != predicted.X).any()


def test_group_means_are_the_means_of_groups() -> None:
    data = without(world(cells_per_group=(1, 4)), "beta", ["D"])
    rows = train_on_everything(data).train[::2]
    means = group_means(data, rows)
    for condition in range(len(data.conditions)):
        for context in range(len(data.contexts)):
            cells = rows[(data.condition[rows] == condition) & (data.context[rows] == context)]
            if len(cells):
                np.testing.assert_allclose(means[condition, context], data.X[cells].toarray().mean(axis=0), atol=1e-5)
            else:
                assert np.isnan(means[condition, context]).all()


def test_correlations() -> None:
    rng = np.random.default_rng(0)
    profile, profiles = rng.random(50), rng.random((4, 50)).astype(np.float32)
    profiles[2] = 1
    expected = [np.corrcoef(profile, one)[0, 1] if one.std() > 0 else 0 for one in profiles]
    np.testing.assert_allclose(correlations(profile, profiles), expected, atol=1e-12)
    np.testing.assert_array_equal(correlations(np.zeros(50), profiles), 0)


# Worlds with a known answer.


def test_a_strong_shared_response_is_predicted() -> None:
    data = world(n_genes=500, cells_per_group=60, response=2.0, context_specific=0.2)
    controls, truth = controls_of(data, "B"), data.to_anndata(data.rows(condition="alpha", context="B"))
    for model in shift_baselines():
        predicted = model.fit(data, leave_context_out(data, "B")).predict(controls, "alpha")
        scores = evaluate(control=controls, truth=truth, predicted=predicted, metrics=["edist_vs_control"])
        assert scores["edist_vs_control"] < 0.5, model.name


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_nothing_happens_nothing_is_invented(seed: int) -> None:
    data = world(n_genes=500, cells_per_group=60, response=0.0, counts_per_gene=0.5, seed=seed)
    controls = controls_of(data, "B")
    truth = data.to_anndata(data.rows(condition="alpha", context="B")).X.toarray()
    noise = np.linalg.norm(truth[::2].mean(axis=0) - truth[1::2].mean(axis=0))
    for model in shift_baselines():
        predicted = model.fit(data, leave_context_out(data, "B")).predict(controls, "alpha")
        invented = np.linalg.norm(predicted.X.mean(axis=0) - controls.X.toarray().mean(axis=0))
        assert invented < noise, model.name


@pytest.mark.slow
def test_resample_on_kang(kang_path: Path) -> None:
    """Figures seen before: degs 67.6, r2 0.945 / 0.955 / 0.949, edistance 0.22."""
    data = PerturbationData.from_anndata(kang_path, **KEYS)
    scores = []
    for context in data.contexts:
        controls = controls_of(data, context)
        truth = data.to_anndata(data.rows(condition="stimulated", context=context))
        predicted = Resample().fit(data, leave_context_out(data, context)).predict(controls, "stimulated")
        scores.append(evaluate(control=controls, truth=truth, predicted=predicted, metrics=STUDY))
    found = pd.DataFrame(scores).mean()
    assert found["degs"] == pytest.approx(67.6, abs=4)
    for metric, seen in (("r2_hvg", 0.945), ("r2_deg20", 0.955), ("r2_deg100", 0.949)):
        assert found[metric] == pytest.approx(seen, abs=0.01)
    assert found["edistance"] == pytest.approx(0.22, abs=0.02)


def test_controls_are_matched_within_the_covariate() -> None:
    """Two donors far apart and unevenly perturbed: pooled, the donors' difference would pass for a response."""
    rng = np.random.default_rng(0)
    donor = np.repeat(["p1", "p2"], [60, 60])
    condition = np.concatenate([np.repeat(["control", "drug"], [50, 10]), np.repeat(["control", "drug"], [20, 40])])
    place = np.where(donor == "p1", 1.0, 3.0)[:, None] + np.where(condition == "drug", 0.5, 0.0)[:, None]
    obs = pd.DataFrame({"condition": condition, "donor": donor, "cell_type": "A"}, index=[f"c{i}" for i in range(120)])
    adata = AnnData((place + 0.01 * rng.random((120, 4))).astype(np.float32), obs=obs)
    keys: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
    matched = PerturbationData.from_anndata(adata, **keys, covariate_key="donor")
    pooled = PerturbationData.from_anndata(adata, **keys)

    def shift(data: PerturbationData, condition: str = "drug") -> Any:
        controls = data.to_anndata(data.rows(condition="control", covariate="p1" if data.covariates else None))
        model = MeanShift().fit(data, train_on_everything(data))
        return (model.predict(controls, condition).X - controls.X.toarray()).mean(axis=0)

    np.testing.assert_allclose(shift(matched), 0.5, atol=0.01)
    assert (shift(pooled) > 1).all()

    # The slow formula: levels weighted by their perturbed cells.
    X, d, c = matched.X.toarray(), matched.covariate, matched.condition
    within = [X[(d == one) & (c == 1)].mean(axis=0) - X[(d == one) & (c == 0)].mean(axis=0) for one in (0, 1)]
    np.testing.assert_allclose(shift(matched), np.average(within, axis=0, weights=[10, 40]), rtol=1e-5)
