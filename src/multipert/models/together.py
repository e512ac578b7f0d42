"""Several fits of one model trained in one go: other contexts held out, other seeds, the same cells."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from multipert import training
from multipert.errors import InputError
from multipert.models.base import Model
from multipert.models.network_model import NetworkModel
from multipert.training import TrainerConfig

if TYPE_CHECKING:
    from multipert.data import PerturbationData, PerturbationFeatures, Split
    from multipert.training import Precision

MOST = 32
"""Fits at once, at most: with so many, a GPU has enough to do in every step."""

_COPIES = 5  # of its weights that a fit needs: themselves, gradient, two moments, the best so far
_PROFILES = 256 * 16  # expression profiles that a fit holds in a step, generously: batch, predictions, gradients


def fit_together(
    models: Sequence[Model],
    data: PerturbationData,
    splits: Sequence[Split | None],
    *,
    features: PerturbationFeatures | str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    progress: bool | None = None,
) -> None:
    """Fit models of one kind that differ in seed and split alone, stacked as one; one by one where they cannot be.

    Stacked, each comes out as after its own :meth:`~multipert.models.Model.fit`, but for the random numbers of dropout
    and noise, which all draw from one stream, seeded with the first one's seed. Its ``seconds_fit_`` and the seconds of
    its history are its share of the time spent on all.

    Parameters
    ----------
    models
        Not fitted yet.
    data
        The cells.
    splits
        For each model, which of them train and validate; None for all train.
    features, device, precision, progress
        As for :meth:`~multipert.models.Model.fit`.

    Raises
    ------
    InputError
        If the models differ in more than their seeds or train no network, or a split belongs to other data.
    """
    from multipert.data import train_on_everything

    kinds = {(type(model), model.preset, repr(model.parameters)) for model in models}
    if len(models) != len(splits) or len(kinds) != 1:
        raise InputError(
            f"{len(models)} models of {len(kinds)} kinds with {len(splits)} splits cannot be fitted together: give "
            "models of one class, preset and parameters, and a split for each"
        )
    networks = [model for model in models if isinstance(model, NetworkModel)]
    if len(networks) < len(models):
        raise InputError(f"{models[0].name} trains no network, so that nothing is gained by fitting together: call fit")
    started = time.monotonic()
    divided = [train_on_everything(data) if split is None else split for split in splits]
    for model, split in zip(networks, divided, strict=True):
        model._begin(data, split, features)
    config = TrainerConfig(device, progress=progress, precision=precision)
    members = []
    for model, split in zip(networks, divided, strict=True):
        resolved = model._resolve(config)
        model.network_ = model._untrained(model.metadata_)
        members.append(training.Member(model.network_, model._stages(model.network_, data, split), model.seed))
    widths = {model.vectors_.width for model in networks if model.vectors_ is not None}
    if not networks[0].stackable or len(widths) > 1 or not training.can_be_stacked(members):
        for model, split in zip(networks, divided, strict=True):
            model.fit(data, split, features=features, device=device, precision=precision, progress=progress)
        return
    with training.random_stream(networks[0].seed, resolved.device):
        training.train_ensemble(members, resolved)
    for model, split in zip(networks, divided, strict=True):
        model._conclude(model.network_, data, split)
    seconds = (time.monotonic() - started) / len(models)
    for model, member in zip(networks, members, strict=True):
        model.history_, model.seconds_fit_ = member.history, seconds


def fits_at_once(model: Model, data: PerturbationData, *, device: str = "auto") -> int:
    """How many fits of a model like this one to give to :func:`fit_together` at a time; 1 where nothing is gained.

    A GPU is mostly idle in the steps of one small network, so there it is as many as fit into its free memory, up to
    32. The cores of a CPU are busy with one: see benchmarks/ensemble.py.

    Parameters
    ----------
    model
        Need not be fitted.
    data
        What it would be fitted to.
    device
        As for :meth:`~multipert.models.Model.fit`.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    if not isinstance(model, NetworkModel) or not model.stackable or not getattr(model.parameters, "drop_last", True):
        return 1
    import torch

    from multipert.data import train_on_everything
    from multipert.models.metadata import FitMetadata
    from multipert.training.device import choose_device

    place = choose_device(device)
    if place.type != "cuda":
        return 1
    network = model._untrained(FitMetadata.of(data, train_on_everything(data)))
    weights = sum(parameter.numel() for parameter in network.parameters())
    each = 4 * (_COPIES * weights + _PROFILES * len(data.genes))
    return max(1, min(MOST, torch.cuda.mem_get_info(place)[0] // each))
