"""Whether the HDF5 library survives a file: it is read in a process that may crash, or go round for ever, in our place.

The library (2.0 and older) trusts what a file says of itself. One byte that flipped can end the process that reads it,
and a download with a hole in it can send it round in a loop.
"""

import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

_SECONDS, _BYTES_A_SECOND = 3, 20 * 2**20
"""Seconds of computing that reading may take, and bytes of a file for which it may take one more."""

_AT_ONCE = 100_000
"""Texts that are read at once: an array may say to hold more than there is memory."""


def check_hdf5(path: Path) -> None:
    """Refuse an HDF5 file that cannot be read without harm, if only to find that it is damaged.

    All that describes the arrays is read, where their parts lie, and every text; of numbers, which cannot point
    anywhere, the first. A file that has not changed since is not read again.

    Raises
    ------
    InputError
        The library crashed, or took too long.
    """
    from multipert.errors import InputError  # the process that only reads need not know the package

    state = path.stat()
    if not _survives(path, state.st_ino, state.st_size, state.st_mtime_ns):
        raise InputError(f"{path} is truncated or damaged: copy or download it again")


@cache
def _survives(path: Path, inode: int, size: int, modified: int) -> bool:
    command = [sys.executable, "-P", __file__, str(path), str(_SECONDS + size // _BYTES_A_SECOND)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:  # no other process can be had, and most files are sound
        return True
    return done.returncode in (0, 1)  # an error of Python's is one that whoever reads the file will meet, and say


def _read(path: str, seconds: int) -> None:
    import h5py

    with suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with h5py.File(path, "r") as file:
        _look_at("/", file)
        file.visititems(_look_at)


def _look_at(name: str, node: "h5py.HLObject") -> None:
    with suppress(Exception):  # the others may hold worse
        dict(node.attrs)
    with suppress(Exception):
        if not hasattr(node, "dtype"):
            return
        if node.chunks is not None:
            node.id.get_num_chunks()
        if node.dtype.hasobject and node.ndim:
            for start in range(0, len(node), _AT_ONCE):
                node[start : start + _AT_ONCE]
        else:
            node[(0,) * node.ndim]


if __name__ == "__main__":
    _read(sys.argv[1], int(sys.argv[2]))
