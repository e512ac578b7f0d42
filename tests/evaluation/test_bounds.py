"""Scores are read between what doing nothing and what a perfect model would score."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evaluation.conftest import KANG_TYPES, Cells, adata
from multipert.errors import InputError
from multipert.evaluation import METRICS, PROFILES, STUDY, between_bounds, bounds, evaluate, evaluate_many, scorecard
from multipert.evaluation.populations import read_comparisons


def test_real_cells_have_the_bounds_of_the_specification(kang: Callable[[str], Cells]) -> None:
    measured = [
        bounds(control=kang(name).control, truth=kang(name).truth, metrics=["edist"]).loc["edist"]
        for name in KANG_TYPES
    ]
    floor, mean_response, ceiling = np.mean(measured, axis=0)
    assert floor == pytest.approx(4.7, abs=0.1)  # of crossed halves; 5.51 where prediction and controls share cells
    assert np.isnan(mean_response)
    assert ceiling == pytest.approx(-0.04, abs=0.08)  # a mean over random splits


def test_a_replicate_shares_no_control_cell_with_the_truth(kang: Callable[[str], Cells], mcfaline: Any) -> None:
    """Half-split ``pearson_delta`` as specified: .83 on kang, .05 on mcfaline, one of its groups above .3."""
    of_kang = [
        bounds(control=kang(name).control, truth=kang(name).truth, metrics=["pearson_delta"]).loc["pearson_delta"]
        for name in KANG_TYPES
    ]
    assert np.mean([bound["ceiling"] for bound in of_kang]) == pytest.approx(0.83, abs=0.02)
    ceilings = pd.concat(
        {
            line: bounds(control=control, truth=truth, perturbation_key="perturbation", metrics=["pearson_delta"])
            for line, (control, truth) in mcfaline.items()
        }
    )["ceiling"]
    assert len(ceilings) == 27
    assert ceilings.mean() == pytest.approx(0.05, abs=0.02)
    assert list(ceilings.index[ceilings > 0.3]) == [("A172", "TGFBR2", "pearson_delta")]


def test_a_replicate_is_told_from_other_perturbations_whatever_its_controls(mcfaline: Any) -> None:
    control, truth = mcfaline["A172"]
    named = {"control": control, "truth": truth, "perturbation_key": "perturbation", "metrics": ["discrimination"]}
    by_seed = [bounds(**named, seed=seed)["ceiling"].mean() for seed in range(3)]
    assert np.mean(by_seed) > 0.5


def test_the_floor_is_what_other_control_cells_score(mcfaline: Any) -> None:
    """Cells without any response correlate with the response, since both are set against the same controls."""
    control, truth = mcfaline["A172"]
    order = np.random.default_rng(0).permutation(control.n_obs)
    half, other = control[order[::2]].copy(), control[order[1::2]].copy()
    truth = {name: truth[truth.obs["perturbation"] == name].copy() for name in truth.obs["perturbation"].unique()}
    handed_in = evaluate_many(
        control=half, truth=truth, predicted=dict.fromkeys(truth, other), metrics=["pearson_delta"]
    ).mean()["pearson_delta"]
    floor = bounds(control=control, truth=truth, metrics=["pearson_delta"])["floor"].mean()
    assert handed_in > 0.4
    assert floor == pytest.approx(handed_in, abs=0.1)


def test_a_prediction_is_not_set_against_the_cells_it_was_made_from(kang: Callable[[str], Cells]) -> None:
    """The true mean shift, put on the control cells: it is nearly right, whatever cells it is scored with."""
    measured = []
    for name in KANG_TYPES:
        cells = kang(name)
        predicted = cells.control.copy()
        shift = np.asarray(cells.truth.X.mean(axis=0) - cells.control.X.mean(axis=0))
        predicted.X = np.maximum(cells.control.X.toarray() + shift, 0).astype(np.float32)
        known = evaluate(control=cells.control, truth=cells.truth, predicted=predicted)
        predicted.obs_names = [f"predicted {one}" for one in predicted.obs_names]
        unknown = evaluate(control=cells.control, truth=cells.truth, predicted=predicted)
        assert "crossed halves" in known.attrs["notes"]["edist"]
        assert unknown.attrs["notes"] == {}
        same = [one for one, entry in METRICS.items() if not entry.several and not entry.shares_control]
        pd.testing.assert_series_equal(known[same], unknown[same])
        measured.append((known["edist"], unknown["edist"]))
    crossed, shared = np.mean(measured, axis=0)
    assert shared > 0.5
    assert abs(crossed) < 0.1


def test_predictions_of_several_perturbations_at_once_are_crossed_alike(made: Cells) -> None:
    """Where each control cell stands for several predicted ones, their names end in the perturbation's."""
    named = {name: made.control.copy() for name in ("drug-a", "b")}
    several_truths = dict.fromkeys(named, made.truth)
    expected = evaluate_many(control=made.control, truth=several_truths, predicted=named)
    for name, cells in named.items():
        cells.obs_names = [f"{cell}-{name}" for cell in cells.obs_names]
    renamed = evaluate_many(control=made.control, truth=several_truths, predicted=named)
    pd.testing.assert_frame_equal(renamed, expected)
    assert "crossed halves" in renamed.attrs["notes"]["edist"]


def test_crossed_halves_share_no_cell(made: Cells) -> None:
    predicted = made.control[[0, 0, 1, 2, 5, 7]].copy()
    predicted.obs_names = [*made.control.obs_names[[0, 0, 1, 2, 5]], "another"]
    (comparison,) = read_comparisons(control=made.control, truth=made.truth, predicted=predicted).values()
    assert len(comparison.crossed) == 2
    sizes = [(part.control.n_cells, part.predicted.n_cells) for part in comparison.crossed]
    assert sum(n for n, _ in sizes) == made.control.n_obs
    assert sum(n for _, n in sizes) == 7  # the cell of another name stands in both
    for part in comparison.crossed:
        assert part.truth is comparison.truth
        own = {row.tobytes() for row in part.control.X.toarray()}
        others = {row.tobytes() for row in made.control.X.toarray()} - own
        assert {row.tobytes() for row in part.predicted.X.toarray()[:-1]} <= others


def test_floor_is_the_score_of_no_change(made: Cells) -> None:
    table: Any = bounds(control=made.control, truth=made.truth)
    expected = evaluate(control=made.control, truth=made.truth, predicted=made.control)
    pd.testing.assert_series_equal(table["floor"], expected, check_names=False)


def test_the_mean_response_is_scored_like_a_prediction(made: Cells) -> None:
    card: Any = scorecard(**made.named(), mean_response=made.predicted)
    pd.testing.assert_series_equal(card["mean_response"], card["score"], check_names=False)
    reached = card["normalised"].dropna()
    better = [METRICS[name].shortfall(row["mean_response"]) <= METRICS[name].shortfall(row["floor"])
              for name, row in card.loc[reached.index].iterrows()]  # fmt: skip
    assert (reached[better] == 0).all()
    table: Any = bounds(control=made.control, truth=made.truth, mean_response=made.predicted)
    pd.testing.assert_frame_equal(table, card[["floor", "mean_response", "ceiling"]])
    with pytest.raises(InputError, match="the cells of the mean response lack 2 of the 120 genes"):
        bounds(control=made.control, truth=made.truth, mean_response=made.predicted[:, 2:].copy())


def test_bounds_depend_on_the_seed_alone_and_not_on_the_prediction(made: Cells) -> None:
    first = bounds(control=made.control, truth=made.truth, seed=1)
    pd.testing.assert_frame_equal(first, bounds(control=made.control, truth=made.truth, seed=1))
    assert not first["ceiling"].equals(bounds(control=made.control, truth=made.truth, seed=2)["ceiling"])
    card: Any = scorecard(**made.named(), seed=1)
    pd.testing.assert_frame_equal(card[["floor", "mean_response", "ceiling"]], first)


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


def test_a_score_has_to_beat_the_better_floor() -> None:
    table = pd.DataFrame(
        {"score": [3.0, 3.0, 3.0], "floor": [5.0, 5.0, inf], "mean_response": [4.0, 6.0, 4.0], "ceiling": [1.0] * 3},
        index=["edist", "edist", "edistance"],
    )
    placed = between_bounds(table)
    np.testing.assert_allclose(placed["normalised"], [1 / 3, 0.5, 1 / 3])
    assert not placed["worse_than_doing_nothing"].iloc[:2].any()
    assert placed["worse_than_doing_nothing"].iloc[2] is pd.NA


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
    assert list(card.columns) == [
        "score", "floor", "mean_response", "ceiling", "normalised", "worse_than_doing_nothing", "drf", "bds",
        "can_tell", "note",
    ]  # fmt: skip
    assert list(card.index) == [name for name, entry in METRICS.items() if not entry.several]
    pd.testing.assert_series_equal(card["score"], evaluate(**made.named()), check_names=False)
    assert 0 < card.loc["edist", "normalised"] < 1
    assert ((card["note"] == "") == card["can_tell"]).all()
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


def test_values_exchanged_between_cells_gene_by_gene_are_exposed(kang: Callable[[str], Cells]) -> None:
    """Every gene keeps its distribution; only that genes hang together is lost, which one metric sees."""
    cells = kang("CD4T")
    shuffled = adata(np.random.default_rng(0).permuted(cells.truth.X.toarray(), axis=0), list(cells.truth.var_names))
    card: Any = scorecard(control=cells.control, truth=cells.truth, predicted=shuffled)
    assert list(card.index[card["worse_than_doing_nothing"].fillna(False)]) == ["covariance_distance"]
    assert card.loc["covariance_distance", "score"] == pytest.approx(1, abs=0.1)
    assert card.loc["covariance_distance", "ceiling"] == pytest.approx(0, abs=0.1)


def test_predictions_of_the_wrong_perturbation_are_exposed(mcfaline: Any) -> None:
    control, truth = mcfaline["A172"]
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
    assert right["discrimination"] == right["perturbed_pearson"] == 1
    assert scores["perturbed_pearson"] < 0.1


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
    assert list(card.loc["b"].index) == list(PROFILES["default"].metrics())
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
