"""What a network is trained on: examples, rows of the expression matrix, and the order in which they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from multipert.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """A batch of examples.

    Parameters
    ----------
    cells
        Expression profiles by role (``"x"``, ``"target"``...), each ``(cells, genes)``. On the CPU they are compressed
        sparse rows: ``to_dense()`` writes them out.
    labels
        Numbers by name (``"condition"``...), each ``(cells,)``.
    epoch
        The epoch it is drawn in, counted from 0.
    """

    cells: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    epoch: int = 0

    def __len__(self) -> int:
        return next(iter(self.cells.values())).shape[0]


@dataclass(frozen=True)
class Examples:
    """Training examples: for each, the cells that play a role in it and the numbers that go with it.

    Parameters
    ----------
    matrix
        Expression, (cells, genes), shared by all examples and never written out.
    cells
        By role, the row of ``matrix`` that plays it in each example, ``(examples,)``.
    labels
        By name, a number for each example, ``(examples,)``.
    """

    matrix: csr_matrix
    cells: Mapping[str, Rows]
    labels: Mapping[str, npt.NDArray[np.generic]]

    def __len__(self) -> int:
        return len(next(iter(self.cells.values())))

    def at(self, which: Rows | slice) -> Examples:
        """The examples at positions ``which``, in that order."""
        return Examples(
            self.matrix,
            {role: rows[which] for role, rows in self.cells.items()},
            {name: label[which] for name, label in self.labels.items()},
        )


class Sampler(ABC):
    """In which order a stage goes through its examples, epoch by epoch."""

    size: int

    @property
    @abstractmethod
    def matrix(self) -> csr_matrix:
        """Expression, (cells, genes), that the examples are rows of."""

    @abstractmethod
    def __len__(self) -> int:
        """Batches in an epoch."""

    @property
    def always_full(self) -> bool:
        """Whether every batch holds ``size`` examples."""
        return True

    @abstractmethod
    def order(self, epoch: int, seed: int) -> Examples:
        """The examples of an epoch in the order they are handed out: all batches but the last are full.

        It depends on ``seed`` and ``epoch`` alone, so that a resumed epoch goes on where it stopped.
        """


@dataclass(frozen=True)
class Shuffled(Sampler):
    """Examples in batches of ``size``, shuffled anew each epoch.

    Parameters
    ----------
    examples
        What is handed out.
    size
        Examples in a batch.
    drop_last
        Whether the examples that do not fill a last batch are left out of an epoch. A single one always is: there is no
        variance to normalise it by.

    Raises
    ------
    InputError
        If there are fewer examples than fill one batch.
    """

    examples: Examples
    size: int
    drop_last: bool = True

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise InputError(
                f"{len(self.examples)} training cells cannot fill a batch of {self.size}: "
                f"set batch_size to {len(self.examples)} or less, or bring more cells"
            )

    @property
    def matrix(self) -> csr_matrix:
        """Expression, (cells, genes), that the examples are rows of."""
        return self.examples.matrix

    def __len__(self) -> int:
        full, rest = divmod(len(self.examples), self.size)
        return full if self.drop_last or rest < 2 else full + 1

    @property
    def always_full(self) -> bool:
        """Whether every batch holds ``size`` examples."""
        return self.drop_last

    def order(self, epoch: int, seed: int) -> Examples:
        """The examples of an epoch in the order they are handed out."""
        shuffled = np.random.default_rng((seed, epoch)).permutation(len(self.examples))
        return self.examples.at(shuffled[: len(self) * self.size])


@dataclass(frozen=True)
class SideBySide(Sampler):
    """Sides that have no pairs: ``size`` examples of each in every batch, drawn independently.

    A side is gone through in shuffled order, and shuffled anew when it is used up; one that is smaller than a batch
    comes more than once in it.

    Parameters
    ----------
    sides
        Examples, their roles and labels named differently on each side.
    size
        Examples of each side in a batch.
    length
        Batches in an epoch.

    Raises
    ------
    InputError
        If a side has no examples.
    """

    sides: Sequence[Examples]
    size: int
    length: int

    def __post_init__(self) -> None:
        for side in self.sides:
            if len(side) == 0:
                raise InputError(
                    f"no {' or '.join(side.cells)} cells to train on: bring some outside the held-out context"
                )

    @property
    def matrix(self) -> csr_matrix:
        """Expression, (cells, genes), that the examples are rows of."""
        return self.sides[0].matrix

    def __len__(self) -> int:
        return self.length

    def order(self, epoch: int, seed: int) -> Examples:
        """The examples of an epoch in the order they are handed out."""
        rng = np.random.default_rng((seed, epoch))
        drawn = self.length * self.size
        parts = [
            side.at(np.concatenate([rng.permutation(len(side)) for _ in range(-(-drawn // len(side)))])[:drawn])
            for side in self.sides
        ]
        return Examples(
            parts[0].matrix,
            {role: rows for part in parts for role, rows in part.cells.items()},
            {name: label for part in parts for name, label in part.labels.items()},
        )
