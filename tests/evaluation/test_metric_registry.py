"""The registry says what a reader must know of each metric, and takes more of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from evaluation.conftest import Cells
from multipert.errors import InputError
from multipert.evaluation import METRICS, STUDY, evaluate, metric, metric_of_several
from multipert.evaluation.populations import Comparison
from multipert.evaluation.registry import choose, default_metrics

SPECIFICATION = {
    "degs": "high", "r2_hvg": "high", "r2_deg20": "high", "r2_deg100": "high", "edistance": "low", "wasserstein": "low",
    "euclidean": "low", "mean_pairwise": "low", "mmd": "low", "edist": "low", "edist_vs_control": "low",
    "mmd_rbf": "low", "edist_scaled": "low", "mmd_rbf_scaled": "low",
    "pearson_delta": "high", "pearson_delta_deg100": "high", "mse": "low", "wmse": "low",
    "sign_deg100": "high", "amplitude": "one", "de_recall": "high",
    "variance_ratio": "one", "gene_wasserstein": "low",
    "covariance_distance": "low", "perturbed_pearson": "high", "discrimination": "high",
}  # fmt: skip
OF_COUNTS = {
    "pds_cosine": "high", "expr_mse_unbiased_capped_norm": "low", "de_wilcoxon_direction_fidelity_yield_raw": "high",
    "de_wilcoxon_direction_reach_raw": "high", "de_wilcoxon_sig_jaccard": "high", "de_wilcoxon_lfc_nmae": "low",
    "vcc2026": "high",
}  # fmt: skip


def test_names_order_and_directions_are_the_specifications() -> None:
    assert {name: entry.better for name, entry in METRICS.items()} == SPECIFICATION | OF_COUNTS
    assert list(METRICS) == [*SPECIFICATION, *OF_COUNTS]
    assert default_metrics() == list(SPECIFICATION)


@pytest.mark.parametrize("name", [*SPECIFICATION, *OF_COUNTS])
def test_every_metric_says_what_it_is(name: str) -> None:
    entry = METRICS[name]
    assert entry.name == name
    assert entry.meaning
    assert "\n" not in entry.meaning
    assert entry.source
    assert entry.range[0] < entry.range[1]
    assert entry.needs == "counts" or entry.function.__doc__


def test_shortfall_turns_every_direction_so_that_low_is_good() -> None:
    np.testing.assert_array_equal(METRICS["edist"].shortfall(np.array([2.0])), [2.0])
    np.testing.assert_array_equal(METRICS["degs"].shortfall(np.array([2.0])), [-2.0])
    np.testing.assert_array_equal(METRICS["variance_ratio"].shortfall(np.array([0.5, 1.5])), [0.5, 0.5])


def test_what_is_said_of_the_metrics_beside_their_direction() -> None:
    assert {name for name, entry in METRICS.items() if entry.shares_control} == {
        "edist", "edist_vs_control", "mmd_rbf", "edist_scaled", "mmd_rbf_scaled",
        "pearson_delta", "pearson_delta_deg100", "sign_deg100", "amplitude", "de_recall",
    }  # fmt: skip
    assert not any(METRICS[name].shares_control for name in STUDY)  # those stay as published
    assert {name: entry.same_as for name, entry in METRICS.items() if entry.same_as} == {"mmd": "edistance"}


def make_other(name: str) -> Callable[[Comparison], float]:
    def other(comparison: Comparison) -> float:
        return 0.0

    other.__name__ = name
    return other


def test_third_parties_add_metrics(made: Cells) -> None:
    @metric(better="low", range=(0, 1e9), meaning="number of predicted cells", source="test")
    def n_predicted(comparison: Comparison) -> float:
        return float(comparison.predicted.n_cells)

    @metric_of_several(better="high", range=(0, 1e9), meaning="number of perturbations", source="test")
    def n_perturbations(comparisons: Sequence[Comparison]) -> np.ndarray:
        return np.full(len(comparisons), float(len(comparisons)))

    try:
        assert evaluate(**made.named())["n_predicted"] == made.predicted.n_obs
        assert [entry.name for entry in choose(None, several=True)][-1] == "n_perturbations"
        other = make_other("n_predicted")
        with pytest.raises(InputError, match="there are two metrics called 'n_predicted'"):
            metric(better="low", range=(0, 1), meaning="another", source="test")(other)
    finally:
        METRICS.remove("n_predicted")
        METRICS.remove("n_perturbations")
