"""Wait for a condition instead of for a time. Runs in the test process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_LOOKS = 30


def wait_until(predicate: Callable[[], object], timeout: float = 10) -> None:
    """Return as soon as `predicate()` is true; fail the test when it is not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause, looks = 0.001, 0
    while not predicate():
        looks += 1
        # Of a machine that stood still meanwhile, or had no time for this process, few looks say nothing.
        assert time.monotonic() < deadline or looks < _LOOKS, f"still waiting after {timeout:g} s for {predicate}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def is_alive(pid: int | str) -> bool:
    """Tell whether a process runs; one that has ended may still be listed, until its parent takes note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
