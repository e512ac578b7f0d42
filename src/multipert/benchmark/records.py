"""What a benchmark directory holds: one record for each piece of work, named by all that determines it.

``trials/`` holds the outcome of each trial, ``references/`` what the held-out context itself says (bounds of every
score), ``overviews/`` what a data set looks like: each a JSON file, and beside those of trials and references an npz
file of what the cells look like. ``plan.json`` says which of them make up the study.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from multipert.benchmark.profiles import Profile, StoredProfiles, write_profiles
from multipert.data import PerturbationData, write_text
from multipert.models import Model, create

Scores: TypeAlias = Mapping[str, Mapping[str, float]]
"""By perturbation, then by metric."""

R = TypeVar("R", bound="Overview | Reference | TrialResult")


@dataclass(frozen=True)
class DatasetCard:
    """A data set as the study uses it.

    Attributes
    ----------
    name
        What the study calls it.
    source
        Where the cells come from, in a phrase.
    published
        Which published table stands beside it (``"kang"``, ``"nault"``, ``"hagai"``); none for others.
    n_cells, n_genes
        Its size after preprocessing.
    conditions
        Control first.
    doses
        The dose of each condition; empty where there are none.
    contexts
        All of them, sorted.
    held_out
        The contexts held out in turn.
    perturbations
        The perturbations that are scored.
    keys
        Which columns it was read from.
    fingerprint
        Of its content.
    unseen
        For what is held out: what of it training never saw, a context where it is not here.
    """

    name: str
    source: str
    published: str | None
    n_cells: int
    n_genes: int
    conditions: Sequence[str]
    doses: Mapping[str, float]
    contexts: Sequence[str]
    held_out: Sequence[str]
    perturbations: Sequence[str]
    keys: Mapping[str, str | None]
    fingerprint: str
    unseen: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        data: PerturbationData,
        *,
        name: str,
        source: str,
        published: str | None,
        held_out: Sequence[str],
        perturbations: Sequence[str],
        unseen: Mapping[str, str] | None = None,
    ) -> "DatasetCard":
        """The card of ``data``."""
        return cls(
            name=name,
            source=source,
            published=published,
            n_cells=len(data),
            n_genes=len(data.genes),
            conditions=data.conditions,
            doses=data.doses,
            contexts=data.contexts,
            held_out=held_out,
            perturbations=perturbations,
            keys=asdict(data.keys),
            fingerprint=data.fingerprint,
            unseen=unseen or {},
        )


@dataclass(frozen=True)
class ModelCard:
    """A model as the study uses it.

    Attributes
    ----------
    label
        What tables call it; unique in the study.
    name
        The model's name in the registry.
    preset
        Where its values come from.
    changes
        Values that differ from the preset's.
    parameters
        All values.
    meanings
        What each parameter is.
    title, family, source
        As the registry has them.
    seeds
        How many seeds it has a trial of; all of the study unless said otherwise.
    """

    label: str
    name: str
    preset: str
    changes: Mapping[str, Any]
    parameters: Mapping[str, Any]
    meanings: Mapping[str, str]
    title: str
    family: str
    source: str
    seeds: int | None = None

    @classmethod
    def of(cls, model: Model, label: str) -> "ModelCard":
        """The card of a model, fitted or not."""
        parameters = asdict(model.parameters)
        preset = asdict(create(model.name, preset=model.preset).parameters)
        return cls(
            label=label,
            name=model.name,
            preset=model.preset,
            changes={name: value for name, value in parameters.items() if value != preset[name]},
            parameters=parameters,
            meanings={one.name: one.metadata.get("meaning", "") for one in fields(model.parameters)},
            title=model.title,
            family=model.family,
            source=model.source,
        )


@dataclass(frozen=True)
class Overview:
    """What a data set looks like.

    Attributes
    ----------
    dataset
        Its name.
    counts
        Cells by context, then by condition.
    umap
        Columns ``x``, ``y``, ``context``, ``condition`` of at most 2,000 cells.
    """

    dataset: str
    counts: Mapping[str, Mapping[str, int]]
    umap: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Reference:
    """What a held-out context itself says.

    Attributes
    ----------
    dataset, held_out
        Which.
    bounds
        By name (``floor``, ``mean_response``, ``ceiling``): the score of every perturbation and metric.
    calibration
        Whether metrics can tell: ``drf``, the dynamic range of every perturbation and metric, and ``wins``, whether a
        replicate beats a guess (1) or not (0).
    n_cells
        Cells by condition, control among them.
    genes
        Names (symbols where there are), in the order of the profiles of this context, true and predicted.
    profiles
        What the cells of each condition look like, control first.
    """

    dataset: str
    held_out: str
    bounds: Mapping[str, Scores]
    calibration: Mapping[str, Scores]
    n_cells: Mapping[str, int]
    genes: Sequence[str]
    profiles: Mapping[str, Profile] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class TrialResult:
    """How one trial went.

    Attributes
    ----------
    dataset, label, model, preset, held_out, seed
        Which.
    status
        ``"done"``, or ``"failed"``: then only ``error`` and ``traceback`` say something.
    error, traceback
        One line, and where it arose.
    scores
        Of every perturbation of the held-out context.
    notes
        By metric, what must be said beside its scores.
    seconds_fit, seconds_predict
        Wall time; predicting all perturbations.
    peak_memory_mb
        Highest resident memory of the process while it ran, imports and data set included.
    n_parameters, steps
        Of the model and its training.
    threads
        Of the arithmetic.
    history
        The training curve thinned to at most 100 rows: columns by name.
    pilots
        Of a model that learns from pilots, by the number of cells of a pilot (``"0"``, ``"5"``, ...): scores with the
        true cells that are in none.
    film
        Of a model that has FiLM: where each condition lies in the plane that keeps best how far apart they steer the
        decoder; control at the origin.
    profiles
        What the predicted cells of each perturbation look like.
    """

    dataset: str
    label: str
    model: str
    preset: str
    held_out: str
    seed: int
    status: Literal["done", "failed"] = "done"
    error: str = ""
    traceback: str = ""
    scores: Scores = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    seconds_fit: float = 0.0
    seconds_predict: float = 0.0
    peak_memory_mb: float = 0.0
    n_parameters: int = 0
    steps: int = 0
    threads: int = 1
    history: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    pilots: Mapping[str, Scores] = field(default_factory=dict)
    film: Mapping[str, Sequence[float]] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict, compare=False, repr=False)


Record: TypeAlias = Overview | Reference | TrialResult


def digest(identity: Mapping[str, Any]) -> str:
    """Name a piece of work by all that determines it: twenty hexadecimal digits."""
    text = json.dumps(identity, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def write_record(path: Path, record: Record) -> None:
    """Write a record, whole or not at all: its JSON file, which comes last, says that it is there."""
    if profiles := getattr(record, "profiles", None):
        write_profiles(path.with_suffix(".npz"), profiles)
    content = {one.name: getattr(record, one.name) for one in fields(record) if one.name != "profiles"}
    write_text(path, json.dumps(content, default=_plain, separators=(",", ":")))


def read_record(path: Path, kind: type[R]) -> R | None:
    """Read a record; none where there is none, or it is no whole one."""
    try:
        content = json.loads(path.read_text("utf-8"))
        # What a record of an earlier version says nothing of has its default, or the record is no whole one.
        named = [one.name for one in fields(kind) if one.name != "profiles" and one.name in content]
        found: dict[str, Any] = {name: content[name] for name in named}
        if kind is not Overview and content.get("status") != "failed":
            found["profiles"] = StoredProfiles(path.with_suffix(".npz"))
            if not found["profiles"].whole:
                return None
        return kind(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's own."""
    return value.item() if hasattr(value, "item") else list(value)
