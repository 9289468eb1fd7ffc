"""The thread that reads captured output into the journal while a cell runs. Runs in the kernel process.

It never wakes while the kernel is idle: after the last cell it looks a few times more,
so that a series of short cells need not wake it each time, and then sleeps until poked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from pyrokernel.journal import in_main_thread

FOLLOWED_SECONDS = 0.005
UNFOLLOWED_SECONDS = 0.25
"""Each look takes a processor, and so do those of all other kernels of the machine; a follower who comes pokes."""

LATE_FOLLOWED_SECONDS = 0.02
LATE_SECONDS = 1.0
LINGER_SECONDS = 0.5


class Drainable(Protocol):
    """What the drain thread looks at; `Capture` is one."""

    running: bool

    def tick(self) -> bool:
        """Drain, and return whether there was anything."""

    def drain(self) -> None:
        """Drain, from the main thread too, where signals arrive."""

    def is_flooded(self) -> bool:
        """Tell whether printed lines wait in memory for the next tick."""

    def has_late(self) -> bool:
        """Tell whether output of earlier cells may still come."""

    def listen(self, on_write: Callable[[], None] | None) -> None:
        """Have the next write of Python code call this, once; None ends that."""


class Drainer(threading.Thread):
    """Ticks at the pace that is needed.

    Args:
        capture: What to drain.
        followed: Tells whether anybody follows the journal now.
    """

    def __init__(self, capture: Drainable, followed: Callable[[], bool]) -> None:
        super().__init__(name="pyrokernel-drain", daemon=True)
        self.asleep = False
        self._far = True
        self._brought = 0.0
        self._capture = capture
        self._followed = followed
        self._bell = threading.Lock()  # released to wake the thread: half the price of an Event
        self._bell.acquire()

    def poke(self) -> None:
        """Wake the thread at once."""
        if self._bell.locked():
            try:
                self._bell.release()
            except RuntimeError:
                return  # another thread was quicker

    def _bring(self) -> None:
        """Take the first line to the journal, in the thread that has just written it.

        A cell that computes lets go of the interpreter every half millisecond; waking this thread takes several turns.
        """
        self._capture.listen(None)
        self._brought = time.monotonic()
        if in_main_thread():
            self._capture.drain()
        else:
            self.poke()

    def expect(self) -> None:
        """Have the next line brought at once: somebody waits for it.

        Not those that follow at once, for whoever reads fast waits again before each. They are collected until the next
        tick, which is near then: to bring one takes much longer than to print it.
        """
        if time.monotonic() - self._brought >= FOLLOWED_SECONDS:
            self._capture.listen(self._bring)

    def hurry(self) -> None:
        """Tick at once unless the next tick is near anyway: a follower who reads fast must not set the pace.

        In a flood each tick takes the interpreter from the cell that prints.
        """
        if self._far:
            self.poke()

    def run(self) -> None:
        """Tick until the process ends."""
        quiet = 0.0
        while True:
            found = self._capture.tick()
            self._far = True  # so that who begins to follow from here on pokes
            followed = self._followed()
            if self._capture.running or found:
                quiet = 0.0
            pause = self._pause(followed, quiet)
            if pause is None:
                self.asleep = True
                # A cell that began before it could see `asleep` did not poke.
                if self._capture.running:
                    self.asleep = False
                    continue
            self._far = pause is None or pause > FOLLOWED_SECONDS
            # Somebody waits for the first line: it need not wait for the tick. After that, lines are collected.
            first = self._bring if followed and not found else None
            self._capture.listen(self.poke if self.asleep else first)
            self._bell.acquire(timeout=-1 if pause is None else pause)
            self._capture.listen(None)
            self.asleep = False
            quiet += pause or 0.0

    def _pause(self, followed: bool, quiet: float) -> float | None:
        """Return the seconds until the next tick, None for never."""
        if self._capture.running or quiet < LINGER_SECONDS:
            return FOLLOWED_SECONDS if followed or self._capture.is_flooded() else UNFOLLOWED_SECONDS
        if self._capture.has_late():
            return LATE_FOLLOWED_SECONDS if followed else LATE_SECONDS
        return None
