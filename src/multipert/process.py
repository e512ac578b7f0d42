"""Manners of a process that is our own: the command line's and its workers'. A library call changes none of this."""

import ctypes
import os
import sys

FREED = {"MALLOC_TRIM_THRESHOLD_": str(32 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""What the environment of our own processes says where memory is short: what is freed goes back to the system."""

WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""What the environment of our own processes says before torch is loaded: OpenMP's threads sleep while they wait.

By default they spin, and beside other busy processes each waits for a processor that another one's spinning holds.
"""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # glibc's malloc.h
_LARGEST = 32 * 2**20  # glibc refuses a higher threshold


def own_process() -> None:
    """Settle this process to train fast beside others; call it first, and only where the process is ours.

    OpenMP waits passively, unless the environment says how it is to wait. And the C library holds on to freed blocks of
    up to 32 MiB: gradients and activations of several megabytes are freed and allocated in every step, and each time
    glibc returns them to the kernel, the next step pays a page fault for every 4 KiB of them; unless the environment
    says when it is to return them.
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
    if not sys.platform.startswith("linux"):
        return
    try:
        library = ctypes.CDLL("libc.so.6")
        mallopt, trim = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):  # not glibc
        return
    trim(0)
    mallopt(_M_ARENA_MAX, 1)
    if FREED.keys() & os.environ.keys():
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    mallopt(_M_TRIM_THRESHOLD, 16 * _LARGEST)
    mallopt(_M_TOP_PAD, 2 * _LARGEST)
