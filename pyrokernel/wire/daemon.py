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
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from Pyro5 import config, server
from Pyro5.callcontext import current_context
from Pyro5.errors import PyroError
from Pyro5.protocol import FLAGS_ONEWAY

from pyrokernel.errors import AccessRefusedError, ProtocolError, PyrokernelError, VersionMismatchError, error_to_wire
from pyrokernel.loglimit import LogLimit
from pyrokernel.messages import PROTOCOL_VERSION
from pyrokernel.roles import Role
from pyrokernel.texts import one_line
from pyrokernel.wire import codec, endpoints, greeting, handed
from pyrokernel.wire.admission import WAITING_METHODS, Admission, Objects, OnRefused
from pyrokernel.wire.connection import (
    FLAGS_COMPRESSED,
    FLAGS_EXCEPTION,
    MSG_INVOKE,
    MSG_RESULT,
    Connection,
    IncomingMessage,
    MessageReader,
    frame,
)
from pyrokernel.wire.introduction import introduced, unpack
from pyrokernel.wire.limits import Limits, Quota
from pyrokernel.wire.opcodes import MAX_REQUEST_BYTES
from pyrokernel.wire.segments import available
from pyrokernel.wire.trust import Peer, is_own

__all__ = ["Daemon", "current_connection", "current_peer"]

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 3.0
MAX_UNPROVEN = 1024
"""So many may be about to show who they are; where more come, the one that takes longest has to go."""

WORK_METHODS = ("execute", "call", "more", "ship", "unship")
"""What a work connection is for; everything else would wait for the running cell there, to no end."""


def current_connection() -> Connection:
    """Return the connection whose request this thread is serving."""
    connection = current_context.client
    if not isinstance(connection, Connection):
        raise ProtocolError("not inside a remote call")
    return connection


def current_peer() -> Peer:
    """Return who sent the request that this thread is serving."""
    return current_connection().peer


class _DaemonObject(server.DaemonObject):  # type: ignore[misc]  # Pyro5 has no type information
    """Pyro's own object of each daemon."""

    @server.expose  # type: ignore[untyped-decorator]
    def get_metadata(self, objectId: Any) -> Any:
        """Say what an object has; of a user's own as it was when that was offered: to look may run its code."""
        objects: Objects = self.daemon.objectsById
        described = objects.offered.get(objects.id_of(str(objectId)))
        return super().get_metadata(objectId) if described is None else described


class Daemon(server.Daemon):  # type: ignore[misc]  # Pyro5 has no type information
    """Serves exposed objects at one endpoint.

    Args:
        unix_path: Where to listen; an old file there is replaced, so the caller must own the name.
        portable: Without a unix socket, and without segments (`endpoints`).
        identity: What the handshake tells of this process (plain data).
        on_work: Takes over each connection of kind "work" after its handshake; None treats them as control.
        work_role: The least role of those whose work connections are handed over; others are told by a thread of their
            own that they may not.
        quota: How much one user may ask for.
        on_refused: Told who asked for what, on any thread, when somebody's role was too low for it.
        before_control: Called before each request of a control connection is carried out.
        paper: File with key and certificate for work connections that the gateway hands on; None where they are not
            taken.

    Raises:
        AccessRefusedError: The directory of the socket is not private.
        OSError: It cannot be bound.
    """

    def __init__(
        self,
        unix_path: Path,
        *,
        identity: dict[str, Any],
        portable: bool = False,
        on_work: Callable[[Connection], None] | None = None,
        work_role: Role = Role.USER,
        quota: Quota = Quota(),  # noqa: B008  frozen
        on_refused: OnRefused = lambda peer, what, role: None,
        before_control: Callable[[], None] = lambda: None,
        paper: Path | None = None,
    ) -> None:
        greeting.heed_no_warnings()
        # A connected socket is the one way into Pyro's constructor that starts no threads and binds nothing.
        ours, other = socket.socketpair()
        with ours, other, _without_ssl():
            super().__init__(connected_socket=ours, interface=_DaemonObject)
        self.transportServer: _Listener | None = _Listener(self, unix_path, portable=portable)
        self.locationStr = self.transportServer.locationStr
        self._has_segments = not portable and available()
        self._identity = {
            **identity,
            "protocol": PROTOCOL_VERSION,
            "python": list(sys.version_info[:3]),
            "segments": self._has_segments,
        }
        self.objectsById: Objects = Objects(self.objectsById, unix_path.stem)
        self._members: dict[tuple[str, str], tuple[Any, Callable[..., Any]]] = {}
        self._on_work, self._work_role = on_work, work_role
        self.admission = Admission(self.objectsById, Limits(quota), on_refused)
        self._before_control = before_control
        self._paper = paper
        self._failures = LogLimit(log, "%d more requests failed in that second", most=2)

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
        self.objectsById.offered[object_id] = server._get_exposed_members(value)
        self.objectsById[object_id] = value
        return self.uri_for(object_id)

    def withdraw(self, object_id: str) -> None:
        """Serve an object no longer."""
        self.objectsById.pop(object_id, None)
        self.objectsById.offered.pop(object_id, None)

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
                if conn.kind == "work" and self._on_work is not None and conn.peer.role >= self._work_role:
                    if conn.shown and self._paper is not None:
                        deadline = time.monotonic() + HANDSHAKE_SECONDS
                        inner, conn.sock = conn.sock, handed.take_over(conn.sock, self._paper, conn.shown, deadline)
                        conn.inner = inner
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
        if conn.counted:
            conn.counted = False
            self.admission.limits.leave(conn.peer)
        conn.close()

    def _handshake(self, conn: Connection, denied_reason: str | None = None) -> bool:
        """Let Pyro shake hands, once the first message is whole, small, and in a harmless serializer."""
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        message = conn.recv_message(max_body_bytes=greeting.HANDSHAKE_BYTES, deadline=deadline)
        greeting.check_first(message)
        annotations = unpack(message.body[: message.annotations_size])
        conn.peer = introduced(conn.peer, annotations)
        conn.shown = annotations.get(handed.HAND, b"")
        if not is_own(conn.peer):
            greeting.object_of(message)  # Pyro would make objects of what is no plain data
        try:
            self.admission.check_connection(conn.peer)
            conn.counted = True
        except AccessRefusedError as error:
            # Pyro would say so by marshal, which our clients do not read.
            conn.send(greeting.refusal(message, error))
            return False
        if not conn.peer.may_run_code:
            conn.reader = MessageReader(MAX_REQUEST_BYTES)
        conn.push_back(message)
        with _parsing():
            return bool(super()._handshake(conn, denied_reason))

    def validateHandshake(self, conn: Connection, data: Any) -> Any:
        """Settle kind and codec of a connection (called by Pyro); a stock client just says "hello"."""
        identity = {**self._identity, "user": conn.peer.author, "role": conn.peer.role.word}
        if not isinstance(data, dict) or "pyrokernel" not in data:
            return identity
        if data["pyrokernel"] != PROTOCOL_VERSION:
            raise VersionMismatchError(
                f"this process speaks pyrokernel protocol {PROTOCOL_VERSION}, the client {data['pyrokernel']}; "
                "install the same version on both sides"
            )
        if any(data.get(key) not in ("", None, self._identity.get(key)) for key in ("instance", "kernel", "host")):
            # The client learns from our identity that it meant another; what it may have sent already is not read.
            conn.kind = "refused"
            return identity
        conn.kind = "work" if data.get("kind") == "work" else "control"
        conn.vectored = data.get("codec") == "pickle5"
        conn.greeting = data
        self._settle_handing(conn)
        wanted = conn.kind == "control" and data.get("segments") is True
        if wanted and conn.vectored and conn.peer.may_run_code and self._has_segments:
            conn.take_segments()
        return identity

    def _settle_handing(self, conn: Connection) -> None:
        """Say in the answer to the first message whether a connection is taken over, and what will be shown then."""
        asked, conn.shown = conn.shown, b""
        if not asked or self._paper is None or conn.kind != "work" or conn.peer.role < self._work_role:
            return
        with contextlib.suppress(OSError, ValueError):  # there is no paper: it stays with the gateway
            current_context.response_annotations = {handed.HAND.decode(): handed.paper_of(self._paper)}
            conn.shown = asked

    def handleRequest(self, conn: Connection) -> None:
        """Serve one request of a control connection; what is not in our codec is Pyro's."""
        message = conn.recv_message()
        self._before_control()
        try:
            if message.serializer_id == codec.SERIALIZER_ID:
                conn.send(self.answer(conn, message))
            else:
                self._answer_stock(conn, message)
        finally:
            # Also when the client has gone: what it asked for is done all the same.
            while conn.afterwards:
                conn.afterwards.pop(0)()

    def _answer_stock(self, conn: Connection, message: IncomingMessage) -> None:
        """Have Pyro carry out a request of its own protocol; who may not ask for that is told so."""
        try:
            waits = self.admission.check_stock(conn, message)
        except AccessRefusedError as error:
            if not message.flags & FLAGS_ONEWAY:
                self._sendExceptionResponse(conn, message.seq, message.serializer_id, error, None)
            return
        conn.push_back(message)
        if waits or conn.peer.may_run_code:
            with _parsing():
                super().handleRequest(conn)
            return
        # What is sent is sent outside of the turn: its peer may not take it.
        conn.kept_back = []
        try:
            with self.admission.turns.of(conn.peer), _parsing():
                super().handleRequest(conn)
        finally:
            answers, conn.kept_back = conn.kept_back, None
        for answer in answers:
            conn.send(answer)

    def answer(self, conn: Connection, message: IncomingMessage) -> list[codec.Buffer]:
        """Carry out a request in our codec and return the reply's buffers.

        Machinery errors come back as data in a reply flagged as an exception.
        """
        flags = 0
        try:
            if message.type != MSG_INVOKE or not conn.vectored or message.flags & (FLAGS_ONEWAY | FLAGS_COMPRESSED):
                raise ProtocolError("only plain calls are taken in this codec, on a connection that asked for it")
            object_id, method, args, kwargs = self.admission.open(conn, message)
            if conn.kind == "work" and method not in WORK_METHODS:
                raise ProtocolError(f"a work connection takes {' and '.join(WORK_METHODS)}, not {method!r}")
            current_context.client = conn
            conn.arrival = message.arrival
            member = self._member(object_id, method)
            if conn.peer.may_run_code:
                payload = codec.encode(member(*args, **kwargs), conn.freight)
            else:
                payload = self._in_turn(conn.peer, method, lambda: member(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  whatever it raises is told to whoever asked
            if not isinstance(error, (PyrokernelError, PyroError)):
                # Whatever arguments that do not fit lead to is their sender's; of our own processes it is a mistake.
                self._failures.warning(
                    "a request of %s failed in an unexpected way: %s",
                    conn.peer.author,
                    one_line(repr(error), 200),
                    exc_info=is_own(conn.peer),
                )
            flags, payload = FLAGS_EXCEPTION, codec.encode(error_to_wire(error))
        finally:
            conn.arrival = None
        return frame(MSG_RESULT, payload, seq=message.seq, flags=flags, cell=message.corr_id)

    def _in_turn(self, peer: Peer, method: str, ask: Callable[[], Any]) -> list[codec.Buffer]:
        """Return the answer to somebody who may only look; while a request waits, the others have their turns."""
        if method in WAITING_METHODS:
            value = ask()
            with self.admission.turns.of(peer):
                return codec.encode(value)
        with self.admission.turns.of(peer):
            return codec.encode(ask())

    def _member(self, object_id: str, method: str) -> Callable[..., Any]:
        """Return a method of a served object, if Pyro lets it be called; what it said is remembered."""
        served, object_id = self.objectsById.get(object_id), self.objectsById.id_of(object_id)
        known = self._members.get((object_id, method))
        if known is not None and known[0] is served:
            return known[1]
        if served is None:
            raise ProtocolError(f"no object {object_id!r} is served here")
        try:
            bound: Callable[..., Any] = server._get_attribute(served, method)
        except AttributeError as error:
            raise ProtocolError(f"{object_id!r:.80} has no method {method!r:.80} for others: {error}") from error
        if object_id not in self.objectsById.offered:  # what is a user's may change
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


@contextlib.contextmanager
def _parsing() -> Iterator[None]:
    """Have what Pyro's own reading of a message raises end the connection of its sender, and no more."""
    try:
        yield
    except (zlib.error, UnicodeDecodeError, struct.error, KeyError) as error:
        raise ProtocolError(f"a message does not parse: {error!r:.200}") from error


class _Listener:
    """The transport of a `Daemon`: accepts on its own thread, decodes nothing there."""

    def __init__(self, daemon: Daemon, path: Path, *, portable: bool) -> None:
        self.daemon = daemon
        self.endpoint = endpoints.listen(path, portable=portable)
        self.locationStr = f"./u:{self.endpoint.path}"
        self.connections: set[Connection] = set()
        self._unproven: dict[Connection, None] = {}
        self._closing = threading.Event()
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._accept_loop, name="pyrokernel-accept", daemon=True)

    @property
    def sock(self) -> socket.socket:
        """The listening socket (asked for by Pyro)."""
        return self.endpoint.sock

    def start(self) -> None:
        self._thread.start()

    def _accept_loop(self) -> None:
        listener = self.endpoint.sock
        while not self._closing.is_set():
            try:
                client, _ = listener.accept()
            except OSError as error:
                # Out of descriptors: wait for one to be freed instead of spinning. Anything else ends with close().
                if not self._closing.wait(0.1):
                    log.warning("accept: %s", error)
                continue
            self._take(client)

    def _take(self, client: socket.socket) -> None:
        """Give a connection its thread."""
        conn = Connection(client, Peer(uid=-1))
        most = self.daemon.admission.limits.quota.connections
        if most and len(self.connections) >= most:  # a refusal costs this process nothing, a thread each would
            log.warning("more than %d connections; one is refused", most)
            conn.close()
            return
        with self._gate:
            # Accepted while close() was at work: nobody would end it any more.
            if self._closing.is_set():
                conn.close()
                return
            self.connections.add(conn)
            if len(self._unproven) >= MAX_UNPROVEN:
                oldest = next(iter(self._unproven))
                del self._unproven[oldest]
                oldest.close()
            self._unproven[conn] = None
        thread = threading.Thread(target=self._serve, args=(conn,), name="pyrokernel-client", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # the system gives no more threads
            log.warning("a connection is refused: %s", error)
            self._forget_unproven(conn)
            self.daemon.drop(conn)

    def _serve(self, conn: Connection) -> None:
        """Find out who it is, and serve it."""
        try:
            conn.peer = self.endpoint.admit(conn.sock)
        except (PyrokernelError, OSError) as error:
            self.daemon.drop(conn)
            log.log(logging.WARNING if isinstance(error, PyrokernelError) else logging.DEBUG, "%s", error)
            return
        finally:
            self._forget_unproven(conn)
        self.daemon.serve_connection(conn)

    def _forget_unproven(self, conn: Connection) -> None:
        with self._gate:
            self._unproven.pop(conn, None)

    def close(self) -> None:
        with self._gate:
            self._closing.set()
        self.endpoint.close()
        for conn in list(self.connections):
            conn.close()
        self.connections.clear()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=2)

    def abandon(self) -> None:
        self._closing.set()
        self.endpoint.sock.close()
        for conn in list(self.connections):
            conn.close()
