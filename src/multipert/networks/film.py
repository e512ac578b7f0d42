"""Feature-wise linear modulation (FiLM, Perez 2018): a layer steered by the condition."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from multipert.networks.lanes import Lanes
from multipert.networks.layers import MLP, Input, Layer, Linear
from multipert.networks.sparse import OneHots


class FiLM(nn.Module):
    """``gamma(c) * h + beta(c)``, element-wise, with gamma and beta made from the one-hot condition.

    The generator is an optional chain of hidden linear layers with LeakyReLU, then a linear head with LeakyReLU for
    gamma and another for beta. It runs once on every condition, ``(lanes, conditions, width)``, and each cell picks
    its row: the same numbers as running it on each cell's one-hot, for less work.

    Parameters
    ----------
    lanes
        The networks side by side.
    n_conditions
        Number of conditions, control among them.
    width
        Features of the layer that is modulated.
    hidden
        Widths of the generator's hidden layers.
    """

    def __init__(self, lanes: Lanes, n_conditions: int, width: int, *, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        widths = [n_conditions, *hidden]
        self.hidden = MLP([Layer(Linear(lanes, i, o)) for i, o in pairwise(widths)])
        self.gamma = Layer(Linear(lanes, widths[-1], width))
        self.beta = Layer(Linear(lanes, widths[-1], width))

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Gamma and beta of every condition, each ``(lanes, conditions, width)``."""
        h: Input = OneHots()
        for layer in self.hidden.layers:
            h = layer(h)
        return self.gamma(h), self.beta(h)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Modulate ``h`` ``(lanes, cells, width)`` by the condition codes ``(lanes, cells)``."""
        gamma, beta = self.coefficients()
        rows = condition.unsqueeze(-1).expand(-1, -1, h.shape[-1])
        return gamma.gather(1, rows) * h + beta.gather(1, rows)
