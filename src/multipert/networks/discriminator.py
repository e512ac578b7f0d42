"""A linear layer of bounded slope, and the discriminator of latents made of it."""

import torch
from torch import Tensor
from torch.nn import functional

from multipert.networks.lanes import Lanes
from multipert.networks.layers import MLP, Dropout, Initial, Layer, Linear, identity


class SpectralLinear(Linear):
    """A linear layer whose weights are divided by their largest singular value (Miyato 2018).

    The singular value is followed by one step of power iteration in every training pass, from a start of fifteen.
    """

    left: Tensor
    right: Tensor

    def __init__(self, lanes: Lanes, n_in: int, n_out: int, *, initial: Initial = "xavier") -> None:
        super().__init__(lanes, n_in, n_out, initial=initial)
        self.register_buffer("left", functional.normalize(lanes.normal(n_in, 1), dim=1))
        self.register_buffer("right", functional.normalize(lanes.normal(n_out, 1), dim=1))
        for _ in range(15):
            self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        """One step of power iteration."""
        self.left.copy_(functional.normalize(self.weight @ self.right, dim=1))
        self.right.copy_(functional.normalize(self.weight.mT @ self.left, dim=1))

    def effective_weight(self) -> Tensor:
        """The weights over their largest singular value, ``(lanes, n_in, n_out)``."""
        if self.training:
            self._follow()
        # Clones, because a second pass follows on before the first one's gradient is taken.
        largest = self.left.clone().mT @ self.weight @ self.right.clone()
        return self.weight / largest


class LatentDiscriminator(MLP):
    """``z`` to one logit: a spectral-normed hidden layer with LeakyReLU and dropout, then a linear one.

    Parameters
    ----------
    lanes
        The networks side by side.
    latent
        Width of ``z``.
    hidden
        Width of the hidden layer.
    dropout
        Dropout rate after it.
    """

    def __init__(self, lanes: Lanes, latent: int, *, hidden: int, dropout: float) -> None:
        super().__init__(
            [
                Layer(SpectralLinear(lanes, latent, hidden), dropout=Dropout(lanes, dropout)),
                Layer(Linear(lanes, hidden, 1), activation=identity),
            ]
        )

    def logits(self, z: Tensor) -> Tensor:
        """How much each cell looks like the positive class, ``(lanes, cells)``."""
        return self(z).squeeze(-1)  # type: ignore[no-any-return]
