"""A fitted model put to the test: its held-out context predicted, and scored beside the simple baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from anndata import AnnData

from multipert.data import PerturbationData, Split
from multipert.errors import InputError
from multipert.evaluation import bounds, evaluate
from multipert.models import Model, create

BASELINES = ("no-change", "mean-shift", "nearest-context", "linear", "resample")
"""What stands beside every model."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One perturbation predicted in the held-out context.

    Attributes
    ----------
    perturbation
        Its name.
    control, truth, predicted
        The held-out context's control cells, its truly perturbed cells, and the model's prediction, (cells, genes).
    scores
        A row for the model, for each baseline and for the ceiling; a column for each metric.
    """

    perturbation: str
    control: AnnData
    truth: AnnData
    predicted: AnnData
    scores: pd.DataFrame


@dataclass(frozen=True, eq=False)
class HeldOutTest:
    """How well a fitted model predicts the context held out from it.

    Attributes
    ----------
    model
        The fitted model.
    data
        The cells it was fitted to and tested on.
    held_out
        The context.
    outcomes
        One for each perturbation seen in that context.
    """

    model: Model
    data: PerturbationData
    held_out: str
    outcomes: Sequence[Outcome]


def run_held_out_test(
    model: Model,
    data: PerturbationData,
    split: Split,
    *,
    announce: Callable[[str], Any] = lambda line: None,
) -> HeldOutTest:
    """Predict every perturbation of the held-out context, and score it beside the baselines and the ceiling.

    Parameters
    ----------
    model
        Fitted to ``data`` with ``split``.
    data
        The cells.
    split
        Which context is held out.
    announce
        Told, in a line each, what is being done.

    Raises
    ------
    InputError
        If the split holds nothing out.
    """
    split.check(data)
    if split.held_out is None:
        raise InputError("nothing was held out in this fit, so no truth is left to test it on: hold out a context")
    context = split.held_out
    control = data.to_anndata(data.rows(condition=data.control, context=context))
    baselines = {name: create(name).fit(data, split) for name in BASELINES}
    outcomes = []
    for perturbation in data.perturbations:
        rows = data.rows(condition=perturbation, context=context)
        if len(rows) == 0:
            continue
        announce(f"scoring {perturbation} in {context}: {len(rows)} true cells")
        truth = data.to_anndata(rows)
        predicted = {name: one.predict(control, perturbation) for name, one in {model.name: model, **baselines}.items()}
        scores = {name: evaluate(control=control, truth=truth, predicted=cells) for name, cells in predicted.items()}
        scores["ceiling"] = bounds(control=control, truth=truth)["ceiling"]
        table = pd.DataFrame(scores).T.rename_axis("model")
        outcomes.append(Outcome(perturbation, control, truth, predicted[model.name], table))
    return HeldOutTest(model, data, context, outcomes)
