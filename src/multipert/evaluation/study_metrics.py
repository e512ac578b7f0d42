"""The study's nine metrics, as published: scored with the very control cells that predictions were made from.

All read log-normalised cells of one held-out context and one perturbation. Where a definition has no answer:

- a profile that is the same in every gene correlates with nothing: 0;
- a ratio over zero (the prediction equals control, so it is no distance away from it): infinite, or NaN when the
  truth equals control too.
"""

from __future__ import annotations

from math import inf, nan

import numpy as np

from multipert.data.expression import Floats
from multipert.evaluation import distances
from multipert.evaluation.populations import Comparison
from multipert.evaluation.ranking import order_by_score
from multipert.evaluation.registry import metric

STUDY_PAPER = "the study: Multi-task learning in perturbation modeling (2025)"
COMPARE = "pertpy Distance.compare_distance"
GENE_METRICS, DISTANCE_METRICS = "Metrics of genes", "Metrics of distance"
"""The groups that the study draws its metrics in."""

ZERO = 1e-9
"""Distances below this share of the cells' own spread, and costs below that of its square, are rounding: 0."""


@metric(
    better="high",
    range=(0, 100),
    meaning="shared genes of the true and the predicted top-100 lists (t-test against control)",
    source=f"{STUDY_PAPER}; scanpy.tl.rank_genes_groups",
    group=GENE_METRICS,
)
def degs(comparison: Comparison) -> float:
    """Genes that two lists share: the top 100 by Welch t against control, of true and of predicted cells.

    Both lists are against the same control cells, as published, whose noise therefore counts as agreement; in floors
    and ceilings too, so that they can be compared with scores.
    """
    true, predicted = (order_by_score(t)[:100] for t in (comparison.welch_truth, comparison.welch_predicted))
    return float(len(np.intersect1d(true, predicted)))


@metric(
    better="high",
    range=(0, 1),
    meaning="squared correlation of true and predicted mean expression, all genes",
    source=STUDY_PAPER,
    group=GENE_METRICS,
    guess="others",
)
def r2_hvg(comparison: Comparison) -> float:
    """Squared Pearson correlation of mean profiles over all genes, mean over 100 resamples of 80 % of the cells."""
    true, predicted = comparison.resampled_means
    return float(np.mean(correlation(true, predicted) ** 2))


@metric(
    better="high",
    range=(0, 1),
    meaning="the same over the 20 genes that respond most (Wilcoxon)",
    source=STUDY_PAPER,
    group=GENE_METRICS,
    guess="others",
)
def r2_deg20(comparison: Comparison) -> float:
    """``r2_hvg`` over the top 20 genes by Wilcoxon score, true against control cells."""
    return _r2_of_top(comparison, 20)


@metric(
    better="high",
    range=(0, 1),
    meaning="the same over the 100 genes that respond most (Wilcoxon)",
    source=STUDY_PAPER,
    group=GENE_METRICS,
    guess="others",
)
def r2_deg100(comparison: Comparison) -> float:
    """``r2_hvg`` over the top 100 genes by Wilcoxon score, true against control cells."""
    return _r2_of_top(comparison, 100)


@metric(
    better="low",
    range=(0, inf),
    meaning="E-distance (squared Euclidean) to the truth over that to control, 50 components",
    source=f"{STUDY_PAPER}; {COMPARE}; Peidli et al. 2024",
    space="components",
    group=DISTANCE_METRICS,
    ratio=True,
    guess="others",
)
def edistance(comparison: Comparison) -> float:
    """Ratio of squared E-distances, ``2 E|x-y|^2 - E|x-x'|^2 - E|y-y'|^2`` over all pairs, self-pairs among them.

    Expanding the squares leaves twice the squared distance between the means: the ratio is that of ``euclidean``,
    squared.
    """
    return _ratio_of_gaps(comparison) ** 2


@metric(
    better="low",
    range=(0, inf),
    meaning="optimal-transport cost to the truth over that to control, 50 components",
    source=f"{STUDY_PAPER}, there by Sinkhorn; {COMPARE}; exact here (POT, Bonneel et al. 2011)",
    space="components",
    caveat=lambda comparison: _transport_caveat(comparison),
    group=DISTANCE_METRICS,
    ratio=True,
)
def wasserstein(comparison: Comparison) -> float:
    """Ratio of optimal-transport costs, squared Euclidean ground cost; see ``distances.transport_cost``."""
    cells = comparison.components
    to_truth = distances.transport_cost(cells["truth"], cells["predicted"], seed=comparison.seed)
    to_control = distances.transport_cost(cells["control"], cells["predicted"], seed=comparison.seed)
    return _divide(to_truth, to_control, zero=ZERO * comparison.scale**2)


@metric(
    better="low",
    range=(0, inf),
    meaning="distance of the predicted mean to the true mean over that to the control mean, 50 components",
    source=f"{STUDY_PAPER}; {COMPARE}",
    space="components",
    group=DISTANCE_METRICS,
    ratio=True,
    guess="others",
)
def euclidean(comparison: Comparison) -> float:
    """Ratio of distances between mean vectors."""
    return _ratio_of_gaps(comparison)


@metric(
    better="low",
    range=(0, inf),
    meaning="mean distance of predicted cells to true cells over that to control cells, 50 components",
    source=f"{STUDY_PAPER}; {COMPARE}",
    space="components",
    group=DISTANCE_METRICS,
    ratio=True,
)
def mean_pairwise(comparison: Comparison) -> float:
    """Ratio of mean Euclidean distances over all cross pairs."""
    to_truth = comparison.mean_distance("truth", "predicted")
    to_control = comparison.mean_distance("control", "predicted")
    return _divide(to_truth, to_control, zero=ZERO * comparison.scale)


@metric(
    better="low",
    range=(0, inf),
    meaning="maximum mean discrepancy (linear kernel) to the truth over that to control, 50 components",
    source=f"{STUDY_PAPER}; {COMPARE}",
    space="components",
    group=DISTANCE_METRICS,
    ratio=True,
    same_as="edistance",
    guess="others",
)
def mmd(comparison: Comparison) -> float:
    """Ratio of squared discrepancies with the kernel ``x.y``, each the squared distance between two mean vectors."""
    return _ratio_of_gaps(comparison) ** 2


STUDY: tuple[str, ...] = (
    "degs",
    "r2_hvg",
    "r2_deg20",
    "r2_deg100",
    "edistance",
    "wasserstein",
    "euclidean",
    "mean_pairwise",
    "mmd",
)
"""The study's nine, in the order of its tables."""


def _r2_of_top(comparison: Comparison, n: int) -> float:
    top = comparison.top_genes(n)
    true, predicted = comparison.resampled_means
    return float(np.mean(correlation(true[top], predicted[top]) ** 2))


def correlation(first: Floats, second: Floats) -> Floats:
    """Pearson correlation along the first axis; 0 where either side is constant."""
    a, b = (side - side.mean(axis=0) for side in (first, second))
    norm_a, norm_b = np.sqrt(_inner(a, a)), np.sqrt(_inner(b, b))
    # What is left of a constant by subtracting its mean is rounding.
    constant = (norm_a <= 1e-12 * np.sqrt(_inner(first, first))) | (norm_b <= 1e-12 * np.sqrt(_inner(second, second)))
    correlation = _inner(a, b) / np.where(constant, 1, norm_a * norm_b)
    return np.where(constant, 0, np.clip(correlation, -1, 1))


def _inner(first: Floats, second: Floats) -> Floats:
    """Inner products along the first axis, in one pass over the numbers."""
    products: Floats = np.einsum("i...,i...->...", first, second)
    return products


def _ratio_of_gaps(comparison: Comparison) -> float:
    """Distance between the true and the predicted mean over that between the control and the predicted mean."""
    cells = comparison.components
    to_truth = distances.mean_gap(cells["truth"], cells["predicted"])
    to_control = distances.mean_gap(cells["control"], cells["predicted"])
    return _divide(to_truth, to_control, zero=ZERO * comparison.scale)


def _divide(numerator: float, denominator: float, *, zero: float) -> float:
    """Divide, taking what does not exceed ``zero`` for 0; x/0 is infinite and 0/0 NaN."""
    numerator, denominator = (0.0 if value <= zero else value for value in (numerator, denominator))
    if denominator == 0:
        return inf if numerator > 0 else nan
    return numerator / denominator


def _transport_caveat(comparison: Comparison) -> str:
    sizes = [cells.n_cells for cells in (comparison.control, comparison.truth, comparison.predicted)]
    if distances.transport_is_exact(*sizes):
        return ""
    return (
        f"estimated from {distances.TRANSPORT_DRAWS} draws of {distances.TRANSPORT_DRAW_CELLS} cells: "
        f"exact up to {distances.EXACT_TRANSPORT_CELLS}"
    )
