"""Losses that several methods share, one number a lane or a cell."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from multipert.networks import SparseBatch


def mean_squared_error(predicted: Tensor, target: Tensor | SparseBatch) -> Tensor:
    """Squared error averaged over all elements (cells x genes), one number a lane."""
    if isinstance(target, SparseBatch):
        result: Tensor = _SparseSquaredError.apply(predicted, target)  # type: ignore[no-untyped-call]
        return result
    return (predicted - target).square().mean(dim=(1, 2))


class _SparseSquaredError(torch.autograd.Function):
    """Mean squared error to a target that is mostly zeros, and is never written out.

    The difference is the prediction but for the target's values; it is kept, scaled in place, as the gradient.
    """

    @staticmethod
    def forward(ctx: Any, predicted: Tensor, target: SparseBatch) -> Tensor:
        difference = predicted.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        ctx.dtype = predicted.dtype
        difference.view(-1).scatter_add_(0, target.positions, -target.values)
        ctx.difference = difference
        # One pass over all elements; squares would be written out and read again.
        norm: Tensor = torch.linalg.vector_norm(difference, dim=(1, 2))
        return norm.square() / predicted[0].numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        difference: Tensor = ctx.difference
        return (difference * (gradient * (2.0 / difference[0].numel())).view(-1, 1, 1)).to(ctx.dtype), None


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits (lanes, cells) with labels in [0, 1], cell by cell."""
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
