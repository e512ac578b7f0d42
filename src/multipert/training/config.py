"""How and where a training runs: what can be said of it before torch is there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multipert.errors import InputError
from multipert.training.history import History

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from multipert.networks import Precision

CHECKPOINT = "checkpoint.safetensors"
"""The file in a run folder that an unfinished training goes on from."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; where it has a folder, the same call goes on from the checkpoint there."""


@dataclass(frozen=True)
class TrainerConfig:
    """How and where a training runs; nothing in it changes the result, but for the arithmetic of the device.

    Parameters
    ----------
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``: the accelerator's name in Lightning Fabric. ``"cuda:1"`` is the
        second GPU.
    folder
        Where checkpoints go; without one, nothing is written and nothing resumed.
    progress
        Whether to show progress; by default only on a terminal.
    precision
        Number format of the largest products: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
    on_epoch
        Called after each epoch with the network, in evaluation mode and of one lane, and its history so far. The
        time it takes does not count.
    """

    device: str = "auto"
    folder: Path | None = None
    progress: bool | None = None
    precision: "Precision" = "auto"
    on_epoch: "Callable[[nn.Module, History], None] | None" = None

    def fabric(self) -> "Fabric":
        """The device, set up.

        Raises
        ------
        InputError
            If this machine has no such device.
        """
        from lightning_fabric import Fabric

        accelerator, _, number = self.device.partition(":")
        try:
            return Fabric(accelerator=accelerator, devices=[int(number)] if number else 1)
        except Exception as error:  # Lightning raises its own kinds, none of them public
            raise InputError(f"this machine cannot train on device {self.device!r} ({error}): try 'cpu'") from error
