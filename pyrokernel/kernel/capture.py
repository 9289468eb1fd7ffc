"""Everything written to descriptors 1 and 2, by whomever, becomes events of the cell it belongs to.

The descriptors are files (`spool`). Python prints to them through `streams`, a thread
reads them while a cell runs (`drain`), and the end of a cell reads the rest before the
reply goes out. A cell that left a process or a thread behind keeps its files, the next
one gets others: so late output is told apart. Runs in the kernel process.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from pyrokernel import journal_files, systems
from pyrokernel.journal import Journal, in_main_thread
from pyrokernel.kernel import clib
from pyrokernel.kernel.drain import Drainer
from pyrokernel.kernel.excerpt import Excerpt
from pyrokernel.kernel.late import LateOutput
from pyrokernel.kernel.spool import STREAMS, Spool
from pyrokernel.kernel.writer import ROUTE, Route, Writer
from pyrokernel.messages import EventKind


class CellOutput(NamedTuple):
    """What a cell wrote, for its reply; `truncated` when the middle was cut out or bytes were lost."""

    stdout: str
    stderr: str
    truncated: bool


NO_OUTPUT = CellOutput("", "", truncated=False)


class Capture:
    """Owns descriptors 1 and 2 and the text streams of one kernel.

    `begin` and `end` are for the main thread; the rest may be called from any.

    Args:
        directory: Where the files are put; the journal's own.
        journal: Where events are appended.
        reply_bytes: Most characters of each stream in a `CellOutput`.

    Attributes:
        running: Whether a cell runs.
    """

    def __init__(self, directory: Path, journal: Journal, *, reply_bytes: int = 1024 * 1024) -> None:
        self.running = False
        self._directory = directory.absolute()
        self._journal = journal
        self._reply_bytes = reply_bytes
        self._lock = threading.RLock()
        self._excerpts: dict[str, Excerpt] = {}
        self._lost = False
        self._due: BaseException | None = None
        self._drainer: Drainer | None = None
        self._limits = systems.limits()
        self._children = self._used_by_children()
        self._spool = Spool(self._directory, 1, journal.cap_bytes)
        self._writer = Writer(self._spool, self.poke)
        self._late = LateOutput(self._writer, self._drain_spool, self._lose_spool)
        self._positions_fd = os.open(
            self._directory / journal_files.POSITIONS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | systems.OWN, 0o600
        )
        self._note_current()

    def install(self) -> None:
        """Put files behind descriptors 1 and 2, /dev/null behind 0, and replace `sys.stdout` and `sys.stderr`."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):  # whatever it was, it is not the kernel's
                    stream.flush()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if null != 0:
            os.close(null)
        self._spool.attach()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = self._writer.streams  # type: ignore[misc]
        for thread in threading.enumerate():
            thread.__dict__[ROUTE] = None

    def begin(self, cell: str) -> None:
        """Let output from now on belong to this cell."""
        self._writer.begin_cell()
        with self._lock:
            spool = self._spool
            if spool.has_news():
                self._drain_spool(spool)  # written since the last cell: late output of that
            if spool.has_half:
                spool.finish_characters(self._emit)
            spool.cell = cell
            self.running = True
        if self._drainer is not None and self._drainer.asleep:
            self._drainer.poke()

    def end(self) -> CellOutput:
        """Bring everything the cell wrote into the journal, and return it; `settle` is to follow."""
        clib.flush_stdout()
        if self._writer.flooding is not None:
            self._writer.end_flood()
        self._writer.flush()
        with self._lock:
            spool = self._spool
            if spool.has_news():
                self._drain_spool(spool)
            if spool.has_half:
                spool.finish_characters(self._emit)
            self.running = False
            return self._take_output() if self._excerpts or self._lost else NO_OUTPUT

    def settle(self) -> None:
        """Give the next cell files of its own if the last one left processes or threads behind."""
        with self._lock:
            if self._late.spools:
                self._late.drain()
            routes = self._late.find_threads(self._spool)
            if self._has_forked() or routes:
                self._rotate(routes)

    def drain(self) -> None:
        """Bring what was written until now into the journal."""
        try:
            self.tick()
        finally:
            if self._due is not None and in_main_thread():
                due, self._due = self._due, None
                raise due

    def tick(self) -> bool:
        """Drain, release spools nobody writes to any more, and return whether there was anything."""
        clib.flush_stdout()
        before = self._journal.last_seq
        self._writer.calm()
        with self._lock:
            if self._spool.has_news():
                self._drain_spool(self._spool)
            if self._late.spools:
                self._late.release()
        return self._journal.last_seq != before

    def is_flooded(self) -> bool:
        """Tell whether printed lines wait in memory for the next tick."""
        return self._writer.flooding is not None

    def has_late(self) -> bool:
        """Tell whether output of earlier cells may still come."""
        return bool(self._late.spools)

    def listen(self, on_write: Callable[[], None] | None) -> None:
        """Have the next write of Python code call this, once; None ends that."""
        self._writer.on_write = on_write

    def start_drainer(self, followed: Callable[[], bool]) -> None:
        """Start the thread that drains while cells run; `followed` tells whether anybody waits for the output."""
        self._drainer = Drainer(self, followed)
        self._drainer.start()

    def poke(self) -> None:
        """Drain soon: a flood has begun."""
        if self._drainer is not None:
            self._drainer.poke()

    def expect(self) -> None:
        """Have the thread that prints the next line bring it to the journal: somebody waits for it."""
        if self._drainer is not None:
            self._drainer.expect()

    def hurry(self) -> None:
        """Drain now, or within 5 ms where that is done anyway: somebody waits for what comes next."""
        if self._drainer is not None:
            self._drainer.hurry()
        if not self.is_flooded():
            self.drain()

    def before_fork(self) -> None:
        """Write what is collected, before a child inherits and repeats it."""
        clib.flush_stdout()
        self._writer.flush()

    def abandon_in_child(self) -> None:
        """Leave journal and spools to the parent; what a forked child prints goes to the descriptors as they are."""
        self._lock = threading.RLock()
        self._drainer = None
        self.running = False
        self._journal.abandon_in_child()
        self._writer.abandon()
        self._spool.close()
        self._late.forget()
        os.close(self._positions_fd)

    def postpone(self, error: BaseException, frame: FrameType | None) -> bool:
        """For signal handlers: keep an exception from tearing a write or an event apart.

        Args:
            error: What the handler means to raise.
            frame: Where it found the main thread.

        Returns:
            Whether that is inside one; the handler must return then, and the exception is raised at its end.
        """
        found = None
        while frame is not None:
            if frame.f_code in _SHIELDED:
                found = frame.f_code  # of those that call each other the outermost counts
            frame = frame.f_back
        if found is None:
            return False
        self._due = error if found is Capture.drain.__code__ else None
        self._writer.due = error if found is Writer.commit.__code__ else None
        self._journal.due = error if found is Journal.append.__code__ else None
        return True

    def _drain_spool(self, spool: Spool) -> None:
        """Journal what is new in a spool; the lock is held."""
        emit = self._emit if spool is self._spool else functools.partial(self._emit_late, spool.cell)
        try:
            spool.read(emit, self._writer.lock)
        except OSError as error:
            self._journal.append(EventKind.GAP, spool.cell, reason=f"captured output cannot be read: {error}")
        for stream, lost_bytes, reason in spool.take_losses():
            self._journal.append(EventKind.GAP, spool.cell, stream=stream, lost_bytes=lost_bytes, reason=reason)
            self._lost = self._lost or (self.running and spool is self._spool)
        self._note_position(spool)

    def _lose_spool(self, spool: Spool) -> None:
        """Say that an earlier cell is not listened to any more; its processes may go on writing."""
        reason = "processes of too many earlier cells still write; what this cell's write from now on is not kept"
        self._journal.append(EventKind.GAP, spool.cell, reason=reason)

    def _emit(self, stream: str, text: str) -> None:
        """Take text from the current spool."""
        if not self.running:
            self._emit_late(self._spool.cell, stream, text)
            return
        self._journal.append(EventKind.OUTPUT, self._spool.cell, stream=stream, text=text, late=False)
        excerpt = self._excerpts.get(stream)
        if excerpt is None:
            excerpt = self._excerpts[stream] = Excerpt(self._reply_bytes)
        excerpt.add(text)

    def _emit_late(self, cell: str, stream: str, text: str) -> None:
        """Take text that came after its cell; before the first cell, text is nobody's and not late."""
        self._journal.append(EventKind.OUTPUT, cell, stream=stream, text=text, late=cell != "")

    def _take_output(self) -> CellOutput:
        out, err = (self._excerpts.get(stream) for stream in STREAMS)
        texts = [excerpt.text() if excerpt else "" for excerpt in (out, err)]
        cut = self._lost or any(excerpt.dropped for excerpt in self._excerpts.values())
        self._excerpts = {}
        self._lost = False
        return CellOutput(texts[0], texts[1], cut)

    def _has_forked(self) -> bool:
        """Tell whether a process was started since the last call, or one started earlier still lives."""
        usage = self._used_by_children()
        if usage != self._children:
            self._children = usage
            return True
        if not hasattr(os, "waitid"):
            return True  # the system does not say: each cell gets files of its own
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def _used_by_children(self) -> Any:
        return self._limits.getrusage(self._limits.RUSAGE_CHILDREN) if self._limits else None

    def _rotate(self, routes: list[Route]) -> None:
        """Give the next cell files of its own, for the last one left processes or threads behind."""
        old = self._spool
        fresh = self._late.take_spare()
        try:
            if fresh is None:
                fresh = Spool(self._directory, self._free_number(), self._journal.cap_bytes)
            with self._writer.lock:
                fresh.attach()
                self._writer.spool = self._spool = fresh
        except OSError:
            # No descriptor or no disk left: the next cell shares these files, and late output counts for it.
            if fresh is not None:
                fresh.close(delete=True)
            for route in routes:
                route.spool = None
            return
        fresh.cell = old.cell
        self._note_current()
        self._note_position(old)
        self._late.keep(old, routes)

    def _free_number(self) -> int:
        taken = self._late.numbers() | {self._spool.number}
        return next(number for number in itertools.count(1) if number not in taken)

    def _note_current(self) -> None:
        self._write_position(*journal_files.pack_position(0, self._spool.number, 0))
        self._note_position(self._spool)

    def _note_position(self, spool: Spool) -> None:
        """Tell whoever reads this directory after our death what the journal has already."""
        out, err = (side.journalled() for side in spool.sides)
        cell = "" if spool is self._spool else spool.cell
        self._write_position(*journal_files.pack_position(spool.number, out, err, cell))

    def _write_position(self, record: bytes, offset: int) -> None:
        with contextlib.suppress(OSError):  # a full disk: some output may be reported twice after our death
            systems.pwrite(self._positions_fd, record, offset)


_SHIELDED = frozenset({Capture.drain.__code__, Writer.commit.__code__, Journal.append.__code__})
