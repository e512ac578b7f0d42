"""The squared error to a target that is mostly zeros, and is never written out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor
from torch.autograd.function import once_differentiable

from multipert.networks.compiled import Numbers, compiled
from multipert.networks.sparse import SparseBatch


def sparse_squared_error(predicted: Tensor, target: SparseBatch) -> Tensor:
    """Mean over all elements (cells x genes) of the squared error, one number a lane; on the CPU.

    Loss and gradient are taken in one pass over the prediction, as if the target were zero throughout, and put right at
    the values that are not: ``(p - t)^2 = p^2 + t (t - 2 p)``. The gradient has the number format of the prediction.
    """
    result: Tensor = _SparseSquaredError.apply(predicted, target)  # type: ignore[no-untyped-call]
    return result


class _SparseSquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, predicted: Tensor, target: SparseBatch) -> Tensor:
        lanes, cells, genes = target.shape
        rows = _as_rows(predicted)
        gradient = np.empty_like(rows if ctx.needs_input_grad[0] else rows[:0])
        totals = _squared_error(rows, *target.host, lanes, np.float32(2.0 / (cells * genes)), gradient)
        if len(gradient):
            ctx.gradient = _tensor_of(gradient, predicted)
        return torch.from_numpy(totals).mul_(1.0 / (cells * genes))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if all(factor == 1.0 for factor in gradient.tolist()):
            return ctx.gradient, None
        # The factor is not rounded, which would tilt all elements alike.
        return (ctx.gradient * gradient.view(-1, 1, 1)).to(ctx.gradient.dtype), None


@compiled
def _squared_error(
    predicted: Numbers,
    offsets: Numbers,
    columns: Numbers,
    values: Numbers,
    lanes: int,
    factor: np.float32,
    gradient: Numbers,
) -> Numbers:
    """The sum of squared differences in each lane; the differences times a factor go to ``gradient`` unless empty."""
    rows, genes = predicted.shape
    totals, wanted = np.zeros(lanes, np.float32), len(gradient) > 0
    for row in range(rows):
        lane = row * lanes // rows
        total = np.float32(0)
        for gene in range(genes):
            like = predicted[row, gene]
            number = _number_of(like)
            total += number * number
            if wanted:
                gradient[row, gene] = _stored_as(like, number * factor)
        for n in range(offsets[row], offsets[row + 1]):
            gene = columns[n] - lane * genes
            like = predicted[row, gene]
            number, value = _number_of(like), values[n]
            total += value * (value - 2 * number)
            if wanted:
                gradient[row, gene] = _stored_as(like, (number - value) * factor)
        totals[lane] += total
    return totals


# bfloat16, which neither numpy nor numba knows: stored as the upper half of a float32's bits.


def _as_rows(x: Tensor) -> Numbers:
    """``(lanes, cells, features)`` as an array of rows, its memory shared where it has no gaps."""
    rows = x.detach().contiguous().flatten(0, 1)
    return (rows.view(torch.uint16) if x.dtype == torch.bfloat16 else rows).numpy()


def _tensor_of(rows: Numbers, like: Tensor) -> Tensor:
    """The tensor of which these are the rows, its shape and number format those of another."""
    return torch.from_numpy(rows).view(like.dtype).view(like.shape)


def _number_of(stored: Any) -> Any:
    """In a compiled loop: the number that is stored."""
    raise NotImplementedError


def _stored_as(like: Any, number: Any) -> Any:
    """In a compiled loop: a number in the format in which another is stored."""
    raise NotImplementedError


@overload(_number_of, inline="always", strict=False)
def _number_implementation(stored: Any) -> Callable[..., Any]:
    if isinstance(stored, types.Integer):
        return lambda stored: np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)
    return lambda stored: stored


@overload(_stored_as, inline="always", strict=False)
def _stored_implementation(like: Any, number: Any) -> Callable[..., Any]:
    if isinstance(like, types.Integer):

        def rounded(like: Any, number: Any) -> Any:
            bits = np.float32(number).view(np.uint32)
            half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))  # ties to even
            return np.uint16((bits + half) >> np.uint32(16))

        return rounded
    return lambda like, number: number
