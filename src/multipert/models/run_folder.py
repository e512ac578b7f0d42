"""A fitted model on disk: safetensors and JSON, so that no pickle is ever read from a folder somebody sent."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from multipert.data import atomic_path, check_writable, write_text
from multipert.errors import InputError
from multipert.training import CHECKPOINT

FORMAT = 1
"""Version of the folder's layout; a reader refuses a newer one."""


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

    arrays: dict[str, npt.NDArray[Any]]
    model: dict[str, Any]
    run: dict[str, Any]
    history: pd.DataFrame


def check_free(folder: Path) -> Path:
    """Make ``folder`` if need be, and be sure a run can be written there.

    Raises
    ------
    InputError
        If it cannot be written, or already holds a finished run.
    """
    if (folder / "model.json").exists():
        raise InputError(f"{folder} already holds a run: choose another folder, or delete it first")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}): choose another folder") from error
    check_writable(folder / "run.json")
    return folder


def write_run(folder: Path, fitted: FittedModel, *, overwrite: bool) -> None:
    """Write a run folder; ``model.json`` comes last, so that a folder that has it is whole."""
    if overwrite:
        (folder / "model.json").unlink(missing_ok=True)
    check_free(folder)
    with atomic_path(folder / "model.safetensors") as path:
        save_file({name: np.asarray(array, order="C") for name, array in fitted.arrays.items()}, path)
    write_text(folder / "history.csv", fitted.history.to_csv(index=False))
    write_text(folder / "run.json", json.dumps(fitted.run, indent=2))
    write_text(folder / "model.json", json.dumps({"format": FORMAT, **fitted.model}, indent=1))
    (folder / CHECKPOINT).unlink(missing_ok=True)


def read_run(folder: Path) -> FittedModel:
    """Read a run folder.

    Raises
    ------
    InputError
        If it is no run folder, is damaged, or was written by a newer multipert.
    """
    if not (folder / "model.json").is_file():
        raise InputError(f"{folder} holds no fitted model (no model.json): give the folder that fit wrote")
    try:
        model = json.loads((folder / "model.json").read_text("utf-8"))
        if model["format"] > FORMAT:
            raise InputError(f"{folder} was written by multipert {model['versions']['multipert']}: update to read it")
        return FittedModel(
            arrays=load_file(folder / "model.safetensors"),
            model=model,
            run=json.loads((folder / "run.json").read_text("utf-8")),
            history=pd.read_csv(folder / "history.csv"),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} is damaged ({type(error).__name__}: {error}): fit again or copy it anew") from error
