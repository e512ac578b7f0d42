"""A check that HDF5 lacks: its library reads a global heap that was zeroed for ever."""

import mmap
from pathlib import Path

from multipert.errors import InputError

_SIGNATURE = b"GCOL\x01\x00\x00\x00"
_HEADER = 16  # bytes that begin a heap, and each object in it: signature or number, then the size


def check_heaps(path: Path) -> None:
    """Refuse an HDF5 file in which a heap of texts holds free space of no size.

    Such a file, a download with a hole in it for instance, sends the HDF5 library (2.0 and older) round in a loop that
    nothing ends, for it walks from object to object by their sizes. Text of any length lies in these heaps: the names
    of cells and genes, and what attributes say.

    Raises
    ------
    InputError
        There is such a heap.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_SIGNATURE)
        while at >= 0:
            stop = min(at + _size(content, at), len(content))
            position = at + _HEADER
            while position + _HEADER <= stop:
                is_free, size = content[position : position + 2] == b"\x00\x00", _size(content, position)
                if is_free and size == 0:
                    raise InputError(f"{path} is truncated or damaged: copy or download it again")
                # Free space counts its header; an object's bytes are filled up to eight.
                position += size if is_free else _HEADER + -(-size // 8) * 8
            at = content.find(_SIGNATURE, at + 8)


def _size(content: mmap.mmap, at: int) -> int:
    return int.from_bytes(content[at + 8 : at + 16], "little")
