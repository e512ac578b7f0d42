"""Every metric equals its slow formula, and has a defined answer where the formula has none."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isnan
from typing import Any

import numpy as np
import ot
import pytest
import scanpy
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation import naive
from evaluation.conftest import KANG_TYPES, Cells, adata
from multipert.data.expression import as_dense
from multipert.errors import InputError
from multipert.evaluation import METRICS, STUDY, evaluate, evaluate_many


def dense(cells: Any) -> Any:
    return as_dense(cells.X).astype(np.float64)


def ranking(group: Any, reference: Any, method: str) -> Any:
    """scanpy's ranking by gene, and the genes' order."""
    both = adata(np.concatenate([as_dense(group.X), as_dense(reference.X)]))
    both.obs["of"] = ["group"] * group.n_obs + ["reference"] * reference.n_obs
    both.obs["of"] = both.obs["of"].astype("category")
    scanpy.tl.rank_genes_groups(both, "of", reference="reference", groups=["group"], method=method)
    table = scanpy.get.rank_genes_groups_df(both, "group")
    table.index = [int(name[1:]) for name in table["names"]]
    return table


def expected_scores(cells: Cells) -> dict[str, float]:
    control, truth, predicted = dense(cells.control), dense(cells.truth), dense(cells.predicted)
    by_t = {name: ranking(getattr(cells, name), cells.control, "t-test") for name in ("truth", "predicted")}
    by_rank = {name: ranking(getattr(cells, name), cells.control, "wilcoxon") for name in ("truth", "predicted")}
    top = by_rank["truth"].index.to_numpy()
    c, t, p = naive.pcs(control, truth, predicted)
    scaled = naive.pcs(*naive.scaled(control, truth, predicted))[1:]
    delta_true, delta_predicted = (
        truth.mean(axis=0) - control.mean(axis=0),
        predicted.mean(axis=0) - control.mean(axis=0),
    )
    errors = (truth.mean(axis=0) - predicted.mean(axis=0)) ** 2
    weights = np.abs(by_t["truth"]["scores"].sort_index().to_numpy(float))
    significant = by_rank["truth"]["pvals_adj"] < 0.05
    moved = [gene for gene in top if significant[gene]]
    responding = [gene for gene in top[:100] if significant[gene]]
    called = {}
    for name, table in by_rank.items():
        passing = table[table["pvals_adj"] < 0.05]
        called[name] = set(zip(passing.index, passing["scores"] > 0, strict=True))
    return {
        "degs": len(set(by_t["truth"].index[:100]) & set(by_t["predicted"].index[:100])),
        "r2_hvg": naive.r2(truth, predicted),
        "r2_deg20": naive.r2(truth[:, top[:20]], predicted[:, top[:20]]),
        "r2_deg100": naive.r2(truth[:, top[:100]], predicted[:, top[:100]]),
        "edistance": naive.edistance(t, p) / naive.edistance(c, p),
        "wasserstein": ot.emd2([], [], naive.pairs(t, p)) / ot.emd2([], [], naive.pairs(c, p)),
        "euclidean": naive.euclidean(t, p) / naive.euclidean(c, p),
        "mean_pairwise": naive.mean_pairwise(t, p) / naive.mean_pairwise(c, p),
        "mmd": naive.linear_mmd(t, p) / naive.linear_mmd(c, p),
        "edist": naive.energy(t, p),
        "edist_vs_control": naive.energy(t, p) / naive.energy(t, c),
        "mmd_rbf": naive.gaussian_mmd(t, p),
        "edist_scaled": naive.energy(*scaled),
        "mmd_rbf_scaled": naive.gaussian_mmd(*scaled),
        "pearson_delta": naive.pearson(delta_true, delta_predicted),
        "pearson_delta_deg100": naive.pearson(delta_true[top[:100]], delta_predicted[top[:100]]),
        "mse": float(errors.mean()),
        "wmse": float(np.sum(errors * weights) / weights.sum()),
        "sign_deg100": float(np.mean(np.sign(delta_true[responding]) == np.sign(delta_predicted[responding]))),
        "amplitude": naive.slope(delta_true[moved], delta_predicted[moved]),
        "de_recall": len(called["truth"] & called["predicted"]) / len(called["truth"]),
        "variance_ratio": float(
            np.median(predicted[:, top[:100]].var(axis=0, ddof=1) / truth[:, top[:100]].var(axis=0, ddof=1))
        ),
        "gene_wasserstein": float(
            np.mean([stats.wasserstein_distance(truth[:, g], predicted[:, g]) for g in top[:20]])
        ),
        "covariance_distance": naive.covariance_distance(truth, predicted),
    }


def test_every_score_of_made_cells_equals_the_slow_formula(made: Cells) -> None:
    scores = evaluate(**made.named())
    expected = expected_scores(made)
    assert list(scores.index) == list(expected)
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("cell_type", ["CD8T", "Dendritic"])
def test_every_score_of_real_cells_equals_the_slow_formula(kang: Callable[[str], Cells], cell_type: str) -> None:
    cells = kang(cell_type)
    few = Cells(cells.control[:40].copy(), cells.truth[:45].copy(), cells.predicted[:37].copy())
    for part in few:
        part.var_names = [f"g{i}" for i in range(part.n_vars)]
    scores = evaluate(**few.named())
    for name, value in expected_scores(few).items():
        assert scores[name] == pytest.approx(value, rel=1e-5), name


def test_no_change_on_real_cells_scores_as_in_the_specification(kang: Callable[[str], Cells]) -> None:
    scores = []
    for cell_type in KANG_TYPES:
        cells = kang(cell_type)
        unnamed = adata(cells.control.X, list(cells.control.var_names))  # so that no halves are crossed
        scores.append(evaluate(control=cells.control, truth=cells.truth, predicted=unnamed, metrics=["edist"]))
    assert np.mean(scores) == pytest.approx(5.51, abs=0.005)


def test_no_change_has_defined_scores(made: Cells) -> None:
    scores = evaluate(control=made.control, truth=made.truth, predicted=made.control)
    for name in ("edistance", "wasserstein", "euclidean", "mmd"):
        assert scores[name] == inf, name
    # Taken in crossed halves: one half of the controls predicts, the other is what it is set against.
    assert scores["de_recall"] == 0
    assert abs(scores["pearson_delta_deg100"]) < 0.4
    assert scores["edist_vs_control"] == pytest.approx(1, abs=0.1)
    assert np.isfinite(scores[["mean_pairwise", "edist", "mmd_rbf", "mse", "wmse", "variance_ratio"]]).all()


def test_the_truth_itself_is_scored_perfect(made: Cells) -> None:
    scores = evaluate(control=made.control, truth=made.truth, predicted=made.truth)
    for name in ("r2_hvg", "r2_deg20", "pearson_delta", "sign_deg100", "de_recall", "variance_ratio"):
        assert scores[name] == pytest.approx(1), name
    for name in ("edistance", "wasserstein", "euclidean", "mmd", "mse", "wmse", "gene_wasserstein"):
        assert scores[name] == pytest.approx(0, abs=1e-12), name
    assert scores["degs"] == 100
    assert scores["edist"] <= 0


def test_nothing_happened_and_nothing_was_predicted() -> None:
    cells = adata(np.random.default_rng(0).random((12, 30)))
    scores = evaluate(control=cells, truth=cells, predicted=cells)
    for name in ("edistance", "wasserstein", "euclidean", "mmd", "edist_vs_control", "sign_deg100", "de_recall"):
        assert isnan(scores[name]), name
    assert scores["mse"] == scores["wmse"] == 0
    assert scores["mean_pairwise"] == pytest.approx(1)


def test_cells_that_are_all_one_point() -> None:
    cells = adata(np.full((6, 8), 0.5))
    scores = evaluate(control=cells, truth=cells, predicted=cells)
    for name in ("mean_pairwise", "edistance", "variance_ratio", "de_recall"):
        assert isnan(scores[name]), name
    for name in ("edist", "mmd_rbf", "r2_hvg", "pearson_delta", "mse", "gene_wasserstein"):
        assert scores[name] == pytest.approx(0, abs=1e-6), name


def test_a_collapsed_prediction_is_exposed(made: Cells) -> None:
    mean = dense(made.truth).mean(axis=0)
    collapsed = adata(np.tile(mean, (made.truth.n_obs, 1)))
    scores = evaluate(control=made.control, truth=made.truth, predicted=collapsed)
    # What looks at means is flattered ...
    assert scores["r2_hvg"] > 0.95
    assert scores["euclidean"] < 1e-3
    # ... what looks at cells is not.
    assert scores["variance_ratio"] == pytest.approx(0, abs=1e-9)
    assert scores["edist"] > 3 * abs(evaluate(**{**made.named(), "predicted": made.truth}, metrics=["edist"])["edist"])


def test_infinite_and_absent_responses_weigh_as_documented() -> None:
    # Gene 0 differs without any variance (infinite t), gene 1 varies, gene 2 never changes.
    control = adata(np.array([[0.0, 1.0, 1.0], [0.0, 2.0, 1.0], [0.0, 1.5, 1.0]]))
    truth = adata(np.array([[1.0, 3.0, 1.0], [1.0, 4.0, 1.0], [1.0, 3.5, 1.0]]))
    predicted = adata(np.array([[0.0, 3.5, 1.0], [0.0, 3.5, 1.0]]))
    scores = evaluate(control=control, truth=truth, predicted=predicted, metrics=["wmse", "mse"])
    assert scores["wmse"] == pytest.approx(0.5)
    same = evaluate(control=control, truth=control, predicted=truth, metrics=["wmse", "mse"])
    assert same["wmse"] == same["mse"]
    no_variance = adata(np.full((3, 3), 0.5))
    only_infinite = evaluate(control=no_variance, truth=adata(np.full((3, 3), 1.5)), predicted=no_variance)
    assert only_infinite["wmse"] == only_infinite["mse"] == 1


def test_populations_of_very_different_size(made: Cells) -> None:
    many = adata(np.tile(made.control.X.toarray(), (40, 1)))
    scores = evaluate(control=many, truth=made.truth[:2].copy(), predicted=made.predicted)
    # Two cells are too few for any gene to be significant.
    assert list(scores[scores.isna()].index) == ["sign_deg100", "amplitude", "de_recall"]


@pytest.mark.parametrize("role", ["control", "truth", "predicted"])
def test_one_cell_is_a_population_without_spread(made: Cells, role: str) -> None:
    cells = made.named()
    cells[role] = cells[role][:1].copy()
    scores = evaluate(**cells)
    undefined = {name for name, value in scores.items() if isnan(value)}
    assert undefined <= {"de_recall", "sign_deg100", "amplitude", "variance_ratio", "covariance_distance"}
    if role == "predicted":
        assert scores["variance_ratio"] == 0


def test_one_gene() -> None:
    rng = np.random.default_rng(0)
    control, truth, predicted = (adata(rng.random((9, 1)) + shift) for shift in (0, 1, 0.6))
    scores = evaluate(control=control, truth=truth, predicted=predicted)
    assert scores["degs"] == 1
    assert scores["r2_hvg"] == scores["pearson_delta"] == 0
    assert 0 < scores["euclidean"] < 1


@given(order=st.permutations(range(8)), seed=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_order_of_cells_does_not_matter(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    control, truth, predicted = (rng.integers(0, 5, size=(8, 12)) / 4 for _ in range(3))
    names = [name for name, metric in METRICS.items() if not metric.several and not name.startswith("r2_")]
    first, second = (
        evaluate(control=adata(control), truth=adata(truth), predicted=adata(predicted[rows]), metrics=names)
        for rows in (range(8), order)
    )
    np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-8)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_scores_stay_in_their_range(data: st.DataObject) -> None:
    values = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5])
    populations = [
        adata(np.array(data.draw(st.lists(st.lists(values, min_size=5, max_size=5), min_size=1, max_size=6))))
        for _ in range(3)
    ]
    try:
        scores = evaluate(control=populations[0], truth=populations[1], predicted=populations[2])
    except InputError:  # nothing but zeros, or whole numbers
        reject()
    for name, value in scores.items():
        low, high = METRICS[str(name)].range
        assert isnan(value) or low - 1e-9 <= value <= high + 1e-9, name


def test_directions_of_genes_that_do_not_respond_are_not_scored(made: Cells) -> None:
    scores = evaluate(**{**made.named(), "truth": made.control[:15].copy(), "control": made.control[15:].copy()})
    assert isnan(scores["sign_deg100"])
    assert scores.attrs["notes"]["sign_deg100"] == "cannot tell: 0 genes respond significantly, 10 are needed"


def test_covariance_distance_is_free_of_sample_size() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 40))

    def draw(n: int, strength: float = 1.0) -> Any:
        return adata(5 + strength * rng.normal(size=(n, 3)) @ mixing * 0.2 + rng.normal(size=(n, 40)) * 0.3)

    for n in (15, 200):
        scores = [
            evaluate(control=draw(9), truth=draw(60), predicted=predicted, metrics=["covariance_distance"]).iloc[0]
            for predicted in (draw(n), draw(n, 0.0), draw(n, 0.5))
            for _ in range(1)
        ]
        assert scores[0] == pytest.approx(0, abs=0.5)
        assert scores[1] == pytest.approx(1, abs=0.15)
        assert 0.2 < scores[2] < 1
    same = [evaluate(control=draw(9), truth=draw(30), predicted=draw(30), metrics=["covariance_distance"]).iloc[0]
            for _ in range(40)]  # fmt: skip
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(40) + 0.03


def test_perturbed_pearson_takes_off_what_perturbations_share(made: Cells) -> None:
    rng = np.random.default_rng(0)
    specific = rng.normal(size=(4, 30)) * 0.3
    control, common = adata(2 + 0.1 * rng.random((9, 30))), 2.5 + rng.random(30)
    names = np.repeat(list("abcd"), 6)
    truth = adata(common + np.repeat(specific, 6, axis=0) + 0.01 * rng.random((24, 30)), drug=names)
    generic = adata(np.repeat(common[None], 24, axis=0) + 0.01 * rng.random((24, 30)), drug=names)
    right, shared = (
        evaluate_many(control=control, truth=truth, predicted=predicted, perturbation_key="drug").mean()
        for predicted in (truth, generic)
    )
    assert right["perturbed_pearson"] == pytest.approx(1)
    assert shared["pearson_delta"] > 0.6
    assert abs(shared["perturbed_pearson"]) < 0.75
    of_a = truth[truth.obs["drug"] == "a"].X.mean(axis=0) - truth[truth.obs["drug"] != "a"].X.mean(axis=0)
    guess = generic[:6].X.mean(axis=0) - truth[truth.obs["drug"] != "a"].X.mean(axis=0)
    scores: Any = evaluate_many(control=control, truth=truth, predicted=generic, perturbation_key="drug")
    assert scores.loc["a", "perturbed_pearson"] == pytest.approx(naive.pearson(of_a, guess), abs=1e-3)


def test_discrimination_ranks_the_right_perturbation_among_all() -> None:
    rng = np.random.default_rng(0)
    control = adata(rng.random((10, 4)))
    shifts = {"a": [4, 0, 0, 0], "b": [0, 4, 0, 0], "c": [0, 0, 4, 0]}

    def cells(of: dict[str, list[int]]) -> Any:
        X = np.concatenate([rng.random((8, 4)) + shift for shift in of.values()])
        return adata(X, drug=np.repeat(list(of), 8))

    def discrimination(predicted: dict[str, list[int]]) -> dict[str, float]:
        scores = evaluate_many(
            control=control,
            truth=cells(shifts),
            predicted=cells(predicted),
            perturbation_key="drug",
            metrics=["discrimination"],
        )
        return dict(scores["discrimination"])

    assert discrimination(shifts) == {"a": 1, "b": 1, "c": 1}
    assert discrimination({**shifts, "a": [0, 4, 0, 0]})["a"] < 1
    farthest = discrimination({"a": [0, 9, 9, 0], "b": [0, 4, 0, 0], "c": [0, 0, 4, 0]})
    assert farthest == {"a": 0, "b": 1, "c": 1}


def test_no_change_discriminates_by_chance() -> None:
    rng = np.random.default_rng(0)
    control = rng.random((10, 4))
    truth = adata(rng.random((40, 4)), drug=np.repeat(list("abcd"), 10))
    predicted = adata(np.tile(control, (4, 1)), drug=np.repeat(list("abcd"), 10))
    scores = evaluate_many(control=adata(control), truth=truth, predicted=predicted, perturbation_key="drug")
    assert scores["discrimination"].mean() == pytest.approx(0.5)


def test_study_metrics_come_first_and_in_order() -> None:
    assert STUDY == (
        "degs", "r2_hvg", "r2_deg20", "r2_deg100", "edistance", "wasserstein", "euclidean", "mean_pairwise", "mmd",
    )  # fmt: skip
    assert tuple(METRICS)[:9] == STUDY
