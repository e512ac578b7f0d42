"""A metric in one function."""

import numpy as np

from multipert.evaluation import Comparison, metric


@metric(
    better="low",
    range=(0, 1),
    meaning="share of genes that are silent in the true cells or in the predicted ones, and not in both",
    source="an example of a metric from outside",
)
def silent_genes(comparison: Comparison) -> float:
    """Share of genes that no cell of one population expresses, and some cell of the other."""
    true, predicted = (cells.mean > 0 for cells in (comparison.truth, comparison.predicted))
    return float(np.mean(true != predicted))
