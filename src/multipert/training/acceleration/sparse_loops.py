"""Compiled: input dropout whose dropped values leave the rows, and the transposition that the gradient needs."""

import numpy as np
import torch
from torch import Tensor, nn

from multipert.training.acceleration.compiled import Numbers, compiled, kept, mask_seed
from multipert.training.acceleration.sparse_input import compressed_rows, dropout_of_sparse


def compiled_dropout_of_sparse(dropout: nn.Dropout, x: Tensor) -> Tensor:
    """``dropout(x)``, compiled for sparse ``x`` in training."""
    if x.layout != torch.sparse_csr or not dropout.training:
        return dropout_of_sparse(dropout, x)
    parts = _dropout(*_arrays(x), float(dropout.p), mask_seed())
    return compressed_rows(*map(torch.from_numpy, parts), x.shape)  # type: ignore[call-arg, arg-type]


def by_column(x: Tensor) -> tuple[Tensor, ...]:
    """Compressed sparse columns of sparse rows: the row of each value, where each column starts, the values."""
    return tuple(map(torch.from_numpy, _by_column(*_arrays(x), x.shape[1])))


def _arrays(x: Tensor) -> tuple[Numbers, Numbers, Numbers]:
    return x.crow_indices().numpy(), x.col_indices().numpy(), x.values().numpy()


@compiled
def _dropout(
    offsets: Numbers, columns: Numbers, values: Numbers, rate: float, seed: int
) -> tuple[Numbers, Numbers, Numbers]:
    to = 0
    keep, scale = kept(seed, len(values), rate), np.float32(1 / (1 - rate))
    fewer, where, what = np.empty_like(offsets), np.empty_like(columns), np.empty_like(values)
    fewer[0] = 0
    for row in range(len(offsets) - 1):
        for n in range(offsets[row], offsets[row + 1]):
            # Written in any case, and written over if it was not kept: a branch that nobody can foresee costs more.
            where[to], what[to] = columns[n], values[n] * scale
            to += keep[n]
        fewer[row + 1] = to
    return fewer, where[:to], what[:to]


@compiled
def _by_column(offsets: Numbers, columns: Numbers, values: Numbers, width: int) -> tuple[Numbers, Numbers, Numbers]:
    starts = np.zeros(width + 2, offsets.dtype)  # one place further on, until the values have been counted in
    for column in columns:
        starts[column + 2] += 1
    for column in range(width):
        starts[column + 2] += starts[column + 1]
    rows, sorted_values = np.empty_like(columns), np.empty_like(values)
    for row in range(len(offsets) - 1):
        for n in range(offsets[row], offsets[row + 1]):
            to = starts[columns[n] + 1]
            starts[columns[n] + 1] += 1
            rows[to], sorted_values[to] = row, values[n]
    return rows, starts[:-1], sorted_values
