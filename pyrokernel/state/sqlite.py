"""The shared state in SQLite: one file, WAL mode, locked by one process. Runs in the state process.

A commit hands its pages to the operating system before it returns, so it survives the death of any
process; with `power` it waits for the disk, so it survives a power cut too. The lock on the file is
exclusive: a second service that opens it is refused, and the first one saves the shared index.

Source: https://www.sqlite.org/wal.html; what each PRAGMA promises, https://www.sqlite.org/pragma.html.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pyrokernel.errors import ProtocolError, PyrokernelError, StateCorruptError, StateStorageError
from pyrokernel.stores import Row

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the tables; a file of another one is refused, not changed."""

_CHECKPOINT_PAGES = 4000
"""16 MB of the write-ahead log, after which SQLite moves it into the file whether or not anybody waits."""
_IDLE_PAGES = 250
"""1 MB, after which that is done when nobody waits."""
_CACHE_KIB = 32 * 1024
_COUNTED_SPACES = 4096
"""Spaces of which it is kept how many keys they have; anybody may ask for one that there is not."""
_FULL = ("full", "disk I/O error", "readonly", "unable to open")
_DAMAGED = ("malformed", "not a database", "corrupt", "encrypted", "decode to utf-8")
_left_open: list[sqlite3.Connection] = []
"""To damaged files. To close one would move its write-ahead log into the file, which is to stay as it is."""

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE log (
    revision INTEGER PRIMARY KEY, space TEXT NOT NULL, key TEXT NOT NULL, op TEXT NOT NULL, kind TEXT NOT NULL,
    type TEXT NOT NULL, summary TEXT NOT NULL, sizes TEXT NOT NULL, file TEXT NOT NULL, author TEXT NOT NULL,
    via TEXT NOT NULL, at REAL NOT NULL, lease TEXT NOT NULL, previous INTEGER NOT NULL, version INTEGER NOT NULL,
    created INTEGER NOT NULL, restores INTEGER NOT NULL, request TEXT NOT NULL, data BLOB NOT NULL
);
CREATE INDEX filed ON log (revision) WHERE file <> '';
CREATE INDEX leased ON log (revision) WHERE lease <> '';
CREATE TABLE current (
    space TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, alive INTEGER NOT NULL,
    PRIMARY KEY (space, key)
) WITHOUT ROWID;
"""

_SIZES = Row._fields.index("sizes")
_FIELDS = ", ".join(Row._fields)
_BARE = ", ".join("x''" if name == "data" else f"log.{name}" for name in Row._fields)
_INSERT = f"INSERT INTO log ({_FIELDS}) VALUES ({', '.join('?' * len(Row._fields))})"
_POINT = (
    "INSERT INTO current (space, key, revision, alive) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (space, key) DO UPDATE SET revision = excluded.revision, alive = excluded.alive"
)
_CURRENT = (
    f"SELECT {', '.join('log.' + name for name in Row._fields)} "
    "FROM current JOIN log USING (revision) WHERE current.space = ? AND current.key = ?"
)
# Both ends plain comparisons: else SQLite finds a page by passing over all keys before it, or after it.
_SCAN = (
    f"SELECT {_BARE} FROM current JOIN log USING (revision) WHERE current.space = ? AND current.alive "
    "AND current.key %s ? AND current.key < ? ORDER BY current.key LIMIT ?"
)
_SCAN_FROM, _SCAN_AFTER = _SCAN % ">=", _SCAN % ">"
_END = b""
"""Behind all keys: to SQLite any blob is greater than any text."""
_CHANGES = (
    f"SELECT {_FIELDS} FROM log WHERE revision > ? AND revision <= ? AND space = ? "
    "AND substr(key, 1, ?) = ? ORDER BY revision LIMIT ?"
)


class SQLiteStore:
    """Rows in a file.

    Args:
        path: The file; made when it does not exist, and only then.
        power: Wait for the disk at each commit.
        newest_backup: Tells what to offer when the file is damaged.

    Raises:
        StateCorruptError: The file is damaged, or is none of ours; it was not changed.
        StateStorageError: It cannot be opened, or another process has it.
    """

    backed_up_by = ""

    def __init__(self, path: Path, *, power: bool = False, newest_backup: Callable[[], str] = lambda: "") -> None:
        self._path = path
        self._newest_backup = newest_backup
        self._damage: StateCorruptError | None = None
        with self._explained():
            if not path.exists():
                _create(path)
            elif path.stat().st_size == 0:  # never ours: it gets its name when its tables are in it
                raise self._corrupt("it is empty")
            # Autocommit: transactions begin and end where this class says. Other threads only make backups.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.5)
            try:
                self._open(power)
            except BaseException:
                self.close()
                raise
        self._counts: dict[str, int] = {}
        self._counts_before: dict[str, int] = {}
        self._written = 0

    def _open(self, power: bool) -> None:
        run = self._run
        run("PRAGMA locking_mode = EXCLUSIVE")
        # Whose file it is comes first: the mode of the journal is written into it.
        found = {name for (name,) in run("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not {"meta", "log", "current"} <= found:
            raise self._corrupt("it has not the tables of a shared state")
        if self._meta("format") != FORMAT:
            raise self._corrupt(f"it has format {self._meta('format')}, and this version reads {FORMAT}")
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {'FULL' if power else 'NORMAL'}")
        run(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        run(f"PRAGMA cache_size = -{_CACHE_KIB}")
        run("PRAGMA temp_store = MEMORY")
        run("BEGIN EXCLUSIVE")  # takes the lock, for as long as the connection stands
        run("COMMIT")
        self._floor = int(self._meta("floor"))
        self.id = str(self._meta("id"))
        newest = run("SELECT max(revision) FROM log").fetchone()[0]
        self._revision = max(int(newest or 0), int(self._meta("revision")))

    def _corrupt(self, reason: str) -> StateCorruptError:
        self._damage = StateCorruptError(path=str(self._path), reason=reason, backup=self._newest_backup())
        return self._damage

    def _meta(self, name: str) -> int | str:
        found = self._run("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if found is None:
            raise self._corrupt(f"it lacks its {name}")
        value: int | str = found[0]
        return value

    # Writing

    def begin(self) -> None:
        """Begin to write; a file that is known to be damaged is left as it is."""
        if self._damage is not None:
            raise self._damage
        self._run("BEGIN")
        self._counts_before = self._counts.copy()
        self._numbers_before = self._revision, self._floor

    def commit(self) -> None:
        """Make everything since `begin` last."""
        self._run("COMMIT")

    def rollback(self) -> None:
        """Make everything since `begin` undone."""
        if self._db.in_transaction:  # a full disk may have ended it already
            with self._explained():
                self._db.execute("ROLLBACK")
        self._counts = self._counts_before
        self._revision, self._floor = self._numbers_before

    def write(self, row: Row) -> None:
        """Append a row, and point its key to it."""
        values = (*row[:7], _sizes_text(row.sizes), *row[8:])
        self._run(_INSERT, values)
        self._run(_POINT, (row.space, row.key, row.revision, row.op == "set"))
        self._revision = row.revision
        if row.space in self._counts:
            was = row.previous != 0 and row.created != row.revision
            self._counts[row.space] += (row.op == "set") - was
        self._written += 1

    def drop_value(self, revision: int) -> None:
        """Forget the value of a row."""
        with self._explained():
            self._db.execute("UPDATE log SET sizes = '', data = x'', file = '' WHERE revision = ?", (revision,))

    def forget(self, revisions: Iterable[int]) -> None:
        """Forget rows."""
        with self._explained():
            self._db.executemany("DELETE FROM log WHERE revision = ?", ((one,) for one in revisions))

    def forget_key(self, space: str, key: str) -> None:
        """Forget that a removed key ever was."""
        with self._explained():
            self._db.execute("DELETE FROM current WHERE space = ? AND key = ? AND NOT alive", (space, key))

    def set_floor(self, revision: int) -> None:
        """Remember up to where rows may be missing; and the newest revision, should its own row be forgotten."""
        self._floor = revision
        with self._explained():
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'floor'", (revision,))
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (self._revision,))

    # Reading

    def revision(self) -> int:
        """Return the revision of the newest row."""
        return self._revision

    def floor(self) -> int:
        """Return the revision up to which rows may be missing."""
        return self._floor

    def current(self, space: str, key: str) -> Row | None:
        """Return the newest row of a key."""
        return _row(self._run(_CURRENT, (space, key)).fetchone())

    def row(self, revision: int) -> Row | None:
        """Return a row of the log."""
        with self._explained():
            return _row(self._db.execute(f"SELECT {_FIELDS} FROM log WHERE revision = ?", (revision,)).fetchone())

    def scan(self, space: str, prefix: str, after: str | None, limit: int) -> list[Row]:
        """Return the newest rows of living keys without their data, by key in code-point order."""
        end: str | bytes | None = _behind(prefix)
        query, start = (_SCAN_FROM, prefix) if after is None or after < prefix else (_SCAN_AFTER, after)
        with self._explained():
            found = self._db.execute(query, (space, start, _END if end is None else end, limit)).fetchall()
        return [row for values in found if (row := _row(values)) is not None]

    def count(self, space: str) -> int:
        """Return how many keys a space has; counted once, then kept."""
        if space not in self._counts:
            if len(self._counts) >= _COUNTED_SPACES:
                self._counts.clear()
            with self._explained():
                found = self._db.execute("SELECT count(*) FROM current WHERE space = ? AND alive", (space,))
                self._counts[space] = int(found.fetchone()[0])
        return self._counts[space]

    def spaces(self) -> list[str]:
        """Return the names of the spaces that have keys."""
        names: list[str] = []
        # From name to name along the index: with a million keys in three spaces, three steps and not a million.
        last: str | None = None
        with self._explained():
            while True:
                found = self._db.execute(
                    "SELECT min(space) FROM current WHERE ? IS NULL OR space > ?", (last, last)
                ).fetchone()[0]
                if found is None:
                    return [name for name in names if self.count(name)]
                names.append(found)
                last = found

    def changes(self, since: int, upto: int, space: str, prefix: str, limit: int) -> list[Row]:
        """Return rows of a space and prefix, oldest first."""
        with self._explained():
            found = self._db.execute(_CHANGES, (since, upto, space, len(prefix), prefix, limit)).fetchall()
        return [row for values in found if (row := _row(values)) is not None]

    def recent_requests(self, limit: int) -> list[tuple[str, int]]:
        """Return the last requests with the revisions of their rows, oldest first."""
        # Most writes are requests; where they are not, the whole log would be searched for a few.
        oldest = self._revision - 2 * limit
        query = "SELECT request, revision FROM log WHERE revision > ? AND request <> '' ORDER BY revision DESC LIMIT ?"
        with self._explained():
            return self._db.execute(query, (oldest, limit)).fetchall()[::-1]

    def filed(self) -> list[Row]:
        """Return the rows whose values are in files, oldest first."""
        with self._explained():
            found = self._db.execute(f"SELECT {_BARE} FROM log WHERE file <> '' ORDER BY revision").fetchall()
        return [row for values in found if (row := _row(values)) is not None]

    def leased(self) -> list[Row]:
        """Return the newest rows of living keys that live by a lease."""
        query = (
            f"SELECT {_BARE} FROM log JOIN current USING (space, key) WHERE log.lease <> '' AND current.alive "
            "AND current.revision = log.revision ORDER BY log.revision"
        )
        with self._explained():
            found = self._db.execute(query).fetchall()
        return [row for values in found if (row := _row(values)) is not None]

    # Upkeep

    def idle(self) -> None:
        """Move the write-ahead log into the file if it has grown."""
        if self._written < _IDLE_PAGES or self._damage is not None:
            return
        self._written = 0
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:  # a full disk: the log keeps everything meanwhile
            log.warning("the write-ahead log stays for now: %s", error)

    def backup(self, target: Path) -> None:
        """Copy the file, a piece at a time so that writes go on between; they are in the copy too."""
        with self._explained(), contextlib.closing(sqlite3.connect(target)) as copy:
            self._db.backup(copy, pages=256, sleep=0.001)
            copy.execute("PRAGMA journal_mode = DELETE")

    def close(self) -> None:
        """Close the file; its write-ahead log is moved into it, unless it is damaged."""
        if self._damage is not None:
            _left_open.append(self._db)
        else:
            self._db.close()

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except (sqlite3.Error, OverflowError) as error:
            raise self._explain(error) from error

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what SQLite raises into words for the user."""
        try:
            yield
        except (sqlite3.Error, OSError, OverflowError) as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> PyrokernelError:
        text = str(error)
        # What was asked for is at fault, not the file.
        if isinstance(error, (OverflowError, sqlite3.InterfaceError, sqlite3.ProgrammingError)):
            return ProtocolError(f"it cannot be looked up: {text}")
        if any(word in text.lower() for word in _DAMAGED):
            return self._corrupt(text)
        if "locked" in text:
            reason = "another process has it open: there can be only one service"
            return StateStorageError(path=str(self._path), reason=reason)
        return StateStorageError(path=str(self._path), reason=text)


def _create(path: Path) -> None:
    """Make a file with empty tables; it has its name when all of that is in it."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as db:
        db.execute("BEGIN")
        for statement in filter(str.strip, _TABLES.split(";")):
            db.execute(statement)
        values = {"format": FORMAT, "id": secrets.token_hex(8), "floor": 0, "revision": 0}
        db.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
        db.execute("COMMIT")
    draft.rename(path)


def begin_anew(path: Path, revision: int) -> None:
    """Make a copy a state of its own: with another id, and revisions that no other state has had.

    Args:
        path: The file, which nobody has open.
        revision: The newest one that anybody may know.
    """
    with contextlib.closing(sqlite3.connect(path)) as db:
        values = {"id": secrets.token_hex(8), "floor": revision, "revision": revision}
        db.executemany("UPDATE meta SET value = ? WHERE name = ?", [(value, name) for name, value in values.items()])
        db.commit()


def newest_revision(path: Path) -> int:
    """Return the newest revision in a file that nobody has open, 0 when it cannot be read."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            in_log = db.execute("SELECT max(revision) FROM log").fetchone()[0]
            told = db.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()[0]
            return max(int(in_log or 0), int(told))
    except (sqlite3.Error, TypeError, ValueError):
        return 0


def check_file(path: Path) -> list[str]:
    """Look through a whole file for damage; return what is wrong with it, [] when nothing is."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            found = [str(line) for (line,) in db.execute("PRAGMA integrity_check(10)")]
    except sqlite3.Error as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def _row(values: tuple[Any, ...] | None) -> Row | None:
    if values is None:
        return None
    text: str = values[_SIZES]
    sizes = (int(text),) if text.isdecimal() else tuple(map(int, text.split()))
    return Row._make((*values[:_SIZES], sizes, *values[_SIZES + 1 :]))


def _sizes_text(sizes: tuple[int, ...]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else " ".join(map(str, sizes))


def _behind(prefix: str) -> str | None:
    """Return the least text behind all that begin with a prefix, None when there is no end to them."""
    while prefix:
        if ord(prefix[-1]) < 0x10FFFF:
            following = ord(prefix[-1]) + 1
            return prefix[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)
        prefix = prefix[:-1]
    return None
