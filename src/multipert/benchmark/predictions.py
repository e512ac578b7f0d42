"""Predictions made elsewhere: files of cells that join a study beside its models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from multipert.benchmark.toml_table import Table
from multipert.data import Keys, content_of, did_you_mean, find_cells, joint_labels, read_cells, read_labels
from multipert.data.expression import layer_names
from multipert.data.scored_cells import read_scored_cells
from multipert.data.suggestions import some
from multipert.errors import InputError

if TYPE_CHECKING:
    from multipert.benchmark.study import StudyDataset

ELSEWHERE = "made elsewhere"
"""What stands in place of a model's name."""

HELD_OUT, SEED = "{held_out}", "{seed}"
"""Stand in a path for the held-out context and for the seed, where files are told apart by them."""

KEYS: Mapping[str, Any] = {
    **dict.fromkeys(("perturbation_key", "control", "dose_key", "compound", "layer", "counts_layer"), str),
    "context_key": str | Sequence[str],
}
_PREDICTIONS: Mapping[str, Any] = {"label": str, "path": str, "dataset": str, "source": str, **KEYS}


@dataclass(frozen=True)
class StudyPredictions:
    """Predictions made elsewhere, as a study names them.

    Attributes
    ----------
    label
        What tables call them; unique in the study, models among them.
    path
        A file, a folder of files or a pattern, absolute; ``{held_out}`` and ``{seed}`` stand for the trial's.
    written
        The path as the study has it.
    dataset
        The name of the data set whose held-out contexts they predict.
    keys
        Which columns of the files to read.
    source
        What made them, in a phrase.
    """

    label: str
    path: str
    written: str
    dataset: str
    keys: Keys
    source: str

    def seeds(self, of_study: Sequence[int]) -> Sequence[int]:
        """The seeds of the study that they have files of: with none in their path, they count as the first."""
        return of_study if SEED in self.path else of_study[:1]

    def files(self, held_out: str, seed: int) -> list[Path]:
        """The files that may hold predictions of a context."""
        filled = self.path.replace(HELD_OUT, escape(held_out)).replace(SEED, str(seed))
        return find_cells(filled)

    def read(self, path: Path) -> AnnData:
        """Read a file, its expression in ``X``.

        Raises
        ------
        InputError
            It cannot be read, or lacks the layer.
        """
        cells, layer = read_cells(path), self.keys.layer
        if layer is not None:
            if layer not in cells.layers:
                raise InputError(f"{path} has no layer {layer!r}; {did_you_mean(layer, layer_names(cells))}")
            cells.X = cells.layers[layer]
        return cells

    def labels(self, cells: AnnData, held_out: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The context and the condition that each cell is predicted for, (cells,) names both.

        Raises
        ------
        InputError
            A column is missing, or a label is NaN.
        """
        condition = read_labels(cells.obs, self.keys)
        if HELD_OUT in self.path:
            return np.full(cells.n_obs, held_out, dtype=object), condition
        code, names = joint_labels(cells.obs, self.keys.context_columns, "context key")
        return np.array(names, dtype=object)[code], condition


@dataclass(frozen=True)
class PredictedFiles:
    """The files that hold the predictions of one trial.

    Attributes
    ----------
    predictions
        Whose.
    files
        Path and content of each.
    """

    predictions: StudyPredictions
    files: Sequence[tuple[Path, str]]

    def read(
        self, held_out: str, perturbations: Sequence[str], *, counts_layer: str | None = None
    ) -> dict[str, AnnData]:
        """Read the predicted cells of a context, by perturbation; raw counts into ``counts_layer``, if it is named."""
        found, given = {}, self.predictions.keys.counts_layer
        for path, _ in self.files:
            cells = self.predictions.read(path)
            context, condition = self.predictions.labels(cells, held_out)
            for name in perturbations:
                rows = (context == held_out) & (condition == name)
                if rows.any():
                    found[name] = cells[rows].copy()
                    if counts_layer not in (None, given):
                        found[name].layers[counts_layer] = found[name].layers.pop(given)
        return found


def read_predictions(
    file: Table, folder: Path, datasets: Sequence["StudyDataset"], taken: Sequence[str]
) -> Iterator[StudyPredictions]:
    """Read the tables ``[[predictions]]`` of a study file.

    Parameters
    ----------
    file
        The study file.
    folder
        Where relative paths start.
    datasets
        Those of the study.
    taken
        Labels that are in use.

    Raises
    ------
    InputError
        A key, a type, a name or a value is wrong: with file and line.
    """
    labels = list(taken)
    for index, values in enumerate(file.values.get("predictions", ())):
        table = Table(values, ("predictions", index), file.where)
        table.check(_PREDICTIONS, "a table of predictions")
        for key in ("label", "path"):
            if key not in values:
                raise table.error(f"predictions need a {key}, such as {key} = {_SUCH_AS[key]}")
        if values["label"] in labels:
            raise table.error(f"{values['label']!r} is taken: give these predictions another label", "label")
        labels.append(values["label"])
        dataset = _dataset(table, datasets)
        with table.blame():
            keys = replace(dataset.keys, **{"layer": None, "covariate_key": None} | _own_keys(table))
        try:
            path = folder.resolve() / Path(values["path"]).expanduser()
        except RuntimeError as error:
            raise table.error(f"{values['path']!r} is no path ({error}): check it", "path") from None
        yield StudyPredictions(
            values["label"], str(path), values["path"], dataset.name, keys, values.get("source", "a tool of its own")
        )


_SUCH_AS = {"label": '"CellFlow"', "path": '"cellflow/*.h5ad"'}


def _own_keys(table: Table) -> dict[str, Any]:
    return {key: table.values[key] for key in KEYS if key in table.values}


def _dataset(table: Table, datasets: Sequence["StudyDataset"]) -> "StudyDataset":
    """The data set that a table of predictions names, or the only one."""
    names = [dataset.name for dataset in datasets]
    name = table.values.get("dataset")
    if name is None and len(datasets) > 1:
        raise table.error(f"dataset is missing: say which of {', '.join(names)} these predictions are of")
    if name is not None and name not in names:
        raise table.error(f"the study has no data set {name!r}; {did_you_mean(name, names)}", "dataset")
    return datasets[0 if name is None else names.index(name)]


def find_trials(
    predictions: StudyPredictions,
    wanted: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    *,
    genes: pd.Index | None,
    counts: bool,
) -> tuple[dict[tuple[str, int], PredictedFiles], list[str]]:
    """Find out which trials the files hold.

    Parameters
    ----------
    predictions
        Whose.
    wanted
        The perturbations that were measured in each held-out context.
    seeds
        Those of the study.
    genes
        Those that are scored; none where they depend on what is held out.
    counts
        Whether raw counts are scored.

    Returns
    -------
    trials, missing
        The files of each trial (held-out context, seed) that they hold whole, and the others in words.

    Raises
    ------
    InputError
        There are no files, one cannot be read or scored or lacks a column, or two hold predictions of the same.
    """
    trials, missing = {}, list[str]()
    holds: dict[Path, tuple[str, set[tuple[str, str]]]] = {}
    for seed in predictions.seeds(seeds):
        for held_out, perturbations in wanted.items():
            by_perturbation: dict[str, list[Path]] = {}
            for path in predictions.files(held_out, seed):
                if path not in holds:
                    holds[path] = (content_of(path), _checked(predictions, path, held_out, genes, counts))
                for context, condition in holds[path][1]:
                    if context == held_out:
                        by_perturbation.setdefault(condition, []).append(path)
            lacking = [name for name in perturbations if name not in by_perturbation]
            for name in perturbations:
                if len(files := by_perturbation.get(name, [])) > 1:
                    raise InputError(
                        f"{files[0]} and {files[1]} both hold predictions of {name!r} in {held_out!r}: leave one out, "
                        f"or tell seeds apart by {SEED} in the path"
                    )
            if lacking:
                lacks = f" (lacks {some(lacking)})" if len(lacking) < len(perturbations) else ""
                missing.append(f"{held_out}{lacks}" + (f", seed {seed}" if SEED in predictions.path else ""))
                continue
            paths = dict.fromkeys(path for name in perturbations for path in by_perturbation[name])
            trials[held_out, seed] = PredictedFiles(predictions, [(path, holds[path][0]) for path in paths])
    if not holds:
        raise InputError(f"no file of cells (h5ad, zarr) is at {predictions.path}: check the path")
    return trials, missing


def _checked(
    predictions: StudyPredictions, path: Path, held_out: str, genes: pd.Index | None, counts: bool
) -> set[tuple[str, str]]:
    """The contexts and conditions that a file holds cells of, once it has passed the checks of all scored cells."""
    try:
        cells = predictions.read(path)
        layer = predictions.keys.counts_layer if counts else None
        read_scored_cells(cells, "predicted", genes=genes, counts=counts, counts_layer=layer)
        return set(zip(*predictions.labels(cells, held_out), strict=True))
    except InputError as error:
        raise error if str(error).startswith(str(path)) else InputError(f"{path}: {error}") from None


def provenance(predictions: StudyPredictions) -> dict[str, Any]:
    """What a page says of where they are from."""
    keys = {key: value for key, value in asdict(predictions.keys).items() if key in KEYS and value is not None}
    return {"path": predictions.written, **keys}
