"""Scores are read between what doing nothing and what a perfect model would score."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from evaluation.conftest import KANG_TYPES, Cells, adata
from multipert.evaluation import METRICS, STUDY, between_bounds, bounds, evaluate, evaluate_many, scorecard


def test_real_cells_have_the_bounds_of_the_specification(kang: Callable[[str], Cells]) -> None:
    measured = [
        bounds(control=kang(name).control, truth=kang(name).truth, metrics=["edist"]).loc["edist"]
        for name in KANG_TYPES
    ]
    floor, ceiling = np.mean(measured, axis=0)
    assert floor == pytest.approx(5.51, abs=0.005)
    assert ceiling == pytest.approx(-0.04, abs=0.08)  # a mean over random splits


def test_floor_is_the_score_of_no_change(made: Cells) -> None:
    table: Any = bounds(control=made.control, truth=made.truth)
    expected = evaluate(control=made.control, truth=made.truth, predicted=made.control)
    pd.testing.assert_series_equal(table["floor"], expected, check_names=False)


def test_bounds_depend_on_the_seed_alone_and_not_on_the_prediction(made: Cells) -> None:
    first = bounds(control=made.control, truth=made.truth, seed=1)
    pd.testing.assert_frame_equal(first, bounds(control=made.control, truth=made.truth, seed=1))
    assert not first["ceiling"].equals(bounds(control=made.control, truth=made.truth, seed=2)["ceiling"])
    card: Any = scorecard(**made.named(), seed=1)
    pd.testing.assert_frame_equal(card[["floor", "ceiling"]], first)


def test_ceiling_is_the_mean_score_of_half_the_truth_for_the_other(made: Cells) -> None:
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(60):
        order = rng.permutation(made.truth.n_obs)
        first, second = made.truth[order[:12]].copy(), made.truth[order[12:]].copy()
        scores.append(evaluate(control=made.control, truth=first, predicted=second, metrics=["edist", "mse"]))
    ceilings = [
        bounds(control=made.control, truth=made.truth, metrics=["edist", "mse"], seed=seed)["ceiling"]
        for seed in range(12)
    ]
    difference = np.mean(scores, axis=0) - np.mean(ceilings, axis=0)
    assert np.all(np.abs(difference) < 4 * np.std(scores, axis=0) / np.sqrt(60))


def test_the_normalised_score_is_the_share_of_the_possible_improvement() -> None:
    table = pd.DataFrame(
        {"score": [3.0, 0.5, 0.7, 1.4], "floor": [5.0, 0.2, 0.4, 0.2], "ceiling": [1.0, 1.0, 0.9, 0.9]},
        index=["edist", "r2_hvg", "pearson_delta", "variance_ratio"],
    )
    placed = between_bounds(table)
    np.testing.assert_allclose(placed["normalised"], [0.5, 0.375, 0.6, 0.4 / 0.7])
    assert not placed["worse_than_doing_nothing"].any()


def test_worse_than_doing_nothing_is_marked() -> None:
    table = pd.DataFrame(
        {"score": [5.1, 0.1, 3.0], "floor": [5.0, 0.2, 0.2], "ceiling": [1.0, 1.0, 1.0]},
        index=["edist", "r2_hvg", "variance_ratio"],
    )
    placed = between_bounds(table)
    assert placed["worse_than_doing_nothing"].all()
    assert (placed["normalised"] < 0).all()


@pytest.mark.parametrize(
    ("floor", "ceiling", "worse"), [(inf, 0.1, None), (np.nan, 0.1, None), (0.5, 0.5, False), (0.5, 0.6, False)]
)
def test_without_room_between_the_bounds_there_is_no_normalised_score(
    floor: float, ceiling: float, worse: bool | None
) -> None:
    placed = between_bounds(pd.DataFrame({"score": [0.4], "floor": [floor], "ceiling": [ceiling]}, index=["edistance"]))
    assert np.isnan(placed["normalised"].iloc[0])
    answer = placed["worse_than_doing_nothing"].iloc[0]
    assert answer is pd.NA if worse is None else bool(answer) is worse


def test_scorecard_of_a_prediction(made: Cells) -> None:
    card: Any = scorecard(**made.named())
    assert list(card.columns) == ["score", "floor", "ceiling", "normalised", "worse_than_doing_nothing", "note"]
    assert list(card.index) == [name for name in METRICS if name != "discrimination"]
    pd.testing.assert_series_equal(card["score"], evaluate(**made.named()), check_names=False)
    assert 0 < card.loc["edist", "normalised"] < 1
    assert (card["note"] == "").all()
    for name in ("edistance", "wasserstein", "euclidean", "mmd"):
        assert card.loc[name, "floor"] == inf
        assert card.loc[name, "worse_than_doing_nothing"] is pd.NA


def test_doing_nothing_is_normalised_to_nothing_and_is_not_worse_than_itself(made: Cells) -> None:
    card: Any = scorecard(control=made.control, truth=made.truth, predicted=made.control)
    finite = np.isfinite(card["floor"])
    assert not card.loc[finite, "worse_than_doing_nothing"].any()
    assert (card["normalised"].dropna() == 0).all()
    assert card["normalised"].notna().sum() > 10


def test_a_collapsed_prediction_is_exposed(kang: Callable[[str], Cells]) -> None:
    cells = kang("NK")
    mean = cells.truth.X.toarray().mean(axis=0)
    collapsed = adata(np.tile(mean, (cells.truth.n_obs, 1)), list(cells.truth.var_names))
    card: Any = scorecard(control=cells.control, truth=cells.truth, predicted=collapsed)
    # Eight of the study's nine place it at or beyond a perfect model ...
    for name in ("r2_hvg", "r2_deg20", "r2_deg100", "edistance", "wasserstein", "euclidean", "mean_pairwise", "mmd"):
        entry = METRICS[name]
        assert entry.shortfall(card.loc[name, "score"]) <= entry.shortfall(card.loc[name, "ceiling"]), name
    # ... though it is worse than doing nothing.
    for name in ("edist", "edist_vs_control", "mmd_rbf", "variance_ratio"):
        assert card.loc[name, "worse_than_doing_nothing"], name


def test_predictions_of_the_wrong_perturbation_are_exposed(mcfaline_path: Path) -> None:
    cells = anndata.read_h5ad(mcfaline_path)
    cells = cells[cells.obs["cell_line"] == "A172"]
    control, truth = (cells[(cells.obs["perturbation"] == "control") == which].copy() for which in (True, False))
    names = sorted(truth.obs["perturbation"].astype(str).unique())
    shuffled = truth.copy()
    shuffled.obs["perturbation"] = (
        truth.obs["perturbation"].astype(str).map(dict(zip(names, names[1:] + names[:1], strict=True)))
    )
    scores = evaluate_many(control=control, truth=truth, predicted=shuffled, perturbation_key="perturbation").mean()
    assert scores["r2_hvg"] > 0.9
    assert scores["r2_deg100"] > 0.9
    assert scores["discrimination"] < 0.55  # chance is 0.5
    right = evaluate_many(control=control, truth=truth, predicted=truth, perturbation_key="perturbation").mean()
    assert right["discrimination"] == 1


def several(cells: Any, names: str) -> Any:
    named = cells.copy()
    named.obs["drug"] = [names[i % len(names)] for i in range(cells.n_obs)]
    return named


def test_scorecard_of_several_perturbations(made: Cells) -> None:
    card: Any = scorecard(
        control=made.control, truth=several(made.truth, "ab"), predicted=several(made.predicted, "ab"),
        perturbation_key="drug",
    )  # fmt: skip
    assert card.index.names == ["drug", "metric"]
    assert list(card.loc["b"].index) == list(METRICS)
    # No change cannot tell perturbations apart: chance, on average.
    assert card.xs("discrimination", level="metric")["floor"].mean() == 0.5


def test_a_single_true_cell_has_no_ceiling(made: Cells) -> None:
    card: Any = scorecard(control=made.control, truth=made.truth[:1].copy(), predicted=made.predicted)
    assert card["ceiling"].isna().all()
    assert card["normalised"].isna().all()
    truth = made.truth[:9].copy()
    truth.obs["drug"] = ["a"] + ["b"] * 8
    table: Any = bounds(control=made.control, truth=truth, perturbation_key="drug", metrics=["mse", "edist"])
    assert table.loc["a", "ceiling"].isna().all()
    assert table.loc["b", "ceiling"].notna().all()


def test_intervals_hold_the_score_and_narrow_with_confidence(made: Cells) -> None:
    wide: Any = scorecard(**made.named(), intervals=40, confidence=0.95)
    narrow: Any = scorecard(**made.named(), intervals=40, confidence=0.5)
    known = wide["low"].notna()
    assert known.sum() >= 18
    assert (wide["low"] <= wide["score"] + 1e-9)[known].all()
    assert (wide["high"] >= wide["score"] - 1e-9)[known].all()
    assert (wide["low"] <= narrow["low"])[known].all()
    assert (wide["high"] >= narrow["high"])[known].all()
    for name in wide.index:
        low, high = METRICS[name].range
        assert not wide.loc[name, "low"] < low
        assert not wide.loc[name, "high"] > high


def test_intervals_of_the_energy_distance_cover_its_expectation() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(25):
        control, truth, predicted = (adata(rng.random((n, 3))) for n in (20, 25, 15))
        card: Any = scorecard(control=control, truth=truth, predicted=predicted, metrics=["edist"], intervals=40)
        covered += bool(card.loc["edist", "low"] <= 0 <= card.loc["edist", "high"])
    assert covered >= 20


def test_study_metrics_alone(made: Cells) -> None:
    assert list(scorecard(**made.named(), metrics=STUDY).index) == list(STUDY)
