"""Large data in memory that processes of one machine share: written once, mapped by all. Runs in every process.

A segment is a memfd of the process that sends, which nobody can make shorter. It has no name, and goes with the
last process that has it, however that ends. Its descriptor travels with the message whose data it holds, and the
receiver maps it copy-on-write: the arrays are its own to change, and nothing is copied that is not changed.

Pages of a new segment cost the system as much as copying them six times, and so does mapping them for the first
time; hence both sides keep what they had for next time. What a receiver may still read must not be written to. For
each use the owner opens the segment anew (through /proc, so that the lock of the descriptor is its own), locks that
descriptor against writers, and sends it: in the socket's queue, in every receiver and in their forked children it
is the same one, and the system lets go of the lock when the last of them has closed it or died. Nobody counts. What
can be locked by its owner alone is free.

Where any of this is missing (`available`), large data goes through the sockets.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Sequence

from pyrokernel import systems
from pyrokernel.wire.copying import STEP_BYTES, copy_into
from pyrokernel.wire.spare import KEPT_NUMBER, keep_tidy, kept_bytes, ours

__all__ = [
    "PART_BYTES",
    "POPULATE_READ",
    "SEGMENT_BYTES",
    "Attached",
    "Filling",
    "Freight",
    "available",
    "lay_out",
]

log = logging.getLogger(__name__)

SEGMENT_BYTES = 1 << 20
"""From here on a segment is quicker than a socket."""

PART_BYTES = 64 * 1024
"""Smaller buffers stay in the message: they need not keep a segment from its next use."""

_ALIGNMENT = 64
POPULATE_READ = 22
"""MADVPOPULATE_READ of Linux 5.14: map what is there with one call, instead of a fault for every sixteen pages."""

_FD = struct.Struct("i")


@functools.cache
def available() -> bool:
    """Whether this system has what segments need."""
    try:
        filling = Segment(mmap.PAGESIZE).begin()
    except (AttributeError, OSError) as error:
        log.debug("no segments here: %s", error)
        return False
    return filling is not None


def page_up(size: int) -> int:
    """Return a size in whole pages."""
    return size + -size % mmap.ALLOCATIONGRANULARITY


def lay_out(sizes: Sequence[int], place: int) -> tuple[list[int], int]:
    """Return where each of some parts begins that lie behind each other from a place on, and where the last ends."""
    places = []
    for size in sizes:
        place += -place % _ALIGNMENT
        places.append(place)
        place += size
    return places, place


class Segment:
    """Memory of this process that others map.

    Args:
        size: Bytes it is to hold; what was never written takes no memory.

    Raises:
        OSError, AttributeError: The system has no such thing, or no more of it.
    """

    def __init__(self, size: int) -> None:
        self.size = page_up(size)
        self.written = 0
        self.used = time.monotonic()
        self._mapped = 0
        self._map: mmap.mmap | None = None
        self._guard = threading.RLock()
        self._descriptor = os.memfd_create("pyrokernel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._descriptor, self.size)
        import fcntl  # not on every system that has this module

        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", -1)
        if descriptor >= 0:
            os.close(descriptor)

    def begin(self, *, writable: bool = False) -> Filling | None:
        """Return a new use of this segment, None while somebody may still read what was sent with it.

        Args:
            writable: Those who get it are to write to it.

        Raises:
            OSError: No more descriptors, say.
        """
        descriptor = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDWR if writable else os.O_RDONLY)
        filling = Filling(self, descriptor)
        if not (systems.try_lock(descriptor) and systems.try_lock(descriptor, shared=True)):
            return None
        self.used = time.monotonic()
        return filling

    def write(self, data: memoryview, place: int, filling: Filling) -> None:
        """Copy data to its place, for one use.

        Raises:
            OSError: The system has no more memory.
        """
        warm = max(0, min(len(data), self.written - place))
        if warm:
            target = self._prefault(place + warm)
            if target is None:
                warm = 0
            else:
                copy_into(target[place : place + warm], data[:warm], filling)
        # Into new pages the system copies without clearing them first.
        while warm < len(data):
            warm += os.pwrite(self._descriptor, data[warm : warm + STEP_BYTES], place + warm)
        self.written = max(self.written, place + len(data))

    def _prefault(self, end: int) -> memoryview | None:
        """Return this process's map of the segment, its pages up to `end` in place."""
        with self._guard:
            try:
                if self._map is None:
                    self._map = mmap.mmap(self._descriptor, self.size)
                if end > self._mapped:
                    begin = self._mapped - self._mapped % mmap.PAGESIZE
                    with contextlib.suppress(OSError):  # an older Linux: the pages come as they are used
                        self._map.madvise(POPULATE_READ, begin, self.written - begin)
                    self._mapped = self.written
            except OSError as error:  # more than the process may map
                log.debug("a segment of %d bytes is not mapped: %s", self.size, error)
                return None
            return memoryview(self._map)


class Filling:
    """One use of a segment: nobody writes to it again before all who got its descriptor are done.

    Attributes:
        descriptor: The one to send; closed with this object, which is kept until it has been sent.
    """

    __slots__ = ("_segment", "descriptor")

    def __init__(self, segment: Segment, descriptor: int) -> None:
        self._segment = segment
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    def write(self, parts: Sequence[memoryview], places: Sequence[int]) -> None:
        """Copy parts to their places; as `Segment.write`."""
        for part, place in zip(parts, places, strict=True):
            self._segment.write(part, place, self)


class Freight:
    """What shares one segment: the data of one request, or of the requests of one call.

    Everything is reserved before anything is written.

    Args:
        writable: The receivers write to it, and the sender reads that.
    """

    __slots__ = ("_filling", "_refused", "_writable", "size")

    def __init__(self, *, writable: bool = False) -> None:
        self.size = 0
        self._writable = writable
        self._filling: Filling | None = None
        self._refused = False

    def reserve(self, size: int) -> int:
        """Return the place for so many more bytes, on a page of its own."""
        place = self.size
        self.size = page_up(place + size)
        return place

    def filling(self) -> Filling | None:
        """Return the segment to write to, None if there is none to be had."""
        if self._filling is None and not self._refused:
            self._filling = ours(_Pool).take(self.size, writable=self._writable)
            self._refused = self._filling is None
        return self._filling


class Attached(bytes):
    """The first bytes of a message's body, with which its segment is sent.

    Attributes:
        filling: The segment.
    """

    filling: Filling

    @property
    def ancillary(self) -> list[tuple[int, int, bytes]]:
        """What `sendmsg` takes beside the bytes."""
        return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(self.filling.descriptor))]


class _Pool:
    """The segments that this process has filled, for the next time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # as in `spare`: the collector may run user code that sends something
        self._segments: list[Segment] = []

    def take(self, size: int, *, writable: bool) -> Filling | None:
        """Return a segment to write so many bytes to, None where the system gives none."""
        try:
            with self._lock:
                # The best is warm, so the one that was used last; but not one much too large.
                for segment in reversed(self._segments):
                    if size <= segment.size <= 4 * max(size, SEGMENT_BYTES):
                        filling = segment.begin(writable=writable)
                        if filling is not None:
                            self._segments.remove(segment)
                            self._segments.append(segment)
                            break
                else:
                    # What is not written to takes no memory: somewhat larger data may come next.
                    segment = Segment(1 << max(size - 1, 1).bit_length())
                    filling = segment.begin(writable=writable)
                    if size <= kept_bytes():
                        self._segments.append(segment)
                        self._shed(size)
                if writable:
                    segment.written = max(segment.written, size)  # by others
        except OSError as error:
            log.debug("no segment of %d bytes: %s", size, error)
            return None
        keep_tidy()
        return filling

    def _shed(self, coming: int) -> None:
        """Let go of those that were used longest ago, where there are too many; who still reads them keeps them."""
        while len(self._segments) > KEPT_NUMBER or (
            len(self._segments) > 1 and coming + sum(segment.written for segment in self._segments) > kept_bytes()
        ):
            del self._segments[0]

    def tidy(self, idle_since: float) -> bool:
        """Let go of what was not used since a moment; say whether anything is left."""
        with self._lock:
            self._segments = [segment for segment in self._segments if segment.used > idle_since]
            return bool(self._segments)
