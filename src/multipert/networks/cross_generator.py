"""The networks of scPreGAN: cells are written out on either side from one latent space (Wei 2022)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from multipert.networks.discriminator import AuxiliaryDiscriminator
from multipert.networks.layers import MakeLinear, xavier_linear
from multipert.networks.sides import OTHER_SIDE


class NormalisedLayer(nn.Sequential):
    """Linear, layer normalisation, ReLU."""

    def __init__(self, n_in: int, n_out: int, linear: MakeLinear) -> None:
        super().__init__(linear(n_in, n_out), nn.LayerNorm(n_out), nn.ReLU())


class CrossGenerator(nn.Module):
    """An encoder, and a generator and a discriminator of each side.

    Parameters
    ----------
    n_genes, n_contexts
        Width of an expression profile; contexts that the discriminators tell apart.
    hidden
        Hidden widths of the encoder and discriminators; generators mirror them.
    latent
        Width of the latent space.
    linear
        Makes the linear layers.
    """

    def __init__(
        self, n_genes: int, n_contexts: int, *, hidden: Sequence[int], latent: int, linear: MakeLinear = xavier_linear
    ) -> None:
        super().__init__()

        def layers(*widths: int) -> nn.Sequential:
            return nn.Sequential(*(NormalisedLayer(n_in, n_out, linear) for n_in, n_out in pairwise(widths)))

        self.encoder = nn.Sequential(layers(n_genes, *hidden), linear(hidden[-1], latent))
        self.generators = nn.ModuleDict({side: layers(latent, *reversed(hidden), n_genes) for side in OTHER_SIDE})
        self.discriminators = nn.ModuleDict(
            {side: AuxiliaryDiscriminator(n_genes, n_contexts, hidden=hidden, linear=linear) for side in OTHER_SIDE}
        )

    def generate(self, z: Tensor, side: str) -> Tensor:
        """Cells of a side, ``(cells, genes)``, from latent vectors ``(cells, latent)``."""
        cells: Tensor = self.generators[side](z)
        return cells

    def judge(self, cells: Tensor, contexts: Tensor, side: str, *, real: bool) -> Tensor:
        """How far the discriminator of a side is from its duty.

        Its duty is to call these ``cells`` ``(cells, genes)`` real, or not, and to name their ``contexts``
        ``(cells,)``. The first is measured by binary cross-entropy; the second, as in the authors' code, by the
        negative *probability* of the right context (NLLLoss of softmax), where a negative log-likelihood would have
        its logarithm.
        """
        logits, classes = self.discriminators[side](cells)
        real_or_not = functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
        return real_or_not + functional.nll_loss(classes.softmax(-1), contexts)
