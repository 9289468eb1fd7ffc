"""A spool: two files that stand behind descriptors 1 and 2 and are read into the journal from there.

Files, not pipes: a C call that holds the GIL and writes 300 kB would fill a pipe that
nobody in this process can empty. What was read is given back to the file system. Runs in the kernel process.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pyrokernel import journal_files, systems
from pyrokernel.kernel import clib

STREAMS = ("stdout", "stderr")

PUNCH_BYTES = 8 * 1024 * 1024
"""So much may be read before its space is given back."""

READ_BYTES = 64 * 1024
"""Most bytes of one output event."""

_new_decoder = codecs.getincrementaldecoder("utf-8")

Emit = Callable[[str, str], None]
"""Takes the name of a stream and some text."""


class Side:
    """One of the two files, and how far it was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_fd = -1
        self.read_to = 0
        self.punched_to = 0
        self.lost_bytes = 0
        self.lost_reason = ""
        self.half_bytes = 0
        self.decoder = _new_decoder("replace")

    def size(self) -> int:
        """Return how many bytes were written so far."""
        return os.lseek(self.read_fd, 0, os.SEEK_END)

    def journalled(self) -> int:
        """Return how many bytes were emitted: those read, less a character that is only half here."""
        return self.read_to - self.half_bytes


class Spool:
    """The files of one or more cells whose output nobody else can write to.

    Args:
        directory: Where the files are put.
        number: Number in the file names.
        most_unread: Bytes that may wait to be read; beyond, the front is left out.

    Attributes:
        number: Number in the file names.
        cell: Whom the output belongs to.
        has_half: Whether a stream may end in the middle of a character.
        sides: The files of stdout and stderr.
    """

    def __init__(self, directory: Path, number: int, most_unread: int = 64 * 1024 * 1024) -> None:
        self.number = number
        self._most_unread = most_unread
        self.cell = ""
        self.has_half = False
        self.sides = (
            Side(journal_files.capture_path(directory, number, "stdout")),
            Side(journal_files.capture_path(directory, number, "stderr")),
        )
        self._write_fds: list[int] = []
        # Python alone knows in which order it wrote to the two files. A mark ends a stretch in
        # which `writer` wrote first and then, if at all, others to the other file.
        self._marks: collections.deque[tuple[int, int, int]] = collections.deque()
        self._writer = 0
        self._other_size = 0
        try:
            for side in self.sides:
                os.close(os.open(side.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | systems.OWN, 0o600))
                side.read_fd = os.open(side.path, os.O_RDONLY | systems.OWN)
        except OSError:
            self.close()
            raise

    def attach(self) -> None:
        """Put the files behind descriptors 1 and 2.

        Raises:
            OSError: They cannot be opened; the descriptors are as before.
        """
        opened: list[int] = []
        try:
            for side in self.sides:
                opened.append(_open_append(side.path))  # noqa: PERF401  those already open must be closed if one fails
            for descriptor, fd in zip((1, 2), opened, strict=True):
                os.dup2(fd, descriptor)
        finally:
            for fd in opened:
                os.close(fd)

    def write_fd(self, index: int) -> int:
        """Return a descriptor of its own for a file that is not behind 1 or 2 any more."""
        if not self._write_fds:
            self._write_fds = [_open_append(side.path) for side in self.sides]
        return self._write_fds[index]

    def close_write_fds(self) -> None:
        """Close what `write_fd` opened."""
        while self._write_fds:
            os.close(self._write_fds.pop())

    def note_write(self, index: int) -> None:
        """Remember, before Python writes to one file, how much is in the other."""
        other = os.lseek(self.sides[1 - index].read_fd, 0, os.SEEK_END)
        if index != self._writer or other != self._other_size:
            own = self.sides[index].size()
            self._marks.append((self._writer, own, other) if index == 0 else (self._writer, other, own))
            self._writer = index
            self._other_size = other

    def note_loss(self, index: int, lost_bytes: int, error: OSError) -> None:
        """Remember that Python could not write so many bytes."""
        side = self.sides[index]
        side.lost_bytes += lost_bytes
        side.lost_reason = error.strerror or str(error)

    def has_news(self) -> bool:
        """Tell whether something was written or lost since the last `read`."""
        out, err = self.sides
        return (
            os.lseek(out.read_fd, 0, os.SEEK_END) != out.read_to
            or os.lseek(err.read_fd, 0, os.SEEK_END) != err.read_to
            or out.lost_bytes > 0
            or err.lost_bytes > 0
        )

    def read(self, emit: Emit, lock: AbstractContextManager[Any]) -> None:
        """Emit what is new, in the order in which it was written as far as Python knows it.

        Args:
            emit: Takes the text.
            lock: Held by whoever calls `note_write` until the bytes are written.
        """
        with lock:
            marks = [self._marks.popleft() for _ in range(len(self._marks))]
            marks.append((self._writer, self.sides[0].size(), self.sides[1].size()))
        for side, size in zip(self.sides, marks[-1][1:], strict=True):
            self._skip(side, size)
        for writer, *sizes in marks:
            for index in (writer, 1 - writer):
                self._read_side(index, sizes[index], emit)
        for side in self.sides:
            if side.read_to - side.punched_to >= PUNCH_BYTES:
                self._free(side, lock)

    def _skip(self, side: Side, size: int) -> None:
        """Leave out the front of what was written much faster than it can be read."""
        if size - side.read_to > self._most_unread:
            start = size - self._most_unread // 2
            side.lost_bytes += start - side.read_to
            side.lost_reason = "written faster than it can be read"
            side.read_to = start
            side.half_bytes = 0
            side.decoder.reset()

    def _read_side(self, index: int, end: int, emit: Emit) -> None:
        side = self.sides[index]
        while side.read_to < end:
            data = systems.pread(side.read_fd, min(end - side.read_to, READ_BYTES), side.read_to)
            if not data:  # somebody truncated the file
                side.read_to = side.size()
                return
            side.read_to += len(data)
            text = side.decoder.decode(data)
            side.half_bytes = len(side.decoder.getstate()[0])
            self.has_half = self.has_half or side.half_bytes > 0
            if text:
                emit(STREAMS[index], text)

    def finish_characters(self, emit: Emit) -> None:
        """Emit a half character at the end of a stream: the cell that wrote it is over."""
        self.has_half = False
        for stream, side in zip(STREAMS, self.sides, strict=True):
            if side.half_bytes:
                side.half_bytes = 0
                emit(stream, side.decoder.decode(b"", final=True))

    def take_losses(self) -> list[tuple[str, int, str]]:
        """Return stream, bytes and reason of what could not be written, and forget it."""
        losses = []
        for stream, side in zip(STREAMS, self.sides, strict=True):
            if side.lost_bytes:
                losses.append((stream, side.lost_bytes, side.lost_reason))
                side.lost_bytes = 0
        return losses

    def _free(self, side: Side, lock: AbstractContextManager[Any]) -> None:
        """Give the space of what was read back to the file system."""
        with contextlib.suppress(OSError):
            fd = os.open(side.path, os.O_WRONLY | systems.OWN)
            try:
                if clib.punch_hole(fd, side.read_to):
                    side.punched_to = side.read_to
                    return
                with lock:
                    # Bytes that another process writes between these two lines are lost; there is no better way
                    # on a file system without holes (NFS before 4.2).
                    if side.size() == side.read_to:
                        os.ftruncate(fd, 0)
                        side.read_to = side.punched_to = 0
                        self._other_size = -1
            finally:
                os.close(fd)

    def has_writers(self) -> bool:
        """Tell whether any process can still write; true when the system cannot say.

        A read lease is granted only when nobody has the file open for writing; see fcntl(2).
        """
        fcntl = systems.file_control()
        if self._write_fds or not hasattr(fcntl, "F_SETLEASE"):
            return True
        try:
            for side in self.sides:
                # Should somebody open the file in the instant the lease is held, SIGURG is ignored; SIGIO would kill.
                fcntl.fcntl(side.read_fd, fcntl.F_SETSIG, signal.SIGURG)
                fcntl.fcntl(side.read_fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(side.read_fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return True
        return False

    def reset(self) -> None:
        """Empty the files of a spool without writers, for another use.

        Raises:
            OSError: The file system refuses.
        """
        for side in self.sides:
            os.truncate(side.path, 0)
            side.read_to = side.punched_to = 0
            side.half_bytes = 0
            side.decoder.reset()
        self._marks.clear()
        self._writer = self._other_size = 0

    def close(self, *, delete: bool = False) -> None:
        """Close the descriptors, and delete the files if asked."""
        self.close_write_fds()
        for side in self.sides:
            if side.read_fd >= 0:
                os.close(side.read_fd)
                side.read_fd = -1
            if delete:
                with contextlib.suppress(FileNotFoundError):
                    side.path.unlink()


def write_all(fd: int, data: bytes) -> tuple[int, OSError | None]:
    """Write all of `data`; return how many bytes that was, and the error that stopped it before the end."""
    done = 0
    try:
        while done < len(data):
            done += os.write(fd, data[done:] if done else data)
    except OSError as error:
        return done, error
    return done, None


def _open_append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | systems.OWN)
