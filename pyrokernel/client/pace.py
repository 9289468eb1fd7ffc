"""Pace: how long the calls of a job take, as measured, and how many make a good chunk. Runs in the caller's process."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from pyrokernel.wire.codec import Packed

CHUNK_SECONDS = 0.03
"""How long a chunk is to take: a hundred times what a request costs, and soon enough for whoever waits for results."""

_LEAST_SECONDS = 0.0003
"""Less is not worth a request: it costs a kernel about as much."""

CHUNK_BYTES = 8 * 1024 * 1024
"""A chunk of more is not made, and its results should not be more: they wait in memory until all of it is there."""

_AHEAD = 2
"""Chunks sent to a kernel at a time: it finds the next one waiting when it ends one."""

_MOST_AHEAD = 64
_AHEAD_SECONDS = 0.003
"""Chunks of fixed size that are over sooner are sent ahead for as long."""

_FADE = 0.5
"""What was measured before counts for so much when something new is."""


_REMEMBERED = 64
_KEY_BYTES = 4096


class Paces:
    """Remembers the measures of the functions that were mapped last: another job of one begins with good chunks."""

    def __init__(self) -> None:
        self._known: dict[str | bytes, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def pace(self, function: str | Packed, chunk: int | None) -> Pace:
        """Return the pace of a new job."""
        with self._lock:
            return Pace(chunk, self._known.get(_key(function)))

    def note(self, function: str | Packed, pace: Pace) -> None:
        """Remember what a job has measured."""
        key = _key(function)
        if key and pace.measured:
            with self._lock:
                self._known.pop(key, None)
                self._known[key] = pace.known
                while len(self._known) > _REMEMBERED:
                    del self._known[next(iter(self._known))]


def _key(function: str | Packed) -> str | bytes:
    """Return what tells a function from others, "" where that is much: then it is not remembered."""
    if isinstance(function, str):
        return function
    data = function.data
    return data if isinstance(data, bytes) and not function.buffers and len(data) <= _KEY_BYTES else ""


class Pace:
    """Measures of a job, of each kernel and of all together.

    Args:
        chunk: Items in each chunk; None lets the measures decide.
        before: What `known` was at the end of an earlier job of the same kind; None where there was none.
    """

    def __init__(self, chunk: int | None, before: tuple[float, float] | None = None) -> None:
        self._chunk = chunk
        self._seconds: dict[Hashable, float] = {}
        self._usual, self._bytes = before or (-1.0, 0.0)
        self._items = 0

    @property
    def known(self) -> tuple[float, float]:
        """Seconds and bytes of an item; less than 0 seconds while nobody knows."""
        return self._usual, self._bytes

    @property
    def measured(self) -> bool:
        """Whether anything was."""
        return self._usual >= 0

    def note(self, kernel: Hashable, items: int, seconds: float, size_bytes: int) -> None:
        """Take a measure: of so many items, the time they took and the bytes they or their results were."""
        each = seconds / items
        # Many items say more than few did: the first one alone may have imported a library.
        weight = max(_FADE, items / (items + self._items))
        known = self._seconds.get(kernel, self._usual)
        self._seconds[kernel] = each if known < 0 else known + (each - known) * weight
        self._usual = each if self._usual < 0 else self._usual + (each - self._usual) * weight
        self._bytes = max(size_bytes / items, self._bytes * _FADE)
        self._items = items

    def seconds(self, kernel: Hashable, items: int) -> float:
        """Return how long so many items are expected to take; 0 while nobody knows."""
        return items * max(0.0, self._seconds.get(kernel, self._usual))

    def size(self, kernel: Hashable, share: int, left: int) -> int:
        """Return how many items to send to a kernel next.

        Args:
            kernel: Which.
            share: Most that it may have, for others are to have as many.
            left: How many are left for all.
        """
        if self._chunk is not None:
            return self._chunk
        each = self._seconds.get(kernel, self._usual)
        if each < 0:
            return 1
        if each * share > CHUNK_SECONDS:
            size = int(CHUNK_SECONDS / each)
        elif each * share >= _LEAST_SECONDS or share < 1:
            size = share
        else:  # for so little fewer kernels are quicker
            size = share = -(-left // max(1, round(each * left / _LEAST_SECONDS)))
        if self._bytes * size > CHUNK_BYTES:
            size = int(CHUNK_BYTES / self._bytes)
        return max(1, min(size, share))

    def ahead(self, kernel: Hashable) -> int:
        """Return how many chunks a kernel is to have at a time."""
        if self._usual < 0:
            return 1 if self._chunk is None else _AHEAD
        if self._chunk is None or self._bytes * self._chunk * _MOST_AHEAD > CHUNK_BYTES:
            return _AHEAD
        each = self._seconds.get(kernel, self._usual) * self._chunk
        return _MOST_AHEAD if each * _MOST_AHEAD <= _AHEAD_SECONDS else max(_AHEAD, int(_AHEAD_SECONDS / each))
