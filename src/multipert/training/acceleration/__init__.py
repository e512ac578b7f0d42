"""The one place where speed is bought: faster equals of modules, losses and optimisers.

Each piece stands in a file of its own, is held equal to the plain module by a test, and can be left out to see what it
gains: ``python -m benchmarks.training --without NAME``.
"""

from multipert.training.acceleration.accelerate import accelerate
from multipert.training.acceleration.adam import FusedAdam, GradientDescent
from multipert.training.acceleration.sparse_input import compressed_rows
from multipert.training.acceleration.squared_error import sparse_squared_error
from multipert.training.acceleration.switches import PIECES, leave_out, switched_on

__all__ = [
    "PIECES",
    "FusedAdam",
    "GradientDescent",
    "accelerate",
    "compressed_rows",
    "leave_out",
    "sparse_squared_error",
    "switched_on",
]
