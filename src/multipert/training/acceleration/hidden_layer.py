"""What follows the product in a hidden layer, in one go: batch normalisation, FiLM, LeakyReLU, dropout.

A training step is a few large products and dozens of small operations. After the optimiser has streamed all weights
through the cache each of these finds its code and its numbers cold, which takes longer than the arithmetic; one
compiled loop pays for it once.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from multipert.networks.film import FilmLayer
from multipert.networks.layers import HiddenLayer
from multipert.training.acceleration.compiled import Numbers, compiled, kept, mask_seed


def compiled_hidden_layer(layer: HiddenLayer, x: Tensor) -> Tensor:
    """``layer(x)``, compiled in training."""
    if not layer.training:
        return HiddenLayer.forward(layer, x)  # type: ignore[no-any-return, no-untyped-call]
    linear, norm, activation, dropout = layer
    h = linear(x)
    return _after_product(h, norm, (h[:0], h[:0]), activation, dropout)  # type: ignore[arg-type]


def compiled_film_layer(layer: FilmLayer, x: Tensor, c: Tensor) -> Tensor:
    """``layer(x, c)``, compiled in training."""
    if not layer.training:
        return FilmLayer.forward(layer, x, c)
    return _after_product(layer.linear(x), layer.norm, layer.film.coefficients(c), layer.activation, layer.dropout)


def _after_product(
    h: Tensor, norm: nn.BatchNorm1d, film: tuple[Tensor, Tensor], activation: nn.LeakyReLU, dropout: nn.Dropout
) -> Tensor:
    """``dropout(activation(gamma * norm(h) + beta))``, all (cells, width); no FiLM where gamma and beta are empty."""
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    numbers = (float(norm.momentum or 0), norm.eps, activation.negative_slope, float(dropout.p))
    out: Tensor = _AfterProduct.apply(  # type: ignore[no-untyped-call]
        h.float(), norm.weight, norm.bias, *film, norm.running_mean, norm.running_var, numbers
    )
    return out


class _AfterProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        *tensors, (momentum, epsilon, slope, rate) = given
        h, weight, bias, gamma, beta, mean, variance = (part.detach().contiguous().numpy() for part in tensors)
        seed = mask_seed() if rate else 0
        out, *saved = _forward(h, weight, bias, gamma, beta, mean, variance, momentum, epsilon, slope, rate, seed)
        ctx.needed = (*saved, weight, bias, gamma, beta, slope)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _backward(gradient.contiguous().numpy(), *ctx.needed)
        return *map(torch.from_numpy, gradients), None, None, None


@compiled
def _forward(
    h: Numbers,
    weight: Numbers,
    bias: Numbers,
    gamma: Numbers,
    beta: Numbers,
    running_mean: Numbers,
    running_variance: Numbers,
    momentum: float,
    epsilon: float,
    slope: float,
    rate: float,
    seed: int,
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """The output; the normalised input, one over the standard deviations it had before, what dropout multiplies by."""
    cells, width = h.shape
    normal, out, factor = np.empty_like(h), np.empty_like(h), np.empty_like(h)
    keep, scale = kept(seed, cells * width, rate).reshape(h.shape), np.float32(1 / (1 - rate))
    mean, variance = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for cell in range(cells):
        for f in range(width):
            mean[f] += h[cell, f] / np.float32(cells)
    for cell in range(cells):
        for f in range(width):
            normal[cell, f] = h[cell, f] - mean[f]
            variance[f] += normal[cell, f] * normal[cell, f] / np.float32(cells)
    precision = (np.float32(1) / np.sqrt(variance + np.float32(epsilon))).astype(np.float32)
    for f in range(width):
        unbiased = variance[f] * np.float32(cells) / np.float32(cells - 1)
        running_mean[f] += np.float32(momentum) * (mean[f] - running_mean[f])
        running_variance[f] += np.float32(momentum) * (unbiased - running_variance[f])
    for cell in range(cells):
        for f in range(width):
            normal[cell, f] *= precision[f]
            out[cell, f] = normal[cell, f] * weight[f] + bias[f]
        if len(gamma):
            for f in range(width):
                out[cell, f] = gamma[cell, f] * out[cell, f] + beta[cell, f]
        for f in range(width):
            factor[cell, f] = scale * np.float32(keep[cell, f])
            out[cell, f] = max(out[cell, f], out[cell, f] * np.float32(slope)) * factor[cell, f]
    return out, normal, precision, factor


@compiled
def _backward(
    gradient: Numbers,
    normal: Numbers,
    precision: Numbers,
    factor: Numbers,
    weight: Numbers,
    bias: Numbers,
    gamma: Numbers,
    beta: Numbers,
    slope: float,
) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers]:
    """The gradients of ``h``, ``weight``, ``bias``, ``gamma`` and ``beta``."""
    cells, width = gradient.shape
    for_h, for_gamma, for_beta = np.empty_like(normal), np.empty_like(gamma), np.empty_like(beta)
    for_weight, for_bias = np.zeros_like(weight), np.zeros_like(bias)
    for cell in range(cells):
        for f in range(width):
            step = gradient[cell, f] * factor[cell, f]
            before = normal[cell, f] * weight[f] + bias[f]
            if len(gamma):
                positive = gamma[cell, f] * before + beta[cell, f] > 0
                step *= np.float32(1) if positive else np.float32(slope)
                for_gamma[cell, f], for_beta[cell, f] = step * before, step
                step *= gamma[cell, f]
            else:
                step *= np.float32(1) if before > 0 else np.float32(slope)
            for_h[cell, f] = step
            for_weight[f] += step * normal[cell, f]
            for_bias[f] += step
    # Ioffe 2015, the gradient of the normalised input: what mean and variance of the batch owe to each cell.
    for cell in range(cells):
        for f in range(width):
            owed = (for_bias[f] + normal[cell, f] * for_weight[f]) / np.float32(cells)
            for_h[cell, f] = (for_h[cell, f] - owed) * weight[f] * precision[f]
    return for_h, for_weight, for_bias, for_gamma, for_beta
