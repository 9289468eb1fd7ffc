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
import fcntl
import functools
import logging
import mmap
import os
import socket
import struct
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence

from pyrokernel.errors import ProtocolError

__all__ = [
    "PART_BYTES",
    "SEGMENT_BYTES",
    "Arrival",
    "Attached",
    "Filling",
    "Freight",
    "available",
    "receive",
    "receive_any",
    "tidy",
]

log = logging.getLogger(__name__)

SEGMENT_BYTES = 512 * 1024
"""From here on a segment is quicker than a socket."""

PART_BYTES = 64 * 1024
"""Smaller buffers stay in the message: they need not keep a segment from its next use."""

IDLE_SECONDS = 30.0
"""What was not used for so long is given back to the system."""

KEPT_SEGMENTS = 64
KEPT_SHARE = 8
"""A process keeps at most this part of the machine's memory for next time; larger data has a segment of its own."""

_ALIGNMENT = 64
_STEP_BYTES = 64 << 20
"""Copied at a time, so that Ctrl-C is heard in between."""

_HELD_STEP_BYTES = 4 << 20
"""As much where copying holds the interpreter."""

_POPULATE_READ = 22
"""MADV_POPULATE_READ of Linux 5.14: map what is there with one call, instead of a fault for every sixteen pages."""

_FD = struct.Struct("i")
_ONE = socket.CMSG_LEN(_FD.size) if hasattr(socket, "CMSG_LEN") else 0
"""Room for one descriptor; the system closes what else comes, and says so."""


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
        self._guard = threading.Lock()
        self._descriptor = os.memfd_create("pyrokernel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._descriptor, self.size)
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
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except BlockingIOError:
            return None
        self.used = time.monotonic()
        return filling

    def write(self, data: memoryview, place: int) -> None:
        """Copy data to its place.

        Raises:
            OSError: The system has no more memory.
        """
        warm = max(0, min(len(data), self.written - place))
        if warm:
            target = self._prefault(place + warm)
            if target is None:
                warm = 0
            else:
                _copy(target[place : place + warm], data[:warm])
        # Into new pages the system copies without clearing them first.
        while warm < len(data):
            warm += os.pwrite(self._descriptor, data[warm : warm + _STEP_BYTES], place + warm)
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
                        self._map.madvise(_POPULATE_READ, begin, self.written - begin)
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
            self._segment.write(part, place)

    def arrival(self) -> Arrival:
        """Return this segment as its receivers get it."""
        return Arrival(os.dup(self.descriptor))


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
            self._filling = _ours().pool.take(self.size, writable=self._writable)
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
        self._lock = threading.Lock()
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
                            return filling
                # What is not written to takes no memory: somewhat larger data may come next.
                segment = Segment(1 << max(size - 1, 1).bit_length())
                filling = segment.begin(writable=writable)
                if size <= _kept_bytes():
                    self._segments.append(segment)
                    self._shed(size)
        except OSError as error:
            log.debug("no segment of %d bytes: %s", size, error)
            return None
        _keep_tidy()
        return filling

    def _shed(self, coming: int) -> None:
        """Let go of those that were used longest ago, where there are too many; who still reads them keeps them."""
        while len(self._segments) > KEPT_SEGMENTS or (
            len(self._segments) > 1 and coming + sum(segment.written for segment in self._segments) > _kept_bytes()
        ):
            del self._segments[0]

    def tidy(self, idle_since: float) -> bool:
        """Let go of what was not used since a moment; say whether anything is left."""
        with self._lock:
            self._segments = [segment for segment in self._segments if segment.used > idle_since]
            return bool(self._segments)


class Arrival:
    """The descriptor of a segment that came with a message, until it is mapped."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)

    def map(self, start: int, end: int) -> memoryview:
        """Map a range of it copy-on-write; the segment is in use until the last view of that is gone.

        Args:
            start: Where the range begins, at a page.
            end: Where it ends.

        Raises:
            ProtocolError: This is no segment, or a shorter one: reading it could end this process.
        """
        self._check(start, end)
        try:
            return _ours().maps.view(self._descriptor, start, end)
        except OSError as error:
            raise ProtocolError(f"{end - start} bytes of a segment cannot be mapped: {error}") from error

    def write(self, data: memoryview, place: int) -> None:
        """Copy data to its place in a segment that came to be written to.

        Raises:
            ProtocolError: This is no segment, a shorter one, or not to be written to.
        """
        self._check(place, place + len(data))
        begin = place - place % mmap.ALLOCATIONGRANULARITY
        try:
            target = _ours().maps.target(self._descriptor, begin, place + len(data))
            if target is not None:
                _copy(target[place - begin :], data)
                return
            done = 0
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done : done + _STEP_BYTES], place + done)
        except OSError as error:
            raise ProtocolError(f"{len(data)} bytes cannot be written to a segment: {error}") from error

    def _check(self, start: int, end: int) -> None:
        try:
            seals, size = fcntl.fcntl(self._descriptor, fcntl.F_GET_SEALS), os.fstat(self._descriptor).st_size
        except OSError as error:
            raise ProtocolError(f"a descriptor came that is no segment: {error}") from error
        if not seals & fcntl.F_SEAL_SHRINK or not 0 <= start < end <= size:
            raise ProtocolError(f"a segment of {size} bytes does not hold what is said to be in it")


class _Map:
    """A range of a segment as this process sees it; kept, because to map it again takes longer than to copy it.

    Args:
        descriptor: The segment, which is opened anew: what came is locked, and to be closed after each use.
        start, end: The range.
        target: It is to be written to, as all see it; else copy-on-write.
    """

    def __init__(self, descriptor: int, start: int, end: int, *, target: bool = False) -> None:
        import ctypes  # 10 ms, and only where something large has come

        self.size = end - start
        self.busy = not target
        self._populated = False
        self.used = time.monotonic()
        self._type = ctypes.c_ubyte * self.size
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR if target else os.O_RDONLY)
        try:
            access = mmap.ACCESS_WRITE if target else mmap.ACCESS_COPY
            self._map = mmap.mmap(own, self.size, access=access, offset=start)
        finally:
            os.close(own)
        self._address = ctypes.addressof(ctypes.c_ubyte.from_buffer(self._map))

    def view(self, lock: mmap.mmap) -> memoryview:
        """Return all of it, with a lock that is let go when nothing uses that view any more."""
        # An object that can say when it goes, as a memoryview or an mmap cannot.
        shown = self._type.from_buffer(self._map)
        weakref.finalize(shown, self._end_use, lock).atexit = False
        return memoryview(shown).cast("B")

    def whole(self) -> memoryview:
        """Return all of it, pages in place, to be written to now."""
        if not self._populated:
            with contextlib.suppress(OSError):  # an older Linux: the pages come as they are used
                self._map.madvise(_POPULATE_READ)
            self._populated = True
        self.used = time.monotonic()
        return memoryview(self._map)

    def _end_use(self, lock: mmap.mmap) -> None:
        lock.close()
        self.used = time.monotonic()
        self.busy = False

    def is_clean(self) -> bool:
        """Whether no page of it was written to, so that it shows the segment and nothing else."""
        pages = -(-self.size // mmap.PAGESIZE)
        try:
            with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
                entries = os.pread(pagemap.fileno(), pages * 8, self._address // mmap.PAGESIZE * 8)
        except OSError:
            return False
        return len(entries) == pages * 8 and not entries[7::8].translate(None, _UNTOUCHED)


_UNTOUCHED = bytes(value for value in range(256) if value & 0x20 or not value & 0xC0)
"""Highest bytes of entries of pagemap: 0x80 is a page in memory, 0x40 one in swap, 0x20 says that it is the file's."""


class _Maps:
    """The ranges of others' segments that this process has mapped, for the next time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._maps: dict[tuple[int, ...], _Map] = {}
        self._seen: deque[tuple[int, ...]] = deque(maxlen=KEPT_SEGMENTS)

    def target(self, descriptor: int, start: int, end: int) -> memoryview | None:
        """Map a range that is to be written to, from the second time on: into new pages it is quicker to write.

        Raises:
            OSError: It cannot be mapped.
        """
        info = os.fstat(descriptor)
        key = (info.st_dev, info.st_ino, start, end, 1)
        with self._lock:
            if key not in self._seen:
                self._seen.append(key)
                return None
            found = self._maps.pop(key, None) or _Map(descriptor, start, end, target=True)
            self._maps[key] = found
            self._shed()
        _keep_tidy()
        return found.whole()

    def view(self, descriptor: int, start: int, end: int) -> memoryview:
        """Map a range; the lock of the descriptor is held until nothing uses it any more.

        Raises:
            OSError: It cannot be mapped.
        """
        # Forked children have this page too, so that their views are safe from being written to.
        lock = mmap.mmap(descriptor, mmap.PAGESIZE, access=mmap.ACCESS_READ)
        info = os.fstat(descriptor)
        key = (info.st_dev, info.st_ino, start, end)
        with self._lock:
            found = self._maps.pop(key, None)
            if found is not None and (found.busy or not found.is_clean()):
                found = None
            if found is None:
                found = _Map(descriptor, start, end)
            found.busy = True
            self._maps[key] = found
            self._shed()
        _keep_tidy()
        return found.view(lock)

    def _shed(self) -> None:
        idle = [(key, one) for key, one in self._maps.items() if not one.busy]
        size = sum(one.size for _, one in idle)
        for key, one in idle:
            if len(self._maps) <= KEPT_SEGMENTS and size <= _kept_bytes():
                return
            del self._maps[key]
            size -= one.size

    def tidy(self, idle_since: float) -> bool:
        """Let go of what was not used since a moment; say whether anything is left."""
        with self._lock:
            self._maps = {key: one for key, one in self._maps.items() if one.busy or one.used > idle_since}
            return bool(self._maps)


class _Process:
    """What this process keeps; a forked child starts with nothing."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.pool = _Pool()
        self.maps = _Maps()
        self.guard = threading.Lock()
        self.tidies = False


_process: _Process | None = None


def _ours() -> _Process:
    global _process
    found = _process
    if found is None or found.pid != os.getpid():
        found = _process = _Process()
    return found


def tidy(idle_since: float) -> bool:
    """Give back to the system what was not used since a monotonic moment; say whether anything is left."""
    ours = _ours()
    return ours.pool.tidy(idle_since) | ours.maps.tidy(idle_since)


def _keep_tidy() -> None:
    """See to it that what is not used goes, also when this process never asks again."""
    ours = _ours()
    with ours.guard:
        if not ours.tidies:
            threading.Thread(target=_tidy_up, args=(ours,), name="pyrokernel-segments", daemon=True).start()
            ours.tidies = True


def _tidy_up(ours: _Process) -> None:
    pause = threading.Event()
    while True:
        pause.wait(IDLE_SECONDS / 2)
        with ours.guard:
            if not tidy(time.monotonic() - IDLE_SECONDS):
                ours.tidies = False
                return


@functools.cache
def _kept_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // KEPT_SHARE


def _copy(target: memoryview, source: memoryview) -> None:
    """Copy as quickly as this process can, and let other threads run meanwhile where that is possible."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        for begin in range(0, len(source), _HELD_STEP_BYTES):
            target[begin : begin + _HELD_STEP_BYTES] = source[begin : begin + _HELD_STEP_BYTES]
        return
    to, of = numpy.frombuffer(target, numpy.uint8), numpy.frombuffer(source, numpy.uint8)
    for begin in range(0, len(source), _STEP_BYTES):
        numpy.copyto(to[begin : begin + _STEP_BYTES], of[begin : begin + _STEP_BYTES])


def receive(sock: socket.socket, target: memoryview) -> tuple[int, Arrival | None]:
    """Receive bytes with which a segment comes; return how many, 0 at the end of the connection, and the segment.

    Raises:
        ProtocolError: None came with them, or more than one.
        OSError: The connection failed, or nothing has arrived.
    """
    count, ancillary, flags, _ = sock.recvmsg_into([target], _ONE, socket.MSG_CMSG_CLOEXEC)
    return count, _arrived(ancillary, flags, wanted=count > 0)


def receive_any(sock: socket.socket, size: int, flags: int) -> tuple[bytes, Arrival | None]:
    """Receive up to so many bytes, and the segment that comes with some of them.

    Raises:
        ProtocolError: More than one came.
        OSError: The connection failed, or nothing has arrived.
    """
    data, ancillary, found, _ = sock.recvmsg(size, _ONE, flags | socket.MSG_CMSG_CLOEXEC)
    return data, _arrived(ancillary, found, wanted=False) if ancillary else None


def _arrived(ancillary: Sequence[tuple[int, int, bytes]], flags: int, *, wanted: bool) -> Arrival | None:
    arrivals = [
        Arrival(*_FD.unpack_from(data, offset))
        for level, kind, data in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for offset in range(0, len(data) - len(data) % _FD.size, _FD.size)
    ]
    if len(arrivals) > 1 or flags & socket.MSG_CTRUNC or (wanted and not arrivals):
        raise ProtocolError("not one descriptor came where a message said that one does")
    return arrivals[0] if arrivals else None
