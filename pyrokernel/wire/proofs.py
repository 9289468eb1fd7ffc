"""The proof that both ends of a connection can read one file. Runs in every process; `endpoints` says what for.

The messages, which have fixed sizes, and in which nothing is decoded:

    client: nonce (32)
    server: nonce (32), process id (8), MAC (32)
    client: process id (8), MAC (32)

The MAC is HMAC-SHA256 with the key over who speaks, the port, the process id and both nonces: a port that somebody
else has by now can neither prove anything nor pass anything on to where it is proved. The key is never sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pyrokernel.wire import sockets

if TYPE_CHECKING:
    from pyrokernel.wire.codec import Buffer

__all__ = ["PROOF_SECONDS", "Address", "Dialled", "Unproven", "be_proved"]

PROOF_SECONDS = 3.0
"""How long the first word of the other end may take, and each step for whoever waits for it."""

_PATIENCE_SECONDS = 30.0
"""How long a client that has asked for the proof may take to look at it: it may be busy with a thousand others."""

_HELD_BYTES = 64 * 1024
"""So much may be sent before the other end has proved itself: a handshake and a short request."""

_NONCE_BYTES = 32
_CONTEXT = b"pyrokernel endpoint 1"
_SERVER, _CLIENT = b"S", b"C"
_PROOF = struct.Struct("!Q32s")
"""Process id and MAC."""


class Address(NamedTuple):
    """What the file of an endpoint says."""

    port: int
    key: bytes


def be_proved(client: socket.socket, address: Address) -> int | None:
    """Prove this end, the listening one, have the other one prove itself, and return its process id; None if it fails.

    Raises:
        OSError: It has gone, or says nothing.
    """
    theirs, ours = _receive(client, _NONCE_BYTES, PROOF_SECONDS), os.urandom(_NONCE_BYTES)
    nonces = theirs + ours
    client.sendall(ours + _proof(address, _SERVER, os.getpid(), nonces))
    return _check(address, _CLIENT, _receive(client, _PROOF.size, _PATIENCE_SECONDS), nonces)


class Dialled(socket.socket):
    """A connection to a keyed endpoint that has proved itself."""

    pid = 0
    """The process at the other end."""


class Unproven(Dialled):
    """A connection to a keyed endpoint that has not proved itself yet; an ordinary one from the moment it has.

    What is sent is held back; the proof is taken by the first call that receives, and by `prove`.
    """

    def begin(self, address: Address) -> None:
        """Ask for the proof."""
        self._address = address
        self._nonce = os.urandom(_NONCE_BYTES)
        self._come = b""
        self._held = bytearray()
        self.sendall_now(self._nonce)

    def sendall_now(self, data: bytes) -> None:
        """Send past what is held back."""
        socket.socket.sendall(self, data)

    def prove(self, seconds: float) -> int:
        """Wait for the proof and return the process id of the other end.

        Raises:
            TimeoutError: It has not come by then.
            ConnectionRefusedError, OSError: It is none, or the connection ended.
        """
        deadline = time.monotonic() + seconds
        while not self.pid:
            if not sockets.is_ready(self, deadline - time.monotonic()):
                raise TimeoutError(f"who listens at port {self._address.port} has not proved itself in {seconds:g} s")
            with contextlib.suppress(BlockingIOError):
                self._take()
        return self.pid

    def send(self, data: Any, flags: int = 0) -> int:
        """Send, or hold back."""
        if sockets.is_ready(self, 0.0):
            self._take()
            return self.send(data, flags)
        return self._hold([data])

    def sendmsg(self, buffers: Any, *others: Any) -> int:
        """Send, or hold back."""
        if sockets.is_ready(self, 0.0):
            self._take()
            return self.sendmsg(buffers, *others)
        return self._hold(buffers)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of it, once the other end has proved itself."""
        self.prove(PROOF_SECONDS)
        self.sendall(data, flags)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Take the proof, then receive."""
        self._take(flags)
        return socket.socket.recv(self, size, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Take the proof, then receive."""
        self._take(flags)
        return socket.socket.recv_into(self, buffer, nbytes, flags)

    def _hold(self, buffers: Sequence[Buffer]) -> int:
        before = len(self._held)
        for buffer in buffers:
            self._held += memoryview(buffer).cast("B")[: _HELD_BYTES - len(self._held)]
        if len(self._held) == before:
            raise BlockingIOError("the other end has not proved itself yet")
        return len(self._held) - before

    def _take(self, flags: int = 0) -> None:
        """Take what has come of the proof; once it is whole, prove this end, and be an ordinary connection.

        Raises:
            BlockingIOError: It is not whole yet.
            ConnectionRefusedError, OSError: As `prove`.
        """
        size = _NONCE_BYTES + _PROOF.size
        while len(self._come) < size:
            piece = socket.socket.recv(self, size - len(self._come), flags & ~socket.MSG_PEEK)
            if not piece:
                raise _hung_up()
            self._come += piece
        nonces = self._nonce + self._come[:_NONCE_BYTES]
        pid = _check(self._address, _SERVER, self._come[_NONCE_BYTES:], nonces)
        if pid is None:
            raise ConnectionRefusedError(f"port {self._address.port} belongs to somebody else by now")
        self.pid = pid
        self.__class__ = Dialled  # type: ignore[assignment]  # from here on nothing of the above is in the way
        waits = self.gettimeout()
        self.settimeout(PROOF_SECONDS)
        try:
            self.sendall(_proof(self._address, _CLIENT, os.getpid(), nonces) + self._held)
        finally:
            self.settimeout(waits)


def _receive(sock: socket.socket, size: int, seconds: float) -> bytes:
    return sockets.receive(sock, size, time.monotonic() + seconds, _hung_up())


def _hung_up() -> ConnectionResetError:
    return ConnectionResetError("the other end closed the connection before it had proved itself")


def _mac(address: Address, who: bytes, pid: int, nonces: bytes) -> bytes:
    import hmac  # only portable mode needs it

    return hmac.digest(address.key, _CONTEXT + who + struct.pack("!HQ", address.port, pid) + nonces, "sha256")


def _proof(address: Address, who: bytes, pid: int, nonces: bytes) -> bytes:
    return _PROOF.pack(pid, _mac(address, who, pid, nonces))


def _check(address: Address, who: bytes, said: bytes, nonces: bytes) -> int | None:
    """Return the process id of the other end if it has the key."""
    import hmac

    pid, mac = _PROOF.unpack(said)
    return int(pid) if hmac.compare_digest(mac, _mac(address, who, pid, nonces)) else None
