"""A burst: the chunks of one job that wait behind each other on a connection, run one after the other as one cell.

The short path for jobs of many small requests. Each chunk has its own request, id, place in the lists and answer, which
goes out before the next one begins. What they share is what costs most in a short cell: its events in the journal, and
the look at what was written, both under the id of the first. Runs in the kernel process, in its main thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pyrokernel.errors import PyrokernelError, error_to_wire
from pyrokernel.kernel.cell import Cell, listed, short
from pyrokernel.kernel.cells import Cells, size_of
from pyrokernel.kernel.chunk import Chunk
from pyrokernel.kernel.executor import pack
from pyrokernel.kernel.interpreter import Outcome
from pyrokernel.messages import EventKind
from pyrokernel.wire import codec
from pyrokernel.wire.codec import Buffer, Packed
from pyrokernel.wire.connection import (
    FLAGS_EXCEPTION,
    MSG_RESULT,
    Connection,
    EagerReader,
    IncomingMessage,
    frame,
    send_now,
)
from pyrokernel.wire.daemon import Daemon

MORE = "more"
"""The method by which a client sends the chunks of a job after the first."""

_BURST_SECONDS = 0.005
"""Others who wait for the kernel get their turn after so long."""


class KeptFunction(Packed):
    """A pickled function that is loaded once for all chunks of its job."""

    __slots__ = ("_loaded",)
    _loaded: Any

    def load(self) -> Any:
        """Unpickle it, or return what was unpickled before."""
        if not hasattr(self, "_loaded"):
            self._loaded = super().load()
        return self._loaded


class KeptJob:
    """What a work connection keeps of the job whose chunks come on it.

    Args:
        cell: That of the first chunk, not begun; from now on its function is loaded once for all of them.
    """

    def __init__(self, cell: Cell) -> None:
        assert cell.call is not None
        function, arguments, self._mapped = cell.call
        self._function = KeptFunction(function.data, function.buffers) if isinstance(function, Packed) else function
        cell.call = (self._function, arguments, self._mapped)
        self._fields = {**cell.__dict__, "call": None, "begin": None}
        self._title, self._origin, self.waiters = cell.title, cell.origin, cell.waiters
        self.author = cell.author

    def listed(self, cell_id: str) -> dict[str, Any]:
        """Return what lists say of a chunk that nobody has read yet."""
        return listed(cell_id, self._title, self._origin)

    def cell(self, cell_id: str, arguments: bytes | Packed) -> Cell:
        """Return the cell of another chunk."""
        made = Cell.__new__(Cell)  # a tenth of the time of the constructor, and nothing but these differs
        made.__dict__.update(self._fields)
        made.id, made.chunk = cell_id, Chunk()
        made.call = (self._function, Packed.of(arguments), self._mapped)
        return made


class Bursts:
    """Runs bursts.

    Args:
        cells: Where their chunks are known, listed and cancelled like any cell.
    """

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def serve(self, connection: Connection, message: IncomingMessage, daemon: Daemon) -> list[Buffer] | None:
        """Run what a message brings, if it is a chunk of the job kept, and those that have come behind it.

        Returns:
            What the socket has not taken yet of the last answer; None if it is no such chunk: then nothing was done.
        """
        reader = connection.reader
        assert isinstance(reader, EagerReader)
        asked = _open(message)
        if asked is None:
            return None
        burst = _Burst(self._cells, connection)
        ends = time.perf_counter() + _BURST_SECONDS
        try:
            while asked is not None:
                left = send_now(connection.sock, burst.answer(message, *asked))
                if left or connection.dismissed or time.perf_counter() >= ends:
                    return left
                following = reader.next() or reader.read(connection.sock)
                if following is None:
                    return []
                message, asked = following, _open(following)
        finally:
            burst.end()
        return send_now(connection.sock, daemon.answer(connection, message))


def _open(message: IncomingMessage) -> tuple[bytes | Packed, str] | None:
    """Return the pickled arguments and the cell id of a chunk, None for another request."""
    _, method, args, _ = message.decode()
    return None if method != MORE else (args[0], args[1])


class _Burst:
    """One burst, from its first chunk to its end."""

    def __init__(self, cells: Cells, connection: Connection) -> None:
        kept: KeptJob = connection.kept
        self._cells, self._executor = cells, cells.executor
        self._kept, self._freight = kept, connection.freight
        observed = self._executor.extensions.observed & {"pyrokernel_cell_started", "pyrokernel_cell_ended"}
        self._as_cells = bool(observed or kept.waiters or self._executor.is_for_another(kept.author))
        self._target: Callable[..., Any] | None = None
        self._first = ""
        self._status = "ok"
        self._begun = self._cpu = 0.0
        self._good: dict[str, Any] = {}
        self._cell: Cell
        self._packed: Any = None
        self._missing = ""

    def answer(self, message: IncomingMessage, arguments: bytes | Packed, cell_id: str) -> list[Buffer]:
        """Run a chunk; return the message that answers it: results pickled or, if long or failed, a whole reply."""
        cells = self._cells
        flags = 0
        answer: Any
        self._cell = cell = self._kept.cell(cell_id, arguments)
        try:
            # Plugins that observe cells are told of each.
            answer = cells.run(cell) if self._as_cells else cells.begin_chunk(cell)
            if answer is None:
                answer = reply = self._run(cell)
                packed = self._packed
                if packed is None:
                    size = size_of(reply)
                else:
                    size = packed.size_bytes
                    slim = packed.slim()
                    if slim is not packed:
                        answer = slim
                cells.end_chunk(cell, reply, size)
        except BaseException as error:  # noqa: BLE001  as in `_run`
            if cell.state == "new" and isinstance(error, PyrokernelError):  # cancelled, or known and expired
                flags, answer = FLAGS_EXCEPTION, error_to_wire(error)
            elif cell.reply is None:
                answer = self._executor.end_badly(cell, self._executor.execution_count, error)
                cells.end_chunk(cell, answer, size_of(answer))
            else:
                answer = cell.reply
        payload = codec.encode_bytes(answer) if type(answer) is bytes else codec.encode(answer, self._freight)
        return frame(MSG_RESULT, payload, seq=message.seq, flags=flags, cell=message.corr_id)

    def _run(self, cell: Cell) -> dict[str, Any]:
        """Run a chunk that has begun; return its reply."""
        executor = self._executor
        count = executor.execution_count = executor.execution_count + 1
        self._packed = None
        try:
            if not self._first or not executor.journal.note_chunk(self._first, cell.id):
                self.end()
                self._cells.running = cell  # it has begun, whatever has ended
                self._begin(cell, count)
            begun = time.perf_counter()
            failure = executor.interpreter.run(cell.id, self._call)
            executor.leave_child(failure)
            duration = time.perf_counter() - begun
            if failure is None:
                return {
                    **self._good,
                    "cell": cell.id,
                    "execution_count": count,
                    "value": self._packed,
                    "value_missing": self._missing,
                    "started": cell.started,
                    "duration": duration,
                }
            self._packed, self._status = None, "error"
            reply = executor.reply_of(cell, failure, count, duration=duration)
            executor.report_error(reply)
        except BaseException as error:  # noqa: BLE001  as in `Cells`: raised by a signal handler of the user's
            self._packed = None
            return executor.end_badly(cell, count, error)
        return reply

    def _call(self) -> None:
        """Do the user's part of a chunk."""
        executor, cell = self._executor, self._cell
        if self._target is None:
            executor.extensions.prepare()
            self._target = executor.target(cell)
        executor.interpreter.running = (cell.id, cell.namespace)
        self._packed, self._missing = pack(executor.call_chunk(cell, self._target), cell)

    def _begin(self, cell: Cell, count: int) -> None:
        self._first, self._status = cell.id, "ok"
        self._good = self._executor.reply_of(cell, Outcome(), count, duration=0.0)
        self._begun, self._cpu = time.perf_counter(), time.process_time()
        self._executor.capture.begin(cell.id)
        source = short(cell.title)
        self._executor.journal.append(EventKind.STARTED, cell.id, source=source, **cell.origin, execution_count=count)

    def end(self) -> None:
        """Bring what was written into the journal, and the end."""
        first, self._first = self._first, ""
        if not first:
            return
        try:  # each of these, whatever a signal handler of the user's raises in the one before
            self._executor.capture.end()
            self._executor.capture.settle()
        finally:
            self._cells.end_burst()
            duration, cpu = time.perf_counter() - self._begun, time.process_time() - self._cpu
            self._executor.journal.append(EventKind.ENDED, first, status=self._status, duration=duration, cpu=cpu)
