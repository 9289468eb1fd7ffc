"""What the systems do differently about sockets, in one place. Runs in every process."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pyrokernel.wire.codec import Buffer

__all__ = [
    "HAS_PATIENCE",
    "NOW",
    "WAIT_ALL",
    "is_ready",
    "look",
    "receive",
    "send_one",
    "send_some",
    "set_patience",
    "set_send_patience",
]

WAIT_ALL = int(getattr(socket, "MSG_WAITALL", 0))
"""Flag of `recv`: where the socket is one that waits, it does so until all is here."""

NOW = int(getattr(socket, "MSG_DONTWAIT", 0))
"""Flag of one call that must not wait; 0 on Windows, which knows that of whole sockets only."""

HAS_PATIENCE = bool(NOW)
"""Whether to wait on a socket that waits, with `set_patience` and `NOW`; else it is one that does not wait.

Windows has neither: "if a send or receive operation times out on a socket, the socket state is indeterminate".
"""


class Waitable(Protocol):
    """Something to wait for."""

    def fileno(self) -> int:
        """Return the descriptor."""


class Sender(Waitable, Protocol):
    """A socket, or what behaves as one."""

    def send(self, data: Any, flags: int = ..., /) -> int:
        """As `socket.socket.send`."""

    def sendmsg(self, buffers: Any, ancillary: Any = ..., flags: int = ..., /) -> int:
        """As `socket.socket.sendmsg`."""

    def gettimeout(self) -> float | None:
        """As `socket.socket.gettimeout`."""

    def settimeout(self, seconds: float | None, /) -> None:
        """As `socket.socket.settimeout`."""

    def setblocking(self, waits: bool, /) -> None:
        """As `socket.socket.setblocking`."""


def is_ready(sock: Waitable, seconds: float, *, to_write: bool = False) -> bool:
    """Wait until something can be read, the end of the connection included, or written.

    Args:
        sock: An open one.
        seconds: How long to wait; 0 for a look.
        to_write: Wait for room instead.

    Raises:
        OSError, ValueError: It was closed.
    """
    seconds = max(0.0, seconds)
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(sock, select.POLLOUT if to_write else select.POLLIN)
        return bool(poller.poll(seconds * 1e3))
    # A connection that failed is among the exceptional ones on Windows.
    found = select.select([] if to_write else [sock], [sock] if to_write else [], [sock], seconds)
    return any(found)


def look(sock: socket.socket, size: int) -> bytes:
    """Return what has arrived, and leave it there.

    Raises:
        OSError: Nothing has, or the connection failed.
    """
    if not NOW and not is_ready(sock, 0.0):
        raise BlockingIOError("nothing has arrived")
    return sock.recv(size, socket.MSG_PEEK | NOW)


def receive(sock: socket.socket, size: int, deadline: float, gone: OSError) -> bytes:
    """Receive exactly so many bytes; leaves the socket with a timeout.

    Args:
        sock: A connection.
        size: How many bytes.
        deadline: Monotonic moment by which all of them must be here.
        gone: Raised when the other end hangs up before.

    Raises:
        TimeoutError: They did not come in time.
        OSError: The connection failed.
    """
    data = b""
    while len(data) < size:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        piece = sock.recv(size - len(data))
        if not piece:
            raise gone
        data += piece
    return data


def send_one(sock: Sender, buffer: Buffer) -> int:
    """Write as much of a buffer as a socket takes at once, be it one that waits or not; return how much.

    Raises:
        BlockingIOError: It takes nothing now.
        OSError: The connection failed.
    """
    return sock.send(buffer, NOW) if NOW else _send_at_once(sock, buffer)


def send_some(sock: Sender, buffers: Sequence[Buffer], ancillary: Sequence[Any]) -> int:
    """Write as much of some buffers, not more than the system takes; as `send_one`.

    Args:
        sock: Where to.
        buffers: What to write.
        ancillary: What goes beside the first byte, where the system has that.
    """
    return sock.sendmsg(buffers, ancillary, NOW) if NOW else _send_at_once(sock, buffers[0])


def _send_at_once(sock: Sender, buffer: Buffer) -> int:
    if not is_ready(sock, 0.0, to_write=True):
        raise BlockingIOError("the socket takes nothing now")
    waits = sock.gettimeout()
    sock.setblocking(False)
    try:
        return sock.send(buffer)
    finally:
        sock.settimeout(waits)


def set_patience(sock: socket.socket, seconds: float) -> None:
    """Have the system give up on receiving after so many seconds; only where `HAS_PATIENCE`."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))


def set_send_patience(sock: socket.socket, seconds: float) -> None:
    """Have the system give up on sending and connecting after so many seconds, 0 for never; as `set_patience`."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
