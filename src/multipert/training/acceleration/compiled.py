"""Loops that no array library has, compiled by numba at their first call; who imports this waits for numba."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

Numbers = npt.NDArray[Any]
Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """Compile a loop over arrays; once for a machine, where there is a folder to keep the outcome in."""
    # Sums in any order, but what is not a number stays so.
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}
    try:
        return njit(cache=True, **options)(loop)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return njit(**options)(loop)  # type: ignore[no-any-return]


def mask_seed() -> int:
    """What the next dropout mask is drawn from; comes from torch's stream, which a checkpoint keeps."""
    return int(torch.empty((), dtype=torch.int64).random_())


@compiled
def kept(seed: int, count: int, rate: float) -> Numbers:
    """Which of ``count`` values dropout keeps, by SplitMix64 (Steele 2014): 16 random bits for each, four from a draw.

    Torch draws for every value, which takes several times as long.
    """
    mask = np.empty(count + 3, np.bool_)
    bound = np.uint32(round(rate * 2**16))
    for n in range((count + 3) // 4):
        z = np.uint64(seed) + np.uint64(n + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        for part in range(4):
            mask[4 * n + part] = np.uint32((z >> np.uint64(16 * part)) & np.uint64(0xFFFF)) >= bound
    return mask[:count]
