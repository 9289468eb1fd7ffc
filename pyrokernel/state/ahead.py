"""Writes are appended to a file before the database has them. Runs in the state process.

A commit of SQLite costs ten times as much as appending a line to a file, and much less when there are many
rows in it. So what is committed goes to the end of one file first, with one call, and survives the death of
any process from then on; the database gets it together with what came after, when nobody waits or when
there is enough of it. What it has not got yet is looked up in memory, so that reading never writes, and read
back from the file by the next service, should this one be killed.

Source: write-ahead logging, as in https://www.sqlite.org/wal.html, one level further out.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import marshal
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pyrokernel import systems
from pyrokernel.errors import StateCorruptError, StateStorageError
from pyrokernel.state.sqlite import SQLiteStore
from pyrokernel.stores import Row

log = logging.getLogger(__name__)

_MARK = b"\xf1pk1"
_HEAD = struct.Struct("!4sII")
"""Before each record: a mark, its length and its CRC-32."""
_VERSION = 4
"""Of marshal's format, which every Python since 3.4 reads."""
_MAX_ROWS, _MAX_BYTES = 2000, 8 * 1024 * 1024
"""What waits for the database at most before it is given to it, whoever waits."""
_MAX_OWED_BYTES = 64 * 1024 * 1024
"""What may wait while the database cannot be written; then writes fail."""
_MAX_HIDING = 100
"""Rows that a listing may have to pass over because they wait; with more of them, the database gets them first."""

_WRITE, _DROP, _FORGET, _FORGET_KEY, _FLOOR = range(5)


class WriteAhead:
    """A SQLite store that is written to later than it is told to.

    Args:
        store: The database.
        path: The file that is appended to.
        power: Wait for the disk at each commit.

    Raises:
        StateStorageError: It cannot be opened.
        StateCorruptError: What the last service left in it is damaged, or the database is.
    """

    backed_up_by = ""

    def __init__(self, store: SQLiteStore, path: Path, *, power: bool = False) -> None:
        self._store = store
        self._path = path
        self._power = power
        self.id = store.id
        with self._explained():
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size
        self._is_torn = False
        self._batch: list[tuple[Any, ...]] = []
        self._waiting: list[tuple[Any, ...]] = []
        self._newest: dict[str, dict[str, Row | None]] = {}
        self._rows: dict[int, Row | None] = {}
        self._recent: list[Row] = []
        self._dropped: set[int] = set()
        self._more: dict[str, int] = {}
        self._revision, self._floor = store.revision(), store.floor()
        self._given = self._revision
        try:
            self._recover()
        except BaseException:
            os.close(self._file)
            raise

    def _recover(self) -> None:
        """Give the database what the last service had committed and not given to it."""
        with self._explained():
            data = systems.pread(self._file, self._size, 0) if self._size else b""
        operations: list[tuple[Any, ...]] = []
        place = 0
        while (record := _record(data, place)) is not None:
            operations += marshal.loads(record)
            place += _HEAD.size + len(record)
        if _is_damage(data, place):
            raise StateCorruptError(
                path=str(self._path),
                reason=f"{len(data) - place} bytes from byte {place} on are not as they were written. They are the "
                "last writes; if this file is moved away, the service goes on without them",
            )
        # All of it is given at once. So where the database has one of its rows, it has all up to that one.
        known = self._store.revision()
        had = [at for at, one in enumerate(operations) if one[0] == _WRITE and one[1][0] <= known]
        self._waiting = operations[had[-1] + 1 :] if had else operations
        first = next((one[1][0] for one in self._waiting if one[0] == _WRITE), known + 1)
        if first != known + 1:
            # Only after a power cut: the disk had this file sooner than the database. Watchers must not believe that
            # they have seen everything.
            log.warning("the writes between revisions %d and %d are lost", known, first)
            self._waiting.append((_FLOOR, first - 1))
        if self._waiting:
            log.warning("%d writes of the service before this one are taken over", len(self._waiting))
        self._remember()
        try:
            self._give()
        except StateCorruptError:
            raise
        except StateStorageError as error:  # all of it can be read, and what is in the file is safe
            log.warning("%s; it stays in %s for now", error, self._path)

    # Writing

    def begin(self) -> None:
        """Begin to write."""

    def commit(self) -> None:
        """Append what was written since `begin` to the file."""
        if not self._batch:
            return
        record = marshal.dumps(self._batch, _VERSION)
        if self._size + len(record) > _MAX_OWED_BYTES:
            self._give()  # raises when the database cannot be written
        data = _HEAD.pack(_MARK, len(record), zlib.crc32(record)) + record
        with self._explained():
            if self._is_torn:
                self._cut_off()
            try:
                if os.write(self._file, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._power:
                    os.fdatasync(self._file)
            except OSError:
                self._is_torn = True
                with contextlib.suppress(OSError):  # then before the next write
                    self._cut_off()
                raise
        self._size += len(data)
        self._waiting += self._batch
        self._batch = []
        if len(self._waiting) >= _MAX_ROWS or self._size >= _MAX_BYTES:
            self._try_to_give()

    def _cut_off(self) -> None:
        """Remove what was written and not committed from the end of the file: what follows it would never be read."""
        os.ftruncate(self._file, self._size)
        self._is_torn = False

    def rollback(self) -> None:
        """Forget what was written since `begin`."""
        self._batch = []
        self._remember()

    def write(self, row: Row) -> None:
        """Append a row, and make it what its key holds."""
        self._batch.append((_WRITE, tuple(row)))
        self._note(row)

    def drop_value(self, revision: int) -> None:
        """Forget the value of a row."""
        self._batch.append((_DROP, revision))
        self._dropped.add(revision)

    def forget(self, revisions: Iterable[int]) -> None:
        """Forget rows."""
        gone = list(revisions)
        self._batch.append((_FORGET, gone))
        self._rows.update(dict.fromkeys(gone))

    def forget_key(self, space: str, key: str) -> None:
        """Forget that a removed key ever was."""
        self._batch.append((_FORGET_KEY, space, key))
        self._newest.setdefault(space, {})[key] = None

    def set_floor(self, revision: int) -> None:
        """Remember up to where rows may be missing."""
        self._batch.append((_FLOOR, revision))
        self._floor = revision

    def _note(self, row: Row) -> None:
        self._newest.setdefault(row.space, {})[row.key] = row
        self._rows[row.revision] = row
        self._recent.append(row)
        self._revision = row.revision
        was_alive = row.created != row.revision
        self._more[row.space] = self._more.get(row.space, 0) + row.alive - was_alive

    def _remember(self) -> None:
        """Make what is kept in mind be what waits and what is being written."""
        self._newest.clear()
        self._rows.clear()
        self._recent.clear()
        self._dropped.clear()
        self._more.clear()
        self._revision, self._floor = self._store.revision(), self._store.floor()
        batch, self._batch = self._batch, []
        for operation in (*self._waiting, *batch):
            if operation[0] == _WRITE:
                self._note(Row(*operation[1]))
            else:
                self._do(operation, self)
        self._batch = batch

    # Giving it to the database

    def _try_to_give(self) -> None:
        try:
            self._give()
        except StateStorageError as error:
            log.warning("%s; it stays in %s for now", error, self._path)

    def _give(self) -> None:
        """Give the database what waits, then begin the file anew."""
        if self._waiting:
            self._store.begin()
            try:
                for operation in self._waiting:
                    self._do(operation, self._store)
                self._store.commit()
            except BaseException:
                self._store.rollback()
                raise
        self._waiting = []
        self._given = self._store.revision()
        self._remember()
        if self._size:
            with self._explained():
                os.ftruncate(self._file, 0)
            self._size = 0
            self._is_torn = False

    @staticmethod
    def _do(operation: tuple[Any, ...], store: SQLiteStore | WriteAhead) -> None:
        kind = operation[0]
        if kind == _WRITE:
            store.write(Row(*operation[1]))
        elif kind == _DROP:
            store.drop_value(operation[1])
        elif kind == _FORGET:
            store.forget(operation[1])
        elif kind == _FORGET_KEY:
            store.forget_key(operation[1], operation[2])
        else:
            store.set_floor(operation[1])

    # Reading

    def revision(self) -> int:
        """Return the revision of the newest row."""
        return self._revision

    def floor(self) -> int:
        """Return the revision up to which rows may be missing."""
        return self._floor

    def current(self, space: str, key: str) -> Row | None:
        """Return the newest row of a key."""
        waiting = self._newest.get(space)
        if waiting is not None and key in waiting:
            return waiting[key]
        return self._store.current(space, key)

    def row(self, revision: int) -> Row | None:
        """Return a row of the log."""
        row = self._rows[revision] if revision in self._rows else self._store.row(revision)
        return self._as_kept(row)

    def _as_kept(self, row: Row | None) -> Row | None:
        if row is None or row.revision not in self._dropped:
            return row
        return row._replace(sizes=(), data=b"", file="")

    def changes(self, since: int, upto: int, space: str, prefix: str, limit: int) -> list[Row]:
        """Return rows of a space and prefix, oldest first."""
        found: list[Row] = []
        while since < self._given and len(found) < limit:
            page = self._store.changes(since, upto, space, prefix, limit)
            since = page[-1].revision if len(page) == limit else self._given
            found += self._kept(page)
        if len(found) < limit:
            recent = (row for row in self._recent if since < row.revision <= upto)
            found += self._kept(row for row in recent if row.space == space and row.key.startswith(prefix))
        return found[:limit]

    def _kept(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield rows without those that were forgotten meanwhile."""
        for row in rows:
            kept = self._as_kept(self._rows.get(row.revision, row))
            if kept is not None:
                yield kept

    def scan(self, space: str, prefix: str, after: str | None, limit: int) -> list[Row]:
        """Return the newest rows of living keys without their data, by key in code-point order."""
        if self._waiting and len(self._newest.get(space, ())) > _MAX_HIDING:
            self._try_to_give()
        waiting = self._newest.get(space)
        if not waiting:
            return self._store.scan(space, prefix, after, limit)
        found = [
            row._replace(data=b"")
            for key, row in waiting.items()
            if row is not None and row.alive and key.startswith(prefix) and (after is None or key > after)
        ]
        # So many may have to be passed over, and there are still as many as are asked for.
        rows = self._store.scan(space, prefix, after, limit + len(waiting))
        found += [row for row in rows if row.key not in waiting]
        return sorted(found, key=lambda row: row.key)[:limit]

    def count(self, space: str) -> int:
        """Return how many keys a space has."""
        return self._store.count(space) + self._more.get(space, 0)

    def spaces(self) -> list[str]:
        """Return the names of the spaces that have keys."""
        return sorted(name for name in {*self._store.spaces(), *self._newest} if self.count(name))

    def recent_requests(self, limit: int) -> list[tuple[str, int]]:
        """Return the last requests with the revisions of their rows, oldest first."""
        gone = {revision for revision, row in self._rows.items() if row is None}
        here = [(row.request, row.revision) for row in self._recent if row.request]
        found = [*self._store.recent_requests(limit + len(gone)), *here]
        return [pair for pair in found if pair[1] not in gone][-limit:]

    def filed(self) -> list[Row]:
        """Return the rows whose values are in files, oldest first."""
        rows = [row for row in self._store.filed() if row.revision not in self._rows]
        rows += [row._replace(data=b"") for row in self._rows.values() if row is not None]
        return [kept for row in rows if (kept := self._as_kept(row)) is not None and kept.file]

    def leased(self) -> list[Row]:
        """Return the newest rows of living keys that live by a lease."""
        found = [row for row in self._store.leased() if row.key not in self._newest.get(row.space, ())]
        for rows in self._newest.values():
            found += [row._replace(data=b"") for row in rows.values() if row is not None and row.alive and row.lease]
        return sorted(found, key=lambda row: row.revision)

    # Upkeep

    def idle(self) -> None:
        """Give the database what waits."""
        self._try_to_give()
        self._store.idle()

    def backup(self, target: Path) -> None:
        """Write a copy of the database, from another thread; `idle` just before makes it a copy of everything."""
        self._store.backup(target)

    def close(self) -> None:
        """Give the database what waits, and close both."""
        self._try_to_give()
        os.close(self._file)
        self._store.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateStorageError(path=str(self._path), reason=str(error.strerror or error)) from error


def _record(data: bytes, place: int) -> bytes | None:
    """Return the record that begins at a place, None where there is none, or not all of it."""
    if place + _HEAD.size > len(data):
        return None
    mark, length, checksum = _HEAD.unpack_from(data, place)
    record = data[place + _HEAD.size : place + _HEAD.size + length]
    return record if mark == _MARK and len(record) == length and zlib.crc32(record) == checksum else None


def _is_damage(data: bytes, place: int) -> bool:
    """Whether what does not parse from a place on was changed since it was written.

    Else a service was killed while it wrote: then its record is too short, nothing follows, and nobody has been told.
    Or after a power cut the disk has lost the end of the file, which is zeros.
    """
    rest = data[place:]
    if not any(rest):
        return False
    if not rest.startswith(_MARK[: len(rest)]):
        return True
    if len(rest) >= _HEAD.size and len(rest) >= _HEAD.size + _HEAD.unpack_from(rest)[1]:
        return True
    following = rest.find(_MARK, 1)
    while following >= 0:
        if _record(rest, following) is not None:
            return True
        following = rest.find(_MARK, following + 1)
    return False
