"""What can be set on a model: declared once, as a dataclass in the method's own file.

A field gives a parameter's name, type, default, meaning and range, and what a search may try. The defaults are the
preset ``default``; another preset is a table of values that differ, in ``presets/*.toml`` for our models, in
:attr:`Model.presets` for others', or in a file of the user's own.
"""

import dataclasses
import inspect
import json
import math
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError

if TYPE_CHECKING:
    from multipert.models.base import Model

DEFAULT = "default"
"""The preset of the declared defaults."""


@dataclass(frozen=True)
class Range:
    """Numbers that a search may try.

    Attributes
    ----------
    low, high
        The lowest and the highest.
    log
        Whether ratios count, not differences: 0.001 lies midway between 0.0001 and 0.01.
    """

    low: float
    high: float
    log: bool = False


Space: typing.TypeAlias = Range | tuple[Any, ...]
"""What a search may try of one parameter: a range, or a few values."""


def parameter(
    default: Any,
    meaning: str,
    *,
    at_least: float | None = None,
    below: float | None = None,
    search: Space | None = None,
) -> Any:
    """A field of a parameters dataclass.

    Parameters
    ----------
    default
        Its value under the preset ``default``.
    meaning
        What it is, in one line.
    at_least, below
        Its range, where it has one.
    search
        What ``multipert tune`` may try of it; without, it is left as it is.
    """
    return dataclasses.field(
        default=default, metadata={"meaning": meaning, "at_least": at_least, "below": below, "search": search}
    )


def search_space(model: "type[Model]") -> dict[str, Space]:
    """What a search may try of a model's parameters, by name; empty where nothing is declared."""
    spaces = {field.name: field.metadata.get("search") for field in dataclasses.fields(model.Parameters)}
    return {name: space for name, space in spaces.items() if space is not None}


@dataclass(frozen=True, kw_only=True)
class NoParameters:
    """A model with nothing to set."""


def space_in_words(space: Space | None) -> str:
    """What a search may try of a parameter, for a table; empty where it tries nothing."""
    if isinstance(space, Range):
        return f"{space.low:g} to {space.high:g}{', by ratio' if space.log else ''}"
    widths = (",".join(map(str, one)) or "none" if isinstance(one, tuple) else str(one) for one in space or ())
    return "; ".join(widths)


# Presets.


@cache
def _shipped() -> dict[str, dict[str, dict[str, Any]]]:
    """The presets of our own models: by preset and model, the values."""
    folder = resources.files("multipert.models") / "presets"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): tomllib.loads(file.read_text("utf-8")) for file in files}


def preset_names(model: "type[Model] | None" = None) -> tuple[str, ...]:
    """The presets of a model, or all that our own models have; ``default`` first."""
    shipped = [preset for preset, tables in _shipped().items() if model is None or model.name in tables]
    return (DEFAULT, *shipped, *(() if model is None else model.presets))


def preset_values(model: "type[Model]", preset: str) -> dict[str, Any]:
    """All values of a model under a preset, by parameter.

    Raises
    ------
    InputError
        If the model has no such preset.
    """
    return dataclasses.asdict(resolve(model, preset, {}))


def _overlay(model: "type[Model]", preset: str) -> dict[str, Any]:
    """What a preset sets."""
    if preset not in preset_names(model):
        raise InputError(f"model {model.name!r} has no preset {preset!r}; {did_you_mean(preset, preset_names(model))}")
    if preset in model.presets:
        return dict(model.presets[preset])
    return {} if preset == DEFAULT else _table(preset, model.name)


def _table(preset: str, name: str) -> dict[str, Any]:
    """The values in a preset's file: a model's own, over those of the model it is ``like``."""
    values = dict(_shipped()[preset][name])
    alike = values.pop("like", None)
    return values if alike is None else _table(preset, alike) | values


def preset_of(model: "type[Model]", preset: str | Path) -> tuple[str, dict[str, Any]]:
    """A preset by its name, and the values that a file overlays.

    Parameters
    ----------
    model
        Its class.
    preset
        The name of a preset; or a TOML file with a table of values named like the model, as ``multipert tune`` writes.

    Returns
    -------
    tuple
        The name, ``"default"`` for a file; and the values of the file, empty for a name.

    Raises
    ------
    InputError
        The file cannot be read, is no TOML, has no table of the model, or a value in it is wrong.
    """
    if not str(preset).endswith(".toml"):
        return str(preset), {}
    tables = _read_preset(Path(preset))
    if not isinstance(tables.get(model.name), dict):
        named = ", ".join(f"[{name}]" for name, table in tables.items() if isinstance(table, dict))
        raise InputError(f"the preset file {preset} has no table [{model.name}]; it has {named or 'no table at all'}")
    try:
        return DEFAULT, dataclasses.asdict(resolve(model, DEFAULT, tables[model.name]))
    except InputError as error:
        raise InputError(f"{preset}: {error}") from None


def _read_preset(path: Path) -> dict[str, Any]:
    """What tomllib reads in a preset file."""
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"there is no preset file {path}: check the path") from None
    except OSError as error:
        raise InputError(f"cannot read the preset file {path}: {error.strerror}") from None
    except ValueError as error:  # no UTF-8, no TOML
        raise InputError(f"the preset file {path} is no TOML: {error}") from None


# Values.


def resolve(model: "type[Model]", preset: str, changes: Mapping[str, Any]) -> Any:
    """The parameters of a model: the declared defaults, then the preset's values, then ``changes``.

    Parameters
    ----------
    model
        Its class.
    preset
        Name of the preset.
    changes
        Values by parameter name; texts (as from a command line) are read as the parameter's type.

    Returns
    -------
    object
        Of the model's ``Parameters``.

    Raises
    ------
    InputError
        If the preset or a name is unknown, or a value is of the wrong type or out of its range.
    """
    fields = _fields(model)
    values = _overlay(model, preset) | dict(changes)
    for name in values:
        if name not in fields:
            raise InputError(f"model {model.name!r} has no parameter {name!r}; {did_you_mean(name, fields)}")
    return model.Parameters(**{name: _check(model.name, *fields[name], value) for name, value in values.items()})


def _fields(model: "type[Model]") -> dict[str, tuple[Any, Any]]:
    """The declared fields by name, each with its type."""
    types = typing.get_type_hints(model.Parameters)
    return {field.name: (field, types[field.name]) for field in dataclasses.fields(model.Parameters)}


def _check(model: str, field: Any, kind: Any, value: Any) -> Any:
    """``value`` as the declared type, in the declared range."""
    read = _read(kind, value)
    if read is _UNREADABLE:
        raise InputError(f"parameter {field.name!r} of {model!r} takes {_describe(kind)}, not {value!r}")
    at_least, below = field.metadata.get("at_least"), field.metadata.get("below")
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
        elif not isinstance(value, list | tuple):
            return _UNREADABLE
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
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return kind(value) if is_number and value == kind(value) else _UNREADABLE
    return value if isinstance(value, kind) else _UNREADABLE


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return "whole numbers, with commas between them"
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a text")


# What a constructor shows.


def signature(model: "type[Model]") -> inspect.Signature:
    """What the model's constructor takes: ``preset``, ``seed``, and each parameter with its type and default."""
    shared = {"preset": (str, DEFAULT), "seed": (int, 1)}
    own = {name: (kind, field.default) for name, (field, kind) in _fields(model).items()}
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter(name, keyword, default=default, annotation=kind)
            for name, (kind, default) in (shared | own).items()
        ]
    )


def documentation(model: "type[Model]") -> str:
    """The model's docstring, and under it what its constructor takes."""
    lines = [
        inspect.cleandoc(model.__doc__ or model.__name__),
        "",
        "Parameters",
        "----------",
        f"preset : str, default {DEFAULT!r}",
        f"    The named set of values to start from ({', '.join(preset_names(model))}), or a TOML file of one.",
        "seed : int, default 1",
        "    Of everything random. The same seed on the same machine gives the same model.",
    ]
    for name, (field, kind) in _fields(model).items():
        meaning = field.metadata.get("meaning", "")
        lines.append(f"{name} : {inspect.formatannotation(kind)}, default {field.default!r}")
        if meaning:
            lines.append(f"    {meaning[0].upper()}{meaning[1:]}.")
    return "\n".join(lines) + "\n"
