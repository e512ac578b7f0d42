"""The models by name."""

from pathlib import Path
from typing import Any, TypeVar

from multipert.models.base import Model
from multipert.models.run_folder import blame, read_run
from multipert.registry import Registry

M = TypeVar("M", bound=type[Model])

MODELS: Registry[type[Model]] = Registry("model", "multipert.models")
"""Every model by its name, ours and those of installed packages."""


def register(model: M) -> M:
    """Enter a model under its name: a decorator of its class.

    Raises
    ------
    InputError
        If another model has that name.
    """
    MODELS.add(model.name, model)
    return model


def model_class(name: str) -> type[Model]:
    """The class of the model called ``name``.

    Raises
    ------
    InputError
        If there is none.
    """
    return MODELS.find(name)


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
        If it is no run folder, is damaged, or was written by another version of multipert.
    """
    from multipert.models.saved import model_of

    fitted = read_run(Path(folder))
    kind = model_class(fitted.model.model)
    with blame(Path(folder)):
        return model_of(kind, fitted)
