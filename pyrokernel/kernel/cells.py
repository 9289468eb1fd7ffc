"""The cells of a kernel: admitted once, run one at a time, journalled, their replies kept. Runs in the kernel process.

Any thread may submit, wait, cancel and ask; only the main thread runs. No sockets here.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from typing import Any

from pyrokernel.errors import (
    CellCancelledError,
    CellNotFoundError,
    ProtocolError,
    ReplyTimeoutError,
    ResultExpiredError,
)
from pyrokernel.kernel.cell import Cell, ending, listed, short
from pyrokernel.kernel.executor import Executor
from pyrokernel.messages import EventKind, Reply
from pyrokernel.wire.codec import Packed

MAX_REPLIES = 4096
MAX_REPLY_BYTES = 128 * 1024 * 1024
"""Replies are kept for a client that lost its connection, up to these caps; older ones expire."""
MAX_EXPIRED = 65536


class Cells:
    """Has cells run in their turn, and remembers them.

    Args:
        executor: Runs them.
        wake: Tells the main thread that a submitted cell waits.

    Attributes:
        executor: That.
        running: The cell that runs, None between cells.
        last_used: When somebody used this kernel last (monotonic).
    """

    def __init__(self, executor: Executor, wake: Callable[[], None]) -> None:
        self.executor = executor
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
            self.executor.journal.append(EventKind.QUEUED, cell.id, source=short(cell.title), **cell.origin)
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
            self.running = cell
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
            self.executor.capture.settle()
        finally:
            try:
                self.executor.report(reply)
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
            self.running = cell
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
            self.executor.journal.append(EventKind.ENDED, cell, status="cancelled", duration=0.0, cpu=0.0)
            self._finish(
                found,
                Reply(
                    status="cancelled", kernel=self.executor.name, instance=self.executor.instance, cell=cell
                ).to_wire(),
            )
            return True

    def dismiss(self, author: str, kind: str) -> int:
        """Cancel what somebody has submitted and what has not begun; return how many cells that were."""
        with self._lock:
            queued = [cell.id for cell in self._queue if (cell.author, cell.kind) == (author, kind)]
            return sum(map(self.cancel, queued))

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

    def begun(self) -> str:
        """Return the id of the cell that has begun and has no reply yet, "" for none."""
        cell = self.running
        return cell.id if cell is not None and cell.reply is None else ""

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
                raise ReplyTimeoutError(seconds=timeout, cell=cell.id, replies={}, missing=(self.executor.name,))
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
            raise error(kernel=self.executor.name, cell=cell)
        return found

    def _admit(self, cell: Cell) -> bool:
        """Register a cell; False when its id is known, so that sending it twice is harmless."""
        if cell.id in self._known:
            return False
        if cell.id in self._expired:
            raise ResultExpiredError(kernel=self.executor.name, cell=cell.id)
        if cell.id in self._cancelled:
            self._cancelled.discard(cell.id)
            self._forget(cell.id)  # sent again it is not run either: its items may run elsewhere
            raise CellCancelledError(kernel=self.executor.name, cell=cell.id)
        self._known[cell.id] = cell
        return True

    def _run(self, cell: Cell) -> dict[str, Any]:
        """Run a cell and return its reply; `settle` is to follow, which others wait for."""
        reply = self.executor.run(cell)
        ended = (cell, reply)
        self._settling.acquire()
        self._ended = ended
        return reply

    def run_beside(self, cell: Cell) -> dict[str, Any]:
        """Run a call as `Executor.run_beside`, and return its reply; a known one is not run again."""
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
        reply = self.executor.run_beside(cell)
        with self._lock:
            self.touch()
            self._finish(cell, reply)
        return reply

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


def size_of(reply: dict[str, Any]) -> int:
    """Return about how many bytes a reply takes."""
    size = len(reply["stdout"]) + len(reply["stderr"]) + len(reply["text"]) + len(reply["traceback"])
    value = reply["value"]
    return size + value.size_bytes if isinstance(value, Packed) else size
