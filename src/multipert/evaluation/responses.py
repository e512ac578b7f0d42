"""The response to each perturbation in each context: how large, how reproducible, what contexts have in common.

All responses are differences of mean log-normalised expression from the control cells of the same context. Where two
are compared, each has control cells of its own: shared ones would put their sampling noise on both sides and feign
agreement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd

from multipert.data import PerturbationData
from multipert.data.expression import Floats, Matrix
from multipert.evaluation.populations import Population
from multipert.evaluation.ranking import significant, wilcoxon_scores

SPLITS = 10
"""How often cells are halved."""

REPRODUCIBLE = 0.3
"""Correlation of the response in two halves from which it counts as reproducible."""

LEAST_CELLS = 20
"""Fewest perturbed, and fewest control, cells of which a response is read."""


def each_response(table: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.Series[Any]]]:
    """Go through a table of responses: (context, perturbation) and its row."""
    return cast("Iterator[tuple[tuple[str, str], pd.Series[Any]]]", table.iterrows())


class Responses:
    """The response to each perturbation in each context, whole and in halves.

    Attributes
    ----------
    mean
        (context, perturbation) -> mean response of each gene.
    signal, noise
        (context, perturbation) -> squared length of the response, noise taken off; expected squared length of noise.
    agreement
        (context, perturbation) -> correlation of the responses of two halves, mean of the splits.
    """

    def __init__(self, data: PerturbationData, seed: int) -> None:
        self.data = data
        self.mean: dict[tuple[str, str], Floats] = {}
        self.signal: dict[tuple[str, str], float] = {}
        self.noise: dict[tuple[str, str], float] = {}
        self.agreement: dict[tuple[str, str], float] = {}
        self.genes: dict[tuple[str, str], int] = {}
        rng = np.random.default_rng(seed)
        for context in data.contexts:
            controls = data.X[data.rows(condition=data.control, context=context)]
            if controls.shape[0] < 2:
                continue
            control, halves = Population(controls), _half_means(controls, rng)
            for perturbation in data.perturbations:
                cells = data.X[data.rows(condition=perturbation, context=context)]
                if cells.shape[0] < 2:
                    continue
                place, perturbed = (context, perturbation), Population(cells)
                self.mean[place] = perturbed.mean - control.mean
                noise = perturbed.variance.sum() / perturbed.n_cells + control.variance.sum() / control.n_cells
                self.noise[place] = float(noise)
                self.signal[place] = float(self.mean[place] @ self.mean[place] - noise)
                first, second = _half_means(cells, rng) - halves
                self.agreement[place] = float(np.mean([correlation(*pair) for pair in zip(first, second, strict=True)]))
                self.genes[place] = int(significant(wilcoxon_scores(cells, controls)).sum())

    def others(self, context: str, perturbation: str) -> Floats | None:
        """Mean response to a perturbation in all other contexts; none where it was measured in no other."""
        found = [mean for (where, what), mean in self.mean.items() if what == perturbation and where != context]
        return np.mean(found, axis=0) if found else None

    def shared(self, perturbation: str) -> float:
        """Mean inner product of responses of two contexts over the mean squared length within one."""
        places = [place for place in self.mean if place[1] == perturbation]
        if len(places) < 2:
            return np.nan
        stacked = np.stack([self.mean[place] for place in places])
        products = stacked @ stacked.T
        between = (products.sum() - np.trace(products)) / (len(places) * (len(places) - 1))
        within = float(np.mean([self.signal[place] for place in places]))
        spread = float(np.mean([self.noise[place] for place in places]))
        return float(between / within) if within > 0.1 * spread else np.nan

    def similarity(self) -> pd.DataFrame:
        """Cosine of responses between contexts, over the perturbations that both have, noise taken off."""
        contexts = self.data.contexts
        table = pd.DataFrame(np.nan, index=list(contexts), columns=list(contexts))
        for a in contexts:
            for b in contexts:
                both = [what for where, what in self.mean if where == a and (b, what) in self.mean]
                size_a, size_b = (sum(self.signal[where, what] for what in both) for where in (a, b))
                noise_a, noise_b = (sum(self.noise[where, what] for what in both) for where in (a, b))
                if a == b:
                    table.loc[a, b] = 1.0
                elif both and size_a > 0.1 * noise_a and size_b > 0.1 * noise_b:
                    product = sum(float(self.mean[a, what] @ self.mean[b, what]) for what in both)
                    table.loc[a, b] = float(np.clip(product / np.sqrt(size_a * size_b), -1, 1))
        return table


def _half_means(cells: Matrix, rng: np.random.Generator) -> Floats:
    """Means of two halves in each split, shape (2, splits, genes)."""
    n = cells.shape[0]
    weights = np.zeros((2, SPLITS, n))
    for split in range(SPLITS):
        first, second = np.array_split(rng.permutation(n), 2)
        weights[0, split, first], weights[1, split, second] = 1 / len(first), 1 / len(second)
    means: Floats = (cells.T @ weights.reshape(-1, n).T).T.reshape(2, SPLITS, -1)
    return means


def correlation(first: Floats, second: Floats) -> float:
    """Pearson correlation of two responses; 0 where one is the same in every gene."""
    a, b = first - first.mean(), second - second.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else 0.0
