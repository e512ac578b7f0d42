"""A study file: which data, models, seeds and metrics; read with every mistake named by its line."""

import inspect
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from multipert.benchmark.held_out import read_counts
from multipert.benchmark.predictions import StudyPredictions, read_predictions
from multipert.benchmark.toml_lines import parse_toml, read_toml, where_in
from multipert.benchmark.toml_table import Table, is_kind, shown
from multipert.benchmark.unseen import UNSEEN, FeatureSource, Unseen, read_source, read_unseen
from multipert.data import (
    DATASETS,
    Keys,
    check_world,
    dataset,
    did_you_mean,
    locate,
    preprocess,
    simulate,
)
from multipert.evaluation import METRICS, PROFILES
from multipert.models import create, model_class, preset_names, preset_of

MOST_SEEDS = 1000
"""Seeds that a study may have."""

RESERVED = ("floor", "mean_response", "ceiling")
"""Rows of a summary that no model may be called like."""


@dataclass(frozen=True)
class StudyDataset:
    """A data set, as a study names it.

    Attributes
    ----------
    name
        What tables call it; unique in the study.
    source
        Where the cells come from, in a phrase.
    path
        The h5ad file, absolute; none where the cells are simulated.
    simulated
        Arguments of :func:`multipert.data.simulate`; none where there is a file.
    keys
        Which columns to read.
    preprocessing
        Arguments of :func:`multipert.data.preprocess`, ``choose_on`` being ``"training"`` or ``"all"``; none where the
        expression is log-normalised already.
    held_out
        The contexts to hold out in turn; none for every one.
    perturbations
        The perturbations to score; none for all.
    unseen
        Perturbations, combinations and doses to hold out in turn; where there are any, contexts only if named.
    features
        What models are told of perturbations.
    published
        Which published table stands beside it, if any.
    on_disk
        Whether expression stays in its file; none for where it is large.
    withheld
        Contexts whose perturbed cells are put away before anything is made of the file.
    """

    name: str
    source: str
    path: Path | None
    simulated: Mapping[str, Any] | None
    keys: Keys
    preprocessing: Mapping[str, Any] | None
    held_out: tuple[str, ...] | None
    perturbations: tuple[str, ...] | None
    published: str | None
    unseen: Unseen = field(default_factory=Unseen)
    features: FeatureSource | None = None
    on_disk: bool | None = None
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyModel:
    """A model, as a study names it: ``create(name, preset=preset, seed=..., **changes)`` makes it.

    Attributes
    ----------
    label
        What tables call it; unique in the study.
    name
        One of :data:`multipert.models.MODELS`.
    preset
        Where its values come from.
    changes
        Values that differ from the preset's.
    """

    label: str
    name: str
    preset: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """Everything a study file says.

    Attributes
    ----------
    title
        What the study is called.
    question
        What it asks, in a sentence; may be empty.
    datasets, models, seeds
        A trial is one of each, with one context held out.
    metrics
        Names of :data:`multipert.evaluation.METRICS`.
    predictions
        Predictions made elsewhere that join the models.
    text
        The file as it is.
    path
        The file, as the caller named it.
    """

    title: str
    question: str
    datasets: tuple[StudyDataset, ...]
    models: tuple[StudyModel, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    predictions: tuple[StudyPredictions, ...]
    text: str
    path: Path

    def where(self, *place: str | int) -> str:
        """Name the file and the line of a value, for messages about it.

        Parameters
        ----------
        *place
            Keys and indices that lead to it: ``study.where("datasets", 0, "held_out", 1)``.

        Returns
        -------
        str
            Such as ``studies/kang.toml, line 9``; the line of the table or array around it where the value itself is
            not written down.
        """
        return where_in(self.path, self.text, *place)


def read_study(path: str | Path) -> Study:
    """Read a study file and check all that can be checked before the data are read.

    Parameters
    ----------
    path
        A TOML file (see ``docs/studies.md``). Paths in it start from its folder.

    Raises
    ------
    InputError
        The file cannot be read, a key, a type, a name or a value in it is wrong, or a data file is not here: one
        sentence that begins with the file and the line.
    """
    path = Path(path)
    text = read_toml(path)
    file = Table(parse_toml(path, text), (), partial(where_in, path, text))
    file.check(_STUDY, "a study")
    models, seeds, metrics, datasets = (
        _models(file, path.parent),
        _seeds(file),
        _metrics(file),
        _datasets(file, path.parent),
    )
    if read_counts(metrics):
        datasets = tuple(_with_counts(file, index, one) for index, one in enumerate(datasets))
    taken = [*RESERVED, *(model.label for model in models)]
    return Study(
        title=file.values.get("title", path.stem),
        question=file.values.get("question", ""),
        models=models,
        seeds=seeds,
        metrics=metrics,
        datasets=datasets,
        predictions=tuple(read_predictions(file, path.parent, datasets, taken)),
        text=text,
        path=path,
    )


# What each table may hold. A kind is a type, written as in a signature; a list of them is a Sequence.

_STUDY: Mapping[str, Any] = {
    "title": str,
    "question": str,
    "datasets": Sequence[Mapping[str, Any]],
    "models": Sequence[str | Mapping[str, Any]],
    "predictions": Sequence[Mapping[str, Any]],
    "preset": str,
    "seeds": Sequence[int],
    "metrics": Sequence[str],
    "profile": str | Sequence[str],
}
_KEYS: Mapping[str, Any] = dict.fromkeys(inspect.signature(Keys).parameters, str) | dict.fromkeys(
    ("context_key", "covariate_key"), str | Sequence[str]
)
_SCORED: Mapping[str, Any] = {"held_out": Sequence[str], "perturbations": Sequence[str]}
_CELLS: Mapping[str, Any] = {
    "name": str,
    "path": str,
    "on_disk": bool,
    **_KEYS,
    "preprocess": Mapping[str, Any],
    **_SCORED,
    **UNSEEN,
}
_SIMULATED: Mapping[str, Any] = {"name": str, "simulate": Mapping[str, Any], **_SCORED, **UNSEEN}
_MODEL: Mapping[str, Any] = {"name": str, "preset": str, "label": str}
_PARAMETER = bool | int | float | str | Sequence[int | float]


def _arguments(function: Any) -> dict[str, Any]:
    """The keyword arguments of a function and their kinds."""
    kinds = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return {one.name: kinds[one.name] for one in parameters if one.kind is one.KEYWORD_ONLY}


_SIMULATE: Mapping[str, Any] = _arguments(simulate)
_PREPROCESS: Mapping[str, Any] = {**_arguments(preprocess), "choose_on": Literal["training", "all"]}


def _seeds(file: Table) -> tuple[int, ...]:
    seeds = file.values.get("seeds", [1])
    if len(seeds) > MOST_SEEDS:
        raise file.error(f"{len(seeds):,} seeds are more than anybody waits for: give {MOST_SEEDS:,} or fewer", "seeds")
    for index, seed in enumerate(seeds):
        if not 0 <= seed < 2**32:
            raise file.error(f"seed {seed} must be 0 or more and less than {2**32}", "seeds", index)
    return tuple(seeds)


def _metrics(file: Table) -> tuple[str, ...]:
    if "metrics" in file.values and "profile" in file.values:
        raise file.error("metrics and profile are both given: leave one out", "profile")
    if "metrics" in file.values:
        metrics: list[str] = file.values["metrics"]
        for index, name in enumerate(metrics):
            if name not in METRICS:
                raise file.error(f"there is no metric {name!r}; {did_you_mean(name, METRICS)}", "metrics", index)
            if METRICS[name].needs == "counts":
                raise file.error(f"{name} goes with all of its profile: give profile instead", "metrics", index)
        return tuple(metrics)
    named = file.values.get("profile", "default")
    found = list[str]()
    for name in [named] if isinstance(named, str) else named:
        if name not in PROFILES:
            raise file.error(f"there is no profile {name!r}; {did_you_mean(name, PROFILES)}", "profile")
        combined = [name] if PROFILES[name].combined else []
        found += [*combined, *PROFILES[name].metrics()]
    return tuple(dict.fromkeys(found))


def _models(file: Table, folder: Path) -> tuple[StudyModel, ...]:
    entries = file.values.get("models")
    if entries is None and "predictions" in file.values:
        return ()
    if entries is None:
        raise file.error('there are no models: name some, such as models = ["mtae", "no-change"]')
    preset = file.values.get("preset", "default")
    if preset not in preset_names() and not preset.endswith(".toml"):
        raise file.error(f"there is no preset {preset!r}; {did_you_mean(preset, preset_names())}", "preset")
    tables = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    times = Counter(str(values.get("name")) for values in tables)
    models: list[StudyModel] = []
    for index, values in enumerate(tables):
        model = _model(Table(values, ("models", index), file.where), preset, times, folder)
        if model.label in (one.label for one in models):
            raise file.error(f"two models are called {model.label!r}: give this one another label", "models", index)
        models.append(model)
    return tuple(models)


def _model(table: Table, preset: str, times: Mapping[str, int], folder: Path) -> StudyModel:
    named = {key: value for key, value in table.values.items() if key in _MODEL}
    changes = {key: value for key, value in table.values.items() if key not in _MODEL}
    Table(named, table.place, table.where).check(_MODEL, "a model")
    if "name" not in named:
        raise table.error('a model needs the name of one, such as name = "mtae"')
    if "seed" in changes or "seeds" in changes:
        raise table.error("all models of a study share its seeds: give seeds at the top of the file")
    name, preset = named["name"], named.get("preset", preset)
    with table.blame():  # the values of a preset's file, whose path starts from the study's folder, become changes
        base, given = preset_of(model_class(name), folder / preset if preset.endswith(".toml") else preset)
        create(name, preset=base)
    for key, value in changes.items():
        if not is_kind(_PARAMETER, value):
            raise table.error(f"{key} takes a number, a text, true, false or numbers, not {shown(value)}", key)
        with table.blame(key):
            create(name, preset=base, **{key: value})
    label = named.get("label", name if times[name] == 1 else f"{name} ({preset.removesuffix('.toml')})")
    if label in RESERVED:
        raise table.error(f"{label!r} is what a bound is called: give the model another label", "label")
    return StudyModel(label, name, base, given | changes)


def _datasets(file: Table, folder: Path) -> tuple[StudyDataset, ...]:
    entries = file.values.get("datasets")
    if entries is None:
        raise file.error("there are no data sets: name one under [[datasets]]")
    datasets: list[StudyDataset] = []
    for index, values in enumerate(entries):
        table = Table(values, ("datasets", index), file.where)
        dataset = _dataset(table, folder)
        if dataset.name in (one.name for one in datasets):
            raise table.error(f"two data sets are called {dataset.name!r}: give this one another name", "name")
        datasets.append(dataset)
    return tuple(datasets)


def _dataset(table: Table, folder: Path) -> StudyDataset:
    values = table.values
    if "name" not in values:
        raise table.error('a data set needs a name, such as name = "mine"')
    if "path" in values and "simulate" in values:
        raise table.error("path and simulate exclude each other: give one of the two", "simulate")
    simulated, name = "simulate" in values, values["name"]
    table.check(_SIMULATED if simulated else _CELLS, "a simulated data set" if simulated else "a data set")
    for key in ("path", "simulate"):
        if key in values and name in DATASETS:
            raise table.error(f"{name!r} is a data set of the catalogue: leave out {key}, or change the name", key)
    if simulated:
        return _simulated(table, folder)
    if "path" in values:
        return _from_file(table, folder)
    if name in DATASETS:
        return _from_catalogue(table, folder, name)
    raise table.error(
        f"the catalogue has no data set {name!r}; {did_you_mean(name, DATASETS)}; give path for cells of your own",
        "name",
    )


def _from_catalogue(table: Table, folder: Path, name: str) -> StudyDataset:
    entry = dataset(name)
    with table.blame("name"):
        path = locate(name).resolve()
    return _read_from(table, folder, path, entry.title, asdict(entry.keys), entry.preprocessing, entry.published)


def _from_file(table: Table, folder: Path) -> StudyDataset:
    try:
        path = (folder / Path(table.values["path"]).expanduser()).resolve()
        there = path.exists()
    except (ValueError, RuntimeError, OSError) as error:  # a null character, a user that is not there, a name too long
        why = error.strerror if isinstance(error, OSError) else error
        raise table.error(f"{shown(table.values['path'])} is no path ({why}): check it", "path") from None
    if not there:
        raise table.error(f"there is no file {path}: check the path, which starts from the study's folder", "path")
    return _read_from(table, folder, path, path.name, dict.fromkeys(_KEYS), None, None)


def _read_from(
    table: Table,
    folder: Path,
    path: Path,
    source: str,
    keys: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None,
    published: str | None,
) -> StudyDataset:
    """A data set of a file; ``keys`` and ``preprocessing`` stand where the study says nothing else."""
    own = Table(table.values.get("preprocess", {}), (*table.place, "preprocess"), table.where)
    own.check(_PREPROCESS, "preprocess")
    if preprocessing is not None or "preprocess" in table.values:
        preprocessing = {"choose_on": "training", **(preprocessing or {}), **own.values}
    keys = {key: table.values.get(key, keys[key]) for key in _KEYS}
    if keys["context_key"] is None:
        raise table.error(
            "context_key is missing: name the column of obs that holds the context, such as the cell type"
        )
    if preprocessing is not None and keys["layer"] is not None:
        raise table.error(
            "layer names expression that is log-normalised already, and preprocess makes it from counts: give the "
            "layer of counts as layer inside preprocess",
            "layer",
        )
    on_disk = table.values.get("on_disk")
    if on_disk and preprocessing is not None:
        raise table.error(
            "cells on disk are read as they are, and preprocess makes others of them: write these with `multipert "
            "preprocess COUNTS --on-disk --out CELLS.zarr`, and give the study that file",
            "on_disk",
        )
    with table.blame():
        resolved = Keys(**keys)
    told = {**_scored(table, folder), "published": published, "on_disk": on_disk}
    return StudyDataset(table.values["name"], source, path, None, resolved, preprocessing, **told)


def _simulated(table: Table, folder: Path) -> StudyDataset:
    own = Table(table.values["simulate"], (*table.place, "simulate"), table.where)
    own.check(_SIMULATE, "simulate")
    # Names that others refer to go with each value, so that the value alone is blamed.
    names = {key: own.values[key] for key in ("contexts", "perturbations", "doses", "donors") if key in own.values}
    combinations = {"combinations": own.values["combinations"]} if "combinations" in own.values else {}
    for key, value in own.values.items():
        with own.blame(key):
            check_world(**{**({} if key in names else names | combinations), key: value})
    with own.blame():
        check_world(**own.values)
    dosed = "doses" in own.values
    keys = Keys(
        perturbation_key="compound" if dosed else "condition",
        control="control",
        context_key="cell_type",
        dose_key="dose" if dosed else None,
    )
    return StudyDataset(
        table.values["name"], "simulated cells", None, own.values, keys, None, **_scored(table, folder), published=None
    )


def _with_counts(file: Table, index: int, dataset: StudyDataset) -> StudyDataset:
    """The data set with the layer of its raw counts, which metrics read."""
    if dataset.keys.counts_layer is not None:
        return dataset
    if dataset.simulated is None and dataset.preprocessing is None:
        raise file.error(
            f"the profile scores raw counts, and nothing says where {dataset.name} holds them: name the layer as "
            "counts_layer",
            "datasets",
            index,
        )
    return replace(dataset, keys=replace(dataset.keys, counts_layer="counts"))


def _scored(table: Table, folder: Path) -> dict[str, Any]:
    """What is held out and scored, and what models are told of perturbations."""
    scored = {key: tuple(table.values[key]) if key in table.values else None for key in _SCORED}
    return {**scored, "unseen": read_unseen(table), "features": read_source(table, folder)}
