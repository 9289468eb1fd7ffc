"""Starts this interpreter anew, for templates and spawned kernels. Runs in the host process.

Imports next to nothing: the host starts its template from here before it imports anything
else, so that both load at the same time.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyrokernel.again import python_with

CAN_FORK = sys.platform == "linux"
"""Whether kernels may be forked from a template: it takes a subreaper, and macOS frameworks do not survive fork."""


class TemplateProcess:
    """A template that was started: its process id, the host's end of its socket, and what it prints.

    Attributes:
        pid: The process.
        control: Socket for requests and answers.
        output: Descriptor of a nameless file.
    """

    def __init__(self, preload: Sequence[str], environ: Mapping[str, str]) -> None:
        self.control, theirs = socket.socketpair()
        self.output = scratch_file()
        with theirs:
            self.pid = start_python(
                [*python_with("pyrokernel.host.template"), str(theirs.fileno()), "kernel", *preload],
                environ,
                output=self.output,
                passed=[theirs.fileno()],
            )

    def close(self) -> None:
        """Free the descriptors; the process leaves when its socket closes."""
        self.control.close()
        os.close(self.output)


def about_plugins(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that tell a template of plugins; whatever else is set reaches kernels at their birth.

    Args:
        settings: As `Settings.dump()` has them.
    """
    return {
        "PYROKERNEL_PLUGINS_DIR": settings.get("plugins_dir", ""),
        "PYROKERNEL_NO_PLUGIN": settings.get("no_plugin", ""),
        "PYROKERNEL_PLUGINS": json.dumps(settings.get("plugins", {})),
    }


def start_python(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    stdin: int | None = None,
    output: int,
    passed: Iterable[int] = (),
) -> int:
    """Start this interpreter in a session of its own and return its process id.

    `posix_spawn` and not `subprocess`: the latter collects exit statuses behind the
    host's back, and takes 10 ms to import.

    Args:
        arguments: The command line, as `python_with` makes it.
        environ: The whole environment.
        stdin: Descriptor that becomes 0; None for an empty one.
        output: Descriptor that becomes 1 and 2.
        passed: Descriptors that keep their numbers.

    Raises:
        OSError: The system gives no more processes, or the interpreter is gone.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]
    descriptors = list(passed)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    try:
        return os.posix_spawn(arguments[0], list(arguments), dict(environ), file_actions=actions, setsid=True)
    finally:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)


def scratch_file() -> int:
    """Return the descriptor of an empty file without a name."""
    if CAN_FORK:
        return os.memfd_create("pyrokernel")
    import tempfile  # 5 ms that Linux does not pay

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def read_end(descriptor: int, max_bytes: int = 4096) -> str:
    """Return the end of a scratch file as text, wherever its writers are."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, max_bytes, max(0, size - max_bytes)).decode(errors="replace").strip()
