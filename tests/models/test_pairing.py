from itertools import permutations
from math import lcm

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist, pdist

from models.conftest import KEYS
from multipert.data import PerturbationData, leave_context_out, simulate
from multipert.models.pairing import blocks, exact_partners, pair, principal_components, slipped


def world(cells_per_group: int | tuple[int, int] = (3, 9), seed: int = 2) -> PerturbationData:
    cells = simulate(
        n_genes=60, contexts="ABC", perturbations=("alpha", "beta"), cells_per_group=cells_per_group, seed=seed
    )
    return PerturbationData.from_anndata(cells, **KEYS)


def everyone(data: PerturbationData) -> npt.NDArray[np.int64]:
    return np.arange(len(data))


@given(size=st.integers(1, 6), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_equal_sides_are_matched_at_least_total_cost(size: int, seed: int) -> None:
    cost = np.random.default_rng(seed).random((size, size))
    best = min(permutations(range(size)), key=lambda columns: sum(cost[range(size), columns]))
    np.testing.assert_array_equal(exact_partners(cost), best)


@given(n=st.integers(1, 9), m=st.integers(1, 9), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_unequal_sides_go_where_most_of_the_mass_goes(n: int, m: int, seed: int) -> None:
    """Each cell is written out as so many equal grains that both sides have the same number; grains are assigned."""
    cost = np.random.default_rng(seed).random((n, m))
    grains = lcm(n, m)
    row, column = np.arange(grains) // (grains // n), np.arange(grains) // (grains // m)
    _, assigned = linear_sum_assignment(cost[np.ix_(row, column)])
    mass = np.zeros((n, m))
    np.add.at(mass, (row, column[assigned]), 1)
    nearest_of_the_heaviest = np.where(mass == mass.max(axis=1, keepdims=True), cost, np.inf).argmin(axis=1)
    np.testing.assert_array_equal(exact_partners(cost), nearest_of_the_heaviest)


def test_pairs_are_those_of_each_context_and_perturbation_alone() -> None:
    data = world(cells_per_group=6)
    pairs = pair(data, everyone(data))
    for perturbation in data.perturbations:
        for context in data.contexts:
            control, perturbed = (data.rows(condition=c, context=context) for c in ("control", perturbation))
            cells = data.X[np.concatenate([control, perturbed])].toarray()
            # Twelve cells lie in eleven components: distances are those of all genes.
            _, best = linear_sum_assignment(cdist(cells[:6], cells[6:]))
            these = np.isin(pairs.control, control) & (pairs.condition == data.conditions.index(perturbation))
            np.testing.assert_array_equal(pairs.control[these], control)
            np.testing.assert_array_equal(pairs.partner[these], perturbed[best])


@pytest.mark.parametrize("at_once", [4_000, 3])
def test_partners_are_perturbed_cells_of_the_same_context(at_once: int) -> None:
    data = world(cells_per_group=(1, 20))
    pairs = pair(data, everyone(data), at_once=at_once)
    controls = data.rows(condition="control")
    assert len(pairs) == 2 * len(controls)
    for condition in (1, 2):
        np.testing.assert_array_equal(np.sort(pairs.control[pairs.condition == condition]), controls)
    np.testing.assert_array_equal(data.context[pairs.control], data.context[pairs.partner])
    np.testing.assert_array_equal(data.condition[pairs.partner], pairs.condition)


def test_only_the_given_rows_take_part_in_whatever_order() -> None:
    data = world(cells_per_group=8)
    rows = np.setdiff1d(leave_context_out(data, "B").train, data.rows(context="B"))
    pairs = pair(data, rows)
    assert np.isin(np.concatenate([pairs.control, pairs.partner]), rows).all()
    shuffled = pair(data, np.random.default_rng(0).permutation(rows))
    np.testing.assert_array_equal(pairs.partner, shuffled.partner)
    # The cells of other contexts have no say.
    alone = pair(data, np.intersect1d(rows, data.rows(context="A")))
    of_a = data.context[pairs.control] == 0
    np.testing.assert_array_equal(pairs.partner[of_a], alone.partner)


def test_a_context_with_one_cell_on_either_side() -> None:
    data = world(cells_per_group=1)
    pairs = pair(data, everyone(data))
    assert len(pairs) == 2 * len(data.contexts)
    crowd = world(cells_per_group=10)
    one_control = np.concatenate([crowd.rows(condition="control")[:1], crowd.rows(condition="alpha", context="A")])
    assert len(pair(crowd, one_control)) == 1
    one_perturbed = np.concatenate([crowd.rows(condition="control", context="A"), crowd.rows(condition="beta")[:1]])
    assert set(pair(crowd, one_perturbed).partner) == {crowd.rows(condition="beta")[0]}


def test_without_either_side_there_are_no_pairs() -> None:
    data = world()
    for rows in (data.rows(condition="control"), data.rows(condition="alpha"), np.array([], dtype=np.int64)):
        pairs = pair(data, rows)
        assert len(pairs) == 0
        assert pairs.control.dtype == pairs.partner.dtype == pairs.condition.dtype == np.int64


def test_the_studys_slip_looks_a_partners_position_up_in_all_contexts_together() -> None:
    """Written out cell by cell, as the study's code goes."""
    data = world(cells_per_group=(3, 9))
    rows = np.setdiff1d(leave_context_out(data, "B").train, data.rows(context="B"))
    pairs = pair(data, np.random.default_rng(0).permutation(rows))
    mistaken = slipped(pairs, data, rows)
    np.testing.assert_array_equal(mistaken.control, pairs.control)
    np.testing.assert_array_equal(mistaken.condition, pairs.condition)
    elsewhere = 0
    for control, partner, found in zip(pairs.control, pairs.partner, mistaken.partner, strict=True):
        condition, context = data.condition[partner], data.contexts[data.context[control]]
        perturbed = [row for row in range(len(data)) if row in rows and data.condition[row] == condition]
        together = sorted(perturbed, key=lambda row: (data.contexts[data.context[row]], row))
        position = [row for row in together if data.context[row] == data.context[control]].index(partner)
        assert found == together[position]
        assert found == partner or context != "A", "the first context keeps its partners"
        elsewhere += data.context[found] != data.context[control]
    assert elsewhere > 0


def test_a_large_context_is_divided_the_same_way_each_time() -> None:
    data = world(cells_per_group=40)
    first, again, other = (pair(data, everyone(data), at_once=7, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.partner, again.partner)
    assert (first.partner != other.partner).any()


@given(n=st.integers(1, 60), m=st.integers(1, 60), at_once=st.integers(1, 80))
@settings(deadline=None)
def test_blocks_hold_every_cell_once_and_are_small(n: int, m: int, at_once: int) -> None:
    found = list(blocks(n, m, at_once, np.random.default_rng(0)))
    controls, perturbed = zip(*found, strict=True)
    np.testing.assert_array_equal(np.sort(np.concatenate(controls)), np.arange(n))
    np.testing.assert_array_equal(np.sort(np.concatenate(perturbed)), np.arange(m))
    assert (len(found) == 1) == (n * m <= at_once**2 or min(n, m) == 1)
    for side in (controls, perturbed):
        sizes = [len(one) for one in side]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1


def test_components_keep_distances_and_both_ways_agree() -> None:
    rng = np.random.default_rng(0)
    # Sixty cells of rank ten: no distance is lost; as many genes as make Lanczos iterate below.
    cells = np.maximum(rng.random((60, 10)) @ rng.random((10, 600)), 0).astype(np.float32)
    densely = principal_components(csr_matrix(cells))
    np.testing.assert_allclose(pdist(densely), pdist(cells), atol=1e-4)
    many = np.vstack([cells, rng.random((500, 10)) @ rng.random((10, 600))]).astype(np.float32)
    iterated = principal_components(csr_matrix(many))
    assert iterated.shape == (560, 50)
    np.testing.assert_allclose(pdist(iterated), pdist(many), atol=1e-4)


def test_partners_are_of_the_same_level_of_the_covariate() -> None:
    adata = simulate(n_genes=30, contexts=("A", "B"), perturbations=("alpha",), cells_per_group=12)
    adata.obs["donor"] = np.where(np.arange(adata.n_obs) % 3 == 0, "p1", "p2")
    data = PerturbationData.from_anndata(adata, **KEYS, covariate_key="donor")
    pairs = pair(data, everyone(data))
    np.testing.assert_array_equal(np.sort(pairs.control), data.rows(condition="control"))
    for codes in (data.context, data.covariate):
        np.testing.assert_array_equal(codes[pairs.control], codes[pairs.partner])
