"""A discriminator of cells that also names their class."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from multipert.networks.discriminator import SpectralLinear
from multipert.networks.lanes import Lanes
from multipert.networks.layers import MLP, Layer, Linear
from multipert.networks.sparse import SparseBatch


class AuxiliaryDiscriminator(nn.Module):
    """Is a cell real, and of which class: two heads on one body (auxiliary classifier GAN, Odena 2017).

    The body's layers are spectral-normed, with ReLU; the heads are linear. Weights start as torch's default.

    Parameters
    ----------
    lanes
        The networks side by side.
    n_genes, n_classes
        Width of an expression profile; number of classes.
    hidden
        Widths of the body's layers.
    """

    def __init__(self, lanes: Lanes, n_genes: int, n_classes: int, *, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [n_genes, *hidden]
        self.body = MLP(
            [Layer(SpectralLinear(lanes, i, o, initial="torch"), activation=torch.relu) for i, o in pairwise(widths)]
        )
        self.real = Linear(lanes, widths[-1], 1, initial="torch")
        self.classes = Linear(lanes, widths[-1], n_classes, initial="torch")

    def forward(self, x: Tensor | SparseBatch) -> tuple[Tensor, Tensor]:
        """Logits of being real, ``(lanes, cells)``, and of the classes, ``(lanes, cells, classes)``."""
        h = self.body(x)
        return self.real(h).squeeze(-1), self.classes(h)
