"""A batch of expression profiles as it is on disk: mostly zeros, never written out."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from multipert.networks.compiled import Numbers, compiled
from multipert.networks.lanes import Lanes
from multipert.networks.masks import draw_kept


@dataclass(frozen=True)
class SparseBatch:
    """Sparse rows of shape ``(lanes, cells, genes)``.

    The lanes stand under one another in one compressed-sparse-row layout of ``lanes * cells`` rows, and the genes of
    lane ``l`` are the columns ``l * genes ... (l + 1) * genes - 1``: the product with stacked weights
    ``(lanes, genes, width)`` is then a single sparse product with the weights seen as ``(lanes * genes, width)``.

    Parameters
    ----------
    offsets
        Where each row starts, ``(lanes * cells + 1,)``, int32.
    columns
        Gene of each value, shifted by its lane, ``(values,)``, int32.
    values
        The non-zero values, ``(values,)``, float32.
    shape
        ``(lanes, cells, genes)``.
    """

    offsets: Tensor
    columns: Tensor
    values: Tensor
    shape: tuple[int, int, int]

    @property
    def host(self) -> tuple[Numbers, Numbers, Numbers]:
        """Offsets, columns and values as arrays, on the CPU."""
        return self.offsets.numpy(), self.columns.numpy(), self.values.numpy()

    @cached_property
    def dense(self) -> Tensor:
        """The batch written out, ``(lanes, cells, genes)``."""
        lanes, cells, genes = self.shape
        out = self.values.new_zeros(math.prod(self.shape))
        # Row r of lane l starts at r * genes, and the columns are shifted by l * genes already.
        start = torch.arange(0, len(out), genes, device=out.device).view(lanes, cells)
        if lanes > 1:
            start = start - start[:, :1] // cells
        rows = torch.repeat_interleave(start.flatten(), self.offsets.diff(), output_size=len(self.values))
        out[rows.add_(self.columns)] = self.values
        return out.view(self.shape)

    def dropout(self, rate: float, lanes: Lanes) -> "SparseBatch":
        """Input dropout: each value is dropped with probability ``rate``, the rest scaled by ``1 / (1 - rate)``.

        Zeros stay zeros under dropout, so drawing for the non-zeros alone is the same distribution.
        """
        bounds = pairwise(self.offsets[:: self.shape[1]].tolist())
        kept = [draw_kept((end - start,), rate, g) for (start, end), g in zip(bounds, lanes.generators, strict=True)]
        parts = _compress(*self.host, torch.cat(kept).numpy(), np.float32(1.0 / (1.0 - rate)))
        offsets, columns, values = map(torch.from_numpy, parts)
        return SparseBatch(offsets, columns, values, self.shape)

    def product(self, weight: Tensor) -> Tensor:
        """``batch @ weight`` for weights ``(lanes, genes, width)``, giving ``(lanes, cells, width)``."""
        result: Tensor = _SparseProduct.apply(weight, self)  # type: ignore[no-untyped-call]
        return result


class OneHots:
    """The one-hots of all codes, one under the other: an identity matrix, in every lane."""

    def product(self, weight: Tensor) -> Tensor:
        """``identity @ weight`` for weights ``(lanes, codes, width)``: the weights."""
        return weight


class _SparseProduct(torch.autograd.Function):
    """Sparse batch times dense weight; the gradient is the transposed batch times the incoming gradient.

    Both are sums of weighted rows of a table: torch's embedding bag, four times faster here than its sparse product.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, batch: SparseBatch) -> Tensor:
        ctx.batch = batch
        lanes, cells, _ = batch.shape
        table = weight.detach().flatten(0, 1)  # detached, or torch prepares for a gradient that is taken here
        return _weighted_sums(table, batch.columns, batch.offsets, batch.values).view(lanes, cells, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        lanes, _, genes = ctx.batch.shape
        return _weighted_sums(gradient.flatten(0, 1), *_transposed(ctx.batch)).view(lanes, genes, -1), None


def _weighted_sums(table: Tensor, which: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """For each stretch of ``which`` between two offsets, the sum of those rows of ``table``, each times its weight."""
    return functional.embedding_bag(
        which, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _transposed(batch: SparseBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The batch gene by gene: the row of each value, where each gene starts, the values."""
    lanes, _, genes = batch.shape
    rows, starts, values = _by_column(*batch.host, lanes * genes)
    return torch.from_numpy(rows), torch.from_numpy(starts), torch.from_numpy(values)


# Loops that no array library has.


@compiled
def _compress(
    offsets: Numbers, columns: Numbers, values: Numbers, kept: Numbers, scale: np.float32
) -> tuple[Numbers, Numbers, Numbers]:
    """Compressed sparse rows with only the values that are ``kept``, times ``scale``."""
    to = 0
    fewer, where, what = np.empty_like(offsets), np.empty_like(columns), np.empty_like(values)
    fewer[0] = 0
    for row in range(len(offsets) - 1):
        for n in range(offsets[row], offsets[row + 1]):
            # Written in any case, and written over if it was not kept: a branch that nobody can foresee costs more.
            where[to], what[to] = columns[n], values[n] * scale
            to += kept[n]
        fewer[row + 1] = to
    return fewer, where[:to], what[:to]


@compiled
def _by_column(offsets: Numbers, columns: Numbers, values: Numbers, width: int) -> tuple[Numbers, Numbers, Numbers]:
    """Compressed sparse columns: the row of each value, where each of ``width`` columns starts, the values."""
    starts = np.zeros(width + 1, offsets.dtype)
    for column in columns:
        starts[column + 1] += 1
    for column in range(width):
        starts[column + 1] += starts[column]
    rows, sorted_values = np.empty_like(columns), np.empty_like(values)
    for row in range(len(offsets) - 1):
        for n in range(offsets[row], offsets[row + 1]):
            to = starts[columns[n]]
            starts[columns[n]] += 1
            rows[to], sorted_values[to] = row, values[n]
    # Each start has moved to where the next one was.
    for column in range(width, 0, -1):
        starts[column] = starts[column - 1]
    starts[0] = 0
    return rows, starts, sorted_values
