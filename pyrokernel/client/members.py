"""Members: the kernels of a group, and how a request to all of them is answered. Runs in the caller's process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client import inside
from pyrokernel.client.calls import USUAL, gather, kernel_request
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.parcels import read_reply
from pyrokernel.client.withdrawal import describe_withdrawal, obey_ctrl_c, withdraw
from pyrokernel.errors import (
    GatherError,
    KernelNotFoundError,
    KernelRestartedError,
    PyrokernelError,
    ReplyTimeoutError,
)
from pyrokernel.messages import Reply, Shipped, new_id
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.fanout import Request

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh


class Members(Sequence[Kernel]):
    """Some kernels, in order; what `Group` is built on.

    Args:
        mesh: Where they are.
        kernels: Handles, in the order in which data is scattered.
        words: How they were chosen, as for `Mesh.select`; () for by their names.
    """

    def __init__(self, mesh: Mesh, kernels: Iterable[Kernel], words: Iterable[str] = ()) -> None:
        self.mesh = mesh
        self._kernels = list(kernels)
        self._words = list(words)

    def __len__(self) -> int:
        return len(self._kernels)

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self._kernels)

    @property
    def names(self) -> list[str]:
        """Names in order; shape (n_kernels,)."""
        return [kernel.name for kernel in self._kernels]

    @property
    def words(self) -> list[str]:
        """How they were chosen; by these words, what is shipped reaches kernels that start later."""
        return self._words or self.names

    def ask_shipped(self, versions: list[list[str]]) -> dict[str, list[list[str]]]:
        """Ask what the kernels have of each (name, digest): a state, and the commands of what is loaded.

        Those that do not answer are not in the result.
        """
        request = kernel_request("have", versions)
        values, _, _ = self._gather(request, kind="control", timeout=self.mesh.settings.timeout)
        return values

    def run_shipping(
        self,
        method: str,
        what: list[Any],
        title: str,
        timeout: float | None,
        printed: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Run `ship` or `unship` as a cell on every kernel; return what each of them says.

        Args:
            method: Which of both.
            what: Modules or names.
            title: How lists of cells show it.
            timeout: Seconds for all kernels; None waits.
            printed: Takes what the code printed, by kernel.
        """
        cell = new_id()
        request = kernel_request(method, what, self._options(cell, shown=title), cell=cell)
        replies = self._replies(request, timeout=timeout, check=True)
        for kernel in self._kernels:
            self.mesh.known_commands.pop(kernel.instance, None)  # they are others now
        if printed is not None:
            printed |= {name: text for name, reply in replies.items() if (text := reply.stdout + reply.stderr)}
        found = {name: reply.result for name, reply in replies.items()}
        if method == "ship":
            return {name: [Shipped.from_wire(one) for one in ones] for name, ones in found.items()}
        return found

    def operate(
        self,
        asked: Mapping[str, Any],
        arguments: Packed,
        *,
        shown: str,
        cell: str = "",
        namespace: str = "",
        timeout: float | None = None,
        check: bool = False,
    ) -> dict[str, Reply]:
        """Run an operation on a reference as a cell.

        Args:
            asked: The operation, as docs/protocol.md has it.
            arguments: What it takes.
            shown: What the object is called, for lists of cells.
            cell: Id to give it.
            namespace: Where an expression is evaluated.
            timeout: Seconds to wait; None waits.
            check: Raise if anything failed; else failures are among the replies.
        """
        cell = cell or new_id()
        options = self._options(cell, want="value", shown=shown, namespace=namespace)
        request = kernel_request("call", dict(asked), arguments, options, cell=cell)
        return self._replies(request, timeout=timeout, check=check)

    def _options(self, cell: str, **given: Any) -> dict[str, Any]:
        mesh = self.mesh
        options = {"cell": cell, "client": mesh.client, "max_result_bytes": mesh.settings.max_result_bytes}
        options.update({key: value for key, value in given.items() if value not in (None, "", False)})
        waiters = inside.waiters()
        if waiters:
            options["waiters"] = waiters
        return options

    def _replies(self, request: Request, *, timeout: float | None, check: bool, kind: str = "work") -> dict[str, Reply]:
        """Send a cell, as work unless it may run beside others, and wait for the replies; Ctrl-C stops that cell."""
        cell = request.cell
        try:
            values, errors, missing = self._gather(request, kind=kind, timeout=timeout)
        except KeyboardInterrupt as ctrl_c:
            obey_ctrl_c(ctrl_c, lambda: self._withdraw(cell), f"the cell goes on in the kernels, as {cell}")
            raise
        replies = {}
        failed = False
        for kernel in self._kernels:
            name = kernel.name
            if name in values:
                replies[name] = reply = read_reply(values[name])
                failed = failed or reply.status != "ok"
                continue
            failed = True
            error = errors.get(name)
            if error is None:
                error = ReplyTimeoutError(seconds=timeout, cell=cell, replies={}, missing=(name,))
            replies[name] = Reply(status="lost", kernel=name, cell=cell, ename=type(error).__name__,
                                  evalue=str(error), failure=error)  # fmt: skip
        if check and failed:
            self._raise_failures(replies, missing, timeout, cell)
        return replies

    def _withdraw(self, cell: str) -> str:
        """Stop a cell on all kernels; return what came of it."""
        holding = withdraw(self.mesh, {kernel.link: [cell] for kernel in self._kernels})
        return describe_withdrawal("the cell", self.names, holding)

    def _control(self, request: Request, timeout: float | None = USUAL) -> dict[str, Any]:
        """Call a control method and wait for the answers."""
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
        if errors:
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

    def _raise_errors(self, errors: dict[str, PyrokernelError], replies: Mapping[str, Any]) -> None:
        if errors:
            raise GatherError(errors=dict(errors), replies=dict(replies))
