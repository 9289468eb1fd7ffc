"""What `sys.stdout` and `sys.stderr` are in a kernel. Runs in the kernel process.

Every printed line reaches its file at once, so that it keeps its place among what C code
and child processes write, and survives the death of the kernel. Only a flood, more than
`LINES_AT_ONCE` lines between two ticks of the drain thread, is collected and written in
pieces: a system call for each line would make printing five times slower.
"""

from __future__ import annotations

import collections
import errno
import io
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

from pyrokernel.kernel.spool import Spool, write_all

LINES_AT_ONCE = 4096
"""Lines that are written one by one before the rest counts as a flood."""

PIECES_AT_ONCE = 128
"""Most pieces of text that a flood collects."""

ROUTE = "_pyrokernel_route"
"""Attribute of a thread: the `Route` of its output, None when it prints for whichever cell runs."""

_DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_SPAWNS = frozenset({"os.system", "subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec"})
"""Audit events of Python 3.11 before which collected text must be written, to stay in order."""


class Route:
    """Where the output of a thread goes that an earlier cell started."""

    def __init__(self, thread: threading.Thread, spool: Spool) -> None:
        self.thread = thread
        self.spool: Spool | None = spool
        self.pieces: tuple[list[str], list[str]] = ([], [])


class Writer:
    """The writing half of a capture, shared by both streams.

    Attributes:
        lock: Held while Python writes to a spool.
        spool: Where text goes that no route leads elsewhere.
        budget: Lines that may still be written one by one.
        routed: Whether any living thread has a route.
        on_write: Called after a write when not None; whoever gets the call sets it to None.
    """

    def __init__(self, spool: Spool) -> None:
        self.lock: Any = threading.RLock()  # a signal handler may print while its thread prints
        self.spool: Spool | None = spool
        self.budget = LINES_AT_ONCE
        self.routed = False
        self.on_write: Callable[[], None] | None = None
        self.streams = (Stream(self, 0), Stream(self, 1))
        self._interrupted = False
        self._watches_spawns = False

    def put(self, index: int, data: bytes, spool: Spool | None = None) -> None:
        """Write bytes; the lock is held. A full disk never fails the code that prints.

        Args:
            index: 0 for stdout, 1 for stderr.
            data: What to write.
            spool: An earlier cell's; None for the current one, through the descriptor that C code uses too.

        Raises:
            OSError: User code put something else behind the descriptor, and that failed.
        """
        target = spool or self.spool
        if target is None:  # a forked child: its descriptors are all it has
            failure = write_all(index + 1, data)[1]
            if failure is not None and failure.errno not in _DISK_REFUSES:
                raise failure
            return
        target.note_write(index)
        done, error = write_all(spool.write_fd(index) if spool else index + 1, data)
        if error is not None and error.errno == errno.EBADF:  # user code closed the descriptor
            done, error = write_all(target.write_fd(index), data)
        if error is not None:
            if error.errno not in _DISK_REFUSES:
                raise error
            target.note_loss(index, len(data) - done, error)
        if self.on_write is not None:
            self.on_write()

    def put_routed(self, index: int, text: str) -> bool:
        """Write for a thread of an earlier cell; return False when this thread is none."""
        route: Route | None = threading.current_thread().__dict__.get(ROUTE)
        if route is None or route.spool is None:
            return False
        route.pieces[index].append(text)
        if "\n" in text or len(route.pieces[index]) > PIECES_AT_ONCE:
            self.commit_route(route)
        return True

    def commit_route(self, route: Route) -> None:
        """Write what a thread of an earlier cell has collected."""
        with self.lock:
            for index, pieces in enumerate(route.pieces):
                if pieces:
                    text = "".join(pieces)
                    pieces.clear()
                    self.put(index, _encode(text), route.spool)

    def commit(self) -> None:
        """Write what both streams have collected, half lines too."""
        for stream in self.streams:
            stream.commit()

    def note_flood(self) -> None:
        """Take care, once a flood has begun, that collected text is written before a child process writes."""
        if not self._watches_spawns:
            self._watches_spawns = True
            sys.addaudithook(self._before_spawn)

    def _before_spawn(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if event in _SPAWNS:
            self.commit()

    def abandon(self) -> None:
        """Become a plain writer to descriptors 1 and 2, in a forked child."""
        self.lock = threading.RLock()  # a thread of the parent may have held the old one
        self.spool = None
        self.routed = False
        self.on_write = None
        self.budget = sys.maxsize  # no drain thread lives here that would write what a flood collects
        self._interrupted = False
        for stream in self.streams:
            stream.forget()

    def postpone_interrupt(self, frame: FrameType | None) -> bool:
        """Postpone a KeyboardInterrupt that would tear a write apart.

        Args:
            frame: Where the signal handler found the main thread.

        Returns:
            Whether it was inside a write; KeyboardInterrupt is then raised at the end of that.
        """
        for _ in range(8):
            if frame is None:
                break
            if frame.f_code in _SHIELDED:
                self._interrupted = True
                return True
            frame = frame.f_back
        return False

    def raise_postponed(self) -> None:
        """Raise what `postpone_interrupt` postponed."""
        if self._interrupted and threading.current_thread() is threading.main_thread():
            self._interrupted = False
            raise KeyboardInterrupt


class Stream(io.TextIOWrapper):
    """A text stream that never fails on a full disk, and knows which cell a thread prints for."""

    def __init__(self, writer: Writer, index: int) -> None:
        super().__init__(
            cast("Any", RawStream(writer, index)),
            encoding="utf-8",
            errors="backslashreplace",
            newline="\n",
            line_buffering=True,
        )
        self.mode = "w"  # type: ignore[misc]  # read-only in typeshed; the interpreter itself sets it
        self._writer = writer
        self._index = index
        self._pieces: collections.deque[str] = collections.deque()

    def write(self, text: str, /) -> int:
        """Write text; a line is passed on when it is complete.

        Raises:
            TypeError: It is not a string.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        writer = self._writer
        if writer.routed and writer.put_routed(self._index, text):
            return len(text)
        pieces = self._pieces
        pieces.append(text)
        if "\n" in text:
            if writer.budget > 0:
                writer.budget -= 1
                if writer.budget == 0:
                    writer.note_flood()
                self.commit()
            else:  # of two streams only one may have collected lines, or their order would be lost
                writer.streams[1 - self._index].commit()
        if len(pieces) > PIECES_AT_ONCE or len(text) > io.DEFAULT_BUFFER_SIZE:
            self.commit()
        return len(text)

    def flush(self) -> None:
        """Pass on what was written, half lines too."""
        self.commit()

    def commit(self) -> None:
        """Write what was collected."""
        pieces = self._pieces
        if not pieces:
            return
        writer = self._writer
        with writer.lock:
            # Other threads go on appending; what is here now is taken.
            text = "".join([pieces.popleft() for _ in range(len(pieces))])
            writer.put(self._index, _encode(text))
        if writer._interrupted:
            writer.raise_postponed()

    def forget(self) -> None:
        """Drop what was collected: after a fork it is the parent's to write."""
        self._pieces.clear()

    def close(self) -> None:
        """Flush only: the stream is the kernel's, and the next cell will want to print."""
        self.flush()


class RawStream(io.RawIOBase):
    """`sys.stdout.buffer`: bytes, in order with the text."""

    mode = "wb"

    def __init__(self, writer: Writer, index: int) -> None:
        self._writer = writer
        self._index = index
        self.name = ("<stdout>", "<stderr>")[index]

    def write(self, data: Any, /) -> int:
        """Write bytes at once."""
        writer = self._writer
        data = bytes(data)
        with writer.lock:
            writer.streams[self._index].commit()
            writer.put(self._index, data)
        if writer._interrupted:
            writer.raise_postponed()
        return len(data)

    def writable(self) -> bool:
        """Say yes."""
        return True

    def fileno(self) -> int:
        """Return 1 or 2."""
        return self._index + 1

    def flush(self) -> None:
        """Write the text that was collected before."""
        self._writer.streams[self._index].commit()

    def close(self) -> None:
        """Do nothing: the stream is the kernel's."""


_SHIELDED = frozenset(function.__code__ for function in (Stream.commit, RawStream.write, Writer.commit_route))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
