"""Which cells train, which validate, and which are held out."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from multipert.data.condition_names import members
from multipert.data.files import write_text
from multipert.data.held_out import HeldOut, Kind
from multipert.data.perturbation_data import PerturbationData
from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError

_FORMAT = "multipert split 2"


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A division of the cells of one data set.

    Attributes
    ----------
    train, validation, test
        Row indices, sorted; no cell is in two. Some cells may be in none: those that would give the test away.
    rule
        What ``test`` holds.
    fingerprint
        The data set's, so that a split is never used on another.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    rule: HeldOut
    fingerprint: str

    @property
    def held_out(self) -> str | None:
        """What is held out, as tables call it; none where nothing is."""
        return self.rule.label

    @property
    def kind(self) -> Kind:
        """What is unseen about the cells of the test."""
        return self.rule.kind

    @property
    def visible(self) -> NDArray[np.int64]:
        """Row indices of the cells that a fit may see, to train or to validate, sorted."""
        return np.union1d(self.train, self.validation)

    def __repr__(self) -> str:
        sizes = f"{len(self.train):,} train, {len(self.validation):,} validate, {len(self.test):,} held out"
        kind = "" if self.kind in ("nothing", "context") else f"{self.kind}: "
        return f"Split: {sizes}" + (f" ({kind}{self.held_out})" if self.held_out is not None else "")

    def check(self, data: PerturbationData) -> None:
        """Refuse data that this split was not made for.

        Raises
        ------
        InputError
            The fingerprints differ.
        """
        if data.fingerprint != self.fingerprint:
            raise InputError(
                f"this split was made for other data (fingerprint {self.fingerprint}, here {data.fingerprint}): "
                "make a new one with leave_context_out"
            )

    def save(self, path: str | Path) -> None:
        """Write the split as JSON.

        Raises
        ------
        InputError
            The path cannot be written.
        """
        content = {
            "format": _FORMAT,
            "rule": asdict(self.rule),
            "fingerprint": self.fingerprint,
            "train": self.train.tolist(),
            "validation": self.validation.tolist(),
            "test": self.test.tolist(),
        }
        write_text(path, json.dumps(content) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a split that :meth:`save` wrote.

        Raises
        ------
        InputError
            The file is absent, not readable, or no split.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(content["format"])
            train, validation, test = (
                np.array(content[part], dtype=np.int64).reshape(-1) for part in ("train", "validation", "test")
            )
            return cls(train, validation, test, HeldOut.from_mapping(content["rule"]), content["fingerprint"])
        except OSError as error:
            raise InputError(f"cannot read the split {path}: {error.strerror}, check the path") from None
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path} is no split: write one with Split.save(path)") from None


def split_by(data: PerturbationData, rule: HeldOut) -> Split:
    """Divide cells by a rule: what ``leave_context_out`` and its like do once the rule is made.

    Inside each (context x condition) group of the cells that training may see, the first 80 %, in file order, train and
    the rest validate; where nothing is held out, all train.

    Raises
    ------
    InputError
        Names are unknown, or nothing is left to test on or to learn from.
    """
    if rule.kind == "nothing":
        none = np.array([], dtype=np.int64)
        return Split(np.arange(len(data)), none, none, rule, data.fingerprint)
    tested, unseen = rule.masks(data)
    if not tested.any():
        raise InputError(f"no perturbed cell is of {rule.label}: hold out another")
    if not ((data.condition != 0) & ~unseen).any():
        raise InputError(f"without {rule.label} no perturbed cell is left to learn from: hold out less")
    train, validation = _in_order(data, ~unseen)
    return Split(train, validation, np.flatnonzero(tested), rule, data.fingerprint)


def leave_context_out(data: PerturbationData, context: str) -> Split:
    """Hold out the perturbed cells of a context, under every condition; its controls stay.

    Inside each (context x condition) group of the other cells the first 80 %, in file order, train and the rest
    validate.

    Parameters
    ----------
    data
        The cells.
    context
        The context to hold out; of several columns, their labels together: ``"B | patient 3"``.

    Raises
    ------
    InputError
        The context is unknown or lacks control or perturbed cells, or no other context has perturbed cells.
    """
    _check_place(data, "context", context, data.rows(context=context), data.context, data.contexts)
    return split_by(data, HeldOut("context", context=context))


def leave_covariate_out(data: PerturbationData, covariate: str, *, context: str | None = None) -> Split:
    """Hold out the perturbed cells of a level of the covariate (a donor, a batch); its controls stay.

    Parameters
    ----------
    data
        The cells.
    covariate
        The level to hold out.
    context
        If given, hold out the perturbed cells of the level in this context alone.

    Raises
    ------
    InputError
        A name is unknown, the held-out cells lack controls or perturbed ones, or nothing is left to learn from.
    """
    rows = data.rows(covariate=covariate, context=context)
    _check_place(data, "covariate level", covariate, rows, data.covariate, data.covariates)
    kind: Kind = "covariate" if context is None else "context and covariate"
    return split_by(data, HeldOut(kind, context=context, covariate=covariate))


def leave_perturbation_out(data: PerturbationData, perturbations: str | Sequence[str]) -> Split:
    """Hold out every cell of one perturbation or several, in all contexts and at all doses.

    Parameters
    ----------
    data
        The cells.
    perturbations
        Conditions, or compounds, of which all doses are meant. A combination that contains one of them stays.

    Raises
    ------
    InputError
        A name is unknown, or no perturbed cell is left to learn from.
    """
    return split_by(data, HeldOut("perturbation", conditions=_conditions_of(data, perturbations)))


def perturbation_folds(data: PerturbationData, k: int, *, seed: int = 0) -> list[Split]:
    """Divide the perturbations at random into k parts of near equal number, and hold out one after another.

    Parameters
    ----------
    data
        The cells. All doses of a compound are in one part.
    k
        How many parts.
    seed
        Of the division.

    Raises
    ------
    InputError
        There are fewer perturbations than parts, or fewer than two parts.
    """
    names = np.array(sorted({data.compound(one) for one in data.perturbations}), dtype=object)
    if not 2 <= k <= len(names):
        raise InputError(f"{len(names)} perturbations cannot be divided into {k} parts: take 2 to {len(names)}")
    shuffled = np.random.default_rng(seed).permutation(names)
    return [leave_perturbation_out(data, sorted(part)) for part in np.array_split(shuffled, k)]


def leave_combination_out(data: PerturbationData, combination: str, *, seen: int = 2) -> Split:
    """Hold out a combination ``A+B``, and as many of its members as are not to be seen either.

    Parameters
    ----------
    data
        The cells.
    combination
        A condition whose name joins its members by ``+``.
    seen
        How many members training sees: all (2 of a pair), by default; 1 hides the last member wherever it occurs, alone
        and in other combinations, and 0 hides all.

    Raises
    ------
    InputError
        It is no combination that was measured, a member to be seen was not measured alone, or nothing is left.
    """
    (name,) = _conditions_of(data, combination)[:1]
    parts = members(data.compound(name))
    if len(parts) < 2:
        pairs = [one for one in data.perturbations if len(members(one)) > 1]
        raise InputError(f"{combination!r} is no combination 'A+B'; {did_you_mean(combination, pairs)}")
    if not 0 <= seen <= len(parts):
        raise InputError(f"{combination!r} has {len(parts)} members: seen takes 0 to {len(parts)}, not {seen}")
    alone = {data.compound(one) for one in data.perturbations}
    absent = [one for one in parts[:seen] if one not in alone]
    if absent:
        raise InputError(
            f"{absent[0]!r} of {combination!r} was not measured alone, so that training cannot see it: take another "
            "combination, or fewer members to be seen"
        )
    unseen = set(parts[seen:])
    hidden = tuple(one for one in data.perturbations if unseen & set(members(data.compound(one))))
    return split_by(data, HeldOut("combination", conditions=_conditions_of(data, combination), hidden=hidden))


def leave_dose_out(data: PerturbationData, dose: float, *, compound: str | None = None) -> Split:
    """Hold out all cells at a dose: of every compound, or of one.

    Parameters
    ----------
    data
        The cells, read with a dose key.
    dose
        The dose.
    compound
        The one compound whose dose is held out.

    Raises
    ------
    InputError
        There are no doses, or not this one, or no perturbed cell is left to learn from.
    """
    if not data.doses:
        raise InputError("these cells have no doses: read them with dose_key")
    ours = [one for one in data.perturbations if compound is None or data.compound(one) == compound]
    if not ours:
        known = {data.compound(one) for one in data.perturbations}
        raise InputError(f"there is no compound {compound!r}; {did_you_mean(compound, sorted(known))}")
    at_dose = tuple(one for one in ours if data.doses[one] == dose)
    if not at_dose:
        doses = [f"{one:g}" for one in sorted({data.doses[one] for one in ours})]
        raise InputError(f"there is no dose {dose:g}; {did_you_mean(f'{dose:g}', doses)}")
    return split_by(data, HeldOut("dose", conditions=at_dose))


def leave_perturbation_and_context_out(
    data: PerturbationData, perturbations: str | Sequence[str], context: str
) -> Split:
    """Hold out a perturbation everywhere and all perturbed cells of a context; test on the one in the other.

    Cells of the perturbation in other contexts, and of others in the context, neither train nor test.

    Parameters
    ----------
    data
        The cells.
    perturbations
        As in :func:`leave_perturbation_out`.
    context
        As in :func:`leave_context_out`.

    Raises
    ------
    InputError
        A name is unknown, the context lacks controls or cells of the perturbation, or nothing is left to learn from.
    """
    _check_place(data, "context", context, data.rows(context=context), data.context, data.contexts)
    names = _conditions_of(data, perturbations)
    return split_by(data, HeldOut("perturbation and context", context=context, conditions=names, hidden=names))


def train_on_everything(data: PerturbationData) -> Split:
    """Hold nothing out: every cell trains.

    Parameters
    ----------
    data
        The cells.
    """
    return split_by(data, HeldOut())


def _conditions_of(data: PerturbationData, names: str | Sequence[str]) -> tuple[str, ...]:
    """The conditions that names mean: a condition itself, or a compound at all its doses."""
    found: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        meant = [one for one in data.perturbations if name in (one, data.compound(one))]
        if not meant:
            raise InputError(f"there is no perturbation {name!r}; {did_you_mean(name, data.perturbations)}")
        found += meant
    if not found:
        raise InputError("no perturbation is named: name one to hold out")
    return tuple(dict.fromkeys(found))


def _check_place(
    data: PerturbationData,
    role: str,
    name: str,
    rows: NDArray[np.int64],
    codes: NDArray[np.int64],
    names: tuple[str, ...],
) -> None:
    """Refuse to hold out a context or level that lacks either side, offering those that have both."""
    perturbed = data.condition != 0
    for there, kind, purpose in (
        (~perturbed[rows], "control", "to predict from"),
        (perturbed[rows], "perturbed", "to compare with"),
    ):
        if not there.any():
            complete = [
                one for code, one in enumerate(names) if len(np.unique(perturbed[codes == code])) == 2 and one != name
            ]
            raise InputError(
                f"{role} {name!r} has no {kind} cells {purpose}: hold out another; {did_you_mean('', complete)}"
            )
    outside = perturbed.copy()
    outside[rows] = False
    if not outside.any():
        raise InputError(f"without {role} {name!r} no perturbed cell is left to learn from: a second {role} is needed")


def _in_order(data: PerturbationData, kept: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the kept cells 80 to 20 inside each (context x condition) group, in file order."""
    rows = np.flatnonzero(kept)
    group = data.context[rows] * len(data.conditions) + data.condition[rows]
    size = np.bincount(group)
    by_group = np.argsort(group, kind="stable")
    place = np.empty_like(rows)
    place[by_group] = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
    trains = place < np.maximum(4 * size // 5, 1)[group]
    return rows[trains], rows[~trains]
