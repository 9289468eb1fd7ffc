"""The directory of a shared state belongs to one process at a time. Runs in the state process, and in `restore`.

The database has a lock of its own, but on a file that `restore` takes away and replaces.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from pyrokernel.errors import StateStorageError

_LOOK_AGAIN_SECONDS = 0.01


def claim(directory: Path, patience: float = 0.0) -> int:
    """Take a directory; return the descriptor that holds it until it is closed or this process ends.

    Args:
        directory: Of a shared state.
        patience: Seconds to wait for whoever has it.

    Raises:
        StateStorageError: Another process has it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                reason = "another process has it open: there can be only one service"
                raise StateStorageError(path=str(directory), reason=reason) from error
            time.sleep(_LOOK_AGAIN_SECONDS)  # flock itself waits for ever or not at all
        else:
            return descriptor
