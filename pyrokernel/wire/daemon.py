"""The daemon: Pyro5's own, behind a listener that strangers cannot stall. Runs in every process that is called.

Pyro's `Daemon` keeps its handshake, its dispatch and its stock protocol. Replaced are the
transport (an accept loop that decodes nothing, one thread per connection, no housekeeper
that wakes an idle process) and the reading of messages: before the handshake at most 4 KB
of serpent or JSON within 3 s; after it, messages in our codec take a direct path and any
other goes to Pyro's `handleRequest`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from Pyro5 import config, server
from Pyro5.callcontext import current_context
from Pyro5.errors import PyroError
from Pyro5.protocol import FLAGS_ONEWAY

from pyrokernel.errors import ProtocolError, PyrokernelError, VersionMismatchError, error_to_wire
from pyrokernel.messages import PROTOCOL_VERSION
from pyrokernel.settings import MAX_SOCKET_PATH_BYTES
from pyrokernel.wire import codec
from pyrokernel.wire.connection import (
    FLAGS_COMPRESSED,
    FLAGS_EXCEPTION,
    MSG_INVOKE,
    MSG_RESULT,
    Connection,
    IncomingMessage,
    frame,
)
from pyrokernel.wire.greeting import HANDSHAKE_BYTES, check_first
from pyrokernel.wire.introduction import introduced, unpack
from pyrokernel.wire.segments import available
from pyrokernel.wire.trust import Peer, check_peer, check_socket_path

__all__ = ["Daemon", "current_connection", "current_peer", "expose", "exposed_members", "is_exposed"]

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 3.0
MAX_CONNECTIONS = 4096
"""More are closed at accept: a refusal costs this process nothing, a thread each would."""

WORK_METHODS = ("execute", "call", "more", "ship", "unship")
"""What a work connection is for; everything else would wait for the running cell there, to no end."""

Exposed = TypeVar("Exposed")


def expose(member: Exposed) -> Exposed:
    """Mark a method, a property or all members of a class as remotely reachable (Pyro's decorator, its type kept)."""
    return cast(Exposed, server.expose(member))


def exposed_members(value: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the methods, and of the properties, of an object that are marked, as Pyro decides it."""
    found = server._get_exposed_members(value)
    return frozenset(found["methods"]), frozenset(found["attrs"])


def is_exposed(function: Any) -> bool:
    """Whether a function is marked itself."""
    return getattr(function, "_pyroExposed", False) is True


def current_connection() -> Connection:
    """Return the connection whose request this thread is serving."""
    connection = current_context.client
    if not isinstance(connection, Connection):
        raise ProtocolError("not inside a remote call")
    return connection


def current_peer() -> Peer:
    """Return who sent the request that this thread is serving."""
    return current_connection().peer


class Daemon(server.Daemon):  # type: ignore[misc]  # Pyro5 has no type information
    """Serves exposed objects on one unix socket.

    Args:
        unix_path: Where to listen; an old file there is replaced, so the caller must own the name.
        identity: What the handshake tells of this process (plain data).
        on_work: Takes over each connection of kind "work" after its handshake; None treats them as control.
        before_control: Called before each request of a control connection is carried out.

    Raises:
        AccessRefusedError: The directory of the socket is not private.
        OSError: It cannot be bound.
    """

    def __init__(
        self,
        unix_path: Path,
        *,
        identity: dict[str, Any],
        on_work: Callable[[Connection], None] | None = None,
        before_control: Callable[[], None] = lambda: None,
    ) -> None:
        # A connected socket is the one way into Pyro's constructor that starts no threads and binds nothing.
        ours, other = socket.socketpair()
        with ours, other, _without_ssl():
            super().__init__(connected_socket=ours)
        self.transportServer: _Listener | None = _Listener(self, unix_path)
        self.locationStr = self.transportServer.locationStr
        self._identity = {
            **identity,
            "protocol": PROTOCOL_VERSION,
            "python": list(sys.version_info[:3]),
            "segments": available(),
        }
        self.objectsById = _Objects(self.objectsById, unix_path.stem)
        self._members: dict[tuple[str, str], tuple[Any, Callable[..., Any]]] = {}
        self._offered: set[str] = set()
        self._on_work = on_work
        self._before_control = before_control

    def start(self) -> None:
        """Begin to accept connections, on a thread of the daemon's own."""
        assert self.transportServer is not None, "the daemon is closed"
        self.transportServer.start()

    def close(self) -> None:
        """Stop listening, close every connection, remove the socket's file."""
        if self.transportServer is not None:
            self.transportServer.close()
            self.transportServer = None

    def abandon(self) -> None:
        """In a forked child: drop the descriptors, leaving the parent's connections as they are."""
        if self.transportServer is not None:
            self.transportServer.abandon()

    def offer(self, value: Any, object_id: str) -> str:
        """Serve an object to stock proxies; return its URI.

        Not by Pyro's `register`: that writes into the object, and into tables of the whole process.
        """
        self._offered.add(object_id)
        self.objectsById[object_id] = value
        return self.uri_for(object_id)

    def withdraw(self, object_id: str) -> None:
        """Serve an object no longer."""
        self.objectsById.pop(object_id, None)
        self._offered.discard(object_id)

    def uri_for(self, object_id: str) -> str:
        """Return the Pyro URI of an object served here."""
        return f"PYRO:{object_id}@{self.locationStr}"

    def connection_count(self) -> int:
        """Return how many connections are open."""
        return 0 if self.transportServer is None else len(self.transportServer.connections)

    def serve_connection(self, conn: Connection) -> None:
        """Serve one accepted connection until it closes, or hand it over after its handshake."""
        handed_over = False
        try:
            if self._handshake(conn):
                if conn.kind == "refused":
                    return
                if conn.kind == "work" and self._on_work is not None:
                    handed_over = True
                    self._on_work(conn)
                    return
                while True:
                    self.handleRequest(conn)
        except (OSError, PyroError, ProtocolError) as error:
            self.log_lost(conn, error)
        finally:
            if not handed_over:
                self.drop(conn)

    def log_lost(self, conn: Connection, error: Exception) -> None:
        """Note why a connection ended; clients come and go, so only for those who look."""
        log.debug("connection of pid %s ended: %s: %s", conn.peer.pid, type(error).__name__, error)

    def lose(self, conn: Connection, error: Exception) -> None:
        """Drop a connection that failed, and note why."""
        self.drop(conn)
        self.log_lost(conn, error)

    def drop(self, conn: Connection) -> None:
        """Forget and close a connection."""
        if self.transportServer is not None:
            self.transportServer.connections.discard(conn)
            self._clientDisconnect(conn)
        conn.close()

    def _handshake(self, conn: Connection, denied_reason: str | None = None) -> bool:
        """Let Pyro shake hands, once the first message is whole, small, and in a harmless serializer."""
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        message = conn.recv_message(max_body_bytes=HANDSHAKE_BYTES, deadline=deadline)
        check_first(message)
        conn.peer = introduced(conn.peer, unpack(message.body[: message.annotations_size]))
        conn.push_back(message)
        return bool(super()._handshake(conn, denied_reason))

    def validateHandshake(self, conn: Connection, data: Any) -> Any:
        """Settle kind and codec of a connection (called by Pyro); a stock client just says "hello"."""
        if not isinstance(data, dict) or "pyrokernel" not in data:
            return self._identity
        if data["pyrokernel"] != PROTOCOL_VERSION:
            raise VersionMismatchError(
                f"this process speaks pyrokernel protocol {PROTOCOL_VERSION}, the client {data['pyrokernel']}; "
                "install the same version on both sides"
            )
        if data.get("instance") not in ("", None, self._identity.get("instance")):
            # The client learns from our identity that it meant another; what it may have sent already is not read.
            conn.kind = "refused"
            return self._identity
        conn.kind = "work" if data.get("kind") == "work" else "control"
        conn.vectored = data.get("codec") == "pickle5"
        conn.greeting = data
        wanted = conn.kind == "control" and data.get("segments") is True
        if wanted and conn.vectored and conn.peer.may_run_code and available():
            conn.take_segments()
        return self._identity

    def handleRequest(self, conn: Connection) -> None:
        """Serve one request of a control connection; what is not in our codec is Pyro's."""
        message = conn.recv_message()
        self._before_control()
        try:
            if message.serializer_id == codec.SERIALIZER_ID:
                conn.send(self.answer(conn, message))
            else:
                conn.push_back(message)
                super().handleRequest(conn)
        finally:
            # Also when the client has gone: what it asked for is done all the same.
            while conn.afterwards:
                conn.afterwards.pop(0)()

    def answer(self, conn: Connection, message: IncomingMessage) -> list[codec.Buffer]:
        """Carry out a request in our codec and return the reply's buffers.

        Machinery errors come back as data in a reply flagged as an exception.
        """
        flags = 0
        try:
            if message.type != MSG_INVOKE or not conn.vectored or message.flags & (FLAGS_ONEWAY | FLAGS_COMPRESSED):
                raise ProtocolError("only plain calls are taken in this codec, on a connection that asked for it")
            object_id, method, args, kwargs = message.decode()
            if conn.kind == "work" and method not in WORK_METHODS:
                raise ProtocolError(f"a work connection takes {' and '.join(WORK_METHODS)}, not {method!r}")
            current_context.client = conn
            conn.arrival = message.arrival
            payload = codec.encode(self._member(object_id, method)(*args, **kwargs), conn.freight)
        except BaseException as error:
            if not isinstance(error, PyrokernelError):
                log.exception("a request failed in an unexpected way")
            flags, payload = FLAGS_EXCEPTION, codec.encode(error_to_wire(error))
        finally:
            conn.arrival = None
        return frame(MSG_RESULT, payload, seq=message.seq, flags=flags, cell=message.corr_id)

    def _member(self, object_id: str, method: str) -> Callable[..., Any]:
        """Return a method of a served object, if Pyro lets it be called; what it said is remembered."""
        served = self.objectsById.get(object_id)
        known = self._members.get((object_id, method))
        if known is not None and known[0] is served:
            return known[1]
        if served is None:
            raise ProtocolError(f"no object {object_id!r} is served here")
        bound: Callable[..., Any] = server._get_attribute(served, method)
        if object_id not in self._offered:  # what is a user's may change
            self._members[object_id, method] = (served, bound)
        return bound

    def _sendExceptionResponse(self, connection: Connection, seq: int, serializer_id: int, exc_value: Any,
                               tbinfo: Any, flags: int = 0, annotations: Any = None) -> None:  # fmt: skip
        """Send stock clients our errors as a RuntimeError: Pyro refuses classes it does not know."""
        if isinstance(exc_value, PyrokernelError):
            exc_value = RuntimeError(f"{type(exc_value).__name__}: {exc_value}")
        super()._sendExceptionResponse(connection, seq, serializer_id, exc_value, tbinfo, flags, annotations)


@contextlib.contextmanager
def _without_ssl() -> Iterator[None]:
    """Let Pyro5 take a plain socket where PYRO_SSL is set, which is for stock tools that use the same environment."""
    ssl, config.SSL = config.SSL, False
    try:
        yield
    finally:
        config.SSL = ssl


class _Objects(dict[str, Any]):
    """Objects by id; also by the id that other machines use, which says which socket of this one they are behind."""

    def __init__(self, objects: dict[str, Any], word: str) -> None:
        super().__init__(objects)
        self._suffix = f"/{word}"

    def get(self, object_id: str, default: Any = None) -> Any:
        return super().get(object_id.removesuffix(self._suffix), default)


class _Listener:
    """The transport of a `Daemon`: accepts on its own thread, decodes nothing there."""

    def __init__(self, daemon: Daemon, unix_path: Path) -> None:
        path = check_socket_path(unix_path)
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise OSError(f"the socket path {path} is longer than {MAX_SOCKET_PATH_BYTES} bytes; set runtime_dir")
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self.daemon = daemon
        self.path = path
        self.locationStr = f"./u:{path}"
        self.connections: set[Connection] = set()
        self.sock: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(str(path))
        path.chmod(0o600)
        self.sock.listen(1024)
        self._closing = threading.Event()
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._accept_loop, name="pyrokernel-accept", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _accept_loop(self) -> None:
        listener = self.sock
        assert listener is not None
        while not self._closing.is_set():
            try:
                client, _ = listener.accept()
            except OSError as error:
                # Out of descriptors: wait for one to be freed instead of spinning. Anything else ends with close().
                if not self._closing.wait(0.1):
                    log.warning("accept: %s", error)
                continue
            try:
                peer = check_peer(client)
            except PyrokernelError as error:
                log.warning("%s", error)
                client.close()
                continue
            self._serve(client, peer)

    def _serve(self, client: socket.socket, peer: Peer) -> None:
        if len(self.connections) >= MAX_CONNECTIONS:
            log.warning("more than %d connections; one of pid %d is refused", MAX_CONNECTIONS, peer.pid)
            client.close()
            return
        conn = Connection(client, peer)
        with self._gate:
            # Accepted while close() was at work: nobody would end it any more.
            if self._closing.is_set():
                conn.close()
                return
            self.connections.add(conn)
        thread = threading.Thread(
            target=self.daemon.serve_connection, args=(conn,), name="pyrokernel-client", daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # the system gives no more threads
            log.warning("connection of pid %d refused: %s", peer.pid, error)
            self.daemon.drop(conn)

    def close(self) -> None:
        with self._gate:
            self._closing.set()
        if self.sock is not None:
            # Closing alone would leave accept() waiting; shutdown wakes it.
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()
            self.sock = None
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        for conn in list(self.connections):
            conn.close()
        self.connections.clear()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=2)

    def abandon(self) -> None:
        self._closing.set()
        if self.sock is not None:
            self.sock.close()
        for conn in list(self.connections):
            conn.close()
