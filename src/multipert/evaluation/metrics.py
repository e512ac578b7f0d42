"""Our metrics, beside the study's nine.

All read log-normalised cells of one held-out context and one perturbation. Answers where a definition has none:

- no correlation is defined (a shift that is the same in every gene, as the shift of a prediction that equals control):
  0, nothing of the truth is explained;
- nothing to score (no gene responds significantly; no true effect to compare with): NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan

import numpy as np
from scipy.spatial.distance import cdist

from multipert.data.expression import Floats, Integers
from multipert.evaluation import distances
from multipert.evaluation.populations import Comparison
from multipert.evaluation.ranking import significant
from multipert.evaluation.registry import metric, metric_of_several
from multipert.evaluation.study_metrics import DISTANCE_METRICS, ZERO, correlation

LEAST_GENES = 10
"""Fewest significant genes whose directions, or sizes, say something."""


@metric(
    better="low",
    range=(-inf, inf),
    meaning="energy distance between true and predicted cells, 50 components; about 0 for equal populations",
    source="Székely and Rizzo 2013, U-statistic",
    space="components",
    group=DISTANCE_METRICS,
    shares_control=True,
)
def edist(comparison: Comparison) -> float:
    """``2 E|x-y| - E|x-x'| - E|y-y'|``, Euclidean, self-pairs left out."""
    return _energy(comparison, scaled=False)


@metric(
    better="low",
    range=(-inf, inf),
    meaning="that energy distance over the one between true and control cells; below 1 beats predicting no change",
    source="this project",
    space="components",
    shares_control=True,
)
def edist_vs_control(comparison: Comparison) -> float:
    """``edist`` over the energy distance of true to control cells; NaN where the latter shows no effect (not > 0)."""
    effect = (
        2 * comparison.mean_distance("control", "truth")
        - comparison.mean_distance("control", "control")
        - comparison.mean_distance("truth", "truth")
    )
    return edist(comparison) / effect if effect > ZERO * comparison.scale else nan


@metric(
    better="low",
    range=(-2, 2),
    meaning="squared maximum mean discrepancy (Gaussian kernels) of true and predicted cells, 50 components",
    source="Gretton et al. 2012, U-statistic, median heuristic",
    space="components",
    shares_control=True,
)
def mmd_rbf(comparison: Comparison) -> float:
    """See ``distances.kernel_discrepancy``."""
    cells = comparison.components
    return distances.kernel_discrepancy(cells["truth"], cells["predicted"], seed=comparison.seed)


@metric(
    better="low",
    range=(-inf, inf),
    meaning="as edist, every expressed gene on one scale: prefers the right population to the right few genes",
    source="edist; scaled as scanpy.pp.scale(max_value=10)",
    space="components",
    shares_control=True,
)
def edist_scaled(comparison: Comparison) -> float:
    """``edist`` in the components of genes in units of their standard deviation, cut at 10; see ``standardised``."""
    return _energy(comparison, scaled=True)


@metric(
    better="low",
    range=(-2, 2),
    meaning="as mmd_rbf, every expressed gene on one scale",
    source="mmd_rbf; scaled as scanpy.pp.scale(max_value=10)",
    space="components",
    shares_control=True,
)
def mmd_rbf_scaled(comparison: Comparison) -> float:
    """``mmd_rbf`` in those components."""
    cells = comparison.scaled_components
    return distances.kernel_discrepancy(cells["truth"], cells["predicted"], seed=comparison.seed)


@metric(
    better="high",
    range=(-1, 1),
    meaning="correlation of predicted and true mean shift from control, all genes",
    source="Roohani et al. 2024 (GEARS)",
    shares_control=True,
    guess="others",
)
def pearson_delta(comparison: Comparison) -> float:
    """Pearson correlation of (mean predicted - mean control) with (mean true - mean control)."""
    return float(correlation(comparison.true_shift, comparison.predicted_shift))


@metric(
    better="high",
    range=(-1, 1),
    meaning="the same over the 100 genes that respond most (Wilcoxon)",
    source="Roohani et al. 2024 (GEARS)",
    shares_control=True,
    guess="others",
)
def pearson_delta_deg100(comparison: Comparison) -> float:
    """``pearson_delta`` over the top 100 genes by Wilcoxon score, true against control cells."""
    top = comparison.top_genes(100)
    return float(correlation(comparison.true_shift[top], comparison.predicted_shift[top]))


@metric(
    better="low",
    range=(0, inf),
    meaning="squared error of the mean profile, mean over genes",
    source="textbook",
    guess="others",
)
def mse(comparison: Comparison) -> float:
    """``mean_g (mean predicted - mean true)^2``."""
    return float(np.mean((comparison.predicted.mean - comparison.truth.mean) ** 2))


@metric(
    better="low",
    range=(0, inf),
    meaning="squared error of the mean profile, genes weighted by how clearly they respond (|t|)",
    source="Mejia et al. 2025, weights normalised to sum 1",
    guess="others",
)
def wmse(comparison: Comparison) -> float:
    """``sum_g w_g (mean predicted - mean true)^2``, ``w = |t| / sum |t|``, t by Welch, true against control cells.

    An infinite t counts as the largest finite one (as 1 when there is none); without any response the weights are
    equal.
    """
    weights = np.abs(comparison.welch_truth)
    finite = weights[np.isfinite(weights)]
    weights = np.where(np.isfinite(weights), weights, finite.max(initial=0) or 1)
    errors = (comparison.predicted.mean - comparison.truth.mean) ** 2
    return float(np.average(errors, weights=weights)) if weights.any() else float(errors.mean())


@metric(
    better="high",
    range=(0, 1),
    meaning="share of right directions among the 100 genes that respond most, as far as they respond significantly",
    source="this project",
    shares_control=True,
    caveat=lambda comparison: _few_responding(comparison),
    guess="others",
)
def sign_deg100(comparison: Comparison) -> float:
    """Share of genes whose mean moves from control the way the true mean does.

    The genes are those of the top 100 that respond significantly (Wilcoxon, false discovery rate 5 %); NaN where they
    are fewer than ``LEAST_GENES``, since the sign of a gene that does not respond is that of noise. A gene that is
    predicted not to move is wrong.
    """
    genes = _responding(comparison, 100)
    if len(genes) < LEAST_GENES:
        return nan
    return float(np.mean(np.sign(comparison.true_shift[genes]) == np.sign(comparison.predicted_shift[genes])))


@metric(
    better="one",
    range=(-inf, inf),
    meaning="size of the predicted response: slope of predicted on true mean shift, genes that respond significantly; "
    "0 is no response",
    source="this project: least squares through the origin",
    shares_control=True,
    caveat=lambda comparison: _too_few(int(significant(comparison.wilcoxon_truth).sum())),
)
def amplitude(comparison: Comparison) -> float:
    """``sum_g p_g t_g / sum_g t_g^2`` of predicted (p) and true (t) mean shift.

    The genes are all that respond significantly (Wilcoxon, false discovery rate 5 %); NaN where they are fewer than
    ``LEAST_GENES``.
    """
    genes = significant(comparison.wilcoxon_truth)
    true, predicted = comparison.true_shift[genes], comparison.predicted_shift[genes]
    return float(predicted @ true / (true @ true)) if len(true) >= LEAST_GENES else nan


@metric(
    better="high",
    range=(0, 1),
    meaning="share of truly responding genes (Wilcoxon, false discovery rate 5 %) found, in the right direction",
    source="scanpy.tl.rank_genes_groups; Benjamini and Hochberg 1995",
    shares_control=True,
)
def de_recall(comparison: Comparison) -> float:
    """Share of significant genes, true against control cells, that predicted against control cells call too."""
    true, predicted = comparison.wilcoxon_truth, comparison.wilcoxon_predicted
    responding = significant(true)
    found = responding & significant(predicted) & (np.sign(true) == np.sign(predicted))
    return float(found.sum() / responding.sum()) if responding.any() else nan


@metric(
    better="one",
    range=(0, inf),
    meaning="predicted over true variance, median over the 100 genes that respond most; 0 is a collapsed prediction",
    source="this project",
)
def variance_ratio(comparison: Comparison) -> float:
    """Median over the top-100 genes of predicted / true variance; genes of no true variance are left out."""
    top = comparison.top_genes(100)
    true, predicted = comparison.truth.variance[top], comparison.predicted.variance[top]
    # Rounding leaves a variance that should be 0 on either side of it.
    varies = true > ZERO * comparison.truth.mean[top] ** 2
    return float(np.median(np.maximum(predicted[varies], 0) / true[varies])) if varies.any() else nan


@metric(
    better="low",
    range=(0, inf),
    meaning="1-D Wasserstein distance of single-gene distributions, mean over the 20 genes that respond most",
    source="textbook: the area between two cumulative distributions",
)
def gene_wasserstein(comparison: Comparison) -> float:
    """Mean over the top 20 genes of the Wasserstein-1 distance between true and predicted values."""
    top = comparison.top_genes(20)
    return float(
        np.mean(distances.gene_transport_distances(comparison.truth.columns(top), comparison.predicted.columns(top)))
    )


@metric(
    better="low",
    range=(-inf, inf),
    meaning="error of gene-gene covariances of the 100 most variable genes; 0 as in the truth, 1 as if genes were "
    "independent",
    source="this project; after the cell_cov_* of cell-eval2, as a U-statistic (Li and Chen 2012)",
    caveat=lambda comparison: (
        "cannot tell: the true cells show no covariance beyond noise" if _covariances(comparison) is None else ""
    ),
)
def covariance_distance(comparison: Comparison) -> float:
    """``sum (C_true - C_predicted)^2 / sum C_true^2`` over pairs of different genes.

    C is the covariance of the 100 genes that vary most among the true cells, each in units of its standard deviation
    there. The sums are rid of what sampling adds to a squared covariance, so that equal populations score 0 on average
    at any size, and one whose values were exchanged between cells, gene by gene, scores 1; slightly negative is
    possible. NaN where the covariances of the truth do not stand out of what independent genes would show (by twice
    the standard deviation of that).
    """
    structure = _covariances(comparison)
    if structure is None or comparison.predicted.n_cells < 2:
        return nan
    genes, spread, true = structure
    predicted = comparison.predicted.columns(genes) / spread
    size = distances.squared_covariance(true)
    both = 2 * distances.product_of_covariances(true, predicted)
    return (size + distances.squared_covariance(predicted) - both) / size


@metric_of_several(
    better="high",
    range=(-1, 1),
    meaning="correlation of predicted and true mean after both are centred on the mean of the other perturbations",
    source="Vinas Torne et al. 2025 (Systema); scperteval pearson_pert",
    guess="control",
)
def perturbed_pearson(comparisons: Sequence[Comparison]) -> Floats:
    """Pearson correlation of (mean predicted - r) with (mean true - r), for each of n perturbations.

    r is the mean of the other perturbations' true means: what perturbed cells have in common, which control lacks, is
    no merit of a prediction. NaN for a single perturbation.
    """
    if len(comparisons) < 2:
        return np.full(len(comparisons), nan)
    true = np.stack([comparison.truth.mean for comparison in comparisons])
    predicted = np.stack([comparison.predicted.mean for comparison in comparisons])
    others = (true.sum(axis=0) - true) / (len(comparisons) - 1)
    return correlation((true - others).T, (predicted - others).T)


@metric_of_several(
    better="high",
    range=(0, 1),
    meaning="how near (Euclidean) the predicted mean is to its own true one, among those of all perturbations; "
    "chance 0.5",
    source="Wu et al. 2024 (PerturBench), rank metric; the centroid accuracy of Systema; scperteval nir",
    guess="all",
)
def discrimination(comparisons: Sequence[Comparison]) -> Floats:
    """``1 - rank / (n - 1)`` for each of n perturbations.

    The rank of a perturbation is the number of others whose true mean lies nearer (Euclidean, all genes) to its
    predicted one; a tie counts half. NaN for a single perturbation. (Of shifts from control the ranks are the same.)
    """
    if len(comparisons) < 2:
        return np.full(len(comparisons), nan)
    true, predicted = (
        np.stack([population.mean for population in populations])
        for populations in zip(*((one.truth, one.predicted) for one in comparisons), strict=True)
    )
    gaps = cdist(predicted, true)
    own = np.diag(gaps)[:, None]
    ranks = (gaps < own).sum(axis=1) + ((gaps == own).sum(axis=1) - 1) / 2
    scores: Floats = 1 - ranks / (len(comparisons) - 1)
    return scores


def _covariances(comparison: Comparison) -> tuple[Integers, Floats, Floats] | None:
    """The most variable genes of the truth, their standard deviations, and the true cells in units of these.

    None where their covariances are those of independent genes.
    """
    genes = np.argsort(-comparison.truth.variance, kind="stable")[:100]
    true = comparison.truth.columns(genes)
    spread = true.std(axis=0)
    varies = spread > ZERO * np.abs(true).max(axis=0, initial=0)
    n, p = len(true), int(varies.sum())
    if n < 2 or p < 2:
        return None
    true = true[:, varies] / spread[varies]
    # Of independent genes of variance 1, a squared covariance has variance 2 / n^2, and each counts twice.
    if distances.squared_covariance(true) <= 2 * 2 * np.sqrt(p * (p - 1)) / n:
        return None
    return genes[varies], spread[varies], true


def _responding(comparison: Comparison, n: int) -> Integers:
    """Those of the top ``n`` genes by Wilcoxon score that are significant."""
    top = comparison.top_genes(n)
    genes: Integers = top[significant(comparison.wilcoxon_truth)[top]]
    return genes


def _few_responding(comparison: Comparison) -> str:
    return _too_few(len(_responding(comparison, 100)))


def _too_few(n: int) -> str:
    return f"cannot tell: {n} genes respond significantly, {LEAST_GENES} are needed" if n < LEAST_GENES else ""


def _energy(comparison: Comparison, *, scaled: bool) -> float:
    between = comparison.mean_distance("truth", "predicted", scaled=scaled)
    within = [comparison.mean_distance(role, role, scaled=scaled) for role in ("truth", "predicted")]
    return 2 * between - sum(within)
