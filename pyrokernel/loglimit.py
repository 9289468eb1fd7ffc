"""What somebody else can cause again and again is logged a few times a second. Runs in every process that is called."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

__all__ = ["LogLimit"]


class LogLimit:
    """Passes on a few records a second, and of the others their number; for any thread.

    Args:
        log: Where they go.
        what: How the others are called: "%d more connections were refused".
        most: So many a second.
        clock: Monotonic seconds.
    """

    def __init__(
        self, log: logging.Logger, what: str, *, most: int = 5, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._what, self._most, self._clock = log, what, most, clock
        self._lock = threading.Lock()
        self._second, self._count = 0, 0

    def warning(self, text: str, *args: object, exc_info: bool = False) -> None:
        """Log a warning, unless there were many in this second; what takes time to say is a function among `args`."""
        self.settle()
        with self._lock:
            self._count += 1
            is_shown = self._count <= self._most
        if is_shown:
            self._log.warning(text, *(one() if callable(one) else one for one in args), exc_info=exc_info)

    def settle(self) -> None:
        """Say how many of an earlier second were left out, if that is over."""
        with self._lock:
            second = int(self._clock())
            if second == self._second:
                return
            left_out = self._count - self._most
            self._second, self._count = second, 0
        if left_out > 0:
            self._log.warning(self._what, left_out)
