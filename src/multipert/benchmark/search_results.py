"""A search read back from its folder: what was asked, every trial, what was found."""

import importlib.metadata
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from multipert.benchmark.results import versions
from multipert.benchmark.search_plan import SearchPlan
from multipert.data import write_text
from multipert.errors import InputError
from multipert.models import Range, create

if TYPE_CHECKING:
    import optuna

ABOUT, JOURNAL, PRESET, TRIALS = "search.json", "journal.log", "preset.toml", "trials.csv"
NAME = "search"
"""What Optuna calls the one study of a journal."""

FORMAT = 1
"""Version of the folder's layout; a reader refuses any other."""

STATES = {"COMPLETE": "done", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "unfinished", "WAITING": "unfinished"}
"""Optuna's words for how a trial stands, and ours."""


@dataclass(frozen=True, eq=False)
class SearchResults:
    """All that the folder of a search says.

    Attributes
    ----------
    about
        What was asked: title of the study, model, metric, parameters, contexts, versions.
    trials
        A row for each trial, the first with the values the search began with: ``state`` (done, stopped, failed or
        unfinished), ``value``, ``seconds``, the parameters searched, the value in each inner context (``in`` it), where
        it was ``stopped`` and the ``problem`` of one that failed.
    study
        The search as Optuna has it, for its own plots.
    """

    about: Mapping[str, Any]
    trials: pd.DataFrame
    study: "optuna.Study"

    @property
    def space(self) -> dict[str, Range | tuple[Any, ...]]:
        """What could be tried, by parameter."""
        return {name: read_space(one) for name, one in self.about["space"].items()}

    @property
    def contexts(self) -> list[str]:
        """The inner contexts."""
        return [one["name"] for one in self.about["contexts"]]

    @cached_property
    def done(self) -> pd.DataFrame:
        """The trials that came to their end."""
        return self.trials[self.trials["state"] == "done"]

    @cached_property
    def importances(self) -> dict[str, float]:
        """The share of the variance of the values that each parameter explains (fANOVA: Hutter et al. 2014).

        The largest first; empty where there are too few trials to tell.
        """
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        try:
            with quiet():
                found = get_param_importances(self.study, evaluator=FanovaImportanceEvaluator(seed=0))
        except (ValueError, RuntimeError):  # fewer than two trials, or all alike
            return {}
        return {name: float(share) for name, share in found.items() if np.isfinite(share)}

    @property
    def best(self) -> "pd.Series[Any]":
        """The trial of the highest value, the earliest of those."""
        return self.done.iloc[int(np.argmax(self.done["value"]))]

    @property
    def start(self) -> "pd.Series[Any]":
        """The trial with the values the search began with."""
        return self.trials.iloc[0]

    @property
    def values(self) -> dict[str, Any]:
        """All values of the best trial: what the preset holds."""
        found = {name: plain_value(self.best[name]) for name in self.about["space"]}
        return asdict(create(self.about["model"], **{**self.about["parameters"], **found}).parameters)


def read_space(one: Mapping[str, Any] | Sequence[Any]) -> Range | tuple[Any, ...]:
    """What could be tried of a parameter, from what JSON has."""
    return Range(**one) if isinstance(one, Mapping) else tuple(tuple(x) if isinstance(x, list) else x for x in one)


def as_text(value: Any) -> str:
    """One of a few values, as Optuna keeps it and ``create`` reads it: widths with commas between them."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def plain_value(value: Any) -> Any:
    """A number of numpy as Python's own."""
    return value.item() if hasattr(value, "item") else value


def is_search(folder: str | Path) -> bool:
    """Whether a folder is that of a search."""
    return os.path.isfile(Path(folder) / ABOUT)


def write_about(plan: SearchPlan, folder: Path) -> None:
    """Write what is asked.

    Raises
    ------
    InputError
        The folder is that of another search.
    """
    content = {
        "format": FORMAT,
        "title": plan.study.title,
        "label": plan.model.label,
        "model": plan.model.name,
        "preset": plan.model.preset,
        "parameters": plan.parameters,
        "space": plan.identity["model"]["space"],
        "metric": plan.metric,
        "objective": plan.objective,
        "normalised": plan.normalised,
        "seed": plan.study.seeds[0],
        "held_out": {one.name: one.held_out for one in plan.study.datasets},
        "contexts": [
            {"name": one.name, "floor": one.floor, "ceiling": one.ceiling, "perturbations": one.fit.perturbations}
            for one in plan.contexts
        ],
        "identity": plan.identity,
        "study_file": plan.study.text,
        "versions": versions() | {"optuna": importlib.metadata.version("optuna")},
    }
    text = json.dumps(content, indent=1, default=plain_value) + "\n"
    if is_search(folder):
        there, asked = _read_about(folder)["identity"], json.loads(text)["identity"]
        if differing := [key for key in asked if there.get(key) != asked[key]]:
            raise InputError(
                f"{folder} holds a search that differs in its {' and '.join(differing)}: repeat that one to go on with "
                "it, or choose another folder"
            )
        return
    write_text(folder / ABOUT, text)


def load_search(folder: str | Path) -> SearchResults:
    """Read the folder of a search, finished or not.

    Raises
    ------
    InputError
        If it is none, or is damaged.
    """
    about = _read_about(Path(folder))
    study = open_journal(Path(folder))
    rows = [_row(about, trial) for trial in study.get_trials(deepcopy=False)]
    names = ["trial", "state", "value", "seconds", *about["space"], *_columns(about), "stopped", "problem"]
    return SearchResults(about, pd.DataFrame(rows, columns=names), study)


def open_journal(folder: Path, *, begin: bool = False) -> "optuna.Study":
    """The search as Optuna keeps it, which writes every step of it into one file as it is made.

    Parameters
    ----------
    folder
        Of the search.
    begin
        Whether to begin one where there is none.

    Raises
    ------
    InputError
        The file is damaged, or there is none.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    file = folder / JOURNAL
    if not begin and not file.is_file():
        raise InputError(f"{folder} holds no trial yet: wait for `multipert tune` to make one")
    with quiet():
        try:
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(file)))
            if begin and not storage.get_all_studies():
                return optuna.create_study(storage=storage, study_name=NAME, direction="maximize")
            return optuna.load_study(storage=storage, study_name=NAME)
        except OSError:
            raise
        except Exception as error:  # whatever Optuna makes of lines that are none of its own
            raise InputError(
                f"{file} is damaged ({type(error).__name__}: {error}): search again, into a new folder"
            ) from error


def mend_journal(folder: Path) -> None:
    """Remove what a killed search left: a line half written, and Optuna's own lock. Who asks has the folder alone."""
    for lock in folder.glob(f"{JOURNAL}.lock*"):
        lock.unlink(missing_ok=True)
    file = folder / JOURNAL
    if file.is_file() and (text := file.read_bytes()) and not text.endswith(b"\n"):
        with file.open("r+b") as journal:
            journal.truncate(text.rfind(b"\n") + 1)


def write_tables_of_search(results: SearchResults, folder: Path) -> None:
    """Write ``trials.csv`` and, once a trial is done, ``preset.toml``, each whole or not at all."""
    write_text(folder / TRIALS, results.trials.to_csv(index=False))
    if len(results.done):
        write_text(folder / PRESET, preset_text(results))


def preset_text(results: SearchResults) -> str:
    """The best values as a preset file."""
    about, best, begun = results.about, results.best, results.start
    ended = int((results.trials["state"] != "unfinished").sum())
    lines = [
        f"# The best of {ended} trials, number {best['trial']}, by {about['objective']} over",
        f"# {', '.join(results.contexts)}: {best['value']:.4g}; what it began with: {begun['value']:.4g}.",
        *(f"# Never seen: the responses of {', '.join(held)} in {name}." for name, held in about["held_out"].items()),
        f"[{about['model']}]",
    ]
    searched = about["space"]
    values = {name: json.dumps(value) for name, value in results.values.items()}  # which is TOML too
    lines += [f"{name} = {values[name]}" for name in searched]
    left = [f"{name} = {value}" for name, value in values.items() if name not in searched]
    lines += ["# As they were.", *left] if left else []
    return "\n".join(line.replace("\n", " ") for line in lines) + "\n"


def _read_about(folder: Path) -> dict[str, Any]:
    if not is_search(folder):
        raise InputError(f"{folder} is no folder of a search (it has no {ABOUT}): name the --out of `multipert tune`")
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text("utf-8"))
        known = about["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / ABOUT} is damaged ({type(error).__name__}): search again, into a new folder"
        ) from error
    if not known:
        raise InputError(f"{folder} was written by another version of multipert: search again, into a new folder")
    return about


def _columns(about: Mapping[str, Any]) -> list[str]:
    return [f"in {one['name']}" for one in about["contexts"]]


def _row(about: Mapping[str, Any], trial: "optuna.trial.FrozenTrial") -> dict[str, Any]:
    told = trial.user_attrs
    return {
        "trial": trial.number,
        "state": STATES[trial.state.name],
        "value": np.nan if trial.value is None else trial.value,
        "seconds": told.get("seconds", np.nan),
        **trial.params,
        **dict(zip(_columns(about), told.get("values", []), strict=False)),
        "stopped": told.get("stopped", ""),
        "problem": told.get("problem", ""),
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Let Optuna say warnings alone."""
    log = logging.getLogger("optuna")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
