"""Values too large for rows: one file each, written and mapped by whoever uses them. Runs in the state process.

A process on this machine writes such a value into a file that the service hands out, and reads it by
mapping the file: nothing is copied that need not be. Pages of a new file cost the system ten times as
much as writing them again, so files that are not needed any more are kept for the next values.

Rewriting a file that somebody still maps would change an array under its reader. Hence each reader
holds a shared lock on the file, on the very descriptor that its map keeps open, for as long as the
map lives; and a file is handed out only while it can be locked against all. The lock goes with the
process, however it ends. A reader that opened the file while it was being taken out of use sees that
its name has gone, and asks again.

A file that was handed out outlives the service: its writer asks the next one to carry out the write.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pyrokernel import systems
from pyrokernel.errors import ProtocolError, StateStorageError
from pyrokernel.settings import private_directory
from pyrokernel.wire.codec import Buffer
from pyrokernel.wire.mapped import layout, write_parts

log = logging.getLogger(__name__)

STAGED_SECONDS = 600.0
"""A file that was handed out, and neither used nor written to for so long, is not going to be."""

_STAGED = "staged-"

SPARE_BYTES = 256 * 1024 * 1024
"""How much of files without a use is kept for later values; each at most half of it."""


class Files:
    """The files of one store.

    Args:
        directory: Where they are; made here.
        power: Wait for the disk before a file counts as written.
    """

    def __init__(self, directory: Path, *, power: bool = False) -> None:
        self.values = private_directory(directory / "values")
        self._spares = private_directory(directory / "spare")
        self._power = power
        self._guard = threading.Lock()
        self._held: list[str] | None = None

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Keep all values as they are while a backup is made, from its thread."""
        with self._guard:
            self._held = []
        try:
            yield
        finally:
            with self._guard:
                held, self._held = self._held or [], None
            for name in held:
                self.release(name)

    def clean(self, used: Collection[str]) -> None:
        """Put aside what no row knows: of writes that were not finished when the service ended.

        Their writers may be about to ask again, so the files can be adopted for some time yet.
        """
        with self._explained():
            for path in self._spares.iterdir():
                if not path.name.startswith(_STAGED):
                    path.unlink(missing_ok=True)
            for path in self.values.iterdir():
                if path.name not in used:
                    log.info("%s belongs to no value", path)
                    path.rename(self.path_of(_STAGED + path.name))
        self._forget_stale()

    def stage(self, size: int) -> str:
        """Return the name of a file to write a value of so many bytes into, for `path_of` and `adopt`."""
        with self._explained():
            self._forget_stale()
            name = _STAGED + secrets.token_hex(8)
            spare = self._best_spare(size)
            try:
                if spare is not None:
                    spare.rename(self.path_of(name))
                    return name
            except FileNotFoundError:
                log.debug("%s was put to use elsewhere", spare)
            os.close(os.open(self.path_of(name), os.O_CREAT | os.O_EXCL | os.O_RDWR | systems.OWN, 0o600))
        return name

    def _best_spare(self, size: int) -> Path | None:
        """Return the smallest spare file that is large enough, else the largest: only what is new of it is slow."""
        best: tuple[int, Path] | None = None
        for path, found in self._sizes_of_spares():
            better = best is None or (found < best[0] if best[0] >= size <= found else found > best[0])
            if better and self._is_free(path):
                best = (found, path)
        return best[1] if best is not None and best[0] <= 4 * size else None

    def _sizes_of_spares(self) -> Iterator[tuple[Path, int]]:
        for path in self._spares.iterdir():
            if not path.name.startswith(_STAGED):
                with contextlib.suppress(FileNotFoundError):  # a backup that ends lets go of files in its own thread
                    yield path, path.stat().st_size

    def _forget_stale(self) -> None:
        """Remove what was handed out to somebody who is not going to use it."""
        oldest = time.time() - STAGED_SECONDS
        for path in self._spares.iterdir():
            if path.name.startswith(_STAGED):
                with contextlib.suppress(FileNotFoundError):
                    info = path.stat()
                    if max(info.st_mtime, info.st_ctime) < oldest:
                        path.unlink()

    def path_of(self, staged: str) -> Path:
        """Return where a staged file is."""
        return self._spares / staged

    def check(self, staged: str, sizes: Sequence[int]) -> None:
        """Find out all that can be wrong with a file before it is adopted.

        Raises:
            ProtocolError: It is shorter than it is said to be, or was never staged.
        """
        path = self.path_of(staged)
        if not staged.startswith(_STAGED) or "/" in staged or "\0" in staged or not path.is_file():
            raise ProtocolError(f"{staged!r:.80} is no file that was handed out here")
        if path.stat().st_size < layout(sizes)[1]:
            raise ProtocolError("the file is shorter than the value that it is to hold")

    def adopt(self, staged: str, sizes: Sequence[int]) -> str:
        """Take a file that was written; return the name of the value.

        Raises:
            ProtocolError: It is shorter than it is said to be, or was never staged.
        """
        self.check(staged, sizes)
        path, name = self.path_of(staged), staged.removeprefix(_STAGED)
        with self._explained():
            if self._power:
                _sync(path)
            path.rename(self.values / name)
            if self._power:
                _sync(self.values)
        return name

    def give_back(self, staged: str, name: str) -> None:
        """Undo `adopt`, or with "" what made a name: the write that it was for is undone."""
        if not staged:
            self.release(name)
            return
        try:
            (self.values / name).rename(self._spares / staged)
        except OSError as error:  # nobody knows it: the next service puts it aside
            log.warning("cannot give %s back: %s", staged, error)

    def drop(self, staged: str) -> None:
        """Give up a file that was handed out, such as that of a client that has gone.

        It is not kept for others: a thread or child of that client may go on writing into it.
        """
        with contextlib.suppress(OSError):  # what cannot be removed now is stale some day
            self.path_of(staged).unlink()

    def write(self, parts: Sequence[Buffer]) -> str:
        """Write a value that came through a socket; return its name."""
        sizes = [len(part) for part in parts]
        offsets, end = layout(sizes)
        staged = self.stage(end)
        try:
            with self._explained():
                descriptor = os.open(self._spares / staged, os.O_RDWR | systems.OWN)
                try:
                    write_parts(descriptor, parts, offsets)
                finally:
                    os.close(descriptor)
            return self.adopt(staged, sizes)
        except BaseException:
            self.drop(staged)
            raise

    def duplicate(self, name: str) -> str:
        """Give a value's file one more name, for another row that holds the same value."""
        other = secrets.token_hex(8)
        with self._explained():
            try:
                os.link(self.values / name, self.values / other)
            except FileNotFoundError:
                raise
            except OSError:  # a disk without links
                shutil.copyfile(self.values / name, self.values / other)
        return other

    def release(self, name: str) -> None:
        """Let go of a value's file: nothing refers to it any more."""
        with self._guard:
            if self._held is not None:
                self._held.append(name)
                return
        self._spare(self.values / name)

    def _spare(self, path: Path) -> None:
        """Keep a file for later, or remove it."""
        try:
            held = sum(size for _, size in self._sizes_of_spares())
            size = path.stat().st_size
            # A file with a second name belongs to a backup too.
            if size > SPARE_BYTES // 2 or held + size > SPARE_BYTES or path.stat().st_nlink > 1:
                path.unlink()
            else:
                path.rename(self._spares / secrets.token_hex(8))
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("cannot put %s aside: %s", path, error)

    def _is_free(self, path: Path) -> bool:
        """Whether nobody maps a file that has lost its name already."""
        try:
            descriptor = os.open(path, os.O_RDWR | systems.OWN)
        except OSError:
            return False
        try:
            return systems.try_lock(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateStorageError(path=str(self.values), reason=str(error.strerror or error)) from error


def _sync(path: Path) -> None:
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return  # Windows opens no directories, and keeps names by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
