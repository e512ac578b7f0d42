"""A batch of expression profiles as it is on disk: mostly zeros, never written out."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from multipert.networks.lanes import Lanes

# Said once a process by torch; the products we use are tested against dense ones.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


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
    def matrix(self) -> Tensor:
        """The batch as a torch CSR matrix, ``(lanes * cells, lanes * genes)``."""
        lanes, cells, genes = self.shape
        return torch.sparse_csr_tensor(
            self.offsets, self.columns, self.values, (lanes * cells, lanes * genes), check_invariants=False
        )

    @cached_property
    def dense(self) -> Tensor:
        """The batch written out, ``(lanes, cells, genes)``."""
        lanes, cells, genes = self.shape
        row = torch.repeat_interleave(
            torch.arange(lanes * cells, device=self.values.device), self.offsets.diff(), output_size=len(self.values)
        )
        lane = row // cells
        out = torch.zeros(lanes * cells * genes, dtype=self.values.dtype, device=self.values.device)
        out[row * genes + self.columns - lane * genes] = self.values
        return out.view(self.shape)

    def dropout(self, rate: float, lanes: Lanes) -> "SparseBatch":
        """Input dropout: each value is zeroed with probability ``rate``, the rest scaled by ``1 / (1 - rate)``.

        Zeros stay zeros under dropout, so drawing for the non-zeros alone is the same distribution.
        """
        cells = self.shape[1]
        values = torch.empty_like(self.values)
        # Where each lane's values end: one lane needs no look at the offsets, which on a GPU would wait for it.
        ends = self.offsets[cells::cells].tolist() if len(lanes) > 1 else [len(self.values)]
        start = 0
        for generator, end in zip(lanes.generators, ends, strict=True):
            values[start:end].bernoulli_(1.0 - rate, generator=generator)
            start = end
        return SparseBatch(self.offsets, self.columns, values.mul_(self.values).div_(1.0 - rate), self.shape)

    def to(self, device: torch.device) -> "SparseBatch":
        """The batch on ``device``."""
        return SparseBatch(
            self.offsets.to(device, non_blocking=True),
            self.columns.to(device, non_blocking=True),
            self.values.to(device, non_blocking=True),
            self.shape,
        )

    def product(self, weight: Tensor) -> Tensor:
        """``batch @ weight`` for weights ``(lanes, genes, width)``, giving ``(lanes, cells, width)``."""
        result: Tensor = _SparseProduct.apply(weight, self)  # type: ignore[no-untyped-call]
        return result


class _SparseProduct(torch.autograd.Function):
    """Sparse batch times dense weight; the gradient is the transposed batch times the incoming gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, batch: SparseBatch) -> Tensor:
        ctx.batch = batch
        lanes, cells, _ = batch.shape
        return (batch.matrix @ weight.flatten(0, 1)).view(lanes, cells, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        batch: SparseBatch = ctx.batch
        lanes, cells, genes = batch.shape
        # torch multiplies by a CSC matrix ten times slower than by a CSR one, so hand it the transpose as CSR; and
        # scipy makes that one several times faster than torch does.
        host = (batch.values.cpu().numpy(), batch.columns.cpu().numpy(), batch.offsets.cpu().numpy())
        csc = csr_matrix(host, shape=(lanes * cells, lanes * genes)).tocsc()
        transposed = torch.sparse_csr_tensor(
            torch.from_numpy(csc.indptr),
            torch.from_numpy(csc.indices),
            torch.from_numpy(csc.data),
            (lanes * genes, lanes * cells),
            check_invariants=False,
        ).to(gradient.device)
        return (transposed @ gradient.flatten(0, 1)).view(lanes, genes, -1), None
