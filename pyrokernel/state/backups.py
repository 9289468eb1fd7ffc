"""Backups of the shared state: made while it is in use, now and then by themselves. Runs in the state process.

A backup is a folder with a file of the same format and the large values beside it, as further names of
the same files where the disk allows that: it takes time and space only for what rows hold. `restore`
runs where it is called, and ends the service first.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pyrokernel.errors import PyrokernelError, SettingsError, StateCorruptError, StateError, StateStorageError
from pyrokernel.settings import check_name, private_directory
from pyrokernel.state.claim import claim
from pyrokernel.state.files import Files
from pyrokernel.state.sqlite import begin_anew, check_file, newest_revision
from pyrokernel.stores import Store

log = logging.getLogger(__name__)

DATABASE, AHEAD = "state.db", "state.ahead"
KEPT = 3
"""Of the backups that are made by themselves; those that somebody asked for stay."""
_SETTLE_SECONDS = 600.0
"""After the start of the service there is other work."""
_AUTOMATIC = "auto-"
_UNFINISHED = ".part"
_PARTS = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", AHEAD, "values")
"""What a state is made of; backups and log stay where they are."""
_TRIES = 20
_UNSEEN = 1_000_000
"""Revisions that the replaced state may have given out, and that cannot be read from it any more."""


class Backups:
    """The backups of one state.

    Args:
        directory: Of the state.

    Attributes:
        settle: Called before a copy is made, so that the database has everything.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "backups"
        self._store: Store | None = None
        self._files: Files | None = None
        self.settle: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    def attach(self, store: Store, files: Files) -> None:
        """Say what is to be copied."""
        self._store, self._files = store, files

    def newest(self) -> str:
        """Return the path of the newest backup, "" when there is none."""
        found = self.all()
        return str(found[-1]) if found else ""

    def all(self) -> list[Path]:
        """Return the folders of all backups, oldest first."""
        try:
            found = [path for path in self.directory.iterdir() if (path / DATABASE).exists()]
        except FileNotFoundError:
            return []
        return sorted(
            (path for path in found if not path.name.endswith(_UNFINISHED)), key=lambda path: path.stat().st_mtime
        )

    def make(self, name: str = "", *, automatic: bool = False) -> Path:
        """Make a backup while the state is in use; any thread.

        Args:
            name: Of its folder; "" for the time.
            automatic: Whether it is one of those of which only the newest stay.

        Raises:
            StateStorageError: It cannot be written.
            StateCorruptError: What is copied is damaged; the backups that there are stay.
            StateError: There is one of that name; or the store is backed up by other means.
            SettingsError: It cannot be called so.
        """
        assert self._store is not None
        assert self._files is not None, "attach() comes first"
        if self._store.backed_up_by:
            raise StateError(f"this shared state is not backed up from here: {self._store.backed_up_by}")
        if name.startswith(_AUTOMATIC):
            raise SettingsError(
                f"a backup named {_AUTOMATIC}... is one that is made and removed by itself; not {name!r}"
            )
        with self._lock:
            folder = self.directory / (check_name(name, "backup") if name else self._free_name(automatic))
            if folder.exists() or folder.suffix == _UNFINISHED:
                raise StateError(f"there is a backup {folder.name!r} already, in {folder}")
            draft = folder.with_name(folder.name + _UNFINISHED)
            try:
                private_directory(self.directory)
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(mode=0o700)
                with self._files.holding():
                    self.settle()
                    self._store.backup(draft / DATABASE)
                    _link_values(draft / DATABASE, self._files.values, draft / "values")
                problems = check_file(draft / DATABASE)
                if problems:
                    # Those that there are were made before that.
                    path = str(self.directory.parent / DATABASE)
                    raise StateCorruptError(path=path, reason=problems[0], backup=self.newest())
                draft.rename(folder)
            except OSError as error:
                shutil.rmtree(draft, ignore_errors=True)
                raise StateStorageError(path=str(folder), reason=str(error.strerror or error)) from error
            except sqlite3.Error as error:
                shutil.rmtree(draft, ignore_errors=True)
                raise StateStorageError(path=str(folder), reason=str(error)) from error
            except PyrokernelError:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        for old in [path for path in self.all() if path.name.startswith(_AUTOMATIC)][:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def _free_name(self, automatic: bool) -> str:
        """Return a name that says when it was made; with a number where there are several in a second."""
        name = (_AUTOMATIC if automatic else "") + time.strftime("%Y%m%d-%H%M%S")
        names = (f"{name}.{number}" if number else name for number in itertools.count())
        return next(name for name in names if not (self.directory / name).exists())

    def keep_current(self, every: float) -> None:
        """Make a backup whenever the newest one is so many seconds old, for ever; for a thread of its own."""
        pause = threading.Event()
        pause.wait(min(every, _SETTLE_SECONDS))
        while True:
            try:
                newest = self.newest()
                age = time.time() - os.stat(newest).st_mtime if newest else every
            except FileNotFoundError:  # somebody tidies up
                continue
            if age < every:
                pause.wait(min(every - age, every))
                continue
            try:
                self.make(automatic=True)
            except PyrokernelError as error:
                log.warning("no backup could be made: %s", error)
                pause.wait(min(every, 3600.0))


def _link_values(database: Path, values: Path, target: Path) -> None:
    """Give the files that a copy refers to one more name beside it, or copy them."""
    target.mkdir(mode=0o700)
    with closing(sqlite3.connect(database)) as db:
        names = [str(name) for (name,) in db.execute("SELECT DISTINCT file FROM log WHERE file <> ''")]
    for name in names:
        try:
            os.link(values / name, target / name)
        except FileNotFoundError:
            log.warning("the value in %s is gone", values / name)
        except OSError:  # another disk, or one without links
            shutil.copyfile(values / name, target / name)


def restore(directory: Path, backup: Path, stop: Callable[[], object] = lambda: None) -> Path:
    """Put a backup in place of a state; return where what was there is now.

    Args:
        directory: Of the state.
        backup: A folder that `Backups.make` made, or its database file.
        stop: Ends the service that uses the state. Called when all is ready, and again if another one has been
            started meanwhile.

    Raises:
        StateError: It is no backup, or damaged itself; nothing was changed then.
        StateStorageError: The disk is full, or a service uses the state; nothing was changed then.
    """
    source = backup.parent if backup.name == DATABASE else backup
    if not (source / DATABASE).is_file():
        raise StateError(f"{backup} is no backup of a shared state: it has no {DATABASE}")
    problems = check_file(source / DATABASE)
    if problems:
        raise StateError(f"the backup {source} is damaged itself: {problems[0]}")
    private_directory(directory)
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    aside, draft = directory / f"replaced-{stamp}", directory / f"restoring-{stamp}"
    try:
        shutil.copytree(source, draft)
        held = _claim_after(directory, stop)
        try:
            # Who knew the replaced state must not take a number of it for one of this.
            known = max(newest_revision(directory / DATABASE), newest_revision(draft / DATABASE))
            begin_anew(draft / DATABASE, known + _UNSEEN)
            aside.mkdir(mode=0o700)
            for name in _PARTS:
                if (directory / name).exists():
                    (directory / name).rename(aside / name)
            for path in draft.iterdir():
                path.rename(directory / path.name)
        finally:
            os.close(held)
    except (OSError, sqlite3.Error) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise StateStorageError(path=str(directory), reason=reason) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return aside


def _claim_after(directory: Path, stop: Callable[[], object]) -> int:
    """Take a directory from the service that uses it; its clients may have started the next one at once."""
    for _ in range(_TRIES - 1):
        stop()
        with contextlib.suppress(StateStorageError):
            return claim(directory)
    stop()
    return claim(directory)
