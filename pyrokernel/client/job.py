"""Job: many calls spread over kernels, with results as they arrive. Runs in the caller's process."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client.backlog import Span
from pyrokernel.client.bell import Bell, OpenExchange
from pyrokernel.client.calls import kernel_request
from pyrokernel.client.chunks import Chunk, Line, check_calls, nobody_left, out_of_time
from pyrokernel.client.outcomes import Outcomes
from pyrokernel.client.pace import CHUNK_BYTES
from pyrokernel.client.parcels import pack_function
from pyrokernel.client.printed import Printed
from pyrokernel.client.sharing import Sharing
from pyrokernel.client.withdrawal import describe_withdrawal, withdraw
from pyrokernel.errors import (
    CellCancelledError,
    KernelConnectionError,
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
    from pyrokernel.wire.fanout import Request


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
        self._pace = mesh.paces.pace(self._function, chunk)
        items = list(items)  # before the time of the job begins
        super().__init__(name)
        self._timeout = timeout
        self._deadline = None if timeout is None else self._begun + timeout
        self._cell_prefix, self._counted = new_id()[:20], itertools.count()
        self._items: list[Any] = []
        links = [kernel.link for kernel in self._kernels]
        self._sharing = Sharing(links, self._pace, whole=chunk is not None, make=self._make_chunk)
        self._cancelled = False
        self._printed = Printed(mesh)
        self._thread: threading.Thread | None = None
        self._bell: Bell | None = None
        self._extend(items)

    def add(self, *items: Any) -> range:
        """Give the job more to do, as `extend`: `job.add(((1000,), {"bins": 10}))` for one call of `map_calls`."""
        return self.extend(items)

    def extend(self, items: Iterable[Any]) -> range:
        """Give the job more to do, while it runs or after it is done; return at once.

        They are sent as soon as a kernel is free, so a few do not wait for more. A timeout of the job counts from its
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
        with self._lock:
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
        with self._lock:
            first = len(self._results)
            if self._calls:
                items = check_calls(items, first)
            if self._bell is not None:
                self._bell.ring()
            elif items:
                self._start()
            self._items += items
            if items:
                self._sharing.backlog.add(Span(first, first + len(items), self._retries), join=self._chunk is None)
            return self._expect(len(items))

    def output(self) -> dict[str, str]:
        """Return what the calls have printed so far, stdout and stderr as they came, by kernel name.

        It comes from the journals of the kernels, also of those that died; asking again reads only what is
        new. Of each kernel the last 16 Mi characters are kept.

        Raises:
            ReplyTimeoutError: A kernel did not answer; `.replies` has the text of the others.
            GatherError: A kernel could not be asked; likewise.
        """
        with self._lock:
            cells = {line.link: line.cells for line in self._sharing.lines}  # what is sent meanwhile is read as well
        return self._printed.read(cells)

    def cancel(self) -> None:
        """Send no more, interrupt what runs; items without a result fail with `CellCancelledError`."""
        self._stop()

    def _stop(self) -> dict[str, str]:
        """Cancel; return kernel name to why something may go on there."""
        with self._lock:
            self._cancelled = True
            self._sharing.backlog.clear()
            running = {line.link: [chunk.cell for chunk in line.chunks] for line in self._sharing.lines if line.chunks}
            thread = self._thread
        holding = withdraw(self._mesh, running)
        if thread is not None:
            thread.join(timeout=0.0 if holding else self._mesh.settings.timeout)
        with self._lock:
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
                if not self._sharing.alive:
                    self._call_successors()
                hopeful = bool(self._sharing.alive)
                with OpenExchange(self._mesh, bell) as exchange:
                    self._run(exchange)
            except Exception as error:  # noqa: BLE001  a job never leaves its reader waiting, whatever went wrong
                rest = error if isinstance(error, PyrokernelError) else PyrokernelError(f"the job failed: {error!r}")
            with self._lock:
                # More was added as the last answer came, or all kernels died, which others may follow.
                if rest is None and self._sharing.backlog and hopeful and not self._late():
                    continue
                self._mesh.paces.note(self._function, self._pace)
                if not self.done:
                    self._settle_rest(rest or self._why_unfinished())
                self._bell = None
                bell.close()
                return

    def _run(self, exchange: OpenExchange) -> None:
        """Keep every kernel supplied until nothing is left or the time is up."""
        for line in self._sharing.lines:
            # Its connection may be another one than in an earlier exchange, which left what was taken back unanswered.
            line.equipped, line.withdrawn = False, 0
        self._supply_all(exchange)
        while True:
            until = min(self._sharing.look, math.inf if self._deadline is None else self._deadline)
            for name, token, value, error in exchange.answers(None if until == math.inf else until):
                if isinstance(token, Chunk):
                    self._hear(exchange, name, token, value, error)
                elif token is None:
                    self._supply_all(exchange)
                else:
                    self._regain(exchange, token[0], token[1], value)
                if self.done or self._sharing.look < until:
                    break
            # What was taken back may be answered later, by a kernel that is long at something else.
            if self.done or self._late() or exchange.idle:
                return
            self._level(exchange)

    def _hear(self, exchange: OpenExchange, name: str, chunk: Chunk, value: Any, error: PyrokernelError | None) -> None:
        """Take the answer to a chunk, and send more to whoever has given it."""
        line = chunk.line
        if isinstance(error, KernelConnectionError):
            error = line.explain(error)
        self._take(chunk, value, error)
        if isinstance(error, KernelConnectionError):
            self._lose(line, error)
        alive = self._sharing.alive
        for target in [alive[name]] if name in alive else list(alive.values()):
            self._supply(exchange, target)

    def _supply_all(self, exchange: OpenExchange) -> None:
        """Send chunks ahead to all kernels that have too few of them, first one to each."""
        with self._lock:
            if self._bell is not None:
                self._bell.hear()  # before looking at what waits: what comes later rings again
        for line in self._sharing.alive.values():
            if line.idle:
                self._supply(exchange, line, most=1)
        for line in self._sharing.alive.values():
            self._supply(exchange, line)

    def _level(self, exchange: OpenExchange) -> None:
        """Ask kernels to give back what others could do, or whose results are long awaited."""
        with self._lock:
            now = time.monotonic()
            chunks = [] if self._cancelled else self._sharing.level(now)
            if self._cancelled:
                self._sharing.look = math.inf
        for chunk in chunks:
            method = "curtail" if self._chunk is None else "cancel"  # of a chosen size it stays whole
            exchange.ask(chunk.line.link, kernel_request(method, chunk.cell), (chunk, now))

    def _regain(self, exchange: OpenExchange, chunk: Chunk, asked: float, answer: int | bool) -> None:
        """Share anew what a kernel has given back of a chunk."""
        kept = (0 if answer else len(chunk.items)) if isinstance(answer, bool) else answer
        with self._lock:
            if not self._cancelled:
                self._sharing.regain(chunk, kept, asked, time.monotonic())
        self._supply_all(exchange)

    def _lose(self, line: Line, error: KernelConnectionError) -> None:
        """Do without an instance."""
        with self._lock:
            self._sharing.lose(line)
        for kernel in self._kernels:
            # Its user learns of the restart through this job; the next use of the handle goes on.
            if isinstance(error, KernelRestartedError) and kernel.instance == line.link.instance:
                with contextlib.suppress(PyrokernelError):
                    kernel.rebind()

    def _call_successors(self) -> None:
        """Go on with the instances that follow those lost.

        Only when all are lost: a fresh namespace may lack what the function needs.
        """
        for kernel in self._kernels:
            with contextlib.suppress(PyrokernelError):  # nobody follows this one
                successor = self._mesh.link_to(kernel.name)
                self._sharing.welcome(successor)

    def _why_unfinished(self) -> PyrokernelError:
        """Return what the items fail with that have no result now."""
        done, total = self.progress
        if self._cancelled:
            return CellCancelledError("the job was cancelled")
        if self._late():
            busy = [line.link.name for line in self._sharing.lines if line.chunks]
            return out_of_time(self._timeout or 0.0, done, total, busy)
        left = [index for index, have in enumerate(self._have) if not have]
        return nobody_left([kernel.name for kernel in self._kernels], left)

    def _supply(self, exchange: OpenExchange, line: Line, *, most: int = 1 << 30) -> None:
        """Send a kernel the chunks it lacks, at most so many."""
        requests: list[tuple[Request, Chunk]] = []
        lacking = min(most, self._sharing.lacking(line))
        while len(requests) < lacking and (chunks := self._deal(line, lacking - len(requests))):
            requests += [(request, chunk) for chunk in chunks if (request := self._request(chunk))]
        if requests:
            exchange.send_all(line.link, requests)

    def _deal(self, line: Line, most: int) -> list[Chunk]:
        """Take the next chunks for a kernel; from now on a cancel asks that kernel to skip them."""
        if self._chunk is None:
            most = 1  # what becomes of one may say how large the next is to be
        with self._lock:
            return [] if self._cancelled else self._sharing.deal(line, most, time.monotonic())

    def _request(self, chunk: Chunk) -> Request | None:
        """Return the request of a chunk; None where it went back in line as two, or cannot travel at all."""
        line = chunk.line
        try:
            request = chunk.request(self._function, self._about, kept=line.equipped)
        except (NotSerializableError, MessageTooLargeError) as error:
            if not self._divide(chunk):
                self._take(chunk, None, error)
            return None
        if self._chunk is None and chunk.size_bytes > CHUNK_BYTES and self._divide(chunk):
            return None
        line.equipped = True
        return request

    def _make_chunk(self, span: Span) -> Chunk:
        # The id is random for the job and counted in it, which takes a quarter of the time.
        cell = f"{self._cell_prefix}{next(self._counted):012x}"
        return Chunk(span.first, self._items[span.first : span.stop], span.retries, self._calls, cell)

    def _divide(self, chunk: Chunk) -> bool:
        """Put a chunk that cannot travel back in line as two, until the item that cannot is alone; False then."""
        halves = chunk.halves()
        with self._lock:
            if halves and not self._cancelled:
                self._sharing.leave(chunk, time.monotonic())
                for half in halves:
                    self._sharing.backlog.put_back(half)
        return bool(halves)

    def _take(self, chunk: Chunk, value: Any, error: PyrokernelError | None) -> None:
        """Store what came back for a chunk, or put it back in line."""
        outcome = None
        if error is None:
            try:
                outcome = chunk.outcomes(value)
            except PyrokernelError as failure:
                error = failure
        count = len(chunk.items)
        with self._lock:
            if not self._sharing.leave(chunk, time.monotonic()):
                chunk.line.withdrawn -= 1
                return
            if error is not None:
                if self._may_try_again(chunk, error) and not self._cancelled:
                    self._sharing.backlog.put_back(chunk.span())
                    return
                if self._cancelled and isinstance(error, RemoteError) and error.ename == "KeyboardInterrupt":
                    error = CellCancelledError("the job was cancelled as this ran")
                chunk.mark(error)
                self._settle(chunk.first, [error] * count, dict.fromkeys(range(count), error))
            elif outcome is not None:
                done = len(outcome.results)
                if done:
                    size_bytes = max(chunk.size_bytes, outcome.size_bytes)
                    self._pace.note(chunk.line, done, outcome.seconds, size_bytes)
                    self._settle(chunk.first, outcome.results, outcome.failures)
                if done < count and not self._cancelled:  # the rest was taken back, or its connection was a new one
                    chunk.line.equipped = value is not None
                    self._sharing.backlog.put_back(chunk.span(done))
                count = done
            self._items[chunk.first : chunk.first + count] = [None] * count
            self._tell()

    def _may_try_again(self, chunk: Chunk, error: PyrokernelError) -> bool:
        """Whether a lost chunk may be sent to another kernel: it never began, or has a try left, which is taken."""
        if chunk.asked and isinstance(error, CellCancelledError):
            return True  # taken back, and read by its kernel before the answer to that question was here
        if chunk.line.never_began(chunk, error):
            return True
        if not isinstance(error, KernelConnectionError) or chunk.retries <= 0:
            return False
        chunk.retries -= 1
        return True

    def _settle_rest(self, error: PyrokernelError) -> None:
        self._sharing.backlog.clear()
        index = self._have.find(0)
        while index >= 0:
            self._settle(index, [error], {0: error})
            index = self._have.find(0, index)
        self._tell()
