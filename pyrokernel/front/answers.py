"""Answers to input() in a cell: from the person at the terminal, or the lines of standard input.

Runs in the caller's process.
"""

from __future__ import annotations

import getpass
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pyrokernel.front.terminal import has_person


class OutOfTimeError(Exception):
    """The deadline passed before there was an answer."""


def can_answer(*, stdin_is_code: bool) -> bool:
    """Tell whether standard input has answers to give."""
    return sys.stdin is not None and not stdin_is_code


def next_answer(prompt: str, *, password: bool, quiet: bool, deadline: float | None) -> str | None:
    """Return one answer, None at the end of the input.

    Args:
        prompt: What input() was given.
        password: A person must not see it typed.
        quiet: Standard output is for a program: the prompt goes to standard error.
        deadline: Moment of the monotonic clock.

    Raises:
        OutOfTimeError: The deadline passed.
        KeyboardInterrupt: Ctrl-C.
    """
    with _until(deadline):
        if has_person() and password:
            try:
                return getpass.getpass(prompt)
            except EOFError:
                return None
        out = sys.stderr if quiet else sys.stdout
        if has_person() and not quiet:
            try:
                return input(prompt)  # which edits the line
            except EOFError:
                print()
                return None
        out.write(prompt)
        out.flush()
        line = sys.stdin.readline()
        return line.removesuffix("\n") if line else None


@contextmanager
def _until(deadline: float | None) -> Iterator[None]:
    """Raise `OutOfTimeError` at a moment: nothing else ends a read that waits for a person."""
    if deadline is None:
        yield
        return

    if not hasattr(signal, "setitimer"):
        with _interrupted_at(deadline):
            yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, deadline - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _interrupted_at(deadline: float) -> Iterator[None]:
    """As `_until`, where there are no signals that come by the clock: by what Ctrl-C does."""
    rung = threading.Event()

    def ring() -> None:
        rung.set()
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(max(0.001, deadline - time.monotonic()), ring)
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        if rung.is_set():
            raise OutOfTimeError from None
        raise
    finally:
        timer.cancel()
