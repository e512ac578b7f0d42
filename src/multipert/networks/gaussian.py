"""Gaussian latents (Kingma 2014): two heads, a sample, a divergence."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class GaussianHeads(nn.Module):
    """Mean and log-variance of a latent vector, each from a layer of its own.

    Parameters
    ----------
    head
        Makes one head.
    """

    def __init__(self, head: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.mean, self.log_variance = head(), head()

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each ``(cells, latent)``."""
        return self.mean(h), self.log_variance(h)

    def draw(self, mean: Tensor, variance: Tensor) -> Tensor:
        """``mean + sqrt(variance) * eps`` with eps ~ N(0, I), whatever the mode."""
        return mean + variance.sqrt() * torch.randn_like(mean)

    def sample(self, mean: Tensor, variance: Tensor) -> Tensor:
        """A draw in training mode; the mean in evaluation mode."""
        return self.draw(mean, variance) if self.training else mean


def kl_divergence(mean: Tensor, variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, I)) of each latent, element-wise: ``(mean^2 + variance - 1 - log variance) / 2``."""
    return 0.5 * (mean.square() + variance - 1.0 - torch.log(variance))
