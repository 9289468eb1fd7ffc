"""Connections of which nobody knows yet whose they are: bounded in number and in time. Runs in the gateway process."""

from __future__ import annotations

import functools
import logging
import selectors
import socket
import time
from collections import OrderedDict
from collections.abc import Callable

from pyrokernel.errors import ProtocolError
from pyrokernel.loop import Loop
from pyrokernel.wire.connection import IncomingMessage
from pyrokernel.wire.greeting import FirstMessage
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.refusals import explain
from pyrokernel.wire.tls import TlsSocket

log = logging.getLogger(__name__)

ARRIVAL_SECONDS = 5.0
"""By then the TLS handshake is over and the first message is here."""

MAX_NEWCOMERS = 256
"""The oldest one goes when there are more: whoever means it is through in milliseconds."""

_LOGGED_A_SECOND = 5


class Newcomer:
    """One connection on its way in.

    Args:
        sock: It does not wait.
        address: Where it comes from, "" for this machine.
        on_greeting: Called with this and the first message, once it is whole.
    """

    def __init__(
        self, sock: socket.socket | TlsSocket, address: str, on_greeting: Callable[[Newcomer, IncomingMessage], None]
    ) -> None:
        self.sock = sock
        self.address = address
        self.on_greeting = on_greeting
        self.reader = FirstMessage()
        self.secured = not isinstance(sock, TlsSocket)
        self.since = time.monotonic()


class Newcomers:
    """All of them; each leaves by its first message, by its own fault, or when its time is over.

    Args:
        loop: Whose sockets they are.
        identity: Returns what this machine shows.
    """

    def __init__(self, loop: Loop, identity: Callable[[], Identity]) -> None:
        self._loop = loop
        self._identity = identity
        self._all: OrderedDict[Newcomer, None] = OrderedDict()
        self._refusals = Refusals()
        self._clock_is_set = False

    def __len__(self) -> int:
        return len(self._all)

    def add(self, newcomer: Newcomer) -> None:
        """Watch over one."""
        self._all[newcomer] = None
        self._loop.watch_for(newcomer.sock, selectors.EVENT_READ, lambda: self._on_ready(newcomer))
        if len(self._all) > MAX_NEWCOMERS:
            self._end(next(iter(self._all)), "more connections than this machine takes at once; the oldest goes")
        if not self._clock_is_set:
            self._clock_is_set = True
            self._loop.after(ARRIVAL_SECONDS, self._look_at_clock)

    def close(self) -> None:
        """Hang up on all."""
        while self._all:
            newcomer = next(iter(self._all))
            self._forget(newcomer)
            newcomer.sock.close()

    def refuse(self, newcomer: Newcomer, why: str | Callable[[], str]) -> None:
        """Close a connection and note why."""
        self._refusals.note(newcomer.address, why)
        newcomer.sock.close()

    def _on_ready(self, newcomer: Newcomer) -> None:
        message = None
        try:
            if not newcomer.secured:
                assert isinstance(newcomer.sock, TlsSocket)
                newcomer.secured = newcomer.sock.advance()
            if newcomer.secured:
                message = newcomer.reader.read(newcomer.sock)
        except (ProtocolError, OSError) as error:
            # Said aloud only if it is logged: to find out what a failed handshake means takes as long as many of them.
            self._end(newcomer, functools.partial(self._explain, error, newcomer))
            return
        if message is not None:
            self._forget(newcomer)
            try:
                newcomer.on_greeting(newcomer, message)
            except Exception:
                newcomer.sock.close()
                raise

    def _explain(self, error: Exception, newcomer: Newcomer) -> str:
        if isinstance(error, OSError) and not newcomer.secured:
            return explain(error, newcomer.address, self._identity())
        return str(error)

    def _forget(self, newcomer: Newcomer) -> None:
        del self._all[newcomer]
        self._loop.watch_for(newcomer.sock, 0, lambda: None)

    def _end(self, newcomer: Newcomer, why: str | Callable[[], str]) -> None:
        self._forget(newcomer)
        self.refuse(newcomer, why)

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        while self._all:
            oldest = next(iter(self._all))
            left = oldest.since + ARRIVAL_SECONDS - now
            if left > 0:
                self._loop.after(left, self._look_at_clock)
                return
            self._end(oldest, f"it had not said within {ARRIVAL_SECONDS:g} s what it wants")
        self._clock_is_set = False


class Refusals:
    """Notes refusals in the log, a few each second."""

    def __init__(self) -> None:
        self._second = 0
        self._count = 0

    def note(self, address: str, why: str | Callable[[], str]) -> None:
        """Log one; of very many only their number."""
        second = int(time.monotonic())
        if second != self._second:
            if self._count > _LOGGED_A_SECOND:
                log.warning("%d more connections were refused in that second", self._count - _LOGGED_A_SECOND)
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= _LOGGED_A_SECOND:
            reason = why if isinstance(why, str) else why()
            log.warning("refused %s: %s", address or "a process of this machine", reason)
