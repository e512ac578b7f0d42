"""The variational autoencoder of latent arithmetic (scGen, scVIDR): it knows no condition; perturbations move its z."""

from typing import Any

import torch
from torch import Tensor, nn

from multipert.networks.gaussian import GaussianHeads
from multipert.networks.layers import HiddenLayer, MakeLinear, xavier_linear

MOMENTUM, EPSILON = 0.01, 1e-3
"""Of every batch normalisation: how fast its running estimates follow, and what is added to the variance."""

VARIANCE_OFFSET = 1e-4
"""Added to the variance of every latent, which so never vanishes."""


class Repeated(nn.Module):
    """One layer passed several times: layers that share one weight set (and one batch normalisation)."""

    def __init__(self, layer: nn.Module, times: int) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x: Tensor) -> Tensor:
        """Pass ``(cells, width)`` through the layer again and again."""
        for _ in range(self.times):
            x = self.layer(x)
        return x


class VariationalAutoencoder(nn.Module):
    """Encoder and decoder of equal hidden layers around a Gaussian latent space; a plain linear output.

    A hidden layer is linear, batch normalisation, LeakyReLU, dropout. Mean and log-variance are each linear in the
    encoder's output; the variance is ``exp(log-variance) + 1e-4``.

    Parameters
    ----------
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
    linear
        Makes the linear layers.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        hidden: int,
        layers: int,
        latent: int,
        dropout: float,
        share_hidden: bool = False,
        linear: MakeLinear = xavier_linear,
    ) -> None:
        super().__init__()

        def hidden_layer(n_in: int) -> HiddenLayer:
            return HiddenLayer(n_in, hidden, dropout=dropout, momentum=MOMENTUM, epsilon=EPSILON, linear=linear)

        def hidden_layers(n_in: int) -> list[nn.Module]:
            first, others = hidden_layer(n_in), layers - 1
            if share_hidden and others:
                return [first, Repeated(hidden_layer(hidden), others)]
            return [first, *(hidden_layer(hidden) for _ in range(others))]

        self.encoder = nn.Sequential(*hidden_layers(n_genes))
        self.heads = GaussianHeads(lambda: linear(hidden, latent))
        self.decoder = nn.Sequential(*hidden_layers(latent), linear(hidden, n_genes))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the latent vectors, each ``(cells, latent)``, of profiles ``(cells, genes)``."""
        mean, log_variance = self.heads(self.encoder(x))
        return mean, torch.exp(log_variance) + VARIANCE_OFFSET

    def encode(self, x: Tensor) -> Tensor:
        """Latent vectors ``(cells, latent)``: a sample in training mode, the mean in evaluation mode."""
        return self.heads.sample(*self.posterior(x))

    def decode(self, z: Tensor) -> Tensor:
        """Profiles ``(cells, genes)`` of latent vectors ``(cells, latent)``."""
        return self.decoder(z)  # type: ignore[no-any-return]


class MovingAutoencoder(VariationalAutoencoder):
    """The autoencoder of scGen, and where a perturbation moves its latent vectors.

    Attributes
    ----------
    delta
        (latent,), NaN until it is known.
    """

    delta: Tensor

    def __init__(self, n_genes: int, *, latent: int, **options: Any) -> None:
        super().__init__(n_genes, latent=latent, **options)
        self.register_buffer("delta", torch.full((latent,), torch.nan))


class ContextAutoencoder(VariationalAutoencoder):
    """The autoencoder of scVIDR, and what of its latent space the regression needs.

    Attributes
    ----------
    centroids
        (contexts, latent) mean of each context's control cells; NaN where training saw none.
    deltas
        (contexts, latent) mean of each context's perturbed cells minus its centroid; NaN where training saw
        none of either.
    common
        (latent,) the one delta of all contexts, where there is no regression; NaN where it is unknown.
    lowest, highest
        (latent,) range of the training cells.
    """

    centroids: Tensor
    deltas: Tensor
    common: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, n_genes: int, n_contexts: int, *, latent: int, **options: Any) -> None:
        super().__init__(n_genes, latent=latent, **options)
        for name in ("centroids", "deltas"):
            self.register_buffer(name, torch.full((n_contexts, latent), torch.nan))
        self.register_buffer("common", torch.full((latent,), torch.nan))
        for name in ("lowest", "highest"):
            self.register_buffer(name, torch.zeros(latent))
