"""Effects of unseen perturbations, put together from those of seen ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import multipert as mp
from multipert.models.effects import _unexplained, nearest, put_together, reduced_rank, regress, without_noise

RNG = np.random.default_rng(0)
PERTURBATIONS = RNG.normal(size=(30, 3))
LOADING = RNG.normal(size=(3, 20))


def test_left_out_errors_are_those_of_leaving_out() -> None:
    effects = np.tanh(PERTURBATIONS) @ LOADING + RNG.normal(0, 0.1, (30, 20))
    one = np.arange(30) != 4
    for smooth in (False, True):
        everything = regress(PERTURBATIONS, effects, PERTURBATIONS[:1], smooth=smooth)
        without = regress(PERTURBATIONS[one], effects[one], PERTURBATIONS[4:5], smooth=smooth)
        error = ((without.weights @ effects[one] - effects[4]) ** 2).sum()
        assert error == pytest.approx(everything.squares[4].sum(), rel=0.5)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_where_features_say_nothing_it_errs_hardly_more_than_the_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, effects = rng.normal(size=(20, 5)), rng.normal(0.5, 1, (20, 50))
    new, truth = rng.normal(size=(20, 5)), rng.normal(0.5, 1, (20, 50))
    guessed = regress(vectors, effects, new, smooth=True).weights @ effects
    assert ((guessed - truth) ** 2).mean() < 1.15 * ((effects.mean(axis=0) - truth) ** 2).mean()


def test_a_smooth_kernel_follows_what_bends() -> None:
    z = np.linspace(-3, 3, 40)[:, None]
    effects = np.cos(2 * z) * np.ones((1, 8))
    new = np.array([[0.5], [1.0]])
    bent = regress(z, effects, new, smooth=True).weights @ effects
    np.testing.assert_allclose(bent, np.cos(2 * new) * np.ones((1, 8)), atol=0.05)
    assert np.abs(regress(z, effects, new).weights @ effects - bent).max() > 0.3


def test_without_a_mean_no_features_are_no_effect() -> None:
    effects = PERTURBATIONS @ LOADING
    weights = regress(PERTURBATIONS, effects, np.zeros((1, 3)), around_mean=False).weights
    np.testing.assert_allclose(weights @ effects, 0, atol=1e-9)


def test_the_linear_models_find_what_is_linear() -> None:
    effects = 0.3 + PERTURBATIONS @ LOADING
    new = RNG.normal(size=(4, 3))
    truth = 0.3 + new @ LOADING
    np.testing.assert_allclose(regress(PERTURBATIONS, effects, new).weights @ effects, truth, atol=0.1)
    np.testing.assert_allclose(reduced_rank(PERTURBATIONS, effects, new, rank=10, ridge=1e-6), truth, atol=1e-3)
    np.testing.assert_array_equal(nearest(PERTURBATIONS, PERTURBATIONS[[7, 2]]).argmax(axis=1), [7, 2])


def pairs(size: float, n: int = 5) -> tuple[list[str], np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    rng = np.random.default_rng(1)
    single = rng.normal(size=(2 * n, 30))
    names = [f"s{i}" for i in range(2 * n)]
    sums = [f"s{2 * i}+s{2 * i + 1}" for i in range(n)]
    effects = np.concatenate([single, size * (single[::2] + single[1::2])])
    return [*names, *sums], effects + rng.normal(0, 0.01, effects.shape)


@pytest.mark.parametrize("size", [0.6, 1.0, 1.5])
def test_sums_of_members_are_as_large_as_seen_combinations_show(size: float) -> None:
    names, effects = pairs(size)
    told = put_together(["s1+s2"], names, effects, {}, None)["s1+s2"]
    np.testing.assert_allclose(told.weights @ effects, size * (effects[1] + effects[2]), atol=0.05)
    assert told.squares.mean() < 0.01


def test_few_combinations_show_no_size() -> None:
    names, effects = pairs(0.5, n=2)
    weights = put_together(["s1+s2"], names, effects, {}, None)["s1+s2"].weights
    np.testing.assert_array_equal(np.flatnonzero(weights), [1, 2])
    assert set(weights) == {0.0, 1.0}


def test_errors_beyond_the_doses_that_were_seen_are_larger_than_between() -> None:
    seen_doses = [0.1, 0.3, 1.0, 3.0, 10.0]

    def curve(dose: float) -> float:
        return dose**1.5 / (dose**1.5 + 1)

    full = np.random.default_rng(2).normal(size=(2, 40))
    names = [f"{c}@{d:g}" for c in "pq" for d in seen_doses]
    effects = np.concatenate([np.outer([curve(d) for d in seen_doses], one) for one in full])
    doses = {name: float(name[2:]) for name in names} | {"p@2": 2.0, "p@30": 30.0}
    told = put_together(["p@2", "p@30"], names, effects, doses, None)
    between, above = told["p@2"], told["p@30"]
    np.testing.assert_allclose(between.weights @ effects, curve(2) * full[0], atol=0.2)
    assert above.squares.sum() > between.squares.sum()


def test_mtcell_is_told_of_a_perturbation_and_of_a_dose_when_asked() -> None:
    adata = mp.simulate(n_genes=40, contexts=("A", "B"), perturbations=("x", "y"), doses=(1, 3, 10), cells_per_group=30)
    data = mp.PerturbationData.from_anndata(
        adata, perturbation_key="compound", control="control", context_key="cell_type", dose_key="dose"
    )
    model = mp.models.create("mtcell").fit(data, features="dose")
    controls = data.to_anndata(data.rows(condition="control", context="A"))
    predicted = model.predict(controls, ["x@2", "x@30", "x@3"], intervals=0.9)
    warnings = list(predicted.uns["multipert"]["warnings"])
    assert any("'x@30'" in one and "extrapolation" in one for one in warnings)
    assert not any("'x@2'" in one and "extrapolation" in one for one in warnings)
    width = (predicted.varm["mean_high"] - predicted.varm["mean_low"]).mean()
    assert width["x@30"] > width["x@2"]
    assert model.perturbations == data.perturbations


def test_noise_is_taken_off_effects_and_effects_are_kept() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 200))
    noise = np.full(truth.shape, 0.5)
    seen = truth + rng.normal(0, np.sqrt(noise))
    kept = without_noise(seen, noise) @ seen
    assert ((kept - truth) ** 2).mean() < 0.2 * ((seen - truth) ** 2).mean()
    np.testing.assert_allclose(without_noise(truth, 1e-12 * noise) @ truth, truth, atol=1e-5)
    np.testing.assert_array_equal(without_noise(rng.normal(0, np.sqrt(noise)) / 2, noise), 0)
    assert np.isfinite(without_noise(np.zeros((2, 5)), np.zeros((2, 5)))).all()


def test_what_is_left_out_together_is_predicted_by_the_others_alone() -> None:
    rng = np.random.default_rng(3)
    together = np.kron(np.eye(10), np.ones((2, 2))).astype(bool)
    effects = np.repeat(rng.normal(size=(10, 30)), 2, axis=0) + rng.normal(0, 0.1, (20, 30))
    vectors = np.repeat(rng.normal(size=(10, 3)), 2, axis=0)
    # Each has a near copy, and nothing else tells of it: alone it seems well known, together with its copy not at all.
    alone, all_ = (regress(vectors, effects, vectors[:1], smooth=True, together=how) for how in (None, together))
    assert alone.squares.mean() < 0.7 * (effects**2).mean()
    assert all_.squares.mean() > 0.9 * (effects**2).mean()
    assert np.abs(all_.weights).sum() < np.abs(alone.weights).sum()
    block = np.flatnonzero(together[4])
    rest = np.setdiff1d(np.arange(20), block)
    smoother = np.full((20, 20), 1 / 20)
    np.testing.assert_allclose(
        effects[4] - (_unexplained(smoother, together) @ (effects - smoother @ effects))[4], effects[rest].mean(axis=0)
    )


def test_relative_errors_keep_a_few_strong_effects_from_choosing_for_all() -> None:
    rng = np.random.default_rng(5)
    sizes = np.where(np.arange(20) < 2, 30.0, 1.0)[:, None]
    vectors, effects = rng.normal(size=(20, 3)), sizes * rng.normal(size=(20, 40))
    plain, relative = (regress(vectors, effects, vectors[:1], relative=how) for how in (False, True))
    lengths = (effects**2).sum(axis=1)
    assert (relative.squares.sum(axis=1) / lengths).mean() < (plain.squares.sum(axis=1) / lengths).mean()
    assert (relative.squares.sum(axis=1) / lengths).mean() < 1.05  # hardly worse than no change
    nothing = np.where(np.arange(20) == 7, 0.0, 1.0)[:, None] * effects
    assert np.isfinite(regress(vectors, nothing, vectors[:1], relative=True).weights).all()
    assert np.isfinite(regress(vectors, 0 * effects, vectors[:1], relative=True).weights).all()


def test_those_alike_choose_for_those_alike() -> None:
    rng = np.random.default_rng(6)
    vectors = rng.normal(size=(30, 4))
    effects = np.where(np.arange(30) < 15, 1.0, 0.0)[:, None] * (vectors @ rng.normal(size=(4, 25)))
    effects += np.where(np.arange(30) < 15, 0.0, 1.0)[:, None] * rng.normal(size=(30, 25))
    linear, noise = (regress(vectors, effects, vectors[:15], like=rows) for rows in (range(15), range(15, 30)))
    assert np.abs(linear.weights).sum() > 2 * np.abs(noise.weights).sum()
