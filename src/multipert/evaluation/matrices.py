"""The shapes that numbers come in, sparse or dense, and how a tall matrix is walked in blocks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Matrix: TypeAlias = Any
"""Cells x genes: a ``scipy.sparse.csr_array`` without stored zeros, or a two-dimensional array."""

BLOCK = 4_000_000
"""Most numbers (32 MB in float64) that a temporary block holds."""


def is_sparse(matrix: Matrix) -> bool:
    """Whether a matrix is sparse."""
    return bool(sparse.issparse(matrix))


def as_dense(matrix: Matrix) -> NDArray[Any]:
    """Give the array of a matrix, sparse or dense."""
    return np.asarray(matrix.toarray() if is_sparse(matrix) else matrix)


def blocks(length: int, *, width: int, size: int = BLOCK) -> Iterator[slice]:
    """Cover ``range(length)`` with slices of at most ``size`` numbers, where a row holds ``width`` of them."""
    step = max(1, size // max(1, width))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
