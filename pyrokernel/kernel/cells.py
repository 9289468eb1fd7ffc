"""The cells of a kernel: admitted once, run one at a time, journalled, their replies kept. Runs in the kernel process.

Any thread may submit, wait, cancel and ask; only the main thread runs. No sockets here.
"""

from __future__ import annotations

import builtins
import collections
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyrokernel.client import inside
from pyrokernel.errors import (
    CellCancelledError,
    CellNotFoundError,
    ProtocolError,
    ReplyTimeoutError,
    ResultExpiredError,
    error_to_wire,
)
from pyrokernel.journal import Journal
from pyrokernel.kernel.capture import Capture
from pyrokernel.kernel.interpreter import Interpreter, Outcome
from pyrokernel.kernel.results import bundle_of, pack_value, text_of
from pyrokernel.kernel.script import as_script
from pyrokernel.messages import EventKind, Reply, new_id
from pyrokernel.wire.codec import Packed

MAX_SOURCE_EVENT_CHARS = 64 * 1024
MAX_SOURCE_LISTED_CHARS = 200
MAX_REPLIES = 4096
MAX_REPLY_BYTES = 128 * 1024 * 1024
"""Replies are kept for a client that lost its connection, up to these caps; older ones expire."""
MAX_EXPIRED = 65536


@dataclasses.dataclass(eq=False)
class Cell:
    """One request to run something.

    Attributes:
        source: What is run; for a call, how it reads.
        shown: What stands for the source in lists and events, "" for itself.
        call: The function (by name or pickled), its arguments, and whether it is mapped over items; or None.
        want: "none", "text", "mime" or "value".
        plain: The client reads no pickles.
        author, client: Who sent it, and from where: the id of that client, "" where it has none.
        job: Id of the job it is a part of, "" for none.
        waiters: (kernel, instance) of the kernels that wait for it.
        namespace, filename: Where it runs, and how tracebacks call it ("" for its number).
        argv: `sys.argv` of a script, None for what is none.
        begin: Called when it starts.
        started: Since when it runs, Unix time in seconds; 0 before.
        items, failed: How many items it was mapped over, and how many of them failed.
    """

    source: str
    id: str = dataclasses.field(default_factory=new_id)
    call: tuple[Any, Packed, bool] | None = None
    want: str = "text"
    plain: bool = False
    author: str = ""
    client: str = ""
    job: str = ""
    waiters: Sequence[tuple[str, str]] = ()
    namespace: str = ""
    filename: str = ""
    argv: Sequence[str] | None = None
    shown: str = ""
    max_result_bytes: int = 64 * 1024 * 1024
    begin: Callable[[], None] | None = None
    state: str = "new"
    started: float = 0.0
    items: int = 0
    failed: int = 0
    reply: dict[str, Any] | None = None
    size: int = 0

    @property
    def title(self) -> str:
        """What lists and events say was run."""
        return self.shown or self.source

    @property
    def origin(self) -> dict[str, str]:
        """Whose it is, as lists and events have it."""
        return {"author": self.author, "client": self.client, "job": self.job}


class Cells:
    """Runs cells and remembers them.

    Args:
        name, instance: The kernel they run in.
        interpreter, capture, journal: What they run on.
        wake: Tells the main thread that a submitted cell waits.
    """

    def __init__(
        self,
        name: str,
        instance: str,
        interpreter: Interpreter,
        capture: Capture,
        journal: Journal,
        wake: Callable[[], None],
    ) -> None:
        self.name, self.instance = name, instance
        self.interpreter, self.capture, self.journal = interpreter, capture, journal
        self.execution_count = 0
        self.running: Cell | None = None
        self.last_used = time.monotonic()
        self._wake = wake
        self._changed = threading.Condition()
        self._queue: collections.deque[Cell] = collections.deque()
        self._known: dict[str, Cell] = {}
        self._kept: collections.deque[Cell] = collections.deque()
        self._kept_bytes = 0
        self._expired: dict[str, None] = {}
        self._cancelled: set[str] = set()
        self._pid = os.getpid()

    def admit(self, cell: Cell) -> bool:
        """Take note of a cell that `queue` is to be called for; False when it is known already."""
        with self._changed:
            if not self._admit(cell):
                return False
            cell.state = "queued"
            self.journal.append(EventKind.QUEUED, cell.id, source=_short(cell.title), **cell.origin)
            return True

    def queue(self, cell: Cell) -> None:
        """Let the main thread run an admitted cell, unless it was cancelled meanwhile."""
        with self._changed:
            if cell.state == "queued":
                self._queue.append(cell)
        self._wake()

    def run(self, cell: Cell) -> dict[str, Any]:
        """Run a cell now, in the main thread, and return its reply; a known one is not run again.

        Raises:
            ResultExpiredError: It ran long ago and its reply is gone.
        """
        with self._changed:
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
        return self._run(cell)

    def run_queued(self) -> bool:
        """Run the first submitted cell; say whether there was one."""
        with self._changed:
            if not self._queue:
                return False
            cell = self._queue.popleft()
            cell.state = "running"
        self._run(cell)
        return True

    def wait(self, cell: str, timeout: float | None) -> dict[str, Any]:
        """Return the reply of a cell, when it has ended.

        Raises:
            CellNotFoundError, ResultExpiredError: There is no such cell, or no reply any more.
            ReplyTimeoutError: It has not ended in time.
        """
        with self._changed:
            found = self._find(cell)
            if not self._changed.wait_for(lambda: found.reply is not None, timeout):
                raise ReplyTimeoutError(seconds=timeout, cell=cell, replies={}, missing=(self.name,))
            assert found.reply is not None
            return found.reply

    def cancel(self, cell: str) -> bool:
        """Keep a cell from starting; say whether that worked (it does not for one that runs or ended)."""
        with self._changed:
            found = self._known.get(cell)
            if found is None:
                # It may still wait unread in a work connection: remember to skip it.
                if len(self._cancelled) < MAX_EXPIRED:
                    self._cancelled.add(cell)
                return True
            if found.state != "queued":
                return False
            if found in self._queue:
                self._queue.remove(found)
            self.journal.append(EventKind.ENDED, cell, status="cancelled", duration=0.0, cpu=0.0)
            self._finish(found, Reply(status="cancelled", **self._identity(found)).to_wire())
            return True

    def is_cancelled(self, cell: str) -> bool:
        """Tell whether a cell that nobody has read yet was cancelled."""
        return cell in self._cancelled

    def touch(self) -> None:
        """Note that somebody uses this kernel."""
        self.last_used = time.monotonic()

    def idle_seconds(self) -> float:
        """Return how long nobody has used this kernel; 0 while a cell runs or waits."""
        with self._changed:
            if any(cell.reply is None for cell in self._known.values()):
                return 0.0
            return time.monotonic() - self.last_used

    def waiting(self) -> list[dict[str, Any]]:
        """Return the submitted cells that have not started, as `listed` has them."""
        with self._changed:
            return [listed(cell.id, cell.title, cell.origin) for cell in self._queue]

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """Return the last cells that ended, newest last, as `listed` has them and with what came of them.

        Args:
            limit: How many; all those of one job count as one.
        """
        with self._changed:
            kept = list(self._kept)
        ended: list[dict[str, Any]] = []
        counted: set[str] = set()
        for cell in reversed(kept):
            key = cell.job or cell.id
            if key in counted or len(counted) < limit:
                counted.add(key)
                ended.append(listed(cell.id, cell.title, cell.origin) | _ending(cell))
        return ended[::-1]

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
            raise CellCancelledError(kernel=self.name, cell=cell.id)
        self._known[cell.id] = cell
        return True

    def _identity(self, cell: Cell) -> dict[str, Any]:
        return {"kernel": self.name, "instance": self.instance, "cell": cell.id}

    def _run(self, cell: Cell) -> dict[str, Any]:
        """Run a cell; whatever goes wrong around it, it ends with a reply and an event that says so."""
        count = self.execution_count = self.execution_count + 1
        try:
            return self._run_whole(cell, count)
        except BaseException as error:  # noqa: BLE001  such as the TimeoutError of a SIGALRM handler of the user's
            return self._end_badly(cell, count, error)

    def _end_badly(self, cell: Cell, count: int, error: BaseException) -> dict[str, Any]:
        """End a cell whose own end was cut short by something raised outside it."""
        if cell.reply is not None:  # it was all done but for the return
            return cell.reply
        message = "raised after the code of the cell had ended, by a signal handler or in place of a function of ours"
        reply = Reply(
            status="error",
            **self._identity(cell),
            execution_count=count,
            ename=type(error).__name__,
            evalue=f"{error} ({message})",
            traceback=f"{type(error).__name__}: {error} ({message})\n",
        ).to_wire()
        self._finish_running(cell, reply)
        self._report(reply)
        return reply

    def _run_whole(self, cell: Cell, count: int) -> dict[str, Any]:
        cell.started, begun, cpu_begun = time.time(), time.perf_counter(), time.process_time()
        self.running = cell
        if cell.begin is not None:
            cell.begin()
        self.capture.begin(cell.id)
        self.journal.append(EventKind.STARTED, cell.id, source=_short(cell.title), **cell.origin, execution_count=count)
        with inside.serving(cell.waiters):
            outcome = self._execute(cell, count)
        if os.getpid() != self._pid:
            _leave_forked_child(outcome)
        output = self.capture.end(cell.id)
        shown = outcome.rendered or {}
        reply = Reply(
            status="error" if outcome.error else "ok",
            **self._identity(cell),
            execution_count=count,
            stdout=output.stdout,
            stderr=output.stderr,
            truncated=output.truncated or shown.get("cut", False),
            text=shown.get("text", ""),
            data=shown.get("data"),
            value=shown.get("value"),
            value_missing=shown.get("missing", ""),
            ename=outcome.ename,
            evalue=outcome.evalue,
            traceback=outcome.traceback,
            started=cell.started,
            duration=time.perf_counter() - begun,
            cpu=time.process_time() - cpu_begun,
        ).to_wire()
        outcome.error = None  # its traceback would keep the frames of the cell alive
        self._report(reply)
        self._finish_running(cell, reply)
        return reply

    def _finish_running(self, cell: Cell, reply: dict[str, Any]) -> None:
        with self._changed:
            self.running = None
            self.touch()
            self._finish(cell, reply)

    def _execute(self, cell: Cell, count: int) -> Outcome:
        def render(value: Any) -> dict[str, Any]:
            return _render(value, cell)

        if cell.call is None:
            filename = cell.filename or f"<cell {count}>"
            space = self.interpreter.namespace(cell.namespace)
            with as_script(space.variables, filename, cell.argv):
                return self.interpreter.run_source(
                    cell.id, cell.source, render, filename=filename, namespace=cell.namespace, shown=cell.title
                )
        function, arguments, mapped = cell.call

        def call() -> Any:
            variables = self.interpreter.namespace(cell.namespace).variables
            target = resolve(function, variables)
            args, kwargs = arguments.load()
            if not mapped:
                return target(*args, **kwargs)
            results = _map(target, args)
            cell.items, cell.failed = len(results), sum(not good for good, _ in results)
            return results

        return self.interpreter.run_call(cell.id, call, render)

    def _report(self, reply: dict[str, Any]) -> None:
        """Write result or error, and the end, to the journal."""
        cell = reply["cell"]
        if reply["status"] == "error":
            fields = {name: reply[name] for name in ("ename", "evalue", "traceback")}
            self.journal.append(EventKind.ERROR, cell, **fields)
        elif reply["text"]:
            self.journal.append(EventKind.RESULT, cell, text=reply["text"], data=reply["data"])
        ending = {name: reply[name] for name in ("status", "duration", "cpu")}
        self.journal.append(EventKind.ENDED, cell, **ending)

    def _finish(self, cell: Cell, reply: dict[str, Any]) -> None:
        """Keep a reply and let go of the oldest beyond the caps."""
        cell.reply, cell.state, cell.call, cell.begin = reply, "done", None, None
        value = reply["value"]
        cell.size = len(reply["stdout"]) + len(reply["stderr"]) + len(reply["text"]) + len(reply["traceback"])
        cell.size += value.size_bytes if isinstance(value, Packed) else 0
        self._kept.append(cell)
        self._kept_bytes += cell.size
        while len(self._kept) > MAX_REPLIES or (self._kept_bytes > MAX_REPLY_BYTES and len(self._kept) > 1):
            old = self._kept.popleft()
            self._kept_bytes -= old.size
            del self._known[old.id]
            self._expired[old.id] = None
            if len(self._expired) > MAX_EXPIRED:
                del self._expired[next(iter(self._expired))]
        self._changed.notify_all()


def resolve(function: Any, variables: dict[str, Any]) -> Callable[..., Any]:
    """Find what a call means: a pickled function, or a dotted name in the namespace.

    Raises:
        NameError, AttributeError: The name leads nowhere.
        ProtocolError: It is neither.
    """
    if isinstance(function, Packed):
        loaded: Callable[..., Any] = function.load()
        return loaded
    if not isinstance(function, str) or not function:
        raise ProtocolError(f"a call names a function or carries one, not {function!r}")
    first, *rest = function.split(".")
    found: Any
    if first in variables:
        found = variables[first]
    elif hasattr(builtins, first):
        found = getattr(builtins, first)
    elif rest and first in sys.modules:
        found = sys.modules[first]
    else:
        raise NameError(f"name {first!r} is not defined in this kernel")
    for name in rest:
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{function} is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]  # callable() does not narrow Any


def _map(function: Callable[..., Any], items: Sequence[Any]) -> list[tuple[bool, Any]]:
    """Call a function once for each item; a failure is kept as data beside the results of the others."""
    from pyrokernel.kernel.interpreter import format_error

    results: list[tuple[bool, Any]] = []
    for item in items:
        try:
            results.append((True, function(item)))
        except Exception as error:  # noqa: BLE001  the user's function may raise anything; an interrupt ends the whole chunk
            wire = error_to_wire(error)
            results.append((False, {**wire, "traceback": format_error(error)}))
    return results


def _render(value: Any, cell: Cell) -> dict[str, Any]:
    """Make of a value what the request asked for."""
    if cell.want == "none":
        return {}
    shown: dict[str, Any] = {}
    if cell.want == "value":
        shown["value"], shown["missing"] = pack_value(value, max_bytes=cell.max_result_bytes, plain=cell.plain)
    if cell.call is None:
        shown["text"], shown["cut"] = text_of(value, for_people=cell.want == "text")
    if cell.want == "mime":
        shown["data"] = bundle_of(value, shown.get("text", ""))
    return shown


def listed(cell: str, source: str, origin: Mapping[str, str]) -> dict[str, Any]:
    """Return what lists of cells say of each: id, source, author, client, job."""
    return {"cell": cell, "source": _short(source, MAX_SOURCE_LISTED_CHARS), **origin}


def _ending(cell: Cell) -> dict[str, Any]:
    """Return what lists of cells say of one that has ended."""
    reply = cell.reply or {}
    ending = {name: reply[name] for name in ("status", "execution_count", "started", "duration", "ename")}
    ending["evalue"] = reply["evalue"][:MAX_SOURCE_LISTED_CHARS]
    return ending | ({"items": cell.items, "failed": cell.failed} if cell.items else {})


def _short(source: str, limit: int = MAX_SOURCE_EVENT_CHARS) -> str:
    if len(source) <= limit:
        return source
    return f"{source[:limit]}\n# ... {len(source) - limit} characters more"


def _leave_forked_child(outcome: Outcome) -> None:
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
