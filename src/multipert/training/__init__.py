"""The one loop every network is trained by, and what it is told: stages, batches, optimisers."""

from multipert.training.batches import Batch, Batches, Examples, Handout, SideBySide, in_order, sparse_batch
from multipert.training.checkpoint import remove_checkpoint
from multipert.training.history import History
from multipert.training.loop import Interrupted, Sitting, train, train_lanes
from multipert.training.stages import Optimiser, Stage, Terms, Update, constant, step_decay, warmup

__all__ = [
    "Batch",
    "Batches",
    "Examples",
    "Handout",
    "History",
    "Interrupted",
    "Optimiser",
    "SideBySide",
    "Sitting",
    "Stage",
    "Terms",
    "Update",
    "constant",
    "in_order",
    "remove_checkpoint",
    "sparse_batch",
    "step_decay",
    "train",
    "train_lanes",
    "warmup",
]
