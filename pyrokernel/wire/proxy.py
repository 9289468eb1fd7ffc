"""Opening connections: trust first, then Pyro's handshake. Runs in the caller's process.

`connect` is for our own peers, whose messages go through `fanout`. `Proxy` is Pyro's own
proxy on a connection opened by the same rules, for stock objects such as the name server.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from Pyro5 import client, core
from Pyro5.errors import ConnectionClosedError
from Pyro5.protocol import MSG_CONNECT, MSG_CONNECTFAIL, MSG_CONNECTOK
from Pyro5.serializers import SerpentSerializer, serializers

from pyrokernel.errors import (
    AccessRefusedError,
    KernelRestartedError,
    KernelUnreachableError,
    ProtocolError,
    PyrokernelError,
    VersionMismatchError,
)
from pyrokernel.messages import PROTOCOL_VERSION
from pyrokernel.wire import endpoints, sockets
from pyrokernel.wire.codec import MAX_PAYLOAD_BYTES
from pyrokernel.wire.connection import Connection, EagerReader, IncomingMessage, frame
from pyrokernel.wire.greeting import PLAIN_SERIALIZERS
from pyrokernel.wire.handed import HAND, follow
from pyrokernel.wire.introduction import TO, acts_for, lost_machine, pack, said_of_us, unpack, way_to
from pyrokernel.wire.remote import NOTHING, Credentials, dial
from pyrokernel.wire.segments import available
from pyrokernel.wire.tls import TlsSocket, expect_answers
from pyrokernel.wire.trust import Peer

__all__ = ["Proxy", "connect", "dial_unix", "read_greeting"]

_CONNECT_SECONDS = 5.0
"""A unix socket connects at once unless a thousand others wait to be accepted."""

_HANDED_SECONDS = 3.0
_HANDSHAKE_REPLY_BYTES = 64 * 1024
_SERPENT = SerpentSerializer()


def connect(
    uri: str,
    *,
    kind: str,
    instance: str = "",
    name: tuple[str, str] = ("", ""),
    files: bool = False,
    segments: bool = False,
    credentials: Credentials = NOTHING,
    machine: str = "",
    handed: bool = False,
) -> Connection:
    """Open a connection to one of our own daemons; requests may follow at once.

    Only the socket is waited for, not the handshake: a kernel in a long C call answers that
    later, and many kernels answer theirs side by side. Nothing is lost by it: who listens was
    checked by uid, and a daemon of another instance serves nothing. `Fanout` reads the greeting.

    Args:
        uri: `PYRO:object@./u:/path`, or `PYRO:object@host:port` on another machine.
        kind: "work" (execute and call, read by a kernel's main thread) or "control".
        instance: Which life of the process is meant; "" accepts any.
        name: "kernel" or "host", and which is meant: nobody but the name server has said that it is there.
        files: Tell a state process that this one is on the same machine, and reads and writes large values there.
        segments: Large data may go beside the messages, where both sides can.
        credentials: What to show to another machine.
        machine: Name of the host that another machine must be by its certificate; "" for any of this mesh.
        handed: Wait for the greeting, and have the gateway of the other machine hand the connection on, if it does.

    Raises:
        AccessRefusedError: The socket's directory or its listener is not this user's; what listens on TCP does not
            prove by TLS that it is a host of this mesh, or the one that is meant; or there is nothing to show to it. Or
            it is on another machine, and this process acts for somebody.
        KernelUnreachableError: Nobody listens there.
    """
    parsed = core.URI(uri)
    if acts_for() and not (parsed.sockname or credentials.gateway):
        raise AccessRefusedError(
            f"{uri} is on another machine, which would take this process for its account instead of {acts_for()}; "
            "a user reaches other machines with a certificate of their own, or by the terminal server there"
        )
    conn = _dial(parsed, _CONNECT_SECONDS, credentials, machine=machine)
    conn.kind, conn.vectored, conn.instance, conn.name, conn.greeted = kind, True, instance, name, False
    if kind == "work" or not parsed.sockname:
        conn.reader = EagerReader(MAX_PAYLOAD_BYTES)
    files, segments = files and bool(parsed.sockname), segments and bool(parsed.sockname)
    hello: dict[str, Any] = {"pyrokernel": PROTOCOL_VERSION, "kind": kind, "codec": "pickle5", "instance": instance}
    if name[1]:
        hello[name[0]] = name[1]
    if files:
        hello["files"] = True
    if segments and kind == "control" and available():
        hello["segments"] = conn.wants_segments = True
    try:
        _send_hello(conn, parsed, hello, handed=handed)
        if handed:
            _follow(conn, credentials)
    except ConnectionClosedError as error:
        conn.close()
        raise KernelUnreachableError(f"{uri} closed the connection: {error}") from error
    except BaseException:
        conn.close()
        raise
    conn.sock.setblocking(False)
    return conn


def read_greeting(conn: Connection, message: IncomingMessage) -> None:
    """Take a daemon's answer to the handshake.

    Raises:
        KernelRestartedError: Another instance listens there now.
        VersionMismatchError: It speaks another protocol version.
        AccessRefusedError: It is another kernel, or host, than was asked for.
        KernelUnreachableError: It refused.
        ProtocolError: This is no answer to a handshake.
    """
    answer = _handshake_answer(message)
    if not isinstance(answer, dict) or answer.get("protocol") != PROTOCOL_VERSION:
        raise VersionMismatchError(
            f"the peer does not speak pyrokernel protocol {PROTOCOL_VERSION} but says {answer!r}"
        )
    found = str(answer.get("instance", ""))
    if conn.instance and found != conn.instance:
        raise KernelRestartedError(kernel=str(answer.get("kernel")), instance=conn.instance, new_instance=found)
    what, wanted = conn.name
    if wanted and answer.get(what) != wanted:
        raise AccessRefusedError(
            f"where the name server says that {what} {wanted!r} is, there is {what} {str(answer.get(what))[:80]!r}; "
            "who may change names has mixed them up: restart the one that is meant, and it is registered anew"
        )
    conn.greeting, conn.greeted = answer, True
    if conn.wants_segments and answer.get("segments") is True:
        conn.take_segments()


class _Answers(SerpentSerializer):  # type: ignore[misc]  # likewise
    """Reads what a stock object answers: plain data, URIs and errors.

    Pyro's own would also make proxies, which dial wherever they were told to, and raise what ends a program.
    """

    NAME = "serpent of pyrokernel"

    @classmethod
    def dict_to_class(cls, data: dict[str, Any]) -> Any:
        kind = str(data.get("__class__"))
        if kind in ("float", "Pyro5.core.URI") or kind.startswith("Pyro5.errors.") or data.get("__exception__") is True:
            found = super().dict_to_class(data)
            if isinstance(found, (float, core.URI, Exception)):
                return found
        raise ProtocolError(f"an answer is plain data or an error, and nothing of class {kind:.80}")


serializers[_Answers.NAME] = _Answers()  # where Pyro looks it up


class Proxy(client.Proxy):  # type: ignore[misc]  # Pyro5 has no type information
    """Pyro's proxy for a stock object, on a connection that passed the rules of trust.

    Args:
        uri: Where the object is: `PYRO:object@./u:/path` or, on loopback, `PYRO:object@host:port`.
        timeout: Seconds for the connection and for each call.
        credentials: What to show to another machine.

    Raises:
        AccessRefusedError, KernelUnreachableError: As `connect`.
    """

    def __init__(self, uri: str, timeout: float, credentials: Credentials = NOTHING) -> None:
        parsed = core.URI(uri)
        conn = _open(parsed, "hello", timeout, credentials)
        expect_answers(conn.sock)
        # Pyro's __setattr__ would look for a remote attribute of this name.
        object.__setattr__(self, "_checked_connection", conn)
        super().__init__(parsed.object, connected_socket=conn.sock)
        self._pyroTimeout = timeout

    def _pyroInvoke(self, *args: Any, **options: Any) -> Any:
        self._pyroSerializer = _Answers.NAME  # before Pyro's constructor is over it asks already
        return super()._pyroInvoke(*args, **options)

    def still_connected(self) -> bool:
        """Whether the peer has not closed the connection (looks, does not wait)."""
        return _is_open(self._checked_connection.sock)

    def greeting(self, key: str) -> str:
        """Return what the other side said of itself in the handshake, "" for nothing; who is stock says nothing."""
        return str(self._checked_connection.greeting.get(key) or "")

    def close(self) -> None:
        """Close the connection (Pyro leaves a socket it was given open)."""
        self._checked_connection.close()


def _is_open(sock: socket.socket | TlsSocket) -> bool:
    try:
        # Between calls nothing is due, so readable means closed (or a peer that talks out of turn).
        return not sockets.is_ready(sock, 0.0) or (isinstance(sock, TlsSocket) and sock.is_open())
    except (OSError, ValueError):
        return False


def _follow(conn: Connection, credentials: Credentials) -> None:
    """Wait for the greeting, and go with the connection to where it is handed on."""
    deadline = time.monotonic() + _HANDED_SECONDS
    message = conn.recv_message(max_body_bytes=_HANDSHAKE_REPLY_BYTES, deadline=deadline)
    read_greeting(conn, message)
    kernel = unpack(message.body[: message.annotations_size]).get(HAND)
    identity = credentials.load()
    if kernel and identity is not None and isinstance(conn.sock, TlsSocket):
        conn.sock.setblocking(True)
        conn.sock = follow(conn.sock, identity, kernel, deadline)
        conn.is_handed = True


def _send_hello(conn: Connection, uri: core.URI, hello: Any, *, handed: bool = False) -> None:
    payload = _SERPENT.dumps({"handshake": hello, "object": uri.object})
    # Beyond this machine a certificate says who we are; its gateway passes on what we say.
    said = said_of_us() if uri.sockname or conn.leads_to else b""
    to = pack({TO: conn.leads_to.encode()}) if conn.leads_to else b""
    asked = pack({HAND: b""}) if handed else b""
    conn.send(frame(MSG_CONNECT, [payload], serializer_id=_SERPENT.serializer_id, annotations=said + to + asked))


def _handshake_answer(message: IncomingMessage) -> Any:
    """Return what a peer says of itself.

    Raises:
        KernelUnreachableError: It refused.
        ProtocolError: This is no answer to a handshake, or too large for one.
    """
    if message.type not in (MSG_CONNECTOK, MSG_CONNECTFAIL) or message.serializer_id != _SERPENT.serializer_id:
        raise ProtocolError("the peer answered the handshake with something else")
    if len(message.body) > _HANDSHAKE_REPLY_BYTES:
        raise ProtocolError("the peer's answer to the handshake is too large")
    try:
        answer = PLAIN_SERIALIZERS[message.serializer_id].loads(bytes(message.payload))
        if message.type == MSG_CONNECTFAIL:
            lost = lost_machine(unpack(message.body[: message.annotations_size]))
            if lost is not None:
                raise lost
            raise KernelUnreachableError(f"the connection was refused: {answer}")
        return answer["handshake"]
    except PyrokernelError:
        raise
    except Exception as error:  # the parser of Python itself reads it, and can raise nearly anything
        raise ProtocolError(f"the peer's answer to the handshake does not parse: {error!r:.200}") from error


def _open(uri: core.URI, hello: Any, timeout: float, credentials: Credentials) -> Connection:
    """Connect and shake hands, all within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    conn = _dial(uri, timeout, credentials, stock=True)
    try:
        try:
            _send_hello(conn, uri, hello)
        except ConnectionClosedError:
            if not isinstance(conn.sock, TlsSocket):
                raise
            # Who refuses our certificate says so when we have shaken hands already, and hangs up: read it.
        answer = _handshake_answer(conn.recv_message(max_body_bytes=_HANDSHAKE_REPLY_BYTES, deadline=deadline))
        conn.greeting = answer if isinstance(answer, dict) else {}
        return conn
    except (OSError, ConnectionClosedError) as error:
        conn.close()
        if isinstance(error, AccessRefusedError):
            raise
        plain = not (uri.sockname or conn.leads_to or isinstance(conn.sock, TlsSocket))
        hint = (
            f"; if it speaks TLS, an identity belongs into {credentials.identity} (pyrokernel certs)" if plain else ""
        )
        raise KernelUnreachableError(f"{uri} did not complete the handshake: {error}{hint}") from error
    except BaseException:
        conn.close()
        raise


def _dial(
    uri: core.URI, timeout: float, credentials: Credentials, *, stock: bool = False, machine: str = ""
) -> Connection:
    """Connect to where a URI points, and check who listens there; as `remote.dial`."""
    if uri.sockname:
        return Connection(*dial_unix(uri.sockname, timeout), uri.object)
    if credentials.gateway:
        conn = Connection(*dial_unix(credentials.gateway, timeout), uri.object)
        conn.leads_to = way_to(uri.location, stock=stock, machine=machine)
        return conn
    return Connection(*dial(uri.host, uri.port, timeout, credentials, stock=stock, machine=machine), uri.object)


def dial_unix(name: str, timeout: float) -> tuple[socket.socket, Peer]:
    """Connect to an endpoint of this account, and check that one of its processes listens there.

    Args:
        name: Path of the endpoint.
        timeout: As `endpoints.dial`.

    Raises:
        AccessRefusedError: Its directory or its listener is not this user's.
        KernelUnreachableError: Nobody listens there.
    """
    try:
        return endpoints.dial(name, timeout)
    except AccessRefusedError:
        raise
    except BlockingIOError as error:
        raise KernelUnreachableError("hundreds wait to be taken there already; try again later") from error
    except OSError as error:
        raise KernelUnreachableError(f"nobody answers at ./u:{name}: {error}") from error
