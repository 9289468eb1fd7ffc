"""Runs one cell at a time and makes its reply, and tells the journal of it. Runs in the kernel process.

What there was before it, and what becomes of its reply, `cells` knows.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
import types
from collections.abc import Callable, Iterable
from typing import Any

from pyrokernel.client import inside
from pyrokernel.journal import Journal
from pyrokernel.kernel.calls import resolve
from pyrokernel.kernel.capture import NO_OUTPUT, Capture, CellOutput
from pyrokernel.kernel.cell import Cell, short
from pyrokernel.kernel.extensions import Extensions
from pyrokernel.kernel.interpreter import Interpreter, Outcome, outcome_of
from pyrokernel.kernel.results import bundle_of, pack_value, text_of
from pyrokernel.kernel.script import as_script
from pyrokernel.messages import EventKind, Reply
from pyrokernel.systems import own_uid
from pyrokernel.wire.trust import account

_NO_SCRIPT = contextlib.nullcontext()


class Executor:
    """Runs cells, in the main thread but for those that run beside others.

    Args:
        name, instance: The kernel they run in.
        interpreter, capture, journal: What they run on.
        extensions: The commands there are, and the plugins that observe cells.

    Attributes:
        execution_count: How many cells it has run.
    """

    def __init__(
        self,
        name: str,
        instance: str,
        interpreter: Interpreter,
        capture: Capture,
        journal: Journal,
        extensions: Extensions,
    ) -> None:
        self.name, self.instance = name, instance
        self.interpreter, self.capture, self.journal = interpreter, capture, journal
        self.extensions = extensions
        self.execution_count = 0
        self._pid = os.getpid()
        self._account = account(own_uid())

    def run(self, cell: Cell) -> dict[str, Any]:
        """Run a cell and return its reply, whatever goes wrong around it; `report` is to follow."""
        count = self.execution_count = self.execution_count + 1
        try:
            return self._run_whole(cell, count)
        except BaseException as error:  # noqa: BLE001  such as the TimeoutError of a SIGALRM handler of the user's
            return self.end_badly(cell, count, error)

    def is_for_another(self, author: str) -> bool:
        """Whether a cell is of somebody that this account is not."""
        return author not in ("", self._account)

    def leave_child(self, outcome: Outcome | None) -> None:
        """End a child that user code forked and that ran to the end of the cell: there is one kernel, not two."""
        if os.getpid() != self._pid:
            _leave_forked_child(outcome or Outcome())

    def run_beside(self, cell: Cell) -> dict[str, Any]:
        """Run a call on this thread, beside whatever the main thread runs, and return its reply.

        What it prints belongs to the cell that runs, if one does; nothing interrupts it.
        """
        begun = time.perf_counter()
        self.journal.append(EventKind.STARTED, cell.id, source=short(cell.title), **cell.origin, execution_count=0)
        outcome = outcome_of(lambda: self._value_of(cell), lambda value: _render(value, cell))
        reply = self.reply_of(cell, outcome, 0, duration=time.perf_counter() - begun)
        self.report(reply)
        return reply

    def end_badly(self, cell: Cell, count: int, error: BaseException) -> dict[str, Any]:
        """Return the reply of a cell whose own end was cut short by something raised outside it."""
        message = "raised after the code of the cell had ended, by a signal handler or in place of a function of ours"
        inside.serve(())
        return Reply(
            status="error",
            kernel=self.name,
            instance=self.instance,
            cell=cell.id,
            execution_count=count,
            ename=type(error).__name__,
            evalue=f"{error} ({message})",
            traceback=f"{type(error).__name__}: {error} ({message})\n",
        ).to_wire()

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

    def target(self, cell: Cell) -> Callable[..., Any]:
        """Find what a call means; a command learns of this cell."""
        assert cell.call is not None

        def command(name: str) -> Callable[..., Any] | None:
            found = self.extensions.command(name)
            return found and functools.partial(found, self.extensions.context(found, cell.id, cell.namespace))

        return resolve(cell.call[0], self.interpreter.namespace(cell.namespace).variables, command)

    def call_chunk(self, cell: Cell, target: Callable[..., Any]) -> dict[str, Any]:
        """Call what a mapped call means with each of its items."""
        assert cell.call is not None
        assert cell.chunk is not None
        return cell.chunk.call_each(target, cell.call[1].load()[0], calls=cell.call[2] == "calls")

    def report(self, reply: dict[str, Any]) -> None:
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

    def _run_whole(self, cell: Cell, count: int) -> dict[str, Any]:
        cell.started, begun, cpu_begun = time.time(), time.perf_counter(), time.process_time()
        if cell.begin is not None:
            cell.begin()
        self.capture.begin(cell.id)
        self.journal.append(EventKind.STARTED, cell.id, source=short(cell.title), **cell.origin, execution_count=count)
        served = cell.waiters or self.is_for_another(cell.author)
        if served:
            inside.serve(cell.waiters, cell.author if self.is_for_another(cell.author) else "")
        outcome = self._run_source(cell, count) if cell.call is None else self._run_call(cell, count)
        if served:
            inside.serve(())
        self.leave_child(outcome)
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


def pack(value: Any, cell: Cell) -> tuple[Any, str]:
    """Return a value in wire form and, when it has to stay here, why; of a chunk nothing stays but what has to."""
    limit, plain, data = cell.max_result_bytes, cell.plain, cell.data
    packed, missing = pack_value(value, max_bytes=limit, plain=plain, data=data)
    if missing and cell.chunk is not None:
        value = cell.chunk.mend(value, lambda one: pack_value(one, max_bytes=limit, plain=plain, data=data)[1])
        return pack_value(value, max_bytes=limit, plain=plain, data=data)
    return packed, missing


def _leave_forked_child(outcome: Outcome) -> None:
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
