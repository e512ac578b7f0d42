"""What the members of the multi-task family share: a FiLM autoencoder, its loss, and what it learns from.

FiLM is told conditions in one of two ways: by number, as one-hots, which knows only what training saw; or by what they
are, as vectors made of features (:class:`~multipert.data.condition_vectors.ConditionVectors`), with which it also
answers for perturbations, doses and combinations that training never saw.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from multipert import networks
from multipert.models.losses import mean_squared_error
from multipert.models.network_model import NetworkModel
from multipert.models.pairing import pair, slipped
from multipert.models.parameters import Range, parameter
from multipert.training import Examples, Optimiser, Shuffled, Stage, Update, warmup

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor, nn

    from multipert.data import PerturbationData, Split
    from multipert.models.metadata import FitMetadata
    from multipert.networks import FilmAutoencoder
    from multipert.training import Batch, Terms

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class FilmParameters:
    """What every member of the family can be told."""

    hidden: tuple[int, ...] = parameter(
        (256,),
        "hidden widths of the encoder; the decoder mirrors them",
        at_least=1,
        search=((128,), (256,), (512,), (256, 128), (512, 256), (512, 256, 128)),
    )
    latent: int = parameter(128, "width of the latent space", at_least=1, search=(32, 64, 128, 256))
    mask: float = parameter(0.2, "input dropout rate", at_least=0, below=1, search=Range(0.0, 0.5))
    dropout: float = parameter(0.5, "dropout rate after each hidden layer", at_least=0, below=1, search=Range(0.0, 0.7))
    film_hidden: tuple[int, ...] = parameter(
        (16,),
        "hidden widths of the FiLM generators; none is used for a single perturbation",
        at_least=1,
        search=((), (16,), (64,)),
    )
    lr: float = parameter(0.001, "learning rate", at_least=0, search=Range(1e-4, 1e-2, log=True))
    warmup_steps: int = parameter(25, "steps over which the learning rate rises from 0, in every stage", at_least=0)
    batch_size: int = parameter(64, "cells in a batch", at_least=2, search=(32, 64, 128))
    epochs: int = parameter(60, "epochs of the first stage", at_least=1)


class FilmModel(NetworkModel):
    """What the members share: the network, the loss of a cell, and the prediction."""

    family = "multi-task"
    tolerates_bfloat16 = True
    takes_features = True
    source = "Multi-task learning in perturbation modeling (diploma thesis, 2025)"
    assumes = "a cell's latent vector, decoded under another condition, is that cell under it"
    loss = "mean squared error over all elements (cells x genes)"
    Parameters: ClassVar[type] = FilmParameters

    parameters: Any
    network_: FilmAutoencoder

    @abstractmethod
    def _stages(self, network: Any, data: PerturbationData, split: Split) -> list[Stage]:
        """What it is trained to."""

    def _network(self, metadata: FitMetadata) -> FilmAutoencoder:
        return self._autoencoder(networks.FilmAutoencoder, metadata)

    def _autoencoder(self, kind: type[FilmAutoencoder], metadata: FitMetadata, **options: Any) -> FilmAutoencoder:
        p, vectors = self.parameters, self.vectors_
        network = kind(
            len(metadata.genes),
            len(metadata.conditions) if vectors is None else vectors.width,
            hidden=p.hidden,
            latent=p.latent,
            mask=p.mask,
            dropout=p.dropout,
            film_hidden=p.film_hidden if vectors is not None or len(metadata.conditions) > 2 else (),
            **options,
        )
        if vectors is not None:
            network.conditions = networks.ConditionEncoder(self._condition_vectors(metadata))
        return network

    def _condition_vectors(self, metadata: FitMetadata) -> Tensor:
        """The vectors of the members of each condition, (conditions, members, features)."""
        import torch

        assert self.vectors_ is not None
        vectors = self.vectors_.of(metadata.conditions, metadata.doses, metadata.conditions[0])
        return torch.from_numpy(vectors)

    def _describe(self, names: Sequence[str]) -> None:
        encoder = copy.copy(self.network_.conditions)
        assert isinstance(encoder, networks.ConditionEncoder)
        encoder._buffers = {"vectors": self._condition_vectors(self.metadata_)}
        self.network_ = copy.copy(self.network_)  # which shares its weights with the fitted one
        self.network_._modules = {**self.network_._modules, "conditions": encoder}

    def _loss(self, network: Any, batch: Batch) -> Terms:
        """Mean squared error of each cell decoded under its condition: from its target, or from itself."""
        x = batch.cells["x"]
        decoded = network.decode(network.encode(x), self._condition(network, batch.labels["condition"]))
        return {"mse": mean_squared_error(decoded, batch.cells.get("target", x))}

    def _condition(self, network: Any, codes: Tensor) -> Tensor:
        """What FiLM is told of the conditions ``codes`` (cells,): their one-hots, or their vectors."""
        if self.vectors_ is not None:
            return network.conditions(codes)  # type: ignore[no-any-return]
        return networks.one_hot(codes, len(self.metadata_.conditions))

    def _moving(self, network: Any) -> list[nn.Module]:
        """The modules that training moves."""
        return [network]

    def _stage(self, name: str, network: Any, training: Examples, validation: Examples, epochs: int) -> Stage:
        """Minimise the loss over ``training``, with an optimiser and a warm-up of its own."""
        p = self.parameters
        optimiser = Optimiser(self._moving(network), p.lr)
        update = Update(optimiser, lambda batch: self._loss(network, batch), warmup(p.warmup_steps))
        return Stage(name, Shuffled(training, p.batch_size), epochs, [update], validation)

    def _reconstruct(self, network: Any, data: PerturbationData, split: Split, epochs: int) -> Stage:
        training, validation = own_condition(data, split.train), own_condition(data, split.validation)
        return self._stage("reconstruct", network, training, validation, epochs)

    def _transport(self, network: Any, data: PerturbationData, split: Split, epochs: int) -> Stage:
        training, validation = (
            partners(data, rows, split, self.seed, slip=self.parameters.partner_slip)
            for rows in (split.train, split.validation)
        )
        return self._stage("transport", network, training, validation, epochs)

    def _predict(self, X: csr_matrix, groups: Rows, condition: int) -> npt.NDArray[np.float32]:
        import torch

        def respond(x: Tensor) -> Tensor:
            c = self._condition(self.network_, torch.full((len(x),), condition))
            return self.network_.decode(self.network_.encode(x), c)

        return self._in_batches(X, respond)

    def _encode(self, network: FilmAutoencoder, x: Tensor) -> Tensor:
        return network.encode(x)

    def film(self, perturbation: str) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """How a condition steers the decoder: gamma and beta of each of its hidden layers.

        Parameters
        ----------
        perturbation
            A condition the model was fitted on, control among them, or one that its features describe.

        Returns
        -------
        list of (gamma, beta)
            For each hidden layer of the decoder, from the latent space on; each (width,).

        Raises
        ------
        InputError
            If the model is not fitted or the condition is unknown.
        """
        import torch

        from multipert.models.described import asked

        metadata = self._fitted()
        model = self if perturbation == metadata.conditions[0] else asked(self, perturbation)[0]
        assert isinstance(model, FilmModel)
        c = model._condition(model.network_, torch.tensor([model.metadata_.conditions.index(perturbation)]))
        with torch.no_grad():
            coefficients = [film.coefficients(c) for film in self.network_.decoder.films]
        return [(gamma[0].numpy(), beta[0].numpy()) for gamma, beta in coefficients]


def body(network: FilmAutoencoder) -> list[nn.Module]:
    """What of a network reconstructs cells: no heads, no discriminator."""
    parts = dict(network.named_children())
    return [parts[name] for name in ("encoder", "decoder", "conditions") if name in parts]


def own_condition(data: PerturbationData, rows: Rows) -> Examples:
    """Cells, each with its own condition."""
    return Examples(data.X, {"x": rows}, {"condition": data.condition[rows]})


def partners(data: PerturbationData, rows: Rows, split: Split, seed: int, *, slip: bool = False) -> Examples:
    """Control cells, each with its partner as target under every perturbation, and with itself under control.

    The held-out context takes no part, its control cells neither. ``slip`` exchanges the partners as the study did.
    """
    if split.rule.context is not None:
        rows = rows[data.context[rows] != data.contexts.index(split.rule.context)]
    pairs = pair(data, rows, seed=seed)
    if slip:
        pairs = slipped(pairs, data, rows)
    control = rows[data.condition[rows] == 0]
    return Examples(
        data.X,
        {"x": np.concatenate([control, pairs.control]), "target": np.concatenate([control, pairs.partner])},
        {"condition": np.concatenate([np.zeros_like(control), pairs.condition])},
    )


def labelled(examples: Examples, name: str, number: float) -> Examples:
    """The examples, each with one and the same number as a label more."""
    return replace(examples, labels={**examples.labels, name: np.full(len(examples), number, dtype=np.float32)})
