"""An optimiser that moves every lane as if it were alone, all of them and all parameters in one call."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from multipert.training.stages import Optimiser


class LaneOptimiser:
    """Adam (Kingma 2015) or gradient descent, at work on stacked lanes.

    Adam counts the steps of each parameter. Here each lane has a count of its own, and one that is left out stands
    still: weights, moments and count. The arithmetic is torch's fused kernel, called without torch's bookkeeping, which
    takes half as long again for networks of this size, and copies whatever is not stored row by row: here the kernel
    sees each parameter in the order of its memory.

    Parameters
    ----------
    optimiser
        Which modules move, and how.
    """

    def __init__(self, optimiser: Optimiser) -> None:
        self.optimiser = optimiser
        self.parameters = optimiser.parameters
        self._values = [as_stored(parameter, parameter.detach()) for parameter in self.parameters]
        pairs = zip(self._values, self.parameters, strict=True)
        assert all(value.data_ptr() == parameter.data_ptr() for value, parameter in pairs), "a copy would move instead"
        moments = 2 if optimiser.rule == "adam" else 0
        self._moments = [[torch.zeros_like(value) for value in self._values] for _ in range(moments)]
        first = self._values[0]
        self._steps = torch.zeros(len(first), len(self._values), device=first.device)
        self._slices: dict[tuple[tuple[int, ...], tuple[int, ...]], list[list[Tensor]]] = {}

    @torch.no_grad()
    def step(self, lanes: Sequence[int], rate: float) -> None:
        """Move some lanes along the gradient of the parameters that have one, the learning rate times ``rate``.

        The gradient is gone after it, and its memory is free for the next batch.
        """
        told = self.optimiser
        moving = {n: as_stored(p, p.grad).unbind() for n, p in enumerate(self.parameters) if p.grad is not None}
        gradients = [gradient[lane] for lane in lanes for gradient in moving.values()]
        for parameter in self.parameters:
            parameter.grad = None
        if not gradients:
            return
        parts = self._parts(tuple(lanes), tuple(moving))
        if told.rule == "sgd":
            torch._foreach_add_(parts[0], gradients, alpha=-told.lr * rate)
            return
        values, means, squares, steps = parts
        if len(steps) == self._steps.numel():
            self._steps.add_(1)
        else:
            torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            values,
            gradients,
            means,
            squares,
            [],
            steps,
            lr=told.lr * rate,
            beta1=told.betas[0],
            beta2=told.betas[1],
            weight_decay=told.weight_decay,
            eps=told.epsilon,
            amsgrad=False,
            maximize=False,
        )

    def _parts(self, lanes: tuple[int, ...], moving: tuple[int, ...]) -> list[list[Tensor]]:
        """Values, moments and step counts of some parameters in some lanes, as the kernel reads them."""
        if (lanes, moving) not in self._slices:
            kinds = [self._values, *self._moments, self._steps.unbind(1)]
            self._slices[lanes, moving] = [[kind[n][lane] for lane in lanes for n in moving] for kind in kinds]
        return self._slices[lanes, moving]

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, by name."""
        moments = {f"moment{of}/{n}": m for of, all_ in enumerate(self._moments) for n, m in enumerate(all_)}
        return {"steps": self._steps, **moments}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def as_stored(parameter: Tensor, tensor: Tensor) -> Tensor:
    """``tensor`` with its axes in the order in which the parameter is stored, and without gaps.

    The kernel runs over memory and never looks at strides; gradients nearly always come stored as their parameter.
    """
    return (tensor if parameter.is_contiguous() else tensor.mT).contiguous()
