"""The memory of a training step: kept by the process from one step to the next."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_LARGEST = 32 * 2**20  # glibc refuses a higher threshold


def keep_freed_memory() -> None:
    """Let the C library hold on to freed blocks of up to 32 MiB instead of handing them back to the system.

    Gradients and activations of several megabytes are freed and allocated in every step; each time glibc returns them
    to the kernel, the next step pays a page fault for every 4 KiB of them. On two cores that was nearly half of a
    step. What was freed before, in preparation, is handed back. Elsewhere than on Linux's glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        library = ctypes.CDLL("libc.so.6")
        mallopt, trim = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    mallopt(_M_TRIM_THRESHOLD, 16 * _LARGEST)
    mallopt(_M_TOP_PAD, 2 * _LARGEST)
