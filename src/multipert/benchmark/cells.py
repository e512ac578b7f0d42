"""The cells a study works on: read, simulated or preprocessed once a process, however many trials ask for them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from anndata import AnnData

from multipert.benchmark.study import StudyDataset
from multipert.data import HeldOut, PerturbationData, content_of, preprocess, read_cells, simulate, training_mask
from multipert.data.on_disk import is_backed, take_rows

KEPT = 2
"""Prepared data sets that a process keeps: trials come sorted, so more would only take memory."""

_prepared: dict[tuple[str, HeldOut | None], PerturbationData] = {}


def fingerprint(dataset: StudyDataset) -> str:
    """Stand for all that determines a data set's cells: the file's bytes or the simulator's arguments.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    if dataset.path is None:
        return f"simulated {dataset.simulated!r}"
    return content_of(dataset.path)


def prepare(dataset: StudyDataset, content: str, held_out: HeldOut | None) -> PerturbationData:
    """Give a data set's cells, ready for a trial.

    Parameters
    ----------
    dataset
        Which.
    content
        Its :func:`fingerprint`.
    held_out
        What takes no part in the choice of variable genes; none to choose on all cells.
        Plays no part where the expression is log-normalised already, or the study says ``choose_on = "all"``.

    Raises
    ------
    InputError
        The file, the keys or the values are wrong.
    """
    chosen_on = held_out if dataset.preprocessing and dataset.preprocessing["choose_on"] == "training" else None
    place = (f"{content} {asdict(dataset.keys)} {dataset.preprocessing} {dataset.withheld}", chosen_on)
    if place not in _prepared:
        while len(_prepared) >= KEPT:
            del _prepared[next(iter(_prepared))]
        _prepared[place] = PerturbationData.read(_cells(dataset, chosen_on), dataset.keys, on_disk=dataset.on_disk)
    return _prepared[place]


def _cells(dataset: StudyDataset, chosen_on: HeldOut | None) -> AnnData:
    if dataset.simulated is not None:
        cells = simulate(**dataset.simulated)
    else:
        assert dataset.path is not None
        cells = read_cells(dataset.path, on_disk=dataset.on_disk if dataset.preprocessing is None else False)
    if dataset.withheld:
        cells = _put_away(cells, dataset)
    if dataset.preprocessing is None:
        return cells
    values: Mapping[str, Any] = {name: value for name, value in dataset.preprocessing.items() if name != "choose_on"}
    mask = None if chosen_on is None else training_mask(cells, dataset.keys, chosen_on)
    return preprocess(cells, **values, choose_on=mask)


def _put_away(cells: AnnData, dataset: StudyDataset) -> AnnData:
    """The cells, in memory, without those that are withheld, which are not even checked."""
    rules = (HeldOut("context", context=context) for context in dataset.withheld)
    kept = np.logical_and.reduce([training_mask(cells, dataset.keys, rule) for rule in rules])
    return take_rows(cells, np.flatnonzero(kept)) if is_backed(cells) else cells[kept].copy()
