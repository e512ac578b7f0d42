"""The contract every model keeps: configured by keywords, fitted, asked for predictions, saved and loaded."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from multipert.errors import InputError
from multipert.models.left_out import LeftOutScore
from multipert.models.parameters import DEFAULT, NoParameters, documentation, preset_of, resolve, signature
from multipert.models.questions import Answer, Question
from multipert.models.run_folder import check_free, write_run
from multipert.training import History, TrainerConfig

# A model's class is light, so that all can be listed at once: what reads cells and what trains is imported where it is
# used.
if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from torch import nn

    from multipert.data import PerturbationData, PerturbationFeatures, Split
    from multipert.data.condition_vectors import ConditionVectors
    from multipert.models.familiarity import TrainingControls
    from multipert.models.metadata import FitMetadata
    from multipert.models.run_folder import Arrays, Layout
    from multipert.training import Precision


class Model(ABC):
    """A method that predicts perturbed cells from control cells.

    A constructor takes keywords alone: ``preset``, ``seed`` and the fields of the class's ``Parameters``.

    Attributes
    ----------
    parameters
        All values, after the preset and the changes.
    metadata_
        What it was fitted to.
    vectors_
        How it knows conditions, where it was told what perturbations are.
    history_
        Losses, epoch by epoch; empty for a model without training.
    seconds_fit_
        Seconds the fit took, over all starts; of fits made together, its share.
    device_, precision_
        Where it was fitted, and the number format of the largest products there.
    left_out_
        How it did on what the split leaves out, or, where it leaves out nothing and fits take seconds, how fits without
        each context in turn did; known after a fit into a run folder, or from one.
    """

    name: ClassVar[str]
    """What the command line, the tables and ``create`` call it."""
    called: ClassVar[str]
    """What sentences call it; by default its name."""
    title: ClassVar[str] = ""
    """One line: what it does."""
    source: ClassVar[str] = ""
    """Where it was published."""
    family: ClassVar[str] = "other"
    """``multi-task``, ``published``, ``baseline`` or a word of your own."""
    serves: ClassVar[str] = "all perturbations"
    """What one network can be conditioned on."""
    assumes: ClassVar[str] = ""
    """One line: when its prediction can be right."""
    predicts_unseen: ClassVar[bool] = False
    """Whether it can predict a perturbation that training saw no cell of, without features."""
    gives_intervals: ClassVar[bool] = False
    """Whether it says how far the mean of a gene may lie from the predicted one."""
    takes_features: ClassVar[bool] = False
    """Whether it can be told what perturbations are."""
    learns_from_pilot: ClassVar[bool] = False
    """Whether a pilot tells it anything: a few perturbed cells of the context that is predicted."""
    loss: ClassVar[str] = "none: nothing is trained"
    """One line: what training minimises."""
    may_be_nan: ClassVar[tuple[str, ...]] = ()
    """Arrays, by the last part of their name, in which NaN stands for what training saw too little of to know."""
    Parameters: ClassVar[type] = NoParameters
    """A frozen dataclass of what can be set; see :func:`~multipert.models.parameter`."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Presets beside ``default`` that the class brings along: by name, the values that differ."""

    metadata_: FitMetadata
    vectors_: ConditionVectors | None = None
    history_: History
    seconds_fit_: float
    controls_: TrainingControls
    left_out_: LeftOutScore | None = None
    device_: str = "cpu"
    precision_: str = "float32"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "name"):
            cls.called = cls.__dict__.get("called", cls.name)
            cls.__doc__, cls.__signature__ = documentation(cls), signature(cls)  # type: ignore[attr-defined]

    def __init__(self, *, preset: str | Path = DEFAULT, seed: int = 1, **parameters: Any) -> None:
        if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
            raise InputError(f"seed takes a whole number from 0 to {2**32 - 1}, not {seed!r}")
        self.preset, given = preset_of(type(self), preset)
        self.seed = int(seed)
        self.parameters: Any = resolve(type(self), self.preset, given | parameters)

    def __repr__(self) -> str:
        preset = asdict(resolve(type(self), self.preset, {}))
        changes = {name: value for name, value in asdict(self.parameters).items() if value != preset[name]}
        given = {"preset": self.preset, "seed": self.seed} | changes
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    # What a method says of itself.

    @abstractmethod
    def _learn(
        self, data: PerturbationData, split: Split, config: TrainerConfig, identity: Mapping[str, Any]
    ) -> History:
        """Learn from the training cells; whatever is learnt must be in :meth:`_arrays`."""

    @abstractmethod
    def _predict(self, X: csr_matrix, groups: npt.NDArray[np.int64], condition: int) -> npt.NDArray[np.float32]:
        """Perturbed profiles (cells, genes) of control cells ``X``; cells of one context share a group number."""

    def _answer(self, question: Question) -> Answer:
        """:meth:`_predict`, for a model that makes more of what is asked."""
        for asked, what in ((question.pilot, "learn from a pilot"), (question.level, "give intervals")):
            if asked is not None:
                raise InputError(f"{self.name} cannot {what}: mtcell can")
        notes = self.controls_.notes(question.X, question.groups)
        return Answer(self._predict(question.X, question.groups, question.condition), notes=notes)

    @abstractmethod
    def _arrays(self) -> Arrays:
        """All that was learnt, by name."""

    @abstractmethod
    def _restore(self, arrays: Arrays) -> None:
        """Take back what :meth:`_arrays` gave; :attr:`metadata_` and the parameters are as they were at the fit."""

    def _layout(self) -> Layout | None:
        """What :meth:`_arrays` must be, by name: checked before :meth:`_restore`; None leaves it unchecked."""
        return None

    @property
    def n_parameters(self) -> int:
        """How many numbers training moved."""
        return 0

    def _describe(self, names: Sequence[str]) -> None:
        """Make this shallow copy of a fitted model predict ``names`` too, with which :attr:`metadata_` now ends."""
        raise InputError(f"{self.name} cannot predict what training never saw")

    # What every model does the same way.

    def fit(
        self,
        data: PerturbationData,
        split: Split | None = None,
        *,
        features: PerturbationFeatures | str | None = None,
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
        features
            What perturbations are, for a model that is to predict others too: a table, or what
            :func:`multipert.read_features` takes, such as ``"smiles=drugs.csv"``.
        run
            A folder for checkpoints while training and the saved model after. A training that was interrupted there
            goes on where it stopped.
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` (``"cuda:1"`` for the second GPU) or ``"mps"``.
        precision
            Number format of the largest products in training: ``"float32"``, ``"bfloat16"``, or ``"auto"``, which is
            bfloat16 where the device has it in hardware and the model's accuracy was shown to hold with it; under
            the preset ``"study"`` it is float32, as in the study's runs.
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
            are too few cells, or ``run`` holds another run or is being written by another process.
        Interrupted
            On Ctrl-C, when there is a ``run`` folder: the same call goes on from there.
        """
        from multipert.data import only_writer, train_on_everything

        split = split or train_on_everything(data)
        if tensorboard and run is None:
            raise InputError("tensorboard curves need a place: give a run folder too")
        folder = check_free(Path(run)) if run is not None else None
        with nullcontext() if folder is None else only_writer(folder):
            started = time.monotonic()
            identity = self._begin(data, split, features)
            config = TrainerConfig(device, folder, progress, precision, on_epoch)
            self.history_ = self._learn(data, split, config, identity)
            self.seconds_fit_ = max(time.monotonic() - started, self.history_.seconds)
            if folder is not None:
                if split.held_out is None:
                    self.left_out_ = LeftOutScore.of_each_context(self, data, features)
                else:
                    self.left_out_ = LeftOutScore.of(self, data, split)
                self.save(folder)
                if tensorboard:
                    self.history_.write_tensorboard(folder / "tensorboard")
        return self

    def _begin(
        self, data: PerturbationData, split: Split, features: PerturbationFeatures | str | None = None
    ) -> Mapping[str, Any]:
        """Take in what is to be learnt from; give what determines the fit, as JSON would give it back."""
        from multipert.models.described import condition_vectors, vector_digest
        from multipert.models.familiarity import TrainingControls
        from multipert.models.metadata import FitMetadata, split_digest

        split.check(data)
        self.vectors_ = condition_vectors(self, features, data, split)
        self.metadata_ = FitMetadata.of(data, split, self.vectors_)
        self.controls_ = TrainingControls.of(data, split)
        identity = {
            "model": self.name,
            "parameters": asdict(self.parameters),
            "seed": self.seed,
            "data": data.fingerprint,
            "split": split_digest(split),
        }
        return dict(json.loads(json.dumps(identity | vector_digest(self.vectors_))))

    @property
    def perturbations(self) -> tuple[str, ...]:
        """What the fitted model can predict, by name (``name@dose`` where there are doses)."""
        return self._fitted().conditions[1:]

    def predict(
        self,
        controls: AnnData | str | Path,
        perturbation: str | Sequence[str],
        *,
        features: PerturbationFeatures | None = None,
        missing_genes: str = "error",
        pilot: AnnData | str | Path | None = None,
        intervals: float | None = None,
        counts: bool = False,
        cells: Literal["model", "keep"] = "model",
    ) -> AnnData:
        """Predict how control cells would look under a perturbation, or under several.

        Parameters
        ----------
        controls
            Control cells of any context, seen in training or not, or an h5ad or zarr file of them: raw counts, which
            are normalised as training data were, or log-normalised cells on the same scale. Genes are matched by name,
            or by the column of ``var`` that holds the model's names.
        perturbation
            One of :attr:`perturbations`, a list of them, or ``"all"``; after a fit with features, any they tell of.
        features
            Of further perturbations.
        missing_genes
            What to do when a gene of the training data is not in ``controls``: ``"error"`` refuses, ``"zero"`` takes
            it as zero in every cell.
        pilot
            A few perturbed cells of the context that ``controls`` are of, for models that learn from them (mtcell).
        intervals
            A probability, such as 0.9: with it, ``varm["mean_low"]`` and ``varm["mean_high"]`` hold each gene's mean,
            a column for each perturbation (and context), from models that give intervals (mtcell).
        counts
            Whether ``layers["counts"]`` holds whole counts too, adding up in each cell to those of its control cell,
            which must bring its counts: as ``X``, or in the counts layer of training.
        cells
            ``"model"``: the cells as the model predicts them. ``"keep"``: only their mean, to which each control cell
            is moved in its own rank (:func:`multipert.models.cells.keep`), so that a mean can be judged without the
            cells that carry it.

        Returns
        -------
        AnnData
            One predicted cell for each control cell, in their order: ``X`` (cells, genes) float32, nothing negative,
            genes in the order of the training data; ``obs`` of the control cells, their condition column set to the
            perturbation. Of several, all cells under the first, then all under the second, and so on: their names are
            ``cell-perturbation``. ``uns["multipert"]`` says what made them, and what there is to know of the input.

        Raises
        ------
        InputError
            If the model is not fitted, a perturbation is unknown or named twice, genes are missing, or the cells are
            no control cells, on another scale than training, or counts that it cannot tell how to normalise.
        """
        from multipert.models.prediction import predict

        return predict(
            self,
            controls,
            perturbation,
            features=features,
            missing_genes=missing_genes,
            pilot=pilot,
            intervals=intervals,
            counts=counts,
            cells=cells,
        )

    def predict_to(
        self,
        out: str | Path,
        controls: AnnData | str | Path,
        perturbation: str | Sequence[str],
        *,
        run: str | Path | None = None,
        on_disk: bool | None = None,
        **options: Any,
    ) -> tuple[int, dict[str, Any]]:
        """Write what :meth:`predict` gives back to a file, whole or not at all; any number of cells in flat memory.

        Where cells are on disk, or the predicted ones would take up much of the memory, the control cells of a context
        are predicted in parts of equal size, of at most 16 million values (or 4,000 cells, where these are more), and
        written as sparse rows. What a model learns from control cells together (the mean of a context, the rank of a
        cell in it) it then learns from those of a part.

        Parameters
        ----------
        out
            An h5ad file or a zarr folder, by its ending.
        controls, perturbation, options
            As for :meth:`predict`.
        run
            The folder of the run, to be noted in the file.
        on_disk
            Whether to do so; by default where it is needed.

        Returns
        -------
        tuple
            How many cells were written, and ``uns["multipert"]`` of the file.

        Raises
        ------
        InputError
            As :meth:`predict`; ``out`` cannot be written; or intervals are wanted of cells on disk.
        OSError
            The disk is full.
        """
        from multipert.models.prediction import predict_to

        return predict_to(out, self, controls, perturbation, run=run, on_disk=on_disk, **options)

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
        from multipert.data import PerturbationData, split_by

        metadata = self._fitted()
        data = PerturbationData.read(adata, metadata.keys)
        if data.fingerprint != metadata.fingerprint:
            raise InputError(
                f"these are not the cells the model was fitted to (fingerprint {data.fingerprint}, "
                f"not {metadata.fingerprint}): give the same file"
            )
        return data, split_by(data, metadata.rule)

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
        from multipert.models.saved import fitted_model

        self._fitted()
        write_run(Path(folder), fitted_model(self), overwrite=overwrite)

    def _fitted(self) -> FitMetadata:
        if not hasattr(self, "metadata_"):
            raise InputError(f"this {type(self).__name__} is not fitted: call fit first")
        return self.metadata_
