"""How and where a training runs: what can be said of it before torch is there."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from multipert.errors import InputError
from multipert.training.history import History

if TYPE_CHECKING:
    from torch import nn

CHECKPOINT = "checkpoint.safetensors"
"""The file in a run folder that an unfinished training goes on from."""

Precision = Literal["auto", "float32", "bfloat16"]
"""Number format of the largest products in training; ``"auto"`` asks the device and the model."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""Every :data:`Precision`."""

WIDE = 1024
"""Genes from which the output layer's products outweigh the rest of a step, so that bfloat16 gains something."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; where it has a folder, the same call goes on from the checkpoint there."""


@dataclass(frozen=True)
class TrainerConfig:
    """How and where a training runs; nothing in it changes the result, but for the arithmetic of the device.

    Parameters
    ----------
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` (``"cuda:1"`` is the second GPU) or ``"mps"``.
    folder
        Where checkpoints go; without one, nothing is written and nothing resumed.
    progress
        Whether to show progress; by default only on a terminal.
    precision
        Number format of the output layer's products, which hold most of the arithmetic: ``"auto"``, ``"float32"`` or
        ``"bfloat16"``.
    on_epoch
        Called after each epoch with the network, in evaluation mode, and its history so far. The time it takes does
        not count.
    """

    device: str = "auto"
    folder: Path | None = None
    progress: bool | None = None
    precision: Precision = "auto"
    on_epoch: "Callable[[nn.Module, History], None] | None" = None

    def resolve(self, *, n_genes: int, bfloat16: bool) -> "TrainerConfig":
        """The same with ``"auto"`` replaced by what it comes to on this machine.

        Parameters
        ----------
        n_genes
            Width of an expression profile.
        bfloat16
            Whether ``"auto"`` may be bfloat16: it is where the device has it in hardware and profiles are wide.

        Raises
        ------
        InputError
            If this machine has no such device, or there is no such precision.
        """
        from multipert.training.device import choose_device, has_bfloat16

        if self.precision not in PRECISIONS:
            raise InputError(f"there is no precision {self.precision!r}: choose from {', '.join(PRECISIONS)}")
        device = choose_device(self.device)
        precision = self.precision
        if precision == "auto":
            precision = "bfloat16" if bfloat16 and n_genes >= WIDE and has_bfloat16(device) else "float32"
        return replace(self, device=str(device), precision=precision)
