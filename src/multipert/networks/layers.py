"""Layers with a leading lane axis: what flows through them is ``(lanes, cells, features)``."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from multipert.networks.lanes import Lanes
from multipert.networks.masks import draw_kept
from multipert.networks.normalised import SLOPE, normalise_and_activate
from multipert.networks.product import affine
from multipert.networks.sparse import OneHots, SparseBatch

if TYPE_CHECKING:
    from multipert.networks.film import FiLM

Input = Tensor | SparseBatch | OneHots
Activation = Callable[[Tensor], Tensor]
Initial = Literal["xavier", "torch"]
Values = TypeVar("Values", Tensor, SparseBatch)


def leaky_relu(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.01."""
    return functional.leaky_relu(x, SLOPE)


def identity(x: Tensor) -> Tensor:
    """No activation: a plain linear output."""
    return x


WIDE = 1024
"""Features from which a layer's products outweigh everything else: those that write expression profiles."""


class Linear(nn.Module):
    """An affine map for each lane, from dense or sparse batches.

    Weights start Xavier-uniform, biases uniform in +-1/sqrt(n_in); with ``initial="torch"``, torch's own default, the
    weights start as the biases. In training the products of dense batches are taken in ``precision``; see
    :func:`set_precision`.
    """

    precision = torch.float32

    def __init__(self, lanes: Lanes, n_in: int, n_out: int, *, initial: Initial = "xavier") -> None:
        super().__init__()
        torchs = 1.0 / math.sqrt(n_in)
        bound = torchs if initial == "torch" else math.sqrt(6.0 / (n_in + n_out))
        weight = lanes.uniform(n_in, n_out, low=-bound, high=bound)
        # Products that give many features run faster on weights stored feature by feature; the shape stays the same.
        self.weight = nn.Parameter(weight.mT.contiguous().mT if n_out >= WIDE else weight)
        self.bias = nn.Parameter(lanes.uniform(1, n_out, low=-torchs, high=torchs))

    def effective_weight(self) -> Tensor:
        """The weights that are applied, ``(lanes, n_in, n_out)``."""
        return self.weight

    def forward(self, x: Input) -> Tensor:
        """``x @ weight + bias``, ``(lanes, cells, n_out)``."""
        weight = self.effective_weight()
        if isinstance(x, Tensor):
            return affine(x, weight, self.bias, self.precision if self.training else torch.float32)
        return x.product(weight) + self.bias


class BatchNorm(nn.Module):
    """Batch normalisation over the cells of each lane (Ioffe 2015); running estimates in evaluation mode."""

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, lanes: Lanes, width: int, *, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nn.Parameter(torch.ones(len(lanes), width))
        self.bias = nn.Parameter(torch.zeros(len(lanes), width))
        self.register_buffer("running_mean", torch.zeros(len(lanes), width))
        self.register_buffer("running_variance", torch.ones(len(lanes), width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(lanes, cells, width)`` over its cells."""
        lanes, cells, width = x.shape
        # Seen as lanes * width features of the same cells, the lanes share torch's one fused kernel.
        flat = functional.batch_norm(
            x.transpose(0, 1).reshape(cells, lanes * width),
            self.running_mean.view(-1),
            self.running_variance.view(-1),
            self.weight.view(-1),
            self.bias.view(-1),
            training=self.training,
            momentum=self.momentum,
            eps=self.epsilon,
        )
        return flat.view(cells, lanes, width).transpose(0, 1)


class LayerNorm(nn.Module):
    """Normalisation over the features of each cell (Ba 2016)."""

    def __init__(self, lanes: Lanes, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(len(lanes), 1, width))
        self.bias = nn.Parameter(torch.zeros(len(lanes), 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each cell of ``(lanes, cells, width)``."""
        return functional.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class Dropout(nn.Module):
    """Dropout whose masks come from each lane's own stream; dense or sparse batches."""

    def __init__(self, lanes: Lanes, rate: float) -> None:
        super().__init__()
        self.lanes, self.rate = lanes, rate

    def forward(self, x: Values) -> Values:
        """Zero each value with probability ``rate`` and scale the rest, in training mode alone."""
        if not self.training or self.rate == 0.0:
            return x
        if isinstance(x, SparseBatch):
            return x.dropout(self.rate, self.lanes)
        return x * (self.draw_kept(x) * self.scale).to(x.dtype)

    @property
    def scale(self) -> float:
        """What is kept is multiplied by."""
        return 1.0 / (1.0 - self.rate)

    def draw_kept(self, x: Tensor) -> Tensor:
        """Draw which values of ``x`` stay, each lane from its own stream."""
        return torch.stack([draw_kept(x.shape[1:], self.rate, generator) for generator in self.lanes.generators])


class Layer(nn.Module):
    """One hidden layer: linear, normalisation, FiLM where given, activation, dropout."""

    def __init__(
        self,
        linear: nn.Module,
        *,
        norm: nn.Module | None = None,
        film: "FiLM | None" = None,
        activation: Activation = leaky_relu,
        dropout: Dropout | None = None,
    ) -> None:
        super().__init__()
        self.linear, self.norm, self.film, self.dropout = linear, norm, film, dropout
        self.activation = activation

    def forward(self, x: Input, condition: Tensor | None = None) -> Tensor:
        """Pass ``(lanes, cells, n_in)`` on as ``(lanes, cells, n_out)``; ``condition`` holds codes for FiLM."""
        h: Tensor = self.linear(x)
        if isinstance(self.norm, BatchNorm) and self.activation is leaky_relu and self.training and h.is_cpu:
            return self._at_once(h, self.norm, condition)
        if self.norm is not None:
            h = self.norm(h)
        if self.film is not None:
            h = self.film(h, condition)
        h = self.activation(h)
        return h if self.dropout is None else self.dropout(h)

    def _at_once(self, h: Tensor, norm: BatchNorm, condition: Tensor | None) -> Tensor:
        """All that follows the product, in one loop."""
        none = h.new_empty(len(h), 0, h.shape[-1])
        gamma, beta = (none, none) if self.film is None else self.film.coefficients()
        kept, scale = none.bool(), 1.0
        if self.dropout is not None and self.dropout.rate:
            kept, scale = self.dropout.draw_kept(h), self.dropout.scale
        return normalise_and_activate(
            h,
            norm.weight,
            norm.bias,
            gamma,
            beta,
            torch.empty(0, 0, dtype=torch.int64) if condition is None else condition,
            kept,
            scale=scale,
            mean=norm.running_mean,
            variance=norm.running_variance,
            momentum=norm.momentum,
            epsilon=norm.epsilon,
        )


class MLP(nn.Module):
    """Layers one after another, the condition handed to each that asks for it."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor | SparseBatch, condition: Tensor | None = None) -> Tensor:
        """Pass ``(lanes, cells, n_in)`` through every layer."""
        for layer in self.layers:
            x = layer(x, condition)
        assert isinstance(x, Tensor)
        return x
