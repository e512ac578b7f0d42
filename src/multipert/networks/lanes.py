"""Lanes: networks of one shape trained side by side as one batched computation.

Every layer of :mod:`multipert.networks` carries a leading lane axis: its weights are ``(lanes, in, out)``, what flows
through it is ``(lanes, cells, features)``. A single fit is one lane.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Lanes:
    """How many networks run side by side, and the random stream of each.

    A lane draws its initial weights, its dropout masks and its noise from its own generator, so that it comes out the
    same whether it is trained alone or beside others.

    Parameters
    ----------
    seeds
        One seed for each lane.
    device
        Where the random numbers are drawn.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seeds = tuple(seeds)
        self.to(device)

    def __len__(self) -> int:
        return len(self.seeds)

    def to(self, device: torch.device | str) -> None:
        """Draw from now on on ``device``, from streams started anew."""
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in self.seeds]

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers in [low, high), ``(lanes, *shape)``."""
        return (
            torch.stack([torch.rand(shape, generator=g, device=g.device) for g in self.generators])
            .mul_(high - low)
            .add_(low)
        )

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, ``(lanes, *shape)``."""
        return torch.stack([torch.randn(shape, generator=g, device=g.device) for g in self.generators])

    def state(self) -> Tensor:
        """Where each stream stands, ``(lanes, bytes)``: what a checkpoint keeps."""
        return torch.stack([generator.get_state() for generator in self.generators])

    def restore(self, state: Tensor) -> None:
        """Set every stream back to where :meth:`state` was taken."""
        for generator, row in zip(self.generators, state, strict=True):
            generator.set_state(row.clone())  # a view into the checkpoint is not aligned for torch
