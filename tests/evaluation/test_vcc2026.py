"""The profile of the Virtual Cell Challenge 2026 beside cell-eval2, and each of its parts beside a slow formula."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from conftest import Run
from multipert.data import simulate
from multipert.errors import InputError
from multipert.evaluation import METRICS, PROFILES, evaluate, evaluate_many, scorecard
from multipert.evaluation.counts import CountPanel, predict_mean_response, pseudo_bulk, sampling_noise
from multipert.evaluation.differential_expression import response_table
from multipert.evaluation.vcc2026 import (
    VCC2026,
    baseline_scores,
    combine,
    replicate_scores,
    scaled_scores,
    score_panel,
)

CONTROL = "!control"  # sorts before all others, as our splits draw the controls first


def simulated() -> tuple[Any, Any]:
    """Counts of one context, and another's as their prediction; three perturbations are named after genes."""
    names = ["Gene0005", "Gene0100", "Gene0021", "drug1", "drug2", "drug3"]
    cells = simulate(
        n_genes=300, contexts=["A", "B"], perturbations=names, cells_per_group=(40, 90), counts_per_gene=6,
        response=0.35, context_specific=0.8, seed=3,
    )  # fmt: skip
    counts = anndata.AnnData(cells.layers["counts"], obs=cells.obs[["cell_type"]].copy(), var=cells.var[[]])
    counts.obs["target"] = np.where(cells.obs["condition"] == "control", CONTROL, cells.obs["condition"].astype(str))
    truth, predicted = (counts[(counts.obs["cell_type"] == context).to_numpy()].copy() for context in "AB")
    return truth, predicted[(predicted.obs["target"] != CONTROL).to_numpy()].copy()


def real(folder: Path) -> tuple[Any, Any]:
    """Counts of knocked-out cells of two types and two embryos, and a prediction that shrinks them together."""
    cells = anndata.read_h5ad(folder / "tal1_counts.h5ad")
    group = cells.obs["cell_type"].astype(str) + "/" + cells.obs["sample"].astype(str)
    obs = pd.DataFrame({"target": np.where(cells.obs["condition"] == "host_wt", CONTROL, group)}, cells.obs_names)
    truth = anndata.AnnData(cells.X, obs=obs, var=cells.var[[]])
    predicted = truth[(obs["target"] != CONTROL).to_numpy()].copy()
    dense = predicted.X.toarray()
    predicted.X = sparse.csr_matrix(np.random.default_rng(0).poisson(0.6 * dense + 0.4 * dense.mean(axis=0)))
    predicted.X = predicted.X.astype(np.float32)
    return truth, predicted


def panel(cells: Any, control: Any) -> CountPanel:
    names = sorted(set(cells.obs["target"]) - {CONTROL})
    groups = {name: sparse.csr_array(cells[(cells.obs["target"] == name).to_numpy()].X) for name in names}
    return CountPanel(control, groups, pd.Index(cells.var_names))


@pytest.fixture(scope="module", params=["simulated", "real"])
def sides(request: pytest.FixtureRequest, data_folder: Path) -> dict[str, Any]:
    """Truth and prediction, as files of others have them and as our panels."""
    truth, predicted = simulated() if request.param == "simulated" else real(data_folder)
    control = sparse.csr_array(truth[(truth.obs["target"] == CONTROL).to_numpy()].X)
    return {
        "truth": truth, "predicted": predicted, "true_panel": panel(truth, control),
        "predicted_panel": panel(predicted, control),
    }  # fmt: skip


@pytest.fixture(scope="module")
def referee(sides: dict[str, Any]) -> dict[str, Any]:
    """What cell-eval2 says: scores, mean response, replicate, scaled scores."""
    cell_eval2 = pytest.importorskip("cell_eval2", reason="cell-eval2 is not installed: pip install cell-eval2")
    from cell_eval2.anchor import compute_replicate_anchor
    from cell_eval2.score import _replicate_entries
    from cell_eval2.scoring import score_one

    truth, predicted = sides["truth"], sides["predicted"]
    names = set(truth.obs["target"])
    config = replace(
        cell_eval2.EvalConfig.from_preset("vcc2026"), control=CONTROL, num_threads=1, cache_strict=False,
        target_gene_map={name: name if name in truth.var_names else None for name in names},
    )  # fmt: skip
    controls = truth[(truth.obs["target"] == CONTROL).to_numpy()]
    whole = anndata.concat([predicted, controls], index_unique="-")
    table = cell_eval2.compute_metrics(whole, truth, config=config)
    scores = cell_eval2.aggregate_metrics(table, metrics=list(VCC2026))
    scores = dict(zip(scores["metric"], scores["mean"], strict=True))
    aggregate = cell_eval2.build_generic_baseline(truth, config=config).agg
    baseline = aggregate.filter(aggregate["statistic"] == "mean").to_dicts()[0]
    _, anchor = compute_replicate_anchor(truth, config=config)
    entries = _replicate_entries(baseline, anchor)
    return {
        "table": table.to_pandas().pivot(index="perturbation", columns="metric", values="value"),
        "scores": scores,
        "baseline": baseline,
        "replicate": dict(zip(anchor["metric"], anchor["replicate"], strict=True)),
        "scaled": {name: score_one(scores[name], entry.base, entry.scoring) for name, entry in entries.items()},
    }


def test_scores_are_those_of_cell_eval2(sides: dict[str, Any], referee: dict[str, Any]) -> None:
    ours = score_panel(sides["true_panel"], sides["predicted_panel"])
    for name in VCC2026:
        assert combine(ours)[name] == pytest.approx(referee["scores"][name], rel=1e-6), name
        if name in referee["table"]:
            theirs = referee["table"][name].reindex(ours.index)
            np.testing.assert_allclose(ours[name], theirs, rtol=1e-6, equal_nan=True)


def test_scaled_scores_are_those_of_cell_eval2(sides: dict[str, Any], referee: dict[str, Any]) -> None:
    truth = sides["true_panel"]
    scores = combine(score_panel(truth, sides["predicted_panel"]))
    baseline, replicate = combine(baseline_scores(truth)), combine(replicate_scores(truth))
    scaled = scaled_scores(scores, baseline, replicate)
    for name in VCC2026:
        assert baseline[name] == pytest.approx(referee["baseline"][name], rel=1e-6), name
        assert replicate[name] == pytest.approx(referee["replicate"][name], rel=1e-6), name
        assert scaled[name] == pytest.approx(referee["scaled"][name], rel=1e-6), name


@pytest.mark.parametrize("name", list(VCC2026))
def test_missing_scores_take_the_place_that_cell_eval2_gives_them(name: str) -> None:
    scoring = pytest.importorskip("cell_eval2.scoring", reason="cell-eval2 is not installed: pip install cell-eval2")
    from cell_eval2.catalog import CATALOG

    low, high = (0.4, 0.9) if VCC2026[name].better == "high" else (0.9, 0.4)
    policy = replace(CATALOG[name].scoring, anchor=high)
    for score in (np.nan, -np.inf, 0.0, 0.2, 0.65, 0.95, 1.3, 9.0):
        if score < 0:
            continue
        theirs = scoring.score_one(score, low, policy)
        assert VCC2026[name].scale(score, low, high) == pytest.approx(theirs, rel=1e-6), score


def counts(rng: np.random.Generator, n: int, n_genes: int = 60) -> Any:
    return sparse.csr_array(rng.poisson(rng.gamma(1, 2, n_genes), (n, n_genes)).astype(np.float32))


def per_million(cells: Any) -> Any:
    return cells / (cells.sum(axis=1, keepdims=True) / 1e6)


def test_the_rank_test_is_scipys() -> None:
    rng = np.random.default_rng(0)
    group, control = counts(rng, 35), counts(rng, 50)
    table = response_table([group, control], control)
    scaled = [per_million(cells.toarray().astype(np.float64)) for cells in (group, control)]
    tested = scaled[1].mean(axis=0) > 5
    assert table.tested.tolist() == tested.tolist()
    # Logarithms make ties of values that differ by rounding alone.
    expected = stats.mannwhitneyu(*map(np.log1p, scaled), method="asymptotic").pvalue
    np.testing.assert_allclose(table.p[0, tested], expected[tested], rtol=1e-9)
    adjusted = stats.false_discovery_control(expected[tested])
    np.testing.assert_allclose(table.p_adjusted[0, tested], adjusted, rtol=1e-9)
    change = np.log2((scaled[0].mean(axis=0) + 1e-9) / (scaled[1].mean(axis=0) + 1e-9))
    np.testing.assert_allclose(table.log_fold_change[0, tested], change[tested])
    assert not table.significant[1].any()
    assert np.allclose(table.log_fold_change[1], 0)


def test_sampling_noise_is_the_jackknife_of_the_profile() -> None:
    cells = counts(np.random.default_rng(1), 70)
    left_out = np.array([pseudo_bulk(cells[np.arange(70) != i]) for i in range(70)])
    expected = 69 / 70 * np.sum((left_out - left_out.mean(axis=0)) ** 2)
    assert sampling_noise(cells) == pytest.approx(expected, rel=1e-9)
    assert sampling_noise(cells[:1]) == 0


def test_the_mean_response_has_the_mean_of_the_others_where_a_gene_is_the_target() -> None:
    rng = np.random.default_rng(2)
    groups = {name: counts(rng, 400) for name in ("g1", "other", "third")}
    control = counts(rng, 900)
    truth = CountPanel(control, groups, pd.Index([f"g{i}" for i in range(60)]))
    predicted = predict_mean_response(truth).groups["g1"]
    means = {name: cells.mean(axis=0) for name, cells in groups.items()}
    seen = control.mean(axis=0) > 0.5
    expected = np.mean(list(means.values()), axis=0)
    expected[1] = (means["other"][1] + means["third"][1]) / 2
    np.testing.assert_allclose(predicted.mean(axis=0)[seen], expected[seen], rtol=0.35)
    assert predicted.shape == groups["g1"].shape


def test_the_truth_is_perfect_and_no_change_has_no_skill() -> None:
    truth, _ = simulated()
    control = sparse.csr_array(truth[(truth.obs["target"] == CONTROL).to_numpy()].X)
    true = panel(truth, control)
    perfect = combine(score_panel(true, true))
    assert perfect.drop("expr_mse_unbiased_capped_norm").tolist() == [1, 1, 1, 1, 0]
    unchanged = replace(true, groups=dict.fromkeys(true.groups, control))
    nothing = score_panel(true, unchanged)
    assert (nothing["pds_cosine"] == 0.5).all()
    # The same cells everywhere have no spread of their own, so they may subtract no noise of their own.
    assert combine(nothing)["expr_mse_unbiased_capped_norm"] > 1
    assert (nothing["de_wilcoxon_direction_reach_raw"].dropna() == 0).all()
    assert nothing["de_wilcoxon_lfc_nmae"].dropna().to_numpy() == pytest.approx(1)


def test_one_perturbation_has_no_rank_and_no_mean_response() -> None:
    rng = np.random.default_rng(4)
    truth = CountPanel(counts(rng, 40), {"drug": counts(rng, 40)}, pd.Index([f"g{i}" for i in range(60)]))
    scores = score_panel(truth, truth)
    assert scores["pds_cosine"].isna().all()
    assert baseline_scores(truth).isna().all(axis=None)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    groups, control = [counts(rng, 30) for _ in range(6)], counts(rng, 40)
    first = response_table(groups, control)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    np.testing.assert_array_equal(first.p, response_table(groups, control).p)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Control, true and predicted cells: counts in a layer, log-normalised values in X, as predict writes them."""
    truth, predicted = simulated()
    is_control = (truth.obs["target"] == CONTROL).to_numpy()
    found = {}
    for role, cells in (("control", truth[is_control]), ("truth", truth[~is_control]), ("predicted", predicted)):
        cells = cells.copy()
        if role == "predicted":
            cells = cells[:, ::-1].copy()
            cells.layers["counts"] = cells.X.copy()
            cells.X.data = np.log1p(cells.X.data)
        found[role] = tmp_path / f"{role}.h5ad"
        cells.write_h5ad(found[role])
    return found


def test_the_profile_reads_counts_from_x_or_a_layer(files: dict[str, Any]) -> None:
    truth, predicted = simulated()
    control = sparse.csr_array(truth[(truth.obs["target"] == CONTROL).to_numpy()].X)
    expected = score_panel(panel(truth, control), panel(predicted, control))
    found = evaluate_many(**files, perturbation_key="target", profile="vcc2026")
    pd.testing.assert_frame_equal(found, expected, check_names=False)
    card = scorecard(**files, perturbation_key="target", profile="vcc2026")
    assert list(card.index) == list(VCC2026)
    assert card.attrs["score"] == pytest.approx(card["normalised"].mean())
    pd.testing.assert_series_equal(card["score"], combine(expected), check_names=False)


def test_a_single_perturbation_is_scored_and_told_what_it_lacks(files: dict[str, Any], tmp_path: Path) -> None:
    chosen = {}
    for role in ("truth", "predicted"):
        cells = anndata.read_h5ad(files[role])
        chosen[role] = cells[(cells.obs["target"] == "drug1").to_numpy()]
    scores = evaluate(control=files["control"], **chosen, profile="vcc2026")
    assert np.isnan(scores["pds_cosine"])
    assert "several perturbations" in scores.attrs["notes"]["pds_cosine"]
    assert scores.drop("pds_cosine").notna().sum() >= 3
    card = scorecard(control=files["control"], **chosen, profile="vcc2026")
    assert np.isnan(card.attrs["score"])
    assert card["note"].str.contains("no mean response").all()


def test_what_is_no_count_is_refused(files: dict[str, Any]) -> None:
    cells = anndata.read_h5ad(files["predicted"])
    del cells.layers["counts"]
    with pytest.raises(InputError, match="the predicted cells.*no raw counts"):
        evaluate_many(**{**files, "predicted": cells}, perturbation_key="target", profile="vcc2026")
    with pytest.raises(InputError, match="there is no profile 'vcc2025'"):
        evaluate_many(**files, perturbation_key="target", profile="vcc2025")
    with pytest.raises(InputError, match="reads no counts"):
        evaluate_many(**files, perturbation_key="target", counts_layer="counts")
    with pytest.raises(InputError, match="metrics of its own"):
        evaluate_many(**files, perturbation_key="target", profile="vcc2026", metrics=["mse"])


def test_the_command_prints_and_writes_the_profile(files: dict[str, Any], tmp_path: Path, run: Run) -> None:
    out = tmp_path / "scores.csv"
    paths = [word for role, path in files.items() for word in (f"--{role}", path)]
    code, printed, err = run("evaluate", *paths, "--perturbation-key", "target", "--profile", "vcc2026", "--out", out)
    assert code == 0, err
    assert "mean of the six" in printed
    row = pd.read_csv(out).iloc[0]
    assert row["vcc2026"] == pytest.approx(np.mean([row[f"{name}_normalised"] for name in VCC2026]))


def test_every_profile_names_metrics_that_there_are() -> None:
    for profile in PROFILES.values():
        known = VCC2026 if profile.needs == "counts" else METRICS
        assert all(name in known for name in profile.metrics())
