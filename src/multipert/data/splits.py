"""Which cells train, which validate, and which are held out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from multipert.data.files import write_text
from multipert.data.perturbation_data import PerturbationData
from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError

_FORMAT = "multipert split 1"


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A division of the cells of one data set.

    Attributes
    ----------
    train, validation, test
        Row indices, sorted; no cell is in two. ``test`` holds the perturbed cells of the held-out context.
    held_out
        The held-out context, if any.
    fingerprint
        The data set's, so that a split is never used on another.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    held_out: str | None
    fingerprint: str

    def __repr__(self) -> str:
        sizes = f"{len(self.train):,} train, {len(self.validation):,} validate, {len(self.test):,} held out"
        return f"Split: {sizes}" + (f" ({self.held_out})" if self.held_out is not None else "")

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
            "held_out": self.held_out,
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
            return cls(train, validation, test, content["held_out"], content["fingerprint"])
        except OSError as error:
            raise InputError(f"cannot read the split {path}: {error.strerror}, check the path") from None
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path} is no split: write one with Split.save(path)") from None


def leave_context_out(data: PerturbationData, context: str) -> Split:
    """Hold out the perturbed cells of a context, under every condition; its controls stay.

    Inside each (context x condition) group of the other cells the first 80 %, in file order, train and the rest
    validate.

    Parameters
    ----------
    data
        The cells.
    context
        The context to hold out.

    Raises
    ------
    InputError
        The context is unknown or lacks control or perturbed cells, or no other context has perturbed cells.
    """
    inside = np.zeros(len(data), dtype=bool)
    inside[data.rows(context=context)] = True
    perturbed = data.condition != 0
    complete = [
        name
        for code, name in enumerate(data.contexts)
        if len(np.unique(perturbed[data.context == code])) == 2 and name != context
    ]
    if not (inside & ~perturbed).any():
        raise InputError(
            f"context {context!r} has no control cells to predict from: hold out another; {did_you_mean('', complete)}"
        )
    if not (inside & perturbed).any():
        raise InputError(
            f"context {context!r} has no perturbed cells to compare with: hold out another; "
            f"{did_you_mean('', complete)}"
        )
    if not (~inside & perturbed).any():
        raise InputError(
            f"without context {context!r} no perturbed cell is left to learn from: a second context is needed"
        )
    test = inside & perturbed
    train, validation = _in_order(data, ~test)
    return Split(train, validation, np.flatnonzero(test), context, data.fingerprint)


def train_on_everything(data: PerturbationData) -> Split:
    """Hold nothing out: every cell trains.

    Parameters
    ----------
    data
        The cells.
    """
    none = np.array([], dtype=np.int64)
    return Split(np.arange(len(data)), none, none, None, data.fingerprint)


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
