"""What a process keeps for next time, and gives back to the system when that does not come. Runs in every process."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pyrokernel import systems

__all__ = ["KEPT_NUMBER", "Block", "Kept", "keep_tidy", "kept_bytes", "ours", "tidy", "tidy_soon"]

IDLE_SECONDS = 30.0
"""What was not used for so long is given back."""

KEPT_NUMBER = 64
_KEPT_SHARE = 8
"""A process keeps at most this part of the memory that it may have."""
_KEPT_UNASKED_BYTES = 256 << 20
"""So much where the system does not say how much that is."""


class Kept(Protocol):
    """Something that is kept; made once in each process, and anew in a forked child."""

    def __init__(self) -> None: ...

    def tidy(self, idle_since: float) -> bool:
        """Give back what was not used since a monotonic moment; say whether anything is left."""
        ...


class Block:
    """Memory that is mapped, and free when the view that was given out and all views of that have gone.

    Attributes:
        memory: The map itself.
        size: Bytes of it.
        uses: How often one was given out; counts a use only when `busy` says so already.
        used: Monotonic moment when one was.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.size = len(memory)
        self._free = threading.Lock()  # taken and tested in one step, as the collector may run user code between two
        self.uses = 0
        self.used = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a view is in use."""
        return self._free.locked()

    def claim(self) -> bool:
        """Take it for a view that is to follow; False where somebody has it."""
        return self._free.acquire(blocking=False)

    def view(self, at_end: Callable[[], None] = lambda: None) -> memoryview:
        """Return all of it, which was claimed; `at_end` is called when nothing uses that any more, on any thread."""
        import ctypes  # 10 ms, and only where something large comes

        # An object that can say when it goes, as a memoryview or an mmap cannot.
        shown = (ctypes.c_ubyte * self.size).from_buffer(self.memory)
        weakref.finalize(shown, self._end_use, at_end).atexit = False
        self.uses += 1
        return memoryview(shown).cast("B")

    def address(self) -> int:
        """Return where it lies in this process."""
        import ctypes

        return ctypes.addressof(ctypes.c_ubyte.from_buffer(self.memory))

    def _end_use(self, at_end: Callable[[], None]) -> None:
        # No lock may be taken here: this thread may have it.
        at_end()
        self.used = time.monotonic()
        self._free.release()


KeptType = TypeVar("KeptType", bound=Kept)


class _Process:
    """What this process keeps."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.guard = threading.RLock()  # user code that the collector runs may ask for something meanwhile
        self.kept: dict[type, Any] = {}
        self.tidies = False
        self.bell = threading.Lock()  # released to have what is kept looked at before its time
        self.bell.acquire()

    def tidy(self, idle_since: float) -> bool:
        left = [kept.tidy(idle_since) for kept in list(self.kept.values())]
        return any(left)


_process: _Process | None = None


def _ours() -> _Process:
    global _process
    found = _process
    if found is None or found.pid != os.getpid():
        # The locks of the parent may be held for ever by threads that exist only there.
        found = _process = _Process()
    return found


def ours(kind: type[KeptType]) -> KeptType:
    """Return this process's one object of a class."""
    kept = _ours().kept
    found: KeptType | None = kept.get(kind)
    return kept.setdefault(kind, kind()) if found is None else found


def tidy(idle_since: float) -> bool:
    """Give back what was not used since a monotonic moment; say whether anything is left."""
    return _ours().tidy(idle_since)


def keep_tidy() -> None:
    """See to it that what is not used goes, also when nobody in this process asks for anything again."""
    process = _ours()
    with process.guard:
        if not process.tidies:
            # No thread can be had at the end of the interpreter, or at all: then what is kept stays.
            process.tidies = True
            try:
                threading.Thread(target=_tidy_up, args=(process,), name="pyrokernel-spare", daemon=True).start()
            except RuntimeError:
                process.tidies = False


def tidy_soon() -> None:
    """Have the thread that keeps things tidy look at them now; takes no lock (any thread, at any moment)."""
    process = _process
    if process is not None:
        with contextlib.suppress(RuntimeError):  # it was told already
            process.bell.release()


@functools.cache
def kept_bytes() -> int:
    """Return how much of each kind may be kept."""
    resource = systems.limits()
    if resource is None or not hasattr(os, "sysconf"):
        return _KEPT_UNASKED_BYTES
    limits = [os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE]
    for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limits += [limit for limit in resource.getrlimit(which) if limit != resource.RLIM_INFINITY]
    with contextlib.suppress(OSError, ValueError):  # no group with a limit of its own
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits) // _KEPT_SHARE


def _tidy_up(process: _Process) -> None:
    while True:
        process.bell.acquire(timeout=IDLE_SECONDS / 2)
        # Without the guard, which all wait for who ask for something: looking takes its time.
        if process.tidy(time.monotonic() - IDLE_SECONDS):
            continue
        with process.guard:
            if not process.tidy(time.monotonic() - IDLE_SECONDS):
                process.tidies = False
                return
