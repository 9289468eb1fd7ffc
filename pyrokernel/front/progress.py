"""How far a survey is, and for how long it has been at it. Runs in the caller's process."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Mapping
from typing import Self

from pyrokernel.front.terminal import is_terminal, say


class Progress:
    """Shows how far the kernels are and for how long they have been at it, until its block ends.

    At a terminal that is one line, painted anew as the seconds pass; elsewhere a line at the beginning and at each
    quarter.

    Args:
        label: Who is at work.
        total: Files to survey.
    """

    _STEP = 0.25
    _TICK_SECONDS = 0.5

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._live = is_terminal(sys.stdout)
        self._begun = time.monotonic()
        self._counts: Mapping[str, tuple[int, int]] = {}
        self._next = self._STEP
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="demo-progress", daemon=True)

    def __enter__(self) -> Self:
        self._show()
        if self._live:
            self._ticker.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._live:
            self._ticker.join()
            self._show()
            sys.stdout.write("\n")

    def __call__(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """Take the present state, (done, total) by kernel name."""
        with self._lock:
            self._counts = dict(counts)
        share = self._done / max(1, self._total)
        if self._live or share >= self._next:
            self._next = share - share % self._STEP + self._STEP
            self._show()

    @property
    def _done(self) -> int:
        return sum(done for done, _ in self._counts.values())

    def _tick(self) -> None:
        while not self._over.wait(self._TICK_SECONDS):
            self._show()

    def _show(self) -> None:
        with self._lock:
            each = "  ".join(f"{name} {100 * have // max(1, of)}%" for name, (have, of) in self._counts.items())
            elapsed = time.monotonic() - self._begun
            what = each or "begins"
            if self._done == self._total:
                what = "done"
            line = f"{self._label:<12} {self._done:>5,} of {self._total:,} files {elapsed:5.1f} s   {what}"
            if not self._live:
                say(line)
                return
            # A line that wraps could not be painted over.
            sys.stdout.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            sys.stdout.flush()
