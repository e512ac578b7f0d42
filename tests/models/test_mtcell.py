"""mtcell: means carried over from other contexts, and cells that keep being the cells they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from models.conftest import KEYS
from multipert import PerturbationData, evaluate, leave_context_out, simulate
from multipert.errors import InputError, InputWarning
from multipert.models import Model, create, load
from multipert.models.cells import LEVELS, Marginals, move, positive_quantiles
from multipert.models.correction import correct, features
from multipert.models.posterior import look_back, update, variance
from multipert.models.transfer import PRIOR, Contexts, from_one, leave_each_out, part_taken, stack, terms
from multipert.testing import check_model


def sparse_cells(seed: int, n_cells: int = 40, n_genes: int = 30) -> csr_matrix:
    """Cells that express every gene now and then, at values that differ."""
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.05, 1, n_genes)
    return csr_matrix(((rng.random((n_cells, n_genes)) < chance) * rng.gamma(2, 1, (n_cells, n_genes))).astype("f4"))


def marginals(X: csr_matrix) -> Marginals:
    """What cells have themselves, and no change."""
    dense = X.toarray().astype(float)
    return Marginals(
        dense.mean(axis=0),
        (dense > 0).mean(axis=0),
        np.zeros((X.shape[1], len(LEVELS))),
        positive_quantiles(X).astype(np.float64),
    )


def random_contexts(seed: int, n: int, effect: float, n_genes: int = 200) -> Contexts:
    """Contexts that share a response of size ``effect``, with noise of size .1."""
    rng = np.random.default_rng(seed)
    control = np.maximum(rng.normal(1, 0.5, (n, n_genes)), 0.05)
    shared = effect * rng.normal(0, 1, n_genes)
    noise = np.full((n, n_genes), 0.1**2)
    perturbed = np.maximum(control + shared + rng.normal(0, 0.1, (n, n_genes)), 0)
    return Contexts(control, perturbed, noise, noise)


def test_perturbed_cells_are_compared_with_controls_of_their_own_donor() -> None:
    """Donors unlike each other and unevenly perturbed: pooled, their difference would pass for a response."""
    world = simulate(
        n_genes=60, contexts=("A", "B", "C"), perturbations=("drug",), cells_per_group=160, donors=("p1", "p2"), seed=3
    )
    first, drug = (world.obs["donor"] == "p1").to_numpy(), (world.obs["condition"] == "drug").to_numpy()
    world.X = csr_matrix(world.X.toarray() + first[:, None] * np.repeat([1.0, 0.0], 30)).astype(np.float32)
    uneven = (np.arange(world.n_obs) % 5 == 0) | (first == drug)
    cells, of_first = world[uneven].copy(), (world.obs["cell_type"] == "A").to_numpy() & uneven & first
    controls, truth = world[of_first & ~drug].copy(), world[of_first & drug].X.toarray().mean(axis=0)

    def error(**covariate: Any) -> float:
        """Of the predicted mean, as a share of the true response of the first donor."""
        model = create("mtcell").fit(PerturbationData.from_anndata(cells, **KEYS, **covariate))
        predicted = np.asarray(model.predict(controls, "drug").X).mean(axis=0)
        return float(np.linalg.norm(predicted - truth) / np.linalg.norm(controls.X.toarray().mean(axis=0) - truth))

    assert error(covariate_key="donor") < 1 < error()


class TestTheMeanStep:
    def test_a_shared_response_is_carried_over(self) -> None:
        contexts = random_contexts(0, 6, effect=0.5)
        target, others = contexts.control[0], contexts.without(0)
        shift = terms(target, contexts.control_noise[0], others) @ stack([leave_each_out(others)])
        truth = contexts.perturbed[0] - target
        assert np.corrcoef(shift, truth)[0, 1] > 0.9
        assert ((shift - truth) ** 2).sum() < 0.2 * (truth**2).sum()

    def test_where_contexts_share_nothing_no_change_is_predicted(self) -> None:
        rng = np.random.default_rng(1)
        contexts = random_contexts(1, 6, effect=0.0)
        own = Contexts(
            contexts.control,
            np.maximum(contexts.control + rng.normal(0, 0.5, contexts.control.shape), 0),
            contexts.control_noise,
            contexts.perturbed_noise,
        )
        shift = terms(own.control[0], own.control_noise[0], own.without(0)) @ stack([leave_each_out(own.without(0))])
        truth = own.perturbed[0] - own.control[0]
        assert ((shift - truth) ** 2).sum() < 1.1 * (truth**2).sum()

    def test_where_nothing_responds_the_prior_is_kept(self) -> None:
        assert stack([leave_each_out(random_contexts(2, 1, effect=1.0))]).tolist() == list(PRIOR.values())

    def test_what_one_context_loses_is_lost_in_proportion_elsewhere(self) -> None:
        # Genes that went off, of which another context has twice as much, and one that came up to its level there.
        before, after = np.array([[1.0, 1.5, 2.0, 0.5]]), np.array([[0.0, 0.0, 2.0, 1.0]])
        noise = np.full((1, 4), 1e-4)
        lost = Contexts(before, after, noise, noise)
        target = np.array([2.0, 3.0, 2.0, 1.0])
        means = target + terms(target, noise[0], lost) @ from_one([lost])
        assert (means[:2] < 0.2 * target[:2]).all()
        assert means[2] == pytest.approx(2.0, abs=0.1)
        assert means[3] - target[3] < 0.9 * (after - before)[0, 3]

    def test_two_contexts_that_lose_alike_are_followed_in_proportion(self) -> None:
        rng = np.random.default_rng(5)
        control = rng.uniform(0.2, 3, (3, 100))
        off = np.arange(100) < 20
        lost = Contexts(control, np.where(off, 0.05 * control, control), *np.full((2, 3, 100), 1e-4))
        others = lost.without(0)
        shift = terms(control[0], lost.control_noise[0], others) @ stack([leave_each_out(others)])
        truth = lost.perturbed[0] - control[0]
        assert ((np.maximum(control[0] + shift, 0) - lost.perturbed[0]) ** 2).sum() < 0.015 * (truth**2).sum()

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000), effect=st.floats(0, 2))
    def test_the_part_taken_away_is_a_part(self, seed: int, effect: float) -> None:
        one = random_contexts(seed, 1, effect=effect)
        assert 0 <= part_taken([one]) <= 1
        nothing_but_gains = Contexts(one.control, one.control + effect, one.control_noise, one.perturbed_noise)
        assert part_taken([nothing_but_gains]) == 0
        assert part_taken([]) == 0

    @pytest.mark.parametrize("n", [2, 3, 8])
    def test_coefficients_are_bounded(self, n: int) -> None:
        perturbations = random_contexts(3, n, effect=0.3), random_contexts(4, n, effect=0.0)
        coefficients = stack([leave_each_out(contexts) for contexts in perturbations])
        assert coefficients.min() >= 0
        assert coefficients.max() <= 1.5

    def test_genes_that_nothing_moves_do_not_break_it(self) -> None:
        silent = Contexts(*(np.zeros((3, 10)) for _ in range(4)))
        coefficients = stack([leave_each_out(silent)])
        assert np.isfinite(terms(silent.control[0], silent.control_noise[0], silent) @ coefficients).all()


class TestTheCellStep:
    def test_without_a_change_cells_come_back_as_they_are(self) -> None:
        X = sparse_cells(0)
        np.testing.assert_allclose(move(X, marginals(X), np.random.default_rng(0)), X.toarray(), rtol=1e-5)

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000), factor=st.floats(0.3, 3.0))
    def test_the_mean_is_met(self, seed: int, factor: float) -> None:
        X = sparse_cells(seed)
        own = marginals(X)
        wanted = Marginals(own.mean * factor, own.share, own.change, own.elsewhere)
        moved = move(X, wanted, np.random.default_rng(seed))
        expressed = own.share * X.shape[0] >= 2
        np.testing.assert_allclose(moved.mean(axis=0)[expressed], wanted.mean[expressed], rtol=1e-4)
        assert (moved >= 0).all()

    def test_cells_keep_their_rank_in_every_gene(self) -> None:
        X = sparse_cells(1)
        own = marginals(X)
        moved = move(X, Marginals(own.mean * 1.4, own.share, own.change, own.elsewhere), np.random.default_rng(0))
        for before, after in zip(X.toarray().T, moved.T, strict=True):
            expressing = before > 0
            assert (np.diff(after[expressing][np.argsort(before[expressing])]) >= 0).all()
            assert (after[~expressing] == 0).all()

    def test_the_share_of_expressing_cells_is_met(self) -> None:
        X = sparse_cells(2, n_cells=100)
        own = marginals(X)
        share = np.clip(own.share * 1.5, 0, 1)
        moved = move(X, Marginals(own.mean * 1.5, share, own.change, own.elsewhere), np.random.default_rng(0))
        assert np.abs((moved > 0).mean(axis=0) - share).max() <= 0.011

    def test_quantiles_of_positive_values(self) -> None:
        X = sparse_cells(3)
        for values, found in zip(X.toarray().T, positive_quantiles(X), strict=True):
            expected = np.quantile(values[values > 0], LEVELS, method="hazen")
            np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.fixture(scope="module")
def world() -> PerturbationData:
    """Five contexts and two perturbations, with counts."""
    adata = simulate(n_genes=300, perturbations=("alpha", "beta"), cells_per_group=80, response=1.5, seed=3)
    return PerturbationData.from_anndata(adata, counts_layer="counts", **KEYS)


@pytest.fixture(scope="module")
def fitted(world: PerturbationData) -> Model:
    return create("mtcell").fit(world, leave_context_out(world, "B"))


@pytest.fixture(scope="module")
def controls(world: PerturbationData) -> AnnData:
    return world.to_anndata(world.rows(condition="control", context="B"))


def cells_of(data: PerturbationData, condition: str, first: int | None = None) -> AnnData:
    return data.to_anndata(data.rows(condition=condition, context="B")[:first])


def mean_error(predicted: AnnData, truth: AnnData) -> float:
    """Squared distance between the means."""
    return float(((np.asarray(predicted.X.mean(axis=0)) - np.asarray(truth.X.mean(axis=0))) ** 2).sum())


class TestAPilot:
    def test_it_is_better_than_either_alone(self, world: PerturbationData, fitted: Model, controls: AnnData) -> None:
        rows = world.rows(condition="alpha", context="B")
        pilot, truth = world.to_anndata(rows[:20]), world.to_anndata(rows[20:])
        both = mean_error(fitted.predict(controls, "alpha", pilot=pilot), truth)
        assert both < mean_error(fitted.predict(controls, "alpha"), truth)
        assert both < mean_error(pilot, truth)

    def test_a_few_cells_do_no_harm(self, world: PerturbationData, fitted: Model, controls: AnnData) -> None:
        rows = world.rows(condition="alpha", context="B")
        without, together = 0.0, 0.0
        for five in rows[: len(rows) // 5 * 5].reshape(-1, 5):
            truth = world.to_anndata(np.setdiff1d(rows, five))
            without += mean_error(fitted.predict(controls, "alpha"), truth)
            together += mean_error(fitted.predict(controls, "alpha", pilot=world.to_anndata(five)), truth)
        assert together < without

    def test_of_other_perturbations_it_says_nothing(
        self, world: PerturbationData, fitted: Model, controls: AnnData
    ) -> None:
        with_pilot = fitted.predict(controls, ["alpha", "beta"], pilot=cells_of(world, "alpha", 20))
        np.testing.assert_array_equal(with_pilot.X[len(controls) :], fitted.predict(controls, "beta").X)

    def test_infinite_noise_leaves_the_prediction_as_it_is(self) -> None:
        rng = np.random.default_rng(0)
        shift, variances, seen = rng.normal(size=(3, 50))
        told, after = update(shift, variances**2, seen, np.full(50, np.inf))
        np.testing.assert_array_equal(told, shift)
        np.testing.assert_array_equal(after, variances**2)

    def test_many_cells_are_believed(self) -> None:
        rng = np.random.default_rng(0)
        shift, seen = rng.normal(size=(2, 50))
        told, _ = update(shift, np.ones(50), seen, np.full(50, 1e-9))
        np.testing.assert_allclose(told, seen, atol=1e-6)

    def test_unlabelled_cells_are_of_the_perturbation_asked_for(
        self, world: PerturbationData, fitted: Model, controls: AnnData
    ) -> None:
        pilot = cells_of(world, "alpha", 20)
        bare = AnnData(pilot.X, var=pilot.var)
        assert np.array_equal(
            fitted.predict(controls, "alpha", pilot=bare).X, fitted.predict(controls, "alpha", pilot=pilot).X
        )
        with pytest.raises(InputError, match="no column 'condition'"):
            fitted.predict(controls, "all", pilot=bare)

    def test_cells_of_nothing_asked_for_are_refused(
        self, world: PerturbationData, fitted: Model, controls: AnnData
    ) -> None:
        with pytest.raises(InputError, match="no cell of the pilot is of 'beta'"):
            fitted.predict(controls, "beta", pilot=cells_of(world, "alpha", 5))

    def test_controls_of_several_contexts_are_refused(self, world: PerturbationData, fitted: Model) -> None:
        with pytest.raises(InputError, match="a pilot tells of one context"):
            fitted.predict(
                world.to_anndata(world.rows(condition="control")), "alpha", pilot=cells_of(world, "alpha", 5)
            )

    def test_other_models_refuse_it(self, world: PerturbationData, controls: AnnData) -> None:
        model = create("linear").fit(world, leave_context_out(world, "B"))
        with pytest.raises(InputError, match="linear cannot learn from a pilot"):
            model.predict(controls, "alpha", pilot=cells_of(world, "alpha", 5))
        with pytest.raises(InputError, match="linear cannot give intervals"):
            model.predict(controls, "alpha", intervals=0.9)


class TestIntervals:
    def test_they_hold_the_true_means_as_often_as_said(self) -> None:
        held = []
        for seed in range(3):
            data = PerturbationData.from_anndata(
                simulate(n_genes=500, perturbations=("alpha",), cells_per_group=100, seed=seed), **KEYS
            )
            for context in data.contexts:
                model = create("mtcell").fit(data, leave_context_out(data, context))
                known = data.to_anndata(data.rows(condition="control", context=context))
                truth = np.asarray(data.X[data.rows(condition="alpha", context=context)].mean(axis=0)).ravel()
                varm = model.predict(known, "alpha", intervals=0.9).varm
                low, high = varm["mean_low"]["alpha"], varm["mean_high"]["alpha"]
                held.append(((low <= truth) & (truth <= high))[truth > 0].mean())
        assert 0.85 < np.mean(held) < 0.95

    def test_less_is_expected_where_a_training_context_is_much_like_this_one(self) -> None:
        left_out = leave_each_out(random_contexts(7, 4, effect=0.5))
        experience = look_back(left_out, stack([left_out]))
        usual = variance(experience.expected.max() * np.ones(200), experience)
        nearby = variance(experience.expected.min() * np.ones(200), experience)
        assert (nearby <= usual).all()
        assert nearby.mean() < 0.8 * usual.mean()

    def test_a_column_for_each_perturbation_and_context(self, world: PerturbationData, fitted: Model) -> None:
        some = world.to_anndata(world.rows(condition="control")[::4])
        predicted = fitted.predict(some, "all", intervals=0.5)
        assert list(predicted.varm["mean_low"].columns) == [
            f"{perturbation}, {context}" for perturbation in ("alpha", "beta") for context in "ABCDE"
        ]
        assert (predicted.varm["mean_low"] <= predicted.varm["mean_high"]).to_numpy().all()
        assert predicted.uns["multipert"]["intervals"] == 0.5

    def test_cells_that_name_no_context(self, fitted: Model, controls: AnnData) -> None:
        bare = AnnData(controls.X, var=controls.var)
        assert list(fitted.predict(bare, "alpha", intervals=0.9).varm["mean_high"].columns) == ["alpha"]

    def test_a_pilot_narrows_them(self, world: PerturbationData, fitted: Model, controls: AnnData) -> None:
        def width(**asked: AnnData) -> float:
            varm = fitted.predict(controls, "alpha", intervals=0.9, **asked).varm
            return float((varm["mean_high"] - varm["mean_low"]).to_numpy().mean())

        assert width(pilot=cells_of(world, "alpha", 20)) < width()

    def test_a_probability_is_asked_for(self, fitted: Model, controls: AnnData) -> None:
        with pytest.raises(InputError, match="between 0 and 1"):
            fitted.predict(controls, "alpha", intervals=90)


class TestDoubt:
    def test_contexts_that_share_nothing(self) -> None:
        rng = np.random.default_rng(0)
        X = np.abs(rng.normal(1, 0.3, (360, 50))).astype("f4")
        obs = pd.DataFrame(
            {"condition": np.tile(["control", "alpha"], 180), "cell_type": np.repeat(list("ABC"), 120)},
            index=[f"cell{i}" for i in range(360)],
        )
        for context in range(3):  # a response of its own in each
            rows = np.arange(360)[(obs.condition == "alpha") & (obs.cell_type == "ABC"[context])]
            X[np.ix_(rows, np.arange(context * 15, context * 15 + 15))] += 1
        data = PerturbationData.from_anndata(AnnData(X, obs=obs), **KEYS)
        model = create("mtcell").fit(data, leave_context_out(data, "A"))
        known = data.to_anndata(data.rows(condition="control", context="A"))
        with pytest.warns(InputWarning, match="hardly better .* than by no change"):
            predicted = model.predict(known, "alpha")
        assert np.abs(predicted.X.mean(axis=0) - np.asarray(known.X.mean(axis=0)).ravel()).max() < 0.25
        assert "hardly better" in predicted.uns["multipert"]["warnings"][-1]

    def test_controls_from_afar(self, fitted: Model, controls: AnnData) -> None:
        strange = controls.copy()
        order = np.argsort(np.asarray(controls.X.mean(axis=0)).ravel())
        strange.X = controls.X[:, order][:, np.argsort(order[::-1])]  # what was high is low
        with pytest.warns(InputWarning, match="times as far from all contexts"):
            fitted.predict(strange, "alpha")

    def test_a_single_training_context(self, world: PerturbationData) -> None:
        two = world.to_anndata(np.flatnonzero(np.isin(world.context, [0, 1])))
        data = PerturbationData.from_anndata(two, **KEYS)
        model = create("mtcell").fit(data, leave_context_out(data, "B"))
        with pytest.warns(InputWarning, match="seen in one context only \\('A'\\)"):
            model.predict(cells_of(data, "control"), "alpha")


class TestCounts:
    def test_they_are_whole_and_add_up_to_those_of_the_control_cells(self, fitted: Model, controls: AnnData) -> None:
        counts = fitted.predict(controls, "all", counts=True).layers["counts"]
        assert (counts.data == np.rint(counts.data)).all()
        sizes = np.asarray(controls.layers["counts"].sum(axis=1)).ravel()
        np.testing.assert_array_equal(np.asarray(counts.sum(axis=1)).ravel(), np.tile(sizes, 2))

    def test_cells_that_stay_keep_their_counts(self, world: PerturbationData, controls: AnnData) -> None:
        model = create("no-change").fit(world, leave_context_out(world, "B"))
        counts = model.predict(controls, "alpha", counts=True).layers["counts"]
        np.testing.assert_array_equal(counts.toarray(), controls.layers["counts"].toarray())

    def test_they_follow_the_predicted_mean(self, fitted: Model, controls: AnnData) -> None:
        predicted = fitted.predict(controls, "alpha", counts=True)
        shares = np.expm1(predicted.X.astype(float))
        shares /= shares.sum(axis=1, keepdims=True)
        sizes = np.asarray(controls.layers["counts"].sum(axis=1)).ravel()
        expected = (shares * sizes[:, None]).sum(axis=0)
        drawn = np.asarray(predicted.layers["counts"].sum(axis=0)).ravel()
        assert (np.abs(drawn - expected) <= 5 * np.sqrt(np.maximum(expected, 1))).all()

    def test_control_cells_without_counts_are_refused(self, fitted: Model, controls: AnnData) -> None:
        bare = AnnData(controls.X, obs=controls.obs, var=controls.var)
        with pytest.raises(InputError, match="counts need the control cells' own"):
            fitted.predict(bare, "alpha", counts=True)


class TestKeptCells:
    @pytest.mark.parametrize("name", ["mean-shift", "resample"])
    def test_the_mean_is_the_models_and_the_cells_are_the_controls(
        self, world: PerturbationData, controls: AnnData, name: str
    ) -> None:
        model = create(name).fit(world, leave_context_out(world, "B"))
        own, kept = (model.predict(controls, "alpha", cells=cells) for cells in ("model", "keep"))
        mean = own.X.mean(axis=0)
        often = mean * len(controls) > 5
        np.testing.assert_allclose(kept.X.mean(axis=0)[often], mean[often], rtol=1e-3)
        assert kept.uns["multipert"]["cells"] == "keep"
        assert own.uns["multipert"]["cells"] == "model"
        # Zeros stay the rule, as in control cells, where a shift of the mean leaves none.
        assert abs((kept.X > 0).mean() - (controls.X > 0).mean()) < 0.05

    def test_no_change_stays_no_change(self, world: PerturbationData, controls: AnnData) -> None:
        model = create("no-change").fit(world, leave_context_out(world, "B"))
        kept = model.predict(controls, "alpha", cells="keep")
        np.testing.assert_allclose(kept.X, controls.X.toarray(), rtol=1e-4)

    def test_another_word_is_refused(self, fitted: Model, controls: AnnData) -> None:
        with pytest.raises(InputError, match="'model' or 'keep'"):
            fitted.predict(controls, "alpha", cells="kept")  # type: ignore[arg-type]


class TestTheModel:
    def test_it_keeps_the_contract(self) -> None:
        check_model(type(create("mtcell")))

    def test_it_beats_the_baselines_on_real_cells(self, kang_path: Path) -> None:
        data = PerturbationData.from_anndata(kang_path, **KEYS)
        rng = np.random.default_rng(0)
        shown, kept = np.array_split(rng.permutation(data.rows(condition="control", context="B")), 2)
        controls, truth = data.to_anndata(np.sort(shown)), data.rows(condition="stimulated", context="B")
        scores = {}
        for name in ("mtcell", "linear", "resample"):
            predicted = create(name).fit(data, leave_context_out(data, "B")).predict(controls, "stimulated")
            scores[name] = evaluate(
                control=data.to_anndata(np.sort(kept)),
                truth=data.to_anndata(truth),
                predicted=predicted,
                metrics=["edist", "pearson_delta", "variance_ratio"],
            )
        assert scores["mtcell"]["edist"] < 0.6 * min(scores["linear"]["edist"], scores["resample"]["edist"])
        assert scores["mtcell"]["pearson_delta"] > max(
            scores["linear"]["pearson_delta"], scores["resample"]["pearson_delta"]
        )
        assert 0.75 < scores["mtcell"]["variance_ratio"] < 1.25

    def test_a_saved_model_predicts_the_same(self, tmp_path: Path) -> None:
        data = PerturbationData.from_anndata(simulate(n_genes=60, cells_per_group=20), **KEYS)
        controls = data.to_anndata(data.rows(condition="control", context="B"))
        model = create("mtcell").fit(data, leave_context_out(data, "B"))
        model.save(tmp_path / "run")
        first, again = (m.predict(controls, "alpha").X for m in (model, load(tmp_path / "run")))
        np.testing.assert_array_equal(first, again)

    def test_few_dense_genes(self) -> None:
        adata = simulate(n_genes=24, counts_per_gene=50, context_specific=0.2, cells_per_group=40)
        adata.X = adata.X.toarray() + np.float32(0.5)  # as proteins: every value positive
        data = PerturbationData.from_anndata(adata, **KEYS)
        controls = data.to_anndata(data.rows(condition="control", context="A"))
        predicted = create("mtcell").fit(data, leave_context_out(data, "A")).predict(controls, "beta")
        assert np.isfinite(predicted.X).all()
        truth = data.to_anndata(data.rows(condition="beta", context="A")).X.mean(axis=0)
        error = np.linalg.norm(predicted.X.mean(axis=0) - truth) / np.linalg.norm(controls.X.mean(axis=0) - truth)
        assert error < 0.8


class TestTheCorrection:
    def test_what_every_context_shows_is_added(self) -> None:
        # Genes of low control level respond, the others do not: no weighted mean of shifts can say so.
        rng = np.random.default_rng(5)
        control = rng.uniform(0.2, 2, (6, 3000))
        shared = rng.normal(0, 0.3, 3000)
        perturbed = control + 2 + np.where(control < 1, shared + 0.5, 0) + rng.normal(0, 0.05, control.shape)
        everywhere = Contexts(control, perturbed, np.full(control.shape, 1e-4), np.full(control.shape, 1e-4))
        others, target, truth = everywhere.without(0), control[0], perturbed[0] - control[0]
        coefficients = stack([leave_each_out(others)])
        guessed = terms(target, everywhere.control_noise[0], others)
        missed = truth - guessed @ coefficients
        left = missed - correct([leave_each_out(others)], coefficients)(features(target, guessed, coefficients, others))
        assert (left**2).sum() < 0.8 * (missed**2).sum()

    @pytest.mark.parametrize("n", [1, 2])
    def test_few_contexts_show_nothing(self, n: int) -> None:
        left_out = leave_each_out(random_contexts(6, n, effect=1.0))
        assert (correct([left_out], stack([left_out]))(np.ones((4, 20))) == 0).all()

    def test_genes_that_nothing_moves_do_not_break_it(self) -> None:
        silent = Contexts(*(np.zeros((4, 10)) for _ in range(4)))
        left_out = leave_each_out(silent)
        assert (correct([left_out], stack([left_out])).values == 0).all()
