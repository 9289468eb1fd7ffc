"""The values of a generator on their way to whoever reads them one by one. Runs in the kernel process.

The generator waits while too much of what it yielded is unread, so a slow reader costs bounded
memory; and it ends when nobody has read for a while, so that a reader that left does not hold up
the kernel.
"""

from __future__ import annotations

import collections
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from pyrokernel.errors import ResultExpiredError
from pyrokernel.kernel.results import pack_value
from pyrokernel.wire.codec import Packed

MAX_UNREAD = 1000
MAX_UNREAD_BYTES = 64 * 1024 * 1024
READER_SECONDS = 60.0
"""A reader that asks less often than this has left."""
GONE_SECONDS = 5.0
"""So has one whose connection has ended and that does not come back by another one in this time."""


class Yields:
    """Values between the generator, in one thread, and its reader, in another.

    Args:
        max_bytes: The largest value that travels.
        pauses: Where too much is unread, end the cell instead of holding it up; its client goes on with another.
        data: The reader loads plain data and arrays only.

    Attributes:
        paused: Whether the cell ended although there may be more.
    """

    def __init__(self, max_bytes: int, *, pauses: bool = False, data: bool = False) -> None:
        self._max_bytes, self._pauses, self._data = max_bytes, pauses, data
        self.paused = False
        # The lock is entered, and not the condition: that is Python code, in which an interrupt of the generator could
        # be raised with the lock taken, and never given back.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._values: collections.deque[tuple[int, Any]] = collections.deque()
        self._count = 0
        self._bytes = 0
        self._asked = time.monotonic()
        self._left = False
        self._reader: socket.socket | None = None

    def leave(self) -> None:
        """Give up what was yielded: nobody will read it. The generator ends when it yields next."""
        with self._lock:
            self._left = True
            self._values.clear()
            self._bytes = 0
            self._changed.notify_all()

    def pause(self) -> None:
        """End the cell at the next value, which is kept; does nothing where the cell is not one that pauses."""
        self.paused = self._pauses

    def put(self, value: Any) -> bool:
        """Hand over a value; wait while too many are unread. Say whether to go on.

        Raises:
            ResultExpiredError: Nobody reads any more; the generator ends with this.
        """
        packed, missing = pack_value(value, max_bytes=self._max_bytes, plain=False, data=self._data)
        entry = {"missing": missing} if missing else packed
        with self._lock:
            self._count += 1
            self._values.append((self._count, entry))
            self._bytes += _size(entry)
            self._changed.notify_all()
            while self._left or len(self._values) >= MAX_UNREAD or self._bytes > MAX_UNREAD_BYTES:
                if self._pauses and not self._left:
                    self.paused = True
                    break
                if self._left:
                    raise ResultExpiredError("whoever read what this yields has left; it ends")
                gone = self._reader is not None and self._reader.fileno() < 0
                patience = GONE_SECONDS if gone else READER_SECONDS
                left = self._asked + patience - time.monotonic()
                if left <= 0:
                    raise ResultExpiredError(f"nobody has read what this yields for {patience:g} s; it ends")
                self._changed.wait(min(left, GONE_SECONDS / 5))
            return not self.paused

    def take(
        self, after: int, timeout: float, ended: Callable[[], bool], reader: socket.socket | None = None
    ) -> dict[str, Any]:
        """Return the values after a number, which frees those up to it; wait for the first.

        Args:
            after: How many the reader has.
            timeout: Seconds.
            ended: Tells whether the cell has ended.
            reader: The connection that asks.

        Returns:
            `values`, the number `next` to ask with, `ended`: whether no more will come, and `paused`: then the
            iterator goes on with another cell.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._asked, self._reader = time.monotonic(), reader
            while self._values and self._values[0][0] <= after:
                self._bytes -= _size(self._values.popleft()[1])
            self._changed.notify_all()
            while not self._values and not ended() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._asked = time.monotonic()
            values = [entry for _, entry in self._values]
            last = self._values[-1][0] if self._values else after
            return {"values": values, "next": last, "ended": not values and ended(), "paused": self.paused}

    @property
    def size(self) -> int:
        """Bytes of what is unread."""
        return self._bytes

    def wake(self) -> None:
        """Tell a waiting reader that the cell has ended."""
        with self._lock:
            self._changed.notify_all()


def _size(entry: Any) -> int:
    return entry.size_bytes if isinstance(entry, Packed) else 100
