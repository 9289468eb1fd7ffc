"""The name server's storage in a file that Pyro5's own can read and write too. Runs in a name server.

All names are in memory as well, so that looking costs no query: Pyro's own storage asks the database once for each
entry that it lists, and its prefixes are patterns of SQL, where "_" stands for anything.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from Pyro5.errors import NamingError
from Pyro5.nameserver import MemoryStorage, SqlStorage

from pyrokernel import systems
from pyrokernel.errors import NameServerError

__all__ = ["NamesFile", "backup_names", "hold", "restore_names"]


class NamesFile(MemoryStorage):  # type: ignore[misc]  # Pyro5 has no type information
    """Names in memory and in a SQLite file; what was answered is on disk. The caller (NameServer) holds a lock.

    Args:
        path: The file; made if it is not there, with its owner's rights alone.

    Raises:
        NameServerError: Another name server has it, or it is no file of names.
        OSError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._held = hold(path)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = self._open(path)
            self._read_all()
        except BaseException:
            os.close(self._held)
            raise

    def _open(self, path: Path) -> sqlite3.Connection:
        try:
            _check(path)
            SqlStorage(str(path))  # makes the tables, or brings those of an older Pyro up to date
            # The lock of the name server takes care that no two threads use it at once.
            database = sqlite3.connect(path, check_same_thread=False)
            # Pyro's tables have none for this, and to remove a name would look at the words of all others.
            database.execute("CREATE INDEX IF NOT EXISTS pyro_metadata_object ON pyro_metadata(object)")
            database.commit()
        except sqlite3.DatabaseError as error:
            raise NameServerError(
                f"{path} is no file of names, or damaged ({error}); "
                "bring a backup back with: pyrokernel nameserver restore BACKUP -s sql:FILE"
            ) from error
        return database

    def _read_all(self) -> None:
        words: dict[int, set[str]] = {}
        for number, word in self._database.execute("SELECT object, metadata FROM pyro_metadata"):
            words.setdefault(number, set()).add(word)
        for number, name, uri in self._database.execute("SELECT id, name, uri FROM pyro_names"):
            dict.__setitem__(self, name, (uri, frozenset(words.get(number, ()))))

    def __setitem__(self, name: str, value: tuple[str, Any]) -> None:
        uri, metadata = value
        with self._written() as database:
            self._delete(database, name)
            number = database.execute("INSERT INTO pyro_names(name, uri) VALUES(?, ?)", (name, uri)).lastrowid
            rows = [(number, word) for word in metadata or ()]
            database.executemany("INSERT INTO pyro_metadata(object, metadata) VALUES(?, ?)", rows)
        super().__setitem__(name, (uri, frozenset(metadata or ())))

    def __delitem__(self, name: str) -> None:
        self.remove_items([name])

    def remove_items(self, items: Iterable[str]) -> None:
        """Remove several names at once."""
        names = list(items)
        with self._written() as database:
            for name in names:
                self._delete(database, name)
        for name in names:
            dict.pop(self, name, None)

    def _delete(self, database: sqlite3.Connection, name: str) -> None:
        numbers = database.execute("SELECT id FROM pyro_names WHERE name=?", (name,)).fetchall()
        database.executemany("DELETE FROM pyro_metadata WHERE object=?", numbers)
        database.executemany("DELETE FROM pyro_names WHERE id=?", numbers)

    @contextlib.contextmanager
    def _written(self) -> Iterator[sqlite3.Connection]:
        """One transaction, of whose failure the client is told."""
        try:
            with self._database:
                yield self._database
        except sqlite3.Error as error:
            raise NamingError(f"the name server cannot write its file ({error}); nothing was changed") from error

    def close(self) -> None:
        """Close the file, for another name server to have."""
        self._database.close()
        os.close(self._held)


def _check(path: Path) -> None:
    """Refuse a file that is damaged or no SQLite file; an empty one is right.

    Raises:
        sqlite3.DatabaseError: It is.
    """
    database = sqlite3.connect(path)
    try:
        (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
    finally:
        database.close()
    if answer != "ok":
        raise sqlite3.DatabaseError(answer)


def hold(path: Path) -> int:
    """Lock a file for one process: return a descriptor, to be closed when it is done.

    Not the file itself: SQLite forgets its own locks when another descriptor of its file is closed.

    Raises:
        NameServerError: Another process has it.
    """
    lock = path.with_name(path.name + ".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    if not systems.try_lock(descriptor):
        os.close(descriptor)
        raise NameServerError(f"a name server runs that has {path}; stop it first, or use another file")
    return descriptor


def backup_names(path: Path, target: Path) -> int:
    """Copy a file of names as it is at one moment, also while a name server has it; return how many there are.

    The copy is whole or not there: a backup of that name which exists is replaced only then.

    Raises:
        NameServerError: There is no such file, it is damaged, or the copy cannot be written.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        number = _copy(path, draft)
        draft.replace(target)
    except (sqlite3.Error, OSError) as error:
        raise NameServerError(f"{path} cannot be backed up to {target}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return number


def restore_names(backup: Path, path: Path) -> tuple[int, Path | None]:
    """Put a backup in place of a file of names; return how many names it has, and where what was there is now.

    Raises:
        NameServerError: The backup is none; a name server has the file; or it cannot be written.
    """
    draft, held = path.with_name(f".{path.name}.{os.getpid()}"), hold(path)
    try:
        number, aside = _copy(backup, draft), None
        if path.exists():
            aside = path.with_name(f"{path.name}.replaced-{time.strftime('%Y%m%d-%H%M%S')}")
            for suffix in ("", "-journal"):  # a journal is half of what was there, if its last writer was killed
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{path}{suffix}", f"{aside}{suffix}")
        draft.replace(path)
    except (sqlite3.Error, OSError) as error:
        raise NameServerError(f"{backup} cannot be restored to {path}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
        os.close(held)
    return number, aside


def _copy(path: Path, target: Path) -> int:
    """Copy a file of names, whoever uses it; return how many there are."""
    os.close(os.open(path, os.O_RDONLY))  # SQLite would make one that is not there
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        copy.commit()
        (number,) = copy.execute("SELECT COUNT(*) FROM pyro_names").fetchone()
    _check(target)
    return int(number)
