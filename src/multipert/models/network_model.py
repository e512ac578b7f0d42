"""Models that are networks: trained in stages by the one loop, and asked for predictions in batches."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from multipert.data import PerturbationData, Split
from multipert.data.alignment import read_aligned
from multipert.errors import InputError
from multipert.models.base import Arrays, FitMetadata, Model
from multipert.models.run_folder import Layout
from multipert.networks import Lanes, SparseBatch
from multipert.training import History, Stage, TrainerConfig, sparse_batch, train_lanes

PREDICTED_AT_ONCE = 1024
"""Cells that pass through a network together at prediction."""


class NetworkModel(Model):
    """A model that is a network, trained in stages."""

    tolerates_bfloat16: ClassVar[bool] = False
    """Whether its accuracy was shown to hold with products in bfloat16: precision ``"auto"`` takes float32 if not."""

    network_: nn.Module

    @abstractmethod
    def _network(self, lanes: Lanes, metadata: FitMetadata) -> nn.Module:
        """The untrained network."""

    @abstractmethod
    def _stages(self, network: Any, data: PerturbationData, split: Split) -> list[Stage]:
        """How it is trained."""

    def _learn(
        self, data: PerturbationData, split: Split, config: TrainerConfig, identity: Mapping[str, Any]
    ) -> History:
        return learn_in_lanes([self], data, [split], config, identity)[0]

    def planned_steps(self, data: PerturbationData, split: Split) -> int:
        """How many steps a fit can be expected to take.

        Of a stage that may stop early, the geometric middle between the epochs of its patience and all of them.
        """
        metadata = FitMetadata.of(data, split)
        stages = self._stages(self._network(Lanes([self.seed]), metadata), data, split)
        epochs = (
            stage.epochs if stage.patience is None else (stage.epochs * min(stage.patience, stage.epochs)) ** 0.5
            for stage in stages
        )
        return round(sum(one * len(stage.batches) for one, stage in zip(epochs, stages, strict=True)))

    def _conclude(self, network: Any, data: PerturbationData, split: Split) -> None:
        """Read off the trained network what prediction needs, into buffers of its own."""

    def _arrays(self) -> Arrays:
        return {name: tensor.numpy() for name, tensor in self.network_.state_dict().items()}

    def _layout(self) -> Layout:
        tensors = self._network(Lanes([self.seed]), self.metadata_).state_dict().items()
        return {name: (tensor.shape, "f" if tensor.is_floating_point() else "i") for name, tensor in tensors}

    def _restore(self, arrays: Arrays) -> None:
        self.network_ = self._network(Lanes([self.seed]), self.metadata_).eval()
        self.network_.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})

    @property
    def n_parameters(self) -> int:
        """How many numbers training moved."""
        return sum(parameter.numel() for parameter in self.network_.parameters())

    def latent(self, adata: AnnData | str | Path, *, missing_genes: str = "error") -> npt.NDArray[np.float32]:
        """Where cells lie in the model's latent space.

        Parameters
        ----------
        adata
            Log-normalised cells of any condition and context, or an h5ad file of them. Genes are matched by name.
        missing_genes
            As for :meth:`predict`.

        Returns
        -------
        ndarray
            (cells, latent), in the order of the cells.

        Raises
        ------
        InputError
            If the model is not fitted or has no latent space, or the cells cannot be read.
        """
        metadata = self._fitted()
        cells = read_aligned(adata, metadata.space, metadata.keys, missing_genes=missing_genes)
        return self._in_batches(cells.X, lambda x: self._encode(self.network_, x))

    def _encode(self, network: Any, x: SparseBatch) -> Tensor:
        """Latent vectors (lanes, cells, latent) of cells."""
        raise InputError(f"{self.name} has no one latent space for all cells")

    @torch.no_grad()
    def _in_batches(self, X: csr_matrix, pass_on: Callable[[SparseBatch], Tensor]) -> npt.NDArray[np.float32]:
        """What ``pass_on`` makes of all cells, (cells, features), a batch at a time."""
        starts = range(0, X.shape[0], PREDICTED_AT_ONCE)
        return np.concatenate([pass_on(sparse_batch(X[i : i + PREDICTED_AT_ONCE]))[0].numpy() for i in starts])


def learn_in_lanes(
    models: Sequence[NetworkModel],
    data: PerturbationData,
    splits: Sequence[Split],
    config: TrainerConfig,
    identity: Mapping[str, Any],
) -> list[History]:
    """Train the networks of models of one class and equal parameters as the lanes of one; each comes out with its own.

    Parameters
    ----------
    models
        Their metadata is known; one model is one lane.
    data
        The cells.
    splits
        For each model, which of them train and validate.
    config
        Where it runs, and where checkpoints go.
    identity
        What determines the training.

    Returns
    -------
    list of History
        One for each model.
    """
    first = models[0]
    if config.precision == "auto" and (first.preset == "study" or not first.tolerates_bfloat16):
        config = replace(config, precision="float32")
    lanes = Lanes([model.seed for model in models])
    network = first._network(lanes, first.metadata_)
    if len(models) == 1:
        first.network_ = network  # already, so that it can be asked for predictions while it is trained
    stages = [model._stages(network, data, split) for model, split in zip(models, splits, strict=True)]
    histories = train_lanes(network, lanes, stages, seeds=lanes.seeds, config=config, identity=identity)
    tensors = network.state_dict()
    for lane, (model, split) in enumerate(zip(models, splits, strict=True)):
        if len(models) > 1:
            model._restore({name: tensor[lane : lane + 1].numpy() for name, tensor in tensors.items()})
        model._conclude(model.network_, data, split)
    return histories


class OneForEach(NetworkModel):
    """A method for one perturbation at a time: one network for each, behind the same interface.

    The networks stand side by side in one module and are trained one after another by the one loop.
    """

    family = "published"
    serves = "one perturbation; a network for each"
    network_: nn.ModuleList

    @abstractmethod
    def _one_network(self, lanes: Lanes, metadata: FitMetadata) -> nn.Module:
        """The untrained network for one perturbation."""

    @abstractmethod
    def _one_training(self, network: Any, data: PerturbationData, split: Split, condition: int) -> list[Stage]:
        """How the network of the perturbation with code ``condition`` is trained, on its cells and control cells."""

    @abstractmethod
    def _one_response(self, network: Any, X: csr_matrix, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Perturbed profiles (cells, genes) of control cells; cells of one context share a group number."""

    def _network(self, lanes: Lanes, metadata: FitMetadata) -> nn.ModuleList:
        return nn.ModuleList([self._one_network(lanes, metadata) for _ in metadata.conditions[1:]])

    def _stages(self, network: nn.ModuleList, data: PerturbationData, split: Split) -> list[Stage]:
        trained = enumerate(data.perturbations, start=1)
        return [
            replace(stage, name=f"{perturbation}: {stage.name}")
            for condition, perturbation in trained
            for stage in self._one_training(network[condition - 1], data, split, condition)
        ]

    def _predict(self, X: csr_matrix, groups: npt.NDArray[np.int64], condition: int) -> npt.NDArray[np.float32]:
        return self._one_response(self.network_[condition - 1], X, groups)
