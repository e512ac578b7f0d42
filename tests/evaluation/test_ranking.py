"""Gene lists are scanpy's, exactly."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from packaging.version import Version
from scipy import sparse, stats

from evaluation.conftest import KANG_TYPES, Cells, adata
from multipert.data.expression import is_sparse
from multipert.evaluation.populations import Population
from multipert.evaluation.ranking import order_by_score, significant, welch_scores, wilcoxon_scores


def scanpy_ranking(group: Any, reference: Any, method: str) -> Any:
    """Genes and scores by scanpy, best first."""
    # scanpy looks for the older of scipy's two sparse types.
    parts = {
        name: adata(sparse.csr_matrix(X) if is_sparse(X) else X)
        for name, X in (("group", group), ("reference", reference))
    }
    both = anndata.concat(parts, label="of", index_unique="-")
    both.obs["of"] = both.obs["of"].astype("category")
    scanpy.tl.rank_genes_groups(both, "of", reference="reference", groups=["group"], method=method)
    return scanpy.get.rank_genes_groups_df(both, "group")


def our_scores(group: Any, reference: Any, method: str) -> Any:
    if method == "wilcoxon":
        return wilcoxon_scores(group, reference)
    return welch_scores(Population(group), Population(reference))


def assert_same_as_scanpy(group: Any, reference: Any, method: str) -> None:
    theirs = scanpy_ranking(group, reference, method)
    scores = our_scores(group, reference, method)
    order = order_by_score(scores)
    ours = pd.Series(scores[order].astype(np.float32), index=[f"g{i}" for i in order])
    expected = theirs.set_index("names")["scores"].astype(np.float32)
    if Version(version("scanpy")) < Version("1.12"):
        pd.testing.assert_series_equal(ours, expected, check_names=False, check_exact=True)
    else:  # it sums t-tests in another order, and puts equal scores in another
        pd.testing.assert_series_equal(ours, expected.loc[ours.index], check_names=False, rtol=1e-4, atol=1e-4)
    if method == "wilcoxon":
        adjusted = theirs.set_index("names")["pvals_adj"].loc[ours.index]
        np.testing.assert_array_equal(significant(scores)[order], adjusted.to_numpy() <= 0.05)


@pytest.mark.parametrize("cell_type", KANG_TYPES)
@pytest.mark.parametrize("method", ["t-test", "wilcoxon"])
def test_whole_ranking_of_real_cells_is_scanpys(kang: Callable[[str], Cells], cell_type: str, method: str) -> None:
    cells = kang(cell_type)
    control, truth = sparse.csr_array(cells.control.X), sparse.csr_array(cells.truth.X)
    assert_same_as_scanpy(truth, control, method)


@pytest.mark.parametrize("method", ["t-test", "wilcoxon"])
def test_ranking_of_a_dense_prediction_is_scanpys(kang: Callable[[str], Cells], method: str) -> None:
    cells = kang("CD8T")
    # scanpy cannot stack dense on sparse.
    predicted, control = cells.predicted.X, cells.control.X.toarray()
    assert_same_as_scanpy(predicted, control, method)
    np.testing.assert_array_equal(
        our_scores(predicted, sparse.csr_array(cells.control.X), method), our_scores(predicted, control, method)
    )


tied = st.integers(2, 9).flatmap(
    lambda genes: st.tuples(
        *[
            hnp.arrays(
                np.float32,
                st.tuples(st.integers(2, 12), st.just(genes)),
                elements=st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 1.25, 3.0]),
            )
        ]
        * 2
    )
)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(populations=tied, method=st.sampled_from(["t-test", "wilcoxon"]), as_sparse=st.booleans())
@settings(max_examples=40, deadline=None)
def test_ranking_with_ties_and_constant_genes_is_scanpys(populations: Any, method: str, as_sparse: bool) -> None:
    group, reference = (sparse.csr_array(X) if as_sparse else X for X in populations)
    assert_same_as_scanpy(group, reference, method)


signed = hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.just(4)), elements=st.integers(-3, 3).map(float))


@given(group=signed, reference=signed, kinds=st.tuples(st.booleans(), st.booleans()))
@settings(max_examples=60, deadline=None)
def test_rank_sums_count_wins_and_half_the_draws_of_any_sign(group: Any, reference: Any, kinds: Any) -> None:
    n, m = len(group), len(reference)
    wins = (group[:, None] > reference).sum(axis=(0, 1)) + (group[:, None] == reference).sum(axis=(0, 1)) / 2
    expected = (wins - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12)
    stored = [sparse.csr_array(X) if kind else X for X, kind in zip((group, reference), kinds, strict=True)]
    np.testing.assert_allclose(wilcoxon_scores(*stored), expected, atol=1e-12)


def test_many_genes_are_ranked_in_blocks_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    group, reference = (sparse.csr_array(rng.poisson(0.5, size=(n, 40)).astype(np.float64)) for n in (11, 13))
    at_once = wilcoxon_scores(group, reference)
    monkeypatch.setattr("multipert.data.expression.BLOCK", 50)
    np.testing.assert_array_equal(wilcoxon_scores(group, reference), at_once)
    dense = Population(group.toarray())
    np.testing.assert_allclose(dense.mean, Population(group).mean)
    np.testing.assert_allclose(dense.variance, group.toarray().var(axis=0, ddof=1))


@given(z=hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-6, 6)))
@settings(deadline=None)
def test_significance_is_benjamini_and_hochbergs(z: Any) -> None:
    adjusted = stats.false_discovery_control(2 * stats.norm.sf(np.abs(z)))
    near = np.isclose(adjusted, 0.05, rtol=1e-9)
    np.testing.assert_array_equal(significant(z)[~near], (adjusted <= 0.05)[~near])


def test_single_cell_ranks_genes_by_difference_over_the_others_error() -> None:
    rng = np.random.default_rng(1)
    one, many = rng.random((1, 6)), rng.random((20, 6))
    expected = (one[0] - many.mean(axis=0)) / np.sqrt(many.var(axis=0, ddof=1) / 20)
    np.testing.assert_allclose(welch_scores(Population(one), Population(many)), expected)
    assert np.isfinite(wilcoxon_scores(one, many)).all()
