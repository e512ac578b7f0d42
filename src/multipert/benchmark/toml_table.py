"""A table of a TOML file whose values are checked against kinds, every mistake named by its line."""

import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal

from multipert.data import did_you_mean
from multipert.errors import InputError

LEAST = {"seed": 0, "min_counts": 0, "min_genes": 0, "min_cells": 0, "n_top_genes": 1}
"""The lowest value of a key, of whatever table."""


@dataclass(frozen=True)
class Table:
    """A table of the file.

    Attributes
    ----------
    values
        What it holds.
    place
        The keys and indices that lead to it.
    where
        Names the file and the line of a place.
    """

    values: Mapping[str, Any]
    place: tuple[str | int, ...]
    where: Callable[..., str]

    def error(self, sentence: object, *place: str | int) -> InputError:
        """An error about a value of this table, or about the table."""
        return InputError(f"{self.where(*self.place, *place)}: {sentence}")

    @contextmanager
    def blame(self, *place: str | int) -> Iterator[None]:
        """Say of whatever the block finds wrong that it stands in this place."""
        try:
            yield
        except InputError as error:
            raise self.error(error, *place) from None

    def check(self, kinds: Mapping[str, Any], what: str) -> None:
        """Refuse keys that ``what`` does not have, and values of another kind, empty, too low or said twice."""
        for key, value in self.values.items():
            if key not in kinds:
                raise self.error(f"{what} has no key {key!r}; {did_you_mean(key, kinds)}", key)
            if value in ("", []):
                raise self.error(f"{key} is empty: leave it out, or give it something", key)
            if not is_kind(kinds[key], value):
                raise self.error(f"{key} takes {describe(kinds[key])}, not {shown(value)}", key)
            if key in LEAST and value < LEAST[key]:
                raise self.error(f"{key} must be {LEAST[key]} or more, not {value}", key)
            met: set[str] = set()
            for index, one in enumerate(value if typing.get_origin(kinds[key]) is Sequence else ()):
                if one == "":
                    raise self.error(f"{key} has an empty text: leave it out", key, index)
                if not isinstance(one, dict) and repr(one) in met:
                    raise self.error(f"{key} has {shown(one)} twice: leave one out", key, index)
                met.add(repr(one))


def is_kind(kind: Any, value: Any) -> bool:
    """Whether a value of TOML is of a kind."""
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return value in of
    if origin in (UnionType, typing.Union):
        return any(is_kind(one, value) for one in of)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(of) and all(map(is_kind, of, value))
    if origin is Sequence:
        return isinstance(value, list) and all(is_kind(of[0], one) for one in value)
    if kind in (int, float):
        allowed = int if kind is int else int | float
        return isinstance(value, allowed) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, origin or kind)


def describe(kind: Any) -> str:
    """Say what a kind is, in words."""
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, of))
    if origin in (UnionType, typing.Union):
        return " or ".join(describe(one) for one in of if one is not type(None))
    if origin is tuple:
        return "a list of " + " and ".join(map(describe, of))
    if origin is Sequence and typing.get_origin(of[0]) is Mapping:
        return "tables, each under a header in double brackets"
    if origin is Sequence:
        return f"a list, each {describe(of[0])}"
    return {int: "a whole number", float: "a number", str: "a text in quotes", Mapping: "a table"}[origin or kind]


def shown(value: Any) -> str:
    """A value as the file may have it, short."""
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
