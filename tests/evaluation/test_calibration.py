"""Calibration beside scperteval, beside slow formulas, and what it says of real cells."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from multipert.data import simulate
from multipert.evaluation import METRICS, calibrate, summarise
from multipert.evaluation.calibration import (
    LEAST_BDS,
    LEAST_DRF,
    duplicates,
    dynamic_range,
)
from multipert.evaluation.protocols import PROTOCOLS, calibrate_protocols

KEY = "perturbation"


def labelled(cells: Any) -> tuple[Any, dict[str, Any]]:
    """Control cells and each perturbation's, as matrices."""
    X, labels = sparse.csr_array(cells.X), cells.obs[KEY].astype(str).to_numpy()
    return X[labels == "control"], {name: X[labels == name] for name in sorted(set(labels) - {"control"})}


@pytest.fixture(scope="module", params=["norman", "simulated"])
def screen(request: pytest.FixtureRequest, data_folder: Path) -> Any:
    """Several perturbations of one context, in float64 as the referee sums in the precision of the data."""
    if request.param == "norman":
        cells = anndata.read_h5ad(data_folder / "norman_subset.h5ad")
    else:
        names = [f"p{i}" for i in range(8)]
        cells = simulate(n_genes=1200, contexts=["A"], perturbations=names, cells_per_group=(30, 60), response=0.8)
        cells.obs[KEY] = cells.obs["condition"].astype(str)
    cells.X = cells.X.astype(np.float64)
    return cells


@pytest.fixture(scope="module")
def referee(screen: Any) -> Any:
    scperteval = pytest.importorskip("scperteval", reason="scperteval is not installed: pip install scperteval")
    prepared = scperteval.prepare(screen, [], perturbation_key=KEY, control_label="control", workers=1, min_cells=4)

    def say(protocol: str) -> tuple[pd.Series[Any], float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drf = scperteval.calibrate(prepared, protocol)
            bds = scperteval.calibrate(prepared, protocol, calibrator="bds")
        return drf.per_perturbation.set_index("perturbation")["drf"], drf.aggregate["mean"], bds.aggregate["bds"]

    return say


@pytest.fixture(scope="module")
def protocols(screen: Any) -> pd.DataFrame:
    return calibrate_protocols(duplicates(*labelled(screen), shared_controls=True))


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_protocols_have_the_calibration_of_scperteval(name: str, protocols: pd.DataFrame, referee: Any) -> None:
    each, drf, bds = referee(name)
    ours = protocols.xs(name, level="metric")["drf"].reindex(each.index)
    np.testing.assert_allclose(ours, each, rtol=1e-6, atol=1e-9)
    assert summarise(protocols).loc[name, "drf"] == pytest.approx(drf, rel=1e-6)
    assert summarise(protocols).loc[name, "bds"] == pytest.approx(bds, rel=1e-6)


def test_our_metrics_have_the_calibration_of_scperteval_where_they_are_the_same(screen: Any, referee: Any) -> None:
    same = {"mse": "mse", "pearson_delta": "pearson_ctrl", "discrimination": "nir"}
    control = (screen.obs[KEY] == "control").to_numpy()
    ours = summarise(
        calibrate(
            control=screen[control], truth=screen[~control], perturbation_key=KEY, metrics=same, shared_controls=True
        )
    )
    for name, protocol in same.items():
        _, drf, bds = referee(protocol)
        # Cells are read in float32.
        assert ours.loc[name, "drf"] == pytest.approx(drf, rel=1e-5)
        assert ours.loc[name, "bds"] == pytest.approx(bds, rel=1e-6)


def test_the_interpolated_duplicate_is_the_half_where_it_differs_and_the_others_elsewhere() -> None:
    rng = np.random.default_rng(0)
    groups = {name: rng.normal(0, 1, (60, 40)) for name in "abc"}
    groups["a"][:, 0] += 5
    one = duplicates(rng.normal(0, 1, (80, 40)), groups)["a"]
    others = np.concatenate([groups["b"], groups["c"]])
    p = stats.ttest_ind(one.half.X, others, equal_var=False).pvalue
    trust = 1 - stats.false_discovery_control(p)
    expected = trust * one.half.X.mean(axis=0) + (1 - trust) * (groups["b"].mean(axis=0) + groups["c"].mean(axis=0)) / 2
    np.testing.assert_allclose(one.interpolated, expected, rtol=1e-9)
    assert one.interpolated[0] == pytest.approx(one.half.X[:, 0].mean(), rel=1e-6)
    assert np.median(abs(one.interpolated[1:])) < 0.15


def test_dynamic_range() -> None:
    positive, negative = np.array([0.9, 0.5, -1, 0.3, np.nan]), np.array([0.5, 0.5, 0.5, 1.2, 0.1])
    found = dynamic_range(positive, negative, perfect=1.0, better="high")
    np.testing.assert_allclose(found, [0.8, 0, -1, np.nan, np.nan], atol=1e-5)
    np.testing.assert_allclose(dynamic_range(-positive, -negative, perfect=-1.0, better="low"), found)


def test_of_mcfaline_no_metric_can_tell_and_of_kang_nearly_all(mcfaline_path: Path, kang_path: Path) -> None:
    cells = anndata.read_h5ad(mcfaline_path)
    weak = cells[(cells.obs["cell_line"] == "T98G").to_numpy()]
    control = (weak.obs[KEY] == "control").to_numpy()
    told = summarise(calibrate(control=weak[control], truth=weak[~control], perturbation_key=KEY))
    assert not told["can_tell"].any()
    cells = anndata.read_h5ad(kang_path)
    strong = cells[(cells.obs["cell_type"] == "B").to_numpy()]
    control = (strong.obs["condition"] == "control").to_numpy()
    told = summarise(calibrate(control=strong[control], truth=strong[~control]))
    assert set(told.index[~told["can_tell"]]) == {"mean_pairwise"}


def test_noise_of_shared_controls_does_not_feign_a_metric_that_can_tell() -> None:
    rng = np.random.default_rng(1)
    draw = lambda n: anndata.AnnData(sparse.csr_array(np.log1p(rng.poisson(0.7, (n, 300))).astype(np.float32)))  # noqa: E731
    control, truth = draw(60), draw(60)
    shared, own = (
        calibrate(control=control, truth=truth, metrics=["pearson_delta"], shared_controls=shared)["drf"].iloc[0]
        for shared in (True, False)
    )
    assert shared > LEAST_DRF > own


def test_a_metric_needs_both_range_and_discrimination() -> None:
    index = pd.MultiIndex.from_product([["a", "b", "c", "d"], ["m", "n"]], names=["perturbation", "metric"])
    table = pd.DataFrame({"drf": [0.5, 0.05] * 4, "wins": [True, True] * 2 + [False, True] * 2}, index=index)
    said = summarise(table)
    assert said.loc["m", "bds"] == 0.5 < LEAST_BDS
    assert said["can_tell"].tolist() == [False, False]


def test_too_few_cells_cannot_be_halved() -> None:
    rng = np.random.default_rng(2)
    groups = {"few": rng.normal(size=(3, 5)), "enough": rng.normal(size=(9, 5))}
    assert list(duplicates(rng.normal(size=(9, 5)), groups)) == ["enough"]


def test_every_metric_is_calibrated(kang_path: Path) -> None:
    cells = anndata.read_h5ad(kang_path)
    cells = cells[(cells.obs["cell_type"] == "NK").to_numpy()]
    control = (cells.obs["condition"] == "control").to_numpy()
    found = calibrate(control=cells[control], truth=cells[~control])
    names = [name for name, metric in METRICS.items() if not metric.several]
    assert list(found.index.get_level_values("metric")) == names
    assert found.columns.tolist() == ["positive", "negative", "drf", "wins"]
