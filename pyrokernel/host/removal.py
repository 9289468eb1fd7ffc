"""Noticing that a file was removed, without looking for it again and again. Runs in the host process."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# From <sys/inotify.h>.
_MOVED_FROM, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x40, 0x200, 0x400, 0x800
_EVENTS_BYTES = 65536


class RemovalWatch:
    """A descriptor that becomes readable when something leaves a directory, or the directory itself does.

    Args:
        directory: Which.

    Raises:
        OSError: It cannot be watched; also where the system has no inotify.
    """

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "inotify_init1"):
            raise OSError("this system has no inotify")
        self._fd: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        mask = _MOVED_FROM | _DELETE | _DELETE_SELF | _MOVE_SELF
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(directory), mask) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number), str(directory))

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._fd

    def clear(self) -> None:
        """Forget what has been noticed."""
        os.read(self._fd, _EVENTS_BYTES)

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
