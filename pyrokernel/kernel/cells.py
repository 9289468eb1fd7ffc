"""The cells of a kernel: admitted once, run one at a time, journalled, their replies kept. Runs in the kernel process.

Any thread may submit, wait, cancel and ask; only the main thread runs. No sockets here.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable
from typing import Any

from pyrokernel.client import inside
from pyrokernel.errors import (
    CellCancelledError,
    CellNotFoundError,
    ProtocolError,
    ReplyTimeoutError,
    ResultExpiredError,
)
from pyrokernel.journal import Journal
from pyrokernel.kernel.calls import resolve
from pyrokernel.kernel.capture import NO_OUTPUT, Capture, CellOutput
from pyrokernel.kernel.cell import Cell, ending, listed, short
from pyrokernel.kernel.extensions import Extensions
from pyrokernel.kernel.interpreter import Interpreter, Outcome, outcome_of
from pyrokernel.kernel.results import bundle_of, pack_value, text_of
from pyrokernel.kernel.script import as_script
from pyrokernel.messages import EventKind, Reply
from pyrokernel.wire.codec import Packed

MAX_REPLIES = 4096
MAX_REPLY_BYTES = 128 * 1024 * 1024
"""Replies are kept for a client that lost its connection, up to these caps; older ones expire."""
MAX_EXPIRED = 65536

_NO_SCRIPT = contextlib.nullcontext()


class Cells:
    """Runs cells and remembers them.

    Args:
        name, instance: The kernel they run in.
        interpreter, capture, journal: What they run on.
        extensions: The commands there are, and the plugins that observe cells.
        wake: Tells the main thread that a submitted cell waits.

    Attributes:
        in_child: Whether this is a child that user code forked.
    """

    def __init__(
        self,
        name: str,
        instance: str,
        interpreter: Interpreter,
        capture: Capture,
        journal: Journal,
        extensions: Extensions,
        wake: Callable[[], None],
    ) -> None:
        self.name, self.instance = name, instance
        self.interpreter, self.capture, self.journal = interpreter, capture, journal
        self.extensions = extensions
        self.execution_count = 0
        self.in_child = False
        self.running: Cell | None = None
        self.last_used = time.monotonic()
        self._wake = wake
        self._lock: Any = threading.RLock()
        self._changed = threading.Condition(self._lock)  # enters by Python code; the lock itself is four times quicker
        self._waiting = 0
        self._settling = threading.Lock()
        self._ended: tuple[Cell, dict[str, Any]] | None = None
        self._queue: collections.deque[Cell] = collections.deque()
        self._known: dict[str, Cell] = {}
        self._kept: collections.deque[Cell] = collections.deque()
        self._kept_bytes = 0
        self._expired: dict[str, None] = {}
        self._cancelled: set[str] = set()

    def admit(self, cell: Cell) -> bool:
        """Take note of a cell that `queue` is to be called for; False when it is known already."""
        with self._lock:
            if not self._admit(cell):
                return False
            cell.state = "queued"
            self.journal.append(EventKind.QUEUED, cell.id, source=short(cell.title), **cell.origin)
            return True

    def queue(self, cell: Cell) -> None:
        """Let the main thread run an admitted cell, unless it was cancelled meanwhile."""
        with self._lock:
            if cell.state == "queued":
                self._queue.append(cell)
        self._wake()

    def run(self, cell: Cell, *, settle: bool = True) -> dict[str, Any]:
        """Run a cell now, in the main thread, and return its reply; a known one is not run again.

        Args:
            cell: Which.
            settle: Whether to do all that its end brings before it returns; else the caller sends the reply and calls
                `settle`, so that nobody waits for that.

        Raises:
            ResultExpiredError: It ran long ago and its reply is gone.
        """
        with self._lock:
            if not self._admit(cell):
                known = self._known[cell.id]
                if known.reply is not None:
                    return known.reply
                if known.state != "queued":
                    raise ProtocolError(f"cell {cell.id} is running already")
                # It is queued: this is the main thread, so its turn may as well be now.
                if known in self._queue:
                    self._queue.remove(known)
                cell = known
            cell.state = "running"
        reply = self._run(cell)
        if settle:
            self.settle()
        return reply

    def settle(self) -> None:
        """Do what the end of the last cell brings: tell the journal, keep the reply, look for what it left behind."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        cell, reply = ended
        try:  # each of these, whatever is raised in the one before: by a profiler of the user's, or for want of memory
            self.capture.settle()
        finally:
            try:
                self._report(reply)
            finally:
                try:
                    with self._lock:
                        self.running = None
                        self.last_used = time.monotonic()
                        self._finish(cell, reply)
                finally:
                    self._settling.release()

    def await_settled(self) -> None:
        """Wait until a cell whose reply is out is also in the journal and in all lists (any other thread)."""
        with self._settling:
            pass

    def begin_chunk(self, cell: Cell) -> dict[str, Any] | None:
        """Take note that a chunk of a burst runs, in the main thread; return its reply if it is known.

        Raises:
            As `run`, and CellCancelledError.
        """
        with self._lock:
            if self._admit(cell):
                cell.state, cell.started = "running", time.time()
                self.running = cell
                return None
        return self.run(cell)

    def end_chunk(self, cell: Cell, reply: dict[str, Any], size: int) -> None:
        """Keep the reply of a chunk that ran, which takes so many bytes."""
        cell.reply, cell.state, cell.call, cell.size = reply, "done", None, size
        with self._lock:
            self._keep(cell)

    def end_burst(self) -> None:
        """Take note that no chunk runs any more."""
        with self._lock:
            self.running = None
            self.last_used = time.monotonic()

    def run_queued(self) -> bool:
        """Run the first submitted cell; say whether there was one."""
        with self._lock:
            if not self._queue:
                return False
            cell = self._queue.popleft()
            cell.state = "running"
        self._run(cell)
        self.settle()
        return True

    def wait(self, cell: str, timeout: float | None) -> dict[str, Any]:
        """Return the reply of a cell, when it has ended.

        Raises:
            CellNotFoundError, ResultExpiredError: There is no such cell, or no reply any more.
            ReplyTimeoutError: It has not ended in time.
        """
        with self._lock:
            return self._wait_for(self._find(cell), timeout)

    def cancel(self, cell: str) -> bool:
        """Keep a cell from starting; say whether that worked (it does not for one that runs or ended)."""
        with self._lock:
            found = self._known.get(cell)
            if found is None:
                # It may still wait unread in a work connection: remember to skip it.
                if cell in self._expired or len(self._cancelled) >= MAX_EXPIRED:
                    return False
                self._cancelled.add(cell)
                return True
            if found.state != "queued":
                return False
            if found in self._queue:
                self._queue.remove(found)
            self.journal.append(EventKind.ENDED, cell, status="cancelled", duration=0.0, cpu=0.0)
            self._finish(found, Reply(status="cancelled", **self._identity(found)).to_wire())
            return True

    def curtail(self, cell: str) -> int:
        """Take back the items of a chunk that have not begun; one that has not started is cancelled.

        Returns:
            How many items it keeps: those that have begun. -1 where that is not known, and nothing was taken back.
        """
        with self._lock:
            found = self._known.get(cell)
            if found is None or found.state == "queued":
                return 0 if self.cancel(cell) else -1
            if found.chunk is None or found.reply is not None:
                return -1
            return found.chunk.take_back()

    def known_reply(self, cell: str) -> dict[str, Any] | None:
        """Return the reply of a cell that was here before; None if it never was.

        Raises:
            CellCancelledError, ResultExpiredError: It is not to run, or its reply is gone.
        """
        with self._lock:
            if cell in self._cancelled or cell in self._known or cell in self._expired:
                self._admit(Cell(source="", id=cell))  # raises
                found = self._find(cell)
                if found.reply is None:
                    raise ProtocolError(f"cell {cell} is running already")
                return found.reply
            return None

    def is_cancelled(self, cell: str) -> bool:
        """Tell whether a cell that nobody has read yet was cancelled."""
        return cell in self._cancelled

    def touch(self) -> None:
        """Note that somebody uses this kernel."""
        self.last_used = time.monotonic()

    def idle_seconds(self) -> float:
        """Return how long nobody has used this kernel; 0 while a cell runs or waits."""
        with self._lock:
            if any(cell.reply is None for cell in self._known.values()):
                return 0.0
            return time.monotonic() - self.last_used

    def waiting(self) -> list[dict[str, Any]]:
        """Return the submitted cells that have not started, as `listed` has them."""
        with self._lock:
            return [listed(cell.id, cell.title, cell.origin) for cell in self._queue]

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """Return the last cells that ended, newest last, as `listed` has them and with what came of them.

        Args:
            limit: How many; all those of one job count as one.
        """
        with self._lock:
            kept = list(self._kept)
        ended: list[dict[str, Any]] = []
        counted: set[str] = set()
        for cell in reversed(kept):
            key = cell.job or cell.id
            if key in counted or len(counted) < limit:
                counted.add(key)
                ended.append(listed(cell.id, cell.title, cell.origin) | ending(cell))
        return ended[::-1]

    def _wait_for(self, cell: Cell, timeout: float | None) -> dict[str, Any]:
        """Return the reply of a cell when it has ended; the caller holds the lock."""
        self._waiting += 1
        try:
            if not self._changed.wait_for(lambda: cell.reply is not None, timeout):
                raise ReplyTimeoutError(seconds=timeout, cell=cell.id, replies={}, missing=(self.name,))
        finally:
            self._waiting -= 1
        assert cell.reply is not None
        return cell.reply

    def find(self, cell: str) -> Cell:
        """Return a cell that the kernel remembers.

        Raises:
            CellNotFoundError, ResultExpiredError: It does not.
        """
        with self._lock:
            return self._find(cell)

    def _find(self, cell: str) -> Cell:
        found = self._known.get(cell)
        if found is None:
            error = ResultExpiredError if cell in self._expired else CellNotFoundError
            raise error(kernel=self.name, cell=cell)
        return found

    def _admit(self, cell: Cell) -> bool:
        """Register a cell; False when its id is known, so that sending it twice is harmless."""
        if cell.id in self._known:
            return False
        if cell.id in self._expired:
            raise ResultExpiredError(kernel=self.name, cell=cell.id)
        if cell.id in self._cancelled:
            self._cancelled.discard(cell.id)
            self._forget(cell.id)  # sent again it is not run either: its items may run elsewhere
            raise CellCancelledError(kernel=self.name, cell=cell.id)
        self._known[cell.id] = cell
        return True

    def _identity(self, cell: Cell) -> dict[str, Any]:
        return {"kernel": self.name, "instance": self.instance, "cell": cell.id}

    def _run(self, cell: Cell) -> dict[str, Any]:
        """Run a cell; whatever goes wrong around it, it ends with a reply and an event that says so, by `settle`."""
        count = self.execution_count = self.execution_count + 1
        try:
            reply = self._run_whole(cell, count)
        except BaseException as error:  # noqa: BLE001  such as the TimeoutError of a SIGALRM handler of the user's
            reply = self.end_badly(cell, count, error)
        ended = (cell, reply)
        self._settling.acquire()
        self._ended = ended
        return reply

    def end_badly(self, cell: Cell, count: int, error: BaseException) -> dict[str, Any]:
        """Return the reply of a cell whose own end was cut short by something raised outside it."""
        message = "raised after the code of the cell had ended, by a signal handler or in place of a function of ours"
        inside.serve(())
        return Reply(
            status="error",
            **self._identity(cell),
            execution_count=count,
            ename=type(error).__name__,
            evalue=f"{error} ({message})",
            traceback=f"{type(error).__name__}: {error} ({message})\n",
        ).to_wire()

    def _run_whole(self, cell: Cell, count: int) -> dict[str, Any]:
        cell.started, begun, cpu_begun = time.time(), time.perf_counter(), time.process_time()
        self.running = cell
        if cell.begin is not None:
            cell.begin()
        self.capture.begin(cell.id)
        self.journal.append(EventKind.STARTED, cell.id, source=short(cell.title), **cell.origin, execution_count=count)
        if cell.waiters:
            inside.serve(cell.waiters)
        outcome = self._run_source(cell, count) if cell.call is None else self._run_call(cell, count)
        if cell.waiters:
            inside.serve(())
        if self.in_child:
            leave_forked_child(outcome)
        duration = time.perf_counter() - begun
        if "pyrokernel_cell_ended" in self.extensions.observed:
            ended = {
                "status": "error" if outcome.error else "ok",
                "duration": duration,
                "ename": outcome.ename,
                "evalue": outcome.evalue,
            }
            self.interpreter.run_aside(lambda: self._tell("pyrokernel_cell_ended", cell, count, **ended))
        output = self.capture.end()
        return self.reply_of(cell, outcome, count, output, duration=duration, cpu=time.process_time() - cpu_begun)

    def reply_of(
        self,
        cell: Cell,
        outcome: Outcome,
        count: int,
        output: CellOutput | None = None,
        *,
        duration: float,
        cpu: float = 0.0,
    ) -> dict[str, Any]:
        """Make the reply of a cell of what came of it."""
        shown = outcome.rendered or {}
        stdout, stderr, truncated = output or NO_OUTPUT
        # As `Reply.to_wire` has it: this is made for every cell, and a fifth of the time of a short one.
        reply = {
            "status": "ok" if outcome.error is None else "error",
            "kernel": self.name,
            "instance": self.instance,
            "cell": cell.id,
            "execution_count": count,
            "stdout": stdout,
            "stderr": stderr,
            "truncated": truncated or shown.get("cut", False),
            "text": shown.get("text", ""),
            "data": shown.get("data"),
            "value": shown.get("value"),
            "value_missing": shown.get("missing", ""),
            "ename": outcome.ename,
            "evalue": outcome.evalue,
            "traceback": outcome.traceback,
            "started": cell.started,
            "duration": duration,
            "cpu": cpu,
        }
        outcome.error = None  # its traceback would keep the frames of the cell alive
        return reply

    def _tell(self, hook: str, cell: Cell, count: int, **more: Any) -> None:
        """Tell the plugins that observe cells of one."""
        about = {"id": cell.id, "source": cell.title, "author": cell.author, "namespace": cell.namespace or "main"}
        self.extensions.tell(hook, {**about, "execution_count": count, **more})

    def _run_source(self, cell: Cell, count: int) -> Outcome:
        filename = cell.filename or f"<cell {count}>"
        space = self.interpreter.namespace(cell.namespace)
        with _NO_SCRIPT if cell.argv is None else as_script(space.variables, filename, cell.argv):
            return self.interpreter.run_source(
                cell.id,
                cell.source,
                lambda value: _render(value, cell),
                filename=filename,
                namespace=cell.namespace,
                shown=cell.title,
                before=lambda: self._prepare(cell, count),
            )

    def _run_call(self, cell: Cell, count: int) -> Outcome:
        outcome = Outcome()

        def body() -> None:
            self._prepare(cell, count)
            self.interpreter.running = (cell.id, cell.namespace)
            outcome.rendered = _render(self.interpreter.awaited(self._value_of(cell)), cell)

        return self.interpreter.run(cell.id, body) or outcome

    def _prepare(self, cell: Cell, count: int) -> None:
        """Do what comes before the code of a cell, and may fail and be interrupted as that may."""
        if not self.extensions.ready:
            self.extensions.prepare()
        if "pyrokernel_cell_started" in self.extensions.observed:
            self._tell("pyrokernel_cell_started", cell, count)

    def _value_of(self, cell: Cell) -> Any:
        """Make the call that a cell is, once or for each of its items."""
        assert cell.call is not None  # what is run as source does not come here
        target = self.target(cell)
        if cell.chunk is not None:
            return self.call_chunk(cell, target)
        args, kwargs = cell.call[1].load()
        value = target(*args, **kwargs)
        if cell.lend is not None and cell.yields is None:
            return value
        if isinstance(value, types.GeneratorType):
            return self._drained(value, cell)
        if cell.yields is not None:
            raise TypeError(f"{cell.title} is no generator: it returned {type(value).__name__}; `call` fetches that")
        return value

    def call_chunk(self, cell: Cell, target: Callable[..., Any]) -> dict[str, Any]:
        """Call what a mapped call means with each of its items."""
        assert cell.call is not None
        assert cell.chunk is not None
        return cell.chunk.call_each(target, cell.call[1].load()[0], calls=cell.call[2] == "calls")

    def target(self, cell: Cell) -> Callable[..., Any]:
        """Find what a call means; a command learns of this cell."""
        assert cell.call is not None

        def command(name: str) -> Callable[..., Any] | None:
            found = self.extensions.command(name)
            return found and functools.partial(found, self.extensions.context(found, cell.id, cell.namespace))

        return resolve(cell.call[0], self.interpreter.namespace(cell.namespace).variables, command)

    def _drained(self, values: Iterable[Any], cell: Cell) -> list[Any] | None:
        """Run a generator to its end: its values are events where text is wanted, else they are read or returned."""
        kept: list[Any] = []
        for value in values:
            if cell.yields is not None:
                if not cell.yields.put(value if cell.lend is None else cell.lend(value)):
                    break
            elif cell.want == "text":
                text, _ = text_of(value, for_people=True)
                self.capture.drain()
                self.journal.append(EventKind.RESULT, cell.id, text=text, data=None)
            else:
                kept.append(value)
        return None if cell.want == "text" else kept

    def run_beside(self, cell: Cell) -> dict[str, Any]:
        """Run a call on this thread, beside whatever the main thread runs, and return its reply.

        What it prints belongs to the cell that runs, if one does; nothing interrupts it.
        """
        with self._lock:
            if not self.admit_beside(cell):
                return self._wait_for(self._known[cell.id], None)
        return self.run_admitted(cell)

    def admit_beside(self, cell: Cell) -> bool:
        """Take note of a cell that runs beside others; False when it is known already."""
        with self._lock:
            if not self._admit(cell):
                return False
            cell.state, cell.started = "running", time.time()
            return True

    def run_admitted(self, cell: Cell) -> dict[str, Any]:
        """Run what `admit_beside` took note of."""
        begun = time.perf_counter()
        self.journal.append(EventKind.STARTED, cell.id, source=short(cell.title), **cell.origin, execution_count=0)
        outcome = outcome_of(lambda: self._value_of(cell), lambda value: _render(value, cell))
        reply = self.reply_of(cell, outcome, 0, duration=time.perf_counter() - begun)
        self._report(reply)
        with self._lock:
            self.touch()
            self._finish(cell, reply)
        return reply

    def _report(self, reply: dict[str, Any]) -> None:
        """Write result or error, and the end, to the journal."""
        cell, status = reply["cell"], reply["status"]
        try:
            if status == "error":
                self.report_error(reply)
            elif reply["text"]:
                self.journal.append(EventKind.RESULT, cell, text=reply["text"], data=reply["data"])
        finally:
            self.journal.append(EventKind.ENDED, cell, status=status, duration=reply["duration"], cpu=reply["cpu"])

    def report_error(self, reply: dict[str, Any]) -> None:
        """Write to the journal what a cell raised."""
        fields = {name: reply[name] for name in ("ename", "evalue", "traceback")}
        self.journal.append(EventKind.ERROR, reply["cell"], **fields)

    def _finish(self, cell: Cell, reply: dict[str, Any]) -> None:
        """Keep a reply."""
        cell.reply, cell.state, cell.call, cell.begin = reply, "done", None, None
        size = size_of(reply)
        if cell.yields is not None:
            cell.yields.wake()
            size += cell.yields.size
        cell.size = size
        self._keep(cell)

    def _keep(self, cell: Cell) -> None:
        """Keep a cell that has ended and let go of the oldest beyond the caps; the lock is held."""
        kept = self._kept
        kept.append(cell)
        self._kept_bytes += cell.size
        while len(kept) > MAX_REPLIES or (self._kept_bytes > MAX_REPLY_BYTES and len(kept) > 1):
            old = kept.popleft()
            self._kept_bytes -= old.size
            del self._known[old.id]
            self._forget(old.id)
        if self._waiting:
            self._changed.notify_all()

    def _forget(self, cell: str) -> None:
        """Remember of a cell only that there was one of this id."""
        self._expired[cell] = None
        if len(self._expired) > MAX_EXPIRED:
            del self._expired[next(iter(self._expired))]


def _render(value: Any, cell: Cell) -> dict[str, Any]:
    """Make of a value what the request asked for."""
    if cell.want == "none":
        return {}
    shown: dict[str, Any] = {}
    if cell.lend is not None:
        value = cell.lend(value)
    if cell.want == "value":
        shown["value"], shown["missing"] = pack(value, cell)
    if cell.call is None or (cell.want == "text" and value is not None):
        shown["text"], shown["cut"] = text_of(value, for_people=cell.want == "text")
    if cell.want == "mime":
        shown["data"] = bundle_of(value, shown.get("text", ""))
    return shown


def size_of(reply: dict[str, Any]) -> int:
    """Return about how many bytes a reply takes."""
    size = len(reply["stdout"]) + len(reply["stderr"]) + len(reply["text"]) + len(reply["traceback"])
    value = reply["value"]
    return size + value.size_bytes if isinstance(value, Packed) else size


def pack(value: Any, cell: Cell) -> tuple[Any, str]:
    """Return a value in wire form and, when it has to stay here, why; of a chunk nothing stays but what has to."""
    limit, plain, data = cell.max_result_bytes, cell.plain, cell.data
    packed, missing = pack_value(value, max_bytes=limit, plain=plain, data=data)
    if missing and cell.chunk is not None:
        value = cell.chunk.mend(value, lambda one: pack_value(one, max_bytes=limit, plain=plain, data=data)[1])
        return pack_value(value, max_bytes=limit, plain=plain, data=data)
    return packed, missing


def leave_forked_child(outcome: Outcome) -> None:
    """End a child that user code forked and that ran to the end of the cell: there is one kernel, not two."""
    code = 0
    if isinstance(outcome.error, SystemExit):
        code = outcome.error.code if isinstance(outcome.error.code, int) else int(outcome.error.code is not None)
    elif outcome.error is not None:
        sys.stderr.write(outcome.traceback)
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
