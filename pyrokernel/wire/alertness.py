"""When it pays to wait for a message without going to sleep. Runs in every process.

To be woken takes the system as long as several requests take (a ping-pong over a unix socket: 45 to 68 us asleep,
7 us awake on both sides). So whoever expects a message in a moment looks for it that long. Where that is in vain,
because many share the processors or the other side is slow, it is given up for ever longer: then to sleep is right.

It does not yield the processor between two looks: on a busy machine it would get it back milliseconds later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ALERT_SECONDS = 0.0002
"""How long a message is looked for."""

HEED_SECONDS = 1.0
"""The longest sleep of whoever waits for a message. Python looks for Ctrl-C before a system call and after it: one that
falls in between ends no sleep, and would be heeded only when the other side has something to say."""

_MAX_RESTS = 256


class Alertness:
    """Whether to look for the next message without going to sleep."""

    __slots__ = ("_failures", "_rests")

    def __init__(self) -> None:
        self._failures = self._rests = 0

    def look_out(self, look: Callable[[], list[T]]) -> list[T]:
        """Look again and again for a moment, if that is due; return the first that is found, or nothing."""
        if self.is_due():
            until = time.perf_counter() + ALERT_SECONDS
            while time.perf_counter() < until:
                found = look()
                if found:
                    self.paid()
                    return found
            self.failed()
        return []

    def is_due(self) -> bool:
        """Tell whether to look this time."""
        if self._rests:
            self._rests -= 1
            return False
        return True

    def paid(self) -> None:
        """Note that a message came while it was looked for."""
        self._failures = 0

    def failed(self) -> None:
        """Note that none came; the next looks are left out, more of them each time."""
        self._failures += 1
        self._rests = min(2**self._failures, _MAX_RESTS)
