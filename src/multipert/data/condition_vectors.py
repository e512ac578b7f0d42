"""From features of compounds or genes to the vectors by which a model knows conditions: doses, members, control."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multipert.data.condition_names import members_at
from multipert.data.features import PerturbationFeatures, Source, member_names
from multipert.errors import InputError

if TYPE_CHECKING:
    from multipert.data.perturbation_data import PerturbationData
    from multipert.data.splits import Split

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

KNOTS = 5
"""Half-effective doses of the basis, at most."""

DIRECTIONS = 64
"""Directions of features that are kept, at most."""


def dose_basis(dose: float | None, halves: Sequence[float]) -> Doubles:
    """What a dose is worth, (basis,): ``1 - exp(-log1p(dose / h)) = dose / (dose + h)`` for each half dose ``h``.

    Smooth in ``log1p`` of dose, exactly 0 at dose 0, and near 1 above all half doses, as responses saturate. Without a
    dose all are 1, and without half doses there is the one.
    """
    if not halves:
        return np.ones(1)
    h = np.asarray(halves, dtype=np.float64)
    return np.ones(len(h)) if dose is None else dose / (dose + h)


@dataclass(frozen=True, eq=False)
class ConditionVectors:
    """How a model that was fitted with features knows conditions.

    A member of a perturbation is a vector: itself, where members are told apart by number; else, with features ``x``,
    ``(1, (x - centre) @ projection)``, where the 1 stands for what all perturbations do. The projection is on the
    directions in which the training members differ, those with the largest singular values: of others nothing can be
    learnt. A condition is, for each of its members, the outer product of that vector and :func:`dose_basis`; control
    has no members.

    Attributes
    ----------
    source
        Where the features come from.
    names
        The members that are described, seen or not.
    halves
        The half doses of the basis; empty without doses.
    members
        (names, width) their vectors.
    centre, projection
        (features,) and (features, width - 1); empty where members are told apart by number.
    """

    source: Source
    names: tuple[str, ...]
    halves: tuple[float, ...]
    members: Floats
    centre: Floats
    projection: Floats

    @classmethod
    def fit(cls, features: PerturbationFeatures, data: PerturbationData, split: Split) -> ConditionVectors:
        """Choose basis, centre and projection by the conditions that training saw.

        Raises
        ------
        InputError
            A perturbation has no features.
        """
        features.check(data.perturbations, data.doses)
        seen = seen_conditions(data, split)
        doses = sorted({dose for name in seen for _, dose in members_at(name, data.doses) if dose is not None})
        halves: tuple[float, ...] = ()
        if doses:
            halves = tuple(float(f"{h:.6g}") for h in np.geomspace(doses[0], doses[-1], min(KNOTS, len(doses))))
        if features.source in ("members", "dose"):
            # What was never seen has no number of its own: nothing is known of it.
            members = features.table * np.isin(features.names, member_names(seen, data.doses))[:, None]
            none = np.zeros((0, 0), dtype=np.float32)
            return cls(features.source, features.names, halves, members.astype(np.float32), none.ravel(), none)
        place = {name: row for row, name in enumerate(features.names)}
        known = features.table[[place[name] for name in member_names(seen, data.doses)]].astype(np.float64)
        centre = known.mean(axis=0)
        _, sizes, axes = np.linalg.svd(known - centre, full_matrices=False)
        axes = axes[:DIRECTIONS][sizes[:DIRECTIONS] > 1e-6 * max(sizes[0], 1e-12)]
        axes *= np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], 1))  # an axis has no sign
        # So that what training members differ by weighs as much as what they share.
        spread = np.sqrt((sizes**2).sum() / len(known))
        projection = (axes.T / max(spread, 1e-12)).astype(np.float32)
        centre = centre.astype(np.float32)
        members = _project(features.table, centre, projection)
        return cls(features.source, features.names, halves, members, centre, projection)

    @property
    def width(self) -> int:
        """Numbers that describe a member at a dose."""
        return int(self.members.shape[1]) * max(1, len(self.halves))

    def of(self, conditions: Iterable[str], doses: Mapping[str, float], control: str) -> Floats:
        """The vectors of conditions, (conditions, members, width); zero where a condition has fewer members."""
        place = {name: row for row, name in enumerate(self.names)}
        at = [() if name == control else members_at(name, doses) for name in conditions]
        vectors = np.zeros((len(at), max(1, *map(len, at)), self.width), dtype=np.float32)
        for rows, condition in zip(vectors, at, strict=True):
            for row, (member, dose) in zip(rows, condition, strict=False):
                row[:] = np.outer(self.members[place[member]], dose_basis(dose, self.halves)).ravel()
        return vectors

    def missing(self, conditions: Iterable[str], doses: Mapping[str, float]) -> list[str]:
        """Members of conditions that are not described."""
        return [name for name in member_names(conditions, doses) if name not in set(self.names)]

    def says_nothing_of(self, condition: str, doses: Mapping[str, float]) -> bool:
        """Whether no member of a condition was seen or is told by more than its number."""
        place = {name: row for row, name in enumerate(self.names)}
        return not any(self.members[place[member]].any() for member, _ in members_at(condition, doses))

    def with_others(self, others: PerturbationFeatures) -> ConditionVectors:
        """The same, with further perturbations described.

        Raises
        ------
        InputError
            They are described in another way.
        """
        if others.table.shape[1] != len(self.centre):
            raise InputError(
                f"the model knows perturbations by {len(self.centre)} features ({self.source}), and {others!r} has "
                f"{others.table.shape[1]}: describe further perturbations as those of training were"
            )
        new = [row for row, name in enumerate(others.names) if name not in set(self.names)]
        names = (*self.names, *(others.names[row] for row in new))
        members = np.concatenate([self.members, _project(others.table[new], self.centre, self.projection)])
        return ConditionVectors(self.source, names, self.halves, members, self.centre, self.projection)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for all of it."""
        digest = hashlib.blake2b(repr((self.source, self.names, self.halves)).encode(), digest_size=8)
        digest.update(self.members.astype("<f4").tobytes())
        return digest.hexdigest()


def seen_conditions(data: PerturbationData, split: Split) -> tuple[str, ...]:
    """The perturbations of which training sees a cell."""
    rows = np.concatenate([split.train, split.validation])
    present = np.bincount(data.condition[rows], minlength=len(data.conditions)) > 0
    return tuple(name for name, there in zip(data.conditions, present, strict=True) if there and name != data.control)


def _project(table: Floats, centre: Floats, projection: Floats) -> Floats:
    """``(1, (x - centre) @ projection)`` for each row x, (rows, width)."""
    return np.concatenate([np.ones((len(table), 1), dtype=np.float32), (table - centre) @ projection], axis=1)
