"""An optimiser that moves every lane as if it were alone."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from multipert.training.stages import Optimiser


class LaneOptimiser:
    """A torch optimiser over each lane's slices of the weights.

    Adam counts the steps of each tensor that it moves. Slices of its own give each lane a count of its own, and a lane
    whose gradient is withheld stands still: weights, moments and count.

    Parameters
    ----------
    optimiser
        Which modules move, and how.
    """

    def __init__(self, optimiser: Optimiser) -> None:
        self.lr = optimiser.lr
        self.parameters: list[nn.Parameter] = optimiser.parameters
        self._slices: list[list[Tensor]] = [list(p.detach()) for p in self.parameters]
        self.torch: torch.optim.Optimizer = optimiser.build([lane for slices in self._slices for lane in slices])

    def forget_gradient(self) -> None:
        """Let go of the last gradient, and of its memory."""
        for parameter, slices in zip(self.parameters, self._slices, strict=True):
            parameter.grad = None
            for lane in slices:
                lane.grad = None

    def step(self, lanes: Iterable[int], rate: float) -> None:
        """Move some lanes along the gradient of the parameters, the learning rate multiplied by ``rate``."""
        lanes = list(lanes)
        for parameter, slices in zip(self.parameters, self._slices, strict=True):
            if parameter.grad is not None:
                gradients = parameter.grad.unbind()
                for lane in lanes:
                    slices[lane].grad = gradients[lane]
        for group in self.torch.param_groups:
            group["lr"] = self.lr * rate
        self.torch.step()
