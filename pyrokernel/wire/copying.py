"""Copying large data within a process, with two threads where that is quicker. Runs in every process.

Only NumPy copies without holding the interpreter. One processor does not use all that memory can do, so a second thread
helps with what is large. Both draw the next step from one iterator: a helper that gets no processor costs nothing, and
one that comes late finds nothing to do.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

__all__ = ["STEP_BYTES", "copy_into"]

STEP_BYTES = 64 << 20
"""Copied at a time, so that Ctrl-C is heard in between."""

_HELD_STEP_BYTES = 4 << 20
"""As much where copying holds the interpreter."""

_HELPED_BYTES = 16 << 20
"""From here on a thread is worth its start, a tenth of a millisecond."""

_HELPED_STEP_BYTES = 8 << 20
"""As much where two threads copy, so that one does not wait long for the other."""


def copy_into(target: memoryview, source: memoryview, keep: object) -> None:
    """Copy as quickly as this process can, and let other threads run meanwhile where that is possible.

    Args:
        target, source: Of the same size.
        keep: What keeps others from using the target: held by a helper that Ctrl-C, at the wrong moment, has left to
            the end of its step.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        for begin in range(0, len(source), _HELD_STEP_BYTES):
            target[begin : begin + _HELD_STEP_BYTES] = source[begin : begin + _HELD_STEP_BYTES]
        return
    to, of = numpy.frombuffer(target, numpy.uint8), numpy.frombuffer(source, numpy.uint8)
    helped = len(source) >= _HELPED_BYTES and _processors() > 1
    size = _HELPED_STEP_BYTES if helped else STEP_BYTES
    steps = iter(range(0, len(source), size))

    def copy() -> None:
        for begin in steps:
            numpy.copyto(to[begin : begin + size], of[begin : begin + size])

    if helped:
        _share(copy, steps, keep)
    else:
        copy()


def _share(work: Callable[[], None], steps: Iterator[int], keep: object) -> None:
    """Do what draws its steps from an iterator with a second thread, where one can be had; none is left of it then.

    Args:
        work: Done by both, until there are no more steps.
        steps: Each goes to one of them.
        keep: As `copy_into`.
    """
    working = threading.Lock()
    failures: list[BaseException] = []

    def help_out() -> None:
        with working:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  whatever it is, the step is not done: the caller raises it
                failures.append(error)

    # A thread holds its arguments until it ends.
    helper = threading.Thread(target=lambda _: help_out(), args=(keep,), name="pyrokernel-copy", daemon=True)
    try:
        with contextlib.suppress(RuntimeError):  # no thread is to be had
            helper.start()
        work()
    finally:
        collections.deque(steps, maxlen=0)  # after Ctrl-C there are some
        _wait_for(working)
        if helper.is_alive():
            helper.join()
    if failures:
        raise failures[0]


def _wait_for(working: threading.Lock) -> None:
    """Wait for the end of the step that a helper has begun, also when Ctrl-C comes once more."""
    try:
        with working:
            return
    except BaseException:
        _wait_for(working)
        raise


def _processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
