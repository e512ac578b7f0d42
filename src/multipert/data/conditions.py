"""Which condition and which context each cell is in, read from the columns of ``obs``."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError


@dataclass(frozen=True)
class Keys:
    """Where an AnnData says what each cell is.

    Attributes
    ----------
    perturbation_key
        The column of ``obs`` that names the perturbation; none where all perturbed cells got one compound.
    control
        What control cells are labelled (with ``perturbation_key``), or what to call the cells at dose 0.
    context_key
        The column of ``obs`` that names the context.
    dose_key
        The column of ``obs`` that gives the dose.
    compound
        The one compound whose doses ``dose_key`` gives, without ``perturbation_key``.
    layer
        The layer that holds the log-normalised expression; none means ``X``.
    """

    perturbation_key: str | None
    control: str
    context_key: str
    dose_key: str | None
    compound: str | None
    layer: str | None

    @classmethod
    def resolve(
        cls,
        *,
        perturbation_key: str | None,
        control: object,
        context_key: str,
        dose_key: str | None,
        compound: str | None,
        layer: str | None,
    ) -> "Keys":
        """Fill in what may be left out, and refuse what does not go together.

        Raises
        ------
        InputError
            Neither a perturbation nor a dose key, no control label, or two keys that exclude each other.
        """
        if perturbation_key is None and dose_key is None:
            raise InputError("nothing says what was done to a cell: give perturbation_key, dose_key or both")
        if context_key in (perturbation_key, dose_key):
            raise InputError(
                f"the context key {context_key!r} is also the perturbation or dose key: give another column"
            )
        if perturbation_key is None:
            control = "control" if control is None else control
            compound = compound or dose_key
        elif control is None:
            raise InputError(f"control is missing: give the label of control cells in obs[{perturbation_key!r}]")
        elif compound is not None:
            raise InputError(
                f"compound {compound!r} is given beside perturbation_key {perturbation_key!r}, which names compounds: "
                "give one of the two"
            )
        return cls(perturbation_key, str(control), context_key, dose_key, compound, layer)


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions and contexts of a set of cells.

    Attributes
    ----------
    conditions
        The names: control first, then the perturbations by name and, within a name, by dose.
    condition
        (cells,) index into ``conditions``.
    contexts
        The names, sorted.
    context
        (cells,) index into ``contexts``.
    doses
        The dose of each condition (0 for control); empty without a dose key.
    """

    conditions: tuple[str, ...]
    condition: NDArray[np.int64]
    contexts: tuple[str, ...]
    context: NDArray[np.int64]
    doses: dict[str, float]


def read_conditions(obs: pd.DataFrame, keys: Keys) -> Conditions:
    """Read the condition and context of every cell.

    Parameters
    ----------
    obs
        (cells, columns)
    keys
        Which columns to read.

    Raises
    ------
    InputError
        There are no cells, a column is missing, a label is NaN, control or perturbed cells are absent, or a dose
        makes no sense.
    """
    n_cells = len(obs)
    if n_cells == 0:
        raise InputError("there are no cells in it")
    context, contexts = _labels(obs, keys.context_key, "context key")
    if keys.perturbation_key is None:
        name, names = np.zeros(n_cells, dtype=np.int64), [str(keys.compound)]
        dose = _doses(obs, keys, np.ones(n_cells, dtype=bool))
        is_control = dose == 0
        if not is_control.any():
            raise InputError(f"no cell is at dose 0, the control, in obs[{keys.dose_key!r}]; {_smallest(dose)}")
    else:
        name, names = _labels(obs, keys.perturbation_key, "perturbation key")
        if keys.control not in names:
            raise InputError(
                f"no cell is labelled {keys.control!r}, the control, in obs[{keys.perturbation_key!r}]; "
                f"{did_you_mean(keys.control, names)}"
            )
        is_control = name == names.index(keys.control)
        dose = np.zeros(n_cells) if keys.dose_key is None else _doses(obs, keys, ~is_control)
        _check_perturbed_at_zero(name, names, dose, ~is_control, keys)
    if is_control.all():
        where = keys.perturbation_key if keys.perturbation_key is not None else keys.dose_key
        raise InputError(
            f"every cell is a control in obs[{where!r}]: at least one perturbation is needed to learn from"
        )

    dose_values, dose_code = np.unique(dose, return_inverse=True)
    # One number a (name, dose) pair, in the order wanted; below all of them, control.
    pair = np.where(is_control, -1, name * len(dose_values) + dose_code)
    present, condition = np.unique(pair, return_inverse=True)
    pairs = [(names[one // len(dose_values)], float(dose_values[one % len(dose_values)])) for one in present[1:]]
    dosed = keys.dose_key is not None
    conditions = (keys.control, *(f"{one}@{at:g}" if dosed else one for one, at in pairs))
    doses = dict(zip(conditions, (0.0, *(at for _, at in pairs)), strict=True)) if dosed else {}
    return Conditions(conditions, condition.astype(np.int64), tuple(contexts), context, doses)


def _column(obs: pd.DataFrame, key: str, role: str) -> "pd.Series[Any]":
    if key not in obs.columns:
        raise InputError(f"the {role} {key!r} is not a column of obs; {did_you_mean(key, obs.columns)}")
    return obs[key]


def _labels(obs: pd.DataFrame, key: str, role: str) -> tuple[NDArray[np.int64], list[str]]:
    """Codes of the cells and the sorted labels, compared as text whatever their type."""
    column = _column(obs, key, role)
    n_missing = int(column.isna().sum())
    if n_missing:
        raise InputError(f"the {role} obs[{key!r}] is empty (NaN) in {n_missing} cells: label these cells or drop them")
    codes, labels = pd.factorize(column.astype(str).to_numpy(dtype=object), sort=True)
    return codes.astype(np.int64), [str(label) for label in labels]


def _doses(obs: pd.DataFrame, keys: Keys, dosed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(cells,) doses, 0 where ``dosed`` is false, each rounded to the digits its condition's name shows."""
    assert keys.dose_key is not None
    column = _column(obs, keys.dose_key, "dose key")
    # By way of objects: a category of numbers is read as its numbers.
    dose = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=np.float64)
    dose = np.where(dosed, dose, 0.0)
    unread = ~np.isfinite(dose)
    if unread.any():
        raise InputError(
            f"the dose in obs[{keys.dose_key!r}] is no finite number in {unread.sum()} cells "
            f"(such as {str(column.iloc[int(unread.argmax())])!r}): give plain numbers, in one unit"
        )
    if (dose < 0).any():
        raise InputError(
            f"the dose in obs[{keys.dose_key!r}] is negative in {(dose < 0).sum()} cells (such as {dose.min():g}): "
            "give doses as they are, not their logarithms"
        )
    values, code = np.unique(dose, return_inverse=True)
    return np.array([float(f"{value:g}") for value in values], dtype=np.float64)[code]


def _check_perturbed_at_zero(
    name: NDArray[np.int64], names: list[str], dose: NDArray[np.float64], perturbed: NDArray[np.bool_], keys: Keys
) -> None:
    at_zero = perturbed & (dose == 0)
    if keys.dose_key is not None and at_zero.any():
        raise InputError(
            f"{at_zero.sum()} perturbed cells (such as those of {names[name[at_zero.argmax()]]!r}) are at dose 0 in "
            f"obs[{keys.dose_key!r}]: label them {keys.control!r} or drop them"
        )


def _smallest(dose: NDArray[np.float64]) -> str:
    return did_you_mean("0", [f"{value:g}" for value in np.unique(dose)])
