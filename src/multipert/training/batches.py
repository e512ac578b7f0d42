"""What a network is trained on: examples drawn from the expression matrix, handed out in batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from multipert.errors import InputError
from multipert.networks import SparseBatch

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """A batch of examples.

    Parameters
    ----------
    cells
        Expression profiles by role (``"x"``, ``"target"``...), each ``(lanes, cells, genes)``.
    labels
        Numbers by name (``"condition"``...), each ``(lanes, cells)``.
    epoch
        The epoch it is drawn in, counted from 0: what schedules of loss weights go by.
    """

    cells: Mapping[str, SparseBatch]
    labels: Mapping[str, Tensor]
    epoch: int

    def __len__(self) -> int:
        return next(iter(self.cells.values())).shape[1]

    def to(self, device: torch.device) -> "Batch":
        """The batch on ``device``."""
        return Batch(
            {role: cells.to(device) for role, cells in self.cells.items()},
            {name: label.to(device, non_blocking=True) for name, label in self.labels.items()},
            self.epoch,
        )


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

    def batch(self, which: Rows, epoch: int) -> Batch:
        """The examples at positions ``which`` as one batch of one lane."""
        return Batch(
            {role: sparse_batch(self.matrix[rows[which]]) for role, rows in self.cells.items()},
            {name: torch.from_numpy(label[which]).unsqueeze(0) for name, label in self.labels.items()},
            epoch,
        )


def sparse_batch(rows: csr_matrix) -> SparseBatch:
    """Rows of the expression matrix as a batch of one lane."""
    return SparseBatch(
        torch.from_numpy(rows.indptr.astype(np.int32, copy=False)),
        torch.from_numpy(rows.indices.astype(np.int32, copy=False)),
        torch.from_numpy(rows.data),
        (1, rows.shape[0], rows.shape[1]),
    )


@dataclass(frozen=True)
class Batches:
    """How examples are handed out: in batches of ``size``, shuffled anew each epoch, the short last one dropped.

    Raises
    ------
    InputError
        If there are fewer examples than fill one batch.
    """

    examples: Examples
    size: int

    def __post_init__(self) -> None:
        if len(self.examples) < self.size:
            raise InputError(
                f"{len(self.examples)} training cells cannot fill a batch of {self.size}: "
                f"set batch_size to {len(self.examples)} or less, or bring more cells"
            )

    def __len__(self) -> int:
        return len(self.examples) // self.size

    def epoch(self, number: int, seed: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number`` from the one at ``start`` on.

        The order depends on ``seed`` and ``number`` alone, so that a resumed epoch goes on where it stopped.
        """
        order = np.random.default_rng((seed, number)).permutation(len(self.examples))
        for step in range(start, len(self)):
            yield self.examples.batch(order[step * self.size : (step + 1) * self.size], number)


@dataclass(frozen=True)
class SideBySide:
    """How sides that have no pairs are handed out: ``size`` examples of each in every batch, drawn independently.

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

    def __len__(self) -> int:
        return self.length

    def epoch(self, number: int, seed: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number`` from the one at ``start`` on.

        The order depends on ``seed`` and ``number`` alone, so that a resumed epoch goes on where it stopped.
        """
        rng = np.random.default_rng((seed, number))
        drawn = self.length * self.size
        orders = [
            np.concatenate([rng.permutation(len(side)) for _ in range(-(-drawn // len(side)))]) for side in self.sides
        ]
        for step in range(start, self.length):
            here = slice(step * self.size, (step + 1) * self.size)
            parts = [side.batch(order[here], number) for side, order in zip(self.sides, orders, strict=True)]
            yield Batch(
                {role: cells for part in parts for role, cells in part.cells.items()},
                {name: label for part in parts for name, label in part.labels.items()},
                number,
            )


def in_order(examples: Examples, size: int, epoch: int = 0) -> Iterator[Batch]:
    """All examples in their order, the short last batch kept: how validation and prediction read."""
    for start in range(0, len(examples), size):
        yield examples.batch(np.arange(start, min(start + size, len(examples))), epoch)
