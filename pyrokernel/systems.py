"""What operating systems do differently about files, accounts and processes, in one place. Runs in every process.

Imports next to nothing, as `again`, which needs it. What is missing is looked for and not guessed from the name of the
system: the tests take away what Windows lacks and run on Linux (`tests/lacking`).
"""

from __future__ import annotations

import os
import stat
import threading

# As in `again`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

OWN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_BINARY", 0)
"""Flags of `os.open`: not for children, and bytes as they are."""

NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Flag of `os.open`: no links. Windows lets nobody but administrators make them."""

NOWAIT = getattr(os, "O_NONBLOCK", 0)
"""Flag of `os.open`: not for somebody at the other end either, where another account may have put a named pipe."""

KILL = 9
"""SIGKILL; Windows, which has no name for it, ends a process for any number that is not an event of its console."""

_LOCKED_BYTE = 1 << 30
"""Windows locks ranges, which nobody else can read then: so one that no file of ours has."""

_place = threading.Lock()


def pread(descriptor: int, size: int, offset: int) -> bytes:
    """Read from a place in a file, by any thread."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _place:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def pwrite(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write to a place in a file, by any thread; return how much of it."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    with _place:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


def has_shared_locks() -> bool:
    """Whether readers of a file can hold a lock together."""
    return file_control() is not None


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock a file until its descriptor is closed; False where somebody else has it.

    Args:
        descriptor: Of the file.
        shared: With other readers; only where `has_shared_locks`.
    """
    fcntl = file_control()
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
        assert not shared
        import msvcrt

        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]  # Windows only
        os.lseek(descriptor, place, os.SEEK_SET)
        return True
    except (BlockingIOError, PermissionError):
        return False


def file_control() -> Any:
    """Return the module `fcntl`, None where there is none."""
    try:
        import fcntl
    except ImportError:
        return None
    return fcntl


def limits() -> Any:
    """Return the module `resource`, None where processes have no such limits."""
    try:
        import resource
    except ImportError:
        return None
    return resource


def own_uid() -> int:
    """Return the number of this account; 0 where accounts have none."""
    return os.getuid() if hasattr(os, "getuid") else 0


def may_be_written_by_all(path: Path) -> bool:
    """Whether every account of the machine may write a file; where modes say nothing of that, no."""
    return hasattr(os, "getuid") and bool(path.stat().st_mode & stat.S_IWOTH)


def at_fork(**callbacks: Callable[[], object]) -> None:
    """As `os.register_at_fork`, where processes fork at all."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**callbacks)


def temporary_root() -> str:
    """Return the directory, on this machine's own disk, where private ones are made."""
    if hasattr(os, "getuid"):
        return "/tmp"  # short, as addresses of unix sockets are to be; TMPDIR of macOS is not
    found = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")
    return os.path.splitdrive(found)[1]  # a colon is not for addresses of Pyro
