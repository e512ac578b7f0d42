"""A fitted model on disk: safetensors and JSON, so that no pickle is ever read from a folder somebody sent.

Nothing that is read is taken on trust: every field is checked against its declared type, the weights against what the
model expects, and both against a checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from multipert.errors import InputError, is_disk_full
from multipert.models.left_out import LeftOutScore
from multipert.training import CHECKPOINT

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 3
"""Version of the folder's layout; a reader refuses another one."""

T = TypeVar("T")
Arrays = dict[str, npt.NDArray[Any]]
"""What a model learnt, by name."""

Layout = Mapping[str, tuple[Sequence[int | None], str]]
"""What arrays must be, by name: their shape (None for any length), and the kind of their numbers, ``f`` or ``i``."""


@dataclass(frozen=True, kw_only=True)
class Configured:
    """What a model was made with.

    Attributes
    ----------
    model, preset, parameters, seed
        Its name, and what its constructor was given.
    versions
        Of the packages that took part.
    """

    model: str
    preset: str
    parameters: dict[str, Any]
    seed: int
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ModelRecord(Configured):
    """``model.json``: what is needed to make the model again.

    Attributes
    ----------
    metadata
        What it was fitted to, as JSON has it.
    """

    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunRecord(Configured):
    """``run.json``: how the fit went. What is measured may be missing.

    Attributes
    ----------
    held_out, data_fingerprint
        The context whose perturbed cells training did not see; of the data.
    device, precision
        Where it was trained, and the number format of the largest products.
    seconds_fit, steps, n_parameters
        How long it took, in how many steps, and how many numbers training moved.
    left_out
        How it did on what it left out.
    """

    held_out: str | None
    data_fingerprint: str
    device: str | None = None
    precision: str | None = None
    seconds_fit: float | None = None
    steps: int | None = None
    n_parameters: int | None = None
    left_out: LeftOutScore | None = None


@dataclass(frozen=True)
class FittedModel:
    """What a run folder holds.

    Attributes
    ----------
    arrays
        All that was learnt (``model.safetensors``).
    model
        What the model is and what it was fitted to (``model.json``).
    run
        How the fit went (``run.json``).
    history
        Losses, epoch by epoch (``history.csv``).
    """

    arrays: Arrays
    model: ModelRecord
    run: RunRecord
    history: pd.DataFrame


def check_free(folder: Path) -> Path:
    """Make ``folder`` if need be, and be sure a run can be written there.

    Raises
    ------
    InputError
        If it cannot be written, or already holds a finished run.
    """
    from multipert.data import check_writable

    if os.path.exists(folder / "model.json"):
        raise InputError(f"{folder} already holds a run: choose another folder, or delete it first")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InputError(f"cannot write to {folder} ({error.strerror}): choose another folder") from error
    check_writable(folder / "run.json")
    return folder


def write_run(folder: Path, fitted: FittedModel, *, overwrite: bool) -> None:
    """Write a run folder; ``model.json`` comes last, so that a folder that has it is whole."""
    from multipert.data import atomic_path, write_text

    if overwrite:
        (folder / "model.json").unlink(missing_ok=True)
    check_free(folder)
    weights = save({name: np.asarray(array, order="C") for name, array in fitted.arrays.items()})
    with atomic_path(folder / "model.safetensors") as path:
        path.write_bytes(weights)
    write_text(folder / "history.csv", fitted.history.to_csv(index=False))
    write_text(folder / "run.json", json.dumps(asdict(fitted.run), indent=2))
    model = json.loads(json.dumps({"format": FORMAT, **asdict(fitted.model)}))  # as whoever reads it finds it
    write_text(folder / "model.json", json.dumps({**model, "checksum": _seal(model, weights)}, indent=1))
    (folder / CHECKPOINT).unlink(missing_ok=True)


def read_run(folder: Path) -> FittedModel:
    """Read a run folder.

    Raises
    ------
    InputError
        If it is no run folder, is damaged, or was written by another version of multipert.
    """
    if not os.path.isfile(folder / "model.json"):
        raise InputError(f"{folder} holds no fitted model (no model.json): give the folder that fit wrote")
    with blame(folder):
        described = _read_json(folder / "model.json")
        written = described.get("format")
        if written != FORMAT:
            raise InputError(
                f"model.json has format {written!r}, this version of multipert reads {FORMAT}: where it is no damage, "
                "the run was written by an older or newer one"
            )
        weights = (folder / "model.safetensors").read_bytes()
        if _seal(described, weights) != described.get("checksum"):
            raise InputError("model.json or model.safetensors is not what was written: the checksum is another")
        described = {name: value for name, value in described.items() if name not in ("format", "checksum")}
        model = as_type(ModelRecord, described, "model.json")
        run = as_type(RunRecord, _read_json(folder / "run.json"), "run.json")
        for field in fields(Configured):
            if getattr(model, field.name) != getattr(run, field.name):
                raise InputError(f"model.json and run.json disagree in {field.name}")
        arrays = {name: np.array(array) for name, array in load(weights).items()}
        return FittedModel(arrays, model, run, _read_history(folder / "history.csv"))


@contextmanager
def blame(folder: Path) -> Iterator[None]:
    """Say of whatever goes wrong with what was read that ``folder`` is damaged."""
    try:
        yield
    except (InputError, OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{folder} is damaged ({what}): fit again or copy it anew") from error


# What is read, checked.


def as_type(kind: type[T], value: Any, where: str) -> T:
    """JSON ``value`` as ``kind``: a dataclass, or a type such as its fields have.

    Parameters
    ----------
    kind
        Dataclasses may hold each other, tuples, mappings by text, unions, texts, numbers, and ``Any`` or ``object``.
    value
        What ``json.loads`` gave.
    where
        Where it stands, for the message.

    Raises
    ------
    InputError
        If it is something else, a field is missing without a default, or one is there that is none.
    """
    return typing.cast(T, _as_type(kind, value, where))


def _as_type(kind: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        return value
    if is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        types_ = typing.get_type_hints(kind)
        declared = {field.name: field for field in fields(kind)}
        for name in value.keys() - declared.keys():
            raise InputError(f"{where} has an unknown field {name!r}")
        for name, field in declared.items():
            if name not in value and field.default is MISSING and field.default_factory is MISSING:
                raise InputError(f"{where} lacks {name}")
        given = [name for name in declared if name in value]
        return kind(**{name: _as_type(types_[name], value[name], f"{where}: {name}") for name in given})
    if origin in (typing.Union, types.UnionType):
        for one in inner:
            try:
                return _as_type(one, value, where)
            except InputError:
                continue
    elif origin is typing.Literal and isinstance(value, str) and value in inner:
        return value
    elif isinstance(origin, type) and issubclass(origin, Sequence) and isinstance(value, list):
        return tuple(_as_type(inner[0], one, where) for one in value)
    elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict):
        return {name: _as_type(inner[1], one, f"{where}: {name}") for name, one in value.items()}
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif isinstance(kind, type) and type(value) is kind:
        return value
    raise InputError(f"{where} cannot be {json.dumps(value)[:60]}")


def check_arrays(arrays: Arrays, expected: Layout, *, unknown: Collection[str] = ()) -> None:
    """Check what was learnt before it is used: names, shapes, kinds of numbers, and that all are finite.

    Parameters
    ----------
    arrays
        What was read.
    expected
        What it must be.
    unknown
        Arrays, by the last part of their name, in which NaN stands for what training saw too little of to know.

    Raises
    ------
    InputError
        The first that is not as expected.
    """
    for name in expected.keys() ^ arrays.keys():
        raise InputError(f"the weights {'lack' if name in expected else 'should not have'} {name!r}")
    for name, (shape, kind) in expected.items():
        array = arrays[name]
        fits = len(shape) == array.ndim and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        if not fits or array.dtype.kind != kind:
            wanted = "x".join("any" if n is None else str(n) for n in shape)
            raise InputError(
                f"the weights {name!r} are {'x'.join(map(str, array.shape))} {array.dtype}, where the model's "
                f"parameters make them {wanted}"
            )
        may_be_nan = name.rpartition(".")[2] in unknown
        if kind == "f" and (np.isinf(array).any() or (not may_be_nan and np.isnan(array).any())):
            raise InputError(f"the weights {name!r} are not finite: the training diverged")


def _read_json(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    def number(text: str) -> float:
        if not math.isfinite(float(text)):
            refuse(text)
        return float(text)

    try:
        read = json.loads(path.read_text("utf-8"), parse_constant=refuse, parse_float=number)
    except RecursionError:
        read = None
    except ValueError as error:
        raise InputError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(read, dict):
        raise InputError(f"{path.name} holds no record")
    return read


def _read_history(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        history = pd.read_csv(path)
    except ValueError as error:
        raise InputError(f"{path.name} is no table: {error}") from error
    missing = [name for name in ("stage", "epoch", "step", "seconds") if name not in history]
    if missing:
        raise InputError(f"{path.name} has no column {missing[0]}")
    for name in history.columns.drop("stage"):
        numbers = pd.to_numeric(history[name], errors="coerce")
        if (numbers.isna() & history[name].notna()).any():
            raise InputError(f"{path.name} has a text in column {name}")
        if name in ("epoch", "step", "seconds") and not ((numbers >= 0) & (numbers < np.inf)).all():
            raise InputError(f"{path.name} has no number, or one that cannot be, in column {name}")
    return history


def _seal(model: Mapping[str, Any], weights: bytes) -> str:
    """The checksum of what ``model.json`` says, whatever its checksum, and of the weights."""
    said = {name: value for name, value in model.items() if name != "checksum"}
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode() + weights, digest_size=16).hexdigest()
