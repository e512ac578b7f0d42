"""From examples to batches on a device."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from multipert.data.on_disk import Expression
from multipert.training.acceleration import compressed_rows, switched_on
from multipert.training.examples import FETCHED, Batch, Examples, Rows, Sampler

RESIDENT_SHARE = 0.3
"""Share of an accelerator's free memory that the expression matrix may take up to stay there."""

GATHERED_AT_ONCE = 512
"""Cells that are gathered ahead: finding the way to rows of a sparse matrix costs more than the rows."""


class DataLoader:
    """Makes batches of examples on a device.

    On the CPU profiles stay compressed sparse rows. On an accelerator, where dense products cost less than looking rows
    up, they are written out there; the expression matrix stays there when it fits, or else its rows are gathered in
    pinned memory and copied while the device computes.

    Parameters
    ----------
    device
        Where the batches are wanted.
    resident
        Whether the matrix is to be held there; by default, whether the device is a GPU in whose memory it fits.
    """

    def __init__(self, device: torch.device, *, resident: bool | None = None) -> None:
        self.device, self.resident = device, resident
        self._held: dict[int, tuple[csr_matrix, Tensor, Tensor]] = {}

    def endless(self, sampler: Sampler, seed: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch after epoch, from the one at step ``start`` on, counted over all epochs."""
        epoch, done = divmod(start, len(sampler))
        while True:
            left = sampler.order(epoch, seed).at(slice(done * sampler.size, None))
            yield from self.in_order(left, sampler.size, epoch)
            epoch, done = epoch + 1, 0

    def in_order(self, examples: Examples, size: int, epoch: int = 0) -> Iterator[Batch]:
        """All examples in their order, in batches of ``size``; the last may be short."""
        at_once = size * max(1, (FETCHED if examples.is_on_disk else GATHERED_AT_ONCE) // size)
        for start in range(0, len(examples), at_once):
            some = examples.at(slice(start, start + at_once))
            bounds = [*range(0, len(some), size), len(some)]
            cells = {role: self._profiles(some.matrix, rows, bounds) for role, rows in some.cells.items()}
            for number, (first, last) in enumerate(pairwise(bounds)):
                labels = {name: self._send(label[first:last]) for name, label in some.labels.items()}
                yield Batch({role: batches[number] for role, batches in cells.items()}, labels, epoch)

    def _profiles(self, matrix: Expression, rows: Rows, bounds: Sequence[int]) -> list[Tensor]:
        """Rows of the matrix, those between every two ``bounds`` as one batch ``(cells, genes)``."""
        spans = list(pairwise(bounds))
        if isinstance(matrix, csr_matrix) and self._holds(matrix):
            return [self._gather(matrix, rows[first:last]) for first, last in spans]
        picked = matrix[rows]
        if self.device.type == "cpu" and not switched_on("sparse-input"):
            return [torch.from_numpy(picked[first:last].toarray()) for first, last in spans]
        batches = []
        for first, last in spans:
            offsets = picked.indptr[first : last + 1]
            here = slice(offsets[0], offsets[-1])
            starts, columns = (a.astype(np.int32, copy=False) for a in (offsets - offsets[0], picked.indices[here]))
            parts = [self._send(part) for part in (starts, columns, picked.data[here])]
            profiles = compressed_rows(parts[0], parts[1], parts[2], (last - first, matrix.shape[1]))
            batches.append(profiles if self.device.type == "cpu" else profiles.to_dense())
        return batches

    def _holds(self, matrix: csr_matrix) -> bool:
        """Whether the matrix is on the device; take it there if it should be."""
        wanted = self.resident
        if wanted is None and self.device.type == "cuda" and id(matrix) not in self._held:
            free, _ = torch.cuda.mem_get_info(self.device)
            wanted = matrix.indices.nbytes + matrix.data.nbytes < RESIDENT_SHARE * free
        if wanted and id(matrix) not in self._held:
            columns, values = (torch.from_numpy(part).to(self.device) for part in (matrix.indices, matrix.data))
            self._held[id(matrix)] = matrix, columns, values  # the matrix too, or another might get its id
        return id(matrix) in self._held

    def _gather(self, matrix: csr_matrix, rows: Rows) -> Tensor:
        """Rows of a matrix that is on the device, written out; where they start the host knows, so nothing waits."""
        _, columns, values = self._held[id(matrix)]
        cells, genes = len(rows), matrix.shape[1]
        starts, lengths = matrix.indptr[rows], matrix.indptr[rows + 1] - matrix.indptr[rows]
        total = int(lengths.sum())
        before = np.cumsum(lengths) - lengths
        shift, to, each = (self._send(a) for a in (starts - before, np.arange(cells) * genes, lengths))
        places = torch.repeat_interleave(shift, each, output_size=total) + torch.arange(total, device=self.device)
        out = values.new_zeros(cells * genes)
        out[torch.repeat_interleave(to, each, output_size=total) + columns[places]] = values[places]
        return out.view(cells, genes)

    def _send(self, numbers: npt.NDArray[np.generic]) -> Tensor:
        """Numbers on the device; a GPU copies them from pinned memory while it computes."""
        tensor = torch.from_numpy(numbers)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)
