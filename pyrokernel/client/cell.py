"""Cell: a handle to one execution in one kernel. Runs in the caller's process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import USUAL, ask_kernel
from pyrokernel.client.interrupts import interrupt
from pyrokernel.client.links import LONG_POLL_SECONDS, Link
from pyrokernel.errors import KernelDiedError, KernelRestartedError, PyrokernelError, ReplyTimeoutError
from pyrokernel.messages import Event, EventKind, Receipt, Reply

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh


class Cell:
    """A handle to one cell in one life of a kernel; any client that knows its id can make one.

    Args:
        mesh: Where its kernel is.
        link: The way to the instance in which it runs.
        id: Its id.
        after: Journal position to follow from.
    """

    def __init__(self, mesh: Mesh, link: Link, id: str, after: int = 0) -> None:
        self.mesh = mesh
        self.link = link
        self.id = id
        self.after = after
        self._begin = after

    @property
    def kernel(self) -> str:
        """Name of its kernel."""
        return self.link.name

    @property
    def instance(self) -> str:
        """In which life of the kernel it runs."""
        return self.link.instance

    def __repr__(self) -> str:
        return f"<Cell {self.id[:8]} on {self.kernel!r}>"

    def reply(self, timeout: float | None = None, *, check: bool = True) -> Reply:
        """Wait for the reply.

        Raises:
            ReplyTimeoutError: Not in time; the cell goes on.
            RemoteError: The code raised (unless `check` is False).
            ResultExpiredError, CellNotFoundError: There is no reply (any more).
            KernelDiedError: The kernel died.
        """
        grace = None if timeout is None else timeout + self.mesh.settings.timeout
        reply = Reply.from_wire(self._ask("reply", self.id, timeout, timeout=grace))
        if check:
            reply.raise_if_failed()
        return reply

    def follow(self, *, stdin: bool = False, timeout: float | None = None) -> Iterator[Event]:
        """Yield the cell's events from its beginning as they happen, the ended event last.

        Args:
            stdin: This front end answers input events, with `Kernel.answer_input`.
            timeout: Seconds for all of it; None until the cell ends.

        Raises:
            ReplyTimeoutError: The cell had not ended in time.
            KernelDiedError: The kernel died.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONG_POLL_SECONDS if deadline is None else min(LONG_POLL_SECONDS, deadline - time.monotonic())
            if left <= 0:
                raise ReplyTimeoutError(seconds=timeout, cell=self.id, replies={}, missing=(self.kernel,))
            options = {"cell": self.id, "stdin": stdin}
            grace = left + self.mesh.settings.timeout
            try:
                answer = self._ask("follow", self.after, left, options, timeout=grace)
            except KernelDiedError:
                yield from self.last_words()
                raise
            except ReplyTimeoutError:
                continue  # a C call holds the kernel; the deadline, if there is one, says when to stop
            for event in self.take(answer):
                yield event
                if event.kind == EventKind.ENDED:
                    return

    def events(self) -> list[Event]:
        """Return the cell's events so far, without waiting and without moving the position to follow from."""
        found: list[Event] = []
        after = self._begin
        while True:
            answer = self._ask("follow", after, 0.0, {"cell": self.id})
            found += [Event.from_wire(wire) for wire in answer["events"]]
            if answer["next"] in (after, answer["last"]):
                return found
            after = int(answer["next"])

    def take(self, answer: Mapping[str, Any]) -> Iterator[Event]:
        """Yield the events of one answer to `follow`, moving the position along with each."""
        for wire in answer["events"]:
            event = Event.from_wire(wire)
            self.after = event.seq
            yield event
        self.after = max(self.after, int(answer["next"]))

    def last_words(self) -> Iterator[Event]:
        """Yield what the cell's kernel wrote between the last look and its death, as its host found it."""
        while True:
            answer = self.mesh.read_journal(self.kernel, self.instance, self.after)
            if not answer["events"]:
                return
            yield from (event for event in self.take(answer) if event.cell == self.id)

    def interrupt(self, *, escalate: bool = False, wait: float = 0.2) -> Receipt:
        """Interrupt this cell, if it is the one that runs; arguments as `Kernel.interrupt`.

        Raises:
            KernelDiedError: Its kernel has died.
            KernelUnreachableError: It cannot be asked.
        """
        receipts, errors = interrupt(self.mesh, [self.link], self.id, escalate=escalate, wait=wait)
        for error in errors.values():
            raise how_it_ended(error)
        return receipts[self.kernel]

    def cancel(self) -> bool:
        """Keep the cell from starting; False when it runs or has ended."""
        return bool(self._ask("cancel", self.id))

    @property
    def done(self) -> bool:
        """Whether it has ended; asks the kernel, does not wait."""
        try:
            self.reply(0.0, check=False)
        except ReplyTimeoutError:
            return False
        return True

    def _ask(self, method: str, *args: Any, timeout: float | None = USUAL) -> Any:
        """Call a control method of the instance in which the cell runs."""
        try:
            return ask_kernel(self.mesh, self.link, method, *args, timeout=timeout)
        except KernelRestartedError as error:
            raise how_it_ended(error) from None


def how_it_ended(error: PyrokernelError) -> PyrokernelError:
    """Return how the kernel ended, where that is known: whoever asks for a cell does not ask what has the name now."""
    cause = error.__cause__
    return cause if isinstance(error, KernelRestartedError) and isinstance(cause, KernelDiedError) else error
