"""The networks of scButterfly: two sides and a translator between them (Cao 2024)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from multipert.networks.gaussian import kl_divergence
from multipert.networks.layers import HiddenLayer, xavier_linear
from multipert.networks.sides import OTHER_SIDE
from multipert.networks.translator import Translator

Latents = Mapping[str, Tensor]


class Side(nn.Module):
    """What belongs to one side: an encoder, a decoder, the bottleneck they train with, a discriminator of latents.

    Parameters
    ----------
    name
        The side's name.
    widths
        Of an expression profile, the encoder's hidden layers and the latent space; the decoder mirrors them.
    shared
        Width of the bottleneck's space.
    mask, dropout
        Dropout rates of the input and between layers.
    """

    def __init__(self, name: str, widths: Sequence[int], *, shared: int, mask: float, dropout: float) -> None:
        super().__init__()
        self.name, latent = name, widths[-1]

        def layers(widths: Sequence[int]) -> nn.Sequential:
            rates = [dropout] * (len(widths) - 2) + [0.0]  # none after the last
            pairs = zip(pairwise(widths), rates, strict=True)
            return nn.Sequential(*(HiddenLayer(n_in, n_out, dropout=rate) for (n_in, n_out), rate in pairs))

        self.encoder = nn.Sequential(nn.Dropout(mask), layers(widths))
        self.decoder = layers(widths[::-1])
        self.bottleneck = Translator([name], latent=latent, shared=shared)
        self.discriminator = nn.Sequential(xavier_linear(latent, 1), nn.BatchNorm1d(1), nn.Flatten(0))

    def autoencode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Through the bottleneck: the cells ``x`` (cells, genes) decoded again, and the divergence."""
        own, mean, variance = self.bottleneck(self.encoder(x), self.name)
        return self.decoder(own[self.name]), kl_divergence(mean, variance).mean()


class Butterfly(nn.Module):
    """The two sides, and the translator between them.

    Parameters
    ----------
    n_genes
        Width of an expression profile.
    hidden
        Of each side, the encoder's hidden widths; the decoder mirrors them.
    latent, shared
        Widths of each side's latent space and of the translator's shared one.
    mask, dropout
        Dropout rates of the input and between layers.
    """

    sides: Mapping[str, Side]

    def __init__(
        self,
        n_genes: int,
        hidden: Mapping[str, Sequence[int]],
        *,
        latent: int,
        shared: int,
        mask: float,
        dropout: float,
    ) -> None:
        super().__init__()
        sides = {
            side: Side(side, [n_genes, *hidden[side], latent], shared=shared, mask=mask, dropout=dropout)
            for side in OTHER_SIDE
        }
        self.sides = nn.ModuleDict(sides)  # type: ignore[assignment]
        self.translator = Translator(list(OTHER_SIDE), latent=latent, shared=shared)

    def forward(self, cells: Latents, *, draw: bool = False) -> tuple[Latents, Mapping[str, Latents], Tensor]:
        """Encode pairs of cells, by side ``(cells, genes)``, and translate them.

        Parameters
        ----------
        cells
            The pairs.
        draw
            Whether to draw latents in evaluation mode too.

        Returns
        -------
        native
            By side, the latents of its cells, ``(cells, latent)``.
        translated
            By the side they come from, then the side they come to, the same after the translator.
        divergence
            Of the shared space, averaged over all elements (cells x latents), summed over the sides.
        """
        native = {side: self.sides[side].encoder(cells[side]) for side in OTHER_SIDE}
        translated, divergences = {}, []
        for side, z in native.items():
            translated[side], mean, variance = self.translator(z, side, draw=draw)
            divergences.append(kl_divergence(mean, variance).mean())
        return native, translated, torch.stack(divergences).sum()

    def discrimination(self, native: Latents, translated: Mapping[str, Latents]) -> Tensor:
        """The losses of both discriminators, summed.

        For each pair u ~ U(0, 1) is drawn. Where u > 1/2, both are shown native latents and are to say max(u, 0.8);
        elsewhere, latents translated from the other side, and they are to say min(u, 0.2).
        """
        u = torch.rand_like(native["control"][:, 0])
        shows_native = u > 0.5
        labels = torch.where(shows_native, u.clamp(min=0.8), u.clamp(max=0.2))
        losses = []
        for side, other in OTHER_SIDE.items():
            z = torch.where(shows_native.unsqueeze(-1), native[side], translated[other][side])
            losses.append(functional.binary_cross_entropy_with_logits(self.sides[side].discriminator(z), labels))
        return torch.stack(losses).sum()
