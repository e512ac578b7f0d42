"""What a benchmark directory holds: one JSON file for each piece of work, named by all that determines it.

``trials/`` holds the outcome of each trial, ``references/`` what the held-out context itself says (floor, ceiling,
cells to draw), ``overviews/`` what a data set looks like. ``plan.json`` says which of them make up the study.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Scores: TypeAlias = Mapping[str, Mapping[str, float]]
"""By perturbation, then by metric."""

Expression: TypeAlias = Mapping[str, Mapping[str, Sequence[float]]]
"""By condition, then by gene: log-normalised values of at most ``CELLS_KEPT`` cells, for violins."""

Means: TypeAlias = Mapping[str, Mapping[str, float]]
"""By condition, then by gene: the mean over all cells."""

CELLS_KEPT = 60
"""Cells of each condition whose expression is kept to be drawn."""


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
    title, family, source
        As the registry has them.
    """

    label: str
    name: str
    preset: str
    changes: Mapping[str, Any]
    parameters: Mapping[str, Any]
    title: str
    family: str
    source: str


@dataclass(frozen=True)
class Overview:
    """What a data set looks like.

    Attributes
    ----------
    dataset
        Its name.
    counts
        Cells by context, then by condition.
    genes
        By perturbation, the genes that respond most over all contexts: those that are drawn. All doses of one
        perturbation share theirs, so that a gene can be followed across doses.
    umap
        Columns ``x``, ``y``, ``context``, ``condition`` of at most 2,000 cells.
    """

    dataset: str
    counts: Mapping[str, Mapping[str, int]]
    genes: Mapping[str, Sequence[str]]
    umap: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Reference:
    """What a held-out context itself says.

    Attributes
    ----------
    dataset, held_out
        Which.
    floor, ceiling
        Bounds of every metric.
    expression, means
        Control (by its name) and true cells (by perturbation), of the genes that are drawn.
    n_cells
        Cells by condition, control among them.
    """

    dataset: str
    held_out: str
    floor: Scores
    ceiling: Scores
    expression: Expression
    means: Means
    n_cells: Mapping[str, int]


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
    expression, means
        Predicted cells, of the genes that are drawn.
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
    expression: Expression = field(default_factory=dict)
    means: Means = field(default_factory=dict)


Record: TypeAlias = Overview | Reference | TrialResult


def digest(identity: Mapping[str, Any]) -> str:
    """Name a piece of work by all that determines it: twenty hexadecimal digits."""
    text = json.dumps(identity, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def to_json(record: Any) -> str:
    """A dataclass of this module as text; NaN and infinity as Python's json writes them."""
    return json.dumps(dataclasses.asdict(record), default=_plain, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's own."""
    return value.item() if hasattr(value, "item") else list(value)
