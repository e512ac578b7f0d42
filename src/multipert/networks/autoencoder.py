"""The FiLM autoencoder of the multi-task family, and its variational form."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from multipert.networks.discriminator import LatentDiscriminator
from multipert.networks.film import FiLM, FilmLayer
from multipert.networks.gaussian import GaussianHeads
from multipert.networks.layers import MLP, HiddenLayer


class FilmDecoder(nn.Module):
    """From latent vectors to expression profiles, every hidden layer steered by the condition.

    Parameters
    ----------
    widths
        Of the latent space, the hidden layers and the profiles.
    n_features
        Numbers that describe a condition.
    film_hidden
        Hidden widths of the FiLM generators.
    dropout
        Dropout rate after each hidden layer.
    """

    def __init__(self, widths: Sequence[int], n_features: int, *, film_hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            FilmLayer(n_in, n_out, n_features, film_hidden=film_hidden, dropout=dropout)
            for n_in, n_out in pairwise(widths[:-1])
        )
        self.output = MLP(widths[-2:])

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """Profiles ``(cells, genes)`` of ``z`` ``(cells, latent)`` under conditions ``c`` ``(cells, n_features)``."""
        for layer in self.layers:
            z = layer(z, c)
        return self.output(z)  # type: ignore[no-any-return]

    @property
    def films(self) -> list[FiLM]:
        """The FiLM of each hidden layer, in order."""
        return [layer.film for layer in self.layers]  # type: ignore[misc]


class FilmAutoencoder(nn.Module):
    """An autoencoder whose decoder is told the condition through FiLM; its encoder knows nothing of it.

    Parameters
    ----------
    n_genes
        Width of an expression profile.
    n_features
        Numbers that describe a condition.
    hidden
        Hidden widths of the encoder; the decoder mirrors them.
    latent
        Width of the latent space.
    mask
        Input dropout rate.
    dropout
        Dropout rate after each hidden layer.
    film_hidden
        Hidden widths of the FiLM generators.
    """

    def __init__(
        self,
        n_genes: int,
        n_features: int,
        *,
        hidden: Sequence[int],
        latent: int,
        mask: float,
        dropout: float,
        film_hidden: Sequence[int] = (),
    ) -> None:
        super().__init__()
        widths = [n_genes, *hidden]
        self.encoder = nn.Sequential(
            nn.Dropout(mask),
            *(HiddenLayer(n_in, n_out, dropout=dropout) for n_in, n_out in pairwise(widths)),
            MLP([widths[-1], latent]),
        )
        widths = [latent, *reversed(widths)]
        self.decoder = FilmDecoder(widths, n_features, film_hidden=film_hidden, dropout=dropout)

    def encode(self, x: Tensor) -> Tensor:
        """Latent vectors ``(cells, latent)`` of profiles ``(cells, genes)``."""
        return self.encoder(x)  # type: ignore[no-any-return]

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """Profiles ``(cells, genes)`` of ``z`` ``(cells, latent)`` under conditions ``c`` ``(cells, n_features)``."""
        return self.decoder(z, c)  # type: ignore[no-any-return]


class FilmVariationalAutoencoder(FilmAutoencoder):
    """The FiLM autoencoder with a Gaussian latent: two heads, each linear with LeakyReLU, on the encoder's output."""

    def __init__(self, n_genes: int, n_features: int, *, latent: int, **options: Any) -> None:
        super().__init__(n_genes, n_features, latent=latent, **options)
        self.heads = GaussianHeads(lambda: MLP([latent, latent]))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the latent vectors, each ``(cells, latent)``."""
        mean, log_variance = self.heads(self.encoder(x))
        return mean, log_variance.exp()

    def encode(self, x: Tensor) -> Tensor:
        """Latent vectors: a sample in training mode, the mean in evaluation mode."""
        return self.heads.sample(*self.posterior(x))


class AdversarialAutoencoder(FilmAutoencoder):
    """The FiLM autoencoder, and a discriminator of its latents: a hidden layer of some width and dropout rate."""

    def __init__(
        self,
        n_genes: int,
        n_features: int,
        *,
        latent: int,
        discriminator_hidden: int,
        discriminator_dropout: float,
        **options: Any,
    ) -> None:
        super().__init__(n_genes, n_features, latent=latent, **options)
        self.discriminator = LatentDiscriminator(latent, hidden=discriminator_hidden, dropout=discriminator_dropout)
