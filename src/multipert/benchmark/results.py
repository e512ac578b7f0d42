"""A benchmark directory read back: its records, and the tables made of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from multipert.benchmark.records import DatasetCard, ModelCard, Overview, Reference, Scores, TrialResult
from multipert.data import atomic_path, write_text
from multipert.errors import InputError

PLAN = "plan.json"
FORMAT = 1
"""Version of the directory's layout; a reader refuses a newer one."""

BOUNDS = ("floor", "ceiling")
"""Rows of the summary that no model made."""

COSTS = ("seconds_fit", "seconds_predict", "peak_memory_mb", "n_parameters", "steps")
"""What a trial took."""

R = TypeVar("R")


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
        rows = [
            {
                "dataset": trial.dataset,
                "label": trial.label,
                "model": trial.model,
                "preset": trial.preset,
                "held_out": trial.held_out,
                "perturbation": perturbation,
                "seed": trial.seed,
                **{metric: scores[metric] for metric in self.metrics},
                **{cost: getattr(trial, cost) for cost in COSTS},
            }
            for trial in self.trials
            for perturbation, scores in trial.scores.items()
        ]
        names = ["dataset", "label", "model", "preset", "held_out", "perturbation", "seed"]
        table = pd.DataFrame(rows, columns=[*names, *self.metrics, *COSTS])
        return table.astype(dict.fromkeys(self.metrics, np.float64))  # also where there are no rows

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row for each data set and model, floor and ceiling among them.

        Metrics are means over held-out contexts and perturbations, then over seeds; ``<metric>_sd`` is the standard
        deviation of the former over seeds, NaN for a single one. ``peak_memory_mb`` is the highest, other costs are
        means.
        """
        rows: list[dict[str, Any]] = []
        for dataset in self.datasets:
            of_dataset = self.scores[self.scores["dataset"] == dataset.name]
            bounds = [one for (name, _), one in self.references.items() if name == dataset.name]
            for model in self.models:
                done = of_dataset[of_dataset["label"] == model.label]
                failed = [
                    trial
                    for trial in self.trials
                    if (trial.dataset, trial.label, trial.status) == (dataset.name, model.label, "failed")
                ]
                by_seed = done.groupby("seed")[list(self.metrics)].mean()
                rows.append(
                    {
                        "dataset": dataset.name,
                        "label": model.label,
                        "model": model.name,
                        "preset": model.preset,
                        "trials": len(done[["held_out", "seed"]].drop_duplicates()),
                        "failed": len(failed),
                        **{metric: by_seed[metric].mean() for metric in self.metrics},
                        **{f"{metric}_sd": _deviation(by_seed[metric]) for metric in self.metrics},
                        **{cost: done[cost].max() if "peak" in cost else done[cost].mean() for cost in COSTS},
                    }
                )
            for bound in BOUNDS:
                tables = [pd.DataFrame(getattr(one, bound)).T for one in bounds]
                means = pd.concat(tables).mean() if tables else pd.Series(dtype=float)
                named = {
                    "dataset": dataset.name,
                    "label": bound,
                    "model": bound,
                    "preset": "",
                    "trials": 0,
                    "failed": 0,
                }
                rows.append({**named, **{metric: float(means.get(metric, np.nan)) for metric in self.metrics}})
        deviations = [f"{metric}_sd" for metric in self.metrics]
        names = ["dataset", "label", "model", "preset", "trials", "failed"]
        return pd.DataFrame(rows, columns=[*names, *self.metrics, *deviations, *COSTS])


def is_benchmark(folder: str | Path) -> bool:
    """Whether a folder is a benchmark directory."""
    return (Path(folder) / PLAN).is_file()


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


def read_record(path: Path, kind: type[R]) -> R | None:
    """Read a record; none where there is none, or it is no whole one."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return kind(**{one.name: found[one.name] for one in fields(kind)})  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_tables(results: StudyResults, folder: Path) -> None:
    """Write ``results.csv``, ``results.parquet`` and ``summary.csv``, each whole or not at all."""
    write_text(folder / "results.csv", results.scores.to_csv(index=False))
    with atomic_path(folder / "results.parquet") as temporary:
        results.scores.to_parquet(temporary, index=False)
    write_text(folder / "summary.csv", results.summary.to_csv(index=False))


def as_scores(table: pd.DataFrame) -> Scores:
    """Turn a table of perturbations x metrics into what a record holds."""
    return {
        str(perturbation): {str(metric): float(value) for metric, value in row.items()}
        for perturbation, row in table.iterrows()
    }


def _records(folder: Path, files: Iterable[str], kind: type[R]) -> Iterable[R]:
    found = (read_record(folder / file, kind) for file in files)
    return (record for record in found if record is not None)


def _deviation(values: "pd.Series[float]") -> float:
    finite = values[np.isfinite(values)]
    return float(finite.std()) if len(finite) > 1 else float("nan")
