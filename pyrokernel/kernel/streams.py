"""The text and byte streams that stand in for `sys.stdout` and `sys.stderr`. Runs in the kernel process.

What does not work: a `write` in Python, which print() calls twice for every line, costs
more than the system call it saves. An `io.BufferedWriter` below the text raises
RuntimeError when a signal handler prints while its thread prints. With Python code, or
anything that lets go of the GIL, called from the middle of `TextIOWrapper.write`, text of
other threads is lost (https://github.com/python/cpython/issues/119506): hence a sink
whose `write` is the `append` of a deque.
"""

from __future__ import annotations

import collections
import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pyrokernel.kernel.spool import STREAMS

if TYPE_CHECKING:
    from pyrokernel.kernel.writer import Writer

LINES_AT_ONCE = 1000
"""Lines that are written one by one before the rest counts as a flood."""


class Sink:
    """What a text stream passes its lines to: a list that C code appends to, and a flush that writes it out.

    Taking text from the stream and appending it is one atomic step, so that lines keep
    their order whichever thread passes them on.

    Attributes:
        count: Lines without a pause.
        counted: How many of them there were at the last look.
    """

    closed = False

    def __init__(self, writer: Writer, index: int) -> None:
        self.name = f"<{STREAMS[index]}>"
        self.pieces: collections.deque[bytes] = collections.deque()
        self.write: Callable[[bytes], Any] = self.pieces.append
        self.count = self.counted = 0
        self.index = index
        self._writer = writer

    def flush(self) -> None:
        """Write out: called after every line, unless there is a flood."""
        writer = self._writer
        flooding = writer.flooding
        if not self.pieces and flooding is None:
            return
        self.count += 1
        if flooding is not None and flooding is not self:
            writer.streams[flooding.index].flush()  # what that one has collected is older
        writer.commit(self.index)
        if self.count > LINES_AT_ONCE and flooding is None:
            writer.begin_flood(self)

    def fileno(self) -> int:
        """Return 1 or 2."""
        return self.index + 1

    def readable(self) -> bool:
        """Say no."""
        return False

    def writable(self) -> bool:
        """Say yes."""
        return True

    seekable = isatty = readable


class Stream(io.TextIOWrapper):
    """A text stream that never fails on a full disk and cannot be closed: the next cell will want to print."""

    closed = False  # not a property here, because every write in C looks it up
    mode = "w"

    def __init__(self, writer: Writer, index: int) -> None:
        self._writer = writer
        self._index = index
        self._raw = RawStream(writer, index)
        super().__init__(
            cast("Any", writer.sinks[index]), "utf-8", errors="backslashreplace", newline="\n", line_buffering=True
        )

    @property
    def buffer(self) -> Any:
        """The stream of bytes."""
        return self._raw

    def flush(self) -> None:
        """Write out everything, half lines too."""
        super().flush()
        self._writer.commit(self._index)

    def forget(self) -> None:
        """Drop what was not written yet: after a fork it is the parent's to write."""
        sink = self._writer.sinks[self._index]
        sink.pieces.clear()
        sink.write = len
        super().flush()
        sink.write = sink.pieces.append
        self.reconfigure(line_buffering=True)
        sink.count = -sys.maxsize  # no drain thread lives here that would write what a flood collects

    def close(self) -> None:
        """Flush only."""
        self.flush()


class RawStream(io.RawIOBase):
    """`sys.stdout.buffer`: bytes, in order with the text."""

    mode = "wb"

    def __init__(self, writer: Writer, index: int) -> None:
        self.name = f"<{STREAMS[index]}>"
        self._writer = writer
        self._index = index

    def write(self, data: Any, /) -> int:
        """Write bytes at once."""
        self.flush()
        data = bytes(data)
        self._writer.sinks[self._index].pieces.append(data)
        self._writer.commit(self._index)
        return len(data)

    def flush(self) -> None:
        """Write the text that came before."""
        if hasattr(self, "_writer"):  # not while the interpreter tears the object down
            self._writer.streams[self._index].flush()

    def writable(self) -> bool:
        """Say yes."""
        return True

    def fileno(self) -> int:
        """Return 1 or 2."""
        return self._index + 1

    def close(self) -> None:
        """Do nothing: the stream is the kernel's."""
