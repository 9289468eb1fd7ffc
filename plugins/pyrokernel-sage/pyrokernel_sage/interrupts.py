"""Interrupts that reach long computations of Sage, and end only the cell that was meant. Runs in the kernel process.

Sage's C code is interrupted by cysignals, which takes SIGINT when it is imported. Things that do
not work: a kernel that takes SIGINT back with `signal.signal` replaces the handler of cysignals in
C too, and a factorization can then be ended only by killing the kernel. Leaving everything to
cysignals would let a signal that comes late end the next cell. So the handler in C stays that of
cysignals, and the one in Python stays the kernel's, which knows which cell is meant. A signal
outside of C code is noted by cysignals and raised at the next entry of any; the note is cleared.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # in `signal` a kernel replaces what sets handlers
import contextlib
import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from pyrokernel.messages import HABIT

_SIGACTION_BYTES = 1024
"""Above the size of `struct sigaction` everywhere; it is copied, never looked into."""


class Handler:
    """The kernel's handler of SIGINT, which clears what cysignals has noted before.

    It is equal to the one it stands for: the kernel takes back the signal from any other.

    Args:
        inner: The kernel's own.
        noted: Raises what cysignals has noted, and forgets it.
    """

    def __init__(self, inner: Callable[[int, FrameType | None], Any], noted: Callable[[int, None], Any]) -> None:
        self.inner = inner
        self._noted = noted

    def __eq__(self, other: object) -> bool:
        return bool(self.inner == (other.inner if isinstance(other, Handler) else other))

    def __hash__(self) -> int:
        return hash(self.inner)

    def __call__(self, signum: int, frame: FrameType | None) -> Any:
        """Handle the signal as the kernel does, when nothing of it is left in cysignals."""
        try:
            self._noted(signum, None)
        except KeyboardInterrupt as error:
            if type(error) is not KeyboardInterrupt:  # AlarmInterrupt: `alarm(3)` of cysignals comes this way too
                if getattr(getattr(self.inner, "__self__", None), "armed", True):
                    raise
                return None  # the cell that set it is over
        return self.inner(signum, frame)


# Tracebacks of cells leave out the frames of habits, and so this one, which would end each KeyboardInterrupt.
Handler.__call__.__code__ = Handler.__call__.__code__.replace(co_filename=HABIT)


def keep() -> None:
    """Make interrupts work beside cysignals, if that is imported; for the main thread, as often as one likes."""
    cysignals = sys.modules.get("cysignals.signals")
    present = _signal.getsignal(signal.SIGINT)
    if cysignals is None or isinstance(present, Handler) or not callable(present):
        return
    cysignals.init_cysignals()
    library, action = ctypes.CDLL(None), ctypes.create_string_buffer(_SIGACTION_BYTES)
    library.sigaction(int(signal.SIGINT), None, action)
    _signal.signal(signal.SIGINT, Handler(present, cysignals.python_check_interrupt))
    library.sigaction(int(signal.SIGINT), action, None)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let Sage be imported, and have SIGINT in Python as before afterwards; `keep` follows in the kernel.

    Raises:
        RuntimeError: This is not the main thread. cysignals sets a handler there and nowhere else, and PARI,
            once it was initialized by one thread, crashes in any other.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("Sage can be imported in the main thread of a kernel only; preload it: preload = true")
    before = _signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if before is not None:
            _signal.signal(signal.SIGINT, before)
