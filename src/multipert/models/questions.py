"""What is asked of a fitted model, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a model: control cells, and a perturbation.

    Attributes
    ----------
    X
        (cells, genes) control cells.
    groups
        (cells,) which cells are of one context.
    contexts
        The name of the context of each group; empty where they are not named.
    condition
        The perturbation, by its place among the conditions.
    pilot
        (cells, genes) perturbed cells of the same context, if there are any.
    level
        The probability with which intervals shall hold each gene's mean, if they are wanted.
    """

    X: csr_matrix
    groups: npt.NDArray[np.int64]
    contexts: tuple[str, ...]
    condition: int
    pilot: csr_matrix | None = None
    level: float | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of control cells under one perturbation.

    Attributes
    ----------
    cells
        (cells, genes) predicted profiles.
    intervals
        (groups, genes, 2) lower and upper end of each gene's mean in each group of cells, where they were asked for.
    notes
        What the user should know of it: sentences.
    """

    cells: npt.NDArray[np.float32]
    intervals: npt.NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
