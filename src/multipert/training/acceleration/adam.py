"""Adam (Kingma 2015) and gradient descent, without torch.optim."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class FusedAdam:
    """Adam by torch's fused kernel, called without torch.optim's bookkeeping.

    That bookkeeping takes half as long again for networks of this size, a second and more to import, and copies what is
    not stored row by row: here the kernel sees each parameter in the order of its memory.

    Parameters
    ----------
    parameters
        What moves.
    lr, betas, epsilon, weight_decay
        As of ``torch.optim.Adam``.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        epsilon: float,
        weight_decay: float,
    ) -> None:
        self.parameters = parameters
        self.lr, self.betas, self.epsilon, self.weight_decay = lr, betas, epsilon, weight_decay
        self._values = [as_stored(parameter, parameter.detach()) for parameter in parameters]
        self._means, self._squares = ([torch.zeros_like(value) for value in self._values] for _ in range(2))
        self._steps = [torch.zeros((), device=value.device) for value in self._values]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Follow the gradient of the parameters that have one, the learning rate times ``rate``.

        The gradient is gone after it, and its memory is free for the next batch.
        """
        moving = [n for n, parameter in enumerate(self.parameters) if parameter.grad is not None]
        gradients = [as_stored(self.parameters[n], self.parameters[n].grad) for n in moving]  # type: ignore[arg-type]
        for parameter in self.parameters:
            parameter.grad = None
        if not moving:
            return
        steps = [self._steps[n] for n in moving]
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            [self._values[n] for n in moving],
            gradients,
            [self._means[n] for n in moving],
            [self._squares[n] for n in moving],
            [],
            steps,
            lr=self.lr * rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, by name."""
        kinds = {"mean": self._means, "square": self._squares, "step": self._steps}
        return {f"{name}/{n}": tensor for name, kind in kinds.items() for n, tensor in enumerate(kind)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def as_stored(parameter: Tensor, tensor: Tensor) -> Tensor:
    """``tensor`` with its axes in the order in which the parameter is stored, and without gaps.

    The kernel runs over memory and never looks at strides; gradients nearly always come stored as their parameter.
    """
    return (tensor if parameter.is_contiguous() else tensor.mT).contiguous()


class GradientDescent:
    """Stochastic gradient descent, the same way.

    Parameters
    ----------
    parameters
        What moves.
    lr
        Learning rate.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float) -> None:
        self.parameters, self.lr = parameters, lr

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Follow the gradient of the parameters that have one, the learning rate times ``rate``."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=-self.lr * rate)
                parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
