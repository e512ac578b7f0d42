"""Discriminators: what generators and encoders are trained against."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from multipert.networks.layers import MakeLinear, xavier_linear


class LatentDiscriminator(nn.Sequential):
    """``z`` to one logit: a spectral-normed hidden layer (Miyato 2018) with LeakyReLU and dropout, then a linear one.

    Parameters
    ----------
    latent
        Width of ``z``.
    hidden
        Width of the hidden layer.
    dropout
        Dropout rate after it.
    """

    def __init__(self, latent: int, *, hidden: int, dropout: float) -> None:
        super().__init__(
            spectral_norm(xavier_linear(latent, hidden)),
            nn.LeakyReLU(),
            nn.Dropout(dropout),
            xavier_linear(hidden, 1),
            nn.Flatten(0),
        )


class AuxiliaryDiscriminator(nn.Module):
    """Is a cell real, and of which class: two heads on one body (auxiliary classifier GAN, Odena 2017).

    The body's layers are spectral-normed, with ReLU; the heads are linear.

    Parameters
    ----------
    n_genes, n_classes
        Width of an expression profile; number of classes.
    hidden
        Widths of the body's layers.
    linear
        Makes the linear layers.
    """

    def __init__(
        self, n_genes: int, n_classes: int, *, hidden: Sequence[int], linear: MakeLinear = xavier_linear
    ) -> None:
        super().__init__()
        widths = [n_genes, *hidden]
        self.body = nn.Sequential(
            *(nn.Sequential(spectral_norm(linear(n_in, n_out)), nn.ReLU()) for n_in, n_out in pairwise(widths))
        )
        self.real = linear(widths[-1], 1)
        self.classes = linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of being real, ``(cells,)``, and of the classes, ``(cells, classes)``."""
        h = self.body(x)
        return self.real(h).squeeze(-1), self.classes(h)
