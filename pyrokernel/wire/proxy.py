"""Opening connections: trust first, then Pyro's handshake. Runs in the caller's process.

`connect` is for our own peers, whose messages go through `fanout`. `Proxy` is Pyro's own
proxy on a connection opened by the same rules, for stock objects such as the name server.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Any

from Pyro5 import client, core
from Pyro5.errors import ConnectionClosedError
from Pyro5.protocol import MSG_CONNECT, MSG_CONNECTFAIL, MSG_CONNECTOK
from Pyro5.serializers import SerpentSerializer

from pyrokernel.errors import AccessRefusedError, KernelUnreachableError, ProtocolError, VersionMismatchError
from pyrokernel.messages import PROTOCOL_VERSION
from pyrokernel.wire.connection import Connection, frame
from pyrokernel.wire.trust import Peer, check_loopback, check_peer, check_socket_path

__all__ = ["Proxy", "connect"]

_HANDSHAKE_REPLY_BYTES = 64 * 1024
_SERPENT = SerpentSerializer()


def connect(uri: str, *, kind: str, timeout: float) -> Connection:
    """Open a connection to one of our own daemons and shake hands.

    Args:
        uri: `PYRO:object@./u:/path`.
        kind: "work" (execute and call, read by a kernel's main thread) or "control".
        timeout: Seconds for all of it.

    Raises:
        AccessRefusedError: The address or the peer does not pass the rules of trust.
        KernelUnreachableError: Nobody answers, or not in time.
        VersionMismatchError: The peer speaks another protocol version.
    """
    hello = {"pyrokernel": PROTOCOL_VERSION, "kind": kind, "codec": "pickle5"}
    parsed = core.URI(uri)
    conn, answer = _open(parsed, hello, timeout)
    if not isinstance(answer, dict) or answer.get("protocol") != PROTOCOL_VERSION:
        conn.close()
        raise VersionMismatchError(f"{uri} does not speak pyrokernel protocol {PROTOCOL_VERSION} but {answer!r}")
    conn.kind, conn.vectored, conn.greeting = kind, True, answer
    conn.sock.setblocking(False)
    return conn


class Proxy(client.Proxy):  # type: ignore[misc]  # Pyro5 has no type information
    """Pyro's proxy for a stock object, on a connection that passed the rules of trust.

    Args:
        uri: Where the object is: `PYRO:object@./u:/path` or, on loopback, `PYRO:object@host:port`.
        timeout: Seconds for the connection and for each call.

    Raises:
        AccessRefusedError, KernelUnreachableError: As `connect`.
    """

    def __init__(self, uri: str, timeout: float) -> None:
        parsed = core.URI(uri)
        conn, _ = _open(parsed, "hello", timeout)
        # Pyro's __setattr__ would look for a remote attribute of this name.
        object.__setattr__(self, "_checked_connection", conn)
        super().__init__(parsed.object, connected_socket=conn.sock)
        self._pyroSerializer = "serpent"
        self._pyroTimeout = timeout

    def still_connected(self) -> bool:
        """Whether the peer has not closed the connection (looks, does not wait)."""
        return _is_open(self._checked_connection.sock)

    def close(self) -> None:
        """Close the connection (Pyro leaves a socket it was given open)."""
        self._checked_connection.close()


def _is_open(sock: socket.socket) -> bool:
    poller = select.poll()
    try:
        poller.register(sock, select.POLLIN)
        # Between calls nothing is due, so readable means closed (or a peer that talks out of turn).
        return not poller.poll(0)
    except (OSError, ValueError):
        return False


def _open(uri: core.URI, hello: Any, timeout: float) -> tuple[Connection, Any]:
    deadline = time.monotonic() + timeout
    conn = _dial(uri, timeout)
    try:
        payload = _SERPENT.dumps({"handshake": hello, "object": uri.object})
        conn.send(frame(MSG_CONNECT, [payload], serializer_id=_SERPENT.serializer_id))
        message = conn.recv_message(max_body_bytes=_HANDSHAKE_REPLY_BYTES, deadline=deadline)
        if message.type not in (MSG_CONNECTOK, MSG_CONNECTFAIL) or message.serializer_id != _SERPENT.serializer_id:
            raise ProtocolError(f"{uri} answered the handshake with something else")
        answer = _SERPENT.loads(bytes(message.payload))
        if message.type == MSG_CONNECTFAIL:
            raise KernelUnreachableError(f"{uri} refused the connection: {answer}")
        return conn, answer["handshake"]
    except (OSError, ConnectionClosedError) as error:
        conn.close()
        raise KernelUnreachableError(f"{uri} did not complete the handshake: {error}") from error
    except BaseException:
        conn.close()
        raise


def _dial(uri: core.URI, timeout: float) -> Connection:
    """Connect a socket to where a URI points, and check who listens there."""
    if uri.sockname:
        try:
            path = check_socket_path(uri.sockname)
        except FileNotFoundError as error:
            raise KernelUnreachableError(f"nobody listens at {uri.sockname}: the directory is gone") from error
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target: Any = str(path)
    else:
        check_loopback(uri.host)
        family = socket.AF_INET6 if ":" in uri.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        target = (uri.host.strip("[]"), uri.port)
    try:
        sock.settimeout(timeout)
        sock.connect(target)
        sock.settimeout(None)
        peer = check_peer(sock) if uri.sockname else Peer(uid=-1)
    except AccessRefusedError:
        sock.close()
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            sock.close()
        raise KernelUnreachableError(f"nobody answers at {uri.location}: {error}") from error
    return Connection(sock, peer, uri.object)
