"""What every process that a host starts does at its beginning. Runs in kernels, in the shared state, in the gateway."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def write_to(path: Path) -> None:
    """Send what this process has to say to a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
