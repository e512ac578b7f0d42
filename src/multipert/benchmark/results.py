"""A benchmark directory read back: its records, and the tables made of them."""

import importlib.metadata
import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from multipert.benchmark.records import DatasetCard, ModelCard, Overview, R, Reference, TrialResult, read_record
from multipert.data import atomic_path, write_text
from multipert.errors import InputError
from multipert.evaluation.count_bounds import context_score
from multipert.evaluation.vcc2026 import COMBINED

PLAN = "plan.json"
FORMAT = 2
"""Version of the directory's layout; a reader refuses any other."""

BOUNDS = ("floor", "mean_response", "ceiling")
"""Rows of the summary that no model made."""

COSTS = ("seconds_fit", "seconds_predict", "peak_memory_mb", "n_parameters", "steps")
"""What a trial took."""

PLACE = ("held_out", "perturbation")
"""Where a score is made."""

PACKAGES = ("multipert", "torch", "anndata", "scanpy", "scikit-learn", "numpy", "scipy", "POT")


def versions() -> dict[str, str]:
    """Of the packages that results rest on, of Python and of the machine."""
    found = {package: importlib.metadata.version(package) for package in PACKAGES}
    return found | {"python": platform.python_version(), "machine": f"{platform.machine()}, {platform.system()}"}


@dataclass(frozen=True, eq=False)
class StudyResults:
    """All that a benchmark directory says.

    Attributes
    ----------
    title, question
        Of the study; the question may be empty.
    datasets, models
        In the order of the study file.
    seeds, metrics
        As the study has them.
    study_file
        Its text.
    versions
        Of the packages that ran it.
    planned
        Trials the study asks for.
    trials
        Those that were run, failed ones among them.
    references
        By data set and held-out context.
    overviews
        By data set.
    """

    title: str
    question: str
    datasets: Sequence[DatasetCard]
    models: Sequence[ModelCard]
    seeds: Sequence[int]
    metrics: Sequence[str]
    study_file: str
    versions: Mapping[str, str]
    planned: int
    trials: Sequence[TrialResult]
    references: Mapping[tuple[str, str], Reference]
    overviews: Mapping[str, Overview]

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row for each trial that was done and each of its perturbations: names, metrics, costs."""
        combined = COMBINED in self.metrics
        unseen = {card.name: card.unseen for card in self.datasets}
        rows = [
            {
                "dataset": trial.dataset,
                "label": trial.label,
                "model": trial.model,
                "preset": trial.preset,
                "held_out": trial.held_out,
                "unseen": unseen[trial.dataset].get(trial.held_out, "context"),
                "perturbation": perturbation,
                "seed": trial.seed,
                **{metric: scores[metric] for metric in self.metrics},
                **({COMBINED: self._combined(trial)} if combined else {}),
                **{cost: getattr(trial, cost) for cost in COSTS},
            }
            for trial in self.trials
            for perturbation, scores in trial.scores.items()
        ]
        names = ["dataset", "label", "model", "preset", "held_out", "unseen", "perturbation", "seed"]
        table = pd.DataFrame(rows, columns=[*names, *self.metrics, *COSTS])
        return table.astype(dict.fromkeys(self.metrics, np.float64))  # also where there are no rows

    def _combined(self, trial: TrialResult) -> float:
        """What the metrics of counts of a trial combine to, between the bounds of its context; NaN without these."""
        reference = self.references.get((trial.dataset, trial.held_out))
        if reference is None:
            return float("nan")
        tables = (trial.scores, *(reference.bounds[bound] for bound in ("mean_response", "ceiling")))
        return context_score(*(pd.DataFrame.from_dict(dict(table), orient="index") for table in tables))

    @cached_property
    def bounds(self) -> pd.DataFrame:
        """A row for each bound (floor, mean response, ceiling), held-out context and perturbation that was measured."""
        rows = [
            {"dataset": one.dataset, "label": bound, "held_out": one.held_out, "perturbation": perturbation, **scores}
            for one in self.references.values()
            for bound, table in one.bounds.items()
            for perturbation, scores in table.items()
        ]
        table = pd.DataFrame(rows, columns=["dataset", "label", *PLACE, *self.metrics])
        return table.astype(dict.fromkeys(self.metrics, np.float64))

    @cached_property
    def calibration(self) -> pd.DataFrame:
        """Whether metrics can tell: rows by data set, held-out context, perturbation and metric; ``drf``, ``wins``."""
        rows = [
            {"dataset": one.dataset, "held_out": one.held_out, "perturbation": name, "metric": metric, "drf": value}
            | {"wins": one.calibration["wins"][name][metric]}
            for one in self.references.values()
            for name, scores in one.calibration.get("drf", {}).items()
            for metric, value in scores.items()
        ]
        index = ["dataset", "held_out", "perturbation", "metric"]
        return pd.DataFrame(rows, columns=[*index, "drf", "wins"]).set_index(index)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row for each data set and model, the bounds among them.

        Metrics are means as :func:`mean_scores` makes them; ``<metric>_sd`` is the standard deviation over seeds of
        their means, NaN for a single one. ``peak_memory_mb`` is the highest, other costs are means.
        """
        rows = [row for dataset in self.datasets for row in self._summary_of(dataset.name)]
        deviations = [f"{metric}_sd" for metric in self.metrics]
        names = ["dataset", "label", "model", "preset", "trials", "failed"]
        return pd.DataFrame(rows, columns=[*names, *self.metrics, *deviations, *COSTS])

    def _summary_of(self, dataset: str) -> Iterable[dict[str, Any]]:
        metrics = list(self.metrics)
        scores, bounds = (table[table["dataset"] == dataset] for table in (self.scores, self.bounds))
        means, spread = mean_scores(over_seeds(scores, metrics), ["label"]), _over_seeds_sd(scores, metrics)
        failed = Counter(one.label for one in self.trials if one.dataset == dataset and one.status == "failed")
        for model in self.models:
            done = scores[scores["label"] == model.label]
            named = {"dataset": dataset, "label": model.label, "model": model.name, "preset": model.preset}
            counts = {"trials": len(done[["held_out", "seed"]].drop_duplicates()), "failed": failed[model.label]}
            costs = {cost: done[cost].max() if "peak" in cost else done[cost].mean() for cost in COSTS}
            row = {metric: means[metric].get(model.label, np.nan) for metric in metrics}
            row |= {f"{metric}_sd": spread[metric].get(model.label, np.nan) for metric in metrics}
            yield named | counts | row | costs
        if len(scores):  # bounds of the contexts where a model was scored
            bounds = bounds[bounds["held_out"].isin(scores["held_out"])]
        for bound in BOUNDS:
            here = bounds.loc[bounds["label"] == bound, metrics].mean()
            named = {"dataset": dataset, "label": bound, "model": bound, "preset": ""}
            yield named | {"trials": 0, "failed": 0} | {metric: float(here[metric]) for metric in metrics}


def over_seeds(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Means over seeds: rows by label, held-out context and perturbation; NaN where a seed has no such score."""
    keys = ["label", *PLACE]
    holes = scores[list(metrics)].isna().groupby([scores[key] for key in keys]).any()
    means: pd.DataFrame = scores.groupby(keys)[list(metrics)].mean().mask(holes)
    return means


def mean_scores(scores: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Average scores over places (held-out contexts and perturbations), the one way all tables do.

    A metric is averaged over the places where some model has it. A model that was scored in such a place and yet lacks
    the metric there has no mean of it: means over different places say different things. (A model that was not tried
    in some contexts keeps its mean, and is marked as not to be compared.)

    Parameters
    ----------
    scores
        Rows by label, held-out context and perturbation; columns by metric.
    by
        The levels that are kept: ``["label"]``, or with ``"held_out"`` or ``"perturbation"``.
    """
    known = scores.notna().groupby(level=list(PLACE)).transform("any")
    holes = (known & scores.isna()).groupby(level=list(by)).any()
    means: pd.DataFrame = scores.groupby(level=list(by)).mean().mask(holes)
    return means


def _over_seeds_sd(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Standard deviation, over the seeds that have every place, of the mean of each label."""
    of_seed = scores.groupby(["label", "seed"])
    places = of_seed.size()
    whole = places == places.groupby(level="label").transform("max")
    means = of_seed[list(metrics)].mean()[whole].replace([np.inf, -np.inf], np.nan)
    spread: pd.DataFrame = means.groupby(level="label").std()
    return spread


def is_benchmark(folder: str | Path) -> bool:
    """Whether a folder is a benchmark directory."""
    return os.path.isfile(Path(folder) / PLAN)


def load_results(folder: str | Path) -> StudyResults:
    """Read a benchmark directory, finished or not.

    Raises
    ------
    InputError
        If it is none, is damaged, or was written by a newer multipert.
    """
    folder = Path(folder)
    if not is_benchmark(folder):
        raise InputError(
            f"{folder} is no benchmark directory (it has no {PLAN}): name the --out of `multipert benchmark`"
        )
    try:
        plan = json.loads((folder / PLAN).read_text("utf-8"))
        if plan["format"] > FORMAT:
            raise InputError(f"{folder} was written by a newer multipert: update this one to read it")
        if plan["format"] < FORMAT:
            raise InputError(f"{folder} was written by an older multipert: run the benchmark again, into a new folder")
        files = plan["files"]
        return StudyResults(
            **{name: plan[name] for name in ("title", "question", "seeds", "metrics", "study_file", "versions")},
            datasets=[DatasetCard(**card) for card in plan["datasets"]],
            models=[ModelCard(**card) for card in plan["models"]],
            planned=len(files["trials"]),
            trials=list(_records(folder, files["trials"], TrialResult)),
            references={(one.dataset, one.held_out): one for one in _records(folder, files["references"], Reference)},
            overviews={one.dataset: one for one in _records(folder, files["overviews"], Overview)},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / PLAN} is damaged ({type(error).__name__}: {error}): "
            f"run the benchmark again, it keeps what is done"
        ) from error


def write_tables(results: StudyResults, folder: Path) -> None:
    """Write ``results.csv``, ``results.parquet`` and ``summary.csv``, each whole or not at all."""
    write_text(folder / "results.csv", results.scores.to_csv(index=False))
    with atomic_path(folder / "results.parquet") as temporary:
        results.scores.to_parquet(temporary, index=False)
    write_text(folder / "summary.csv", results.summary.to_csv(index=False))


def _records(folder: Path, files: Iterable[str], kind: type[R]) -> Iterable[R]:
    found = (read_record(folder / file, kind) for file in files)
    return (record for record in found if record is not None)
