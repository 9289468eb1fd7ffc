"""Why a cell that was sent does not start yet, said once. Runs in the caller's process, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.links import Link
from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import PyrokernelError
from pyrokernel.front.terminal import note
from pyrokernel.texts import describe_busy, label

_QUIET_SECONDS = 1.0
"""Nobody wonders before that."""

_DESCRIBE_SECONDS = 0.5


class WaitingNote:
    """Says what a cell waits for, if it has not started on some kernels within a second.

    Args:
        mesh, links: Where it was sent.
        cell: Its id.
    """

    def __init__(self, mesh: Mesh, links: Iterable[Link], cell: str) -> None:
        self._mesh = mesh
        self._links = {link.name: link for link in links}
        self._cell = cell
        self._timer = threading.Timer(_QUIET_SECONDS, self._look)
        self._timer.daemon = True

    def start(self) -> None:
        """Begin to count."""
        self._timer.start()

    def started(self, kernel: str) -> None:
        """Note that nothing is waited for there any more."""
        self._links.pop(kernel, None)
        if not self._links:
            self._timer.cancel()

    def stop(self) -> None:
        """Say nothing from now on."""
        self._links.clear()
        self._timer.cancel()

    def _look(self) -> None:
        links = list(self._links.values())
        try:
            abouts, _, missing = gather(
                self._mesh, links, kernel_request("describe"), kind="control", timeout=_DESCRIBE_SECONDS
            )
        except PyrokernelError:
            return  # whoever waits for the cell learns of it too
        now = time.time()
        for name, about in abouts.items():
            running = about["running"]
            if name in self._links and running and running["cell"] != self._cell:
                note(describe_waiting(name, running, now))
        silent = [name for name in missing if name in self._links]
        if silent:
            what = "does not answer: a C call may hold its interpreter"
            note(f"{label(silent)} {what}; waiting (Ctrl-C leaves)")


def describe_waiting(kernel: str, running: Mapping[str, Any], now: float) -> str:
    """Say what a kernel is busy with.

    Args:
        kernel: Its name.
        running: From its `describe`.
        now: Unix time in seconds.
    """
    return f"{kernel} is {describe_busy(running, now)}; waiting (Ctrl-C leaves)"
