"""The cells of a held-out context: what they say of themselves, and of every model that predicts them.

The one place where a prediction is scored, for a study and for a single run.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from multipert.benchmark.profiles import Profile, profile
from multipert.benchmark.records import Overview, Reference, Scores, TrialResult
from multipert.data import PerturbationData, Split
from multipert.errors import InputError
from multipert.evaluation import bounds, calibrate, evaluate_many
from multipert.evaluation.populations import Comparison, Population
from multipert.models import Model, create

CURVE_ROWS = 100
"""Rows of a training curve that are kept."""

MAP_CELLS = 2000
"""Cells on the map of a data set."""


@dataclass(frozen=True, eq=False)
class HeldOutCells:
    """The cells of a context that models are tested on.

    Attributes
    ----------
    dataset, context
        Where they come from.
    control_label, control
        What control cells are called, and those of the context, (cells, genes).
    truth
        Its perturbed cells by perturbation.
    metrics
        What predictions are scored by.
    """

    dataset: str
    context: str
    control_label: str
    control: AnnData
    truth: Mapping[str, AnnData]
    metrics: Sequence[str]

    @classmethod
    def of(
        cls, data: PerturbationData, dataset: str, context: str, perturbations: Sequence[str], metrics: Sequence[str]
    ) -> "HeldOutCells":
        """Take them from ``data``; perturbations that were not measured in the context are left out."""
        rows = {name: data.rows(condition=name, context=context) for name in perturbations}
        return cls(
            dataset,
            context,
            data.control,
            data.to_anndata(data.rows(condition=data.control, context=context)),
            {name: data.to_anndata(found) for name, found in rows.items() if len(found)},
            metrics,
        )

    @classmethod
    def of_split(cls, data: PerturbationData, dataset: str, split: Split, metrics: Sequence[str]) -> "HeldOutCells":
        """Take the cells that a split tests on, and the control cells of the same context and covariate level."""
        place = {"context": split.rule.context, "covariate": split.rule.covariate}
        rows = {name: np.intersect1d(split.test, data.rows(condition=name)) for name in data.perturbations}
        return cls(
            dataset,
            str(split.held_out),
            data.control,
            data.to_anndata(data.rows(condition=data.control, **place)),
            {name: data.to_anndata(found) for name, found in rows.items() if len(found)},
            metrics,
        )

    def reference(self, data: PerturbationData, split: Split) -> Reference:
        """Measure what they say of themselves: the bounds of every score, which metrics can tell, and their looks.

        The mean response, a bound, is learnt from what ``split`` leaves of ``data`` to training.
        """
        mean_response = self._mean_response(data, split)
        table = bounds(control=self.control, truth=self.truth, mean_response=mean_response, metrics=self.metrics)
        calibration = calibrate(control=self.control, truth=self.truth, metrics=self.metrics)
        cells = {self.control_label: self.control, **self.truth}
        return Reference(
            self.dataset,
            self.context,
            {str(bound): _scores(table[bound].unstack("metric")) for bound in table},
            {str(column): _scores(calibration[column].unstack("metric")) for column in ("drf", "wins")},
            {condition: found.n_obs for condition, found in cells.items()},
            [str(gene) for gene in self.control.var_names],
            {condition: profile(Population(found.X), len(cells)) for condition, found in cells.items()},
        )

    def _mean_response(self, data: PerturbationData, split: Split) -> dict[str, AnnData] | None:
        """Control cells moved by the mean shift of the training contexts; none where they lack a perturbation."""
        try:
            model = create("mean-shift").fit(data, split)
            return {name: model.predict(self.control, name) for name in self.truth}
        except InputError:
            return None

    def test(self, model: Model, label: str) -> TrialResult:
        """Let a fitted model predict every perturbation from the control cells, and score it."""
        import torch

        started = time.monotonic()
        predicted = {name: model.predict(self.control, name) for name in self.truth}
        trial = TrialResult(
            dataset=self.dataset,
            label=label,
            model=model.name,
            preset=model.preset,
            held_out=self.context,
            seed=model.seed,
            seconds_fit=round(model.seconds_fit_, 3),
            seconds_predict=round(time.monotonic() - started, 3),
            n_parameters=model.n_parameters,
            steps=model.history_.steps,
            threads=torch.get_num_threads(),
            history=_thinned(model.history_.table),
        )
        return self.score(predicted, trial)

    def score(self, predicted: Mapping[str, AnnData], trial: TrialResult) -> TrialResult:
        """Score predictions of every perturbation, whoever made them: the trial with their scores and their looks."""
        profiles: dict[str, Profile] = {}

        def describe(name: str, comparison: Comparison) -> None:
            profiles[name] = profile(comparison.predicted, len(predicted), comparison)

        scores = evaluate_many(
            control=self.control, truth=self.truth, predicted=predicted, metrics=self.metrics, each=describe
        )
        return replace(trial, scores=_scores(scores), notes=scores.attrs["notes"], profiles=profiles)


def overview(data: PerturbationData, dataset: str) -> Overview:
    """Count the cells of a data set, and place some of them by UMAP on their principal components."""
    import scanpy as sc  # seconds to import, and needed here alone

    counts = {
        context: {condition: len(data.rows(condition=condition, context=context)) for condition in data.conditions}
        for context in data.contexts
    }
    rows = np.sort(np.random.default_rng(0).permutation(len(data))[:MAP_CELLS])
    cells = data.to_anndata(rows)
    sc.pp.pca(cells, n_comps=min(30, len(rows) - 1, len(data.genes) - 1), random_state=0)
    sc.pp.neighbors(cells, n_neighbors=min(15, len(rows) - 1), random_state=0)
    sc.tl.umap(cells, random_state=0)
    x, y = np.round(cells.obsm["X_umap"], 3).T
    umap = {
        "x": x.tolist(),
        "y": y.tolist(),
        "context": [data.contexts[code] for code in data.context[rows]],
        "condition": [data.conditions[code] for code in data.condition[rows]],
    }
    return Overview(dataset, counts, umap)


def _scores(table: pd.DataFrame) -> Scores:
    """Turn a table of perturbations x metrics into what a record holds."""
    return {
        str(perturbation): {str(metric): float(value) for metric, value in row.items()}
        for perturbation, row in table.iterrows()
    }


def _thinned(history: pd.DataFrame) -> dict[str, list[Any]]:
    """At most ``CURVE_ROWS`` rows, evenly spaced, the last among them; five digits of each loss."""
    rows = np.unique(np.linspace(0, max(len(history) - 1, 0), min(CURVE_ROWS, len(history))).astype(int))
    some = history.iloc[rows]
    return {
        str(name): [float(f"{value:.5g}") if isinstance(value, float) else value for value in column.tolist()]
        for name, column in some.items()
    }
