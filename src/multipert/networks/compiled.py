"""Loops that no array library has, compiled for the CPU at their first call."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy.typing as npt
from numba import njit
from numba.core.registry import cpu_target

# At its first call numba imports most of itself: better here, where that is expected, than in the first training step.
cpu_target.target_context.refresh()

Numbers = npt.NDArray[Any]

Loop = TypeVar("Loop", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    # Sums in any order, but what is not a number stays so.
    "fastmath": {"reassoc", "contract"},
}


def compiled(loop: Loop) -> Loop:
    """Compile a loop over arrays; once for a machine, where there is a folder to keep the outcome in."""
    try:
        return cast(Loop, njit(cache=True, **OPTIONS)(loop))
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return cast(Loop, njit(**OPTIONS)(loop))
