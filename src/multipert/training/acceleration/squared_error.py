"""The squared error to profiles that are mostly zeros, and are never written out."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from multipert.training.acceleration.switches import switched_on


def sparse_squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over all elements (cells x genes) of the squared error to compressed sparse rows.

    The gradient is rounded once to the number format of the prediction.
    """
    if not switched_on("sparse-loss"):
        return (predicted - target.to_dense()).square().mean()
    return _SparseSquaredError.apply(predicted, target)  # type: ignore[no-untyped-call, no-any-return]


class _SparseSquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, predicted: Tensor, target: Tensor) -> Tensor:
        difference = predicted.detach().to(torch.float32, copy=True).add_(target, alpha=-1)
        ctx.difference, ctx.dtype = difference, predicted.dtype
        flat = difference.view(-1)
        return torch.dot(flat, flat) / len(flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        difference, ctx.difference = ctx.difference, None  # its memory is used again: there is no second way back
        return difference.mul_(gradient * 2 / difference.numel()).to(ctx.dtype), None
