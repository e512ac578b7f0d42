"""A fitted model put to the test: its held-out context predicted, and scored beside the simple baselines."""

from collections.abc import Callable, Mapping, Sequence
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
class HeldOutCells:
    """The cells of a context that models are tested on.

    Attributes
    ----------
    context
        Its name.
    control
        Its control cells, (cells, genes).
    truth
        Its perturbed cells by perturbation.
    """

    context: str
    control: AnnData
    truth: Mapping[str, AnnData]

    @classmethod
    def of(cls, data: PerturbationData, context: str, perturbations: Sequence[str]) -> "HeldOutCells":
        """Take them from ``data``; perturbations that were not measured in the context are left out."""
        rows = {name: data.rows(condition=name, context=context) for name in perturbations}
        return cls(
            context,
            data.to_anndata(data.rows(condition=data.control, context=context)),
            {name: data.to_anndata(found) for name, found in rows.items() if len(found)},
        )

    def predict(self, model: Model) -> dict[str, AnnData]:
        """Predict every perturbation from the control cells."""
        return {name: model.predict(self.control, name) for name in self.truth}


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
    cells = HeldOutCells.of(data, split.held_out, data.perturbations)
    models = {model.name: model} | {name: create(name).fit(data, split) for name in BASELINES}
    predicted = {name: cells.predict(one) for name, one in models.items()}
    outcomes = []
    for perturbation, truth in cells.truth.items():
        announce(f"scoring {perturbation} in {cells.context}: {truth.n_obs} true cells")
        scores = {
            name: evaluate(control=cells.control, truth=truth, predicted=predicted[name][perturbation])
            for name in models
        }
        scores["ceiling"] = bounds(control=cells.control, truth=truth)["ceiling"]
        table = pd.DataFrame(scores).T.rename_axis("model")
        outcomes.append(Outcome(perturbation, cells.control, truth, predicted[model.name][perturbation], table))
    return HeldOutTest(model, data, cells.context, outcomes)
