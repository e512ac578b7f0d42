"""Expression profiles that stay sparse: the first layer and the input dropout see the values that are there alone."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from multipert.training.acceleration.bfloat16 import rounded_linear


def compressed_rows(offsets: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Profiles ``(cells, genes)`` as a tensor of compressed sparse rows."""
    return torch.sparse_csr_tensor(offsets, columns, values, shape, check_invariants=False)


with warnings.catch_warnings():  # torch says once in a process that this layout is young
    warnings.simplefilter("ignore")
    compressed_rows(torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([1.0]), (1, 1))


Transposed = Callable[[Tensor], tuple[Tensor, ...]]
"""From sparse rows to sparse columns: the row of each value, where each column starts, the values."""


def by_column(x: Tensor) -> tuple[Tensor, ...]:
    """Compressed sparse columns of sparse rows."""
    rows = csr_matrix((x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy()), x.shape).tocsc()
    return tuple(map(torch.from_numpy, (rows.indices, rows.indptr, rows.data)))


def linear_of_sparse(
    linear: nn.Linear, x: Tensor, transposed: Transposed = by_column, *, bfloat16: bool = False
) -> Tensor:
    """``linear(x)`` for sparse or dense ``x`` ``(cells, n_in)``, fastest on weights stored input by input.

    Dense ``x``, such as cells that a network has written, is taken in bfloat16 if asked for, in training.
    """
    if x.layout != torch.sparse_csr:
        dtype = linear.weight.dtype
        if bfloat16:
            return rounded_linear(linear, x).to(dtype)
        return functional.linear(x.to(dtype), linear.weight, linear.bias)  # may come from a rounded layer
    product: Tensor = _SparseProduct.apply(linear.weight, x, transposed)  # type: ignore[no-untyped-call]
    return product + linear.bias


def dropout_of_sparse(dropout: nn.Dropout, x: Tensor) -> Tensor:
    """``dropout(x)`` for sparse or dense ``x``: zeros stay zeros, so drawing for the values alone is the same."""
    if x.layout != torch.sparse_csr:
        return functional.dropout(x, dropout.p, dropout.training)
    values = functional.dropout(x.values(), dropout.p, dropout.training)
    return compressed_rows(x.crow_indices(), x.col_indices(), values, x.shape)


class _SparseProduct(torch.autograd.Function):
    """Sparse batch times dense weight; the gradient is the transposed batch times the incoming gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, transposed: Transposed) -> Tensor:
        ctx.x, ctx.transposed = x, transposed
        return _weighted_sums(weight.detach().t(), x.col_indices(), x.crow_indices(), x.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _weighted_sums(gradient, *ctx.transposed(ctx.x)).t(), None, None


def _weighted_sums(table: Tensor, which: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """For each stretch of ``which`` between two offsets, the sum of those rows of ``table``, each times its weight."""
    return functional.embedding_bag(
        which, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
