"""Checkpoints: everything a training needs to go on, in one safetensors file, written atomically.

No pickle: tensors by name, and one JSON text in the file's header for the rest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multipert.data import atomic_path
from multipert.errors import InputError
from multipert.training.config import CHECKPOINT


@dataclass(frozen=True)
class Checkpoint:
    """A training stopped between two batches.

    Parameters
    ----------
    identity
        What determines the training (model, parameters, seed, data): only the same may go on from here.
    position
        Stage, epoch and step reached, and what was measured so far.
    tensors
        Weights, optimiser moments and random streams, by name.
    """

    identity: Mapping[str, Any]
    position: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def save(self, folder: Path) -> None:
        """Write the checkpoint into ``folder``, replacing the last one only once it is whole."""
        with atomic_path(folder / CHECKPOINT) as path:
            text = json.dumps({"identity": self.identity, "position": self.position})
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()},
                path,
                metadata={"training": text},
            )

    @classmethod
    def load(cls, folder: Path) -> "Checkpoint | None":
        """Read the checkpoint in ``folder``, if there is one.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                training = json.loads(file.metadata()["training"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no checkpoint that can be read ({error}): delete it to start anew") from error
        return cls(training["identity"], training["position"], tensors)


def within(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix/``, under the rest of their names."""
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under ``prefix/``: the inverse of :func:`within`."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}
