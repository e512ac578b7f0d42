"""Distances are their textbook formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats

from evaluation import naive
from evaluation.conftest import KANG_TYPES, Cells
from multipert.data.expression import slices
from multipert.evaluation import distances
from multipert.evaluation.components import principal_components

clouds = hnp.arrays(np.float64, st.tuples(st.integers(2, 9), st.just(3)), elements=st.floats(-5, 5, width=16))


@given(x=clouds, y=clouds)
@settings(max_examples=50, deadline=None)
def test_distances_equal_the_slow_formulas(x: Any, y: Any) -> None:
    assert distances.mean_distance(x, y) == pytest.approx(naive.mean_pairwise(x, y), abs=1e-6)
    assert distances.mean_distance(x) == pytest.approx(naive.within(x), abs=1e-6)
    assert distances.mean_gap(x, y) == pytest.approx(naive.euclidean(x, y), abs=1e-9)
    assert 2 * distances.mean_gap(x, y) ** 2 == pytest.approx(naive.edistance(x, y), abs=1e-9)
    assert distances.mean_gap(x, y) ** 2 == pytest.approx(naive.linear_mmd(x, y), abs=1e-9)
    expected = np.mean([stats.wasserstein_distance(x[:, g], y[:, g]) for g in range(3)])
    assert distances.gene_transport_distances(x, y).mean() == pytest.approx(expected, abs=1e-9)


@given(x=clouds, y=clouds)
@settings(max_examples=30, deadline=None)
def test_transport_equals_pot_and_is_symmetric(x: Any, y: Any) -> None:
    expected = ot.emd2([], [], naive.pairs(x, y))
    assert distances.transport_cost(x, y) == pytest.approx(expected, abs=1e-8)
    assert distances.transport_cost(y, x) == pytest.approx(expected, abs=1e-8)


def test_kernel_discrepancy_equals_the_slow_formula() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(17, 4)), rng.normal(0.7, size=(23, 4))
    assert distances.kernel_discrepancy(x, y) == pytest.approx(naive.gaussian_mmd(x, y), rel=1e-9)


def test_energy_and_kernel_statistics_of_equal_populations_are_zero_on_average() -> None:
    rng = np.random.default_rng(0)
    draws = [(rng.normal(size=(12, 3)), rng.normal(size=(30, 3))) for _ in range(300)]
    energies = [
        2 * distances.mean_distance(x, y) - distances.mean_distance(x) - distances.mean_distance(y) for x, y in draws
    ]
    kernels = [distances.kernel_discrepancy(x, y) for x, y in draws]
    for values in (energies, kernels):
        assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_blocks_cover_everything_once_and_do_not_change_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(37, 4)), rng.normal(size=(29, 4))

    def answers() -> list[float]:
        return [
            distances.mean_distance(x, y),
            distances.mean_distance(x),
            distances.kernel_discrepancy(x, y),
            distances.transport_cost(x, y),
        ]

    at_once = answers()
    monkeypatch.setattr("multipert.data.expression.BLOCK", 100)
    assert [i for rows in slices(70, width=3) for i in range(70)[rows]] == list(range(70))
    np.testing.assert_allclose(answers(), at_once, rtol=1e-12)


@pytest.mark.parametrize("cell_type", KANG_TYPES)
def test_transport_between_real_cells_is_pots_and_near_a_converged_sinkhorn(
    kang: Callable[[str], Cells], cell_type: str
) -> None:
    cells = kang(cell_type)
    _, truth, predicted = principal_components(
        [sparse.csr_array(cells.control.X), sparse.csr_array(cells.truth.X), cells.predicted.X]
    )
    cost = ot.dist(truth, predicted)
    ours = distances.transport_cost(truth, predicted)
    assert ours == pytest.approx(ot.emd2([], [], cost, numItermax=10_000_000), rel=1e-9)
    regularised = ot.sinkhorn2([], [], cost, reg=0.005 * cost.mean(), method="sinkhorn_log", numItermax=1_000)
    assert ours == pytest.approx(regularised, rel=0.05)


def test_large_sets_are_estimated_from_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 2)), rng.normal(2, size=(420, 2))
    exact = distances.transport_cost(x, y)
    monkeypatch.setattr(distances, "EXACT_TRANSPORT_CELLS", 399)
    monkeypatch.setattr(distances, "TRANSPORT_DRAW_CELLS", 200)
    estimate = distances.transport_cost(x, y, seed=1)
    assert estimate != exact
    assert estimate == pytest.approx(exact, rel=0.1)
    assert estimate == distances.transport_cost(x, y, seed=1)


def test_bandwidth_of_large_sets_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 5)), rng.normal(1, size=(300, 5))
    exact = distances.kernel_discrepancy(x, y)
    monkeypatch.setattr(distances, "BANDWIDTH_CELLS", 200)
    assert distances.kernel_discrepancy(x, y) == pytest.approx(exact, rel=0.05)


def test_a_single_cell_has_no_spread() -> None:
    one, many = np.zeros((1, 3)), np.random.default_rng(0).normal(size=(6, 3))
    assert distances.mean_distance(one) == 0
    assert distances.transport_cost(one, many) == pytest.approx(np.mean(np.sum(many**2, axis=1)))
    assert np.isfinite(distances.kernel_discrepancy(one, many))
    assert distances.kernel_discrepancy(one, one) == 0


def test_mostly_coinciding_cells_still_have_a_bandwidth() -> None:
    x = np.zeros((10, 2))
    y = np.concatenate([np.zeros((9, 2)), np.ones((1, 2))])
    assert np.isfinite(distances.kernel_discrepancy(x, y))
