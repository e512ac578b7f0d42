"""Dense products, lane by lane, in the number format that is asked for."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def affine(x: Tensor, weight: Tensor, bias: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """``x @ weight + bias`` in every lane.

    Parameters
    ----------
    x
        ``(lanes, cells, n_in)``.
    weight
        ``(lanes, n_in, n_out)``.
    bias
        ``(lanes, 1, n_out)``.
    precision
        The number format in which the product and those of its gradients are taken, and that of the result: nothing is
        gained by widening what was rounded. Weights, and gradients of what is given, keep theirs.
    """
    if precision == x.dtype and weight.stride(-1) == 1:
        return _multiply(x, weight, bias)  # nothing is gained by taking the gradients ourselves
    result: Tensor = _Affine.apply(x, weight, bias, precision)  # type: ignore[no-untyped-call]
    return result


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, precision: torch.dtype) -> Tensor:
        rounded, weights = x.to(precision), weight.to(precision)
        ctx.save_for_backward(rounded, weights)
        ctx.dtypes = x.dtype, weight.dtype
        return _multiply(rounded, weights, bias.to(precision))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        rounded = gradient.to(x.dtype)
        gradients: list[Tensor | None] = [None, None, None]
        if for_x:
            gradients[0] = _multiply(rounded, weight.mT).to(ctx.dtypes[0])
        if for_weight:
            # Stored as the weights are, or the optimiser would have to transpose one of the two.
            by_feature = weight.stride(-1) != 1
            product = _multiply(rounded.mT, x).mT if by_feature else _multiply(x.mT, rounded)
            gradients[1] = product.to(ctx.dtypes[1])
        if for_bias:
            gradients[2] = gradient.sum(1, keepdim=True, dtype=ctx.dtypes[1])
        return *gradients, None


def _multiply(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a @ b`` in every lane, plus ``bias`` where given."""
    if len(a) > 1:
        return torch.bmm(a, b) if bias is None else torch.baddbmm(bias, a, b)
    # A batch of one takes longer than the one product in it.
    a, b = a.squeeze(0), b.squeeze(0)
    return (torch.mm(a, b) if bias is None else torch.addmm(bias.squeeze(0), a, b)).unsqueeze(0)
