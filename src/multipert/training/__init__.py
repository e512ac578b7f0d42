"""The one loop every network is trained by, and what it is told: stages, batches, optimisers."""

from multipert.training.batches import Batch, Batches, Examples, in_order, sparse_batch
from multipert.training.checkpoint import remove_checkpoint
from multipert.training.history import History
from multipert.training.loop import Interrupted, Sitting, train
from multipert.training.stages import Optimiser, Stage, Update, constant, warmup

__all__ = [
    "Batch",
    "Batches",
    "Examples",
    "History",
    "Interrupted",
    "Optimiser",
    "Sitting",
    "Stage",
    "Update",
    "constant",
    "in_order",
    "remove_checkpoint",
    "sparse_batch",
    "train",
    "warmup",
]
