"""Losses that several methods share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def mean_squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error averaged over all elements (cells x genes)."""
    if target.is_sparse_csr:
        from multipert.training.acceleration import sparse_squared_error

        return sparse_squared_error(predicted, target)
    return (predicted - target).square().mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits (cells,) with labels in [0, 1], cell by cell."""
    from torch.nn import functional

    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
