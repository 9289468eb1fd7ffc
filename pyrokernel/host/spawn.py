"""Templates as the host starts them: forked from itself while it is young, anew later. Runs in the host process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from pyrokernel.again import python_with, scratch_file, start_python
from pyrokernel.host import template


class TemplateProcess:
    """A template that was started: its process id, the host's end of its socket, and what it prints.

    Attributes:
        pid: The process.
        control: Socket for requests and answers.
        output: Descriptor of a nameless file.
    """

    def __init__(self, pid: int, control: socket.socket, output: int) -> None:
        self.pid = pid
        self.control = control
        self.output = output

    @classmethod
    def forked(cls, environ: Mapping[str, str]) -> TemplateProcess:
        """Fork it from this process, which has one thread only and no business of its own yet.

        Args:
            environ: Variables of its own, besides those of this process.
        """
        control, theirs = socket.socketpair()
        output = scratch_file()
        pid = os.fork()
        if pid == 0:
            template.begin(theirs.detach(), output, environ)
        theirs.close()
        return cls(pid, control, output)

    @classmethod
    def anew(cls, preload: Sequence[str], environ: Mapping[str, str]) -> TemplateProcess:
        """Start it in an interpreter of its own.

        Args:
            preload: Modules to import.
            environ: The whole environment.
        """
        control, theirs = socket.socketpair()
        output = scratch_file()
        with theirs:
            pid = start_python(
                [*python_with("pyrokernel.host.template"), str(theirs.fileno()), "kernel", *preload],
                environ,
                output=output,
                passed=[theirs.fileno()],
            )
        return cls(pid, control, output)

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
