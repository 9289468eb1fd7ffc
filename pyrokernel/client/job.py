"""Job: many calls spread over kernels, with results as they arrive. Runs in the caller's process."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import Exchange
from pyrokernel.client.chunks import Chunk, cut, nobody_left, out_of_time
from pyrokernel.client.links import Link
from pyrokernel.client.parcels import pack_function
from pyrokernel.client.printed import Printed
from pyrokernel.client.withdrawal import describe_withdrawal, obey_ctrl_c, withdraw
from pyrokernel.errors import (
    CellCancelledError,
    KernelConnectionError,
    KernelDiedError,
    KernelRestartedError,
    MessageTooLargeError,
    NotSerializableError,
    PyrokernelError,
    RemoteError,
    SettingsError,
)
from pyrokernel.messages import new_id

if TYPE_CHECKING:
    from pyrokernel.client.kernel import Kernel
    from pyrokernel.client.mesh import Mesh

_IN_FLIGHT = 2
"""Chunks sent to a kernel ahead: it finds the next one waiting when it ends one."""


class Job:
    """What `Group.map` returns: iterate over it for results in order.

    A result that failed raises when it is reached; a `RemoteError` has the `index` of its item. The others
    can still be read with `results(check=False)` or `as_completed(check=False)`, which yield the exception
    in its place.

    Ctrl-C while waiting in `results`, `as_completed` or an iteration cancels the job, within 3 s; a second
    one leaves at once. What has arrived stays.
    """

    def __init__(
        self,
        mesh: Mesh,
        kernels: Sequence[Kernel],
        function: str | Callable[..., Any],
        items: Iterable[Any],
        *,
        chunk: int | None,
        retries: int,
        timeout: float | None,
        shown: str = "",
    ) -> None:
        if chunk is not None and chunk < 1:
            raise SettingsError(f"a chunk has at least 1 item, not {chunk}; None chooses a size")
        self._mesh = mesh
        self._kernels = list(kernels)
        self._function, self._name = pack_function(function)
        self._about = {"client": mesh.client, "job": new_id(), "shown": shown or f"map({self._name}, ...)"}
        items = list(items)
        self._waiting = deque(cut(items, len(self._kernels), chunk=chunk, retries=retries))
        self._timeout = timeout
        self._results: list[Any] = [None] * len(items)
        self._arrived: list[int] = []
        self._have = [False] * len(items)
        self._changed = threading.Condition()
        self._cancelled = False
        self._alive = {kernel.name: kernel.link for kernel in self._kernels}
        self._lost: set[str] = set()
        self._running: dict[Link, list[Chunk]] = {link: [] for link in self._alive.values()}
        self._cells: dict[Link, dict[str, int]] = {link: {} for link in self._alive.values()}
        self._printed = Printed(mesh)
        self._thread = threading.Thread(target=self._work, name="pyrokernel-job", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        done, total = self.progress
        return f"<Job {self._name} {done} of {total} done>"

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

        Raises:
            RemoteError: The function raised; `.index` says for which item.
            ReplyTimeoutError: The job ran out of its time; what runs goes on until `cancel`.
            KernelDiedError, KernelConnectionError: A kernel was lost, and with it the items it had.
            NotSerializableError: An item cannot travel; the message names it.
        """
        return list(self._in_order(check=check))

    def as_completed(self, *, check: bool = True) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as they arrive.

        Args:
            check: Raise a failure when it arrives; False yields the exception instead.
        """
        for position in range(len(self._results)):
            self._await(lambda: len(self._arrived) > position)  # noqa: B023  used at once
            index = self._arrived[position]
            yield index, self._checked(index, check)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is done, in seconds; False if the time was not enough. Ctrl-C ends the wait only."""
        try:
            with self._changed:
                return self._changed.wait_for(lambda: self.done, timeout)
        except KeyboardInterrupt as ctrl_c:
            ctrl_c.add_note("the job goes on in the kernels; Job.cancel() stops it")
            raise

    def output(self) -> dict[str, str]:
        """Return what the calls have printed so far, stdout and stderr as they came, by kernel name.

        It comes from the journals of the kernels, also of those that died; asking again reads only what is
        new. Of each kernel the last 16 Mi characters are kept.

        Raises:
            ReplyTimeoutError: A kernel did not answer; `.replies` has the text of the others.
            GatherError: A kernel could not be asked; likewise.
        """
        with self._changed:
            cells = dict(self._cells)  # not copied deeper: what is sent meanwhile is read as well
        return self._printed.read(cells)

    def cancel(self) -> None:
        """Send no more, interrupt what runs; items without a result fail with `CellCancelledError`."""
        self._stop()

    def _stop(self) -> dict[str, str]:
        """Cancel; return kernel name to why something may go on there."""
        with self._changed:
            self._cancelled = True
            self._waiting.clear()
            running = {link: [chunk.cell for chunk in chunks] for link, chunks in self._running.items() if chunks}
        holding = withdraw(self._mesh, running)
        self._thread.join(timeout=0.0 if holding else self._mesh.settings.timeout)
        with self._changed:
            self._settle_rest(CellCancelledError("the job was cancelled"))
        return holding

    def _give_up(self) -> str:
        """Cancel after Ctrl-C; return what came of it."""
        holding = self._stop()
        good = sum(not isinstance(result, _Failure) for result in self._results)
        names = [kernel.name for kernel in self._kernels]
        return f"{describe_withdrawal('the job', names, holding)}; {good} of {len(self)} items have their results"

    def _await(self, predicate: Callable[[], bool]) -> None:
        """Wait for something to arrive; Ctrl-C cancels the job."""
        try:
            with self._changed:
                self._changed.wait_for(predicate)
        except KeyboardInterrupt as ctrl_c:
            obey_ctrl_c(ctrl_c, self._give_up, "the job may go on in the kernels; Job.cancel() stops it")
            raise

    def _in_order(self, *, check: bool) -> Iterator[Any]:
        for index in range(len(self._results)):
            self._await(lambda: self._have[index])  # noqa: B023  used at once
            yield self._checked(index, check)

    def _checked(self, index: int, check: bool) -> Any:
        result = self._results[index]
        if check and isinstance(result, _Failure):
            if not getattr(result.error, "__notes__", ()):
                result.error.add_note("results(check=False) returns the results of the other items")
            raise result.error
        return result.error if isinstance(result, _Failure) else result

    def _work(self) -> None:
        """Run the job (a thread of its own)."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        try:
            with Exchange(self._mesh, "work", blocking=False) as exchange:
                self._run(exchange, deadline)
            rest = self._why_unfinished(deadline)
        except Exception as error:  # noqa: BLE001  a job never leaves its reader waiting, whatever went wrong
            rest = error if isinstance(error, PyrokernelError) else PyrokernelError(f"the job failed: {error!r}")
        with self._changed:
            self._settle_rest(rest)

    def _run(self, exchange: Exchange, deadline: float | None) -> None:
        """Keep every kernel supplied until nothing is left or the time is up."""
        for _ in range(_IN_FLIGHT):
            for link in self._alive.values():
                self._supply(exchange, link)
        for name, chunk, value, error in exchange.answers(deadline):
            link = chunk.link
            death = error.__cause__ if isinstance(error, KernelRestartedError) else None
            if isinstance(death, KernelDiedError) and self._died_in(link, death) is not None:
                error = death  # it had begun on this job, and there is more to say of its end
            self._take(chunk, value, error)
            targets: list[Link] = []
            if isinstance(error, KernelConnectionError):
                targets = self._lose(link, error)
            targets = targets or ([self._alive[name]] if name in self._alive else list(self._alive.values()))
            for target in targets:
                self._supply(exchange, target)

    def _lose(self, link: Link, error: KernelConnectionError) -> list[Link]:
        """Do without an instance; when it was the last, return the ways to those that follow, once per chunk ahead."""
        self._lost.add(link.instance)
        if self._alive.get(link.name) is link:
            del self._alive[link.name]
        for kernel in self._kernels:
            # Its user learns of the restart through this job; the next use of the handle goes on.
            if isinstance(error, KernelRestartedError) and kernel.instance == link.instance:
                with contextlib.suppress(PyrokernelError):
                    kernel.rebind()
        # A fresh namespace may lack what the function needs, so only when there is nobody else.
        if self._alive or not self._waiting:
            return []
        for kernel in self._kernels:
            with contextlib.suppress(PyrokernelError):  # nobody follows this one
                successor = self._mesh.link_to(kernel.name)
                if successor.instance not in self._lost:
                    self._alive[kernel.name] = successor
        return list(self._alive.values()) * _IN_FLIGHT

    def _why_unfinished(self, deadline: float | None) -> PyrokernelError:
        """Return what the items fail with that have no result now."""
        with self._changed:
            done, total = self.progress
            busy = [link.name for link, chunks in self._running.items() if chunks]
            left = [index for index, have in enumerate(self._have) if not have]
            if self._cancelled:
                return CellCancelledError("the job was cancelled")
        if deadline is not None and time.monotonic() >= deadline:
            return out_of_time(self._timeout or 0.0, done, total, busy)
        return nobody_left([kernel.name for kernel in self._kernels], left)

    def _supply(self, exchange: Exchange, link: Link) -> None:
        """Send the next chunk to a kernel, if there is one left."""
        while chunk := self._next(link):
            try:
                request = chunk.request(self._function, self._about)
            except (NotSerializableError, MessageTooLargeError) as error:
                if not self._divide(chunk):
                    self._take(chunk, None, error)
            else:
                exchange.send(link, request, chunk)
                return

    def _next(self, link: Link) -> Chunk | None:
        """Take the next chunk for a kernel; from now on a cancel asks that kernel to skip it."""
        with self._changed:
            if self._cancelled or not self._waiting:
                return None
            chunk = self._waiting.popleft()
            chunk.cell, chunk.link = new_id(), link
            self._running.setdefault(link, []).append(chunk)
            sent = self._cells.setdefault(link, {})
            sent[chunk.cell] = len(sent)
            return chunk

    def _divide(self, chunk: Chunk) -> bool:
        """Put a chunk that cannot travel back in line as two, until the item that cannot is alone; False then."""
        halves = chunk.halves()
        with self._changed:
            if halves and not self._cancelled:
                self._running[chunk.link].remove(chunk)
                self._waiting.extendleft(reversed(halves))
        return bool(halves)

    def _take(self, chunk: Chunk, value: Any, error: PyrokernelError | None) -> None:
        """Store what came back for a chunk, or put it back in line."""
        with self._changed:
            running = self._running.get(chunk.link, [])
            if chunk in running:
                running.remove(chunk)
            if self._may_try_again(chunk, error) and not self._cancelled:
                before = itertools.takewhile(lambda other: other.first < chunk.first, self._waiting)
                self._waiting.insert(sum(1 for _ in before), chunk)
                return
        outcomes: list[tuple[bool, Any]] = []
        if error is None:
            try:
                outcomes = list(chunk.outcomes(value))
            except PyrokernelError as failure:
                error = failure
        if self._cancelled and isinstance(error, RemoteError) and error.ename == "KeyboardInterrupt":
            error = CellCancelledError("the job was cancelled as this ran")
        if error is not None:
            outcomes = [(False, chunk.mark(error))] * len(chunk.items)
        with self._changed:
            for offset, (good, result) in enumerate(outcomes):
                self._settle(chunk.first + offset, result if good else _Failure(result))
            self._changed.notify_all()

    def _may_try_again(self, chunk: Chunk, error: PyrokernelError | None) -> bool:
        """Whether a lost chunk may be sent to another kernel: it never began, or has a try left, which is taken."""
        died_in = self._died_in(chunk.link, error)
        if died_in is not None and self._cells[chunk.link][chunk.cell] > died_in:
            return True  # behind the chunk in which the kernel died it cannot have begun
        if not isinstance(error, KernelConnectionError) or chunk.retries <= 0:
            return False
        chunk.retries -= 1
        return True

    def _died_in(self, link: Link, error: BaseException | None) -> int | None:
        """Return the number of the chunk, among those sent to an instance, in which it died; None when in none."""
        last = error.last_cell if isinstance(error, KernelDiedError) else None
        return self._cells[link].get(last["cell"]) if last else None

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
