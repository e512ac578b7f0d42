"""A run as a study of one trial: the fitted model beside the simple baselines, on the context held out from it."""

from collections.abc import Callable
from typing import Any

from multipert.benchmark.held_out import HeldOutCells, overview
from multipert.benchmark.records import DatasetCard, ModelCard
from multipert.benchmark.results import StudyResults, versions
from multipert.data import PerturbationData, Split
from multipert.errors import InputError
from multipert.evaluation import PROFILES
from multipert.models import Model, create

BASELINES = ("mean-shift", "nearest-context", "linear", "resample")
"""What stands beside every model; no change is the floor."""


def results_of_run(
    model: Model,
    data: PerturbationData,
    split: Split,
    *,
    name: str = "data",
    source: str = "cells in memory",
    announce: Callable[[str], Any] = lambda line: None,
) -> StudyResults:
    """Test a fitted model on its held-out context, beside the simple baselines.

    Parameters
    ----------
    model
        Fitted to ``data`` with ``split``.
    data
        The cells.
    split
        Which context is held out.
    name, source
        What the data are called, and where they come from.
    announce
        Told, in a line each, what is being done.

    Raises
    ------
    InputError
        If the split holds nothing out, or belongs to other data.
    """
    split.check(data)
    held_out = split.held_out
    if held_out is None:
        raise InputError("nothing was held out in this fit, so no truth is left to test it on: hold out a context")
    if split.rule.unseen_conditions:
        raise InputError(
            f"training saw no cell of {', '.join(split.rule.unseen_conditions)}: a run is tested on what it saw "
            "elsewhere, in a held-out context or level of the covariate"
        )
    metrics = PROFILES["default"].metrics()
    cells = HeldOutCells.of(data, name, split.rule, data.perturbations, metrics)
    perturbations = list(cells.truth)
    models = [model, *(create(one).fit(data, split) for one in BASELINES if one != model.name)]
    trials = []
    for one in models:
        announce(f"{one.name}: predicting and scoring {', '.join(perturbations)} in {held_out}")
        trials.append(cells.test(one, one.name))
    announce("bounds and overview")
    what = perturbations[0] if len(perturbations) == 1 else f"{len(perturbations)} perturbations"
    return StudyResults(
        title=f"Predicted by {model.name}: {what} in {held_out}",
        question=_question(model, data, split, perturbations),
        datasets=[
            DatasetCard.of(
                data, name=name, source=source, published=None, held_out=[held_out], perturbations=perturbations
            )
        ],
        models=[ModelCard.of(one, one.name) for one in models],
        seeds=[model.seed],
        metrics=metrics,
        study_file="",
        versions=versions(),
        planned=len(trials),
        trials=trials,
        references={(name, held_out): cells.reference(data, split)},
        overviews={name: overview(data, name)},
    )


def _question(model: Model, data: PerturbationData, split: Split, perturbations: list[str]) -> str:
    """Say what training could see, and what is asked."""
    held_out, context, covariate = split.held_out, split.rule.context, split.rule.covariate
    kept = len(data.rows(condition=data.control, context=context, covariate=covariate))
    inside = kept + len(split.test)
    names = data.contexts if covariate is None else data.covariates
    others = [name for name in names if name not in (context, covariate)]
    what = "context" if covariate is None else "level"
    named = f" ({', '.join(others)})" if len(others) <= 8 else ""
    few, rest = ", ".join(perturbations[:8]), len(perturbations) - 8
    return (
        f"{model.name} learned from {len(data) - inside:,} cells of {len(others)} other "
        f"{what}{'s' if len(others) > 1 else ''}{named}, control and perturbed, and the {kept:,} control cells of "
        f"{held_out}. How {held_out} responds to {few}{f' and {rest} more' if rest > 0 else ''} was held out; it was "
        "predicted from the control cells alone, then compared with the cells truly perturbed."
    )
