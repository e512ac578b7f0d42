"""Where a training runs, and the random stream that it draws from there."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from multipert.errors import InputError


def choose_device(name: str) -> torch.device:
    """The device called ``name``; for ``"auto"`` a GPU where there is one.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type not in ("cpu", "cuda", "mps") or (device.type == "cpu" and device.index):
            raise RuntimeError("there is none of that name")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(f"this machine cannot train on device {name!r} ({why}): try 'cpu'") from error
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 numbers in hardware: an emulation would be slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # Not every torch that is supported can tell; one that cannot is taken at its word.
    tells = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, tell, lambda: False)() for tell in tells)


@contextmanager
def random_stream(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Draw from torch's generator as seeded with ``seed``; the caller's stream goes on afterwards as if untouched."""
    with torch.random.fork_rng([device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def stream_state(device: torch.device) -> dict[str, Tensor]:
    """Where the random stream stands: what a checkpoint keeps."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def restore_stream(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Set the random stream back to where :func:`stream_state` was taken."""
    torch.set_rng_state(state["cpu"].clone())  # what is read from a checkpoint is not aligned for torch
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].clone(), device)
