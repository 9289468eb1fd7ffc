"""The directory of a shared state belongs to one process at a time. Runs in the state process, and in `restore`.

The database has a lock of its own, but on a file that `restore` takes away and replaces.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pyrokernel import systems
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
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    else:  # Windows opens no directories
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | systems.OWN, 0o600)
    deadline = time.monotonic() + patience
    while not systems.try_lock(descriptor):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            reason = "another process has it open: there can be only one service"
            raise StateStorageError(path=str(directory), reason=reason)
        time.sleep(_LOOK_AGAIN_SECONDS)  # flock itself waits for ever or not at all
    return descriptor
