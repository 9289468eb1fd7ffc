"""Segments of others as they arrive: descriptors that are checked, mapped and let go of. Runs in every process.

`segments` says how its owner knows when nobody reads a segment any more. A map of one is kept when its last view has
gone: what has to be let go of then is the lock, so each view has that on a map of its own, of one page. When the
segment comes again, its old map shows what is in it now, unless somebody wrote to the view: the pages that were
written to are this process's own. The system says which (`/proc/self/pagemap`), and then it is mapped afresh. Of a
large map it takes milliseconds to say, so that is asked behind the back of whoever let go of it.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from pyrokernel.errors import MessageTooLargeError, ProtocolError
from pyrokernel.wire.copying import STEP_BYTES, copy_into
from pyrokernel.wire.memory import own_memory
from pyrokernel.wire.segments import POPULATE_READ
from pyrokernel.wire.spare import KEPT_NUMBER, Block, keep_tidy, kept_bytes, ours, tidy_soon

__all__ = ["Arrival", "receive"]

_FD = struct.Struct("i")
_ONE = socket.CMSG_LEN(_FD.size) if hasattr(socket, "CMSG_LEN") else 0
"""Room for one descriptor; the system closes what else comes, and says so."""

_LARGE_BYTES = 16 << 20
"""From here on it takes longer to look for what was written to than to wake a thread that does."""


class Arrival:
    """The descriptor of a segment that came with a message, until it is mapped."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)

    def map(self, start: int, end: int) -> memoryview:
        """Map a range of it copy-on-write; the segment is in use until the last view of that is gone.

        Where that would take one of the last descriptors, or cannot be, the range is copied instead.

        Args:
            start: Where the range begins, at a page.
            end: Where it ends.

        Raises:
            ProtocolError: This is no segment, or a shorter one: reading it could end this process.
            MessageTooLargeError: This process has no memory for it.
        """
        self._check(start, end)
        maps = ours(_Maps)
        if maps.has_descriptors():
            with contextlib.suppress(OSError):
                return maps.view(self._descriptor, start, end)
        try:
            return self._copied(start, end)
        except (OSError, MemoryError) as error:
            raise MessageTooLargeError(
                f"{end - start} bytes have come, for which this process has no room: {error}; fetch or send less of it"
            ) from error

    def _copied(self, start: int, end: int) -> memoryview:
        view = own_memory(end - start)
        done = 0
        while done < len(view):
            done += os.preadv(self._descriptor, [view[done : done + STEP_BYTES]], start + done)
        return view

    def write(self, data: memoryview, place: int) -> None:
        """Copy data to its place in a segment that came to be written to.

        Raises:
            ProtocolError: This is no segment, a shorter one, or not to be written to.
        """
        self._check(place, place + len(data))
        begin = place - place % mmap.ALLOCATIONGRANULARITY
        try:
            target = ours(_Maps).target(self._descriptor, begin, place + len(data))
            if target is not None:
                copy_into(target[place - begin :], data, self)
                return
            done = 0
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done : done + STEP_BYTES], place + done)
        except OSError as error:
            raise ProtocolError(f"{len(data)} bytes cannot be written to a segment: {error}") from error

    def _check(self, start: int, end: int) -> None:
        import fcntl  # not on every system that has this module

        try:
            seals, size = fcntl.fcntl(self._descriptor, fcntl.F_GET_SEALS), os.fstat(self._descriptor).st_size
        except OSError as error:
            raise ProtocolError(f"a descriptor came that is no segment: {error}") from error
        if not seals & fcntl.F_SEAL_SHRINK or not 0 <= start < end <= size:
            raise ProtocolError(f"a segment of {size} bytes does not hold what is said to be in it")


class _Map(Block):
    """A range of a segment as this process sees it; kept, because to map it again takes longer than to copy it.

    Args:
        descriptor: The segment, which is opened anew: what came is locked, and to be closed after each use.
        start, end: The range.
        target: It is to be written to, as all see it; else copy-on-write.
    """

    def __init__(self, descriptor: int, start: int, end: int, *, target: bool = False) -> None:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR if target else os.O_RDONLY)
        try:
            access = mmap.ACCESS_WRITE if target else mmap.ACCESS_COPY
            super().__init__(mmap.mmap(own, end - start, access=access, offset=start))
        finally:
            os.close(own)
        self._populated = False
        self._clean = 0, True  # after how many uses somebody looked, and what was found

    def whole(self) -> memoryview:
        """Return all of it, pages in place, to be written to now."""
        if not self._populated:
            with contextlib.suppress(OSError):  # an older Linux: the pages come as they are used
                self.memory.madvise(POPULATE_READ)
            self._populated = True
        self.used = time.monotonic()
        return memoryview(self.memory)

    def is_clean(self) -> bool:
        """Whether nobody uses it, and no page of it was written to: it shows the segment and nothing else."""
        uses, (asked, clean) = self.uses, self._clean
        if self.busy:
            return False
        if asked != uses:
            clean = self._shows_segment()
            # Should it have been given out meanwhile, that is another use, of which this says nothing.
            self._clean = uses, clean
        return clean

    def _shows_segment(self) -> bool:
        pages = -(-self.size // mmap.PAGESIZE)
        try:
            with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
                entries = os.pread(pagemap.fileno(), pages * 8, self.address() // mmap.PAGESIZE * 8)
        except OSError:
            return False
        return len(entries) == pages * 8 and not entries[7::8].translate(None, _UNTOUCHED)

    def _end_use(self, at_end: Callable[[], None]) -> None:
        super()._end_use(at_end)
        if self.size >= _LARGE_BYTES:
            tidy_soon()


_UNTOUCHED = bytes(value for value in range(256) if value & 0x20 or not value & 0xC0)
"""Highest bytes of entries of pagemap: 0x80 is a page in memory, 0x40 one in swap, 0x20 says that it is the file's."""


class _Maps:
    """The ranges of others' segments that this process has mapped, for the next time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # as in `spare`
        self._maps: dict[tuple[int, ...], _Map] = {}
        self._seen: deque[tuple[int, ...]] = deque(maxlen=KEPT_NUMBER)
        self._views: set[int] = set()

    def has_descriptors(self) -> bool:
        """Whether another view may be made: each takes two descriptors, of which half are left for all else."""
        import resource  # not on every system that has this module

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return limit == resource.RLIM_INFINITY or 2 * (len(self._views) + KEPT_NUMBER) <= limit // 2

    def _end_view(self, lock: mmap.mmap) -> None:
        lock.close()
        self._views.discard(id(lock))

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
        keep_tidy()
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
            if found is None or not (found.is_clean() and found.claim()):
                found = _Map(descriptor, start, end)
                found.claim()
            self._views.add(id(lock))
            view = found.view(functools.partial(self._end_view, lock))
            if found.size <= kept_bytes():
                self._maps[key] = found
                self._shed()
        keep_tidy()
        return view

    def _shed(self) -> None:
        idle = [(key, one) for key, one in self._maps.items() if not one.busy]
        size = sum(one.size for _, one in idle)
        for key, one in idle:
            if len(self._maps) <= KEPT_NUMBER and size <= kept_bytes():
                return
            del self._maps[key]
            size -= one.size

    def tidy(self, idle_since: float) -> bool:
        """Let go of what was not used since a moment, or written to; say whether anything is left."""
        for one in list(self._maps.values()):
            one.is_clean()  # found out without the lock, for which arrivals wait
        with self._lock:
            self._maps = {
                key: one for key, one in self._maps.items() if one.busy or (one.used > idle_since and one.is_clean())
            }
            return bool(self._maps)


def receive(sock: socket.socket, target: memoryview) -> tuple[int, Arrival | None]:
    """Receive bytes with which a segment comes; return how many, 0 at the end of the connection, and the segment.

    Raises:
        ProtocolError: None came with them, or more than one.
        OSError: The connection failed, or nothing has arrived.
    """
    count, ancillary, flags, _ = sock.recvmsg_into([target], _ONE, socket.MSG_CMSG_CLOEXEC)
    return count, _arrived(ancillary, flags, wanted=count > 0)


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
