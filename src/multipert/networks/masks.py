"""Which values dropout keeps: cheap random masks."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from multipert.networks.compiled import Numbers, compiled


def draw_kept(shape: Sequence[int], rate: float, generator: torch.Generator) -> Tensor:
    """Draw which values stay: true with probability ``1 - rate``; on a CPU to a 65,536th.

    There each random number of 64 bits serves four values, sixteen bits each: ten times faster than a draw for each.
    """
    if generator.device.type == "cpu":
        seed = torch.empty((), dtype=torch.int64).random_(-(2**63), None, generator=generator)
        return torch.from_numpy(_kept(int(seed), math.prod(shape), round(rate * 2**16))).view(*shape)
    return torch.rand(*shape, generator=generator, device=generator.device) >= rate


@compiled
def _kept(seed: int, count: int, below: int) -> Numbers:
    """Whether each of ``count`` numbers of 16 bits is not below a bound; drawn by SplitMix64 (Steele 2014)."""
    kept = np.empty(4 * (-(-count // 4)), np.bool_)
    bound = np.uint32(below)
    for n in range(len(kept) // 4):
        z = np.uint64(seed) + np.uint64(n + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        for part in range(4):
            kept[4 * n + part] = np.uint32((z >> np.uint64(16 * part)) & np.uint64(0xFFFF)) >= bound
    return kept[:count]
