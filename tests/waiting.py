"""Wait for a condition instead of for a time. Runs in the test process."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(predicate: Callable[[], object], timeout: float = 10) -> None:
    """Return as soon as `predicate()` is true; fail the test when it is not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.001
    while not predicate():
        assert time.monotonic() < deadline, f"still waiting after {timeout:g} s for {predicate}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
