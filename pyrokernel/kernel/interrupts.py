"""Interrupting the running cell, and no other. Runs in the kernel process.

Things that do not work, and why this is as it is: `signal.raise_signal` and
`PyThreadState_SetAsyncExc` from another thread never wake a `time.sleep`; a signal to the
main thread alone leaves the child of `os.system` running, and while `os.system` waits, the
parent ignores SIGINT altogether. So the whole process group is signalled, and the main
thread again and again until its handler has run. The handler raises only if the cell that
was meant is still the one that runs. A cell that has begun, and whose code has not, is not
signalled: it raises the interrupt itself, before that.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of `signal`
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

# Those of the C module: `handlers` replaces the others, which look up names of signals at each call.
_set_handler, _get_handler = _signal.signal, _signal.getsignal
_SIGINT = int(signal.SIGINT)

_FIRST_LOOK_SECONDS = 0.0005
_REPEAT_SECONDS = 0.005


class Interrupts:
    """Delivers KeyboardInterrupt to the main thread while a cell runs.

    Args:
        request_file: Where the host names the cell it means before it sends SIGINT itself,
            which it does when this process cannot answer.
        begun: Tells the id of the cell that has begun, also before and after its code runs; "" for none.
        postpone: Is asked, with the exception and the interrupted frame, whether it will raise the exception
            itself a moment later, because its own state would be left half changed.
    """

    def __init__(
        self, request_file: Path, begun: Callable[[], str], postpone: Callable[[BaseException, FrameType | None], bool]
    ) -> None:
        self._request_file = request_file
        self._begun = begun
        self._postpone = postpone
        self._running = ""
        self._over = ""
        self._armed = False
        self._wanted = ""
        # Not an Event: the handler would wait for itself on its lock when a second signal interrupts it there.
        self._raised = False
        self._insisting: list[str] = []
        self._one_at_a_time = threading.Lock()
        self._task: asyncio.Task[Any] | None = None

    @property
    def running(self) -> str:
        """Id of the cell whose code runs, or is about to; "" for none."""
        running = self._running
        if not running:
            running = self._begun()
            if running == self._over:  # read last: its code may have come and gone since
                return ""
        return running

    @property
    def armed(self) -> bool:
        """Whether user code runs."""
        return self._armed

    def install(self) -> None:
        """Take SIGINT, unless it is already ours; pdb and some C libraries replace the handler."""
        if _get_handler(_SIGINT) != self._handle:
            _set_handler(_SIGINT, self._handle)

    def arm(self, cell: str) -> None:
        """From now on user code of this cell runs, and may be interrupted."""
        self.install()
        self._running = cell
        self._armed = True

    def settle(self) -> None:
        """Raise an interrupt that was asked for before the code of a cell, or in it but did not get through.

        `os.system` ignores SIGINT while its child, which does not, ends; the code after it
        may be over before the next signal.
        """
        if self._wanted and self._wanted == self._running:
            self._wanted = ""
            self._raised = True
            raise KeyboardInterrupt

    def disarm(self) -> None:
        """User code has ended; a late signal is ignored."""
        self._armed = False
        self._over = self._running or self._over
        self._running = ""
        self._wanted = ""

    def watch_task(self, task: asyncio.Task[Any] | None) -> None:
        """Interrupt by cancelling this task while the event loop waits; None ends that."""
        self._task = task

    def interrupt(self, cell: str, wait: float) -> str:
        """Interrupt a cell from another thread and say what became of it.

        Args:
            cell: Id of the cell that is meant; "" for whichever runs.
            wait: Seconds to insist, and then to wait for the end of the cell.

        Returns:
            "interrupted" when the cell ended, "caught" when KeyboardInterrupt was raised in it and it goes
            on all the same, "not running", or "unanswered" when the main thread did not react: it is
            inside a C call.
        """
        target = self.running
        if not target or (cell and cell != target):
            return "not running"
        deadline = time.monotonic() + wait
        if not self._one_at_a_time.acquire(timeout=wait):
            return "unanswered"  # to another one either, which has insisted all the while
        self._insisting.append(target)
        try:
            try:
                outcome = self._insist(target, deadline)
            finally:
                self._one_at_a_time.release()
            return self._await_end(target, deadline) if outcome == "caught" else outcome
        finally:
            self._insisting.remove(target)

    def _insist(self, target: str, deadline: float) -> str:
        """Signal until the handler has raised, the cell is over, or the time is up."""
        if self.running != target:
            return "not running"  # the one before us has ended it
        self._raised = False
        self._wanted = target
        # This is looked at second, `arm` and `settle` look in the opposite order: one of the two finds the other.
        if self._running == target:
            self._signal_group()
        pause = _FIRST_LOOK_SECONDS
        while True:
            time.sleep(pause)
            ended = self.running != target
            if self._raised:  # looked at last: it may have been raised and have ended the cell just now
                return "caught"
            if ended:
                self._wanted = ""
                return "not running"
            if time.monotonic() > deadline:
                return "unanswered"
            if self._running == target:
                _signal_main()
            pause = _REPEAT_SECONDS

    def _await_end(self, target: str, deadline: float) -> str:
        """Wait for the end of a cell in which the exception was raised: it may clean up, or go on."""
        pause = _FIRST_LOOK_SECONDS
        while self._running == target:
            if time.monotonic() > deadline:
                return "caught"
            time.sleep(pause)
            pause = min(2 * pause, _REPEAT_SECONDS)
        return "interrupted"

    def _signal_group(self) -> None:
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGINT)
        else:  # not the leader: the group holds processes that are not ours to signal
            _signal_main()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self._armed:
            return
        running = self._running
        # Another cell may have been meant that ended without running any code.
        wanted = running if running and self._wanted == running else self._wanted_by_host()
        if not wanted and self._insisting:
            return  # one of our own that came after the one that raised: let the cell clean up
        if wanted and wanted != running:
            return
        self._wanted = ""
        self._raised = True
        task = self._task
        if task is not None and not task.done():
            import asyncio

            loop = task.get_loop()
            if asyncio.current_task(loop) is None:  # the loop waits: nothing is running that could be raised in
                task.cancel()
                loop.call_soon_threadsafe(lambda: None)  # wakes the selector
                return
        interrupt = KeyboardInterrupt()
        if not self._postpone(interrupt, frame):
            raise interrupt

    def _wanted_by_host(self) -> str:
        """Return the cell the host named, "" if the signal came from elsewhere (`kill -INT`)."""
        with contextlib.suppress(OSError):
            text = self._request_file.read_text().strip()
            self._request_file.unlink()
            return text
        return ""


def _signal_main() -> None:
    """Interrupt the main thread."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(_main_ident(), signal.SIGINT)
    else:  # there a handler that runs in any thread wakes the main thread from its sleep
        signal.raise_signal(signal.SIGINT)


def _main_ident() -> int:
    ident = threading.main_thread().ident
    assert ident is not None
    return ident
