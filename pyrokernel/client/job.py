"""Job: many calls spread over kernels, with results as they arrive. Runs in the caller's process."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client.bell import Bell, OpenExchange
from pyrokernel.client.calls import Exchange
from pyrokernel.client.chunks import Chunk, check_calls, cut, nobody_left, out_of_time
from pyrokernel.client.links import Link
from pyrokernel.client.outcomes import Outcomes
from pyrokernel.client.parcels import pack_function
from pyrokernel.client.printed import Printed
from pyrokernel.client.withdrawal import describe_withdrawal, withdraw
from pyrokernel.errors import (
    CellCancelledError,
    KernelConnectionError,
    KernelDiedError,
    KernelRestartedError,
    MessageTooLargeError,
    NotSerializableError,
    PyrokernelError,
    RemoteError,
    ReplyTimeoutError,
    SettingsError,
)
from pyrokernel.messages import new_id

if TYPE_CHECKING:
    from pyrokernel.client.kernel import Kernel
    from pyrokernel.client.mesh import Mesh

_IN_FLIGHT = 2
"""Chunks sent to a kernel ahead: it finds the next one waiting when it ends one."""


class Job(Outcomes):
    """What `Group.map` and `Group.map_calls` return: iterate over it for results in order.

    A result that failed raises when it is reached; a `RemoteError` has the `index` of its item. The others
    can still be read with `results(check=False)` or `as_completed(check=False)`, which yield the exception
    in its place; `errors` has those so far. `ready`, `arrived`, `progress` and `done` tell without waiting.

    `add` and `extend` give it more, while it runs and after it is done. Whoever iterates gets that too: an
    iteration ends when everything added so far is done.

    Ctrl-C while waiting in `results`, `result`, `as_completed`, `show` or an iteration cancels the job, within
    3 s; a second one leaves at once. What has arrived stays.
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
        calls: bool = False,
    ) -> None:
        if chunk is not None and chunk < 1:
            raise SettingsError(f"a chunk has at least 1 item, not {chunk}; None chooses a size")
        self._mesh = mesh
        self._kernels = list(kernels)
        self._function, name = pack_function(function)
        shown = shown or f"{'map_calls' if calls else 'map'}({name}, ...)"
        self._about = {"client": mesh.client, "job": new_id(), "shown": shown}
        self._calls, self._chunk, self._retries = calls, chunk, retries
        items = list(items)  # before the time of the job begins
        super().__init__(name)
        self._timeout = timeout
        self._deadline = None if timeout is None else self._begun + timeout
        self._waiting: deque[Chunk] = deque()
        self._cancelled = False
        self._alive = {kernel.name: kernel.link for kernel in self._kernels}
        self._lost: set[str] = set()
        self._running: dict[Link, list[Chunk]] = {link: [] for link in self._alive.values()}
        self._cells: dict[Link, dict[str, int]] = {link: {} for link in self._alive.values()}
        self._printed = Printed(mesh)
        self._thread: threading.Thread | None = None
        self._bell: Bell | None = None
        self._extend(items)

    def add(self, *items: Any) -> range:
        """Give the job more to do, as `extend`: `job.add(((1000,), {"bins": 10}))` for one call of `map_calls`."""
        return self.extend(items)

    def extend(self, items: Iterable[Any]) -> range:
        """Give the job more to do, while it runs or after it is done; return at once.

        They are cut into chunks of their own, so a few do not wait for more. A timeout of the job counts from its
        beginning, also for them.

        Args:
            items: As those of `map`, or of `map_calls`; read at once.

        Returns:
            Their indices.

        Raises:
            CellCancelledError: The job was cancelled. ReplyTimeoutError: Its time has passed.
            SettingsError: One is no call; none was added.
        """
        items = list(items)
        with self._changed:
            if self._cancelled:
                raise CellCancelledError("the job was cancelled, and takes no more; map the rest as a new job")
            if items and self._late():
                raise ReplyTimeoutError(
                    f"the job's {self._timeout:g} s have passed, and it takes no more; map the rest as a new job",
                    seconds=self._timeout,
                    cell="",
                    replies={},
                    missing=(),
                )
            return self._extend(items)

    def _extend(self, items: list[Any]) -> range:
        with self._changed:
            first = len(self._results)
            if self._calls:
                items = check_calls(items, first)
            size, retries, calls = self._chunk, self._retries, self._calls
            chunks = cut(items, len(self._kernels), chunk=size, retries=retries, first=first, calls=calls)
            if self._bell is not None:
                self._bell.ring()
            elif items:
                self._start()
            self._waiting.extend(chunks)
            return self._expect(len(items))

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
            thread = self._thread
        holding = withdraw(self._mesh, running)
        if thread is not None:
            thread.join(timeout=0.0 if holding else self._mesh.settings.timeout)
        with self._changed:
            self._settle_rest(CellCancelledError("the job was cancelled"))
        return holding

    def _give_up(self) -> str:
        """Cancel after Ctrl-C; return what came of it."""
        holding = self._stop()
        good = len(self) - len(self._errors)
        names = [kernel.name for kernel in self._kernels]
        return f"{describe_withdrawal('the job', names, holding)}; {good} of {len(self)} items have their results"

    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _start(self) -> None:
        """Begin to work; the lock is held, so that whoever adds finds the bell as long as somebody hears it."""
        bell = Bell()
        thread = threading.Thread(target=self._work, args=(bell,), name="pyrokernel-job", daemon=True)
        thread.start()
        self._bell, self._thread = bell, thread

    def _work(self, bell: Bell) -> None:
        """Run the job (a thread of its own) until nothing is left of what was added so far."""
        while True:
            rest: PyrokernelError | None = None
            try:
                if not self._alive:
                    self._call_successors()
                hopeful = bool(self._alive)
                with OpenExchange(self._mesh, bell) as exchange:
                    self._run(exchange)
            except Exception as error:  # noqa: BLE001  a job never leaves its reader waiting, whatever went wrong
                rest = error if isinstance(error, PyrokernelError) else PyrokernelError(f"the job failed: {error!r}")
            with self._changed:
                # More was added as the last answer came, or all kernels died, which others may follow.
                if rest is None and self._waiting and hopeful and not self._late():
                    continue
                if not self.done:
                    self._settle_rest(rest or self._why_unfinished())
                self._bell = None
                bell.close()
                return

    def _run(self, exchange: Exchange) -> None:
        """Keep every kernel supplied until nothing is left or the time is up."""
        self._supply_all(exchange)
        for name, chunk, value, error in exchange.answers(self._deadline):
            if chunk is None:
                self._supply_all(exchange)
                continue
            link = chunk.link
            death = error.__cause__ if isinstance(error, KernelRestartedError) else None
            if isinstance(death, KernelDiedError) and self._died_in(link, death) is not None:
                error = death  # it had begun on this job, and there is more to say of its end
            self._take(chunk, value, error)
            if isinstance(error, KernelConnectionError):
                self._lose(link, error)
            for target in [self._alive[name]] if name in self._alive else list(self._alive.values()):
                self._supply(exchange, target)

    def _supply_all(self, exchange: Exchange) -> None:
        """Send chunks ahead to all kernels that have too few of them."""
        with self._changed:
            if self._bell is not None:
                self._bell.hear()  # before looking at what waits: what comes later rings again
        for ahead in range(_IN_FLIGHT):
            pending = exchange.pending
            for link in self._alive.values():
                if pending.get(link.name, 0) <= ahead:
                    self._supply(exchange, link)

    def _lose(self, link: Link, error: KernelConnectionError) -> None:
        """Do without an instance."""
        self._lost.add(link.instance)
        if self._alive.get(link.name) is link:
            del self._alive[link.name]
        for kernel in self._kernels:
            # Its user learns of the restart through this job; the next use of the handle goes on.
            if isinstance(error, KernelRestartedError) and kernel.instance == link.instance:
                with contextlib.suppress(PyrokernelError):
                    kernel.rebind()

    def _call_successors(self) -> None:
        """Go on with the instances that follow those lost.

        Only when all are lost: a fresh namespace may lack what the function needs.
        """
        for kernel in self._kernels:
            with contextlib.suppress(PyrokernelError):  # nobody follows this one
                successor = self._mesh.link_to(kernel.name)
                if successor.instance not in self._lost:
                    self._alive[kernel.name] = successor

    def _why_unfinished(self) -> PyrokernelError:
        """Return what the items fail with that have no result now."""
        done, total = self.progress
        if self._cancelled:
            return CellCancelledError("the job was cancelled")
        if self._late():
            busy = [link.name for link, chunks in self._running.items() if chunks]
            return out_of_time(self._timeout or 0.0, done, total, busy)
        left = [index for index, have in enumerate(self._have) if not have]
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
                self._settle(chunk.first + offset, result, failed=not good)
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

    def _settle_rest(self, error: PyrokernelError) -> None:
        self._waiting.clear()
        for index, have in enumerate(self._have):
            if not have:
                self._settle(index, error, failed=True)
        self._changed.notify_all()
