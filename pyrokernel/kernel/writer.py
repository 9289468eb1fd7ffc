"""How Python's own output reaches the spools, whichever thread prints. Runs in the kernel process.

Every printed line reaches its file at once, so that it keeps its place among what C code
and child processes write, and survives the death of the kernel. Only in a flood, more
than `streams.LINES_AT_ONCE` lines without a pause, lines are collected until the next
tick of the drain thread, which then comes within 5 ms: a system call for each would make
printing five times slower, any Python code twice.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import io
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pyrokernel.journal import in_main_thread
from pyrokernel.kernel.spool import Spool, write_all
from pyrokernel.kernel.streams import Sink, Stream

CALM_LINES = 100
"""Fewer lines than these between two looks, and counting begins anew."""

CALM_SECONDS = 0.02
"""Looks are so far apart, because ticks are not: a follower makes as many as he likes."""

QUIET_TICKS = 4
"""A flood is over when so many ticks have found less than the text stream itself collects, 8 KiB."""

FLOOD_BYTES = 1024 * 1024
"""A flood that collects more between two ticks is written line by line again, or it would outrun its reader."""

COMMIT_ROUNDS = 4
"""How often a commit looks for what has come meanwhile; for ever would be too often when a thread floods."""

ROUTED_PIECES = 128
"""Most pieces of a line that a thread with a route collects."""

ROUTE = "_pyrokernel_route"
"""Attribute of a thread: the `Route` of its output, None when it prints for whichever cell runs."""

_DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_SPAWNS = frozenset(
    {"os.system", "subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec", "os.kill", "os.killpg"}
)
"""Audit events of Python before which what a flood has collected must be written."""


class Route:
    """Where the output of a thread goes that an earlier cell started; `pieces` are its half lines."""

    def __init__(self, thread: threading.Thread, spool: Spool) -> None:
        self.thread = thread
        self.spool: Spool | None = spool
        self.pieces: tuple[list[str], list[str]] = ([], [])


class Writer:
    """The writing half of a capture: both streams, and what their lines are written to.

    Args:
        spool: The first of them.
        on_flood: Called when a flood begins.

    Attributes:
        flooding: The sink that collects lines, or None.
        may_flood: Whether lines may be collected at all.
        lock: Held while Python writes to a spool.
        spool: Where lines go that no route leads elsewhere; None in a forked child.
        on_write: Called after a write when not None.
        due: What a signal handler raised in the middle of `commit`, to be raised at its end.
        sinks: What the streams pass their lines to.
        streams: `sys.stdout` and `sys.stderr`.
    """

    def __init__(self, spool: Spool, on_flood: Callable[[], None]) -> None:
        self.flooding: Sink | None = None
        self.may_flood = True
        self.lock: Any = threading.RLock()  # a signal handler may print while its thread prints
        self.spool: Spool | None = spool
        self.on_write: Callable[[], None] | None = None
        self.sinks = (Sink(self, 0), Sink(self, 1))
        self.streams = (Stream(self, 0), Stream(self, 1))
        self.due: BaseException | None = None
        self._writing = False
        self._on_flood = on_flood
        self._quiet_ticks = 0
        self._looked = 0.0
        self._watches_spawns = False
        self._pass_on = tuple(functools.partial(io.TextIOWrapper.flush, stream) for stream in self.streams)

    def commit(self, index: int) -> None:
        """Write the lines that a stream has passed on, then the other's."""
        first, second = self.sinks[index].pieces, self.sinks[1 - index].pieces
        try:
            if first or second:
                with self.lock:
                    # Else a signal handler prints in the middle of the loop below, which will go on.
                    if not self._writing:
                        self._writing = True
                        try:
                            for _ in range(COMMIT_ROUNDS):
                                self._put_both(index)
                                if not first and not second:
                                    break
                        finally:
                            self._writing = False
                if self.on_write is not None:
                    self.on_write()
        finally:
            if self.due is not None and in_main_thread():
                due, self.due = self.due, None
                raise due

    def _put_both(self, index: int) -> None:
        """Write what waits of both streams, `index` first; in a flood, the collecting one: its lines are older."""
        flooding = self.flooding
        if flooding is not None:
            index = flooding.index
        first, second = self.sinks[index].pieces, self.sinks[1 - index].pieces
        waiting = len(second)
        if flooding is not None and waiting:
            self._pass_on[index]()  # whatever was printed before those is in the queue after this
        if first:
            self._put(index, _take(first, len(first)))
        if waiting:
            self._put(1 - index, _take(second, waiting))

    def _put(self, index: int, data: bytes) -> None:
        """Write to the current spool, through the descriptor that C code writes to as well.

        Raises:
            OSError: User code put something else behind the descriptor, and that failed. A full
                disk raises nothing: what is lost is told in the journal.
        """
        spool = self.spool
        if spool is not None:
            spool.note_write(index)
        if len(data) > FLOOD_BYTES:
            self.may_flood = False
            self.end_flood()  # from now on who prints waits for the lock
        done, error = write_all(index + 1, data)
        if error is not None:
            if error.errno == errno.EBADF and spool is not None:  # user code closed the descriptor
                done, error = write_all(spool.write_fd(index), data)
            _settle(spool, index, len(data) - done, error)

    def flush(self) -> None:
        """Write out both streams, half lines too, from any thread."""
        try:
            for pass_on in self._pass_on:
                pass_on()
            if self.sinks[0].pieces or self.sinks[1].pieces:
                self.commit(0)
            with self.lock:
                pass  # another thread may have taken the last piece from its queue and still be writing it
        except OSError:
            pass  # user code put a broken pipe behind a descriptor: its own print() says so

    def begin_flood(self, sink: Sink) -> None:
        """Let a stream collect its lines until the next `calm`. Of one only: between two, their order would be lost."""
        if self.may_flood and self.spool is not None:
            if not self._watches_spawns:
                self._watches_spawns = True
                sys.addaudithook(self._before_spawn)
            self.flooding = sink
            self._quiet_ticks = 0
            self.streams[sink.index].reconfigure(line_buffering=False)
            self._on_flood()

    def end_flood(self) -> None:
        """Write every line at once again."""
        if self.flooding is not None:
            stream = self.streams[self.flooding.index]
            with contextlib.suppress(OSError):  # as in flush; the next call tries again
                stream.reconfigure(line_buffering=True)
                stream.flush()  # lines that came in the instant before
                self.flooding = None

    def begin_cell(self) -> None:
        """Let the next lines be written one by one."""
        if self.flooding is not None:
            self.end_flood()
        self.may_flood = True
        for sink in self.sinks:
            sink.count = sink.counted = 0

    def calm(self) -> None:
        """Write out, at every tick, and end a flood when some ticks found little of it."""
        if self.flooding is not None:
            self._quiet_ticks = 0 if self.flooding.pieces else self._quiet_ticks + 1
        self.flush()
        if self._quiet_ticks >= QUIET_TICKS:
            self.end_flood()
        if (now := time.monotonic()) - self._looked >= CALM_SECONDS:
            self._looked = now
            for sink in self.sinks:
                if sink.count - sink.counted < CALM_LINES:
                    sink.count = 0
                sink.counted = sink.count

    def _before_spawn(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if self.flooding is not None and event in _SPAWNS:
            self.flush()

    def route_threads(self, routed: bool) -> None:
        """Look, at every write, whether the thread belongs to an earlier cell; or stop looking."""
        for index, stream in enumerate(self.streams):
            if not routed:
                stream.__dict__.pop("write", None)
            elif "write" not in stream.__dict__:
                # An attribute of the object, not a method: while no thread has a route, print() finds the one in C.
                stream.__dict__["write"] = self._routed_write(index)

    def _routed_write(self, index: int) -> Callable[[str], int]:
        write = super(Stream, self.streams[index]).write

        def routed(text: str, /) -> int:
            route: Route | None = threading.current_thread().__dict__.get(ROUTE)
            if route is None or route.spool is None or not isinstance(text, str):
                return write(text)
            pieces = route.pieces[index]
            pieces.append(text)
            if "\n" in text or len(pieces) > ROUTED_PIECES:
                self.commit_route(route)
            return len(text)

        return routed

    def commit_route(self, route: Route) -> None:
        """Write what a thread of an earlier cell has printed."""
        for index, pieces in enumerate(route.pieces):
            if pieces:
                with self.lock:
                    data = "".join(pieces).encode("utf-8", "backslashreplace")
                    pieces.clear()
                    spool = route.spool
                    if spool is None:
                        self._put(index, data)
                    else:
                        spool.note_write(index)
                        done, error = write_all(spool.write_fd(index), data)
                        if error is not None:
                            _settle(spool, index, len(data) - done, error)

    def abandon(self) -> None:
        """Become a plain writer to descriptors 1 and 2, in a forked child."""
        self.lock = threading.RLock()  # a thread of the parent may have held the old one
        self.spool = None
        self.on_write = None
        self._writing = False
        self.flooding = None
        self.route_threads(routed=False)
        for stream in self.streams:
            stream.forget()


def _settle(spool: Spool | None, index: int, lost_bytes: int, error: OSError | None) -> None:
    """Note a loss that the disk is to blame for; raise any other error."""
    if error is not None:
        if error.errno not in _DISK_REFUSES:
            raise error
        if spool is not None:
            spool.note_loss(index, lost_bytes, error)


def _take(pieces: collections.deque[bytes], count: int) -> bytes:
    """Take the first pieces; other threads may go on appending."""
    if count == 1:
        return pieces.popleft()
    return b"".join([pieces.popleft() for _ in range(count)])
