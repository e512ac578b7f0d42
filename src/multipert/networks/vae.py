"""The variational autoencoder of latent arithmetic (scGen, scVIDR): it knows no condition; perturbations move its z."""

import torch
from torch import Tensor, nn

from multipert.networks.lanes import Lanes
from multipert.networks.layers import MLP, BatchNorm, Dropout, Layer, Linear, identity
from multipert.networks.sparse import SparseBatch
from multipert.networks.variational import GaussianHeads

MOMENTUM, EPSILON = 0.01, 1e-3
"""Of every batch normalisation: how fast its running estimates follow, and what is added to the variance."""

VARIANCE_OFFSET = 1e-4
"""Added to the variance of every latent, which so never vanishes."""


class Repeated(nn.Module):
    """One layer passed several times: layers that share one weight set (and one batch normalisation)."""

    def __init__(self, layer: nn.Module, times: int) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Pass ``(lanes, cells, width)`` through the layer again and again."""
        for _ in range(self.times):
            x = self.layer(x, condition)
        return x


class VariationalAutoencoder(nn.Module):
    """Encoder and decoder of equal hidden layers around a Gaussian latent space; a plain linear output.

    A hidden layer is linear, batch normalisation, LeakyReLU, dropout. Mean and log-variance are each linear in the
    encoder's output; the variance is ``exp(log-variance) + 1e-4``. Weights start as torch's default, uniform in
    +-1/sqrt(n_in).

    Parameters
    ----------
    lanes
        The networks side by side.
    n_genes
        Width of an expression profile.
    hidden
        Width of every hidden layer.
    layers
        Hidden layers of the encoder, and of the decoder.
    latent
        Width of the latent space.
    dropout
        Dropout rate after each hidden layer.
    share_hidden
        Whether the encoder's hidden layers after its first are one and the same layer, and the decoder's too.
    """

    def __init__(
        self,
        lanes: Lanes,
        n_genes: int,
        *,
        hidden: int,
        layers: int,
        latent: int,
        dropout: float,
        share_hidden: bool = False,
    ) -> None:
        super().__init__()

        def linear(n_in: int, n_out: int) -> Linear:
            return Linear(lanes, n_in, n_out, initial="torch")

        def hidden_layer(n_in: int) -> Layer:
            norm = BatchNorm(lanes, hidden, momentum=MOMENTUM, epsilon=EPSILON)
            return Layer(linear(n_in, hidden), norm=norm, dropout=Dropout(lanes, dropout))

        def hidden_layers(n_in: int) -> list[nn.Module]:
            first, others = hidden_layer(n_in), layers - 1
            if share_hidden and others:
                return [first, Repeated(hidden_layer(hidden), others)]
            return [first, *(hidden_layer(hidden) for _ in range(others))]

        self.encoder = MLP(hidden_layers(n_genes))
        self.heads = GaussianHeads(lanes, lambda: linear(hidden, latent))
        self.decoder = MLP([*hidden_layers(latent), Layer(linear(hidden, n_genes), activation=identity)])

    def posterior(self, x: Tensor | SparseBatch) -> tuple[Tensor, Tensor]:
        """Mean and variance of the latent vectors of profiles ``(lanes, cells, genes)``, ``(lanes, cells, latent)``."""
        mean, log_variance = self.heads(self.encoder(x))
        return mean, torch.exp(log_variance) + VARIANCE_OFFSET

    def encode(self, x: Tensor | SparseBatch) -> Tensor:
        """Latent vectors ``(lanes, cells, latent)``: a sample in training mode, the mean in evaluation mode."""
        return self.heads.sample(*self.posterior(x))

    def decode(self, z: Tensor) -> Tensor:
        """Profiles ``(lanes, cells, genes)`` of latent vectors ``(lanes, cells, latent)``."""
        x: Tensor = self.decoder(z)
        return x
