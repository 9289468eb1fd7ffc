"""Bytes between two sockets, both ways, no more of them in memory than a buffer each. Runs in the gateway process."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyrokernel.wire import sockets
from pyrokernel.wire.proofs import Unproven
from pyrokernel.wire.tls import AnySocket, TlsSocket

if TYPE_CHECKING:
    from pyrokernel.loop import Loop

CHUNK_BYTES = 256 * 1024
"""Taken from a socket with one call, and the most that waits for the other."""

LINGER_SECONDS = 10.0
"""How long what is left may take to leave, after one side has hung up."""


class _End:
    """One of the two sockets.

    Attributes:
        unsent: What the other one has sent and this one has not taken.
        over: Whether it has hung up.
        deaf: Whether it takes nothing any more; what it has said before is still to be read.
    """

    __slots__ = ("deaf", "events", "over", "sock", "unsent")

    def __init__(self, sock: AnySocket) -> None:
        self.sock = sock
        self.unsent = memoryview(b"")
        self.over = self.deaf = False
        self.events = 0


class Pump:
    """Two sockets that are each other's other side, until one of them hangs up.

    A receiver that is slow holds up its sender: nothing is read from one socket while the other has not taken what
    was read before.

    Args:
        loop: Whose sockets these are from now on.
        first, second: They do not wait.
        on_end: Called once, when both are closed.
    """

    def __init__(self, loop: Loop, first: AnySocket, second: AnySocket, on_end: Callable[[Pump], None]) -> None:
        self._loop = loop
        self._ends = (_End(first), _End(second))
        self._on_end = on_end
        self._closed = False
        self.last_moved = time.monotonic()
        self._deaf_since = float("inf")
        for end in self._ends:
            self._watch(end)

    def begin(self) -> None:
        """Move what has arrived already, of which a selector would not tell."""
        try:
            for end in self._ends:
                if isinstance(end.sock, TlsSocket) and not self._closed:
                    data = end.sock.read_pending()
                    if data:
                        self._give(end, data)
        except OSError:  # what came behind the first message was no TLS, or the other side has gone already
            self.close()

    def close(self) -> None:
        """Hang up on both sides."""
        if self._closed:
            return
        self._closed = True
        for end in self._ends:
            self._loop.watch_for(end.sock, 0, self.close)
            _hang_up(end.sock)
        self._on_end(self)

    def _on_ready(self, end: _End) -> None:
        try:
            if end.unsent:
                self._write(end)
            if not self._closed and end.events & selectors.EVENT_READ:
                self._read(end)
        except OSError:
            self.close()

    def _read(self, end: _End) -> None:
        try:
            data = end.sock.recv_available() if isinstance(end.sock, TlsSocket) else end.sock.recv(CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        finally:
            if end.unsent and not isinstance(end.sock, Unproven) and not end.events & selectors.EVENT_WRITE:
                self._write(end)  # it has proved itself just now
        if data is None:
            return
        if data:
            self._give(end, data)
        else:
            end.over = True
            self._settle()

    def _give(self, end: _End, data: bytes) -> None:
        """Send what one end has said to the other."""
        other = self._ends[1] if end is self._ends[0] else self._ends[0]
        if other.deaf:
            return
        try:
            sent = other.sock.send(data, sockets.NOW)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._note_deaf(other)
            return
        if sent < len(data):  # else, as nearly always, nothing is to be watched that is not watched already
            other.unsent = memoryview(data)[sent:]
            self._write(other)

    def _write(self, end: _End) -> None:
        try:
            while end.unsent:
                end.unsent = end.unsent[end.sock.send(end.unsent, sockets.NOW) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._note_deaf(end)
            end.unsent = memoryview(b"")
        self.last_moved = time.monotonic()
        self._settle()

    def _note_deaf(self, end: _End) -> None:
        """One side takes nothing any more: what it has said before is still passed on, for a while."""
        end.deaf = True
        self._deaf_since = min(self._deaf_since, time.monotonic())

    def _settle(self) -> None:
        """Watch what is to be watched now; hang up once a side has, and has nothing left to say."""
        first, second = self._ends
        if (first.over and not second.unsent) or (second.over and not first.unsent):
            self.close()
            return
        for end in self._ends:
            self._watch(end)

    def _watch(self, end: _End) -> None:
        other = self._ends[1] if end is self._ends[0] else self._ends[0]
        wanted = 0 if other.unsent or end.over else selectors.EVENT_READ
        if end.unsent and not isinstance(end.sock, Unproven):  # which takes no more before it has something to read
            wanted |= selectors.EVENT_WRITE
        if wanted != end.events:
            end.events = wanted
            self._loop.watch_for(end.sock, wanted, lambda: self._on_ready(end))

    def check_heard(self) -> None:
        """Hang up if another machine does not acknowledge any more what was sent to it."""
        try:
            for end in self._ends:
                if isinstance(end.sock, TlsSocket):
                    end.sock.check_heard()
        except OSError:
            self.close()

    def is_stuck(self, now: float) -> bool:
        """Whether one side has hung up, and the other does not take what is left, or answers it at length to nobody."""
        is_left = any(end.over for end in self._ends) and now - self.last_moved > LINGER_SECONDS
        return is_left or now - self._deaf_since > LINGER_SECONDS


def _hang_up(sock: AnySocket) -> None:
    with contextlib.suppress(OSError):  # the other side was quicker
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
