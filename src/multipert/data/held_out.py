"""What is held out: the rule that a split, a run and preprocessing share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from multipert.data.condition_names import members, undosed
from multipert.data.conditions import Conditions, read_conditions
from multipert.data.keys import Keys
from multipert.data.perturbation_data import PerturbationData
from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError

Kind = Literal[
    "nothing",
    "context",
    "covariate",
    "context and covariate",
    "perturbation",
    "combination",
    "dose",
    "perturbation and context",
]
"""What a model is tested on that it never saw."""


@dataclass(frozen=True)
class HeldOut:
    """Which perturbed cells a model is tested on, and which others training may not see either.

    Attributes
    ----------
    kind
        What is unseen about the cells of the test.
    context, covariate
        The context and the level of the covariate that test cells are of; any where none.
    conditions
        The conditions that test cells are of; any where there are none.
    hidden
        Conditions that training sees no cell of, beside the test's: all of a perturbation never seen, and the members
        of a combination that are not to be seen either.
    """

    kind: Kind = "nothing"
    context: str | None = None
    covariate: str | None = None
    conditions: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    @property
    def label(self) -> str | None:
        """What tables call it: the context, the level, the conditions; none where nothing is held out."""
        place = ", ".join(one for one in (self.context, self.covariate) if one is not None)
        few = self.conditions if len(self.conditions) <= 4 else self.conditions[:3]
        more = f" and {len(self.conditions) - 3} more" if len(self.conditions) > 4 else ""
        what = ", ".join(few) + more
        return f"{what} in {place}" if what and place else what or place or None

    @property
    def kind_in_words(self) -> str:
        """The kind, and of a combination how many of its members training sees."""
        if self.kind != "combination":
            return self.kind
        hidden = {undosed(name) for name in self.hidden}
        parts = members(undosed(self.conditions[0]))
        # A member is hidden wherever it occurs: alone, and in every combination.
        seen = sum(part not in hidden for part in parts)
        return f"combination, {seen} of {len(parts)} members seen"

    @property
    def unseen_conditions(self) -> tuple[str, ...]:
        """The conditions that training sees no cell of, in any context."""
        everywhere = self.conditions if self.context is None and self.covariate is None else ()
        return tuple(dict.fromkeys((*everywhere, *self.hidden)))

    def masks(self, cells: Conditions | PerturbationData) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(cells,) which cells the test has, and (cells,) which training may not see: these and perhaps more."""
        perturbed = cells.condition != 0
        if self.kind == "nothing":
            none = np.zeros_like(perturbed)
            return none, none
        place = np.ones_like(perturbed)
        if self.context is not None:
            place &= cells.context == _index("context", self.context, cells.contexts)
        if self.covariate is not None:
            place &= cells.covariate == _index("level of the covariate", self.covariate, cells.covariates)
        tested = perturbed & place
        if self.conditions:
            tested &= _of(self.conditions, cells)
        unseen = tested | (perturbed & _of(self.hidden, cells))
        if self.kind == "perturbation and context":
            unseen |= perturbed & place
        return tested, unseen

    @classmethod
    def from_mapping(cls, kept: Mapping[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` gave, also by way of JSON."""
        if kept["kind"] not in get_args(Kind):
            raise ValueError(kept["kind"])
        lists = {name: tuple(kept[name]) for name in ("conditions", "hidden")}
        return cls(**{**kept, **lists})


def training_mask(adata: AnnData, keys: Keys, rule: HeldOut) -> NDArray[np.bool_]:
    """Find the cells that training may see, before they are preprocessed: only ``obs`` is read.

    Returns
    -------
    ndarray
        (cells,) true where training may see the cell.

    Raises
    ------
    InputError
        A key or label is missing, or a name in the rule is unknown.
    """
    return np.asarray(~rule.masks(read_conditions(adata.obs, keys))[1])


def _of(conditions: Iterable[str], cells: Conditions | PerturbationData) -> NDArray[np.bool_]:
    """(cells,) which cells are of these conditions."""
    return np.isin(cells.condition, [_index("condition", one, cells.conditions) for one in conditions])


def _index(role: str, name: str, known: tuple[str, ...]) -> int:
    if name not in known:
        raise InputError(f"there is no {role} {name!r}; {did_you_mean(name, known)}")
    return known.index(name)
