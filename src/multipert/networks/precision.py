"""Which number format a network's products are taken in."""

from typing import Literal

import torch
from torch import nn

from multipert.errors import InputError
from multipert.networks.layers import WIDE, Linear

Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bfloat16")


def set_precision(network: nn.Module, precision: Precision, device: torch.device) -> None:
    """Say in which format the layers that write expression profiles take their products in training.

    These few layers hold nearly all of the arithmetic. Everything else, the stored weights and their optimiser, and
    evaluation mode stay in float32.

    Parameters
    ----------
    network
        Its :class:`~multipert.networks.Linear` layers as wide as genes are set; the others stay as they are.
    precision
        ``"auto"`` is bfloat16 where the device has it in hardware, float32 otherwise.
    device
        Where the network is trained.

    Raises
    ------
    InputError
        If there is no such precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"there is no precision {precision!r}: choose from {', '.join(PRECISIONS)}")
    low = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    for module in network.modules():
        if isinstance(module, Linear) and module.weight.shape[-1] >= WIDE:
            module.precision = torch.bfloat16 if low else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 numbers in hardware: an emulation would be slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # Not every torch that is supported can tell; one that cannot is taken at its word.
    tells = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, tell, lambda: False)() for tell in tells)
