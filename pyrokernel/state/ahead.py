"""Writes are appended to a file before the database has them. Runs in the state process.

A commit of SQLite costs ten times as much as appending a line to a file, and much less when there are many
rows in it. So what is committed goes to the end of one file first, with one call, and survives the death of
any process from then on; the database gets it together with what came after, when nobody waits or when
there is enough of it. What it has not got yet is looked up in memory, and read back from the file by the
next service, should this one be killed.

Source: write-ahead logging, as in https://www.sqlite.org/wal.html, one level further out.
"""

from __future__ import annotations

import contextlib
import logging
import marshal
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyrokernel.errors import StateStorageError
from pyrokernel.state.sqlite import SQLiteStore
from pyrokernel.stores import Row

log = logging.getLogger(__name__)

_HEAD = struct.Struct("!II")
"""Before each record: its length and its CRC-32."""
_VERSION = 4
"""Of marshal's format, which every Python since 3.4 reads."""
_MAX_ROWS, _MAX_BYTES = 2000, 8 * 1024 * 1024
"""What waits for the database at most before it is given to it, whoever waits."""
_MAX_OWED_BYTES = 64 * 1024 * 1024
"""What may wait while the database cannot be written; then writes fail."""

_WRITE, _DROP, _FORGET, _FORGET_KEY, _FLOOR = range(5)


class WriteAhead:
    """A SQLite store that is written to later than it is told to.

    Args:
        store: The database.
        path: The file that is appended to.
        power: Wait for the disk at each commit.

    Raises:
        StateStorageError: What the last service left cannot be given to the database.
    """

    backed_up_by = ""

    def __init__(self, store: SQLiteStore, path: Path, *, power: bool = False) -> None:
        self._store = store
        self._path = path
        self._power = power
        self.id = store.id
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size
        self._batch: list[tuple[Any, ...]] = []
        self._waiting: list[tuple[Any, ...]] = []
        self._newest: dict[tuple[str, str], Row | None] = {}
        self._rows: dict[int, Row | None] = {}
        self._recent: list[Row] = []
        self._revision, self._floor = store.revision(), store.floor()
        self._given = self._revision
        self._recover()

    def _recover(self) -> None:
        """Give the database what the last service had committed and not given to it."""
        data = os.pread(self._file, self._size, 0) if self._size else b""
        place = 0
        while place + _HEAD.size <= len(data):
            length, checksum = _HEAD.unpack_from(data, place)
            record = data[place + _HEAD.size : place + _HEAD.size + length]
            if len(record) < length or zlib.crc32(record) != checksum:
                break  # it was killed while it wrote this one, and nobody has been answered
            for operation in marshal.loads(record):
                # What was given to the database just before the end is in the file still.
                if operation[0] != _WRITE or operation[1][0] > self._store.revision():
                    self._waiting.append(operation)
            place += _HEAD.size + length
        if self._waiting:
            log.warning("%d writes of the service before this one are taken over", len(self._waiting))
        self._give()

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
        data = _HEAD.pack(len(record), zlib.crc32(record)) + record
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(28, "No space left on device")
            if self._power:
                os.fdatasync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise StateStorageError(path=str(self._path), reason=str(error.strerror or error)) from error
        self._size += len(data)
        self._waiting += self._batch
        self._batch = []
        if len(self._waiting) >= _MAX_ROWS or self._size >= _MAX_BYTES:
            self._try_to_give()

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
        row = self.row(revision)
        self._rows[revision] = None if row is None else row._replace(sizes=(), data=b"", file="")

    def forget(self, revisions: Iterable[int]) -> None:
        """Forget rows."""
        gone = list(revisions)
        self._batch.append((_FORGET, gone))
        self._rows.update(dict.fromkeys(gone))

    def forget_key(self, space: str, key: str) -> None:
        """Forget that a removed key ever was."""
        self._batch.append((_FORGET_KEY, space, key))
        self._newest[space, key] = None

    def set_floor(self, revision: int) -> None:
        """Remember up to where rows may be missing."""
        self._batch.append((_FLOOR, revision))
        self._floor = revision

    def _note(self, row: Row) -> None:
        self._newest[row.space, row.key] = row
        self._rows[row.revision] = row
        self._recent.append(row)
        self._revision = row.revision

    def _remember(self) -> None:
        """Make what is kept in mind be what waits."""
        self._newest.clear()
        self._rows.clear()
        self._recent.clear()
        self._revision, self._floor = self._store.revision(), self._store.floor()
        waiting, self._batch = self._waiting, []
        for operation in waiting:
            if operation[0] == _WRITE:
                self._note(Row(*operation[1]))
            else:
                self._do(operation, self)
        self._batch = []

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
        if self._size:
            os.ftruncate(self._file, 0)
            self._size = 0
        self._given = self._store.revision()
        if not self._batch:
            self._newest.clear()
            self._rows.clear()
            self._recent.clear()

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
        if (space, key) in self._newest:
            return self._newest[space, key]
        return self._store.current(space, key)

    def row(self, revision: int) -> Row | None:
        """Return a row of the log."""
        return self._rows[revision] if revision in self._rows else self._store.row(revision)

    def changes(self, since: int, upto: int, space: str, prefix: str, limit: int) -> list[Row]:
        """Return rows of a space and prefix, oldest first."""
        found: list[Row] = []
        while since < self._given and len(found) < limit:
            page = self._store.changes(since, upto, space, prefix, limit)
            # What was forgotten since is in the database still.
            found += [kept for row in page if (kept := self._rows.get(row.revision, row)) is not None]
            since = page[-1].revision if len(page) == limit else self._given
        for row in self._recent:
            if len(found) >= limit:
                return found[:limit]
            if since < row.revision <= upto and row.space == space and row.key.startswith(prefix):
                kept = self._rows.get(row.revision)
                if kept is not None:
                    found.append(kept)
        return found

    def scan(self, space: str, prefix: str, after: str | None, limit: int) -> list[Row]:
        """Return the newest rows of living keys without their data, by key in code-point order."""
        return self._whole().scan(space, prefix, after, limit)

    def count(self, space: str) -> int:
        """Return how many keys a space has."""
        return self._whole().count(space)

    def spaces(self) -> list[str]:
        """Return the names of the spaces that have keys."""
        return self._whole().spaces()

    def recent_requests(self, limit: int) -> list[tuple[str, Row]]:
        """Return the last requests with their rows, oldest first."""
        return self._whole().recent_requests(limit)

    def filed(self) -> list[Row]:
        """Return the rows whose values are in files, oldest first."""
        return self._whole().filed()

    def leased(self) -> list[Row]:
        """Return the newest rows of living keys that live by a lease."""
        return self._whole().leased()

    def _whole(self) -> SQLiteStore:
        """Return the database with everything in it.

        What is not committed yet is committed for that, a little early: the engine looks at many rows only
        before the first write of a request.
        """
        self.commit()
        self._give()
        return self._store

    # Upkeep

    def idle(self) -> None:
        """Give the database what waits."""
        self.commit()
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
