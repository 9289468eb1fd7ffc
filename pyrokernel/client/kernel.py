"""Kernel: a handle to one kernel. Runs in the caller's process."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import USUAL, ask_kernel
from pyrokernel.client.cell import Cell
from pyrokernel.client.links import Link
from pyrokernel.client.parcels import check_namespace
from pyrokernel.errors import KernelRestartedError
from pyrokernel.messages import Completion, Event, Inspection, PluginInfo, Receipt, RefInfo, Reply, Shipped

if TYPE_CHECKING:
    from pyrokernel.client.commands import Commands
    from pyrokernel.client.group import Group
    from pyrokernel.client.job import Job
    from pyrokernel.client.mesh import Mesh
    from pyrokernel.client.reference import Reference
    from pyrokernel.wire.codec import Packed


class Kernel:
    """A handle to one kernel, bound to the instance it was made for.

    The first use after a restart that was not asked for through this handle raises
    `KernelRestartedError`; later ones reach the new instance.

    Attributes:
        name, instance: Which kernel, and which life of it this handle is bound to.
        mesh: Where it is.
        link: The way to that instance.
    """

    def __init__(self, mesh: Mesh, link: Link) -> None:
        self.mesh = mesh
        self._bind(link)

    def _bind(self, link: Link) -> None:
        self.link, self.name, self.instance = link, link.name, link.instance

    def __repr__(self) -> str:
        try:
            about = self.describe(timeout=1.0)
        except Exception as error:  # noqa: BLE001  a repr never raises: it says what it found
            return f"<Kernel {self.name!r} {type(error).__name__}>"
        return f"<Kernel {self.name!r} {about['status']}, {about['execution_count']} executed>"

    @functools.cached_property
    def _alone(self) -> Group:
        from pyrokernel.client.group import Alone  # a group is made of kernels; only here does it go the other way

        return Alone(self.mesh, [self])

    def execute(self, source: str, *, timeout: float | None = None, check: bool = True, **options: Any) -> Reply:
        """Run a cell and wait for its reply.

        Ctrl-C stops this cell, and no other, within 3 s; a second one leaves at once. The KeyboardInterrupt
        has a note that says what came of it. To leave a cell running, `submit` it.

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
            SettingsError: `source` is not a text; `call` runs functions.
        """
        reply = self._alone.execute(source, timeout=timeout, check=False, **options)[self.name]
        if reply.failure is not None:
            raise reply.failure
        if check:
            reply.raise_if_failed()
        return reply

    def call(self, function: str | Callable[..., Any], /, *args: Any, namespace: str = "", **kwargs: Any) -> Any:
        """Call a function there and return what it returns. Ctrl-C as in `execute`.

        Args:
            function: A dotted name in the kernel's namespace, or a function, which travels.
            args, kwargs: Its arguments; they travel by pickle.
            namespace: As `Group.call`.

        Raises:
            As `execute`; NotSerializableError when an argument or the value cannot travel.
        """
        return self._alone.call(function, *args, namespace=namespace, **kwargs)[self.name]

    def map(self, function: str | Callable[..., Any], items: Iterable[Any], **options: Any) -> Job:
        """Call a function once per item; return at once.

        Args:
            function: As `call`; takes one argument.
            items: Any iterable; it is read at once.
            options: chunk, retries, timeout, shown as `Group.map`.
        """
        return self._alone.map(function, items, **options)

    def map_calls(
        self,
        function: str | Callable[..., Any],
        calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]] = (),
        **options: Any,
    ) -> Job:
        """Call a function once per set of arguments; return at once.

        Args:
            function: As `call`.
            calls: Each (args, kwargs); read at once. `Job.add` takes more later.
            options: chunk, retries, timeout, shown as `Group.map`.
        """
        return self._alone.map_calls(function, calls, **options)

    def stream(self, function: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Call a generator there and yield its values as they come; it waits while 1,000 of them are unread.

        Leaving the loop early interrupts it. Nobody who reads for 60 s ends it too.

        Args:
            function: As `call`.
            args, kwargs: Its arguments.

        Raises:
            RemoteError: It raised; what it yielded before came first. Else as `call`.
        """
        from pyrokernel.client.commands import stream  # it calls kernels

        return stream(self, function, args, kwargs)

    def ref(self, expression: str, *, namespace: str = "") -> Reference:
        """Return a handle to the value of an expression, which stays there: attributes, calls, items work from here.

        The kernel keeps the object while this process has the handle, and for 60 s after.

        Args:
            expression: Python, such as "camera" or "stage.axes[0]".
            namespace: Where it is evaluated; "" for the kernel's `__main__`.

        Raises:
            RemoteError: It raised.
            SettingsError: It is no text.
        """
        return self._alone.ref(expression, namespace=namespace)[self.name]

    def refs(self) -> list[RefInfo]:
        """List the references to objects of this kernel, oldest first, whoever made them."""
        return [RefInfo.from_wire(one) for one in self._ask("refs")]

    def revoke(self, which: str | Reference) -> int:
        """End a reference, and all that was reached by it; return how many those were.

        Args:
            which: The reference, its id as `refs` lists it, or its URL.

        Raises:
            ReferenceGoneError: This kernel has none such.
        """
        from pyrokernel.client.lending import revoke

        return revoke([self], which)

    def operate(self, asked: Mapping[str, Any], arguments: Packed, **options: Any) -> Reply:
        """Run an operation on a reference; as `Members.operate`."""
        return self._alone.operate(asked, arguments, **options)[self.name]

    def ship(self, *sources: str | os.PathLike[str], name: str = "", timeout: float | None = None) -> list[Shipped]:
        """Send code to the kernel as real modules; as `Group.ship`."""
        return self._alone.ship(*sources, name=name, timeout=timeout)[self.name]

    def unship(self, *names: str, timeout: float | None = None) -> list[str]:
        """Take shipped modules and their commands away again; return those that it had."""
        return self._alone.unship(*names, timeout=timeout)[self.name]

    def shipped(self) -> list[Shipped]:
        """List what was shipped to the kernel, and in which version."""
        return self._alone.shipped()[self.name]

    def plugins(self) -> list[PluginInfo]:
        """List the plugins of the kernel, those that failed among them."""
        return self._alone.plugins()[self.name]

    @property
    def commands(self) -> Commands:
        """The commands of the kernel: iterate for `CommandInfo`, call one as an attribute."""
        from pyrokernel.client.commands import Commands  # it calls kernels

        return Commands(self)

    def submit(self, source: str, **options: Any) -> Cell:
        """Queue a cell and return at once.

        Args:
            source: Python source.
            options: As `Group.execute`.
        """
        return self._alone.submit(source, **options)[self.name]

    def cell(self, cell: str) -> Cell:
        """Return a handle to a cell that was sent earlier, by this client or any other."""
        return Cell(self.mesh, self.link, cell)

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

    def push(self, mapping: Mapping[str, Any] | None = None, /, *, namespace: str = "", **values: Any) -> None:
        """Set variables in the kernel, also while a cell runs.

        Args:
            mapping, values, namespace: As `Group.push`.

        Raises:
            SettingsError: A name is not an identifier.
            NotSerializableError: A variable cannot travel; the message names it.
        """
        self._alone.push(mapping, namespace=namespace, **values)

    def pull(self, *names: str, namespace: str = "") -> Any:
        """Return a variable of the kernel, or a tuple of several, also while a cell runs.

        Args:
            names: Which.
            namespace: Of which namespace; "" for `__main__`.

        Raises:
            VariableNotFoundError: There is no such variable.
            NotSerializableError: It cannot travel.
        """
        options = {"namespace": check_namespace(namespace)}
        values = self._ask("pull", list(names), options, timeout=None).load()
        found = tuple(values[name] for name in names)
        return found[0] if len(names) == 1 else found

    def scatter(self, name: str, items: Any) -> None:
        """Set a variable to all of a sequence: the share of a kernel that is alone; as `Group.scatter`."""
        self._alone.scatter(name, items)

    def gather(self, name: str) -> Any:
        """Return a variable as `Group.gather` joins the parts of several kernels."""
        return self._alone.gather(name)

    def complete(
        self, code: str, cursor: int | None = None, *, timeout: float | None = None, namespace: str = ""
    ) -> Completion:
        """Complete Python at a cursor, also while a cell runs; runs no property.

        Args:
            code: The text so far.
            cursor: Offset in characters; None for the end.
            timeout: Seconds to wait; None for the setting.
            namespace: Whose names; "" for `__main__`.
        """
        position = len(code) if cursor is None else cursor
        options = {"namespace": namespace}
        return Completion.from_wire(
            self._ask("complete", code, position, options, timeout=timeout or self.mesh.settings.timeout)
        )

    def inspect(self, code: str, cursor: int | None = None, *, detail: int = 0, namespace: str = "") -> Inspection:
        """Describe the name at a cursor: signature, docstring, with `detail=1` its source."""
        position = len(code) if cursor is None else cursor
        return Inspection.from_wire(self._ask("inspect", code, position, {"detail": detail, "namespace": namespace}))

    def variables(self, *, namespace: str = "") -> list[dict[str, Any]]:
        """List the variables: name, type, summary."""
        found: list[dict[str, Any]] = self._ask("variables", {"namespace": namespace})
        return found

    def cells(self, limit: int = 100) -> list[dict[str, Any]]:
        """List the last cells that ended, all of one job counted as one: id, source, author, status, duration."""
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
        return self._alone.interrupt(cell, escalate=escalate, wait=wait)[self.name]

    def restart(self, *, force: bool = False) -> None:
        """End this kernel and start it afresh under the same name; this handle follows.

        Args:
            force: Also when the kernel is protected.
        """
        self._alone.restart(force=force)

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

    def rebind(self) -> None:
        """Bind this handle to the instance that has the name now."""
        self._bind(self.mesh.link_to(self.name))

    def ask(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Call a control method of this instance; None waits as long as the setting says."""
        return ask_kernel(self.mesh, self.link, method, *args, timeout=timeout or USUAL)

    def _ask(self, method: str, *args: Any, timeout: float | None = USUAL) -> Any:
        """Call a control method."""
        try:
            return ask_kernel(self.mesh, self.link, method, *args, timeout=timeout)
        except KernelRestartedError:
            self.rebind()
            raise
