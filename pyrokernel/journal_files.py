"""How a journal looks on disk: segments of event lines, and captured output that waits beside them.

A directory belongs to one instance of a kernel::

    events-000001.jsonl     a segment; the number is that of its first event
    capture-1.out, .err     what was written to descriptors 1 and 2
    captures.pos            how far each capture has been read into the journal

An event is one line of ASCII JSON that begins with its sequence number, so that a
reader finds its place by bisection without parsing. The first line of a segment is a
header instead; it repeats the cell that was running, because the event that told of
its start may have been deleted by the cap. Runs in the kernel process and in the host process.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyrokernel import systems
from pyrokernel.messages import Event, EventKind

EVENT_MARK = b'{"seq":'
"""How the line of an event begins; a header or a damaged line begins otherwise."""

MARK = "chunk"
"""File with the ids of the first and of the last chunk that ran of a burst, one behind the other."""

POSITIONS = "captures.pos"
"""Name of the file of capture positions."""

BLOCK_BYTES = 64 * 1024

_POSITION = struct.Struct("<QQ48s")


class Waiting(NamedTuple):
    """Captured bytes that never reached the journal.

    Attributes:
        stream: "stdout" or "stderr".
        cell: Cell they belong to; None for whichever was running.
        data: The bytes, cut at the front.
        lost_bytes: How many were cut.
    """

    stream: str
    cell: str | None
    data: bytes
    lost_bytes: int


def segment_path(directory: Path, first: int) -> Path:
    """Return the path of the segment whose first event has that number."""
    return directory / f"events-{first:06d}.jsonl"


def list_segments(directory: Path) -> list[tuple[int, Path]]:
    """Return first sequence number and path of every segment, oldest first; empty when there is no directory."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in directory.iterdir():
            number = path.name.removeprefix("events-").removesuffix(".jsonl")
            if path.name.startswith("events-") and path.suffix == ".jsonl" and number.isdecimal():
                found.append((int(number), path))
    return sorted(found)


def parse_seq(line: bytes) -> int:
    """Return the sequence number of a line, 0 when it is not an event."""
    if not line.startswith(EVENT_MARK):
        return 0
    digits = line[len(EVENT_MARK) : line.find(b",", len(EVENT_MARK))]
    return int(digits) if digits.isdigit() else 0


def parse_event(line: bytes) -> Event | None:
    """Rebuild an event from its line, None when the line is damaged."""
    try:
        return Event.from_wire(json.loads(line))
    except (ValueError, TypeError):
        return None


def gap_event(first: int, last: int, reason: str, at: float = 0.0) -> Event:
    """Make the event that stands for missing ones."""
    return Event(seq=last, kind=EventKind.GAP.value, at=at, data={"first": first, "last": last, "reason": reason})


def read_events(directory: Path, after: int, max_bytes: int, cell: str | None = None) -> tuple[list[Event], int]:
    """Read complete events from the segments; holes between them become gap events.

    Args:
        directory: Directory of the journal.
        after: Sequence number of the last event already known.
        max_bytes: Stop once this much was read; at least one event is returned if there is any.
        cell: Only events of this cell, and gaps.

    Returns:
        The events, and the number up to which the segments were read.
    """
    events: list[Event] = []
    segments = list_segments(directory)
    start = max((place for place, (first, _) in enumerate(segments) if first <= after + 1), default=0)
    needle = b"" if cell is None else b'"cell":' + json.dumps(cell).encode()
    expected = after + 1
    taken = 0
    for _, path in segments[start:]:
        for line in _lines_after(path, after):
            event = None
            seq = parse_seq(line)
            if seq < expected:
                continue  # written twice: a signal handler appended in the middle of an append
            if needle in line or seq != expected:
                event = parse_event(line)
                if event is None:
                    continue
                if event.seq > expected:
                    deleted = expected < segments[0][0]
                    reason = "older than the cap of the journal" if deleted else "could not be written to disk"
                    events.append(gap_event(expected, event.seq - 1, reason, event.at))
            expected = seq + 1
            if event is not None and (cell is None or event.cell == cell):
                events.append(event)
                taken += len(line)
                if taken >= max_bytes:
                    return events, expected - 1
    return events, expected - 1


def _lines_after(path: Path, after: int) -> Iterator[bytes]:
    """Yield the complete event lines of one segment with a number above `after`."""
    try:
        file = path.open("rb", buffering=BLOCK_BYTES)
    except FileNotFoundError:
        return  # deleted by the cap since it was listed; the hole becomes a gap event
    with file:
        fd = file.fileno()
        file.seek(_bisect(fd, after, os.fstat(fd).st_size))
        for line in file:
            if not line.endswith(b"\n"):
                return  # still being written, or the kernel died writing it
            if parse_seq(line) > after:
                yield line


def _bisect(fd: int, after: int, size: int) -> int:
    """Return an offset where a line starts, at most some blocks before the first event above `after`."""
    low, high = 0, size
    while high - low > BLOCK_BYTES:
        middle = (low + high) // 2
        start = _next_line(fd, middle, high)
        seq = parse_seq(systems.pread(fd, 40, start)) if start < high else 0
        if 0 < seq <= after:
            low = start
        else:
            high = middle
    return low


def _next_line(fd: int, offset: int, limit: int) -> int:
    """Return where the first line after `offset` starts, `limit` when there is none before it."""
    while offset < limit:
        block = systems.pread(fd, BLOCK_BYTES, offset)
        if not block:
            break
        found = block.find(b"\n")
        if found >= 0:
            return min(offset + found + 1, limit)
        offset += len(block)
    return limit


def lines_backwards(directory: Path) -> Iterator[bytes]:
    """Yield the complete lines of all segments, headers included, newest first."""
    for _, path in reversed(list_segments(directory)):
        try:
            fd = os.open(path, os.O_RDONLY | systems.OWN)
        except FileNotFoundError:
            continue
        try:
            yield from _segment_backwards(fd)
        finally:
            os.close(fd)


def _segment_backwards(fd: int) -> Iterator[bytes]:
    offset = os.lseek(fd, 0, os.SEEK_END)
    later: list[bytes] = []  # pieces of the line that the last block began in the middle of, last piece first
    complete = False  # whether the line being collected ends with a newline
    while offset > 0:
        size = min(BLOCK_BYTES, offset)
        offset -= size
        *starts, last = systems.pread(fd, size, offset).split(b"\n")
        later.append(last)
        while starts:
            if complete:
                yield b"".join(reversed(later))
            complete = True
            later = [starts.pop()]
    if complete:
        yield b"".join(reversed(later))


def capture_path(directory: Path, number: int, stream: str) -> Path:
    """Return the path of a capture file."""
    return directory / f"capture-{number}.{'out' if stream == 'stdout' else 'err'}"


def pack_position(number: int, out: int, err: int, cell: str = "") -> tuple[bytes, int]:
    """Return the record of a capture, and its offset in the file of positions.

    Args:
        number: Number of the capture; 0 for the record that names the current one in `out`.
        out: Bytes of its standard output that are in the journal.
        err: Bytes of its standard error that are in the journal.
        cell: Cell of a capture that is no longer the current one, "" for the current one.
    """
    return _POSITION.pack(out, err, cell.encode("utf-8", "replace")[:48]), number * _POSITION.size


def read_waiting(directory: Path, max_bytes: int) -> list[Waiting]:
    """Read what the captures of a dead kernel hold beyond the journal, captures of earlier cells first."""
    try:
        table = (directory / POSITIONS).read_bytes()
    except FileNotFoundError:
        return []
    records = list(_POSITION.iter_unpack(table[: len(table) // _POSITION.size * _POSITION.size]))
    if not records:
        return []
    current = records[0][0]
    waiting = []
    for number in sorted(range(1, len(records)), key=lambda number: number == current):
        out, err, cell = records[number]
        name = None if number == current else cell.rstrip(b"\0").decode("utf-8", "replace")
        for stream, position in (("stdout", out), ("stderr", err)):
            data, lost = _read_from(capture_path(directory, number, stream), position, max_bytes)
            if data:
                waiting.append(Waiting(stream, name, data, lost))
    return waiting


def _read_from(path: Path, position: int, max_bytes: int) -> tuple[bytes, int]:
    """Return the end of a file from `position`, and how many bytes before it were left out."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = max(position, size - max_bytes)
        file.seek(start)
        return file.read(max_bytes), start - position
    return b"", 0


def read_mark(directory: Path, cell: str) -> str:
    """Return which chunk of a burst ran last that began with this cell; the cell itself where there was none."""
    try:
        mark = (directory / MARK).read_bytes().decode("ascii")
    except (OSError, UnicodeDecodeError):
        return cell
    first, chunk = mark[: len(cell)], mark[len(cell) :]
    return chunk if first == cell and len(chunk) == len(cell) else cell


def running_cell(lines: Iterator[bytes]) -> dict[str, Any] | None:
    """Find the cell that had started and not ended, from lines newest first."""
    for line in lines:
        if line.startswith(b'{"running":'):
            with contextlib.suppress(ValueError):
                found = json.loads(line)["running"]
                return found if isinstance(found, dict) else None
        if b'"kind":"started"' in line or b'"kind":"ended"' in line:
            event = parse_event(line)
            if event is not None and event.kind == EventKind.STARTED:
                return {"cell": event.cell, "source": str(event.data.get("source", "")), "started": event.at}
            if event is not None and event.kind == EventKind.ENDED:
                return None
    return None
