"""The threads that share a training step's products."""

import ctypes

_SOFT = 1


def release_threads() -> None:
    """Let the calling thread's idle OpenMP threads end; they start again when they are next needed.

    Training runs in a thread of its own, with helpers of its own. GNU's OpenMP counts the caller's sleeping helpers as
    well, takes the processors for overcrowded, and from then on puts threads to sleep at every turn instead of letting
    them wait for the next product: on two cores that doubled the time of a step. With another OpenMP this does nothing.
    """
    try:
        pause = ctypes.CDLL(None).omp_pause_resource_all
    except (OSError, AttributeError):
        return
    pause(_SOFT)
