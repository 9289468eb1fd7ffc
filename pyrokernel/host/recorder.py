"""Writes down who ran what, from the journals of the kernels. Runs in the host process, on a thread of its own.

A kernel does nothing for it: each cell is in its journal anyway, on disk before it runs, and stays there when the
kernel or this host is killed. What is behind the last line of the record about an instance is read when there is time:
the record says itself how far it goes, and a host that takes over goes on from there. Only where a journal has dropped
its oldest events by its cap before they were read, or where its lines are damaged, is something missing, and then the
record says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyrokernel.audit import AuditFile, entry, whose
from pyrokernel.journal_files import list_segments, parse_seq
from pyrokernel.messages import Death

log = logging.getLogger(__name__)

SOURCE_CHARS = 400
"""Of what was run; the journal has all of it."""

_BUSY_SECONDS, _IDLE_SECONDS = 1.0, 4.0
"""How often journals are looked at that grow, and that do not: a flood of output fills one in more than that."""
_BLOCK_BYTES = 4 * 1024 * 1024
_TOLD = re.compile(
    rb'^\{"seq":\d+,"kind":"(started|ended)","cell":"(\w*)","at":([0-9.]+),"data":(\{.*\})\}\n', re.MULTILINE
)
_NUMBERED = re.compile(rb'^\{"seq":\d', re.MULTILINE)
_ENDED = re.compile(rb'\{"status": ?"(\w*)", ?"duration": ?([0-9.e+-]+)')
_LAST_FIELD = b'"execution_count"'
"""Of what begins; the others are alike in like cells."""
_WHERE_FROM = ("kind", "via", "through")
"""What an event says of an author who is not this account."""
_UPTO = re.compile(rb'"instance":"([0-9a-f]+)".*"upto":(\d+)')


@dataclasses.dataclass(eq=False)
class _Reading:
    """How far the journal of one instance was read.

    Attributes:
        kernel, directory: Whose, and where.
        upto: Number of the last event.
        recorded: Number of the last event of which the record knows.
        segment, offset: Where the last one ends.
        changed: Time stamp that the directory had then.
        running: Records of cells that have begun, by id.
        over: It is of an instance that has ended, and was read to its end.
    """

    kernel: str
    directory: Path
    upto: int = 0
    recorded: int = 0
    segment: Path | None = None
    offset: int = 0
    changed: int = 0
    running: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    over: bool = False

    @property
    def instance(self) -> str:
        """Which."""
        return self.directory.name

    @property
    def is_up_to_date(self) -> bool:
        """Whether nothing has come since: no new segment, and the last one is as long as it was."""
        if self.segment is None or _changed(self.directory) != self.changed:
            return False
        return self.segment.stat().st_size == self.offset


class Recorder:
    """Keeps the record.

    Args:
        record: Where it is written.
        journals: Directory of the journals of all kernels.
    """

    def __init__(self, record: AuditFile, journals: Path) -> None:
        self.record, self._journals = record, journals
        record.header = self._known
        self._readings: dict[str, _Reading] = {}
        self._upto: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pyrokernel-audit", daemon=True)

    def start(self) -> None:
        """Begin, if there is to be a record."""
        if self.record.kept:
            self.record.create()
            self._thread.start()

    def close(self) -> None:
        """Write down what there is, and end."""
        if self._thread.is_alive():
            self._closing.set()
            self._thread.join()
            self.catch_up()

    def note(self, what: str, peer: Any, **fields: Any) -> None:
        """Write down what somebody asked of the host.

        Args:
            what: "start", say.
            peer: Who.
            fields: What else is to be known.
        """
        self.record.append([entry(what, None, **whose(peer), **fields)])

    def on_death(self, death: Death) -> None:
        """Write down that a kernel has ended."""
        running = (death.last_cell or {}).get("cell", "")
        how = {"cause": death.cause, "asked": bool(death.asked), "cell": running}
        self.record.append([entry("death", death.at, kernel=death.kernel, instance=death.instance, **how)])

    def catch_up(self) -> bool:
        """Read what the journals have beyond the record; say whether there was anything."""
        if not self.record.kept:
            return False
        with self._lock:
            found = False
            for reading, is_newest in self._find():
                with contextlib.suppress(FileNotFoundError):  # forgotten by the host meanwhile
                    grew = not reading.is_up_to_date and self._read(reading)
                    reading.over = not (grew or is_newest)
                    found = found or grew
            return found

    def _run(self) -> None:
        try:
            self._recall()
        except (OSError, ValueError) as error:  # a damaged line, say
            log.error("the audit record cannot be read: %s", error)
        pause = _BUSY_SECONDS
        while not self._closing.wait(pause):
            try:
                grew = self.catch_up()
            except (OSError, ValueError) as error:
                log.error("the journals cannot be read for the audit record: %s", error)
                grew = False
            pause = _BUSY_SECONDS if grew else min(2 * pause, _IDLE_SECONDS)

    def _recall(self) -> None:
        """Find in the record how far it goes."""
        with self._lock:
            for line in self.record.lines():
                if line.startswith(b'{"at":') and b'"what":"known"' in line:
                    with contextlib.suppress(ValueError):  # damaged; the lines behind it tell as much
                        for instance, upto in json.loads(line)["upto"].items():
                            self._upto[instance] = max(upto, self._upto.get(instance, 0))
                    continue
                match = _UPTO.search(line)
                if match:
                    instance = match[1].decode()
                    self._upto[instance] = max(int(match[2]), self._upto.get(instance, 0))

    def _known(self) -> dict[str, Any] | None:
        """Return the first line of a new file: how far the others go, which may be gone one day."""
        upto = {name: reading.recorded for name, reading in list(self._readings.items()) if reading.recorded}
        return entry("known", upto=upto) if upto else None

    def _find(self) -> Iterator[tuple[_Reading, bool]]:
        """Yield the instances whose journals may have grown, and whether it is the newest of its kernel."""
        here: set[str] = set()
        for kernel in _folders(self._journals):
            instances = _folders(kernel)
            newest = max(instances, key=_changed, default=None)
            for directory in instances:
                here.add(directory.name)
                reading = self._readings.get(directory.name)
                if reading is None:
                    upto = self._upto.get(directory.name, 0)
                    reading = self._readings[directory.name] = _Reading(kernel.name, directory, upto, upto)
                if not reading.over:
                    yield reading, directory == newest
        for gone in self._readings.keys() - here:
            del self._readings[gone]

    def _read(self, reading: _Reading) -> bool:
        """Write down what is new of one instance; say whether anything was."""
        reading.changed = _changed(reading.directory)
        grew = False
        begun = (reading.segment, reading.offset, reading.upto)
        for block, missing, damaged in _blocks(reading):
            before = dict(reading.running)
            records = [self._entry(reading, "gap", None, first=missing[0], last=missing[1])] if missing else []
            found, unread = self._records(reading, block)
            records += found
            if damaged + unread:
                at = records[-1]["at"] if records else None
                records.append(self._entry(reading, "damaged", at, lines=damaged + unread))
            if records:
                records[-1]["upto"] = reading.upto
                if not self.record.append(records):
                    reading.segment, reading.offset, reading.upto = begun
                    reading.running = before
                    return False
            begun = (reading.segment, reading.offset, reading.upto)
            reading.recorded, grew = reading.upto, True
        return grew

    def _records(self, reading: _Reading, block: bytes) -> tuple[list[dict[str, Any]], int]:
        """Return what is to be written of some events, and how many cannot be read; like cells are one record.

        A kernel may run ten thousand calls a second, so no more is parsed of each than tells them apart.
        """
        fresh: dict[bytes, tuple[bytes, bytes]] = {}
        found: list[dict[str, Any]] = []
        last: tuple[bytes, bytes] | None = None
        unread = 0
        for kind, cell, at, data in _TOLD.findall(block):
            if kind == b"started":
                fresh[cell] = at, data
                continue
            ended = _ENDED.match(data)
            status, seconds = (ended[1], float(ended[2])) if ended else (b"", 0.0)
            begun = fresh.pop(cell, None)
            if begun is None:
                found += self._ends(reading, cell.decode(), float(at), status.decode(), seconds)
                last = None
                continue
            alike = begun[1].rpartition(_LAST_FIELD)[0], status
            if alike == last:
                record = found[-1]
                record["count"] = record.get("count", 1) + 1
                record["seconds"] = round(record["seconds"] + seconds, 6)
                record["last"], record["last_at"] = cell.decode(), float(begun[0])
                continue
            try:
                found.append(self._cell(reading, cell, *begun, status=status.decode(), seconds=round(seconds, 6)))
                last = alike
            except ValueError:
                unread, last = unread + 1, None
        for cell, begun in fresh.items():
            try:
                record = self._cell(reading, cell, *begun)
            except ValueError:
                unread += 1
                continue
            reading.running[record["cell"]] = record
            found.append(record)
        return sorted(found, key=lambda record: float(record["at"])), unread

    def _cell(self, reading: _Reading, cell: bytes, at: bytes, data: bytes, **more: Any) -> dict[str, Any]:
        """Return the record of a cell that has begun."""
        told = json.loads(data)
        source = str(told.get("source", ""))
        if len(source) > SOURCE_CHARS:
            source = source[:SOURCE_CHARS] + "..."
        said = {"user": told.get("author"), **{name: told.get(name) for name in (*_WHERE_FROM, "client", "job")}}
        return self._entry(reading, "cell", float(at), cell=cell.decode(), **said, source=source, **more)

    def _ends(self, reading: _Reading, cell: str, at: float, status: str, seconds: float) -> list[dict[str, Any]]:
        """Return the record of the end of a cell that began before; none of one that was cancelled."""
        begun = reading.running.pop(cell, None)
        if begun is None and status == "cancelled":
            return []
        said = {name: begun[name] for name in ("user", *_WHERE_FROM) if name in begun} if begun else {}
        ended = {"status": status, "seconds": round(seconds, 6)}
        return [self._entry(reading, "end", at, cell=cell, **said, **ended)]

    def _entry(self, reading: _Reading, what: str, at: float | None, **fields: Any) -> dict[str, Any]:
        return entry(what, at, **fields, kernel=reading.kernel, instance=reading.instance)


def _blocks(reading: _Reading) -> Iterator[tuple[bytes, tuple[int, int] | None, int]]:
    """Yield whole lines that are new.

    With them the first and last number of those before them that are missing, if any, and how many among them are
    damaged: no event bears the number of theirs.
    """
    for first, path in list_segments(reading.directory):
        if reading.segment is not None and path < reading.segment:
            continue
        if path != reading.segment:
            missing = (reading.upto + 1, first - 1) if first > reading.upto + 1 else None
            reading.segment, reading.offset = path, 0
            if missing:
                reading.upto = first - 1
                yield b"", missing, 0
        with path.open("rb") as stream:
            stream.seek(reading.offset)
            while data := stream.read(_BLOCK_BYTES):
                end = data.rfind(b"\n") + 1
                if not end:
                    break  # still being written; a line is shorter than a block
                lines = data[:end]
                known = reading.upto
                reading.offset += end
                stream.seek(reading.offset)
                upto = _last_seq(lines)
                reading.upto = max(upto, known)
                if upto > known:
                    new = _after(lines, known)
                    # An event that was written twice hides one that is lost.
                    yield new, None, max(0, upto - known - len(_NUMBERED.findall(new)))


def _last_seq(lines: bytes) -> int:
    """Return the number of the last event, 0 without any: the last line may be damaged."""
    end = len(lines) - 1
    while end > 0:
        begin = lines.rfind(b"\n", 0, end) + 1
        if seq := parse_seq(lines[begin : begin + 40]):
            return seq
        end = begin - 1
    return 0


def _after(lines: bytes, known: int) -> bytes:
    """Leave out the events up to a number, where a journal is read again from its beginning."""
    if not known:
        return lines
    at = 0
    while at < len(lines) and parse_seq(lines[at : at + 40]) <= known:
        at = lines.find(b"\n", at) + 1
    return lines[at:]


def _folders(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as found:
            return [directory / one.name for one in found if one.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
