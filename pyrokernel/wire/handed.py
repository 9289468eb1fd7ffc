"""Connections from other machines that their gateway has handed on: TLS without a hop. Runs in every process.

A gateway judges whoever comes, and pumps what they say. Where a client asks for it in its first message, and the kernel
agrees in its answer, the gateway stops there: it gives its socket to the kernel, and the two shake hands once more, on
the same connection. Each trusts one certificate and no other: the kernel the one that the gateway has verified, the
client the one of which the gateway has told it under TLS. So the kernel holds a key that is good for nothing else, and
the host's stays where it is. The gateway keeps the socket too, to hang up, and the connection to the kernel: when that
ends, so does what was handed on.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pyrokernel.errors import ProtocolError
from pyrokernel.wire import sockets
from pyrokernel.wire.codec import Buffer
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.tls import TlsSocket

__all__ = ["HAND", "SharedTlsSocket", "follow", "hand_on", "paper_of", "take_over"]

HAND = b"PKHA"
"""Annotation: in the first message of a client, empty, that it would be handed on; as the gateway passes that message
on, the certificate of the client, in DER; in the answer, that of the kernel."""

_TOKEN = b"\0"


class SharedTlsSocket(TlsSocket):
    """A socket under TLS at which other threads may look, as `sockets.look` does, while one reads and one writes.

    What they look at is decrypted then, and no selector tells of it any more.

    Attributes:
        on_ahead: Called when that has happened, on the thread that looked.
    """

    __slots__ = ("_ahead", "_guard", "on_ahead")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock, context, server_side=True)
        self._guard = threading.RLock()
        self._ahead = b""
        self.on_ahead: Callable[[], None] = lambda: None

    @property
    def has_ahead(self) -> bool:
        """Whether something is here of which a selector does not tell: that, or what came with the handshake."""
        return bool(self._ahead or self._incoming.pending or self._engine.pending())

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As `TlsSocket.recv`; with `MSG_PEEK`, what is here stays here."""
        if flags & socket.MSG_PEEK:
            return self._look(size)
        with self._guard:
            if self._ahead:
                found, self._ahead = self._ahead[:size], self._ahead[size:]
                return found
            return super().recv(size, flags)

    def _look(self, size: int) -> bytes:
        with self._guard:
            if self._ahead:
                return self._ahead[:size]
            with contextlib.suppress(BlockingIOError):
                self._ahead = super().recv_available() or b""
            found = self._ahead[:size]
            if not found and not self._over:
                raise BlockingIOError("nothing has arrived")
        if found:
            self.on_ahead()
        return found

    def recv_into(self, buffer: memoryview, count: int = 0, flags: int = 0) -> int:
        """As `TlsSocket.recv_into`."""
        with self._guard:
            if self._ahead:
                target = memoryview(buffer)[: count or None]
                found = self.recv(len(target))
                target[: len(found)] = found
                return len(found)
            return super().recv_into(buffer, count, flags)

    def read_pending(self) -> bytes:
        """As `TlsSocket.read_pending`."""
        with self._guard:
            found, self._ahead = self._ahead, b""
            return found + super().read_pending()

    def send(self, data: Buffer, flags: int = 0) -> int:
        """As `TlsSocket.send`."""
        with self._guard:
            return super().send(data, flags)

    def shutdown(self, how: int) -> None:
        """As `TlsSocket.shutdown`."""
        with self._guard:
            super().shutdown(how)


def follow(sock: TlsSocket, identity: Identity, kernel: bytes, deadline: float) -> TlsSocket:
    """Shake hands with the kernel to which a connection was handed on.

    Args:
        sock: On which the gateway's answer came, the last that it says.
        identity: Shown to it.
        kernel: Its certificate, in DER.
        deadline: Monotonic moment by which that is done.

    Raises:
        OSError: It failed, or took too long.
        ProtocolError: Something came behind the answer.
    """
    if sock.read_pending():
        raise ProtocolError("something came behind the answer with which a connection is handed on")
    context = _context(ssl.PROTOCOL_TLS_CLIENT, kernel)
    identity.load_pair(context)
    found = TlsSocket(sock.raw, context)
    found.address = sock.address
    found.shake_hands(deadline)
    _check(found, kernel)
    return found


def paper_of(file: Path) -> bytes:
    """Return the certificate in a gateway's paper, in DER.

    Raises:
        OSError, ValueError: There is none.
    """
    text = file.read_text("ascii")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    _, begun, rest = text.partition(begin)
    if not begun:
        raise ValueError(f"{file} has no certificate")
    return ssl.PEM_cert_to_DER_cert(begin + rest.partition(end)[0] + end)


def take_over(inner: socket.socket, paper: Path, client: bytes, deadline: float) -> SharedTlsSocket:
    """Take a connection from the gateway, and shake hands with whoever is at its other end.

    Args:
        inner: Connection to the gateway, whose request to take it over was answered with yes.
        paper: Key and certificate.
        client: Certificate of who must be there, in DER.
        deadline: Monotonic moment by which that is done.

    Raises:
        OSError: It failed, or took too long.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, client)
    context.num_tickets = 0
    context.load_cert_chain(paper)
    inner.settimeout(max(0.001, deadline - time.monotonic()))
    token, descriptors, _, _ = socket.recv_fds(inner, len(_TOKEN), 1)
    if token != _TOKEN or not descriptors:
        raise ConnectionResetError("the gateway has handed nothing on")
    sock = socket.socket(fileno=descriptors[0])
    try:
        sock.setblocking(False)
        found = SharedTlsSocket(sock, context)
        found.shake_hands(deadline)
        _check(found, client)
    except BaseException:
        sock.close()
        raise
    inner.setblocking(False)
    return found


def hand_on(sock: TlsSocket, inner: socket.socket) -> None:
    """Give the socket of a connection to the process at the other end of another one; that reads it from now on.

    Raises:
        OSError: It is not taken.
    """
    socket.send_fds(inner, [_TOKEN], [sock.raw.fileno()], sockets.NOW)


def _context(protocol: int, other: bytes) -> ssl.SSLContext:
    """Return what trusts one certificate and nobody else."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=other)
    return context


def _check(sock: TlsSocket, other: bytes) -> None:
    if sock.certificate() != other:
        raise ConnectionAbortedError("the certificate at the other end is not the one that the gateway has vouched for")
