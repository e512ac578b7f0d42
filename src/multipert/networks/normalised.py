"""What follows the product in a hidden layer, in one go: batch normalisation, FiLM, LeakyReLU, dropout.

A training step is a few large products and dozens of small operations. After the optimiser has streamed all weights
through the cache each of these finds its code and its numbers cold, which takes longer than the arithmetic; one loop
pays for it once.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from multipert.networks.compiled import Numbers, compiled

SLOPE = 0.01
"""LeakyReLU's."""


def normalise_and_activate(
    h: Tensor,
    weight: Tensor,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    condition: Tensor,
    kept: Tensor,
    *,
    scale: float,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    epsilon: float,
) -> Tensor:
    """Normalise over the cells of each lane, modulate, LeakyReLU, dropout; in training, on the CPU.

    Up to rounding, the numbers are those of ``BatchNorm``, ``FiLM``, ``leaky_relu`` and ``Dropout`` in turn.

    Parameters
    ----------
    h
        ``(lanes, cells, width)``.
    weight, bias
        Of the normalisation, ``(lanes, width)``.
    gamma, beta
        FiLM's coefficients of every condition, ``(lanes, conditions, width)``; without conditions there is no FiLM.
    condition
        Codes, ``(lanes, cells)``.
    kept
        What dropout keeps, ``(lanes, cells, width)``; empty if nothing is dropped.
    scale
        What dropout multiplies by.
    mean, variance
        What evaluation will normalise by, ``(lanes, width)``; moved in place.
    momentum
        How far they move.
    epsilon
        Added to the variance.
    """
    numbers = np.array([scale, momentum, epsilon], np.float32)
    result: Tensor = _Normalised.apply(  # type: ignore[no-untyped-call]
        h, weight, bias, gamma, beta, (condition, kept), (mean, variance), numbers
    )
    return result


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        fixed: tuple[Tensor, Tensor],
        running: tuple[Tensor, Tensor],
        numbers: Numbers,
    ) -> Tensor:
        scale, momentum, epsilon = numbers
        x, *given = map(_array, (h, weight, bias, gamma, beta, *fixed))
        out, *saved = _forward(x, *given, scale, *map(_array, running), momentum, epsilon)  # type: ignore[call-arg, arg-type]
        ctx.needed = [*saved, *given, scale]
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *map(torch.from_numpy, _backward(_array(gradient), *ctx.needed)), None, None, None


def _array(x: Tensor) -> Numbers:
    return x.detach().contiguous().numpy()


@compiled
def _forward(
    h: Numbers,
    weight: Numbers,
    bias: Numbers,
    gamma: Numbers,
    beta: Numbers,
    condition: Numbers,
    kept: Numbers,
    scale: np.float32,
    running_mean: Numbers,
    running_variance: Numbers,
    momentum: np.float32,
    epsilon: np.float32,
) -> tuple[Numbers, Numbers, Numbers]:
    """Compute the output; with it return the normalised input, and one over the standard deviations it had before."""
    lanes, cells, width = h.shape
    out, normal = np.empty_like(h), np.empty_like(h)
    precision = np.empty((lanes, width), np.float32)
    one = np.float32(1)
    for lane in range(lanes):
        mean, squares = np.zeros(width, np.float32), np.zeros(width, np.float32)
        for cell in range(cells):
            for f in range(width):
                mean[f] += h[lane, cell, f]
        for f in range(width):
            mean[f] /= np.float32(cells)
        for cell in range(cells):
            for f in range(width):
                deviation = h[lane, cell, f] - mean[f]
                normal[lane, cell, f] = deviation
                squares[f] += deviation * deviation
        for f in range(width):
            precision[lane, f] = one / np.sqrt(squares[f] / np.float32(cells) + epsilon)
            unbiased = squares[f] / np.float32(cells - 1)
            running_mean[lane, f] += momentum * (mean[f] - running_mean[lane, f])
            running_variance[lane, f] += momentum * (unbiased - running_variance[lane, f])
        for cell in range(cells):
            for f in range(width):
                x = normal[lane, cell, f] * precision[lane, f]
                normal[lane, cell, f] = x
                out[lane, cell, f] = x * weight[lane, f] + bias[lane, f]
            if gamma.shape[1]:
                code = condition[lane, cell]
                for f in range(width):
                    out[lane, cell, f] = gamma[lane, code, f] * out[lane, cell, f] + beta[lane, code, f]
            for f in range(width):
                x = out[lane, cell, f]
                out[lane, cell, f] = max(x, x * np.float32(SLOPE)) * scale
            if kept.size:
                for f in range(width):
                    out[lane, cell, f] *= np.float32(kept[lane, cell, f])
    return out, normal, precision


@compiled
def _backward(
    gradient: Numbers,
    normal: Numbers,
    precision: Numbers,
    weight: Numbers,
    bias: Numbers,
    gamma: Numbers,
    beta: Numbers,
    condition: Numbers,
    kept: Numbers,
    scale: np.float32,
) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers]:
    """The gradients of ``h``, ``weight``, ``bias``, ``gamma`` and ``beta``."""
    lanes, cells, width = gradient.shape
    for_h = np.empty_like(normal)
    for_weight, for_bias = np.zeros_like(weight), np.zeros_like(bias)
    for_gamma, for_beta = np.zeros_like(gamma), np.zeros_like(beta)
    for lane in range(lanes):
        for cell in range(cells):
            for f in range(width):
                for_h[lane, cell, f] = gradient[lane, cell, f] * scale
            if kept.size:
                for f in range(width):
                    for_h[lane, cell, f] *= np.float32(kept[lane, cell, f])
            if gamma.shape[1]:
                code = condition[lane, cell]
                for f in range(width):
                    before = normal[lane, cell, f] * weight[lane, f] + bias[lane, f]
                    positive = gamma[lane, code, f] * before + beta[lane, code, f] > 0
                    slope = np.float32(1) if positive else np.float32(SLOPE)
                    step = for_h[lane, cell, f] * slope
                    for_gamma[lane, code, f] += step * before
                    for_beta[lane, code, f] += step
                    for_h[lane, cell, f] = step * gamma[lane, code, f]
            else:
                for f in range(width):
                    positive = normal[lane, cell, f] * weight[lane, f] + bias[lane, f] > 0
                    slope = np.float32(1) if positive else np.float32(SLOPE)
                    for_h[lane, cell, f] *= slope
            for f in range(width):
                for_weight[lane, f] += for_h[lane, cell, f] * normal[lane, cell, f]
                for_bias[lane, f] += for_h[lane, cell, f]
        # Ioffe 2015, the gradient of the normalised input: what mean and variance of the batch owe to each cell.
        for cell in range(cells):
            for f in range(width):
                owed = (for_bias[lane, f] + normal[lane, cell, f] * for_weight[lane, f]) / np.float32(cells)
                for_h[lane, cell, f] = (for_h[lane, cell, f] - owed) * weight[lane, f] * precision[lane, f]
    return for_h, for_weight, for_bias, for_gamma, for_beta
