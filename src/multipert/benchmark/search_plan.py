"""What a search is asked: which model, with which values to try, on which contexts, by which metric."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from multipert.benchmark.jobs import FitJob
from multipert.benchmark.plan import read_dataset
from multipert.benchmark.search_trial import InnerContext
from multipert.benchmark.study import Study, StudyDataset, StudyModel
from multipert.data import HeldOut, PerturbationData, did_you_mean
from multipert.errors import InputError
from multipert.evaluation import METRICS, bounds
from multipert.models import MODELS, Range, create, model_class, search_space

METRIC = "edist"
"""What a search goes by unless told otherwise."""


@dataclass(frozen=True, eq=False)
class SearchPlan:
    """All that determines a search, but for how long it goes on.

    Attributes
    ----------
    study
        Whose data it works on, and whose held-out contexts it never sees.
    model
        The model with the values the search begins with.
    parameters
        All its values.
    space
        What may be tried of each parameter that is searched; it holds the value the search begins with.
    contexts
        Training contexts, held out in turn, in the order they are tried.
    normalised
        Whether scores are read between their bounds; else no context has bounds that differ.
    identity
        What must be the same for a search to be gone on with.
    """

    study: Study
    model: StudyModel
    parameters: Mapping[str, Any]
    space: Mapping[str, Range | tuple[Any, ...]]
    contexts: Sequence[InnerContext]
    normalised: bool
    identity: Mapping[str, Any]

    @property
    def metric(self) -> str:
        """What predictions are scored by."""
        return self.contexts[0].metric

    @property
    def objective(self) -> str:
        """What is made the most of, in words."""
        turned = {
            "high": self.metric,
            "low": f"minus {self.metric}",
            "one": f"minus the distance of {self.metric} from 1",
        }
        return f"normalised {self.metric}" if self.normalised else turned[METRICS[self.metric].better]


def plan_search(
    study: Study,
    label: str,
    *,
    metric: str = METRIC,
    inner: int | None = None,
    device: str = "auto",
    announce: Callable[[str], Any] = lambda line: None,
) -> SearchPlan:
    """Put away what the study holds out, and measure what scores can be in each training context.

    Parameters
    ----------
    study
        The study; each of its data sets names its held-out contexts, whose perturbed cells play no part at all.
    label
        Of a model of the study, whose values are kept where the study gives them; or any model.
    metric
        What predictions are scored by.
    inner
        Try values on the so many training contexts of each data set with most perturbed cells; by default on all.
    device
        Where models train.
    announce
        Told, in a line each, what is being done.

    Raises
    ------
    InputError
        The model has nothing to search, the metric does not exist or cannot be used, or a data set does not say what is
        held out or leaves fewer than two contexts.
    """
    _check_metric(metric)
    model = _model_of(study, label)
    started = create(model.name, preset=model.preset, **model.changes)
    parameters = asdict(started.parameters)
    space = _space(model, parameters)
    contexts, known = [], []
    for place, dataset in enumerate(study.datasets):
        dataset = _put_away(study, place, dataset)
        content, data, perturbations = read_dataset(study, place, dataset, announce)
        chosen = _inner(study, place, dataset, data, inner)
        if METRICS[metric].several and len(perturbations) < 2:
            raise InputError(f"{metric} needs several perturbations, and {dataset.name} has one: choose another metric")
        announce(f"{dataset.name}: what no change and a replicate score in {', '.join(chosen)}")
        seed = study.seeds[0]
        for name in chosen:
            rule = HeldOut("context", context=name)
            fit = FitJob(dataset, content, rule, perturbations, (metric,), model.label, seed, model, parameters, device)
            contexts.append(_with_bounds(fit))
        known.append(
            {
                "name": dataset.name,
                "cells": data.fingerprint,
                "held_out": list(dataset.withheld),
                "inner": chosen,
                "perturbations": list(perturbations),
                "features": None if dataset.features is None else dataset.features.content,
            }
        )
    normalised = any(context.can_tell for context in contexts)
    usable = [context for context in contexts if context.can_tell or (not normalised and np.isfinite(context.ceiling))]
    for context in contexts:
        if context not in usable:
            announce(f"{context.name} is left out: {metric} cannot tell a replicate from no change there")
    if not usable:
        raise InputError(f"{metric} has no value in any training context, whatever is predicted: choose another metric")
    identity = {
        "model": {"name": model.name, "parameters": parameters, "space": _plain(space)},
        "metric": metric,
        "study": {"datasets": known, "seed": study.seeds[0]},
    }
    return SearchPlan(study, model, parameters, space, usable, normalised, identity)


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise InputError(f"there is no metric {metric!r}; {did_you_mean(metric, METRICS)}")
    if METRICS[metric].needs == "counts":
        raise InputError(f"{metric} reads raw counts together with its whole profile: choose another metric")


def _model_of(study: Study, name: str) -> StudyModel:
    """The study's model of this label or, if there is one alone, of this name; else the model as it is by default."""
    named = [one for one in study.models if name in (one.label, one.name)]
    if len(named) > 1 and name not in (one.label for one in named):
        raise InputError(f"the study has several models {name}: give one's label, {', '.join(x.label for x in named)}")
    model = next((one for one in named if one.label == name), None) or next(iter(named), None)
    if model is None:
        model = StudyModel(name, model_class(name).name, "default", {})
    if not search_space(model_class(model.name)):
        some = ", ".join(one for one in MODELS if search_space(model_class(one)))
        raise InputError(f"{model.name} has no parameters to search: choose among {some}")
    return model


def _space(model: StudyModel, parameters: Mapping[str, Any]) -> dict[str, Range | tuple[Any, ...]]:
    """What may be tried: of what the study does not set itself, what is declared and the value the search begins with.

    Where ratios count, a value of 0 has no place: what begins there stays there.
    """
    space: dict[str, Range | tuple[Any, ...]] = {}
    for name, declared in search_space(model_class(model.name)).items():
        value = parameters[name]
        if name in model.changes:
            continue
        if not isinstance(declared, Range):
            space[name] = declared if value in declared else (*declared, value)
        elif value > 0 or not declared.log:
            space[name] = replace(declared, low=min(declared.low, value), high=max(declared.high, value))
    if not space:
        raise InputError(
            f"the study sets every parameter of {model.label} that can be searched: leave some out, so that they are"
        )
    return space


def _put_away(study: Study, place: int, dataset: StudyDataset) -> StudyDataset:
    """The data set without the perturbed cells of its held-out contexts."""
    where = study.where("datasets", place)
    if dataset.unseen:
        raise InputError(
            f"{where}: a search leaves contexts out, and {dataset.name} holds out perturbations, combinations or "
            "doses: name contexts alone, as held_out"
        )
    if dataset.held_out is None:
        raise InputError(
            f"{where}: {dataset.name} does not say which contexts are held out, so the search would see all that the "
            "study tests on: name them as held_out"
        )
    return replace(dataset, withheld=dataset.held_out, held_out=None)


def _inner(study: Study, place: int, dataset: StudyDataset, data: PerturbationData, most: int | None) -> Sequence[str]:
    """The contexts to try values on, those with most perturbed cells first."""
    cells = {
        context: np.bincount(data.condition[data.context == code] != 0, minlength=2)
        for code, context in enumerate(data.contexts)
    }
    complete = sorted((one for one in cells if cells[one].all()), key=lambda one: -cells[one][1])
    if len(complete) < 2:
        raise InputError(
            f"{study.where('datasets', place)}: besides what is held out, {dataset.name} has {len(complete)} context"
            f"{'' if len(complete) == 1 else 's'} with both control and perturbed cells: a search needs two, one to "
            "learn from and one to try values on"
        )
    return complete[:most]


def _with_bounds(fit: FitJob) -> InnerContext:
    """The context with its bounds, over the perturbations that can be scored there."""
    cells = fit.cells()
    table = bounds(control=cells.control, truth=cells.truth, metrics=fit.metrics)
    known = table[np.isfinite(table["ceiling"])]
    scored = [name for name in cells.truth if name in known.index.get_level_values(0)]
    floor, ceiling = (float(known[bound].mean()) for bound in ("floor", "ceiling"))
    return InnerContext(replace(fit, perturbations=scored), floor, ceiling)


def _plain(space: Mapping[str, Range | tuple[Any, ...]]) -> dict[str, Any]:
    return {name: asdict(one) if isinstance(one, Range) else list(one) for name, one in space.items()}
