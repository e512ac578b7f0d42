"""What can be set on a model, and the presets that set it.

A model declares its parameters as a frozen dataclass: name, type, meaning. The values live in ``presets/*.toml``, one
file a preset, one table a model, so that a recipe is data and never a second implementation.
"""

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError

P = TypeVar("P")


def parameter(meaning: str, *, at_least: float | None = None, below: float | None = None) -> Any:
    """A field of a parameters dataclass: its one-line meaning, and its range where it has one."""
    return dataclasses.field(metadata={"meaning": meaning, "at_least": at_least, "below": below})


@dataclass(frozen=True, kw_only=True)
class NoParameters:
    """A model with nothing to set."""


@cache
def _preset(preset: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((resources.files("multipert.models") / "presets" / f"{preset}.toml").read_text("utf-8"))


@cache
def preset_names() -> tuple[str, ...]:
    """The presets there are, ``default`` first."""
    names = {f.name.removesuffix(".toml") for f in (resources.files("multipert.models") / "presets").iterdir()}
    return ("default", *sorted(names - {"default"}))


def preset_values(model: str, preset: str) -> dict[str, Any]:
    """The values ``preset`` gives to ``model``: its own, over those of the model it is ``like``."""
    if preset not in preset_names():
        raise InputError(f"there is no preset {preset!r}; {did_you_mean(preset, preset_names())}")
    values = dict(_preset(preset).get(model, {}))
    alike = values.pop("like", None)
    return values if alike is None else preset_values(alike, preset) | values


def resolve(model: str, declared: type[P], preset: str, changes: Mapping[str, Any]) -> P:
    """The parameters of ``model``: the preset's values, then ``changes``.

    Parameters
    ----------
    model
        Its name.
    declared
        Its parameters dataclass.
    preset
        Name of the preset.
    changes
        Values by parameter name; texts (as from a command line) are read as the parameter's type.

    Raises
    ------
    InputError
        If a name is unknown, or a value is of the wrong type or out of its range.
    """
    types = typing.get_type_hints(declared)
    fields = {field.name: field for field in dataclasses.fields(declared)}  # type: ignore[arg-type]
    values = preset_values(model, preset)
    for name, value in changes.items():
        if name not in fields:
            raise InputError(f"model {model!r} has no parameter {name!r}; {did_you_mean(name, fields)}")
        values[name] = value
    checked = {name: _check(model, fields[name], types[name], value) for name, value in values.items()}
    return declared(**checked)


def _check(model: str, field: Any, kind: Any, value: Any) -> Any:
    """``value`` as the declared type, in the declared range."""
    read = _read(kind, value)
    if read is _UNREADABLE:
        raise InputError(f"parameter {field.name!r} of {model!r} takes {_describe(kind)}, not {value!r}")
    at_least, below = field.metadata["at_least"], field.metadata["below"]
    for number in read if isinstance(read, tuple) else (read,):
        if isinstance(number, int | float) and (
            (at_least is not None and not number >= at_least) or (below is not None and not number < below)
        ):
            limits = [f"{at_least:g} or more"] if at_least is not None else []
            limits += [f"less than {below:g}"] if below is not None else []
            raise InputError(f"parameter {field.name!r} of {model!r} must be {' and '.join(limits)}, not {number!r}")
    return read


_UNREADABLE = object()


def _read(kind: Any, value: Any) -> Any:
    """``value`` as ``kind``, or ``_UNREADABLE``."""
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str):
            value = [part for part in value.strip("()[] ").split(",") if part.strip()]
        elif isinstance(value, int | float):
            value = [value]
        items = [_read(typing.get_args(kind)[0], item) for item in value]
        return _UNREADABLE if _UNREADABLE in items else tuple(items)
    if isinstance(value, str) and kind is not str and typing.get_origin(kind) is not typing.Literal:
        try:
            value = json.loads(value.strip().lower())
        except ValueError:
            return _UNREADABLE
    if typing.get_origin(kind) is typing.Literal:
        return value if value in typing.get_args(kind) else _UNREADABLE
    if kind is bool:
        return value if isinstance(value, bool) else _UNREADABLE
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, int | float) or value != kind(value):
            return _UNREADABLE
        return kind(value)
    return value if isinstance(value, kind) else _UNREADABLE


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return "whole numbers, with commas between them"
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a text")
