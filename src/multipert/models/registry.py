"""The models by name."""

from pathlib import Path
from typing import Any

from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError
from multipert.models.base import Model
from multipert.models.baselines import Linear, MeanShift, NearestContext, NoChange, Resample
from multipert.models.mtae import MTAe, MTAeAdv, MTAeAdvG, MTAeOT, MTAePlusOT, MTVae, MTVaeOT, MTVaePlusOT
from multipert.models.run_folder import read_run
from multipert.models.scbutterfly import ScButterfly
from multipert.models.scgen import ScGen
from multipert.models.scpregan import ScPreGAN
from multipert.models.scvidr import ScVIDR, ScVIDRDose

MODELS: dict[str, type[Model]] = {
    model.name: model
    for model in (
        MTAe,
        MTAeAdv,
        MTAeAdvG,
        MTAeOT,
        MTAePlusOT,
        MTVae,
        MTVaeOT,
        MTVaePlusOT,
        ScGen,
        ScVIDR,
        ScVIDRDose,
        ScPreGAN,
        ScButterfly,
        NoChange,
        MeanShift,
        NearestContext,
        Linear,
        Resample,
    )
}
"""Every model by its name, in the order they are listed."""


def model_class(name: str) -> type[Model]:
    """The class of the model called ``name``.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in MODELS:
        raise InputError(f"there is no model {name!r}; {did_you_mean(name, MODELS)}")
    return MODELS[name]


def create(name: str, **parameters: Any) -> Model:
    """A new, unfitted model by name: ``create("mtae", epochs=30)`` is ``MTAe(epochs=30)``.

    Parameters
    ----------
    name
        One of :data:`MODELS`.
    **parameters
        ``preset``, ``seed``, and any parameter of the model.

    Raises
    ------
    InputError
        If the model, the preset or a parameter is unknown, or a value is out of its range.
    """
    return model_class(name)(**parameters)


def load(folder: str | Path) -> Model:
    """Read a fitted model from the run folder that ``save`` or ``fit`` wrote.

    Parameters
    ----------
    folder
        The run folder.

    Raises
    ------
    InputError
        If it is no run folder, is damaged, or was written by a newer multipert.
    """
    fitted = read_run(Path(folder))
    return model_class(fitted.model["model"]).from_run(fitted)
