"""The figures of the page, in their order; the first comes before the tables.

To add one, write its function and name it here.
"""

from collections.abc import Callable, Sequence

from multipert.report.figures.cells import populations, predicted_means, split_map
from multipert.report.figures.doses import half_effective_doses
from multipert.report.figures.dots import dot_plot, gene_differences
from multipert.report.figures.film import film_map
from multipert.report.figures.genes import dose_response, genes_across
from multipert.report.figures.metrics import metrics_across
from multipert.report.figures.panels import Group, Panel, Section
from multipert.report.figures.pilots import pilot_curves
from multipert.report.figures.trials import cost_and_accuracy, training_curves
from multipert.report.summary import DatasetSummary

FIGURES: Sequence[Callable[[DatasetSummary], Section | None]] = (
    genes_across,
    metrics_across,
    predicted_means,
    populations,
    pilot_curves,
    dot_plot,
    gene_differences,
    dose_response,
    half_effective_doses,
    film_map,
    split_map,
    training_curves,
    cost_and_accuracy,
)

__all__ = ["FIGURES", "Group", "Panel", "Section"]
