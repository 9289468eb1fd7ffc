"""Group: some kernels of a mesh, to which code and data are sent together. Runs in the caller's process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client import inside
from pyrokernel.client.calls import USUAL, Exchange, gather, kernel_request
from pyrokernel.client.cell import Cell
from pyrokernel.client.interrupts import interrupt
from pyrokernel.client.job import Job, travelling
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.links import LONG_POLL_SECONDS
from pyrokernel.client.partition import join, split
from pyrokernel.errors import (
    GatherError,
    KernelDiedError,
    KernelNotFoundError,
    KernelRestartedError,
    PyrokernelError,
    ReplyTimeoutError,
)
from pyrokernel.messages import Event, EventKind, Receipt, Reply, new_id
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.fanout import Request

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh


class Group(Sequence[Kernel]):
    """Some kernels, in order; every call goes to all of them at once.

    Calls return a dict from kernel name to what that kernel answered, and raise
    `GatherError` when code raised in some, `ReplyTimeoutError` when some did not answer.

    Args:
        mesh: Where they are.
        kernels: Handles, in the order in which data is scattered.
    """

    def __init__(self, mesh: Mesh, kernels: Iterable[Kernel]) -> None:
        self.mesh = mesh
        self._kernels = list(kernels)

    def __len__(self) -> int:
        return len(self._kernels)

    def __getitem__(self, key: Any) -> Any:
        """Return a kernel by position or name, or a smaller group by slice."""
        if isinstance(key, slice):
            return Group(self.mesh, self._kernels[key])
        if isinstance(key, str):
            for kernel in self._kernels:
                if kernel.name == key:
                    return kernel
            raise KernelNotFoundError(f"no kernel {key!r} in this group of {', '.join(self.names)}")
        return self._kernels[key]

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self._kernels)

    def __repr__(self) -> str:
        names = ", ".join(self.names[:8]) + (" ..." if len(self) > 8 else "")
        return f"<Group of {len(self)}: {names}>"

    @property
    def names(self) -> list[str]:
        """Names in order; shape (n_kernels,)."""
        return [kernel.name for kernel in self._kernels]

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

        Args:
            source: Python source; the value of a last expression becomes the result.
            timeout: Seconds for all replies; the cells go on when they have passed. None waits.
            check: Raise if anything failed; False returns the failures among the replies.
            want: What of the value travels: "value", "text" (its repr), "mime" (text, HTML, images), "none".
            namespace: Where it runs; "" for the kernel's `__main__`.
            stdin: This front end answers input().
            cell: Id to give it, 32 hexadecimal digits; sending the same id again is harmless.
            max_result_bytes: Largest value that travels; None for the setting.

        Raises:
            GatherError: The code raised, or a kernel failed; `.replies` has the others.
            ReplyTimeoutError: Some did not answer in time.
        """
        cell = cell or new_id()
        options = self._options(cell, want=want, namespace=namespace, stdin=stdin, max_result_bytes=max_result_bytes)
        request = kernel_request("execute", source, options, cell=cell)
        return self._replies(request, timeout=timeout, check=check, cell=cell)

    def call(self, function: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Call a function on every kernel; return what each returned.

        Args:
            function: A dotted name in the kernels' namespaces, or a function, which travels.
            args, kwargs: The same arguments for all, pickled once.

        Raises:
            As `execute`; NotSerializableError when something cannot travel.
        """
        replies = self.call_replies(function, args, kwargs)
        self._raise_failures(replies)
        return {name: reply.result for name, reply in replies.items()}

    def call_replies(
        self, function: str | Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> dict[str, Reply]:
        """Call a function on every kernel; return the replies, failures among them."""
        cell = new_id()
        target, shown = travelling(function)
        options = self._options(cell, want="value", shown=shown)
        request = kernel_request("call", target, Packed.dump((tuple(args), dict(kwargs))), options, cell=cell)
        return self._replies(request, timeout=None, check=False, cell=cell)

    def submit(self, source: str, **options: Any) -> dict[str, Cell]:
        """Queue a cell on every kernel and return at once.

        Args:
            source: Python source.
            options: want, namespace, stdin, cell, max_result_bytes as `execute`.
        """
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

    def push(self, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Set variables in every kernel, pickled once, also while a cell runs.

        Raises:
            GatherError: A kernel failed. SettingsError: A name is not an identifier.
        """
        self._raise_errors(self.push_errors({**(mapping or {}), **values}), {})

    def push_errors(self, values: Mapping[str, Any]) -> dict[str, PyrokernelError]:
        """Set variables; return the failures by kernel name."""
        _, errors, _ = self._gather(kernel_request("push", Packed.dump(dict(values))), kind="control", timeout=None)
        return errors

    def pull(self, *names: str) -> dict[str, Any]:
        """Return variables of every kernel: kernel name to value, or to a tuple when several names are given."""
        values = self._control(kernel_request("pull", list(names)), timeout=None)
        loaded = {kernel: packed.load() for kernel, packed in values.items()}
        if len(names) == 1:
            return {kernel: found[names[0]] for kernel, found in loaded.items()}
        return {kernel: tuple(found[name] for name in names) for kernel, found in loaded.items()}

    def scatter(self, name: str, items: Any) -> None:
        """Cut a sequence into one part per kernel and set variable `name` to each part.

        Args:
            name: Variable to set.
            items: Sequence, array (cut along the first axis) or iterable; lengths differ by at most one.
        """
        self._check_any()
        parts = split(items, len(self))
        requests = {
            kernel.name: kernel_request("push", Packed.dump({name: part}))
            for kernel, part in zip(self._kernels, parts, strict=True)
        }
        values, errors, _ = self._gather(requests, kind="control", timeout=None)
        self._raise_errors(errors, values)

    def gather(self, name: str) -> Any:
        """Return the parts of variable `name` joined in kernel order; arrays are concatenated."""
        parts = self.pull(name)
        return join([parts[kernel.name] for kernel in self._kernels])

    def map(
        self,
        function: str | Callable[..., Any],
        items: Iterable[Any],
        *,
        chunk: int | None = None,
        retries: int = 0,
        timeout: float | None = None,
    ) -> Job:
        """Call a function once per item, spread over the kernels; return at once.

        Args:
            function: As `call`; takes one argument.
            items: Any iterable; it is read at once.
            chunk: Items per request; None chooses a size that gives each kernel several requests.
            retries: How often a chunk whose kernel died is sent to another kernel. The default is 0:
                a function that moves a motor must not run twice.
            timeout: Seconds for the whole job; None for no limit.
        """
        self._check_any()
        return Job(self.mesh, self._kernels, function, list(items), chunk=chunk, retries=retries, timeout=timeout)

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
        self.mesh.restart(self._kernels, force=force)

    def _options(self, cell: str, **given: Any) -> dict[str, Any]:
        options = {"cell": cell, **{key: value for key, value in given.items() if value not in (None, "", False)}}
        options.setdefault("max_result_bytes", self.mesh.settings.max_result_bytes)
        waiters = inside.waiters()
        if waiters:
            options["waiters"] = waiters
        return options

    def _replies(self, request: Request, *, timeout: float | None, check: bool, cell: str) -> dict[str, Reply]:
        values, errors, missing = self._gather(request, kind="work", timeout=timeout)
        replies = {}
        for kernel in self._kernels:
            name = kernel.name
            if name in values:
                replies[name] = Reply.from_wire(values[name])
                continue
            error = errors.get(name)
            if error is None:
                error = ReplyTimeoutError(seconds=timeout, cell=cell, replies={}, missing=(name,))
            replies[name] = Reply(status="lost", kernel=name, cell=cell, ename=type(error).__name__,
                                  evalue=str(error), failure=error)  # fmt: skip
        if check:
            self._raise_failures(replies, missing, timeout, cell)
        return replies

    def _control(self, request: Request, timeout: float | None = USUAL) -> dict[str, Any]:
        seconds = self.mesh.settings.timeout if timeout == USUAL else timeout
        values, errors, missing = self._gather(request, kind="control", timeout=seconds)
        self._raise_errors(errors, values)
        if missing:
            raise ReplyTimeoutError(seconds=seconds, cell=request.cell, replies=values, missing=missing)
        return values

    def _gather(
        self, requests: Request | Mapping[str, Request], *, kind: str, timeout: float | None
    ) -> tuple[dict[str, Any], dict[str, PyrokernelError], tuple[str, ...]]:
        self._check_any()
        links = [kernel.link for kernel in self._kernels]
        values, errors, missing = gather(self.mesh, links, requests, kind=kind, timeout=timeout)
        for kernel in self._kernels:
            if isinstance(errors.get(kernel.name), KernelRestartedError):
                kernel.rebind()
        return values, errors, missing

    def _check_any(self) -> None:
        if not self._kernels:
            raise KernelNotFoundError("this group is empty; `pyrokernel ps` lists the kernels there are")

    def _raise_failures(
        self,
        replies: Mapping[str, Reply],
        missing: tuple[str, ...] = (),
        timeout: float | None = None,
        cell: str = "",
    ) -> None:
        errors = {name: error for name, reply in replies.items() if (error := reply.error()) is not None}
        good = {name: reply for name, reply in replies.items() if name not in errors}
        if missing and len(errors) == len(missing):
            raise ReplyTimeoutError(seconds=timeout, cell=cell, replies=good, missing=missing)
        self._raise_errors(errors, good)

    def _raise_errors(self, errors: Mapping[str, PyrokernelError], replies: Mapping[str, Any]) -> None:
        if errors:
            raise GatherError(errors=dict(errors), replies=dict(replies))
