"""What every process that a host starts does at its beginning. Runs in kernels, in the shared state, in the gateway."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

LOG_BYTES = 8 << 20
"""Of a log, before a new one is begun."""

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

if TYPE_CHECKING:
    from pyrokernel.messages import KernelBirth


def report(birth: KernelBirth, line: dict[str, Any]) -> None:
    """Tell the host, once, whether the process came up."""
    if birth.ready_fd < 0:
        return
    try:
        os.write(birth.ready_fd, json.dumps(line).encode() + b"\n")
    except BrokenPipeError:
        os._exit(1)  # the host died before it knew of this process: no other could ever find it
    os.close(birth.ready_fd)


def end_with_client(birth: KernelBirth) -> None:
    """End with the client that a private mesh belongs to: its end of the pipe is never written, only closed."""
    if birth.lifeline_fd < 0:
        return

    def watch() -> None:
        try:
            os.read(birth.lifeline_fd, 1)
        finally:
            os._exit(0)

    threading.Thread(target=watch, name="pyrokernel-lifeline", daemon=True).start()


class BoundedLog(logging.Handler):
    """Keeps records in a file, and those before them in a second one; whoever causes them fills no disk.

    Args:
        path: The file; the second one has ".1" behind its name.
        cap_bytes: Of each of the two.
        instead: Descriptor for what cannot be written there, as when there are no more descriptors.
    """

    def __init__(self, path: Path, cap_bytes: int = LOG_BYTES, *, instead: int = -1) -> None:
        super().__init__()
        self._path, self._cap_bytes, self._instead = path, cap_bytes, instead
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        # Opened each time: in a kernel, user code may close what is open, and have the number for a file of its own.
        try:
            self._write(line)
        except OSError:
            # A disk that is full must not be told of on standard error, which may be a user's.
            if self._instead >= 0:
                with contextlib.suppress(OSError):
                    os.write(self._instead, line)

    def _write(self, line: bytes) -> None:
        descriptor = _opened(self._path)
        try:
            if os.fstat(descriptor).st_size + len(line) > self._cap_bytes:
                self._path.replace(f"{self._path}.1")
                os.close(descriptor)
                descriptor = _opened(self._path)
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def write_to(path: Path) -> None:
    """Send what this process has to say to a file."""
    descriptor = _opened(path)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    logging.basicConfig(level=logging.WARNING, handlers=[BoundedLog(path, instead=2)])


def log_aside(names: Iterable[str], path: Path) -> None:
    """Have some loggers write to a file, and not to standard error, which is what a user's cells have printed.

    Args:
        names: Of loggers; those below them are meant too.
        path: The file, which is made when there is something to say.
    """
    handler = BoundedLog(path)
    for name in names:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
