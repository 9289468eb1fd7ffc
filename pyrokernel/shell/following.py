"""Several cells followed in one loop that others may add to and end. Runs in the shell process, in a thread."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Iterator
from typing import Any

from pyrokernel.client.calls import Exchange, kernel_request
from pyrokernel.client.cell import Cell, how_it_ended
from pyrokernel.client.links import LONG_POLL_SECONDS
from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import KernelDiedError, PyrokernelError
from pyrokernel.messages import Event, EventKind

STEP_SECONDS = 0.5
"""How often the loop looks whether it has more cells to follow, or none any more; nothing is sent for that."""


class Follower:
    """Yields what happens in cells; those of one kernel in the order in which they were added.

    Cells of one kernel run one after the other, so one request per kernel is enough.

    Args:
        mesh: Where they are.
        stdin: Whether this front end answers their questions.
    """

    def __init__(self, mesh: Mesh, *, stdin: bool = False) -> None:
        self._mesh = mesh
        self._stdin = stdin
        self._added: collections.deque[Cell] = collections.deque()
        self._lines: dict[str, collections.deque[Cell]] = {}
        self._stopped = threading.Event()

    def add(self, cell: Cell) -> None:
        """Follow one more cell (any thread)."""
        self._added.append(cell)

    def stop(self) -> None:
        """Let go of all cells, within a step (any thread); the kernels then count on no answers from here."""
        self._stopped.set()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to follow."""
        return not self._added and not any(self._lines.values())

    def events(self) -> Iterator[tuple[Cell, Event | PyrokernelError]]:
        """Yield (cell, event) until all cells have ended; of one that is lost, its last words and the error."""
        with Exchange(self._mesh, "control", blocking=False) as exchange:
            while not self._stopped.is_set():
                self._take_added(exchange)
                if self.idle:
                    return
                for name, _, value, error in exchange.answers(time.monotonic() + STEP_SECONDS):
                    for item in self._take(exchange, name, value, error):
                        yield item
                        if self._stopped.is_set():
                            return
                    if self._added:
                        break

    def _take_added(self, exchange: Exchange) -> None:
        while self._added:
            cell = self._added.popleft()
            line = self._lines.setdefault(cell.kernel, collections.deque())
            line.append(cell)
            if len(line) == 1:
                self._ask(exchange, cell)

    def _ask(self, exchange: Exchange, cell: Cell) -> None:
        options = {"cell": cell.id, "stdin": self._stdin}
        exchange.send(cell.link, kernel_request("follow", cell.after, LONG_POLL_SECONDS, options))

    def _take(
        self, exchange: Exchange, name: str, answer: Any, error: PyrokernelError | None
    ) -> Iterator[tuple[Cell, Event | PyrokernelError]]:
        """Yield what one answer holds, and ask for the next."""
        line = self._lines[name]
        cell = line[0]
        ended = error is not None
        if error is None:
            for event in cell.take(answer):
                ended = ended or event.kind == EventKind.ENDED
                yield cell, event
        else:
            error = how_it_ended(error)
            if isinstance(error, KernelDiedError):
                yield from ((cell, event) for event in cell.last_words())
            yield cell, error
        if ended:
            line.popleft()
        if line:
            self._ask(exchange, line[0])
