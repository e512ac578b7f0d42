"""What cells look like: kept beside the scores of a record, so that a report can draw whichever genes it chooses."""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from multipert.data import atomic_path
from multipert.evaluation.populations import Comparison, Population

CELLS_KEPT = 60
"""Cells of each condition whose expression is kept, at most."""

VALUES_KEPT = 1_000_000
"""Expression values that a record keeps, at most: with many genes and conditions fewer cells, but ten at least."""

PLACES_KEPT = 250
"""Control, true and predicted cells whose place in the principal components is kept, at most of each."""

ROLES = ("control", "true", "predicted")
"""Whose places :attr:`Profile.roles` counts."""


@dataclass(frozen=True, eq=False)
class Profile:
    """What the cells of one condition look like, gene by gene in the order of the data.

    Attributes
    ----------
    mean, variance, fraction
        (genes,) mean and variance of all cells, and the share of them that express a gene; float32.
    cells
        (cells, genes) log-normalised expression of some of them, evenly spaced; float16.
    places
        (points, 2) first two principal components of control, true and predicted cells together; empty where nothing
        was predicted.
    roles
        (points,) index into :data:`ROLES`.
    shares
        (2,) share of the variance of all those cells along each component.
    intervals
        (genes, 2) ends of the interval that the model gives for the mean of each gene; (0, 2) where it gives none.
    """

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    fraction: NDArray[np.float32]
    cells: NDArray[np.float16]
    places: NDArray[np.float32]
    roles: NDArray[np.int8]
    shares: NDArray[np.float32]
    intervals: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), dtype=np.float32))


def profile(
    population: Population,
    conditions: int,
    comparison: Comparison | None = None,
    intervals: NDArray[np.floating[Any]] | None = None,
) -> Profile:
    """Describe cells.

    Parameters
    ----------
    population
        The cells.
    conditions
        How many the record holds.
    comparison
        Where they are a prediction: what it was compared with.
    intervals
        (genes, 2) the model's own, of the mean of each gene, if it gives any.
    """
    n_cells, n_genes = population.n_cells, population.n_genes
    most = min(n_cells, CELLS_KEPT, max(10, VALUES_KEPT // (n_genes * conditions)))
    some = population.X[_evenly(n_cells, most)]
    places, roles, shares = _places(comparison) if comparison is not None else ([], [], [0, 0])
    return Profile(
        mean=population.mean.astype(np.float32),
        variance=population.variance.astype(np.float32),
        fraction=(np.asarray((population.X > 0).sum(axis=0)).ravel() / n_cells).astype(np.float32),
        cells=np.asarray(some.toarray() if issparse(some) else some, dtype=np.float16),
        places=np.asarray(places, dtype=np.float32).reshape(-1, 2),
        roles=np.asarray(roles, dtype=np.int8),
        shares=np.asarray(shares, dtype=np.float32),
        intervals=np.empty((0, 2), np.float32) if intervals is None else intervals.astype(np.float32),
    )


def _places(comparison: Comparison) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Where some cells lie in the first two components, whose they are, and the share of variance along each."""
    coordinates = list(comparison.components.values())
    planes = [np.pad(cells, ((0, 0), (0, 2)))[:, :2] for cells in coordinates]  # the second is 0 where there is one
    kept = [plane[_evenly(len(plane), PLACES_KEPT)] for plane in planes]
    populations = (comparison.control, comparison.truth, comparison.predicted)
    sizes = np.array([population.n_cells for population in populations])
    means = np.stack([population.mean for population in populations])
    within = sum((population.n_cells - 1) * population.variance.sum() for population in populations)
    total = within + (sizes[:, None] * (means - np.average(means, axis=0, weights=sizes)) ** 2).sum()
    along = (np.concatenate(planes) ** 2).sum(axis=0)
    return np.concatenate(kept), np.repeat(np.arange(3), [len(plane) for plane in kept]), along / max(total, 1e-12)


def _evenly(n: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of ``n`` numbers, evenly spaced."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


class StoredProfiles(Mapping[str, Profile]):
    """Profiles by condition, read from disk one by one when they are asked for.

    Parameters
    ----------
    path
        An npz file that :func:`write_profiles` wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _numbers(self) -> dict[str, int]:
        with np.load(self.path) as file:
            return {str(name): number for number, name in enumerate(file["conditions"])}

    def __getitem__(self, condition: str) -> Profile:
        number = self._numbers[condition]
        with np.load(self.path) as file:
            # Records that an earlier version wrote lack what came later.
            known = [one.name for one in fields(Profile) if f"{number}.{one.name}" in file]
            return Profile(**{name: file[f"{number}.{name}"] for name in known})

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def whole(self) -> bool:
        """Whether the file is there, and not cut off."""
        return zipfile.is_zipfile(self.path)


def write_profiles(path: Path, profiles: Mapping[str, Profile]) -> None:
    """Write profiles as one npz file, whole or not at all."""
    arrays: dict[str, Any] = {"conditions": np.array(list(profiles), dtype=np.str_)}
    for number, one in enumerate(profiles.values()):
        arrays |= {f"{number}.{entry.name}": getattr(one, entry.name) for entry in fields(Profile)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
