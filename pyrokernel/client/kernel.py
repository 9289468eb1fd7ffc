"""Kernel and Cell: handles to one kernel and to one execution there. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.links import Link
from pyrokernel.errors import CellNotFoundError, KernelDiedError, KernelRestartedError, ReplyTimeoutError
from pyrokernel.messages import Completion, Event, EventKind, Inspection, Receipt, Reply

if TYPE_CHECKING:
    from pyrokernel.client.group import Group
    from pyrokernel.client.mesh import Mesh

_LONG_POLL_SECONDS = 25.0


class Kernel:
    """A handle to one kernel, bound to the instance it was made for.

    The first use after a restart that was not asked for through this handle raises
    `KernelRestartedError`; later ones reach the new instance.

    Attributes:
        name, instance: Which kernel, and which life of it.
        mesh: Where it is.
    """

    def __init__(self, mesh: Mesh, link: Link) -> None:
        self.mesh = mesh
        self._link = link

    @property
    def name(self) -> str:
        """Name in the mesh."""
        return self._link.name

    @property
    def instance(self) -> str:
        """Id of the life this handle is bound to."""
        return self._link.instance

    def __repr__(self) -> str:
        try:
            about = self.describe(timeout=1.0)
        except Exception as error:  # noqa: BLE001  a repr never raises: it says what it found
            return f"<Kernel {self.name!r} {type(error).__name__}>"
        return f"<Kernel {self.name!r} {about['status']}, {about['execution_count']} executed>"

    def _alone(self) -> Group:
        from pyrokernel.client.group import Group  # a group is made of kernels; only here does it go the other way

        return Group(self.mesh, [self])

    def execute(self, source: str, *, timeout: float | None = None, check: bool = True, **options: Any) -> Reply:
        """Run a cell and wait for its reply.

        Args:
            source: Python source; the value of a last expression becomes the result.
            timeout: Seconds to wait; the cell goes on in the kernel when they have passed.
            check: Raise if the code raised; False returns a reply with status "error".
            options: As `Group.execute`.

        Raises:
            RemoteError: The code raised.
            KernelDiedError, KernelRestartedError, KernelUnreachableError: The kernel is not there.
            ReplyTimeoutError: No reply in time.
            WouldDeadlockError: This code runs in a kernel that the other waits for.
        """
        return self._single(self._alone().execute(source, timeout=timeout, check=False, **options), check)

    def call(self, function: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function there and return what it returns.

        Args:
            function: A dotted name in the kernel's namespace, or a function, which travels.
            args, kwargs: Its arguments; they travel by pickle.

        Raises:
            As `execute`; NotSerializableError when an argument or the value cannot travel.
        """
        reply = self._single(self._alone().call_replies(function, args, kwargs), True)
        return reply.result

    def submit(self, source: str, **options: Any) -> Cell:
        """Queue a cell and return at once.

        Args:
            source: Python source.
            options: As `Group.execute`.
        """
        return self._alone().submit(source, **options)[self.name]

    def cell(self, cell: str) -> Cell:
        """Return a handle to a cell that was sent earlier, by this client or any other."""
        return Cell(self, cell, after=0)

    def events(self, after: int = 0, *, timeout: float = 0.0, cell: str = "") -> list[Event]:
        """Return journal events after a position.

        Args:
            after: Sequence number of the last event that is known; 0 for the beginning.
            timeout: Seconds to wait for the first.
            cell: Only the events of this cell.
        """
        options = {"cell": cell}
        answer = self._ask("follow", after, timeout, options, timeout=timeout + self.mesh.settings.timeout)
        return [Event.from_wire(event) for event in answer["events"]]

    def push(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Set variables in the kernel, also while a cell runs."""
        self._single_error(self._alone().push_errors({**(mapping or {}), **values}))

    def pull(self, *names: str) -> Any:
        """Return a variable of the kernel, or a tuple of several, also while a cell runs.

        Raises:
            VariableNotFoundError: There is no such variable.
            NotSerializableError: It cannot travel.
        """
        values = self._ask("pull", list(names), timeout=None).load()
        found = tuple(values[name] for name in names)
        return found[0] if len(names) == 1 else found

    def complete(self, code: str, cursor: int | None = None, *, timeout: float | None = None) -> Completion:
        """Complete Python at a cursor, also while a cell runs; runs no property.

        Args:
            code: The text so far.
            cursor: Offset in characters; None for the end.
        """
        position = len(code) if cursor is None else cursor
        return Completion.from_wire(
            self._ask("complete", code, position, timeout=timeout or self.mesh.settings.timeout)
        )

    def inspect(self, code: str, cursor: int | None = None, *, detail: int = 0) -> Inspection:
        """Describe the name at a cursor: signature, docstring, with `detail=1` its source."""
        position = len(code) if cursor is None else cursor
        return Inspection.from_wire(self._ask("inspect", code, position, {"detail": detail}))

    def variables(self) -> list[dict[str, Any]]:
        """List the variables: name, type, summary."""
        found: list[dict[str, Any]] = self._ask("variables")
        return found

    def cells(self, limit: int = 100) -> list[dict[str, Any]]:
        """List the last cells that ended: id, source, author, status, duration; shape (n_cells,)."""
        found: list[dict[str, Any]] = self._ask("cells", limit)
        return found

    def interrupt(self, cell: str = "", *, escalate: bool = False, wait: float = 0.2) -> Receipt:
        """Interrupt what runs.

        Args:
            cell: Only if this cell is running; "" for any.
            escalate: When a C call does not let go, kill the kernel; a fresh instance takes its name.
            wait: Seconds to insist before escalating.

        Returns:
            What became of it; see `Receipt`.
        """
        return self._alone().interrupt(cell, escalate=escalate, wait=wait)[self.name]

    def restart(self, *, force: bool = False) -> None:
        """End this kernel and start it afresh under the same name; this handle follows.

        Args:
            force: Also when the kernel is protected.
        """
        self._alone().restart(force=force)

    def describe(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the kernel says of itself: status, running cell, counts, versions."""
        about: dict[str, Any] = self._ask("describe", timeout=timeout or self.mesh.settings.timeout)
        return about

    def is_alive(self) -> bool:
        """Whether this instance answers."""
        try:
            return bool(self._ask("ping", timeout=self.mesh.settings.timeout) == self.instance)
        except Exception:  # noqa: BLE001  any failure to answer is the answer
            return False

    def answer_input(self, request: str, text: str | None) -> None:
        """Answer a question of input(); `request` is in the input event, a text of None is the end of input."""
        self._ask("answer", request, text)

    def cancel(self, cell: str) -> bool:
        """Keep a cell from starting; False when it runs or has ended."""
        return bool(self._ask("cancel", cell))

    def link_for_use(self) -> Link:
        """Return the link of this handle's instance."""
        return self._link

    def rebind(self) -> None:
        """Bind this handle to the instance that has the name now."""
        self._link = self.mesh.link_to(self.name)

    def _ask(self, method: str, *args: Any, timeout: float | None = -1.0) -> Any:
        """Call a control method."""
        seconds = self.mesh.settings.timeout if timeout == -1.0 else timeout
        values, errors, missing = gather(
            self.mesh, [self._link], kernel_request(method, *args), kind="control", timeout=seconds
        )
        if missing:
            raise ReplyTimeoutError(
                f"kernel {self.name!r} did not answer {method} in {seconds:g} s", seconds=seconds, missing=missing
            )
        self._single_error(errors)
        return values[self.name]

    def _single(self, replies: Mapping[str, Reply], check: bool) -> Reply:
        reply = replies[self.name]
        if reply.failure is not None:
            raise reply.failure
        if check:
            reply.raise_if_failed()
        return reply

    def _single_error(self, errors: Mapping[str, Exception]) -> None:
        error = errors.get(self.name)
        if error is None:
            return
        if isinstance(error, KernelRestartedError):
            self.rebind()
        raise error


@dataclasses.dataclass
class Cell:
    """A handle to one cell in one kernel; any client that knows its id can make one.

    Attributes:
        kernel: Where it runs.
        id: Its id.
        after: Journal position to follow from.
        instance: In which life of the kernel it runs.
    """

    kernel: Kernel
    id: str
    after: int = 0
    instance: str = ""

    def __post_init__(self) -> None:
        self.instance = self.instance or self.kernel.instance

    def __repr__(self) -> str:
        return f"<Cell {self.id[:8]} on {self.kernel.name!r}>"

    def reply(self, timeout: float | None = None, *, check: bool = True) -> Reply:
        """Wait for the reply.

        Raises:
            ReplyTimeoutError: Not in time; the cell goes on.
            RemoteError: The code raised (unless `check` is False).
            ResultExpiredError, CellNotFoundError: There is no reply (any more).
            KernelDiedError: The kernel died.
        """
        grace = None if timeout is None else timeout + self.kernel.mesh.settings.timeout
        reply = Reply.from_wire(self.kernel._ask("reply", self.id, timeout, timeout=grace))
        if check:
            reply.raise_if_failed()
        return reply

    def follow(self, *, stdin: bool = False, timeout: float | None = None) -> Iterator[Event]:
        """Yield the cell's events from its beginning as they happen, the ended event last.

        Args:
            stdin: This front end answers input events, with `kernel.answer_input`.
            timeout: Seconds for all of it; None until the cell ends.

        Raises:
            ReplyTimeoutError: The cell had not ended in time.
            KernelDiedError: The kernel died.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _LONG_POLL_SECONDS if deadline is None else min(_LONG_POLL_SECONDS, deadline - time.monotonic())
            if left <= 0:
                raise ReplyTimeoutError(seconds=timeout, cell=self.id, replies={}, missing=(self.kernel.name,))
            options = {"cell": self.id, "stdin": stdin}
            grace = left + self.kernel.mesh.settings.timeout
            try:
                answer = self.kernel._ask("follow", self.after, left, options, timeout=grace)
            except KernelDiedError:
                yield from self.last_words()
                raise
            for event in self.take(answer):
                yield event
                if event.kind == EventKind.ENDED:
                    return

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
            answer = self.kernel.mesh.read_journal(self.kernel.name, self.instance, self.after)
            if not answer["events"]:
                return
            yield from (event for event in self.take(answer) if event.cell == self.id)

    def interrupt(self, *, escalate: bool = False) -> Receipt:
        """Interrupt this cell, if it is the one that runs."""
        return self.kernel.interrupt(self.id, escalate=escalate)

    def cancel(self) -> bool:
        """Keep the cell from starting."""
        return self.kernel.cancel(self.id)

    @property
    def done(self) -> bool:
        """Whether it has ended; asks the kernel, does not wait."""
        try:
            self.reply(0.0, check=False)
        except ReplyTimeoutError:
            return False
        except CellNotFoundError:
            return False
        return True
