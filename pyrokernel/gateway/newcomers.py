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
from pyrokernel.loglimit import LogLimit
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
"""When there are more, the oldest one goes of those that come from where most come from: a flood stalls itself."""


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

    @property
    def source(self) -> str:
        """The machine that it comes from, "" for this one."""
        return self.address.rpartition(":")[0]


class Newcomers:
    """All of them; each leaves by its first message, by its own fault, or when its time is over.

    Args:
        loop: Whose sockets they are.
        identity: Returns what this machine shows.
        on_failure: Called with the error of a TLS handshake, and where that came from.
    """

    def __init__(
        self, loop: Loop, identity: Callable[[], Identity], on_failure: Callable[[Exception, str], None]
    ) -> None:
        self._loop = loop
        self._on_failure = on_failure
        self._identity = identity
        self._all: OrderedDict[Newcomer, None] = OrderedDict()
        self._clock_is_set = False
        self._by_source: dict[str, OrderedDict[Newcomer, None]] = {}
        self.refusals = LogLimit(log, "%d more connections were refused in that second")

    def __len__(self) -> int:
        return len(self._all)

    def add(self, newcomer: Newcomer) -> None:
        """Watch over one."""
        self._all[newcomer] = None
        self._by_source.setdefault(newcomer.source, OrderedDict())[newcomer] = None
        self._loop.watch_for(newcomer.sock, selectors.EVENT_READ, lambda: self._on_ready(newcomer))
        if len(self._all) > MAX_NEWCOMERS:
            most = max(self._by_source.values(), key=len)
            self._end(
                next(iter(most)), f"{len(most)} connections from there had not said what they want: the oldest goes"
            )
        if not self._clock_is_set:
            self._clock_is_set = True
            self._loop.after(ARRIVAL_SECONDS, self._look_at_clock)

    def close(self) -> None:
        """Hang up on all."""
        while self._all:
            newcomer = next(iter(self._all))
            self._forget(newcomer)
            newcomer.sock.close()

    def refuse(self, newcomer: Newcomer, why: str | Callable[[], str], who: str = "") -> None:
        """Close a connection and note why, and whose it was where that is known."""
        whose = f"{who} at " if who and newcomer.address else ""
        self.refusals.warning("refused %s%s: %s", whose, newcomer.address or "a process of this machine", why)
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
            if not newcomer.secured:
                self._on_failure(error, newcomer.address)
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
        others = self._by_source[newcomer.source]
        del others[newcomer]
        if not others:
            del self._by_source[newcomer.source]
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
