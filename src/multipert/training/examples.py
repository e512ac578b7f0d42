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
    from torch import Tensor

    from multipert.data.on_disk import Expression

BLOCK, FETCHED = 128, 16_384
"""Cells that lie together on disk and are drawn together, and cells that are read from there and mixed at a time."""

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
        Expression, (cells, genes), in memory or on disk, shared by all examples and never written out.
    cells
        By role, the row of ``matrix`` that plays it in each example, ``(examples,)``.
    labels
        By name, a number for each example, ``(examples,)``.
    """

    matrix: Expression
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

    @property
    def is_on_disk(self) -> bool:
        """Whether their expression is."""
        from scipy.sparse import issparse

        return not issparse(self.matrix)

    @property
    def in_file_order(self) -> Examples:
        """The examples as they are; those on disk by the row of their first role, as they are fastest read."""
        return self.at(np.argsort(next(iter(self.cells.values())), kind="stable")) if self.is_on_disk else self

    def shuffled(self, rng: np.random.Generator) -> Rows:
        """(examples,) their positions, shuffled.

        In memory every order is as likely. On disk rows that lie together are read together: the examples, in file
        order, are cut into blocks of 128, the blocks are shuffled, and so are the examples within every 128 blocks,
        which are read at once (block sampling with batched fetching, as scDataset has it, D'Ascenzo and Cultrera di
        Montesano 2025).
        """
        if not self.is_on_disk:
            return rng.permutation(len(self))
        in_order = np.argsort(next(iter(self.cells.values())), kind="stable")
        blocks = np.arange(0, len(self), BLOCK)
        rng.shuffle(blocks)
        drawn = (blocks[:, None] + np.arange(BLOCK)).ravel()
        order = in_order[drawn[drawn < len(self)]]
        return np.concatenate([rng.permutation(order[i : i + FETCHED]) for i in range(0, len(order), FETCHED)])


class Sampler(ABC):
    """In which order a stage goes through its examples, epoch by epoch."""

    size: int

    @property
    @abstractmethod
    def matrix(self) -> Expression:
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
    def matrix(self) -> Expression:
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
        shuffled = self.examples.shuffled(np.random.default_rng((seed, epoch)))
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
    def matrix(self) -> Expression:
        """Expression, (cells, genes), that the examples are rows of."""
        return self.sides[0].matrix

    def __len__(self) -> int:
        return self.length

    def order(self, epoch: int, seed: int) -> Examples:
        """The examples of an epoch in the order they are handed out."""
        rng = np.random.default_rng((seed, epoch))
        drawn = self.length * self.size
        parts = [
            side.at(np.concatenate([side.shuffled(rng) for _ in range(-(-drawn // len(side)))])[:drawn])
            for side in self.sides
        ]
        return Examples(
            parts[0].matrix,
            {role: rows for part in parts for role, rows in part.cells.items()},
            {name: label for part in parts for name, label in part.labels.items()},
        )
