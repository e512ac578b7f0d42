"""mtcell: the mean of each gene by stacking what other contexts did, and cells that keep being the cells they were.

1. **Mean.** The mean shift of each gene in a new context is a sum of a few guesses made from the training contexts;
   their coefficients are chosen by predicting each training context from the others (:mod:`.transfer`). What is missed
   there in the same way everywhere is added (:mod:`.correction`).
2. **Share.** The share of cells that express each gene is predicted the same way. From the errors made with left-out
   contexts come intervals, and the prior that a pilot of a few perturbed cells updates (:mod:`.posterior`).
3. **Marginal.** Positive values keep the distribution that they have in the control cells, stretched as it was in the
   training contexts.
4. **Cells.** The values go to the cells in the order of the control cells' own: each predicted cell is its control
   cell, moved (:mod:`.cells`).

Unless asked for there is no network (:mod:`.member`) and nothing to tune; where the training contexts cannot predict
each other the coefficients fall to zero, and the prediction to no change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from multipert.errors import InputError
from multipert.models.base import Model
from multipert.models.cells import ENOUGH, LEVELS, Marginals, move
from multipert.models.correction import DEPTH, Trees, correct, features
from multipert.models.effects import kind_among, put_together, without_noise
from multipert.models.explanation import LEVEL, MeanResponse
from multipert.models.familiarity import FAR, described
from multipert.models.member import NONE, Member, MemberParameters, shift
from multipert.models.moments import Moments, gene_moments, moments, sampling_variance
from multipert.models.posterior import (
    KNOTS,
    Experience,
    expected_squares,
    half_width,
    look_back,
    pilot_noise,
    update,
    variance,
)
from multipert.models.questions import Answer, Question
from multipert.models.registry import register
from multipert.models.run_folder import check_arrays
from multipert.models.transfer import (
    OF_NOISE,
    Contexts,
    Doubles,
    LeftOut,
    from_one,
    leave_each_out,
    softmax_weights,
    stack,
    terms,
)
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
    gene) and ``quantiles`` (of its positive values); ``cells``, (conditions, contexts), how many cells each is of; the
    coefficients of the terms for means and for shares, ``mean_terms`` and ``share_terms``; and for each condition what
    leaving out contexts showed, such as ``mean_squares`` (see :class:`~multipert.models.posterior.Experience`).
    """

    name = "mtcell"
    title = "each gene's mean stacked from what other contexts did; each cell moved there in its own rank"
    source = "multipert"
    family = "multi-task"
    assumes = "how a context responds can be told from how others did, as these can be told from each other"
    loss = "squared error of the mean shifts of left-out training contexts"

    predicts_unseen = True
    learns_from_pilot = True
    gives_intervals = True
    takes_features = True
    may_be_nan = ("quantiles",)
    Parameters = MemberParameters

    learnt_: Arrays
    member_: Member | None = None

    @property
    def n_parameters(self) -> int:
        """How many coefficients were chosen, and answers of trees; and what training moved in a member."""
        own = sum(self.learnt_[f"{what}_{name}"].size for what in ("mean", "share") for name in ("terms", "values"))
        return own + (self.member_.network.n_parameters if self.member_ else 0)

    def _learn(
        self, data: PerturbationData, split: Split, config: TrainerConfig, identity: Mapping[str, Any]
    ) -> History:
        # Contexts are left out, not cells: every cell that training may see counts.
        self.learnt_ = gene_moments(data, split.visible)
        self.learnt_["unseen"] = np.array([], dtype=np.int64)
        self.learnt_["unseen_squares"] = np.zeros((0, len(data.genes)))
        unseen = [name for c, name in enumerate(data.conditions) if c and not self.learnt_["cells"][c].any()]
        self._put_together(unseen)
        self._stack(["mean", "share"])
        self.member_ = None
        if self.parameters.member != NONE:
            self.member_ = Member.fit(self, data, split, config)
        if self.member_ is None:
            return History()
        network = self.member_.network
        self.device_, self.precision_ = network.device_, network.precision_
        return network.history_

    def _stack(self, values: Iterable[str]) -> None:
        """Learn, for means or shares, how to carry them over, from the training contexts' moments."""
        conditions = range(len(self.metadata_.conditions))
        for what in values:
            left_out = self._leave_out(what, conditions)
            seen = [one for c, one in zip(conditions, left_out, strict=True) if c not in self.learnt_["unseen"]]
            alone = (self._contexts(what, c, self._seen(c)) for c in conditions[1:] if c not in self.learnt_["unseen"])
            coefficients = self.learnt_[f"{what}_terms"] = stack(seen) if any(seen) else from_one(alone)
            trees = correct(seen, coefficients)
            self.learnt_ |= {f"{what}_{name}": values for name, values in vars(trees).items()}
            self.learnt_ |= self._look_back(what, left_out)

    def _leave_out(self, what: str, conditions: Iterable[int]) -> list[list[LeftOut]]:
        """For each condition the contexts in which it was seen or put together, left out in turn; none of controls."""
        return [leave_each_out(self._contexts(what, c, self._seen(c))) if c else [] for c in conditions]

    def _look_back(self, what: str, left_out: Sequence[Sequence[LeftOut]]) -> Arrays:
        """What the left-out contexts of each condition show."""
        coefficients = self.learnt_[f"{what}_terms"]
        shown = [look_back(one, coefficients) if one else None for one in left_out]
        return _as_arrays(what, shown, len(self.metadata_.genes))

    def _describe(self, names: Sequence[str]) -> None:
        before, shape = len(self.metadata_.conditions) - len(names), (len(names), len(self.metadata_.contexts))
        more = {what: np.zeros((*shape, len(self.metadata_.genes))) for what in ("mean", "variance", "share")}
        more["cells"] = np.zeros(shape)
        more["quantiles"] = np.full((*more["mean"].shape, len(LEVELS)), np.nan)
        self.learnt_ = {**self.learnt_, **{what: _under(self.learnt_[what], rows) for what, rows in more.items()}}
        self._put_together(names)
        for what in ("mean", "share"):
            shown = self._look_back(what, self._leave_out(what, range(before, before + len(names))))
            self.learnt_ |= {name: _under(self.learnt_[name], rows) for name, rows in shown.items()}

    def _put_together(self, names: Sequence[str]) -> None:
        """Fill in perturbations that training never saw from those it did, and note which, and how far it errs."""
        metadata, cells = self.metadata_, self.learnt_["cells"]
        index = {name: i for i, name in enumerate(metadata.conditions)}
        seen = [
            name
            for name in metadata.conditions[1:]
            if len(self._seen(index[name])) and index[name] not in self.learnt_["unseen"]
        ]
        if not names or not seen:
            return
        rows = np.array([index[name] for name in seen])
        of = [self._contexts("mean", row, self._seen(row)) for row in rows]
        shifts = np.stack([(contexts.perturbed - contexts.control).mean(axis=0) for contexts in of])
        told = put_together(names, seen, shifts, metadata.doses, self.vectors_)
        for context in np.flatnonzero(cells[0] > 0).tolist() if told else ():
            there = cells[rows, context] > 0
            if there.any():
                smooth = self._without_noise(rows[there], context)
                for name, one in told.items():
                    # Where hardly anything is missing of what it is made of.
                    if np.abs(one.weights[~there]).sum() <= MISSING * np.abs(one.weights).sum():
                        self._fill(index[name], context, rows[there], one.weights[there] @ smooth)
        filled = [name for name in told if cells[index[name]].any()]
        squares = np.array([told[name].squares for name in filled]).reshape(len(filled), len(metadata.genes))
        self.learnt_["unseen"] = np.concatenate([self.learnt_["unseen"], [index[name] for name in filled]]).astype(int)
        self.learnt_["unseen_squares"] = np.concatenate([self.learnt_["unseen_squares"], squares])

    def _without_noise(self, conditions: Rows, context: int) -> Doubles:
        """The weights, (conditions, conditions), by which shifts in a context lose their noise."""
        seen = {what: self.learnt_[what][conditions, context].astype(np.float64) for what in ("mean", "variance")}
        n_cells = self.learnt_["cells"][conditions, context, None]
        return without_noise(seen["mean"] - self.learnt_["mean"][0, context], sampling_variance(seen, "mean", n_cells))

    def _fill(self, condition: int, context: int, parts: Rows, weights: Doubles) -> None:
        """Write down a perturbation in a context as the weighted sum of the shifts of others there."""
        for what in ("mean", "share", "quantiles"):
            control, others = self.learnt_[what][0, context], self.learnt_[what][parts, context]
            total = control + np.tensordot(weights, np.nan_to_num(others - control), 1)
            self.learnt_[what][condition, context] = np.clip(total, 0, 1 if what == "share" else None)
        # As many cells as count, and the variance of one that gives the sum its sampling noise.
        variance, cells = self.learnt_["variance"][:, context], self.learnt_["cells"][:, context]
        squares = weights**2
        n = max(1, round(squares.sum() / max((squares / cells[parts]).sum(), 1e-300)))
        noise = (squares / cells[parts]) @ variance[parts] + (1 - weights.sum()) ** 2 * variance[0] / cells[0]
        variance[condition], cells[condition] = n * noise, n

    def _predict(self, X: csr_matrix, groups: Rows, condition: int) -> npt.NDArray[np.float32]:
        return self._answer(Question(X, groups, (), condition)).cells

    def _answer(self, question: Question) -> Answer:
        condition, contexts = question.condition, self._seen(question.condition)
        name = self.metadata_.conditions[condition]
        if len(contexts) == 0:
            raise InputError(
                f"training saw no context with both control cells and cells of {name!r}, so {self.name} cannot tell "
                "what it does: choose another perturbation, or bring such a context"
            )
        predicted, intervals, notes = np.empty(question.X.shape, dtype=np.float32), [], self._doubts(condition)
        for group in np.unique(question.groups):
            cells = np.flatnonzero(question.groups == group)
            X = question.X[cells]
            place = question.contexts[group] if question.contexts else None
            control = moments(X)
            far, asked = self._far(control, len(cells)), self._asks_member(condition)
            network = shift(asked.network, X, condition) if asked else None
            if far > FAR:
                notes.append(f"{described(far)}: the response is scaled by {FAR / far:.2f}")
            means, shares = (
                self._carry(what, control, len(cells), condition, place, question.pilot, FAR / far, network)
                for what in ("mean", "share")
            )
            # The same chance for a context whether it is predicted alone or among others.
            rng = np.random.default_rng((self.seed, condition))
            marginals = self._marginals(control, means[0], shares[0].clip(0, 1), condition, contexts)
            predicted[cells] = move(X, marginals, rng)
            if question.level is not None:
                width = half_width(means[1], int(self.learnt_["mean_left_out"][condition]), question.level)
                intervals.append(np.stack([np.maximum(means[0] - width, 0), means[0] + width], axis=1))
        return Answer(predicted, np.stack(intervals) if intervals else None, tuple(notes))

    def _far(self, control: Moments, n_cells: int) -> float:
        """How far such control cells lie from those of training, at least ``FAR``; a response is divided by it."""
        return max(self.controls_.distance(control["mean"], sampling_variance(control, "mean", n_cells)), FAR)

    def known_response(self, condition: int, context: int) -> MeanResponse:
        """The means carried over to a context that training saw, with intervals."""
        control: Moments = {what: self._of(what, 0, np.array([context]))[0] for what in ("mean", "variance", "share")}
        n_cells = int(self.learnt_["cells"][0, context])
        if n_cells == 0:
            unknown = np.full(len(self.metadata_.genes), np.nan)
            return MeanResponse(unknown, unknown)
        held_back = FAR / self._far(control, n_cells)
        place = self.metadata_.contexts[context]
        asked = self._asks_member(condition)
        network = asked.shifts[condition, context] if asked else None
        means, variances = self._carry("mean", control, n_cells, condition, place, None, held_back, network)
        width = half_width(variances, int(self.learnt_["mean_left_out"][condition]), LEVEL)
        return MeanResponse(control["mean"], means, width)

    def _asks_member(self, condition: int) -> Member | None:
        """The member, where it has a say in a perturbation: it knows those alone that it saw."""
        return self.member_ if self.member_ and condition not in self.learnt_["unseen"] else None

    def _carry(
        self,
        what: str,
        control: Moments,
        n_cells: int,
        condition: int,
        place: str | None,
        pilot: csr_matrix | None,
        held_back: float,
        network: npt.NDArray[np.floating] | None,
    ) -> tuple[Doubles, Doubles]:
        """The mean, or the share, of each gene under a perturbation, and its variance, from the controls' moments.

        ``place`` is the name of the context, if it has one: what training saw there is believed as a pilot is.
        ``network`` is the member's shift, if it is asked.
        """
        contexts = self._seen(condition)
        own = np.array([self.metadata_.contexts[k] == place for k in contexts])
        everywhere, noise = self._contexts(what, condition, contexts), sampling_variance(control, what, n_cells)
        shift, variances = np.zeros_like(noise), np.full_like(noise, np.inf)
        if own.any() and condition in self.learnt_["unseen"]:
            # Elsewhere it was put together of the same others: these contexts add nothing.
            everywhere, own = everywhere.of(own), own[own]
        if not own.all():
            others = everywhere.of(~own)
            experience, coefficients = self._experience(what, condition), self.learnt_[f"{what}_terms"]
            guessed = terms(control[what], noise, others)
            missed = self._trees(what)(features(control[what], guessed, coefficients, others))
            response = held_back * experience.trust * (guessed @ (coefficients * ~OF_NOISE) + missed)
            corrected = np.maximum(control[what] + response + guessed @ (coefficients * OF_NOISE), 0)
            shift = corrected - control[what]
            if what == "mean" and network is not None and self.member_:
                apart = np.maximum(control[what] + network, 0) - corrected
                shift = shift + held_back * self.member_.weight * apart
            variances = variance(expected_squares(response, control[what], noise, others), experience)
        if own.any():
            here = everywhere.of(own)
            seen, heard = here.perturbed[0] - here.control[0], here.perturbed_noise[0] + here.control_noise[0]
            shift, variances = (seen, heard) if own.all() else update(shift, variances, seen, heard)
        if what == "mean" and condition in self.learnt_["unseen"]:
            # What putting together errs by is the same in all contexts: they do not tell of it.
            variances = variances + self.learnt_["unseen_squares"][self.learnt_["unseen"] == condition][0]
        if pilot is not None and pilot.shape[0] > 0:
            found = moments(pilot)
            weights = softmax_weights(control["mean"], self._of("mean", 0, contexts), 10.0)
            spread = weights @ sampling_variance({w: self._of(w, condition, contexts) for w in found}, what, 2)
            heard = pilot_noise(sampling_variance(found, what, 2), spread, pilot.shape[0])
            shift, variances = update(shift, variances, found[what] - control[what], heard)
        return np.maximum(control[what] + shift, 0), variances

    def _doubts(self, condition: int) -> list[str]:
        """What there is to say against any prediction of a perturbation."""
        name, contexts, experience = (
            self.metadata_.conditions[condition],
            self._seen(condition),
            self._experience("mean", condition),
        )
        doubts = []
        if condition in self.learnt_["unseen"]:
            seen = [one for c, one in enumerate(self.metadata_.conditions) if c and c not in self.learnt_["unseen"]]
            kind = kind_among(name, seen, self.metadata_.doses)
            beyond = (
                f", an extrapolation: it lies {kind} every dose that was seen" if kind in ("below", "above") else ""
            )
            doubts.append(
                f"training saw no cell of {name!r}: its shifts were put together from those of others{beyond}"
            )
        if len(contexts) == 1:
            only = self.metadata_.contexts[contexts[0]]
            doubts.append(f"{name!r} was seen in one context only ({only!r}): how far others differ cannot be told")
        elif experience.trust < 1:
            doubts.append(
                f"left-out training contexts were predicted hardly better under {name!r} than by no change: the "
                f"response is scaled by {experience.trust:.2f}"
            )
        return doubts

    def _marginals(self, control: Moments, mean: Doubles, share: Doubles, condition: int, contexts: Rows) -> Marginals:
        """What the cells of a context shall have, gene by gene, given mean and share."""
        weights = softmax_weights(control["mean"], self._of("mean", 0, contexts), 10.0)
        before, after = (self._of("quantiles", c, contexts) for c in (0, condition))
        enough = [
            self._of("share", c, contexts) * self.learnt_["cells"][c, contexts, None] >= ENOUGH for c in (0, condition)
        ]
        change = np.nan_to_num(_weighted_mean(after - before, weights, enough[0] & enough[1]))
        # Positive values change as far as the mean does of what the training contexts' did.
        shift = weights @ (self._of("mean", condition, contexts) - self._of("mean", 0, contexts))
        followed = _ratio(np.abs(mean - control["mean"]), np.abs(shift)).clip(0, 1)
        elsewhere = _weighted_mean(after, weights, ~np.isnan(after[..., 0]))
        return Marginals(mean, share, followed[:, None] * change, elsewhere)

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
            noise.append(sampling_variance(known, what, self.learnt_["cells"][c, contexts, None]))
        return Contexts(*values, *noise)

    def _experience(self, what: str, condition: int) -> Experience:
        kept = {name: self.learnt_[f"{what}_{name}"][condition] for name in EXPERIENCE}
        return Experience(int(kept.pop("left_out")), *kept.values())

    def _trees(self, what: str) -> Trees:
        return Trees(*(self.learnt_[f"{what}_{name}"] for name in Trees.__dataclass_fields__))

    def _arrays(self) -> Arrays:
        return self.learnt_ | (self.member_.arrays() if self.member_ else {})

    def _restore(self, arrays: Arrays) -> None:
        self.member_, self.learnt_ = Member.take(self.parameters.member, self.seed, self.metadata_, arrays)
        check_arrays(self.learnt_, self._own_layout(), unknown=self.may_be_nan)

    def _own_layout(self) -> Layout:
        shape = len(self.metadata_.conditions), len(self.metadata_.contexts), len(self.metadata_.genes)
        by_gene: Layout = dict.fromkeys(("mean", "variance", "share"), (shape, "f"))
        coefficients: Layout = {f"{what}_terms": ((None,), "f") for what in ("mean", "share")}
        trees: Layout = {
            f"{what}_{name}": ((None, size), kind)
            for what in ("mean", "share")
            for name, size, kind in (("features", DEPTH, "i"), ("thresholds", DEPTH, "f"), ("values", 2**DEPTH, "f"))
        }
        n_conditions, _, n_genes = shape
        one: Layout = {
            "left_out": ((n_conditions,), "i"),
            **dict.fromkeys(("squares", "usual"), ((n_conditions, n_genes), "f")),
            **dict.fromkeys(("expected", "found"), ((n_conditions, KNOTS), "f")),
            **dict.fromkeys(("skill", "trust"), ((n_conditions,), "f")),
        }
        shown: Layout = {f"{what}_{name}": one[name] for what in ("mean", "share") for name in EXPERIENCE}
        return {
            **by_gene,
            **shown,
            **trees,
            "quantiles": ((*shape, len(LEVELS)), "f"),
            "cells": (shape[:2], "i"),
            "unseen": ((None,), "i"),
            "unseen_squares": ((None, n_genes), "f"),
            **coefficients,
        }


MISSING = 0.1
"""Part of the weights of what an unseen perturbation is put together from that a context may lack."""

EXPERIENCE = ("left_out", "squares", "usual", "expected", "found", "skill", "trust")
"""The attributes of an experience, in order, as they are kept."""


def _as_arrays(what: str, shown: Sequence[Experience | None], n_genes: int) -> Arrays:
    """Experiences side by side, one a condition; control, and what no context was left out of, shows nothing."""
    line = np.linspace(0, 1, KNOTS)
    nothing = Experience(0, np.zeros(n_genes), np.zeros(n_genes), line, line, 0.0, 1.0)
    columns = zip(*(astuple(one or nothing) for one in shown), strict=True)
    return {f"{what}_{name}": np.array(values) for name, values in zip(EXPERIENCE, columns, strict=True)}


def _under(array: npt.NDArray[Any], rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array with more rows, of its own type."""
    return np.concatenate([array, rows.astype(array.dtype)])


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
