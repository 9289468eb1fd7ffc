"""Large values of the shared state as files, written once and mapped by all. Runs in every process.

`state.files` says why a reader locks what it maps.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path

from pyrokernel import systems
from pyrokernel.errors import StateValueError
from pyrokernel.settings import check_private
from pyrokernel.wire.codec import Buffer

__all__ = ["FILE_BYTES", "MAX_VALUE_BYTES", "check_size", "layout", "map_value", "write_parts", "write_value"]

FILE_BYTES = 64 * 1024
"""Values above this are in files of their own."""

MAX_VALUE_BYTES = 1 << 30
"""The largest value; as Pyro's largest message."""

_ALIGNMENT = 64
"""Each part begins at a multiple of this, as NumPy likes its arrays."""


def check_size(key: str, kind: str, size: int) -> None:
    """Refuse a value above the limit.

    Args:
        key: Where it was to go.
        kind: Name of its class, "" where that is not known.
        size: In bytes.

    Raises:
        StateValueError: It is too large.
    """
    if size <= MAX_VALUE_BYTES:
        return
    limit = f"it takes {size} bytes, and at most {MAX_VALUE_BYTES} ({MAX_VALUE_BYTES >> 30} GiB) are kept"
    message = f"{key!r} cannot be set to this {kind or 'value'}: {limit}; keep it in a kernel, and store a reference"
    raise StateValueError(message, key=key, type=kind, reason=limit)


def layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where each part of a value begins in its file, and where the last one ends."""
    offsets, end = [], 0
    for size in sizes:
        end += -end % _ALIGNMENT
        offsets.append(end)
        end += size
    return offsets, end


def write_parts(descriptor: int, parts: Sequence[Buffer], offsets: Sequence[int]) -> None:
    """Write parts at their places, each whole.

    Raises:
        OSError: The disk is full, say.
    """
    for part, offset in zip(parts, offsets, strict=True):
        view = memoryview(part).cast("B")
        done = 0
        while done < len(view):
            done += systems.pwrite(descriptor, view[done : done + (1 << 30)], offset + done)


def write_value(path: str, parts: Sequence[Buffer]) -> None:
    """Write a value into a file that the service has handed out.

    Raises:
        AccessRefusedError: Others than this user may enter its directory.
        OSError: The disk is full, say.
    """
    check_private(Path(path).parent)
    offsets, _ = layout([len(part) for part in parts])
    descriptor = os.open(path, os.O_RDWR | systems.NOFOLLOW | systems.OWN)
    try:
        write_parts(descriptor, parts, offsets)
    finally:
        os.close(descriptor)


def map_value(path: str, sizes: Sequence[int]) -> tuple[memoryview, ...] | None:
    """Map the parts of a value, read-only; None when its file has been taken out of use meanwhile.

    The lock, on the descriptor that the map keeps, tells the service that the file is read.

    Raises:
        AccessRefusedError: Others than this user may enter its directory.
        OSError: It cannot be mapped.
    """
    check_private(Path(path).parent)
    try:
        descriptor = os.open(path, os.O_RDONLY | systems.NOFOLLOW | systems.OWN)
    except FileNotFoundError:
        return None
    try:
        if not systems.try_lock(descriptor, shared=True):
            return None
        if os.fstat(descriptor).st_ino != os.stat(path).st_ino:
            return None
        view = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        return None
    finally:
        os.close(descriptor)
    offsets, _ = layout(sizes)
    return tuple(view[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True))
