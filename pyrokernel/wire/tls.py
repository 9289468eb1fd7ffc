"""A socket that speaks TLS, and otherwise behaves as the sockets do that `connection` knows. Runs in every process.

Python's own `SSLSocket` takes no flags, sends no lists of buffers, and hides from a selector what it has decrypted
already. `TlsSocket` keeps OpenSSL apart from the system's socket (`ssl.MemoryBIO`), so that each call can say
whether it waits, and whoever reads can take all there is.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from pyrokernel.errors import AccessRefusedError
from pyrokernel.wire import silence, sockets
from pyrokernel.wire.codec import Buffer

__all__ = ["AnySocket", "TlsSocket", "expect_answers", "keep_watch"]

_CIPHER_BYTES = 256 * 1024
"""Taken from the socket with one call."""

_PLAIN_BYTES = 64 * 1024
"""Encrypted with one call; what the socket does not take of it waits here."""

_KEEPALIVE = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2}
"""Where nothing is under way the system asks once a second; a machine that is silent for three is gone."""

_TCP_INFO = struct.Struct("=24xI28xI")
"""tcp_info of <linux/tcp.h>: tcpi_unacked, and tcpi_last_ack_recv in milliseconds."""


class TlsSocket:
    """A connected socket under TLS; for one thread at a time, as every connection.

    Args:
        sock: Connected, and blocking or not.
        context: Says whom to trust, and who this side is.
        server_side: Whether this side was connected to.
        server_hostname: Whose certificate the other side must show.

    Attributes:
        address: "HOST:PORT" that was dialled, "" for who was dialled.
        explain: Says what an error after the handshake means; None where nobody is to be told.
    """

    __slots__ = ("_engine", "_incoming", "_outgoing", "_over", "_owed", "_unsent", "address", "explain", "raw")

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str = ""
    ) -> None:
        self.raw = sock
        self.address = ""
        self.explain: Callable[[ssl.SSLError], str] | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._engine = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname or None
        )
        self._unsent = memoryview(b"")
        self._owed = 0
        self._over = False

    # The handshake

    def shake_hands(self, deadline: float) -> None:
        """Wait for the handshake to be over.

        Raises:
            ssl.SSLError: It failed.
            TimeoutError: Not by then.
            OSError: The connection failed.
        """
        while not self.advance():
            left = deadline - time.monotonic()
            if left <= 0 or not sockets.is_ready(self.raw, left):
                raise TimeoutError("the other side did not finish the TLS handshake in time")

    def advance(self) -> bool:
        """Go on with the handshake as far as what has arrived allows; say whether it is over.

        Raises:
            ssl.SSLError: It failed; the other side is told why.
            ConnectionResetError: The other side has hung up.
        """
        while True:
            try:
                self._engine.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(sockets.NOW)
            except ssl.SSLError:
                self._try_to_flush()  # the alert
                raise
            else:
                self._flush(0)
                return True
            try:
                data = self.raw.recv(_CIPHER_BYTES, sockets.NOW)
            except (BlockingIOError, InterruptedError):
                return False
            if not data:
                raise ConnectionResetError("the other side hung up during the TLS handshake")
            self._incoming.write(data)

    def getpeercert(self) -> dict[str, Any]:
        """Return the certificate of the other side, as `ssl.SSLSocket.getpeercert`."""
        return dict(self._engine.getpeercert() or {})

    def certificate(self) -> bytes:
        """Return the certificate of the other side in DER."""
        return self._engine.getpeercert(binary_form=True) or b""

    # Receiving

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive up to `size` bytes, with `MSG_WAITALL` all of them; b"" at the end of the connection."""
        if flags & sockets.WAIT_ALL:
            buffer = bytearray(size)
            return bytes(buffer[: self.recv_into(memoryview(buffer), 0, flags)])
        if not (self._incoming.pending or self._engine.pending()):
            if self._over:
                return b""
            self._take(flags)  # to try in vain first, and be told so by an exception, would take longer
        while True:
            try:
                found = self._engine.read(size)
                self._over = self._over or not found  # a goodbye: Python has no exception for the usual one
                return found
            except ssl.SSLWantReadError:
                self._take(flags)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise self._refused(error) from error

    def recv_into(self, buffer: memoryview, count: int = 0, flags: int = 0) -> int:
        """Receive into a buffer what is there; on a socket that waits, with `MSG_WAITALL`, until it is full."""
        target = memoryview(buffer)[: count or None]
        have = 0
        while have < len(target):
            try:
                count = self._read_into(target[have:])
                if not count:  # a goodbye, as in `recv`: what comes behind it is never read
                    self._over = True
                    break
                have += count
                continue
            except ssl.SSLWantReadError:
                if have and not flags & sockets.WAIT_ALL:
                    break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            except ssl.SSLError as error:
                raise self._refused(error) from error
            if self._over and not self._incoming.pending:
                break
            try:
                self._take(flags)
            except (BlockingIOError, InterruptedError):
                if have:
                    break
                raise
        return have

    def _read_into(self, target: memoryview) -> int:
        # typeshed knows bytearrays only, and not that a number comes back.
        return self._engine.read(len(target), target)  # type: ignore[return-value]

    def read_pending(self) -> bytes:
        """Return what has been received already and nobody has read: a selector does not tell of it."""
        parts = []
        while self._engine.pending() or self._incoming.pending:
            try:
                part = self._engine.read(_CIPHER_BYTES)
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                self._over = True
                break
            except ssl.SSLError as error:
                raise self._refused(error) from error
            if not part:  # a goodbye, whatever comes behind it
                self._over = True
                break
            parts.append(part)
        return b"".join(parts)

    def recv_available(self) -> bytes | None:
        """Take once from the socket, without waiting; return all that can be read now, None if that is nothing yet.

        Returns:
            b"" at the end of the connection.

        Raises:
            BlockingIOError: Nothing has arrived.
        """
        self._take(sockets.NOW)
        found = self.read_pending()
        return found if found or self._over else None

    def _refused(self, error: ssl.SSLError) -> OSError:
        """Return what to raise: in TLS 1.3 a server judges a certificate when the client is through already."""
        return error if self.explain is None else AccessRefusedError(self.explain(error))

    def is_open(self) -> bool:
        """Whether the other side has neither hung up nor talked out of turn; looks, does not wait."""
        if self._over:
            return False
        try:
            self._take(sockets.NOW)
            return not self.read_pending() and not self._over
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False

    def _take(self, flags: int) -> None:
        try:
            data = self.raw.recv(_CIPHER_BYTES, flags & sockets.NOW)
        except OSError as error:
            silence.note(self.address, error)
            raise
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
            self._over = True

    # Sending

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Send some of the data; return how much.

        Raises:
            BlockingIOError: The socket takes nothing now. What was encrypted waits here: the same data must come again.
        """
        view = memoryview(data)
        done = 0
        try:
            while done < len(view):
                if not self._owed:
                    self._owed = self._engine.write(view[done : done + _PLAIN_BYTES])
                self._flush(flags)
                done, self._owed = done + self._owed, 0
        except (BlockingIOError, InterruptedError):
            if not done:
                raise
        return done

    def sendmsg(self, buffers: Sequence[Buffer], ancillary: Sequence[Any] = (), flags: int = 0) -> int:
        """Send some of several buffers, small ones together; as `send`."""
        assert not ancillary, "nothing goes beside the data of a connection under TLS"
        first = buffers[0]
        if len(buffers) > 1 and len(first) < _PLAIN_BYTES:
            joined, size = [], 0
            for buffer in buffers:
                part = memoryview(buffer).cast("B")[: _PLAIN_BYTES - size]
                joined.append(part)
                size += len(part)
                if size == _PLAIN_BYTES:
                    break
            first = b"".join(joined)
        return self.send(first, flags)

    def sendall(self, data: Buffer) -> None:
        """Send all of the data, on a socket that waits."""
        view = memoryview(data)
        while view:
            view = view[self.send(view) :]

    def _flush(self, flags: int) -> None:
        """Write what was encrypted.

        Raises:
            BlockingIOError: The socket does not take all of it now.
        """
        flags &= sockets.NOW
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            try:
                self._unsent = self._unsent[self.raw.send(self._unsent, flags) :]
            except OSError as error:
                silence.note(self.address, error)
                raise

    def _try_to_flush(self) -> None:
        try:
            self._flush(sockets.NOW)
        except OSError:
            return  # whoever has hung up is told nothing

    def check_heard(self) -> None:
        """See whether the other machine acknowledges what was sent; the system itself waits for minutes.

        TCP_USER_TIMEOUT would end healthy connections too: those to a process that does not read for a while.

        Raises:
            TimeoutError: It has not for too long.
        """
        if sys.platform != "linux":
            return
        info = self.raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        unacknowledged, since = _TCP_INFO.unpack(info)
        if unacknowledged and since > silence.GONE_SECONDS * 1000:
            error = TimeoutError(errno.ETIMEDOUT, f"nothing was acknowledged for {since / 1000:.1f} s")
            silence.note(self.address, error)
            raise error

    # As of the system's socket

    def fileno(self) -> int:
        """Return the descriptor, -1 when it is closed."""
        return self.raw.fileno()

    @property
    def family(self) -> int:
        """Address family of the socket."""
        return self.raw.family

    def getsockname(self) -> Any:
        """Return the address of this side."""
        return self.raw.getsockname()

    def setblocking(self, waits: bool) -> None:
        """Have calls without flags wait, or not."""
        self.raw.setblocking(waits)

    def settimeout(self, seconds: float | None) -> None:
        """Have calls wait so long; None for ever."""
        self.raw.settimeout(seconds)

    def gettimeout(self) -> float | None:
        """Return how long calls wait."""
        return self.raw.gettimeout()

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option of the socket."""
        self.raw.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        """End the connection, with a goodbye if the socket takes it at once."""
        with contextlib.suppress(ssl.SSLError):  # the other side's goodbye is not waited for
            self._engine.unwrap()
        self._try_to_flush()
        self.raw.shutdown(how)

    def close(self) -> None:
        """Close the descriptor."""
        self.raw.close()


AnySocket = socket.socket | TlsSocket


def keep_watch(sock: socket.socket) -> None:
    """Have the system find out within seconds that a machine has gone, and send what is small at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def expect_answers(sock: AnySocket) -> None:
    """Have the system give up as soon on what is not acknowledged: for who asks somebody who always reads."""
    if isinstance(sock, TlsSocket) and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence.GONE_SECONDS * 1000))
