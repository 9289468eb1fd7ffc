"""Memory that large messages are received into: warm from the last one, where that is over. Runs in every process.

Pages of new memory cost the system as much as the copy out of the socket does.
"""

from __future__ import annotations

import contextlib
import mmap
import pickle
import threading

from pyrokernel.wire.spare import Block, keep_tidy, kept_bytes, ours

__all__ = ["own_memory"]

_KEPT_BLOCKS = 8


def own_memory(size: int) -> memoryview:
    """Return memory for so many bytes that no forked child shares; what is in it is to be written over.

    Raises:
        OSError: The system has no more.
    """
    if size > kept_bytes():
        return memoryview(_new(size))
    view = ours(_Blocks).view(size)
    keep_tidy()
    return view


def _new(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):  # where nobody forks
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without huge pages, which are there six times sooner
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class _Blocks:
    """What this process has received into."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # as in `spare`: the collector may run user code that receives something
        self._blocks: list[Block] = []

    def view(self, size: int) -> memoryview:
        """Return a view of so many bytes of a block that nobody uses."""
        with self._lock:
            for block in reversed(self._blocks):
                if size <= block.size <= 2 * size and block.claim():
                    break
            else:
                block = Block(_new(size))
                block.claim()
                self._blocks.append(block)
                self._shed()
            return block.view()[:size]

    def _shed(self) -> None:
        """Let go of the oldest, where there are too many; who still uses them keeps them."""
        while len(self._blocks) > _KEPT_BLOCKS or sum(block.size for block in self._blocks) > kept_bytes():
            del self._blocks[0]

    def tidy(self, idle_since: float) -> bool:
        """Let go of what was not used since a moment; say whether anything is left."""
        with self._lock:
            self._blocks = [block for block in self._blocks if block.busy or block.used > idle_since]
            return bool(self._blocks)


def flat(buffer: pickle.PickleBuffer) -> memoryview:
    """View a buffer as bytes, whatever its shape (raw() refuses only non-contiguous ones, which pickle copies).

    Of a view it is one of the same memory, not a view of that view: CPython 3.11 crashes when a garbage collection
    finds a cycle that leads to a view of a view, such as the traceback of an error by way of a request with large data.
    """
    view = buffer.raw()
    base = view.obj
    if type(base) is not memoryview or not base.c_contiguous:
        return view
    view.release()
    # A view beside it, of what it views: who releases theirs does not release ours.
    return base[:] if base.format == "B" and base.ndim == 1 else base.cast("B")
