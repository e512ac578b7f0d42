"""Feature-wise linear modulation (FiLM, Perez 2018): a layer steered by the condition."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multipert.networks.layers import MLP, xavier_linear


class FiLM(nn.Module):
    """``gamma(c) * h + beta(c)``, element-wise.

    Gamma and beta are made from the condition by an optional chain of hidden linear layers with LeakyReLU, then a
    linear layer with LeakyReLU for each of the two.

    Parameters
    ----------
    n_features
        Numbers that describe a condition: as many as conditions for a one-hot.
    width
        Features of the layer that is modulated.
    hidden
        Widths of the hidden layers.
    """

    def __init__(self, n_features: int, width: int, *, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        widths = [n_features, *hidden]
        self.hidden = MLP(widths)
        self.gamma = MLP([widths[-1], width])
        self.beta = MLP([widths[-1], width])

    def coefficients(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Gamma and beta, each ``(cells, width)``, of the conditions ``c`` ``(cells, n_features)``."""
        c = self.hidden(c)
        return self.gamma(c), self.beta(c)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Modulate ``h`` ``(cells, width)`` by the conditions ``c`` ``(cells, n_features)``."""
        gamma, beta = self.coefficients(c)
        return gamma * h + beta


class FilmLayer(nn.Module):
    """Linear, batch normalisation, FiLM, LeakyReLU, dropout."""

    def __init__(self, n_in: int, n_out: int, n_features: int, *, film_hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.linear = xavier_linear(n_in, n_out)
        self.norm = nn.BatchNorm1d(n_out)
        self.film = FiLM(n_features, n_out, hidden=film_hidden)
        self.activation = nn.LeakyReLU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Pass ``h`` ``(cells, n_in)`` on as ``(cells, n_out)``, under the conditions ``c`` ``(cells, n_features)``."""
        h = self.film(self.norm(self.linear(h)), c)
        return self.dropout(self.activation(h))  # type: ignore[no-any-return]


def one_hot(codes: Tensor, n_conditions: int) -> Tensor:
    """The conditions ``codes`` ``(cells,)`` as vectors ``(cells, n_conditions)``: one where the code is, else zero."""
    return (codes.unsqueeze(-1) == torch.arange(n_conditions, device=codes.device)).float()


class ConditionEncoder(nn.Module):
    """From conditions to the vectors that FiLM is told: the sum of their members', and what members do together.

    With ``v_i`` the vectors of a condition's members, ``c = sum_i v_i + B sum_{i<j} (A v_i) * (A v_j)``, products
    element-wise. B starts at zero: until training finds an interaction, a combination is the sum of its members.

    Parameters
    ----------
    vectors
        (conditions, members, n_features) the vectors of each condition's members, zero where it has fewer.

    Attributes
    ----------
    vectors
        The same, as a buffer.
    """

    vectors: Tensor

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        n_features = vectors.shape[-1]
        self.register_buffer("vectors", vectors)
        self.members = nn.Linear(n_features, n_features, bias=False)
        self.interaction = nn.Linear(n_features, n_features, bias=False)
        nn.init.orthogonal_(self.members.weight)
        nn.init.zeros_(self.interaction.weight)

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors ``(cells, n_features)`` of the conditions ``codes`` ``(cells,)``."""
        members = self.vectors[codes]
        inner = self.members(members)
        pairs = (inner.sum(-2).square() - inner.square().sum(-2)) / 2
        return members.sum(-2) + self.interaction(pairs)  # type: ignore[no-any-return]
