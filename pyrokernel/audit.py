"""The record of who did what, where and when: lines of JSON, only ever appended. Runs in the host, and beside it.

The host writes most of it. A kernel, the shared state and a gateway add whom they refused, one line with one system
call, if their host keeps a record at all. The file is `audit.jsonl` in the state directory; a full one is put aside
under a number, and the oldest goes when all together are above the cap.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pyrokernel.roles import Role
from pyrokernel.settings import Settings
from pyrokernel.systems import OWN

__all__ = ["AuditFile", "Filter", "entry", "refusals_to", "whose"]

log = logging.getLogger(__name__)

NAME = "audit.jsonl"
FILES = 8
"""Into so many the cap is divided."""

_READ_BYTES = 1024 * 1024
_SCANNED_BYTES = 32 * 1024 * 1024
"""Looked through for one answer; the next one goes on from there."""
_AT = re.compile(rb'\{"at":([0-9.]+)')
_BEGIN, _END = b'{"at":', b"}\n"

REFUSALS_SECONDS = 10.0
"""The same refusal of the same user, or of all whom one host introduces, is written once in so long, with a count.

A flood must not fill the record, nor keep what others were refused out of it, and a host can invent users for one.
"""
_REMEMBERED = 10_000


class Filter:
    """Which records are wanted.

    Args:
        user, kernel: Only of this one, "" for all; a kernel also where it is one of several in a record.
        since: Unix time.
    """

    def __init__(self, user: str = "", kernel: str = "", since: float = 0.0) -> None:
        self._user, self._kernel, self.since = user, kernel, since
        self._needles = [f'"user":{json.dumps(user)}'.encode()] if user else []
        if kernel:
            self._needles.append(json.dumps(kernel).encode())

    @classmethod
    def of(cls, wanted: Mapping[str, Any]) -> Filter:
        """Read "user", "kernel" and "since" as they came from somebody else."""
        return cls(str(wanted.get("user") or ""), str(wanted.get("kernel") or ""), float(wanted.get("since") or 0))

    def parse(self, line: bytes) -> dict[str, Any] | None:
        """Return a record if it is wanted.

        Raises:
            ValueError: The line is damaged.
        """
        if not (line.startswith(_BEGIN) and line.endswith(_END)):
            raise ValueError("this is no record")
        if not all(needle in line for needle in self._needles):
            return None
        if self.since:
            at = _AT.match(line)
            if at is not None and float(at[1]) < self.since:
                return None
        found = json.loads(line)
        if self._user not in ("", found.get("user")):
            return None
        kernels = ("", found.get("kernel"), *found.get("kernels", ()))  # "kernels" of what the host was asked for
        return found if self._kernel in kernels else None


class AuditFile:
    """The record of one machine.

    Args:
        directory: The state directory.
        cap_bytes: Most bytes of all files together; 0 for no record.
    """

    def __init__(self, directory: Path, cap_bytes: int) -> None:
        self._directory = directory
        self._path = directory / NAME
        self._cap_bytes = cap_bytes
        self._rolls = True
        self._lock = threading.Lock()
        self.header: Callable[[], Mapping[str, Any] | None] = lambda: None
        """Returns what each new file begins with."""

    @classmethod
    def beside(cls, settings: Settings) -> AuditFile:
        """Return the record of the host of this process, which alone begins it and puts it aside."""
        file = cls(settings.mesh_state_dir, settings.audit_bytes)
        file._rolls = False
        return file

    @property
    def kept(self) -> bool:
        """Whether there is a record at all."""
        return self._cap_bytes > 0

    @property
    def exists(self) -> bool:
        """Whether there is one, which this account may read."""
        return os.access(self._path, os.R_OK)

    def create(self) -> None:
        """Begin it, so that the others add to it."""
        if self.kept:
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | OWN, 0o600))

    def append(self, records: Iterable[Mapping[str, Any]]) -> bool:
        """Add records with one write; False, and noted in the log, if the disk refuses."""
        data = b"".join(map(_line, records))
        if not data or not self.kept or not (self._rolls or self._path.exists()):
            return True
        with self._lock:
            try:
                if self._write(data) > self._cap_bytes // FILES and self._rolls:
                    self._roll()
            except OSError as error:
                log.error("the audit record %s cannot be written: %s", self._path, error)
                return False
        return True

    def _write(self, data: bytes) -> int:
        """Append; return how large the file is then. Half a line is never left."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | OWN, 0o600)
        try:
            before = os.fstat(descriptor).st_size
            if before == 0 and (header := self.header()) is not None:
                data = _line(header) + data
            written = os.write(descriptor, data)
            if written < len(data):
                os.ftruncate(descriptor, before)
                raise OSError("the disk is full")
            return before + written
        finally:
            os.close(descriptor)

    def _roll(self) -> None:
        """Put the full file aside, and let the oldest go."""
        aside = self._aside()
        number = aside[-1][0] + 1 if aside else 1
        os.replace(self._path, self._directory / f"audit-{number:06d}.jsonl")
        for _, path in aside[: max(0, len(aside) + 2 - FILES)]:
            path.unlink(missing_ok=True)
        self.create()

    def _aside(self) -> list[tuple[int, Path]]:
        """Return the number and path of each file that was put aside, oldest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self._directory.iterdir():
                match = re.fullmatch(r"audit-(\d+)\.jsonl", path.name)
                if match:
                    found.append((int(match[1]), path))
        return sorted(found)

    def lines(self) -> Iterator[bytes]:
        """Yield all lines, newest file first, each file from its beginning."""
        for path in [self._path, *(path for _, path in reversed(self._aside()))]:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
                yield from stream

    def read(self, wanted: Filter, position: str = "") -> tuple[list[dict[str, Any]], str, bool]:
        """Return records from a position on, oldest first.

        Args:
            wanted: Which.
            position: As it was returned before; "" for the beginning of what is kept.

        Returns:
            The records, one that says so where there are damaged lines, the position behind them, and whether that is
            the end for now.
        """
        aside = self._aside()
        current = aside[-1][0] + 1 if aside else 1
        files = [*aside, (current, self._path)]
        number, offset = _place(position)
        found: list[dict[str, Any]] = []
        taken = scanned = 0
        for each, path in files:
            if each < number or (each < current and not position and _ended_before(path, wanted.since)):
                continue
            begin = offset if each == number else 0
            number, offset = each, begin
            with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
                stream.seek(begin)
                at = os.fstat(stream.fileno()).st_mtime  # of a damaged line, unless a good one is before it
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    offset += len(line)
                    scanned += len(line)
                    try:
                        record = wanted.parse(line)
                        begun = _AT.match(line)
                        at = float(begun[1]) if begun else at
                    except ValueError:
                        record = None
                        if found and found[-1].get("file") == path.name:
                            found[-1]["lines"] += 1
                        else:
                            found.append(entry("damaged", at, lines=1, file=path.name))
                    if record is not None and record.get("what") != "known":
                        found.append(record)
                        taken += len(line)
                    if taken >= _READ_BYTES or scanned >= _SCANNED_BYTES:
                        return found, f"{number}:{offset}", False
        return found, f"{number}:{offset}", True


def refusals_to(record: AuditFile, where: Mapping[str, str], *, logs: bool = True) -> Callable[[Any, str, Role], None]:
    """Return what writes refusals down, as a daemon calls it: with peer, what was asked for, and the role it takes.

    Args:
        record: Where to.
        where: What each line says besides, such as the kernel.
        logs: Whether the log of this process is told too.
    """
    lock = threading.Lock()
    last: dict[tuple[str, str], tuple[float, int]] = {}

    def refused(peer: Any, what: str, role: Role) -> None:
        key, now = (peer.bearer, what), time.monotonic()
        with lock:
            since, count = last.get(key, (-REFUSALS_SECONDS, 0))
            if now - since < REFUSALS_SECONDS:
                last[key] = (since, count + 1)
                return
            if len(last) >= _REMEMBERED:
                _forget(last, now - REFUSALS_SECONDS)
            if len(last) >= _REMEMBERED:
                return
            last[key] = (now, 0)
        if logs:
            log.warning("refused %s (%s): %s takes %s", peer.author, peer.role.word, what, role.word)
        said = {**whose(peer), "role": peer.role.word, "asked": what, "takes": role.word}
        record.append([entry("refused", None, **said, **where, count=count + 1 if count else None)])

    return refused


def _forget(last: dict[tuple[str, str], tuple[float, int]], before: float) -> None:
    for key in [key for key, (since, _) in last.items() if since < before]:
        del last[key]


def whose(peer: Any) -> dict[str, str]:
    """Return what a record says of who did something; of this account its name is all there is to say."""
    kind = "" if peer.kind == "account" else peer.kind
    return {"user": peer.author, "kind": kind, "via": peer.address, "through": peer.through}


def entry(what: str, at: float | None = None, **fields: Any) -> dict[str, Any]:
    """Return a record; fields that say nothing are left out."""
    kept = {name: value for name, value in fields.items() if value not in ("", None, [])}
    return {"at": round(time.time() if at is None else at, 3), "what": what, **kept}


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), default=str).encode("ascii") + b"\n"


def _place(position: str) -> tuple[int, int]:
    number, _, offset = position.partition(":")
    return (int(number), int(offset)) if number.isdecimal() and offset.isdecimal() else (0, 0)


def _ended_before(path: Path, since: float) -> bool:
    try:
        return path.stat().st_mtime < since
    except FileNotFoundError:
        return True
