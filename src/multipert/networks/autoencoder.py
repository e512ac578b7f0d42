"""The FiLM autoencoder of the multi-task family (spec: "FiLM autoencoder")."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from multipert.networks.film import FiLM
from multipert.networks.lanes import Lanes
from multipert.networks.layers import MLP, BatchNorm, Dropout, Layer, Linear
from multipert.networks.sparse import SparseBatch
from multipert.networks.variational import GaussianHeads


class FilmAutoencoder(nn.Module):
    """An autoencoder whose decoder is told the condition through FiLM; its encoder knows nothing of it.

    Parameters
    ----------
    lanes
        The networks side by side.
    n_genes, n_conditions
        Width of an expression profile; number of conditions, control among them.
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
        lanes: Lanes,
        n_genes: int,
        n_conditions: int,
        *,
        hidden: Sequence[int],
        latent: int,
        mask: float,
        dropout: float,
        film_hidden: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.mask = Dropout(lanes, mask)

        def hidden_layer(n_in: int, n_out: int, *, film: FiLM | None = None) -> Layer:
            norm, after = BatchNorm(lanes, n_out), Dropout(lanes, dropout)
            return Layer(Linear(lanes, n_in, n_out), norm=norm, film=film, dropout=after)

        widths = [n_genes, *hidden]
        encoder = [hidden_layer(i, o) for i, o in pairwise(widths)]
        self.encoder = MLP([*encoder, Layer(Linear(lanes, widths[-1], latent))])

        widths = [latent, *reversed(hidden)]
        decoder = [
            hidden_layer(i, o, film=FiLM(lanes, n_conditions, o, hidden=film_hidden)) for i, o in pairwise(widths)
        ]
        self.decoder = MLP([*decoder, Layer(Linear(lanes, widths[-1], n_genes))])

    def encode(self, x: Tensor | SparseBatch) -> Tensor:
        """Latent vectors ``(lanes, cells, latent)`` of profiles ``(lanes, cells, genes)``."""
        z: Tensor = self.encoder(self.mask(x))
        return z

    def decode(self, z: Tensor, condition: Tensor) -> Tensor:
        """Profiles ``(lanes, cells, genes)`` of latent vectors under the condition codes ``(lanes, cells)``."""
        x: Tensor = self.decoder(z, condition)
        return x

    def films(self) -> list[FiLM]:
        """The FiLM of each hidden layer of the decoder, in order."""
        return [layer.film for layer in self.decoder.layers if isinstance(layer.film, FiLM)]


class FilmVariationalAutoencoder(FilmAutoencoder):
    """The FiLM autoencoder with a Gaussian latent: two heads, each linear with LeakyReLU, on the encoder's output."""

    def __init__(self, lanes: Lanes, n_genes: int, n_conditions: int, *, latent: int, **options: Any) -> None:
        super().__init__(lanes, n_genes, n_conditions, latent=latent, **options)
        self.heads = GaussianHeads(lanes, lambda: Layer(Linear(lanes, latent, latent)))

    def posterior(self, x: Tensor | SparseBatch) -> tuple[Tensor, Tensor]:
        """Mean and variance of the latent vectors, each ``(lanes, cells, latent)``."""
        mean, log_variance = self.heads(super().encode(x))
        return mean, log_variance.exp()

    def encode(self, x: Tensor | SparseBatch) -> Tensor:
        """Latent vectors: a sample in training mode, the mean in evaluation mode."""
        return self.heads.sample(*self.posterior(x))
