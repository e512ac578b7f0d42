"""What a network is trained on: examples drawn from the expression matrix, handed out in batches."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from multipert.errors import InputError
from multipert.networks import Lanes, SparseBatch
from multipert.networks.masks import draw_kept

Rows = npt.NDArray[np.int64]

RESIDENT_SHARE = 0.3
"""Share of an accelerator's free memory that the expression matrix may take up to stay there."""

GATHERED_AT_ONCE = 512
"""Cells that are gathered ahead in training, over all lanes: a step's worth at least."""


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
        The epoch it is drawn in, counted from 0; where lanes are in different ones, that of each.
    """

    cells: Mapping[str, SparseBatch]
    labels: Mapping[str, Tensor]
    epoch: int | tuple[int, ...]

    def __len__(self) -> int:
        return next(iter(self.cells.values())).shape[1]

    def scheduled(self, schedule: Callable[[int], float]) -> Tensor:
        """What a schedule of a loss's weight says of the epoch: of each lane, or one number for all."""
        epochs = (self.epoch,) if isinstance(self.epoch, int) else self.epoch
        device = next(iter(self.cells.values())).values.device
        return torch.tensor([schedule(epoch) for epoch in epochs]).to(device, non_blocking=True)


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

    def at(self, which: Rows | slice) -> "Examples":
        """The examples at positions ``which``, in that order."""
        return Examples(
            self.matrix,
            {role: rows[which] for role, rows in self.cells.items()},
            {name: label[which] for name, label in self.labels.items()},
        )


class Handout(ABC):
    """How the examples of a stage are handed out, epoch by epoch."""

    size: int

    @abstractmethod
    def __len__(self) -> int:
        """Batches in an epoch."""

    @abstractmethod
    def order(self, number: int, seed: int) -> Examples:
        """The examples of epoch ``number`` in the order they are handed out: all batches but the last are full.

        It depends on ``seed`` and ``number`` alone, so that a resumed epoch goes on where it stopped.
        """

    @property
    def lockstep(self) -> Hashable:
        """What lanes must agree in to go in lockstep: the sizes of their batches, step by step."""
        return self.size

    def epoch(self, number: int, seed: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number`` from the one at ``start`` on, as one lane."""
        return in_order(self.order(number, seed).at(slice(start * self.size, None)), self.size, number)


@dataclass(frozen=True)
class Batches(Handout):
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

    def __len__(self) -> int:
        full, rest = divmod(len(self.examples), self.size)
        return full if self.drop_last or rest < 2 else full + 1

    @property
    def lockstep(self) -> Hashable:
        """The size of the batches and, where the last may be short, the number of examples."""
        return self.size if self.drop_last else (self.size, len(self.examples))

    def order(self, number: int, seed: int) -> Examples:
        """The examples of epoch ``number`` in the order they are handed out."""
        shuffled = np.random.default_rng((seed, number)).permutation(len(self.examples))
        return self.examples.at(shuffled[: len(self) * self.size])


@dataclass(frozen=True)
class SideBySide(Handout):
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

    def __len__(self) -> int:
        return self.length

    def order(self, number: int, seed: int) -> Examples:
        """The examples of epoch ``number`` in the order they are handed out."""
        rng = np.random.default_rng((seed, number))
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


# How examples become batches.


@dataclass(frozen=True)
class DeviceBatch(SparseBatch):
    """Sparse rows on an accelerator, multiplied written out: there dense products cost less than looking rows up.

    Parameters
    ----------
    ends
        Where the values of each lane end. The host knows, so that nothing has to ask the device and wait.
    """

    ends: tuple[int, ...]

    def product(self, weight: Tensor) -> Tensor:
        """``batch @ weight`` for weights ``(lanes, genes, width)``, giving ``(lanes, cells, width)``."""
        return torch.bmm(self.dense, weight)

    def dropout(self, rate: float, lanes: Lanes) -> "DeviceBatch":
        """Input dropout of the non-zeros, as in a sparse batch."""
        counts = [end - start for start, end in pairwise((0, *self.ends))]
        kept = [draw_kept((count,), rate, g) for g, count in zip(lanes.generators, counts, strict=True)]
        return replace(self, values=self.values * (torch.cat(kept) * (1.0 / (1.0 - rate))))


class Loader:
    """Gathers examples into batches on a device.

    On the CPU batches are gathered as they are. On an accelerator the expression matrix stays there when it fits, and
    batches are gathered there; otherwise they are gathered in pinned memory and copied while the device computes.

    Parameters
    ----------
    device
        Where the batches are wanted.
    resident
        Whether the matrix is to be held there; by default, whether the device is a GPU in whose memory it fits.
    """

    def __init__(self, device: torch.device, *, resident: bool | None = None) -> None:
        self.device, self.resident = device, resident
        self._held: dict[int, _Resident] = {}

    def batches(self, steps: Sequence[Sequence[Examples]], epochs: Sequence[int | tuple[int, ...]]) -> list[Batch]:
        """A batch for each step, of the examples of each lane; as many in every lane.

        Rows are gathered for all steps at once: finding the way there costs more than the rows.
        """
        first = steps[0][0]
        gathered = {
            role: self._gather(first.matrix, [[lane.cells[role] for lane in lanes] for lanes in steps])
            for role in first.cells
        }
        return [
            Batch(
                {role: batches[number] for role, batches in gathered.items()},
                {name: send(np.stack([lane.labels[name] for lane in lanes]), self.device) for name in first.labels},
                epoch,
            )
            for number, (lanes, epoch) in enumerate(zip(steps, epochs, strict=True))
        ]

    def _gather(self, matrix: csr_matrix, steps: Sequence[Sequence[Rows]]) -> list[SparseBatch]:
        shapes = [(len(lanes), len(lanes[0]), matrix.shape[1]) for lanes in steps]
        together = [np.concatenate(lanes) for lanes in steps]
        if self._holds(matrix):
            return [self._held[id(matrix)].gather(rows, shape) for rows, shape in zip(together, shapes, strict=True)]
        picked = matrix[np.concatenate(together)]
        bounds = np.cumsum([0, *map(len, together)])
        return [
            self._batch(picked.indptr[first : last + 1], picked.indices, picked.data, shape)
            for (first, last), shape in zip(pairwise(bounds), shapes, strict=True)
        ]

    def _batch(
        self,
        offsets: npt.NDArray[np.integer],
        columns: npt.NDArray[np.integer],
        values: npt.NDArray[np.float32],
        shape: tuple[int, int, int],
    ) -> SparseBatch:
        """The rows between ``offsets``, lane after lane, as a batch on the device."""
        here = slice(offsets[0], offsets[-1])
        offsets = (offsets - offsets[0]).astype(np.int32, copy=False)
        columns, values = columns[here].astype(np.int32, copy=False), values[here]
        ends = tuple(offsets[shape[1] :: shape[1]].tolist())
        for lane, (start, end) in enumerate(pairwise(ends), start=1):
            columns[start:end] += lane * shape[2]
        parts = [send(part, self.device) for part in (offsets, columns, values)]
        if self.device.type == "cpu":
            return SparseBatch(parts[0], parts[1], parts[2], shape)
        return DeviceBatch(parts[0], parts[1], parts[2], shape, ends)

    def _holds(self, matrix: csr_matrix) -> bool:
        """Whether the matrix is on the device; take it there if it should be."""
        if id(matrix) in self._held:
            return True
        wanted = self.resident
        if wanted is None:
            wanted = self.device.type == "cuda" and (
                matrix.indices.nbytes + matrix.data.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(self.device)[0]
            )
        if wanted:
            self._held[id(matrix)] = _Resident(matrix, self.device)
        return wanted


class _Resident:
    """The expression matrix in a device's memory; where its rows start, the host knows, so that nothing waits."""

    def __init__(self, matrix: csr_matrix, device: torch.device) -> None:
        self.matrix, self.device = matrix, device
        self.columns = torch.from_numpy(matrix.indices).to(device)
        self.values = torch.from_numpy(matrix.data).to(device)

    def gather(self, rows: Rows, shape: tuple[int, int, int]) -> DeviceBatch:
        """Rows (lanes * cells,) of the matrix, lane after lane."""
        lanes, cells, genes = shape
        starts, stops = self.matrix.indptr[rows], self.matrix.indptr[rows + 1]
        host = np.concatenate([[0], np.cumsum(stops - starts)])
        ends = tuple(host[cells::cells].tolist())
        offsets = send(host, self.device)
        lengths = offsets.diff()

        def along_rows(numbers: Tensor) -> Tensor:
            return torch.repeat_interleave(numbers, lengths, output_size=ends[-1])

        places = along_rows(send(starts - host[:-1], self.device))
        places += torch.arange(ends[-1], device=self.device)
        columns = self.columns[places].to(torch.int32)
        if lanes > 1:
            shift = torch.arange(lanes, dtype=torch.int32, device=self.device).mul_(genes)
            columns += along_rows(shift.unsqueeze(1).expand(lanes, cells).flatten())
        return DeviceBatch(offsets.to(torch.int32), columns, self.values[places], shape, ends)


def send(numbers: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Numbers on a device; a GPU copies them from pinned memory while it computes."""
    tensor = torch.from_numpy(numbers)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Feed:
    """What the lanes of a stage are fed, step by step; each goes through its own epochs.

    Parameters
    ----------
    lanes
        What each lane trains on.
    seeds
        Of the order in which each gets it.
    loader
        Gathers the batches.
    """

    def __init__(self, lanes: Sequence[Handout], seeds: Sequence[int], loader: Loader) -> None:
        self.lanes, self.seeds, self.loader = lanes, seeds, loader
        self._at_once = max(1, GATHERED_AT_ONCE // sum(batches.size for batches in lanes))
        self._orders: list[dict[int, Examples]] = [{} for _ in lanes]
        self._ready: dict[int, Batch] = {}

    def at(self, step: int) -> Batch:
        """The batch of ``step``, counted from 0 over all epochs."""
        if step not in self._ready:
            steps = range(step, step + self._at_once)
            parts, epochs = zip(*map(self._parts, steps), strict=True)
            self._ready = dict(zip(steps, self.loader.batches(parts, epochs), strict=True))
        return self._ready.pop(step)

    def _parts(self, step: int) -> tuple[list[Examples], tuple[int, ...]]:
        """What each lane is fed at a step, and in which of its epochs it is."""
        epochs, parts = [], []
        for lane, batches in enumerate(self.lanes):
            epoch, within = divmod(step, len(batches))
            if epoch not in self._orders[lane]:
                self._orders[lane] = {epoch: batches.order(epoch, self.seeds[lane])}
            parts.append(self._orders[lane][epoch].at(slice(within * batches.size, (within + 1) * batches.size)))
            epochs.append(epoch)
        return parts, tuple(epochs)


def sparse_batch(rows: csr_matrix) -> SparseBatch:
    """Rows of the expression matrix as a batch of one lane."""
    return SparseBatch(
        torch.from_numpy(rows.indptr.astype(np.int32, copy=False)),
        torch.from_numpy(rows.indices.astype(np.int32, copy=False)),
        torch.from_numpy(rows.data),
        (1, rows.shape[0], rows.shape[1]),
    )


def in_order(examples: Examples, size: int, epoch: int = 0, loader: Loader | None = None) -> Iterator[Batch]:
    """All examples in their order, the short last batch kept: how validation and prediction read."""
    loader = loader or Loader(torch.device("cpu"))
    for start in range(0, len(examples), size):
        yield from loader.batches([[examples.at(slice(start, start + size))]], [epoch])
