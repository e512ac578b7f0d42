"""scGen: vector arithmetic in the latent space of a variational autoencoder (Lotfollahi 2019).

An autoencoder learns control and perturbed cells together, without being told which is which. What a perturbation does
is one vector of its latent space, ``delta``: from the mean of control cells to the mean of perturbed cells. A control
cell is encoded, moved by ``delta`` and decoded.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from multipert import networks
from multipert.errors import InputError
from multipert.models.losses import mean_squared_error
from multipert.models.network_model import OneForEach
from multipert.models.parameters import Range, parameter
from multipert.models.registry import register
from multipert.training import Examples, Optimiser, Shuffled, Stage, Update

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from multipert.data import PerturbationData, Split
    from multipert.models.metadata import FitMetadata
    from multipert.networks import MovingAutoencoder, VariationalAutoencoder
    from multipert.training import Batch, Terms

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LatentArithmeticParameters:
    """What scGen and scVIDR can be told alike."""

    hidden: int = parameter(256, "width of the hidden layers", at_least=1, search=(128, 256, 512, 800))
    layers: int = parameter(2, "hidden layers of the encoder, and of the decoder", at_least=1, search=(1, 2, 3))
    latent: int = parameter(100, "width of the latent space", at_least=1, search=(25, 50, 100, 200))
    initial: Literal["xavier", "torch"] = parameter(
        "xavier", "how weights start: 'xavier' (uniform, Glorot 2010) or 'torch', torch's default, as in the originals"
    )
    dropout: float = parameter(0.2, "dropout rate after each hidden layer", at_least=0, below=1, search=Range(0.0, 0.5))
    kl_weight: float = parameter(
        5e-05, "weight of the divergence from N(0, I)", at_least=0, search=Range(1e-6, 1e-2, log=True)
    )
    lr: float = parameter(0.001, "learning rate of Adam", at_least=0, search=Range(1e-4, 1e-2, log=True))
    epsilon: float = parameter(0.01, "epsilon of Adam", at_least=0)
    weight_decay: float = parameter(1e-06, "weight decay of Adam", at_least=0)
    batch_size: int = parameter(32, "cells in a batch", at_least=2, search=(32, 64, 128))
    drop_last: bool = parameter(
        True, "whether the short last batch of an epoch is left out; in the originals it is not"
    )
    epochs: int = parameter(60, "epochs, at most", at_least=1)
    validation_share: float = parameter(
        0.1, "share of the cells, chosen at random, kept to validate", at_least=0, below=1
    )
    patience: int = parameter(25, "epochs without a better validation loss after which training stops", at_least=1)
    monitored_kl_weight: float = parameter(
        5e-05,
        "weight of the divergence in that validation loss; 1 in the originals, so that training stops soon",
        at_least=0,
    )
    keep: Literal["best", "last", "best-if-stopped"] = parameter(
        "best", "weights training ends with: 'best', 'last' as in the originals, or 'best-if-stopped'"
    )
    matched_contexts: bool = parameter(
        True,
        "whether a delta common to all contexts compares only those seen both in control and perturbed; in the "
        "originals all count, so that the held-out one counts among the control cells alone",
    )


class LatentArithmetic(OneForEach):
    """What scGen and scVIDR share: the autoencoder, how it is trained, and a response as a move in its latent space."""

    Parameters: ClassVar[type] = LatentArithmeticParameters
    loss = "0.5 * sum of squares over genes + 0.5 * kl_weight * KL(z || N(0, I)), mean over cells"

    may_be_nan = ("delta", "centroids", "deltas", "common")

    parameters: Any

    @abstractmethod
    def _one_network(self, metadata: FitMetadata) -> VariationalAutoencoder:
        """The untrained autoencoder, with room for what is read off it after training."""

    @property
    def _shape(self) -> dict[str, Any]:
        """How wide and deep the autoencoder is, and how its weights start."""
        p = self.parameters
        widths = {name: getattr(p, name) for name in ("hidden", "layers", "latent", "dropout")}
        return widths | {"linear": networks.START[p.initial]}

    def _one_training(
        self, network: Any, data: PerturbationData, split: Split, conditions: Sequence[int]
    ) -> list[Stage]:
        """Reconstruct the control cells and those of ``conditions``; nothing to do where training saw none of these."""
        p = self.parameters
        rows = visible(data, split, [0, *conditions])
        if not data.condition[rows].any():
            return []
        rows = np.random.default_rng((self.seed, *conditions)).permutation(rows)
        n_validation = int(p.validation_share * len(rows))
        validation, training = (Examples(data.X, {"x": part}, {}) for part in np.split(rows, [n_validation]))

        def loss(batch: Batch) -> Terms:
            return self._loss(network, batch, p.kl_weight)

        def monitored(batch: Batch) -> Terms:
            return self._loss(network, batch, p.monitored_kl_weight)

        adam = Optimiser([network], p.lr, epsilon=p.epsilon, weight_decay=p.weight_decay)
        batches = Shuffled(training, p.batch_size, p.drop_last)
        return [
            Stage("reconstruct", batches, p.epochs, [Update(adam, loss)], validation, p.patience, p.keep, monitored)
        ]

    def _loss(self, network: VariationalAutoencoder, batch: Batch, kl_weight: float) -> Terms:
        """Of a cell, ``0.5 sum_genes (x - x')^2 + 0.5 kl_weight KL``, KL summed over latents; averaged over cells.

        Latents are drawn from the posterior, in validation too: the loss is an expectation over it.
        """
        x = batch.cells["x"]
        mean, variance = network.posterior(x)
        decoded = network.decode(network.heads.draw(mean, variance))
        squares = mean_squared_error(decoded, x) * x.shape[-1]
        kl = networks.kl_divergence(mean, variance).sum(-1).mean()
        return {"loss": 0.5 * squares + 0.5 * kl_weight * kl, "squares": squares, "kl": kl}

    def _common_delta(
        self, network: VariationalAutoencoder, data: PerturbationData, split: Split, condition: int
    ) -> Doubles:
        """The move (latent,) common to all contexts under a condition; NaN where training saw no such cells."""
        rows = visible(data, split, [0, condition])
        perturbed, context = data.condition[rows] != 0, data.context[rows]
        if self.parameters.matched_contexts:
            both = np.isin(context, np.intersect1d(context[perturbed], context[~perturbed]))
            rows, perturbed, context = rows[both], perturbed[both], context[both]
        if not perturbed.any():
            return np.full(self.parameters.latent, np.nan)
        weights = balanced_weights(perturbed, context, np.random.default_rng((self.seed, condition)))
        drawn = np.flatnonzero(weights)
        delta = np.zeros(self.parameters.latent)
        for place, z in self._batches(data.X, network.encode, rows[drawn]):
            delta += weights[drawn[place]] @ z
        return delta

    def _moved(self, network: VariationalAutoencoder, X: csr_matrix, delta: Doubles) -> Floats:
        """Control cells ``X`` (cells, genes) moved by ``delta`` (latent,) in latent space."""
        import torch

        if np.isnan(delta).any():
            raise InputError(
                f"training saw no context with both control cells and cells of this perturbation (at its highest dose, "
                f"for a model of doses), so {self.name} cannot tell what it does: choose another, or bring such cells"
            )
        move = torch.from_numpy(delta.astype(np.float32))
        return self._in_batches(X, lambda x: network.decode(network.encode(x) + move))

    def latent(
        self, adata: AnnData | str | Path, perturbation: str | None = None, *, missing_genes: str = "error"
    ) -> Floats:
        """Where cells lie in the latent space: the mean of each cell's posterior.

        Parameters
        ----------
        adata
            Log-normalised cells of any condition and context, or an h5ad file of them. Genes are matched by name.
        perturbation
            Each perturbation has an autoencoder, hence a latent space, of its own: whose to give. Needed only where
            there are several.
        missing_genes
            As for :meth:`predict`.

        Returns
        -------
        ndarray
            (cells, latent), in the order of the cells.

        Raises
        ------
        InputError
            If the model is not fitted, the perturbation is unknown or needed and not given, or the cells cannot be
            read.
        """
        metadata = self._fitted()
        if perturbation is None and len(self.network_) > 1:
            raise InputError(
                f"{self.name} has a latent space for each of {len(self.network_)} perturbations: name one of them, "
                f"as in latent(cells, {metadata.conditions[1]!r})"
            )
        perturbation = metadata.conditions[1] if perturbation is None else perturbation
        metadata.check_condition(perturbation, metadata.conditions[1:])
        network = self._serving(metadata.conditions.index(perturbation))
        return self._latent(adata, network.encode, missing_genes)


@register
class ScGen(LatentArithmetic):
    """scGen: one vector of the latent space for each perturbation, the same for every context."""

    name = "scgen"
    title = "variational autoencoder; control cells moved by one latent vector"
    assumes = "a perturbation moves all contexts by the same latent vector"
    source = "Lotfollahi et al., scGen predicts single-cell perturbation responses, Nature Methods 2019"

    def _one_network(self, metadata: FitMetadata) -> MovingAutoencoder:
        return networks.MovingAutoencoder(len(metadata.genes), **self._shape)

    def _conclude(self, network: Any, data: PerturbationData, split: Split) -> None:
        import torch

        for condition, one in enumerate(network, start=1):
            one.delta.copy_(torch.from_numpy(self._common_delta(one, data, split, condition)))

    def _one_response(self, network: MovingAutoencoder, X: csr_matrix, groups: Rows, condition: int) -> Floats:
        return self._moved(network, X, network.delta.numpy())


def visible(data: PerturbationData, split: Split, conditions: Sequence[int]) -> Rows:
    """The cells of some conditions that training may see, in file order."""
    rows = split.visible
    return rows[np.isin(data.condition[rows], conditions)]


def balanced_weights(perturbed: npt.NDArray[np.bool_], context: Rows, rng: np.random.Generator) -> Doubles:
    """What each cell counts in the mean of perturbed cells minus that of control cells, contexts counting equally.

    Among control and among perturbed cells apart, each context is sampled (with replacement) up to the largest; then
    both sides are cut at random to the size of the smaller.

    Parameters
    ----------
    perturbed
        (cells,) which of them are perturbed; the others are control.
    context
        (cells,) context of each.
    rng
        Draws the cells.

    Returns
    -------
    ndarray
        (cells,): those of perturbed cells sum to 1, those of control cells to -1.
    """
    control, treated = (balanced(np.flatnonzero(side), context, rng) for side in (~perturbed, perturbed))
    size = min(len(control), len(treated))
    before, after = (
        np.bincount(rng.choice(s, size, replace=False), minlength=len(context)) for s in (control, treated)
    )
    weights: Doubles = (after - before) / size
    return weights


def balanced(cells: Rows, context: Rows, rng: np.random.Generator) -> Rows:
    """As many of ``cells`` from each context, drawn with replacement, as the largest context has among them."""
    by_context = [cells[context[cells] == one] for one in np.unique(context[cells])]
    largest = max(len(members) for members in by_context)
    return np.concatenate([rng.choice(members, largest) for members in by_context])
