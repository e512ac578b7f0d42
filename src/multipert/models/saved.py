"""From a fitted model to what its run folder holds, and back."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from multipert.errors import InputError
from multipert.models.described import take_vectors, vector_arrays
from multipert.models.familiarity import TrainingControls
from multipert.models.metadata import FitMetadata
from multipert.models.parameters import resolve
from multipert.models.run_folder import FittedModel, ModelRecord, RunRecord, check_arrays
from multipert.training import History

if TYPE_CHECKING:
    from multipert.models.base import Model

RECORDED = ("multipert", "torch", "anndata", "numpy", "scipy")
"""Packages whose versions a run folder names."""


def fitted_model(model: Model) -> FittedModel:
    """All that a run folder is to hold of a fitted model."""
    metadata = model.metadata_
    configured: dict[str, Any] = {
        "model": model.name,
        "preset": model.preset,
        "parameters": asdict(model.parameters),
        "seed": model.seed,
        "versions": {one: importlib.metadata.version(one) for one in RECORDED} | {"python": platform.python_version()},
    }
    run = RunRecord(
        **configured,
        held_out=metadata.rule.label,
        data_fingerprint=metadata.fingerprint,
        device=model.device_,
        precision=model.precision_,
        seconds_fit=round(model.seconds_fit_, 3),
        steps=model.history_.steps,
        n_parameters=model.n_parameters,
        left_out=model.left_out_,
    )
    arrays = model._arrays() | vector_arrays(model.vectors_) | model.controls_.to_arrays()
    return FittedModel(arrays, ModelRecord(**configured, metadata=asdict(metadata)), run, model.history_.table)


def model_of(kind: type[Model], fitted: FittedModel) -> Model:
    """The model of a class that was saved as ``fitted``.

    Raises
    ------
    InputError
        If what was saved is damaged.
    """
    described, run = fitted.model, fitted.run
    model = kind(preset=described.preset, seed=described.seed)
    model.parameters = resolve(kind, described.preset, described.parameters)
    model.metadata_ = FitMetadata.from_json(described.metadata)
    if (run.held_out, run.data_fingerprint) != (model.metadata_.rule.label, model.metadata_.fingerprint):
        raise InputError("model.json and run.json disagree in the data")
    model.history_ = History.from_table(fitted.history)
    model.seconds_fit_ = model.history_.seconds if run.seconds_fit is None else run.seconds_fit
    model.device_, model.precision_ = run.device or "unknown", run.precision or "unknown"
    model.left_out_ = run.left_out
    model.controls_, arrays = TrainingControls.take(fitted.arrays, len(model.metadata_.genes))
    model.vectors_, arrays = take_vectors(arrays, model.metadata_.features)
    if (layout := model._layout()) is not None:
        check_arrays(arrays, layout, unknown=kind.may_be_nan)
    model._restore(arrays)
    return model
