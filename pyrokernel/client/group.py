"""Group: some kernels of a mesh, to which code and data are sent together. Runs in the caller's process."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrokernel.client import shipping
from pyrokernel.client.calls import Exchange, kernel_request
from pyrokernel.client.cell import Cell
from pyrokernel.client.commands import Commands, is_safe, note_call
from pyrokernel.client.interrupts import interrupt
from pyrokernel.client.job import Job
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.links import LONG_POLL_SECONDS
from pyrokernel.client.members import Members
from pyrokernel.client.parcels import (
    check_namespace,
    check_source,
    pack_arguments,
    pack_function,
    pack_part,
    pack_variables,
)
from pyrokernel.client.partition import join, split
from pyrokernel.client.roster import meant, split_words
from pyrokernel.client.whole import Whole
from pyrokernel.errors import KernelDiedError, KernelNotFoundError, KernelRestartedError, PyrokernelError
from pyrokernel.messages import (
    KERNEL_OBJECT,
    Completion,
    Event,
    EventKind,
    PluginInfo,
    Receipt,
    RefInfo,
    Reply,
    Shipped,
    new_id,
)
from pyrokernel.wire.fanout import Request
from pyrokernel.wire.segments import Freight

if TYPE_CHECKING:
    from pyrokernel.client.reference import Reference


class Group(Members):
    """Some kernels, in order; every call goes to all of them at once.

    Calls return a dict from kernel name to what that kernel answered, and raise
    `GatherError` when code raised in some, `ReplyTimeoutError` when some did not answer.

    Args:
        mesh: Where they are.
        kernels: Handles, in the order in which data is scattered.
    """

    def __getitem__(self, key: Any) -> Any:
        """Return a kernel by position or name; a smaller group by slice, by a list, or by words as `Mesh.select`.

        Raises:
            KernelNotFoundError: Nothing in the group matches.
            IndexError: It has fewer kernels.
        """
        if isinstance(key, slice):
            return Group(self.mesh, self._kernels[key])
        if isinstance(key, (list, tuple)):
            # Each kernel once: calls are answered by name.
            chosen: dict[str, Kernel] = {}
            for one in key:
                found = self[one]
                chosen.update((kernel.name, kernel) for kernel in (found if isinstance(found, Group) else [found]))
            return Group(self.mesh, chosen.values())
        if not isinstance(key, str):
            return self._kernels[key]
        words = split_words([key])
        if len(words) > 1:
            return self[words]
        key = words[0] if words else key
        tags = self.mesh.tags() if key.startswith("tag:") else {}
        names = meant(key, {name: tags.get(name, ()) for name in self.names})
        matching = [kernel for kernel in self._kernels if kernel.name in names]
        if not matching:
            raise KernelNotFoundError(f"no kernel matches {key!r} in this group of {', '.join(self.names) or 'none'}")
        return matching[0] if names == [key] else Group(self.mesh, matching)

    def __repr__(self) -> str:
        names = ", ".join(self.names[:8]) + (" ..." if len(self) > 8 else "")
        return f"<Group of {len(self)}: {names}>"

    def execute(
        self,
        source: str,
        *,
        timeout: float | None = None,
        check: bool = True,
        want: str = "value",
        namespace: str = "",
        stdin: bool = False,
        cell: str = "",
        max_result_bytes: int | None = None,
    ) -> dict[str, Reply]:
        """Run a cell on every kernel and wait for the replies.

        Ctrl-C stops this cell on every kernel, and no other, within 3 s; a second one leaves at once. The
        KeyboardInterrupt has a note that says what came of it. To leave a cell running, `submit` it.

        Args:
            source: Python source; the value of a last expression becomes the result.
            timeout: Seconds for all replies; the cells go on when they have passed. None waits.
            check: Raise if anything failed; False returns the failures among the replies.
            want: What of the value travels: "value", "text" (its repr), "mime" (text, HTML, images), "none".
            namespace: Where it runs; "" for the kernel's `__main__`.
            stdin: Somebody follows the cell with `stdin` too and answers input(); else it fails within seconds.
            cell: Id to give it, 32 hexadecimal digits; sending the same id again is harmless.
            max_result_bytes: Largest value that travels; None for the setting.

        Raises:
            GatherError: The code raised, or a kernel failed; `.replies` has the others.
            ReplyTimeoutError: Some did not answer in time.
            SettingsError: `source` is not a text.
        """
        check_source(source)
        cell = cell or new_id()
        options = self._options(cell, want=want, namespace=namespace, stdin=stdin, max_result_bytes=max_result_bytes)
        request = kernel_request("execute", source, options, cell=cell)
        return self._replies(request, timeout=timeout, check=check)

    def call(
        self, function: str | Callable[..., Any], /, *args: Any, namespace: str = "", **kwargs: Any
    ) -> dict[str, Any]:
        """Call a function on every kernel; return what each returned. Ctrl-C as in `execute`.

        Args:
            function: A dotted name in the kernels' namespaces, the name of a command, or a function, which travels.
                A ":" before a name means the command, also where the namespace has a variable of that name.
            args, kwargs: The same arguments for all, pickled once.
            namespace: Where a name is looked up; "" for the kernel's `__main__`. A function's own argument of this
                name goes with `functools.partial`.

        Raises:
            As `execute`; NotSerializableError when something cannot travel, which it names.
        """
        cell = new_id()
        named = function if isinstance(function, str) else ""
        target, shown = pack_function(function)
        options = self._options(cell, shown="" if named else shown, namespace=check_namespace(namespace))
        request = kernel_request("call", target, pack_arguments(args, kwargs).slim(), options, cell=cell)
        # A command that may run beside a cell must not wait behind it.
        kind = "control" if named and is_safe(self.mesh, self._kernels, named, namespace) else "work"
        begun, seconds = time.monotonic(), math.inf
        try:
            replies = self._replies(request, timeout=None, check=True, kind=kind)
            seconds = time.monotonic() - begun
        finally:
            if named and kind == "work":
                note_call(self.mesh, self._kernels, named, namespace, seconds)
        return {name: reply.result for name, reply in replies.items()}

    def submit(self, source: str, **options: Any) -> dict[str, Cell]:
        """Queue a cell on every kernel and return at once.

        Args:
            source: Python source.
            options: want, namespace, stdin, cell, max_result_bytes as `execute`; filename, argv and shown as in
                docs/protocol.md.

        Raises:
            GatherError: A kernel failed. SettingsError: `source` is not a text.
        """
        check_source(source)
        cell = options.pop("cell", "") or new_id()
        request = kernel_request("submit", source, self._options(cell, **{"want": "value", **options}))
        values = self._control(request)
        return {
            kernel.name: Cell(self.mesh, kernel.link, cell, after=int(values[kernel.name]["seq"]))
            for kernel in self._kernels
        }

    def follow(
        self, cells: Mapping[str, Cell], *, stdin: bool = False, timeout: float | None = None
    ) -> Iterator[tuple[str, Event | PyrokernelError]]:
        """Yield (kernel name, event) of one cell per kernel as they happen, in one loop over all kernels.

        A kernel that fails on the way yields its error instead of further events.

        Args:
            cells: What `submit` returned.
            stdin: This front end answers input events.
            timeout: Seconds for all of it; None until every cell has ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with Exchange(self.mesh, "control", blocking=False) as exchange:

            def ask(name: str) -> None:
                options = {"cell": cells[name].id, "stdin": stdin}
                request = kernel_request("follow", cells[name].after, LONG_POLL_SECONDS, options)
                exchange.send(cells[name].link, request)

            for name in cells:
                ask(name)
            for name, _, value, error in exchange.answers(deadline):
                if error is not None:
                    if isinstance(error, KernelDiedError):
                        yield from ((name, event) for event in cells[name].last_words())
                    yield name, error
                    continue
                ended = False
                for event in cells[name].take(value):
                    ended = ended or event.kind == EventKind.ENDED
                    yield name, event
                if not ended:
                    ask(name)

    def push(self, mapping: Mapping[str, Any] | None = None, /, *, namespace: str = "", **values: Any) -> None:
        """Set variables in every kernel, pickled once, also while a cell runs.

        Args:
            mapping, values: Value by name. A variable called "namespace" goes into the mapping.
            namespace: Where; "" for the kernel's `__main__`.

        Raises:
            GatherError: A kernel failed. SettingsError: A name is not an identifier.
            NotSerializableError: A variable cannot travel; the message names it.
        """
        options = {"namespace": check_namespace(namespace)}
        values = {**(mapping or {}), **values}
        self._control(kernel_request("push", pack_variables(values), options), timeout=None)

    def pull(self, *names: str, namespace: str = "") -> dict[str, Any]:
        """Return variables of every kernel: kernel name to value, or to a tuple when several names are given.

        Args:
            names: Which.
            namespace: Of which namespace; "" for the kernel's `__main__`.
        """
        options = {"namespace": check_namespace(namespace)}
        values = self._control(kernel_request("pull", list(names), options), timeout=None)
        loaded = {kernel: packed.load() for kernel, packed in values.items()}
        if len(names) == 1:
            return {kernel: found[names[0]] for kernel, found in loaded.items()}
        return {kernel: tuple(found[name] for name in names) for kernel, found in loaded.items()}

    def scatter(self, name: str, items: Any) -> None:
        """Cut a sequence into one part per kernel and set variable `name` to each part.

        Args:
            name: Variable to set.
            items: Sequence, array (cut along the first axis) or iterable; lengths differ by at most one.

        Raises:
            GatherError: A kernel failed.
            NotSerializableError: An item cannot travel; the message names it.
        """
        self._check_any()
        requests, freight = {}, Freight()
        first = 0
        for kernel, part in zip(self._kernels, split(items, len(self)), strict=True):
            packed = pack_part(name, part, first)
            requests[kernel.name] = Request(KERNEL_OBJECT, "push", [packed], freight=freight)
            first += len(part)
        values, errors, _ = self._gather(requests, kind="control", timeout=None)
        self._raise_errors(errors, values)

    def gather(self, name: str) -> Any:
        """Return the parts of variable `name` joined in kernel order; arrays are concatenated."""
        found = self._control(kernel_request("pull", [name], {"measure": True}), timeout=None)
        whole = Whole.of([found[kernel.name] for kernel in self._kernels])
        if whole is not None:
            requests = dict(zip(self.names, whole.requests(name), strict=True))
            written, _, _ = self._gather(requests, kind="control", timeout=None)
            if all(written.get(kernel) is True for kernel in self.names):
                return whole.array()
        # Whatever kept one of them from that: each part by itself, and its error.
        parts = self.pull(name) if any(isinstance(part, dict) for part in found.values()) else {
            kernel: packed.load()[name] for kernel, packed in found.items()
        }  # fmt: skip
        return join([parts[kernel] for kernel in self.names])

    def map(
        self,
        function: str | Callable[..., Any],
        items: Iterable[Any],
        *,
        chunk: int | None = None,
        retries: int = 0,
        timeout: float | None = None,
        shown: str = "",
    ) -> Job:
        """Call a function once per item, spread over the kernels; return at once.

        Args:
            function: As `call`; takes one argument.
            items: Any iterable; it is read at once.
            chunk: Items per request, which stay together; None lets the time that calls take decide, and kernels
                that have nothing to do get what slower ones have not begun.
            retries: How often a chunk in which a kernel died is sent to another kernel, and to those that
                follow when all have died. The default is 0: a function that moves a motor must not run
                twice. What waited behind that chunk never began, and is always sent to another.
            timeout: Seconds for the whole job; None for no limit. What runs when they have passed goes on,
                and `Job.cancel` stops it.
            shown: What lists of cells say was run; "" for the name of the function.

        Raises:
            NotSerializableError, SettingsError: The function cannot travel, or is none; `chunk` is below 1.
        """
        self._check_any()
        return Job(
            self.mesh, self._kernels, function, items, chunk=chunk, retries=retries, timeout=timeout, shown=shown
        )

    def map_calls(
        self,
        function: str | Callable[..., Any],
        calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]] = (),
        *,
        chunk: int | None = None,
        retries: int = 0,
        timeout: float | None = None,
        shown: str = "",
    ) -> Job:
        """Call a function once per set of arguments, spread over the kernels; return at once.

        Args:
            function: As `call`.
            calls: Each (args, kwargs), such as ((1000,), {"bins": 10}); read at once. `Job.add` takes more later.
            chunk, retries, timeout, shown: As `map`.

        Raises:
            SettingsError: A call is something else; the message has its index. Else as `map`.
        """
        self._check_any()
        options: dict[str, Any] = {"chunk": chunk, "retries": retries, "timeout": timeout, "shown": shown}
        return Job(self.mesh, self._kernels, function, calls, **options, calls=True)

    def ship(
        self, *sources: str | os.PathLike[str], name: str = "", timeout: float | None = None
    ) -> dict[str, list[Shipped]]:
        """Send code to every kernel as real modules, which cells then import; functions marked as commands become such.

        Each kernel runs it as a cell, in its turn; what is there already in this version is not run again. All of it
        is loaded or nothing: when it raises, the kernel keeps the version it had. Kernels of this group that start
        later get it too, once every kernel there is has taken it.

        Args:
            sources: Files, folders of packages, or source itself (a text of several lines).
            name: What source without a file is called, "pasted" unless given.
            timeout: Seconds for all kernels; None waits.

        Returns:
            By kernel, what became of each module: `state`, `digest`, `commands`.

        Raises:
            ShipError: Something is no module that could be sent; no kernel is asked then.
            GatherError: The code raised in some kernels. Of a single kernel RemoteError.
        """
        return shipping.ship(self, shipping.read_modules(sources, name), timeout)

    def unship(self, *names: str, timeout: float | None = None) -> dict[str, list[str]]:
        """Take shipped modules and their commands away again, also from kernels of this group that start later.

        Args:
            names: Of modules; what was imported from them before stays where it is.
            timeout: Seconds for all kernels; None waits.

        Returns:
            By kernel the names of those that it had.
        """
        return shipping.unship(self, [Path(name).stem for name in names], timeout)

    def shipped(self) -> dict[str, list[Shipped]]:
        """List what was shipped to every kernel, and in which version."""
        found = self._control(kernel_request("shipped"))
        return {name: [Shipped.from_wire(one) for one in ones] for name, ones in found.items()}

    def plugins(self) -> dict[str, list[PluginInfo]]:
        """List the plugins of every kernel, those that failed among them."""
        found = self._control(kernel_request("plugins"))
        return {name: [PluginInfo.from_wire(one) for one in ones] for name, ones in found.items()}

    @property
    def commands(self) -> Commands:
        """The commands of the kernels: iterate for `CommandInfo`, call one as an attribute."""
        return Commands(self)

    def ref(self, expression: str, *, namespace: str = "") -> dict[str, Reference]:
        """Return handles to the values of an expression, one on every kernel, by kernel; as `Kernel.ref`.

        Args:
            expression: Python, such as "camera".
            namespace: Where it is evaluated; "" for the kernel's `__main__`.

        Raises:
            GatherError: It raised in some kernels.
            SettingsError: It is no text.
        """
        from pyrokernel.client import lending  # references call kernels

        return lending.first_references(self, expression, namespace)

    def refs(self) -> list[RefInfo]:
        """List the references to objects of these kernels, oldest first; those that do not answer are left out."""
        return self.list_references()[0]

    def list_references(self) -> tuple[list[RefInfo], list[str]]:
        """Return the references, and the names of the kernels that did not answer."""
        from pyrokernel.client import lending  # references call kernels

        return lending.list_references(self)

    def revoke(self, which: str | Reference) -> int:
        """End a reference wherever it is in this group, and all that was reached by it; return how many those were.

        Args:
            which: The reference, its id as `refs` lists it, or its URL.

        Raises:
            ReferenceGoneError: No kernel of the group has such a reference.
        """
        from pyrokernel.client import lending  # references call kernels

        return lending.revoke(self, which)

    def variables(self, *, namespace: str = "") -> dict[str, list[dict[str, Any]]]:
        """List the variables of every kernel, as `Kernel.variables` does; also while cells run."""
        return self._control(kernel_request("variables", {"namespace": namespace}))

    def complete(
        self, code: str, cursor: int | None = None, *, timeout: float | None = None, namespace: str = ""
    ) -> dict[str, Completion]:
        """Complete Python at a cursor on every kernel, also while cells run; runs no property.

        Args:
            code: The text so far.
            cursor: Offset in characters; None for the end.
            timeout: Seconds for all answers; None for the setting.
            namespace: Whose names; "" for the kernel's `__main__`.

        Returns:
            Kernel name to what it offers; the kernels that fail or do not answer in time are not among them.
        """
        position = len(code) if cursor is None else cursor
        request = kernel_request("complete", code, position, {"namespace": namespace})
        values, _, _ = self._gather(request, kind="control", timeout=timeout or self.mesh.settings.timeout)
        return {name: Completion.from_wire(value) for name, value in values.items()}

    def cells(self, limit: int = 100) -> dict[str, list[dict[str, Any]]]:
        """List the last cells that ended on every kernel, as `Kernel.cells` does.

        Args:
            limit: At most so many per kernel.
        """
        return self._control(kernel_request("cells", limit))

    def cancel(self, cell: str) -> dict[str, bool]:
        """Keep a cell from starting on every kernel; False where it runs or has ended.

        Args:
            cell: Its id, which is the same on all kernels that `submit` sent it to.
        """
        return self._control(kernel_request("cancel", cell))

    def interrupt(self, cell: str = "", *, escalate: bool = False, wait: float = 0.2) -> dict[str, Receipt]:
        """Interrupt what runs on every kernel; return a receipt for each.

        Args:
            cell: Only where this cell is running; "" for any.
            escalate: Kill kernels that do not react; a fresh instance takes their names.
            wait: Seconds to insist before escalating.
        """
        self._check_any()
        links = [kernel.link for kernel in self._kernels]
        receipts, errors = interrupt(self.mesh, links, cell, escalate=escalate, wait=wait)
        for kernel in self._kernels:
            killed = kernel.name in receipts and receipts[kernel.name].outcome == "killed"
            if killed or isinstance(errors.get(kernel.name), KernelRestartedError):
                kernel.rebind()
        self._raise_errors(errors, receipts)
        return receipts

    def restart(self, *, force: bool = False) -> None:
        """End every kernel of the group and start it afresh; these handles follow.

        Args:
            force: Also those that are protected.
        """
        self.mesh.restart(self.names, force=force)
        for kernel in self._kernels:
            kernel.rebind()


class Alone(Group):
    """A group of one, through which a single kernel calls: a failure is that kernel's own error."""

    def _raise_errors(self, errors: dict[str, PyrokernelError], replies: Mapping[str, Any]) -> None:
        for name in list(errors):
            raise errors.pop(name)  # which its traceback leads to by the frames of its callers
