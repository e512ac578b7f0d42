"""The contract every model keeps: configured by keywords, fitted, asked for predictions, saved and loaded."""

import hashlib
import importlib.metadata
import json
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from multipert.data import Keys, PerturbationData, Split, leave_context_out, offer, train_on_everything
from multipert.data.alignment import read_aligned
from multipert.errors import InputError
from multipert.models.parameters import NoParameters, resolve
from multipert.models.run_folder import FittedModel, check_free, write_run
from multipert.networks import Lanes, Precision, SparseBatch
from multipert.training import History, Sitting, Stage, sparse_batch, train_lanes

PREDICTED_AT_ONCE = 1024
"""Cells that pass through a network together at prediction."""


@dataclass(frozen=True)
class Scope:
    """What a fitted model knows of the world it was fitted in.

    Attributes
    ----------
    genes
        Gene names, in the order of its profiles.
    conditions
        Condition names, control first: the order of the one-hot.
    labels
        For each condition, what the columns of ``obs`` hold in its cells.
    contexts
        Contexts seen in training.
    keys
        Which columns and layer the data were read from.
    held_out
        The context whose perturbed cells training did not see.
    fingerprint
        Of the data.
    """

    genes: tuple[str, ...]
    conditions: tuple[str, ...]
    labels: Mapping[str, Mapping[str, object]]
    contexts: tuple[str, ...]
    keys: Keys
    held_out: str | None
    fingerprint: str

    @classmethod
    def of(cls, data: PerturbationData, split: Split) -> "Scope":
        """The scope of a fit to ``data``."""
        return cls(
            tuple(data.genes),
            data.conditions,
            {condition: data.labels(condition) for condition in data.conditions},
            data.contexts,
            data.keys,
            split.held_out,
            data.fingerprint,
        )

    def check_condition(self, name: str, known: tuple[str, ...]) -> None:
        """Refuse a name that is not among ``known``, offering those that are."""
        if name not in known:
            raise InputError(f"the model knows no perturbation {name!r}; {offer(name, known)}")

    @classmethod
    def from_json(cls, text: Mapping[str, Any]) -> "Scope":
        """Read what ``dataclasses.asdict`` wrote."""
        return cls(
            tuple(text["genes"]),
            tuple(text["conditions"]),
            text["labels"],
            tuple(text["contexts"]),
            Keys(**text["keys"]),
            text["held_out"],
            text["fingerprint"],
        )


def split_digest(split: Split) -> str:
    """Sixteen hexadecimal digits that stand for which cells train and which validate."""
    digest = hashlib.blake2b(digest_size=8)
    for rows in (split.train, split.validation):
        digest.update(f"{len(rows)}:".encode() + rows.astype("<i8").tobytes())
    return digest.hexdigest()


class Model(ABC):
    """A method that predicts perturbed cells from control cells.

    Parameters
    ----------
    preset
        The named set of values to start from: ``"default"`` trains well and fast, ``"study"`` is the published recipe.
    seed
        Of everything random. The same seed on the same machine gives the same model.
    **parameters
        Values that differ from the preset's.

    Attributes
    ----------
    parameters
        All values, after the preset and the changes.
    scope_
        What it was fitted to.
    history_
        Losses, epoch by epoch; empty for a model without training.
    seconds_fit_
        Seconds the fit took, over all sittings; of fits made together, its share.
    """

    name: ClassVar[str]
    """What the command line, the tables and ``create`` call it."""
    title: ClassVar[str]
    """One line: what it does."""
    source: ClassVar[str]
    """Where it was published."""
    family: ClassVar[str]
    """``multi-task``, ``published`` or ``baseline``."""
    serves: ClassVar[str] = "all perturbations"
    """What one network can be conditioned on."""
    assumes: ClassVar[str]
    """One line: when its prediction can be right."""
    loss: ClassVar[str] = "none: nothing is trained"
    """One line: what training minimises."""
    Parameters: ClassVar[type] = NoParameters

    scope_: Scope
    history_: History
    seconds_fit_: float

    def __init__(self, *, preset: str = "default", seed: int = 1, **parameters: Any) -> None:
        self.preset, self.seed, self._changes = preset, seed, parameters
        self.parameters: Any = resolve(self.name, self.Parameters, preset, parameters)

    def __repr__(self) -> str:
        given = {"preset": self.preset, "seed": self.seed} | {k: getattr(self.parameters, k) for k in self._changes}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    # What a method says of itself.

    @abstractmethod
    def _learn(self, data: PerturbationData, split: Split, sitting: Sitting, identity: Mapping[str, Any]) -> History:
        """Learn from the training cells; whatever is learnt must be in :meth:`_tensors`."""

    @abstractmethod
    def _predict(self, X: csr_matrix, groups: npt.NDArray[np.int64], condition: int) -> npt.NDArray[np.float32]:
        """Perturbed profiles (cells, genes) of control cells ``X``; cells of one context share a group number."""

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """All that was learnt, by name."""

    @abstractmethod
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what :meth:`_tensors` gave."""

    @property
    def n_parameters(self) -> int:
        """How many numbers training moved."""
        return 0

    # What every model does the same way.

    def fit(
        self,
        data: PerturbationData,
        split: Split | None = None,
        *,
        run: str | Path | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        progress: bool | None = None,
        tensorboard: bool = False,
        on_epoch: Callable[[nn.Module, History], None] | None = None,
    ) -> Self:
        """Learn how cells respond.

        Parameters
        ----------
        data
            The cells.
        split
            Which of them train and validate; without one, all train.
        run
            A folder for checkpoints while training and the saved model after. A training that was interrupted there
            goes on where it stopped.
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` (``"cuda:1"`` for the second GPU) or ``"mps"``.
        precision
            Number format of the largest products in training: ``"float32"``, ``"bfloat16"``, or ``"auto"``, which is
            bfloat16 where the device has it in hardware and the model's accuracy was shown to hold with it.
        progress
            Whether to show progress; by default only on a terminal.
        tensorboard
            Whether to write the losses as TensorBoard curves into ``run`` as well.
        on_epoch
            Called after each epoch with the network, in evaluation mode, and the history so far. The seconds of the
            history leave out the time it takes.

        Raises
        ------
        InputError
            If this machine has no such device or there is no such precision, the split belongs to other data, there
            are too few cells, or ``run`` holds another run.
        Interrupted
            On Ctrl-C, when there is a ``run`` folder: the same call goes on from there.
        """
        split = train_on_everything(data) if split is None else split
        if tensorboard and run is None:
            raise InputError("tensorboard curves need a place: give a run folder too")
        folder = check_free(Path(run)) if run is not None else None
        started = time.monotonic()
        identity = self._begin(data, split)
        self.history_ = self._learn(data, split, Sitting(device, folder, progress, precision, on_epoch), identity)
        self.seconds_fit_ = max(time.monotonic() - started, self.history_.seconds)
        if folder is not None:
            self.save(folder)
            if tensorboard:
                self.history_.write_tensorboard(folder / "tensorboard")
        return self

    def _begin(self, data: PerturbationData, split: Split) -> Mapping[str, Any]:
        """Take in what is to be learnt from; give what determines the fit, as JSON would give it back."""
        split.check(data)
        self.scope_ = Scope.of(data, split)
        identity = {
            "model": self.name,
            "parameters": asdict(self.parameters),
            "seed": self.seed,
            "data": data.fingerprint,
            "split": split_digest(split),
        }
        return dict(json.loads(json.dumps(identity)))

    def predict(
        self,
        controls: AnnData | str | Path,
        perturbation: str,
        *,
        missing_genes: str = "error",
    ) -> AnnData:
        """Predict how control cells would look under a perturbation.

        Parameters
        ----------
        controls
            Log-normalised control cells of any context, seen in training or not, or an h5ad file of them. Genes are
            matched by name.
        perturbation
            One the model was fitted on: ``name``, or ``name@dose``.
        missing_genes
            What to do when a gene of the training data is not in ``controls``: ``"error"`` refuses, ``"zero"`` takes
            it as zero in every cell.

        Returns
        -------
        AnnData
            One predicted cell for each control cell: ``X`` (cells, genes) float32, nothing negative, genes in the order
            of the training data; ``obs`` of the control cells, their condition column set to the perturbation.

        Raises
        ------
        InputError
            If the model is not fitted, the perturbation is unknown, genes are missing, or the cells are not
            log-normalised control cells.
        """
        scope = self._fitted()
        scope.check_condition(perturbation, scope.conditions[1:])
        cells = read_aligned(controls, scope.genes, scope.keys, missing_genes=missing_genes, controls_only=True)
        predicted = self._predict(cells.X, cells.context, scope.conditions.index(perturbation))
        labels: dict[str, Any] = {
            column: pd.Categorical([label] * len(cells.obs)) if isinstance(label, str) else label
            for column, label in scope.labels[perturbation].items()
        }
        obs = cells.obs.assign(**labels)
        var = pd.DataFrame(index=pd.Index(scope.genes))
        return AnnData(np.maximum(predicted, 0, dtype=np.float32), obs=obs, var=var)

    def training_data(self, adata: AnnData | str | Path) -> tuple[PerturbationData, Split]:
        """Read again the data the model was fitted to, and its split.

        Parameters
        ----------
        adata
            The cells, or an h5ad file of them, as they were given to the fit.

        Raises
        ------
        InputError
            If they are not the cells it was fitted to.
        """
        scope = self._fitted()
        data = PerturbationData.from_anndata(adata, **asdict(scope.keys))
        if data.fingerprint != scope.fingerprint:
            raise InputError(
                f"these are not the cells the model was fitted to (fingerprint {data.fingerprint}, "
                f"not {scope.fingerprint}): give the same file"
            )
        return data, train_on_everything(data) if scope.held_out is None else leave_context_out(data, scope.held_out)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the fitted model as a run folder: ``model.safetensors``, ``model.json``, ``run.json``, ``history.csv``.

        Parameters
        ----------
        folder
            Made if it is not there.
        overwrite
            Whether a run that is already there may be replaced.

        Raises
        ------
        InputError
            If the model is not fitted, or the folder cannot be written or holds another run.
        """
        scope = self._fitted()
        parameters = asdict(self.parameters)
        versions = {
            package: importlib.metadata.version(package)
            for package in ("multipert", "torch", "lightning-fabric", "anndata", "numpy")
        } | {"python": platform.python_version()}
        described = {"model": self.name, "preset": self.preset, "parameters": parameters, "seed": self.seed}
        fitted = FittedModel(
            tensors=self._tensors(),
            model={**described, "scope": asdict(scope), "versions": versions},
            run={
                **described,
                "held_out": scope.held_out,
                "data_fingerprint": scope.fingerprint,
                "seconds_fit": round(self.seconds_fit_, 3),
                "steps": self.history_.steps,
                "n_parameters": self.n_parameters,
                "versions": versions,
            },
            history=self.history_.table,
        )
        write_run(Path(folder), fitted, overwrite=overwrite)

    @classmethod
    def from_run(cls, fitted: FittedModel) -> Self:
        """The model that was saved as ``fitted``."""
        described = fitted.model
        model = cls(preset=described["preset"], seed=described["seed"], **described["parameters"])
        model.scope_ = Scope.from_json(described["scope"])
        model.history_ = History.from_table(fitted.history)
        model.seconds_fit_ = fitted.run["seconds_fit"]
        model._restore(fitted.tensors)
        return model

    def _fitted(self) -> Scope:
        if not hasattr(self, "scope_"):
            raise InputError(f"this {type(self).__name__} is not fitted: call fit first")
        return self.scope_


class NetworkModel(Model):
    """A model that is a network, trained in stages."""

    tolerates_bfloat16: ClassVar[bool] = False
    """Whether its accuracy was shown to hold with products in bfloat16: precision ``"auto"`` takes float32 if not."""

    network_: nn.Module

    @abstractmethod
    def _network(self, lanes: Lanes, scope: Scope) -> nn.Module:
        """The untrained network."""

    @abstractmethod
    def _stages(self, network: Any, data: PerturbationData, split: Split) -> list[Stage]:
        """How it is trained."""

    def _learn(self, data: PerturbationData, split: Split, sitting: Sitting, identity: Mapping[str, Any]) -> History:
        return learn_in_lanes([self], data, [split], sitting, identity)[0]

    def planned_steps(self, data: PerturbationData, split: Split) -> int:
        """How many steps a fit would take; fewer where a stage stops early."""
        scope = Scope.of(data, split)
        stages = self._stages(self._network(Lanes([self.seed]), scope), data, split)
        return sum(stage.epochs * len(stage.batches) for stage in stages)

    def _conclude(self, network: Any, data: PerturbationData, split: Split) -> None:
        """Read off the trained network what prediction needs, into buffers of its own."""

    def _tensors(self) -> dict[str, Tensor]:
        return self.network_.state_dict()

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self.network_ = self._network(Lanes([self.seed]), self.scope_).eval()
        self.network_.load_state_dict(tensors)

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
        scope = self._fitted()
        cells = read_aligned(adata, scope.genes, scope.keys, missing_genes=missing_genes)
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
    sitting: Sitting,
    identity: Mapping[str, Any],
) -> list[History]:
    """Train the networks of models of one class and equal parameters as the lanes of one; each comes out with its own.

    Parameters
    ----------
    models
        Their scopes are known; one model is one lane.
    data
        The cells.
    splits
        For each model, which of them train and validate.
    sitting
        Where it runs, and where checkpoints go.
    identity
        What determines the training.

    Returns
    -------
    list of History
        One for each model.
    """
    first = models[0]
    if sitting.precision == "auto" and not first.tolerates_bfloat16:
        sitting = replace(sitting, precision="float32")
    lanes = Lanes([model.seed for model in models])
    network = first._network(lanes, first.scope_)
    if len(models) == 1:
        first.network_ = network  # already, so that it can be asked for predictions while it is trained
    stages = [model._stages(network, data, split) for model, split in zip(models, splits, strict=True)]
    histories = train_lanes(network, lanes, stages, seeds=lanes.seeds, sitting=sitting, identity=identity)
    tensors = network.state_dict()
    for lane, (model, split) in enumerate(zip(models, splits, strict=True)):
        if len(models) > 1:
            model._restore({name: tensor[lane : lane + 1] for name, tensor in tensors.items()})
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
    def _one_network(self, lanes: Lanes, scope: Scope) -> nn.Module:
        """The untrained network for one perturbation."""

    @abstractmethod
    def _one_training(self, network: Any, data: PerturbationData, split: Split, condition: int) -> list[Stage]:
        """How the network of the perturbation with code ``condition`` is trained, on its cells and control cells."""

    @abstractmethod
    def _one_response(self, network: Any, X: csr_matrix, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Perturbed profiles (cells, genes) of control cells; cells of one context share a group number."""

    def _network(self, lanes: Lanes, scope: Scope) -> nn.ModuleList:
        return nn.ModuleList([self._one_network(lanes, scope) for _ in scope.conditions[1:]])

    def _stages(self, network: nn.ModuleList, data: PerturbationData, split: Split) -> list[Stage]:
        trained = enumerate(data.perturbations, start=1)
        return [
            replace(stage, name=f"{perturbation}: {stage.name}")
            for condition, perturbation in trained
            for stage in self._one_training(network[condition - 1], data, split, condition)
        ]

    def _predict(self, X: csr_matrix, groups: npt.NDArray[np.int64], condition: int) -> npt.NDArray[np.float32]:
        return self._one_response(self.network_[condition - 1], X, groups)
