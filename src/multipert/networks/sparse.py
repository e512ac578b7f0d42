"""A batch of expression profiles as it is on disk: mostly zeros, never written out."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

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

    @cached_property
    def positions(self) -> Tensor:
        """Where each value stands in the batch written out and flattened, ``(values,)``, int64."""
        lanes, cells, genes = self.shape
        # Row r of lane l starts at r * genes, and the columns are shifted by l * genes already.
        start = torch.arange(0, lanes * cells * genes, genes, device=self.values.device).view(lanes, cells)
        if lanes > 1:
            start = start - start[:, :1] // cells
        lengths = self.offsets.diff()
        return torch.repeat_interleave(start.flatten(), lengths, output_size=len(self.values)).add_(self.columns)

    @cached_property
    def dense(self) -> Tensor:
        """The batch written out, ``(lanes, cells, genes)``."""
        out = self.values.new_zeros(math.prod(self.shape))
        out[self.positions] = self.values
        return out.view(self.shape)

    def dropout(self, rate: float, lanes: Lanes) -> "SparseBatch":
        """Input dropout: each value is zeroed with probability ``rate``, the rest scaled by ``1 / (1 - rate)``.

        Zeros stay zeros under dropout, so drawing for the non-zeros alone is the same distribution.
        """
        cells = self.shape[1]
        # Where each lane's values end: one lane needs no look at the offsets, which on a GPU would wait for it.
        ends = self.offsets[cells::cells].tolist() if len(lanes) > 1 else [len(self.values)]
        counts = (end - start for start, end in zip([0, *ends], ends, strict=False))
        kept = [draw_kept((count,), rate, g) for g, count in zip(lanes.generators, counts, strict=True)]
        return replace(self, values=self.values * (torch.cat(kept) * (1.0 / (1.0 - rate))))

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
    lanes, cells, genes = batch.shape
    host = (batch.values.numpy(), batch.columns.numpy(), batch.offsets.numpy())
    csc = csr_matrix(host, shape=(lanes * cells, lanes * genes)).tocsc()  # counts, where torch would sort
    return torch.from_numpy(csc.indices), torch.from_numpy(csc.indptr), torch.from_numpy(csc.data)
