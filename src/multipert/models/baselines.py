"""Simple baselines, fitted in a moment and without a network: what every method has to beat.

All but ``no-change`` rest on shifts: mean perturbed profile minus mean control profile, of one context under one
perturbation. The cells of a context are given a weighted mean of the training contexts' shifts; a baseline says how
much each training context weighs, and ``resample`` also how cells are moved.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from multipert.errors import InputError
from multipert.models.base import Model
from multipert.models.explanation import MeanResponse
from multipert.models.parameters import Range, parameter
from multipert.models.registry import register
from multipert.models.relatives import relatives
from multipert.training import History

if TYPE_CHECKING:
    from multipert.data import PerturbationData, Split
    from multipert.models.run_folder import Arrays, Layout
    from multipert.training import TrainerConfig

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Baseline(Model):
    """A model whose knowledge is a few arrays, kept in ``learnt_``."""

    family: ClassVar[str] = "baseline"
    source: ClassVar[str] = "a simple baseline"

    may_be_nan = ("controls", "shifts", "means")

    learnt_: Arrays

    def _learn(
        self, data: PerturbationData, split: Split, config: TrainerConfig, identity: Mapping[str, Any]
    ) -> History:
        # A baseline has nothing to validate: it looks at every cell that training may see.
        rows = np.concatenate([split.train, split.validation])
        self.learnt_ = self._learn_from(data, np.sort(rows))
        return History()

    def _learn_from(self, data: PerturbationData, rows: Rows) -> Arrays:
        """What is learnt from the cells at ``rows``."""
        return {}

    def _arrays(self) -> Arrays:
        return self.learnt_

    def _restore(self, arrays: Arrays) -> None:
        self.learnt_ = arrays

    def _layout(self) -> Layout:
        return {}


@register
class NoChange(Baseline):
    """Predicts that nothing happens: every cell stays as it is."""

    name = "no-change"
    called = "no change"
    title = "the control cells themselves"
    assumes = "the perturbation does nothing"
    predicts_unseen = True

    def _predict(self, X: csr_matrix, groups: Rows, condition: int) -> Floats:
        unchanged: Floats = X.toarray()
        return unchanged

    def known_response(self, condition: int, context: int) -> MeanResponse:
        """Nothing, of every gene."""
        nothing = np.zeros(len(self.metadata_.genes))
        return MeanResponse(nothing, nothing)


class ShiftBaseline(Baseline):
    """A baseline that moves cells by a weighted mean of the training contexts' mean shifts.

    ``learnt_`` holds ``controls``, (contexts, genes), the mean control profile of each context, and ``shifts``,
    (conditions, contexts, genes); NaN where training saw no cells.
    """

    @abstractmethod
    def _weights(self, centroid: Doubles, controls: Floats) -> Doubles:
        """How much each training context's shift counts, (contexts,), adding up to one.

        Parameters
        ----------
        centroid
            (genes,) mean of the control cells to predict from, all of one context.
        controls
            (contexts, genes) mean control profiles of the contexts that training saw perturbed, one or more.
        """

    def _move(self, X: csr_matrix, condition: int, contexts: Rows, weights: Doubles) -> Floats:
        """Control cells ``X`` (cells, genes) moved by the mean shift of ``contexts`` under ``weights``."""
        shift = weights @ self.learnt_["shifts"][condition, contexts]
        moved: Floats = X.toarray() + shift.astype(np.float32)
        return moved

    def _learn_from(self, data: PerturbationData, rows: Rows) -> Arrays:
        return {"controls": group_means(data, rows)[0], "shifts": mean_shifts(data, rows)}

    def _layout(self) -> Layout:
        shape = len(self.metadata_.conditions), len(self.metadata_.contexts), len(self.metadata_.genes)
        return {"controls": (shape[1:], "f"), "shifts": (shape, "f")}

    def _predict(self, X: csr_matrix, groups: Rows, condition: int) -> Floats:
        contexts = self._seen(condition)
        controls = self.learnt_["controls"][contexts]
        predicted = np.empty(X.shape, dtype=np.float32)
        for group in np.unique(groups):
            cells = np.flatnonzero(groups == group)
            weights = self._weights(mean_profile(X[cells]), controls)
            predicted[cells] = self._move(X[cells], condition, contexts, weights)
        return predicted

    def known_response(self, condition: int, context: int) -> MeanResponse:
        """The context's mean control profile, and that plus the shift, nothing below zero."""
        contexts, control = self._seen(condition), self.learnt_["controls"][context].astype(np.float64)
        weights = self._weights(control, self.learnt_["controls"][contexts])
        shift = weights @ self.learnt_["shifts"][condition, contexts]
        return MeanResponse(control, np.maximum(control + shift, 0))

    def _seen(self, condition: int) -> Rows:
        """The contexts that training saw both with and without a perturbation; one at least."""
        # A context has a shift for all genes or for none.
        contexts: Rows = np.flatnonzero(~np.isnan(self.learnt_["shifts"][condition, :, 0]))
        if len(contexts) == 0:
            perturbation = self.metadata_.conditions[condition]
            raise InputError(
                f"training saw no context with both control cells and cells of {perturbation!r}, "
                f"so {self.name} cannot tell what it does: choose another perturbation, or bring such a context"
            )
        return contexts


@register
class MeanShift(ShiftBaseline):
    """Predicts that a cell moves as the mean of each training context did, contexts counting equally."""

    name = "mean-shift"
    called = "the mean shift"
    title = "each cell plus the mean, over training contexts, of their mean shift"
    assumes = "all contexts move alike"

    def _weights(self, centroid: Doubles, controls: Floats) -> Doubles:
        return np.full(len(controls), 1 / len(controls))


@register
class Additive(MeanShift):
    """Predicts that members of a combination add up, each moving cells by its mean shift over training contexts.

    A combination that training did not see is the sum of its members; a dose that it did not see lies on the line, in
    the logarithm of dose, between its neighbours (:func:`~multipert.models.relatives.relatives`). What training saw is
    predicted as the mean shift does.
    """

    name = "additive"
    called = "the sum of single effects"
    title = "each cell plus the mean shifts of a combination's members; of the neighbours of a dose"
    assumes = "perturbations do not interact, and all contexts move alike"
    predicts_unseen = True

    def _learn_from(self, data: PerturbationData, rows: Rows) -> Arrays:
        learnt = super()._learn_from(data, rows)
        shifts = learnt["shifts"]
        index = {name: place for place, name in enumerate(data.conditions)}
        seen = [name for name in data.perturbations if np.isfinite(shifts[index[name], :, 0]).any()]
        for name in data.perturbations:
            parts = {} if name in seen else relatives(name, seen, data.doses)
            if parts:
                shifts[index[name]] = sum(weight * shifts[index[part]] for part, weight in parts.items())
        return learnt


@register
class NearestContext(ShiftBaseline):
    """Predicts that a cell moves as the training context did whose mean control profile correlates best."""

    name = "nearest-context"
    called = "the nearest context's shift"
    title = "each cell plus the mean shift of the training context with the most similar control cells"
    assumes = "a context moves as the one most like it"

    def _weights(self, centroid: Doubles, controls: Floats) -> Doubles:
        nearest = correlations(centroid, controls).argmax()
        weights: Doubles = np.eye(len(controls))[nearest]
        return weights


@dataclass(frozen=True, kw_only=True)
class LinearParameters:
    """What ``linear`` can be told."""

    ridge: float = parameter(
        1.0,
        "ridge penalty, in units of the contexts' mean squared distance to their common centre",
        at_least=0,
        search=Range(1e-3, 1e3, log=True),
    )


@register
class Linear(ShiftBaseline):
    """Predicts the shift by ridge regression from mean control profile to mean shift, each context one observation.

    In the dual form, for contexts are few and genes many. With ``K`` the inner products of the training contexts'
    profiles, taken from their common centre, and ``k`` those with the cells' own, the n contexts weigh
    ``1 / n + k (K + ridge mean(diag K) I)^-1``. A single context gives its own shift, a large ridge the mean shift.
    """

    name = "linear"
    called = "the linear shift"
    title = "each cell plus a shift read off its context's control profile by ridge regression"
    assumes = "how a context moves is linear in its mean control profile"
    Parameters = LinearParameters

    parameters: LinearParameters

    def _weights(self, centroid: Doubles, controls: Floats) -> Doubles:
        centre = controls.mean(axis=0, dtype=np.float64)
        apart = controls - centre
        K, k = apart @ apart.T, apart @ (centroid - centre)
        penalised = K + self.parameters.ridge * np.diag(K).mean() * np.eye(len(K))
        # Centred profiles depend on each other, so that without a penalty there is no plain inverse.
        weights: Doubles = 1 / len(K) + np.linalg.pinv(penalised, hermitian=True) @ k
        return weights


SHARPNESS = 40.0
"""How fast a context loses weight in ``resample`` as its control cells correlate less with the given ones."""


@register
class Resample(ShiftBaseline):
    """Predicts by exchanging values, gene by gene, until the mean has shifted: cells stay cells.

    Training contexts weigh ``exp(40 (r - max r))``, r the correlation of their mean control profile with the cells'.
    The target mean of a gene is its control mean plus the shift so weighted, at least 0. Where it lies above, a random
    ``share`` of the cells draws a positive value from the perturbed cells of the training contexts (weighted the same),
    whose mean is ``m``: ``(1 - share) control + share m = target``. Where it lies below, a random
    ``share = 1 - target / control`` drops to zero. Other genes stay.

    Beside ``controls`` and ``shifts``, ``learnt_`` holds ``means``, (conditions, contexts, genes), the mean profiles,
    and what :func:`positive_values` gives.
    """

    name = "resample"
    called = "resampling"
    title = "cells exchange values with perturbed training cells until their mean has shifted"
    assumes = "similar contexts move alike, by more or fewer cells expressing a gene"

    def _weights(self, centroid: Doubles, controls: Floats) -> Doubles:
        likeness = correlations(centroid, controls)
        weights: Doubles = np.exp(SHARPNESS * (likeness - likeness.max()))
        weights /= weights.sum()
        return weights

    def _learn_from(self, data: PerturbationData, rows: Rows) -> Arrays:
        return super()._learn_from(data, rows) | {"means": group_means(data, rows)} | positive_values(data, rows)

    def _layout(self) -> Layout:
        shifts = super()._layout()
        shape, _ = shifts["shifts"]
        counted = {"first": (shape, "i"), "count": (shape, "i"), "cells": (shape[:2], "i")}
        return {**shifts, "means": (shape, "f"), "values": ((None,), "f"), **counted}

    def _move(self, X: csr_matrix, condition: int, contexts: Rows, weights: Doubles) -> Floats:
        shifts, values = self.learnt_["shifts"][condition, contexts], self.learnt_["values"]
        first, count = self.learnt_["first"][condition, contexts], self.learnt_["count"][condition, contexts]
        control = mean_profile(X)
        target = np.maximum(control + weights @ shifts, 0)

        # What a draw from the weighted perturbed cells gives: the chance of a positive value of each context, and the
        # mean of positive values, which is the mean of all values over the chance of a positive one.
        positive = (weights / self.learnt_["cells"][condition, contexts])[:, None] * count
        mean = weights @ self.learnt_["means"][condition, contexts]
        drawn = np.divide(mean, positive.sum(axis=0), out=np.zeros_like(mean), where=positive.any(axis=0))

        # A gene that draws could not raise stays; one that they could not raise enough is drawn in every cell.
        up, down = (target > control) & (drawn > control), target < control
        share = np.zeros_like(control)
        share[up] = np.minimum((target[up] - control[up]) / (drawn[up] - control[up]), 1)
        share[down] = 1 - target[down] / control[down]

        # The same draws for a context whether it is predicted alone or among others.
        rng = np.random.default_rng((self.seed, condition))
        # Rounded up as often as its fraction says, so that small shares of few cells are not lost.
        n_exchanged = np.floor(share * X.shape[0] + rng.random(len(share))).astype(np.int64)
        upto = positive.cumsum(axis=0)
        moved: Floats = X.toarray()
        for gene in np.flatnonzero(n_exchanged):
            cells = rng.choice(X.shape[0], n_exchanged[gene], replace=False, shuffle=False)
            if down[gene]:
                moved[cells, gene] = 0
            else:
                source = upto[:, gene].searchsorted(rng.random(len(cells)) * upto[-1, gene], side="right")
                moved[cells, gene] = values[first[source, gene] + rng.integers(count[source, gene])]
        return moved


def group_means(data: PerturbationData, rows: Rows, *, shares: bool = False) -> Floats:
    """Mean profile of each condition in each context, (conditions, contexts, genes); NaN for a group without cells.

    With ``shares``, in place of means the shares of cells that express a gene.
    """
    from multipert.data.expression import row_blocks

    group, sizes = groups_of(data, rows)
    # One sparse product sums every group at once: row g of the indicator picks the cells of group g.
    member = csr_matrix(
        (np.ones(len(rows), dtype=np.float32), (group, rows)), shape=(sizes.size, len(data)), dtype=np.float32
    )
    means: Floats = np.zeros((*sizes.shape, len(data.genes)), dtype=np.float32)
    for here, X in row_blocks(data.X):
        means += (member[:, here] @ (X.sign() if shares else X)).toarray().reshape(means.shape)
    means[sizes == 0] = np.nan
    means /= np.maximum(sizes, 1, dtype=np.float32)[..., None]
    return means


def mean_shifts(data: PerturbationData, rows: Rows, *, shares: bool = False) -> Floats:
    """Mean perturbed profile minus mean control profile, (conditions, contexts, genes); NaN where either is missing.

    With a covariate (donor, batch) the two are compared within each of its levels, and the differences averaged,
    weighted by perturbed cells: ``sum_l n_l (perturbed_l - control_l) / sum_l n_l`` over levels that have both. With
    ``shares``, of the shares of cells that express a gene.
    """
    if not data.covariates:
        means = group_means(data, rows, shares=shares)
        own: Floats = means - means[0]
        return own
    total = np.zeros((len(data.conditions), len(data.contexts), len(data.genes)))
    n_cells = np.zeros(total.shape[:2])
    for level in range(len(data.covariates)):
        here = rows[data.covariate[rows] == level]
        means = group_means(data, here, shares=shares)
        shift = means - means[0]
        weight = np.where(np.isnan(shift[..., 0]), 0, groups_of(data, here)[1])
        total += weight[..., None] * np.nan_to_num(shift)
        n_cells += weight
    total[n_cells == 0] = np.nan
    return (total / np.maximum(n_cells, 1)[..., None]).astype(np.float32)


def positive_values(data: PerturbationData, rows: Rows) -> Arrays:
    """Positive expression values of perturbed cells by condition, context and gene.

    Returns
    -------
    dict
        ``values``, float32, those of a condition, context and gene side by side; ``first`` and ``count``, (conditions,
        contexts, genes), where they begin and how many there are; ``cells``, (conditions, contexts), the number of
        cells they come from (on disk, of a sample). Controls have none.
    """
    perturbed = rows[data.condition[rows] != 0]
    group, cells = groups_of(data, perturbed)
    by_group = [data.sample(one) for one in np.split(perturbed[np.argsort(group, kind="stable")], cells.cumsum()[:-1])]
    cells = np.array([len(one) for one in by_group]).reshape(cells.shape)
    columns = [data.X[members].tocsc() for members in by_group]
    count = np.stack([np.diff(column.indptr) for column in columns]).astype(np.int64)
    first = (count.cumsum() - count.ravel()).reshape(*cells.shape, -1)
    values = np.concatenate([column.data for column in columns])
    return {"values": values, "first": first, "count": count.reshape(first.shape), "cells": cells}


def groups_of(data: PerturbationData, rows: Rows) -> tuple[Rows, Rows]:
    """Number the (condition, context) groups of cells: (cells,) flat group, and (conditions, contexts) sizes."""
    shape = len(data.conditions), len(data.contexts)
    group = data.condition[rows] * shape[1] + data.context[rows]
    return group, np.bincount(group, minlength=shape[0] * shape[1]).reshape(shape)


def mean_profile(X: csr_matrix) -> Doubles:
    """Mean of cells ``X`` (cells, genes), (genes,)."""
    mean: Doubles = np.asarray(X.mean(axis=0, dtype=np.float64)).ravel()
    return mean


def correlations(profile: Doubles, profiles: Floats) -> Doubles:
    """Pearson correlation of a profile (genes,) with each of ``profiles`` (n, genes), (n,); 0 with a constant one."""
    one, many = profile - profile.mean(), profiles - profiles.mean(axis=1, keepdims=True, dtype=np.float64)
    size = np.linalg.norm(many, axis=1) * np.linalg.norm(one)
    correlation: Doubles = np.divide(many @ one, size, out=np.zeros(len(many)), where=size > 0)
    return correlation
