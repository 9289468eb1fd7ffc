"""What the main thread of a kernel does between cells. Runs in the kernel process."""

from __future__ import annotations

import contextlib
import functools
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from pyrokernel.kernel.burst import Bursts
from pyrokernel.kernel.requests import peek_request
from pyrokernel.wire.alertness import Alertness
from pyrokernel.wire.codec import MAX_PAYLOAD_BYTES, SERIALIZER_ID, Buffer
from pyrokernel.wire.connection import Connection, EagerReader, send_now
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.handed import SharedTlsSocket


class WorkLoop:
    """What the main thread does: wait for work, run it, answer.

    Work connections are read here, so the way from a client to its running code has no
    hand-over between threads. While a cell runs, later requests wait in their sockets, or
    behind it in the reader of its connection. After an answer the next request is looked
    for without going to sleep, as `wire.alertness` has it.

    Args:
        settle: Does what the end of a cell brings, once its reply is out.
        look_around: Does what waited for this moment; says whether to be called again after the next request.
        idle_seconds: Tells how long nobody has used the kernel.
        idle_stop: After so many seconds of that, `run` returns; 0 for never.

    Attributes:
        bursts: Runs the chunks of jobs.
    """

    def __init__(
        self,
        settle: Callable[[], None],
        look_around: Callable[[], bool],
        idle_seconds: Callable[[], float],
        idle_stop: float,
    ) -> None:
        self._settle = settle
        self._look_around = look_around
        self.bursts: Bursts | None = None
        self._idle_seconds = idle_seconds
        self._idle_stop = idle_stop
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._arrivals: deque[Connection] = deque()
        self._read_ahead: deque[Connection] = deque()
        self._is_alert = False
        self._alertness = Alertness()
        self.connections: set[Connection] = set()

    def wake(self) -> None:
        """Make the loop look at its queue (any thread)."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            self._wake_in.send(b"\0")

    def adopt(self, connection: Connection) -> None:
        """Take over a work connection after its handshake (called by the daemon's thread)."""
        connection.sock.setblocking(False)
        if not isinstance(connection.reader, EagerReader):
            connection.reader = EagerReader(MAX_PAYLOAD_BYTES)
        if isinstance(connection.sock, SharedTlsSocket):
            connection.sock.on_ahead = functools.partial(self._on_ahead, connection)
        self._arrivals.append(connection)
        self.wake()

    def run(self, daemon: Daemon) -> str:
        """Serve until the idle limit; return why it ended."""
        while True:
            timeout = None
            if self._idle_stop:
                timeout = self._idle_stop - self._idle_seconds()
                if timeout <= 0:
                    return f"idle for {self._idle_stop:g} s"
            for key, _ in self._await_events(timeout):
                if key.fileobj is not self._wake_out:
                    if key.data not in self.connections:
                        continue  # its other socket came first, and it was left by that
                    if key.fileobj is key.data.inner:
                        self._leave(key.data)
                        daemon.lose(key.data, ConnectionResetError("the gateway has hung up"))
                    else:
                        self._serve(key.data, daemon)
                    continue
                self._take_arrivals()
                if self._look_around():
                    self.wake()  # one cell a round, so that work connections get their turn
            for _ in range(len(self._read_ahead)):
                connection = self._read_ahead.popleft()
                if connection in self.connections:
                    self._serve(connection, daemon)

    def _await_events(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what has come; after a request look for the next one for a moment before going to sleep."""
        if self._read_ahead:
            return self._selector.select(0)
        found: list[tuple[selectors.SelectorKey, int]] = []
        if self._is_alert:
            self._is_alert = False
            found = self._alertness.look_out(functools.partial(self._selector.select, 0))
        return found or self._selector.select(timeout)

    def _take_arrivals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_out.recv(4096)
        while self._arrivals:
            connection = self._arrivals.popleft()
            self.connections.add(connection)
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
            if connection.inner is not None:
                self._selector.register(connection.inner, selectors.EVENT_READ, connection)
            self._note_read_ahead(connection)

    def _serve(self, connection: Connection, daemon: Daemon) -> None:
        """Read what has arrived; answer a request once it is whole, then settle what it ran."""
        try:
            self._answer(connection, daemon)
        finally:
            self._settle()

    def _answer(self, connection: Connection, daemon: Daemon) -> None:
        reader = connection.reader
        assert isinstance(reader, EagerReader)
        try:
            if connection.dismissed:
                raise ConnectionAbortedError("whose connection this is was sent away")
            message = reader.next() or reader.read(connection.sock)
            if message is None:
                return
            if message.serializer_id != SERIALIZER_ID:
                raise ConnectionError("a work connection speaks our codec only")
            left: list[Buffer] | None = None
            if connection.kept is not None and self.bursts is not None:
                left = self.bursts.serve(connection, message, daemon)
            if left is None:
                left = send_now(connection.sock, daemon.answer(connection, message))
            self._is_alert = True
        except Exception as error:  # noqa: BLE001  whatever a peer sends or breaks ends its connection, never the kernel
            self._leave(connection)
            daemon.lose(connection, error)
            return
        if left:
            self._finish_elsewhere(connection, left, daemon)
        else:
            self._note_read_ahead(connection)

    def _note_read_ahead(self, connection: Connection) -> None:
        """Serve a connection again, whose next request came together with the last one, or with the handshake."""
        reader, sock = connection.reader, connection.sock
        assert isinstance(reader, EagerReader)
        if reader.has_next or (isinstance(sock, SharedTlsSocket) and sock.has_ahead):
            self._read_ahead.append(connection)

    def _on_ahead(self, connection: Connection) -> None:
        """Serve a connection at which another thread has looked, since no selector tells of what that found."""
        self._read_ahead.append(connection)
        self.wake()

    def _finish_elsewhere(self, connection: Connection, left: list[Buffer], daemon: Daemon) -> None:
        """Let a thread send the rest of a large reply: a slow reader must not hold up the next cell."""
        self._leave(connection)

        def finish() -> None:
            try:
                connection.send(left)
            except Exception as error:  # noqa: BLE001  as in _serve
                daemon.lose(connection, error)
            else:
                self.adopt(connection)

        threading.Thread(target=finish, name="pyrokernel-reply", daemon=True).start()

    def _leave(self, connection: Connection) -> None:
        for sock in (connection.sock, connection.inner):
            if sock is not None:
                self._selector.unregister(sock)
        self.connections.discard(connection)

    def dismiss(self, identity: str) -> None:
        """Begin nothing more of what has come on the connections of somebody (any thread)."""
        for connection in [*self.connections.copy(), *self._arrivals.copy()]:
            if connection.peer.identity == identity:
                connection.dismissed = True

    def waiting(self) -> list[dict[str, Any]]:
        """List the requests that wait unread in their sockets (any thread; looks, does not take)."""
        # Those that came while a cell runs have not been taken over yet.
        found = [peek_request(connection) for connection in [*self.connections.copy(), *self._arrivals.copy()]]
        return [request for request in found if request is not None]
