"""mtcell: means carried over from other contexts, and cells that keep being the cells they were."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from multipert import PerturbationData, evaluate, leave_context_out, simulate
from multipert.models import create, load
from multipert.models.cells import LEVELS, Marginals, move, positive_quantiles
from multipert.models.transfer import PRIOR, Contexts, stack, terms
from multipert.testing import check_model

KEYS = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}


def sparse_cells(seed: int, n_cells: int = 40, n_genes: int = 30) -> csr_matrix:
    """Cells that express every gene now and then, at values that differ."""
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.05, 1, n_genes)
    return csr_matrix(((rng.random((n_cells, n_genes)) < chance) * rng.gamma(2, 1, (n_cells, n_genes))).astype("f4"))


def marginals(X: csr_matrix) -> Marginals:
    """What cells have themselves, and no change."""
    dense = X.toarray().astype(float)
    return Marginals(
        dense.mean(axis=0), (dense > 0).mean(axis=0), np.zeros((X.shape[1], len(LEVELS))), positive_quantiles(X)
    )


def random_contexts(seed: int, n: int, effect: float, n_genes: int = 200) -> Contexts:
    """Contexts that share a response of size ``effect``, with noise of size .1."""
    rng = np.random.default_rng(seed)
    control = np.maximum(rng.normal(1, 0.5, (n, n_genes)), 0.05)
    shared = effect * rng.normal(0, 1, n_genes)
    noise = np.full((n, n_genes), 0.1**2)
    perturbed = np.maximum(control + shared + rng.normal(0, 0.1, (n, n_genes)), 0)
    return Contexts(control, perturbed, noise, noise)


class TestTheMeanStep:
    def test_a_shared_response_is_carried_over(self) -> None:
        contexts = random_contexts(0, 6, effect=0.5)
        target, others = contexts.control[0], contexts.without(0)
        shift = terms(target, contexts.control_noise[0], others) @ stack([others])
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
        shift = terms(own.control[0], own.control_noise[0], own.without(0)) @ stack([own.without(0)])
        truth = own.perturbed[0] - own.control[0]
        assert ((shift - truth) ** 2).sum() < 1.1 * (truth**2).sum()

    def test_one_context_is_given_the_prior(self) -> None:
        assert stack([random_contexts(2, 1, effect=1.0)]).tolist() == list(PRIOR.values())

    @pytest.mark.parametrize("n", [2, 3, 8])
    def test_coefficients_are_bounded(self, n: int) -> None:
        coefficients = stack([random_contexts(3, n, effect=0.3), random_contexts(4, n, effect=0.0)])
        assert coefficients.min() >= 0
        assert coefficients.max() <= 1.5

    def test_genes_that_nothing_moves_do_not_break_it(self) -> None:
        silent = Contexts(*(np.zeros((3, 10)) for _ in range(4)))
        assert np.isfinite(terms(silent.control[0], silent.control_noise[0], silent) @ stack([silent])).all()


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
