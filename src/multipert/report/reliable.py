"""Which genes of a prediction can be relied on: those that go where the true ones go, wherever they respond."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from multipert.benchmark.records import Reference
from multipert.evaluation.calibration import Pooled, welch_test
from multipert.report.summary import DatasetSummary

PLACES = 24
"""Held-out contexts and perturbations that are looked at, at most."""
SIGNIFICANT = 0.05
"""False discovery rate at which a gene responds."""
FACTOR = 2.0
"""A predicted shift within this factor of the true one is as large as it should be."""


@dataclass(frozen=True)
class ReliableGenes:
    """Genes that respond significantly somewhere, from the clearest response.

    Attributes
    ----------
    responding
        How many.
    right_way
        How many of them move the right way wherever they respond.
    reliable
        Those that also move as far as they should, within a factor of 2.
    astray
        Those that move the wrong way, or hardly, wherever they respond.
    """

    responding: int
    right_way: int
    reliable: list[str]
    astray: list[str]


def reliable_genes(summary: DatasetSummary, label: str) -> ReliableGenes | None:
    """Sort the responding genes by whether a model's first seed predicts them; none where none responds."""
    told = []
    for reference, perturbation in summary.places(PLACES):
        trial = summary.trial(label, reference.held_out)
        if trial is not None and perturbation in trial.profiles:
            t, p, true = _response(reference, summary.card.conditions[0], perturbation)
            control = reference.profiles[summary.card.conditions[0]].mean
            moved = trial.profiles[perturbation].mean - control
            part = np.divide(moved, true, out=np.zeros_like(true), where=true != 0)
            table = pd.DataFrame({"clear": np.abs(t), "part": part}, index=list(reference.genes))
            told.append(table[p < SIGNIFICANT])
    table = pd.concat(told) if told else pd.DataFrame()
    if table.empty:
        return None
    of_gene = table.groupby(level=0)
    clear = of_gene["clear"].sum().sort_values(ascending=False, kind="stable")
    least, most = of_gene["part"].min()[clear.index], of_gene["part"].max()[clear.index]
    reliable = (least >= 1 / FACTOR) & (most <= FACTOR)
    return ReliableGenes(
        len(clear),
        int((least > 0).sum()),
        [str(gene) for gene in clear.index[reliable]],
        [str(gene) for gene in clear.index[most < 1 / FACTOR / 2]],
    )


def _response(reference: Reference, control: str, perturbation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Welch's t of each gene, its adjusted p, and the true shift, each (genes,)."""

    def moments(condition: str) -> Pooled:
        cells = reference.profiles[condition]
        return Pooled(reference.n_cells[condition], cells.mean.astype(np.float64), cells.variance.astype(np.float64))

    after, before = moments(perturbation), moments(control)
    return *welch_test(after, before), after.mean - before.mean
