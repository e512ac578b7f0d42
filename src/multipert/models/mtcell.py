"""mtcell: the mean of each gene by stacking what other contexts did, and cells that keep being the cells they were.

1. **Mean.** The mean shift of each gene in a new context is a sum of a few guesses made from the training contexts;
   their coefficients are chosen by predicting each training context from the others (:mod:`.transfer`).
2. **Share.** The share of cells that express each gene is predicted the same way.
3. **Marginal.** Positive values keep the distribution that they have in the control cells, stretched as it was in the
   training contexts.
4. **Cells.** The values go to the cells in the order of the control cells' own: each predicted cell is its control
   cell, moved (:mod:`.cells`).

There is no network and nothing to tune; where the training contexts cannot predict each other the coefficients fall to
zero, and the prediction to no change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from multipert.errors import InputError
from multipert.models.base import Model
from multipert.models.cells import ENOUGH, LEVELS, Marginals, move, positive_quantiles
from multipert.models.registry import register
from multipert.models.transfer import Contexts, Doubles, softmax_weights, stack, terms
from multipert.training import History

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from multipert.data import PerturbationData, Split
    from multipert.models.run_folder import Arrays, Layout
    from multipert.training import TrainerConfig

Rows = npt.NDArray[np.int64]


@register
class MTCell(Model):
    """Predicts each gene's mean by stacking what the training contexts did, and moves each cell there in its own rank.

    ``learnt_`` holds, by (condition, context, gene), ``mean``, ``variance``, ``share`` (of cells that express the
    gene) and ``quantiles`` (of its positive values); ``cells``, (conditions, contexts), how many cells each is of; and
    the coefficients of the terms for means and for shares, ``mean_terms`` and ``share_terms``.
    """

    name = "mtcell"
    title = "each gene's mean stacked from what other contexts did; each cell moved there in its own rank"
    source = "multipert"
    family = "multi-task"
    assumes = "how a context responds can be told from how others did, as these can be told from each other"
    loss = "squared error of the mean shifts of left-out training contexts"

    may_be_nan = ("quantiles",)

    learnt_: Arrays

    @property
    def n_parameters(self) -> int:
        """How many coefficients were chosen."""
        return self.learnt_["mean_terms"].size + self.learnt_["share_terms"].size

    def _learn(
        self, data: PerturbationData, split: Split, config: TrainerConfig, identity: Mapping[str, Any]
    ) -> History:
        # Contexts are left out, not cells: every cell that training may see counts.
        self.learnt_ = gene_moments(data, np.sort(np.concatenate([split.train, split.validation])))
        seen = [self._seen(condition) for condition in range(1, len(data.conditions))]
        for what in ("mean", "share"):
            self.learnt_[f"{what}_terms"] = stack(
                [self._contexts(what, 1 + i, contexts) for i, contexts in enumerate(seen) if len(contexts)]
            )
        return History()

    def _predict(self, X: csr_matrix, groups: Rows, condition: int) -> npt.NDArray[np.float32]:
        contexts = self._seen(condition)
        if len(contexts) == 0:
            raise InputError(
                f"training saw no context with both control cells and cells of "
                f"{self.metadata_.conditions[condition]!r}, so {self.name} cannot tell what it does: choose another "
                "perturbation, or bring such a context"
            )
        predicted = np.empty(X.shape, dtype=np.float32)
        for group in np.unique(groups):
            cells = np.flatnonzero(groups == group)
            # The same chance for a context whether it is predicted alone or among others.
            rng = np.random.default_rng((self.seed, condition))
            predicted[cells] = move(X[cells], self._marginals(X[cells], condition, contexts), rng)
        return predicted

    def _marginals(self, X: csr_matrix, condition: int, contexts: Rows) -> Marginals:
        """What the cells of one context are predicted to have, gene by gene, from their control cells ``X``."""
        control = _moments(X)
        predicted = {}
        for what in ("mean", "share"):
            others = self._contexts(what, condition, contexts)
            guessed = terms(control[what], _noise(control, what, X.shape[0]), others)
            predicted[what] = np.maximum(control[what] + guessed @ self.learnt_[f"{what}_terms"], 0)

        weights = softmax_weights(control["mean"], self._of("mean", 0, contexts), 10.0)
        before, after = (self._of("quantiles", c, contexts) for c in (0, condition))
        enough = [
            self._of("share", c, contexts) * self.learnt_["cells"][c, contexts, None] >= ENOUGH for c in (0, condition)
        ]
        change = np.nan_to_num(_weighted_mean(after - before, weights, enough[0] & enough[1]))
        # Positive values change as far as the mean does of what the training contexts' did.
        shift = weights @ (self._of("mean", condition, contexts) - self._of("mean", 0, contexts))
        followed = _ratio(np.abs(predicted["mean"] - control["mean"]), np.abs(shift)).clip(0, 1)
        elsewhere = _weighted_mean(after, weights, ~np.isnan(after[..., 0]))
        return Marginals(predicted["mean"], predicted["share"].clip(0, 1), followed[:, None] * change, elsewhere)

    def _seen(self, condition: int) -> Rows:
        """The contexts that training saw both with and without a perturbation."""
        cells = self.learnt_["cells"]
        return np.flatnonzero((cells[0] > 0) & (cells[condition] > 0))

    def _of(self, what: str, condition: int, contexts: Rows) -> Doubles:
        values: Doubles = self.learnt_[what][condition, contexts].astype(np.float64)
        return values

    def _contexts(self, what: str, condition: int, contexts: Rows) -> Contexts:
        """Means, or shares, of the genes in training contexts without and with a perturbation."""
        values, noise = [], []
        for c in (0, condition):
            known = {name: self._of(name, c, contexts) for name in ("mean", "variance", "share")}
            values.append(known[what])
            noise.append(_noise(known, what, self.learnt_["cells"][c, contexts, None]))
        return Contexts(*values, *noise)

    def _arrays(self) -> Arrays:
        return self.learnt_

    def _restore(self, arrays: Arrays) -> None:
        self.learnt_ = arrays

    def _layout(self) -> Layout:
        shape = len(self.metadata_.conditions), len(self.metadata_.contexts), len(self.metadata_.genes)
        by_gene: Layout = dict.fromkeys(("mean", "variance", "share"), (shape, "f"))
        coefficients: Layout = {f"{what}_terms": ((None,), "f") for what in ("mean", "share")}
        return {**by_gene, "quantiles": ((*shape, len(LEVELS)), "f"), "cells": (shape[:2], "i"), **coefficients}


def gene_moments(data: PerturbationData, rows: Rows) -> Arrays:
    """Moments of each gene by (condition, context, gene), quantiles of its positive values, and numbers of cells.

    0, and NaN the quantiles, where there are no cells.
    """
    shape = len(data.conditions), len(data.contexts)
    cells = np.zeros(shape, dtype=np.int64)
    found = {what: np.zeros((*shape, len(data.genes)), dtype=np.float32) for what in ("mean", "variance", "share")}
    quantiles = np.full((*shape, len(data.genes), len(LEVELS)), np.nan, dtype=np.float32)
    group = data.condition[rows] * shape[1] + data.context[rows]
    for number in np.unique(group):
        at = divmod(int(number), shape[1])
        members = data.X[rows[group == number]]
        cells[at] = members.shape[0]
        quantiles[at] = positive_quantiles(members)
        for what, values in _moments(members).items():
            found[what][at] = values
    return {**found, "quantiles": quantiles, "cells": cells}


def _moments(X: csr_matrix) -> dict[str, Doubles]:
    """Mean, variance (of the population) and share of positive values of each gene, over cells ``X``."""
    n, n_genes = X.shape
    values = X.data.astype(np.float64)
    mean, square = (np.bincount(X.indices, weights=v, minlength=n_genes) / n for v in (values, values**2))
    share = np.bincount(X.indices, minlength=n_genes) / n
    return {"mean": mean, "variance": np.maximum(square - mean**2, 0), "share": share}


def _noise(moments: Mapping[str, Doubles], what: str, n_cells: npt.NDArray[np.int64] | int) -> Doubles:
    """Sampling variance of a mean, or of a share, over ``n_cells`` cells."""
    variance = moments["variance"] if what == "mean" else moments["share"] * (1 - moments["share"])
    noise: Doubles = variance / np.maximum(np.asarray(n_cells) - 1, 1)
    return noise


def _weighted_mean(values: Doubles, weights: Doubles, known: npt.NDArray[np.bool_]) -> Doubles:
    """Mean over the contexts in which a gene is known, (genes, levels); NaN where it is known in none."""
    weight = weights[:, None] * known
    total = (weight[..., None] * np.where(known[..., None], values, 0)).sum(axis=0)
    mean: Doubles = _ratio(total, weight.sum(axis=0)[:, None], otherwise=np.nan)
    return mean


def _ratio(above: Doubles, below: Doubles, otherwise: float = 0.0) -> Doubles:
    """``above / below``, and ``otherwise`` where nothing is below."""
    ratio: Doubles = np.divide(above, below, out=np.full(np.shape(above), otherwise), where=below > 0)
    return ratio
