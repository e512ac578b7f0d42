"""The cells that are held out: what they say of themselves, and of every model that predicts them.

The one place where a prediction is scored, for a study and for a single run.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import SparseEfficiencyWarning

from multipert.benchmark.profiles import Profile, profile
from multipert.benchmark.records import Overview, Reference, Scores, TrialResult
from multipert.data import HeldOut, PerturbationData, Split
from multipert.data.on_disk import SCORED
from multipert.errors import InputError
from multipert.evaluation import METRICS, bounds, calibrate, evaluate_many
from multipert.evaluation.count_bounds import bounds_of_counts, calibrate_counts
from multipert.evaluation.populations import Comparison, Population
from multipert.evaluation.vcc2026 import COMBINED, evaluate_counts
from multipert.models import Model, create, film_distances

INTERVALS = 0.9
"""Probability with which the intervals of a model that gives any shall hold the mean of a gene."""
ENDS = ("mean_low", "mean_high")
"""Where a prediction holds them, in ``varm``."""

CURVE_ROWS = 100
"""Rows of a training curve that are kept."""

PILOTS = (0, 5, 10, 20, 50)
"""Cells of the pilots that a model which learns from them is told of; at most half of the true cells."""

MAP_CELLS = 2000
"""Cells on the map of a data set."""


def read_counts(metrics: Sequence[str]) -> bool:
    """Whether some metrics read raw counts."""
    return any(METRICS[name].needs == "counts" for name in metrics)


@dataclass(frozen=True, eq=False)
class HeldOutCells:
    """The cells that models are tested on.

    Attributes
    ----------
    dataset, held_out
        Where they come from, and what tables call it: a context, or a perturbation that training never saw.
    control_label, control
        What control cells are called, and those of the same contexts, (cells, genes).
    truth
        The perturbed cells by perturbation.
    metrics
        What predictions are scored by.
    counts_layer
        The layer that holds the raw counts of all these cells, where there is one.
    """

    dataset: str
    held_out: str
    control_label: str
    control: AnnData
    truth: Mapping[str, AnnData]
    metrics: Sequence[str]
    counts_layer: str | None = None

    @cached_property
    def _expression_metrics(self) -> list[str]:
        """The metrics that read log-normalised expression."""
        return [name for name in self.metrics if METRICS[name].needs == "log-normalised"]

    @cached_property
    def _count_metrics(self) -> list[str]:
        """The metrics that read raw counts."""
        return [name for name in self.metrics if METRICS[name].needs == "counts"]

    @classmethod
    def of(
        cls,
        data: PerturbationData,
        dataset: str,
        rule: HeldOut,
        perturbations: Sequence[str],
        metrics: Sequence[str],
    ) -> "HeldOutCells":
        """Take the cells that a rule tests on, and the control cells of the same context and covariate level.

        Perturbations of which there are none are left out; of cells on disk, as many are taken as are scored.
        """
        tested = np.flatnonzero(rule.masks(data)[0])
        rows = {name: np.intersect1d(tested, data.rows(condition=name)) for name in perturbations}
        controls = data.rows(condition=data.control, context=rule.context, covariate=rule.covariate)
        truth = {name: data.to_anndata(data.sample(found, SCORED)) for name, found in rows.items() if len(found)}
        control = data.to_anndata(data.sample(controls, SCORED))
        return cls(dataset, str(rule.label), data.control, control, truth, metrics, data.keys.counts_layer)

    def reference(self, data: PerturbationData, split: Split) -> Reference:
        """Measure what they say of themselves: the bounds of every score, which metrics can tell, and their looks.

        The mean response, a bound, is learnt from what ``split`` leaves of ``data`` to training.
        """
        mean_response = self._mean_response(data, split)
        expression = self._expression_metrics
        table = bounds(control=self.control, truth=self.truth, mean_response=mean_response, metrics=expression)
        calibration = calibrate(control=self.control, truth=self.truth, metrics=expression)
        measured = {str(bound): table[bound].unstack("metric") for bound in table}
        told = {column: calibration[column].unstack("metric") for column in ("drf", "wins")}
        if self._count_metrics:
            counted = bounds_of_counts(
                control=self.control, truth=self.truth, mean_response=mean_response, counts_layer=self.counts_layer
            )
            measured = {bound: measured[bound].join(counted[bound]) for bound in measured}
            told = {column: told[column].join(found) for column, found in calibrate_counts(counted).items()}
        cells = {self.control_label: self.control, **self.truth}
        return Reference(
            self.dataset,
            self.held_out,
            {bound: _scores(table) for bound, table in measured.items()},
            {column: _scores(table) for column, table in told.items()},
            {condition: found.n_obs for condition, found in cells.items()},
            [str(gene) for gene in (data.genes if data.symbols is None else data.symbols)],
            {condition: profile(Population(found.X), len(cells)) for condition, found in cells.items()},
        )

    def _mean_response(self, data: PerturbationData, split: Split) -> dict[str, AnnData] | None:
        """Control cells moved as training cells were; none where they lack a perturbation.

        By the mean shift over training contexts; where the perturbation is what training never saw, by the mean over
        all perturbations that it did.
        """
        try:
            known = "mean-perturbation" if split.rule.unseen_conditions else "mean-shift"
            return self._predicted(create(known).fit(data, split))
        except InputError:
            return None

    def _predicted(self, model: Model) -> dict[str, AnnData]:
        """What a fitted model predicts of every perturbation from the control cells, with counts where these count."""
        counts = bool(self._count_metrics)
        level = INTERVALS if model.gives_intervals else None
        predicted = {name: model.predict(self.control, name, counts=counts, intervals=level) for name in self.truth}
        if counts and self.counts_layer != "counts":
            for cells in predicted.values():
                cells.layers[self.counts_layer] = cells.layers.pop("counts")
        return predicted

    def scores_by(self, model: Model) -> pd.DataFrame:
        """What a fitted model scores: a row for each perturbation and a column for each metric."""
        return self.scores_of(self._predicted(model))[0]

    def test(self, model: Model, label: str) -> TrialResult:
        """Let a fitted model predict every perturbation from the control cells, and score it."""
        import torch

        started = time.monotonic()
        predicted = self._predicted(model)
        trial = TrialResult(
            dataset=self.dataset,
            label=label,
            model=model.name,
            preset=model.preset,
            held_out=self.held_out,
            seed=model.seed,
            seconds_fit=round(model.seconds_fit_, 3),
            seconds_predict=round(time.monotonic() - started, 3),
            n_parameters=model.n_parameters,
            steps=model.history_.steps,
            threads=torch.get_num_threads(),
            history=_thinned(model.history_.table),
            # A pilot tells of one context.
            pilots=self._pilots(model) if model.learns_from_pilot and model.metadata_.rule.context else {},
            film=_film_places(model) if hasattr(model, "film") else {},
        )
        return self.score(predicted, trial)

    def score(self, predicted: Mapping[str, AnnData], trial: TrialResult) -> TrialResult:
        """Score predictions of every perturbation, whoever made them: the trial with their scores and their looks."""
        profiles: dict[str, Profile] = {}

        def describe(name: str, comparison: Comparison) -> None:
            profiles[name] = profile(comparison.predicted, len(predicted), comparison, self._intervals(predicted[name]))

        scores, notes = self.scores_of(predicted, describe)
        return replace(trial, scores=_scores(scores), notes=notes, profiles=profiles)

    def _intervals(self, predicted: AnnData) -> NDArray[np.floating[Any]] | None:
        """Ends of the interval of each gene's mean, (genes, 2), as :meth:`Model.predict` leaves them; none without."""
        if any(end not in predicted.varm for end in ENDS):
            return None
        genes = predicted.var_names.get_indexer(self.control.var_names)
        ends = np.column_stack([np.asarray(predicted.varm[end], dtype=np.float64)[:, 0] for end in ENDS])
        return np.where(genes[:, None] < 0, np.nan, ends[genes])

    def scores_of(
        self, predicted: Mapping[str, AnnData], each: Callable[[str, Comparison], object] | None = None
    ) -> tuple[pd.DataFrame, dict[str, str]]:
        """Score predictions: a row for each perturbation and a column for each metric, and notes by metric.

        What the metrics of counts combine to is left open: it takes the bounds.
        """
        cells = {"control": self.control, "truth": self.truth, "predicted": predicted}
        scores = evaluate_many(**cells, metrics=self._expression_metrics, each=each)
        notes = dict(scores.attrs["notes"])
        if self._count_metrics:
            counted = evaluate_counts(**cells, counts_layer=self.counts_layer)
            scores, notes = scores.join(counted).assign(**{COMBINED: np.nan}), notes | counted.attrs["notes"]
        return scores, notes

    def _pilots(self, model: Model) -> dict[str, Scores]:
        """Score predictions by a model that was told of some true cells, with the others; by their number."""
        shuffled = {
            name: cells[np.random.default_rng(0).permutation(cells.n_obs)].copy() for name, cells in self.truth.items()
        }
        sizes = [size for size in PILOTS if size <= min(cells.n_obs for cells in shuffled.values()) // 2]
        rest = {name: cells[sizes[-1] :].copy() for name, cells in shuffled.items()}
        metrics, found = self._expression_metrics, {}
        for size in sizes:
            pilots = {name: cells[:size].copy() if size else None for name, cells in shuffled.items()}
            predicted = {name: model.predict(self.control, name, pilot=pilot) for name, pilot in pilots.items()}
            scores = evaluate_many(control=self.control, truth=rest, predicted=predicted, metrics=metrics)
            found[str(size)] = _scores(scores)
        return found


def _film_places(model: Model) -> dict[str, list[float]]:
    """Where conditions lie in a plane by :func:`film_distances`, control at the origin: classical scaling."""
    metadata = model.metadata_
    unknown = metadata.rule.unseen_conditions if model.vectors_ is None else ()
    names = [name for name in metadata.conditions if name not in unknown]
    apart = film_distances(model, names).to_numpy()
    centre = np.eye(len(names)) - 1 / len(names)
    sizes, axes = np.linalg.eigh(-centre @ apart**2 @ centre / 2)
    places = axes[:, :-3:-1] * np.sqrt(np.maximum(sizes[:-3:-1], 0))
    places -= places[0]
    return {name: [float(f"{x:.4g}") for x in place] for name, place in zip(names, places, strict=True)}


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
    with warnings.catch_warnings(action="ignore", category=SparseEfficiencyWarning):  # of how scanpy does it
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
