"""Job: many calls spread over kernels, with results as they arrive. Runs in the caller's process."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import Exchange, gather, kernel_request
from pyrokernel.client.links import Link
from pyrokernel.errors import (
    CellCancelledError,
    KernelConnectionError,
    PyrokernelError,
    RemoteError,
    ReplyTimeoutError,
)
from pyrokernel.messages import Reply, new_id
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.fanout import Request

if TYPE_CHECKING:
    from pyrokernel.client.kernel import Kernel
    from pyrokernel.client.mesh import Mesh

_IN_FLIGHT = 2
"""Chunks sent to a kernel ahead: it finds the next one waiting when it ends one."""

_CHUNKS_PER_KERNEL = 8
"""Enough to even out kernels of different speed, few enough to keep the cost of a request small."""


def travelling(function: str | Callable[..., Any]) -> tuple[str | Packed, str]:
    """Return a function as it travels, a name as it is or pickled, and how it is shown.

    Raises:
        NotSerializableError: It cannot be pickled.
    """
    if isinstance(function, str):
        return function, function
    return Packed.dump(function), getattr(function, "__name__", "function")


class _Chunk:
    """Consecutive items that travel together."""

    __slots__ = ("cell", "first", "items", "kernel", "retries")

    def __init__(self, first: int, items: list[Any], retries: int) -> None:
        self.first, self.items, self.retries = first, items, retries
        self.cell = ""
        self.kernel = ""


class Job:
    """What `Group.map` returns: iterate over it for results in order.

    A result that failed raises when it is reached; the others can still be read with
    `results(check=False)` or `as_completed(check=False)`, which yield the exception in its place.
    """

    def __init__(
        self,
        mesh: Mesh,
        kernels: Sequence[Kernel],
        function: str | Callable[..., Any],
        items: list[Any],
        *,
        chunk: int | None,
        retries: int,
        timeout: float | None,
    ) -> None:
        self._mesh = mesh
        self._links = [kernel.link for kernel in kernels]
        self._function, self._shown = travelling(function)
        size = chunk or max(1, len(items) // (len(self._links) * _CHUNKS_PER_KERNEL))
        self._waiting = deque(
            _Chunk(first, items[first : first + size], retries) for first in range(0, len(items), size)
        )
        self._timeout = timeout
        self._results: list[Any] = [None] * len(items)
        self._arrived: list[int] = []
        self._have = [False] * len(items)
        self._changed = threading.Condition()
        self._cancelled = False
        self._running: dict[str, list[_Chunk]] = {}
        self._thread = threading.Thread(target=self._work, name="pyrokernel-job", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        done, total = self.progress
        return f"<Job {self._shown} {done} of {total} done>"

    @property
    def progress(self) -> tuple[int, int]:
        """How many items are done, failed ones included, and how many there are."""
        return len(self._arrived), len(self._results)

    @property
    def done(self) -> bool:
        """Whether every item has its result or failure."""
        return len(self._arrived) == len(self._results)

    def __iter__(self) -> Iterator[Any]:
        """Yield the results in the order of the items; raise at the first that failed."""
        return self._in_order(check=True)

    def results(self, *, check: bool = True) -> list[Any]:
        """Wait for all results and return them in order; shape (n_items,).

        Args:
            check: Raise the first failure; False leaves the exception in its place.
        """
        return list(self._in_order(check=check))

    def as_completed(self, *, check: bool = True) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as they arrive.

        Args:
            check: Raise a failure when it arrives; False yields the exception instead.
        """
        for position in range(len(self._results)):
            with self._changed:
                self._changed.wait_for(lambda: len(self._arrived) > position)  # noqa: B023  used at once
                index = self._arrived[position]
            yield index, self._checked(index, check)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is done; False if the time was not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self.done, timeout)

    def cancel(self) -> None:
        """Send no more, interrupt what runs; items without a result fail with `CellCancelledError`."""
        with self._changed:
            self._cancelled = True
            self._waiting.clear()
            running = {link.name: list(self._running.get(link.name, ())) for link in self._links}
        # From the back: what waits behind the running chunk must not start when that one is interrupted.
        for method, *rest in (("cancel",), ("interrupt", 0.2)):
            for depth in range(_IN_FLIGHT):
                asked = {
                    link.name: running[link.name][-1 - depth : len(running[link.name]) - depth] for link in self._links
                }
                requests = {
                    name: kernel_request(method, chunks[0].cell, *rest) for name, chunks in asked.items() if chunks
                }
                links = [link for link in self._links if link.name in requests]
                gather(self._mesh, links, requests, kind="control", timeout=1.0)
        self._thread.join(timeout=self._mesh.settings.timeout)
        with self._changed:
            self._settle_rest(CellCancelledError("the job was cancelled"))

    def _in_order(self, *, check: bool) -> Iterator[Any]:
        for index in range(len(self._results)):
            with self._changed:
                self._changed.wait_for(lambda: self._have[index])  # noqa: B023  used at once
            yield self._checked(index, check)

    def _checked(self, index: int, check: bool) -> Any:
        result = self._results[index]
        if check and isinstance(result, _Failure):
            raise result.error
        return result.error if isinstance(result, _Failure) else result

    def _work(self) -> None:
        """Keep every kernel supplied until nothing is left (a thread of its own)."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        try:
            with Exchange(self._mesh, "work", blocking=False) as exchange:
                alive = {link.name: link for link in self._links}
                for _ in range(_IN_FLIGHT):
                    for link in self._links:
                        self._supply(exchange, link)
                for name, token, value, error in exchange.answers(deadline):
                    self._take(token, value, error)
                    if isinstance(error, KernelConnectionError):
                        alive.pop(name, None)
                        if self._waiting and not alive:
                            # The last one: what may be tried again is tried on whoever follows it.
                            alive[name] = self._mesh.link_to(name)
                    targets = [alive[name]] if name in alive else list(alive.values())
                    for link in targets:
                        self._supply(exchange, link)
            rest: PyrokernelError = KernelConnectionError("no kernel is left to run this")
            if deadline is not None and time.monotonic() >= deadline:
                rest = ReplyTimeoutError(seconds=self._timeout, cell="", replies={}, missing=tuple(alive))
        except Exception as error:  # noqa: BLE001  a job never leaves its reader waiting, whatever went wrong
            rest = error if isinstance(error, PyrokernelError) else PyrokernelError(f"the job failed: {error!r}")
        with self._changed:
            self._settle_rest(rest)

    def _supply(self, exchange: Exchange, link: Link) -> None:
        """Send the next chunk to a kernel, if there is one left."""
        while True:
            with self._changed:
                if self._cancelled or not self._waiting:
                    return
                chunk = self._waiting.popleft()
                chunk.cell, chunk.kernel = new_id(), link.name
                self._running.setdefault(link.name, []).append(chunk)
            try:
                exchange.send(link, self._request(chunk), chunk)
            except PyrokernelError as error:  # an item that cannot be pickled
                self._take(chunk, None, error)
            else:
                return

    def _request(self, chunk: _Chunk) -> Request:
        options = {"cell": chunk.cell, "map": True, "want": "value", "shown": self._shown, "max_result_bytes": 1 << 30}
        arguments = Packed.dump((chunk.items, {}))
        return kernel_request("call", self._function, arguments, options, cell=chunk.cell)

    def _take(self, chunk: _Chunk, value: Any, error: PyrokernelError | None) -> None:
        """Store what came back for a chunk, or put it back in line."""
        with self._changed:
            running = self._running.get(chunk.kernel, [])
            if chunk in running:
                running.remove(chunk)
            if isinstance(error, KernelConnectionError) and chunk.retries > 0 and not self._cancelled:
                chunk.retries -= 1
                self._waiting.appendleft(chunk)
                return
        if error is None:
            reply = Reply.from_wire(value)
            try:
                outcomes = reply.result
            except PyrokernelError as failure:
                error = failure
        if error is not None:
            outcomes = [(False, error)] * len(chunk.items)
        with self._changed:
            for offset, (good, result) in enumerate(outcomes):
                self._settle(chunk.first + offset, result if good else _Failure(_as_error(result, chunk)))
            self._changed.notify_all()

    def _settle(self, index: int, result: Any) -> None:
        if not self._have[index]:
            self._results[index] = result
            self._have[index] = True
            self._arrived.append(index)

    def _settle_rest(self, error: PyrokernelError) -> None:
        for index in range(len(self._results)):
            self._settle(index, _Failure(error))
        self._changed.notify_all()


class _Failure:
    """Marks a failed item among results, which may themselves be exceptions."""

    __slots__ = ("error",)

    def __init__(self, error: PyrokernelError) -> None:
        self.error = error


def _as_error(result: Any, chunk: _Chunk) -> PyrokernelError:
    if isinstance(result, PyrokernelError):
        return result
    return RemoteError(
        kernel=chunk.kernel,
        ename=result["error"],
        evalue=result["message"],
        traceback=result["traceback"],
        cell=chunk.cell,
    )
