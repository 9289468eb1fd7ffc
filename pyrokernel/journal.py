"""The journal of a kernel: an append-only, size-capped file of events that every front end reads from a cursor.

`Journal` writes, and answers the readers of a living kernel; `JournalReader` reads what
a dead one left. Nothing is synced to the platter: a journal survives kill -9 of its
process, not the fall of the machine. Runs in the kernel process and in the host process.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import itertools
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from pyrokernel import journal_files as files
from pyrokernel import systems
from pyrokernel.messages import Event, EventKind

READ_BYTES = 1024 * 1024
"""How much one read returns unless told otherwise."""

HEADER_SOURCE_CHARS = 64 * 1024
"""How much of the running cell's source a segment header repeats."""

_encoder = json.JSONEncoder(separators=(",", ":"))  # ASCII only, so that lone surrogates survive
_quoted = json.encoder.encode_basestring_ascii
_make_encoder = getattr(json.encoder, "c_make_encoder", None)
_encode_in_c = _make_encoder and _make_encoder(None, _encoder.default, _quoted, None, ":", ",", False, False, True)

_STARTED, _ENDED = EventKind.STARTED.value, EventKind.ENDED.value
_MARK_BYTES = len(files.EVENT_MARK)

_Entry = tuple[int, int, str, str, float, dict[str, Any]]
"""One event in the ring: seq, size, kind, cell, at, data."""


class Journal:
    """The writer of one instance's journal; safe for many threads.

    The newest events are also held in memory (the ring), where followers find them.
    While the disk refuses, they stay there and are written later; those that the ring
    had to let go of meanwhile are a gap for readers.

    Attributes:
        directory: Where the segments are.
        cap_bytes: Most bytes on disk.
        disk_error: Why the last write failed, "" when it succeeded.
        due: What a signal handler raised in the middle of `append`, which it must not tear apart, to be raised
            at its end.
    """

    def __init__(self, directory: Path, *, cap_bytes: int = 64 * 1024 * 1024, ring_bytes: int = 1024 * 1024) -> None:
        self.directory = directory = directory.absolute()  # user code may change the working directory
        self.disk_error = ""
        self.due: BaseException | None = None
        self.cap_bytes = cap_bytes
        self._segment_bytes = max(cap_bytes // 8, 1)
        self._ring_bytes = ring_bytes
        self._ring: collections.deque[_Entry] = collections.deque()
        self._ring_used = 0
        self._lock: Any = threading.RLock()  # reentrant: signal handlers append too
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._closed = False
        self._running: dict[str, Any] | None = None
        self._fd = self._mark_fd = -1
        self._size = 0
        self._header = ""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._segments = [(first, path, path.stat().st_size) for first, path in files.list_segments(directory)]
        self._last = self._written = JournalReader(directory).last_seq if self._segments else 0

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event, 0 when there is none."""
        return self._last

    def append(self, kind: EventKind | str, /, cell: str = "", **data: Any) -> int:
        """Add an event and wake those who wait for it.

        Args:
            kind: What it reports.
            cell: The cell it belongs to.
            data: Plain data; the journal keeps it, so it must not be changed afterwards.

        Returns:
            Its sequence number.

        Raises:
            TypeError: The data is not plain. A disk that refuses raises nothing, see `disk_error`.
        """
        try:  # one function, because signal handlers find in their frames whether it is being executed
            kind, at = str(kind), int(time.time() * 1e6) / 1e6
            body = _encode(kind, cell, at, data)
            size = len(body) + _MARK_BYTES
            with self._lock:
                # One step as far as signal handlers go, which may append too.
                seq = self._last = self._last + 1
                self._ring.append((seq, size, kind, cell, at, data))
                self._ring_used += size
                if not self._closed:
                    self._store(seq, body)
                while self._ring_used > self._ring_bytes and len(self._ring) > 1:
                    self._ring_used -= self._ring.popleft()[1]
                if kind == _STARTED:
                    source = str(data.get("source", ""))[:HEADER_SOURCE_CHARS]
                    self._running = {"cell": cell, "source": source, "started": at}
                elif kind == _ENDED:
                    self._running = None
                if self._waiting:
                    self._changed.notify_all()
            return seq
        finally:
            if self.due is not None and in_main_thread():
                due, self.due = self.due, None
                raise due

    def note_chunk(self, first: str, chunk: str) -> bool:
        """Note that another chunk runs of the burst that began with the cell `first`; False if the disk refuses.

        Written over the note before: what was running at a death is all that it is for.
        """
        try:
            if self._mark_fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | systems.OWN
                self._mark_fd = os.open(self.directory / files.MARK, flags, 0o600)
            mark = (first + chunk).encode("ascii")
            return systems.pwrite(self._mark_fd, mark, 0) == len(mark)
        except OSError as error:
            self.disk_error = str(error)
            return False

    def read(self, after: int, *, max_bytes: int = READ_BYTES, cell: str | None = None) -> list[Event]:
        """Return the events that follow number `after`, at least one if there is any.

        Args:
            after: Sequence number of the last event already known, 0 for none.
            max_bytes: Stop once this much was read.
            cell: Only events of this cell; gaps are reported in any case.

        Returns:
            Events in order, shape (n_events,). Where some are missing for ever a "gap" event stands,
            whose number is that of the last one missing.
        """
        after = max(after, 0)
        while True:
            with self._lock:
                first = self._ring[0][0] if self._ring else self._last + 1
                if after + 1 >= first:
                    return self._from_ring(after, max_bytes, cell)
            events, after = files.read_events(self.directory, after, max_bytes, cell)
            if events:
                return events
            with self._lock:
                # What is in neither place is lost, unless it went from the ring to the disk just now.
                if after + 1 < first == (self._ring[0][0] if self._ring else self._last + 1):
                    reason = self.disk_error or "older than the cap of the journal"
                    return [files.gap_event(after + 1, first - 1, reason)]

    def wait(self, after: int, timeout: float) -> bool:
        """Wait until an event with a number above `after` exists.

        Returns:
            Whether it does; False after `timeout` seconds, or when the journal was closed.
        """
        with self._lock:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._last > after or self._closed, timeout)
            finally:
                self._waiting -= 1
            return self._last > after

    def close(self) -> None:
        """Close the file and wake all who wait; what is appended later is only in memory."""
        with self._lock:
            self._closed = True
            self._close_segment()
            self._changed.notify_all()

    def abandon_in_child(self) -> None:
        """Forget the file in a forked child: the journal belongs to the parent."""
        self._lock = threading.RLock()  # a thread of the parent may have held the old one
        self._changed = threading.Condition(self._lock)
        self._closed = True
        self._close_segment()

    def _from_ring(self, after: int, max_bytes: int, cell: str | None) -> list[Event]:
        if after >= self._last:
            return []
        events: list[Event] = []
        taken = 0
        for seq, size, kind, owner, at, data in itertools.islice(self._ring, after + 1 - self._ring[0][0], None):
            if cell is None or owner == cell:
                events.append(Event(seq=seq, kind=kind, cell=owner, at=at, data=data))
                taken += size
                if taken >= max_bytes:
                    break
        return events

    def _store(self, seq: int, body: str) -> None:
        """Write an event, after those that an earlier failure left unwritten."""
        if seq <= self._written:
            return
        try:
            if self._written < seq - 1:
                self._store_missed(seq)
            self._write(seq, body)
        except OSError as error:
            self.disk_error = str(error)
        else:
            self._written = seq
            self.disk_error = ""

    def _store_missed(self, before: int) -> None:
        for seq, _, kind, cell, at, data in list(self._ring):
            if self._written < seq < before:
                self._write(seq, _encode(kind, cell, at, data))
                self._written = seq

    def _write(self, seq: int, body: str) -> None:
        """Write an event, its number in front of it."""
        if self._fd < 0 or self._size >= self._segment_bytes:
            self._roll(seq)
        line = f'{self._header}{{"seq":{seq},{body[1:]}\n'.encode("ascii")
        try:
            self._write_whole(line)
        except OSError as error:
            if error.errno != errno.EFBIG or self._size == 0:
                raise
            # The user lowered RLIMIT_FSIZE below the size of a segment: go on in smaller ones.
            self._roll(seq)
            self._write_whole(self._header.encode("ascii") + line)
        self._header = ""

    def _write_whole(self, data: bytes) -> None:
        """Write all of `data` or, when that fails, none of it."""
        done = 0
        try:
            done = os.write(self._fd, data)
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            if done:
                try:
                    os.ftruncate(self._fd, self._size)
                except OSError:
                    self._close_segment()  # half a line stays at its end, so the next one needs a new segment
            raise
        self._size += len(data)

    def _roll(self, first: int) -> None:
        """Start the segment whose first event will have number `first`, and delete what is beyond the cap."""
        self._close_segment()
        path = files.segment_path(self.directory, first)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | systems.OWN, 0o600)
        self._header = f'{{"running":{_encoder.encode(self._running)},"first":{first}}}\n'
        total = sum(size for _, _, size in self._segments)
        while self._segments and total + self._segment_bytes > self.cap_bytes:
            _, oldest, size = self._segments.pop(0)
            with contextlib.suppress(OSError):  # somebody tidied up by hand, or the file system is read-only
                oldest.unlink()
            total -= size
        self._first = first

    def _close_segment(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            if self._size:
                self._segments.append((self._first, files.segment_path(self.directory, self._first), self._size))
        self._fd = -1
        self._size = 0


def in_main_thread() -> bool:
    """Tell whether the caller is the main thread, the only one that KeyboardInterrupt is for."""
    return threading.current_thread() is threading.main_thread()


def _encode(kind: str, cell: str, at: float, data: dict[str, Any]) -> str:
    """Return an event as JSON, without its number."""
    # What `JSONEncoder.encode` does but for making the same C encoder anew each time.
    text = _encoder.encode(data) if _encode_in_c is None else "".join(_encode_in_c(data, 0))
    return f'{{"kind":{_quoted(kind)},"cell":{_quoted(cell)},"at":{at!r},"data":{text}}}'


class JournalReader:
    """Reads the journal of an instance that is dead, also one that fell in the middle of a line.

    Output that the kernel had captured and not yet put into its journal follows as
    further output events, with the numbers that come next.

    Args:
        directory: Directory of the journal; it may be empty or missing.
        waiting_bytes: How much captured output to add at most, per file; 0 for a journal that still lives.
    """

    def __init__(self, directory: Path, *, waiting_bytes: int = 1024 * 1024) -> None:
        self._directory = directory
        self._waiting_bytes = waiting_bytes
        self._waiting: list[Event] | None = None

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event on disk, 0 when there is none."""
        return next(filter(None, map(files.parse_seq, files.lines_backwards(self._directory))), 0)

    def read(self, after: int, *, max_bytes: int = READ_BYTES, cell: str | None = None) -> list[Event]:
        """Return the events that follow number `after`, as `Journal.read` does."""
        events, _ = files.read_events(self._directory, max(after, 0), max_bytes, cell)
        return events or [
            event for event in self._read_waiting() if event.seq > after and (cell is None or event.cell == cell)
        ]

    def last_cell(self) -> dict[str, Any] | None:
        """Return the cell that was running as `{"cell", "source", "started"}`, None when none was."""
        found = files.running_cell(files.lines_backwards(self._directory))
        return found and {**found, "cell": files.read_mark(self._directory, found["cell"])}

    def tail_text(self, max_bytes: int = 4096) -> str:
        """Return the end of what was written, at most `max_bytes` of UTF-8, of both streams."""
        texts = [str(event.data["text"]) for event in reversed(self._read_waiting()) if "text" in event.data]
        used = sum(map(len, texts))
        for line in files.lines_backwards(self._directory):
            if used >= max_bytes:
                break
            if b'"kind":"output"' in line:
                event = files.parse_event(line)
                if event is not None:
                    texts.append(str(event.data.get("text", "")))
                    used += len(texts[-1])
        tail = "".join(reversed(texts)).encode("utf-8", "backslashreplace")[-max_bytes:] if max_bytes > 0 else b""
        return tail.decode("utf-8", "ignore")

    def _read_waiting(self) -> list[Event]:
        """Make events of the bytes left in the captures; read once, for the dead write no more."""
        if self._waiting is None:
            found = files.read_waiting(self._directory, self._waiting_bytes) if self._waiting_bytes else []
            seq = self.last_seq if found else 0
            running = (self.last_cell() or {}).get("cell", "") if found else ""
            at = time.time()
            self._waiting = []
            for stream, cell, data, lost in found:
                owner = running if cell is None else cell
                if lost:
                    seq += 1
                    gap = {"reason": "too much was waiting when the kernel died", "stream": stream, "lost_bytes": lost}
                    self._waiting.append(Event(seq=seq, kind=EventKind.GAP.value, cell=owner, at=at, data=gap))
                seq += 1
                text = data.decode("utf-8", "replace")
                output = {"stream": stream, "text": text, "late": cell is not None or not running}
                self._waiting.append(Event(seq=seq, kind=EventKind.OUTPUT.value, cell=owner, at=at, data=output))
        return self._waiting
