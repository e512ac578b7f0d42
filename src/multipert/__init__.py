"""multipert: one model for many perturbations, and an honest answer to how good it is."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multipert import models
    from multipert.data import (
        PerturbationData,
        Split,
        leave_combination_out,
        leave_context_out,
        leave_covariate_out,
        leave_dose_out,
        leave_perturbation_and_context_out,
        leave_perturbation_out,
        perturbation_folds,
        preprocess,
        simulate,
        train_on_everything,
    )
    from multipert.errors import InputError
    from multipert.evaluation import bounds, check, evaluate, evaluate_many, scorecard

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "PerturbationData",
    "Split",
    "bounds",
    "check",
    "evaluate",
    "evaluate_many",
    "leave_combination_out",
    "leave_context_out",
    "leave_covariate_out",
    "leave_dose_out",
    "leave_perturbation_and_context_out",
    "leave_perturbation_out",
    "models",
    "perturbation_folds",
    "preprocess",
    "scorecard",
    "simulate",
    "train_on_everything",
]

_ROOM = {
    "InputError": "multipert.errors",
    "PerturbationData": "multipert.data",
    "Split": "multipert.data",
    "bounds": "multipert.evaluation",
    "check": "multipert.evaluation",
    "evaluate": "multipert.evaluation",
    "evaluate_many": "multipert.evaluation",
    "leave_combination_out": "multipert.data",
    "leave_context_out": "multipert.data",
    "leave_covariate_out": "multipert.data",
    "leave_dose_out": "multipert.data",
    "leave_perturbation_and_context_out": "multipert.data",
    "leave_perturbation_out": "multipert.data",
    "perturbation_folds": "multipert.data",
    "preprocess": "multipert.data",
    "scorecard": "multipert.evaluation",
    "simulate": "multipert.data",
    "train_on_everything": "multipert.data",
}


def __getattr__(name: str) -> Any:
    # Rooms are entered when first asked for: `multipert --help` need not wait for torch.
    if name == "models":
        return import_module("multipert.models")
    if name in _ROOM:
        return getattr(import_module(_ROOM[name]), name)
    raise AttributeError(f"module 'multipert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
