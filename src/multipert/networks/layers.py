"""The layers that the networks share."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from torch import nn

MakeLinear = Callable[[int, int], nn.Linear]
"""From the widths before and after to a linear layer; ``nn.Linear`` itself starts as torch does by default."""


def xavier_linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer whose weights start Xavier-uniform (Glorot 2010); biases as by torch's default."""
    linear = nn.Linear(n_in, n_out)
    nn.init.xavier_uniform_(linear.weight)
    return linear


START: Mapping[str, MakeLinear] = {"xavier": xavier_linear, "torch": nn.Linear}
"""How the weights of a linear layer can start, by name."""


class HiddenLayer(nn.Sequential):
    """Linear, batch normalisation, LeakyReLU, dropout.

    Parameters
    ----------
    n_in, n_out
        Features before and after.
    dropout
        Dropout rate.
    momentum, epsilon
        Of the batch normalisation: how fast its running estimates follow, and what is added to the variance.
    linear
        Makes the linear layer.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        dropout: float = 0.0,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        linear: MakeLinear = xavier_linear,
    ) -> None:
        super().__init__(
            linear(n_in, n_out),
            nn.BatchNorm1d(n_out, momentum=momentum, eps=epsilon),
            nn.LeakyReLU(),
            nn.Dropout(dropout),
        )


class MLP(nn.Sequential):
    """Linear layers, each followed by LeakyReLU.

    Parameters
    ----------
    widths
        Features before, between and after the layers.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        for n_in, n_out in pairwise(widths):
            self.extend([xavier_linear(n_in, n_out), nn.LeakyReLU()])
