"""Models that are networks: trained in stages by the one loop, and asked for predictions in batches."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from multipert import training
from multipert.errors import InputError
from multipert.models.base import Model

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from torch import Tensor, nn

    from multipert.data import PerturbationData, Split
    from multipert.data.on_disk import Expression
    from multipert.models.metadata import FitMetadata
    from multipert.models.run_folder import Arrays, Layout
    from multipert.training import History, Stage, TrainerConfig

PREDICTED_AT_ONCE = 1024
"""Cells that pass through a network together at prediction."""


class NetworkModel(Model):
    """A model that is a network, trained in stages."""

    tolerates_bfloat16: ClassVar[bool] = False
    """Whether its accuracy was shown to hold with products in bfloat16: precision ``"auto"`` takes float32 if not."""
    stackable: ClassVar[bool] = True
    """Whether its network and losses can be stacked (``torch.func.vmap``) to train several fits as one."""

    network_: nn.Module

    @abstractmethod
    def _network(self, metadata: FitMetadata) -> nn.Module:
        """The untrained network."""

    @abstractmethod
    def _stages(self, network: Any, data: PerturbationData, split: Split) -> list[Stage]:
        """How it is trained."""

    def _learn(
        self, data: PerturbationData, split: Split, config: TrainerConfig, identity: Mapping[str, Any]
    ) -> History:
        config = self._resolve(config)
        identity = {**identity, "device": config.device.partition(":")[0], "precision": config.precision}
        with training.random_stream(self.seed, config.device):
            # Already at hand, so that it can be asked for predictions while it is trained.
            self.network_ = self._network(self.metadata_)
            stages = self._stages(self.network_, data, split)
            history = training.train(self.network_, stages, seed=self.seed, config=config, identity=identity)
        self._conclude(self.network_, data, split)
        return history

    def _resolve(self, config: TrainerConfig) -> TrainerConfig:
        """Settle device and precision, and note them."""
        bfloat16 = self.tolerates_bfloat16 and self.preset != "study"
        config = config.resolve(n_genes=len(self.metadata_.genes), bfloat16=bfloat16)
        self.device_, self.precision_ = config.device, config.precision
        return config

    def _untrained(self, metadata: FitMetadata) -> nn.Module:
        """The network as a fit begins with it; the caller's random stream is left alone."""
        with training.random_stream(self.seed):
            return self._network(metadata)

    def planned_steps(self, data: PerturbationData, split: Split) -> int:
        """How many steps a fit can be expected to take.

        Of a stage that may stop early, the geometric middle between the epochs of its patience and all of them.
        """
        from multipert.models.metadata import FitMetadata

        stages = self._stages(self._untrained(FitMetadata.of(data, split)), data, split)
        epochs = (
            stage.epochs if stage.patience is None else (stage.epochs * min(stage.patience, stage.epochs)) ** 0.5
            for stage in stages
        )
        return round(sum(one * len(stage.batches) for one, stage in zip(epochs, stages, strict=True)))

    def _conclude(self, network: Any, data: PerturbationData, split: Split) -> None:
        """Read off the trained network what prediction needs, into buffers of its own."""

    def in_progress(self, network: nn.Module, data: PerturbationData, split: Split) -> Self | None:
        """A copy of this model as far as it is trained, to be asked for predictions in ``on_epoch`` of :meth:`fit`.

        None where a part of it that predictions need was not trained at all yet.
        """
        now = copy.copy(self)
        now.network_ = copy.deepcopy(network).cpu()
        now._conclude(now.network_, data, split)
        return now

    def _arrays(self) -> Arrays:
        return {name: tensor.numpy() for name, tensor in self.network_.state_dict().items()}

    def _layout(self) -> Layout:
        import torch

        with torch.device("meta"):  # shapes alone: nothing is allocated for what may be damaged
            tensors = self._untrained(self.metadata_).state_dict().items()
        return {name: (tensor.shape, "f" if tensor.is_floating_point() else "i") for name, tensor in tensors}

    def _restore(self, arrays: Arrays) -> None:
        import torch

        self.network_ = self._untrained(self.metadata_).eval()
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
        return self._latent(adata, lambda x: self._encode(self.network_, x), missing_genes)

    def _latent(
        self, adata: AnnData | str | Path, encode: Callable[[Tensor], Tensor], missing_genes: str
    ) -> npt.NDArray[np.float32]:
        """What ``encode`` makes of cells that are yet to be read."""
        from multipert.data.alignment import read_aligned

        metadata = self._fitted()
        cells = read_aligned(adata, metadata.space, metadata.keys, missing_genes=missing_genes)
        return self._in_batches(cells.X, encode)

    def _encode(self, network: Any, x: Tensor) -> Tensor:
        """Latent vectors (cells, latent) of cells (cells, genes)."""
        raise InputError(f"{self.name} has no one latent space for all cells")

    def _in_batches(
        self, X: Expression, pass_on: Callable[[Tensor], Tensor], rows: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float32]:
        """What ``pass_on`` makes of all cells, or those at ``rows``, (cells, features), a batch at a time."""
        return np.concatenate([passed for _, passed in self._batches(X, pass_on, rows)])

    def _batches(
        self, X: Expression, pass_on: Callable[[Tensor], Tensor], rows: npt.NDArray[np.int64] | None = None
    ) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Batches of what ``pass_on`` makes of the cells, each (cells, features), and where among them they stand."""
        import torch

        rows = np.arange(X.shape[0]) if rows is None else rows
        for start in range(0, len(rows), PREDICTED_AT_ONCE):
            place = slice(start, start + PREDICTED_AT_ONCE)
            with torch.no_grad():
                passed = pass_on(torch.from_numpy(X[rows[place]].toarray())).numpy()
            yield place, passed


class OneForEach(NetworkModel):
    """A method for one perturbation at a time: one network for each, behind the same interface.

    The networks stand side by side in one module and are trained one after another by the one loop.
    """

    family = "published"
    serves = "one perturbation; a network for each"
    network_: nn.ModuleList

    @abstractmethod
    def _one_network(self, metadata: FitMetadata) -> nn.Module:
        """One untrained network."""

    @abstractmethod
    def _one_training(
        self, network: Any, data: PerturbationData, split: Split, conditions: Sequence[int]
    ) -> list[Stage]:
        """How a network is trained on control cells and on those of the conditions that it serves, by their codes."""

    @abstractmethod
    def _one_response(
        self, network: Any, X: csr_matrix, groups: npt.NDArray[np.int64], condition: int
    ) -> npt.NDArray[np.float32]:
        """Perturbed profiles (cells, genes) of control cells; cells of one context share a group number."""

    def _groups(self, metadata: FitMetadata) -> dict[str, list[int]]:
        """By name, the codes of the conditions that one network serves: here, of one perturbation."""
        return {condition: [code] for code, condition in enumerate(metadata.conditions[1:], start=1)}

    def _serving(self, condition: int) -> Any:
        """The network that serves a condition."""
        served = zip(self.network_, self._groups(self.metadata_).values(), strict=True)
        return next(network for network, conditions in served if condition in conditions)

    def _network(self, metadata: FitMetadata) -> nn.ModuleList:
        from torch import nn

        return nn.ModuleList([self._one_network(metadata) for _ in self._groups(metadata)])

    def _stages(self, network: nn.ModuleList, data: PerturbationData, split: Split) -> list[Stage]:
        from multipert.models.metadata import FitMetadata

        groups = self._groups(FitMetadata.of(data, split))
        return [
            replace(stage, name=f"{name}: {stage.name}")
            for one, (name, conditions) in zip(network, groups.items(), strict=True)
            for stage in self._one_training(one, data, split, conditions)
        ]

    def in_progress(self, network: nn.Module, data: PerturbationData, split: Split) -> Self | None:
        """A copy of this model as far as it is trained; None where several networks are trained in turn."""
        return super().in_progress(network, data, split) if len(self._groups(self.metadata_)) == 1 else None

    def _predict(self, X: csr_matrix, groups: npt.NDArray[np.int64], condition: int) -> npt.NDArray[np.float32]:
        return self._one_response(self._serving(condition), X, groups, condition)
