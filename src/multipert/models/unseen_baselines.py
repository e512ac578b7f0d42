"""Simple baselines for perturbations that training never saw; what they know of a context is its own shifts.

Each fills in the shifts of unseen perturbations from those that training saw in the same context, and moves cells as
the context does whose control cells are most alike. Combinations and doses in between are the baseline ``additive``'s.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multipert.models import effects
from multipert.models.baselines import Doubles, Floats, NearestContext, Rows
from multipert.models.parameters import parameter
from multipert.models.registry import register

if TYPE_CHECKING:
    from multipert.data import PerturbationData
    from multipert.models.run_folder import Arrays


class UnseenBaseline(NearestContext):
    """A baseline that guesses what unseen perturbations do to a context from what others did to it."""

    takes_features = True

    @abstractmethod
    def _guess(self, vectors: Doubles, shifts: Doubles, new: Doubles) -> Doubles:
        """The shifts of unseen perturbations, (new, genes).

        Parameters
        ----------
        vectors, shifts
            (seen, width) and (seen, genes): the condition vectors of the perturbations that were seen in a context, and
            their shifts there. Without features the vectors have no width.
        new
            (new, width) the condition vectors of the others.
        """

    def _learn_from(self, data: PerturbationData, rows: Rows) -> Arrays:
        learnt = super()._learn_from(data, rows)
        return {**learnt, "shifts": self._filled(learnt["shifts"].astype(np.float64))}

    def _describe(self, names: Sequence[str]) -> None:
        shifts = self.learnt_["shifts"]
        new = np.full((len(names), *shifts.shape[1:]), np.nan)
        self.learnt_ = {**self.learnt_, "shifts": self._filled(np.concatenate([shifts, new]))}

    def _filled(self, shifts: Doubles) -> Floats:
        """Shifts, (conditions, contexts, genes), those of perturbations that no context saw filled in."""
        metadata = self.metadata_
        if self.vectors_ is None:
            if not self.predicts_unseen:
                return shifts.astype(np.float32)
            vectors = np.zeros((len(metadata.conditions), 0))
        else:
            members = self.vectors_.of(metadata.conditions, metadata.doses, metadata.conditions[0])
            vectors = members.sum(axis=1, dtype=np.float64)
        known = np.isfinite(shifts[..., 0])
        known[0] = False
        unseen = np.flatnonzero(~known.any(axis=1))[1:]
        for context in np.flatnonzero(known.any(axis=0)):
            seen = np.flatnonzero(known[:, context])
            shifts[unseen, context] = self._guess(vectors[seen], shifts[seen, context], vectors[unseen])
        return shifts.astype(np.float32)


@register
class MeanPerturbation(UnseenBaseline):
    """Predicts that an unseen perturbation does what perturbations do on average."""

    name = "mean-perturbation"
    called = "the mean perturbation"
    title = "each cell plus the mean shift of all training perturbations, where training never saw the one asked for"
    assumes = "an unseen perturbation does what the others do on average"
    predicts_unseen = True

    def _guess(self, vectors: Doubles, shifts: Doubles, new: Doubles) -> Doubles:
        return np.repeat(shifts.mean(axis=0, keepdims=True), len(new), axis=0)


@register
class NearestPerturbation(UnseenBaseline):
    """Predicts that an unseen perturbation does what the seen one does whose features are nearest (Euclidean)."""

    name = "nearest-perturbation"
    called = "the nearest perturbation's shift"
    title = "each cell plus the shift of the training perturbation whose features are nearest"
    assumes = "perturbations with like features do alike"

    def _guess(self, vectors: Doubles, shifts: Doubles, new: Doubles) -> Doubles:
        guessed: Doubles = effects.nearest(vectors, new) @ shifts
        return guessed


@dataclass(frozen=True, kw_only=True)
class LinearPerturbationParameters:
    """What ``linear-perturbation`` can be told."""

    rank: int = parameter(10, "principal components of the training effects that stand for genes", at_least=1)
    ridge: float = parameter(0.1, "ridge penalty on both sides", at_least=0)


@register
class LinearPerturbation(UnseenBaseline):
    """The linear model of Ahlmann-Eltze (2025): effects bilinear in embeddings of genes and of perturbations.

    The genes' are principal components of the training effects, the perturbations' their features; see
    :func:`multipert.models.effects.reduced_rank`.
    """

    name = "linear-perturbation"
    called = "the linear model of effects"
    title = "each cell plus a shift read off features by a reduced-rank ridge regression"
    source = "Ahlmann-Eltze, Huber and Anders (Nature Methods 2025)"
    assumes = "effects are linear in the features of perturbations"
    Parameters = LinearPerturbationParameters

    parameters: LinearPerturbationParameters

    def _guess(self, vectors: Doubles, shifts: Doubles, new: Doubles) -> Doubles:
        p = self.parameters
        return effects.reduced_rank(vectors, shifts, new, rank=p.rank, ridge=p.ridge)


@register
class RidgePerturbation(UnseenBaseline):
    """Predicts unseen effects by ridge regression from features, its penalty and size chosen by leaving out.

    See :func:`multipert.models.effects.regress`.
    """

    name = "ridge-perturbation"
    called = "the ridge regression of effects"
    title = "each cell plus a shift read off features by ridge regression, chosen by leaving perturbations out"
    assumes = "effects are linear in features, as far as left-out training perturbations show it"

    def _guess(self, vectors: Doubles, shifts: Doubles, new: Doubles) -> Doubles:
        guessed: Doubles = effects.regress(vectors, shifts, new).weights @ shifts
        return guessed
