"""Which front ends would answer a question of input(), cell by cell. Runs in the kernel process.

A front end says so by a call and is believed as long as the connection of that call stands,
at most until a time: while its poll waits, between two polls, and while it is busy showing
what the last one brought. So one that dies or goes away lets go of the cell within seconds.

Any thread may come here, the main thread with user code beneath it. That is why there is no
lock, which an interrupt could leave held: each step is one operation of a dict.
"""

from __future__ import annotations

import math
import select
import socket
import time

from pyrokernel.wire import sockets

GRACE_SECONDS = 5.0
"""How long a front end counts after it was last seen: it may be between two polls, or connect again."""

BUSY_SECONDS = 60.0
"""The same for one that was given events: a terminal may take its time to show them."""

LOOK_SECONDS = 0.5
"""How often who waits for an answer looks whether anybody is left to give one."""

_HUNG_UP = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere POLLHUP, which is always reported, has to do


class Attachments:
    """Who is attached to which cell, and until when.

    Args:
        grace: Seconds that a front end counts after it was last seen.
    """

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self.grace = grace
        self._until: dict[tuple[str, socket.socket | None], float] = {}

    def attach(self, cell: str, sock: socket.socket, seconds: float = math.inf) -> None:
        """Note a front end that would answer.

        Args:
            cell: What it follows; "" for whatever runs.
            sock: Its connection; when that ends, only the grace is left.
            seconds: How long it counts at most.
        """
        now = time.monotonic()
        for key, until in list(self._until.items()):
            if until <= now:
                self._until.pop(key, None)
        self._until[cell, sock] = now + seconds

    def detach(self, cell: str, sock: socket.socket, seconds: float) -> None:
        """Let a front end that is still attached count for so many seconds more."""
        if (cell, sock) in self._until:  # it may have been found gone
            self._until[cell, sock] = time.monotonic() + seconds

    def has(self, cell: str) -> bool:
        """Tell whether anybody would answer a question of this cell."""
        now = time.monotonic()
        found = False
        for (about, sock), until in list(self._until.items()):
            if until > now and about in ("", cell):
                found = True
                if sock is not None and has_hung_up(sock):
                    self.linger(about)
                    self._until.pop((about, sock), None)
        return found

    def has_lost(self, cell: str) -> bool:
        """Tell whether the connection of somebody who would have answered has ended lately."""
        return (cell, None) in self._until or ("", None) in self._until

    def linger(self, cell: str) -> None:
        """Give a front end of this cell whose connection has ended the time to connect again."""
        self._until[cell, None] = time.monotonic() + self.grace


def has_hung_up(sock: socket.socket) -> bool:
    """Tell whether a connection has ended, on this side or the other."""
    try:
        if not hasattr(select, "poll"):
            return sockets.is_ready(sock, 0.0) and not sockets.look(sock, 1)
        poller = select.poll()
        poller.register(sock, _HUNG_UP)
        return bool(poller.poll(0))
    except (OSError, ValueError):  # closed here
        return True
