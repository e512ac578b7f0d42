"""Losses that several methods share, one number a lane or a cell."""

from torch import Tensor
from torch.nn import functional

from multipert.networks import SparseBatch, sparse_squared_error


def mean_squared_error(predicted: Tensor, target: Tensor | SparseBatch) -> Tensor:
    """Squared error averaged over all elements (cells x genes), one number a lane."""
    if isinstance(target, SparseBatch):
        if predicted.is_cpu:
            return sparse_squared_error(predicted, target)
        target = target.dense
    return (predicted - target).square().mean(dim=(1, 2))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits (lanes, cells) with labels in [0, 1], cell by cell."""
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
