"""Which condition, context and covariate level each cell is in, read from the columns of ``obs``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from multipert.data.condition_names import members
from multipert.data.keys import SEPARATOR, Keys
from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions, contexts and covariate levels of a set of cells.

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
    covariates
        The names of the covariate's levels, sorted; empty without a covariate key.
    covariate
        (cells,) index into ``covariates``; all 0 without a covariate key.
    note
        Labels that were read as something else, in a sentence; empty where there are none.
    """

    conditions: tuple[str, ...]
    condition: NDArray[np.int64]
    contexts: tuple[str, ...]
    context: NDArray[np.int64]
    doses: dict[str, float]
    covariates: tuple[str, ...]
    covariate: NDArray[np.int64]
    note: str = ""


def read_conditions(obs: pd.DataFrame, keys: Keys) -> Conditions:
    """Read the condition, context and covariate level of every cell.

    Parameters
    ----------
    obs
        (cells, columns)
    keys
        Which columns to read.

    Raises
    ------
    InputError
        There are no cells, a column is missing, a label is NaN, control or perturbed cells are absent, a dose makes no
        sense, or no level of the covariate has both control and perturbed cells of a context.
    """
    n_cells = len(obs)
    if n_cells == 0:
        raise InputError("there are no cells in it")
    context, contexts = joint_labels(obs, keys.context_columns, "context key")
    name, names, dose, is_control = _treatments(obs, keys)
    if not is_control.any():
        if keys.perturbation_key is None:
            raise InputError(f"no cell is at dose 0, the control, in obs[{keys.dose_key!r}]; {_smallest(dose)}")
        raise InputError(
            f"no cell is labelled {keys.control!r}, the control, in obs[{keys.perturbation_key!r}]; "
            f"{did_you_mean(str(keys.control), names)}"
        )
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
    conditions = (str(keys.control), *(f"{one}@{at:g}" if dosed else one for one, at in pairs))
    doses = dict(zip(conditions, (0.0, *(at for _, at in pairs)), strict=True)) if dosed else {}
    covariate, covariates = np.zeros(n_cells, dtype=np.int64), list[str]()
    if keys.covariate_key is not None:
        covariate, covariates = joint_labels(obs, keys.covariate_columns, "covariate key")
        _check_matched(covariate, context, is_control, keys)
    note = _says_beside_control(obs, keys)
    return Conditions(
        conditions, condition.astype(np.int64), tuple(contexts), context, doses, tuple(covariates), covariate, note
    )


def read_labels(obs: pd.DataFrame, keys: Keys) -> NDArray[np.object_]:
    """Name the condition of every cell, as :func:`read_conditions` does, where there may be no controls.

    Returns
    -------
    (cells,) the names: the control's, a perturbation's, or ``name@dose``.

    Raises
    ------
    InputError
        A column is missing, a label is NaN, or a dose makes no sense.
    """
    name, names, dose, is_control = _treatments(obs, keys)
    dosed = keys.dose_key is not None
    labels = [f"{names[one]}@{at:g}" if dosed else names[one] for one, at in zip(name, dose, strict=True)]
    return np.where(is_control, str(keys.control), np.array(labels, dtype=object))


def _treatments(
    obs: pd.DataFrame, keys: Keys
) -> tuple[NDArray[np.int64], list[str], NDArray[np.float64], NDArray[np.bool_]]:
    """What was done to every cell: codes of names, the names, doses (0 without a dose key), which are controls."""
    if keys.perturbation_key is None:
        dose = _doses(obs, keys, np.ones(len(obs), dtype=bool))
        return np.zeros(len(obs), dtype=np.int64), [str(keys.compound)], dose, dose == 0
    name, labels = joint_labels(obs, (keys.perturbation_key,), "perturbation key")
    read = [_without_control(label, keys) for label in labels]
    names = sorted(set(read))
    name = np.searchsorted(names, read).astype(np.int64)[name]
    is_control = np.array([one == keys.control for one in names], dtype=bool)[name]
    dose = np.zeros(len(obs)) if keys.dose_key is None else _doses(obs, keys, ~is_control)
    return name, names, dose, is_control


def _without_control(label: str, keys: Keys) -> str:
    """A combination with control, ``A+ctrl`` or ``ctrl+A`` where control is ``ctrl``, is ``A`` alone (Norman 2019)."""
    return "+".join(part for part in members(label) if part != keys.control) or str(keys.control)


def _says_beside_control(obs: pd.DataFrame, keys: Keys) -> str:
    """Which labels were read as the perturbation alone, in a sentence."""
    if keys.perturbation_key is None:
        return ""
    labels = sorted(map(str, obs[keys.perturbation_key].unique()))
    beside = [label for label in labels if _without_control(label, keys) != label]
    if not beside:
        return ""
    first = beside[0]
    return (
        f"{len(beside)} labels of obs[{keys.perturbation_key!r}] join a perturbation and the control {keys.control!r}: "
        f"{first!r} is read as {_without_control(first, keys)!r}" + (", the others likewise" if beside[1:] else "")
    )


def _column(obs: pd.DataFrame, key: str, role: str) -> "pd.Series[Any]":
    if key not in obs.columns:
        raise InputError(f"the {role} {key!r} is not a column of obs; {did_you_mean(key, obs.columns)}")
    return obs[key]


def joint_labels(obs: pd.DataFrame, columns: Sequence[str], role: str) -> tuple[NDArray[np.int64], list[str]]:
    """Read the labels that one column, or several together, give the cells: as text, whatever their type.

    Returns
    -------
    tuple
        (cells,) codes, and the sorted labels they stand for; those of several columns are joined by ``" | "``.

    Raises
    ------
    InputError
        A column is missing, or a label is NaN.
    """
    read = []
    for key in columns:
        column = _column(obs, key, role)
        n_missing = int(column.isna().sum())
        if n_missing:
            raise InputError(
                f"the {role} obs[{key!r}] is empty (NaN) in {n_missing} cells: label these cells or drop them"
            )
        # Each label is turned into text once, not once a cell; but objects may be equal that read differently.
        codes, found = pd.factorize(column.astype(str) if column.dtype == object else column)
        read.append((codes, [str(label) for label in found.astype(str)]))
    codes, labels = read[0]
    for more, others in read[1:]:
        codes, pairs = pd.factorize(codes * len(others) + more)
        labels = [labels[pair // len(others)] + SEPARATOR + others[pair % len(others)] for pair in pairs.tolist()]
    names = sorted(set(labels))
    return np.searchsorted(names, labels).astype(np.int64)[codes], names


def _check_matched(
    covariate: NDArray[np.int64], context: NDArray[np.int64], is_control: NDArray[np.bool_], keys: Keys
) -> None:
    """Refuse a covariate that tells control from perturbed cells: within its levels nothing could be compared."""
    group = covariate * (context.max() + 1) + context
    if len(np.intersect1d(group[is_control], group[~is_control])) == 0:
        named = " and ".join(f"obs[{column!r}]" for column in keys.covariate_columns)
        raise InputError(
            f"no level of the covariate {named} has both control and perturbed cells of a context, so that no "
            "perturbed cell can be compared with a control of its own level: leave the covariate key out"
        )


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
