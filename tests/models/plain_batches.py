"""Batches with their profiles written out, for networks as they are without acceleration."""

from itertools import islice

import torch

from multipert.training import Batch, DataLoader, Examples, Sampler

LOADER = DataLoader(torch.device("cpu"))


def dense(batch: Batch) -> Batch:
    return Batch({role: x.to_dense() for role, x in batch.cells.items()}, batch.labels, batch.epoch)


def epoch_of(sampler: Sampler, epoch: int = 0, seed: int = 1) -> list[Batch]:
    """All batches of an epoch."""
    return [dense(batch) for batch in islice(LOADER.endless(sampler, seed, epoch * len(sampler)), len(sampler))]


def first_batch(sampler: Sampler, epoch: int = 0) -> Batch:
    return epoch_of(sampler, epoch)[0]


def all_of(examples: Examples) -> Batch:
    """All examples as one batch."""
    (batch,) = LOADER.in_order(examples, len(examples))
    return dense(batch)
