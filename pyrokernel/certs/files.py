"""Files that only their owner reads, replaced whole, and one writer at a time. Runs in all that write identities."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pyrokernel import systems
from pyrokernel.errors import AccessRefusedError

__all__ = ["locked", "write_private"]

_DRAFT = ".draft"
_STALE_SECONDS = 60
_PATIENCE_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 0.05


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600; whoever reads it finds what was there before, or all of the new."""
    # mkstemp creates with O_EXCL and mode 0600.
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_DRAFT, dir=path.parent)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise
    _sync_directory(path.parent)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only one who writes in a directory of ours; what a killed writer left unfinished is removed.

    Raises:
        AccessRefusedError: Another command goes on for too long.
    """
    # A file, because a network file system locks nothing that is open for reading only.
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | systems.OWN, 0o600)
    try:
        _await_lock(descriptor, directory)
        sweep(directory)
        yield
    finally:
        os.close(descriptor)


def sweep(directory: Path) -> None:
    """Remove drafts of commands that were killed."""
    for draft in directory.glob(f".*{_DRAFT}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > _STALE_SECONDS:
                draft.unlink()


def _await_lock(descriptor: int, directory: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not systems.try_lock(descriptor):
        if time.monotonic() > deadline:
            raise AccessRefusedError(
                f"another `pyrokernel certs` works in {directory} for over {_PATIENCE_SECONDS:.0f} s; end it "
                f"(fuser {directory / 'lock'} names it), then try again"
            )
        time.sleep(_LOOK_AGAIN_SECONDS)  # flock itself waits for ever or not at all


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | systems.OWN)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
