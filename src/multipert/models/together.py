"""Several fits of one model trained in one go: other contexts held out, other seeds, the same cells."""

import time
from collections.abc import Sequence

import torch

from multipert.data import PerturbationData, Split, train_on_everything
from multipert.errors import InputError
from multipert.models.base import FitMetadata, Model
from multipert.models.network_model import NetworkModel, learn_in_lanes
from multipert.networks import Lanes, Precision
from multipert.training import TrainerConfig

MOST = 32
"""Fits at once, at most: with so many, a GPU has enough to do in every step."""

_COPIES = 5  # of its weights that a lane needs: themselves, gradient, two moments, the best so far
_PROFILES = 256 * 16  # expression profiles that a lane holds in a step, generously: batch, predictions, gradients


def fit_together(
    models: Sequence[Model],
    data: PerturbationData,
    splits: Sequence[Split | None],
    *,
    device: str = "auto",
    precision: Precision = "auto",
    progress: bool | None = None,
) -> None:
    """Fit models of one kind that differ in seed and split alone, as the lanes of one batched computation.

    Each comes out as after its own :meth:`~multipert.models.Model.fit`, up to the order in which numbers are added:
    with its own weights, history and random stream. Its ``seconds_fit_`` and the seconds of its history are its share
    of the time spent on all.

    Parameters
    ----------
    models
        Not fitted yet.
    data
        The cells.
    splits
        For each model, which of them train and validate; None for all train.
    device, precision, progress
        As for :meth:`~multipert.models.Model.fit`.

    Raises
    ------
    InputError
        If the models differ in more than their seeds, train no network or cannot all be trained on these cells in the
        same stages, or a split belongs to other data.
    """
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
        model._begin(data, split)
    config = TrainerConfig(device, progress=progress, precision=precision)
    histories = learn_in_lanes(networks, data, divided, config, {})
    seconds = (time.monotonic() - started) / len(models)
    for model, history in zip(networks, histories, strict=True):
        model.history_, model.seconds_fit_ = history, seconds


def lanes_at_once(model: Model, data: PerturbationData, *, device: str = "auto") -> int:
    """How many fits of a model like this one to give to :func:`fit_together` at a time; 1 where nothing is gained.

    A GPU is mostly idle in the steps of one small network, so there it is as many as fit into its free memory, up to
    32. The cores of a CPU are busy with one: see benchmarks/lanes.py. Models that keep the short last batch of an epoch
    (``drop_last=False``) go one by one: fits to other cells would differ in its size.

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
    place = TrainerConfig(device).fabric().device
    keeps_last = not getattr(model.parameters, "drop_last", True)
    if place.type != "cuda" or not isinstance(model, NetworkModel) or keeps_last:
        return 1
    network = model._network(Lanes([model.seed]), FitMetadata.of(data, train_on_everything(data)))
    weights = sum(parameter.numel() for parameter in network.parameters())
    lane = 4 * (_COPIES * weights + _PROFILES * len(data.genes))
    return max(1, min(MOST, torch.cuda.mem_get_info(place)[0] // lane))
