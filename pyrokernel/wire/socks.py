"""Connections through a SOCKS5 proxy (RFC 1928), such as `ssh -D` makes one. Runs in every process that dials.

The proxy sees bytes under TLS, and cannot pass for anybody: certificates are checked as without it.
"""

from __future__ import annotations

import errno
import socket
import time

from pyrokernel.errors import SettingsError
from pyrokernel.wire import sockets

__all__ = ["connect_by"]

_VERSION, _NO_AUTHENTICATION, _CONNECT, _BY_NAME = 5, 0, 1, 3
_ADDRESS_BYTES = {1: 4, 4: 16}

_REPLIES = {
    3: errno.ENETUNREACH,
    4: errno.EHOSTUNREACH,
    5: errno.ECONNREFUSED,
    6: errno.ETIMEDOUT,
}


def connect_by(proxy: str, host: str, port: int, timeout: float) -> socket.socket:
    """Connect to an address by a proxy; names are looked up there.

    Args:
        proxy: Its "HOST:PORT".
        host, port: Where to.
        timeout: Seconds for all of it.

    Raises:
        SettingsError: The address of the proxy is none.
        OSError: The proxy does not answer, is none, or does not get there.
    """
    deadline = time.monotonic() + timeout
    name, colon, number = proxy.rpartition(":")
    if not (colon and name and number.isdecimal()):
        raise SettingsError(f"via={proxy!r}: use HOST:PORT of a SOCKS5 proxy, such as 127.0.0.1:1080 of ssh -D 1080")
    try:
        sock = socket.create_connection((name.strip("[]"), int(number)), timeout)
    except OSError as error:
        raise ConnectionError(
            f"no SOCKS proxy answers at {proxy}, the setting via ({error.strerror or error}); try ssh -N -D {number}"
        ) from error
    try:
        _ask(sock, host.encode("idna" if not host.isascii() else "ascii"), port, deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def _ask(sock: socket.socket, host: bytes, port: int, deadline: float) -> None:
    sock.sendall(bytes([_VERSION, 1, _NO_AUTHENTICATION]))
    if _receive(sock, 2, deadline) != bytes([_VERSION, _NO_AUTHENTICATION]):
        raise ConnectionError("what answers there is no SOCKS5 proxy, or wants a password (setting via)")
    sock.sendall(bytes([_VERSION, _CONNECT, 0, _BY_NAME, len(host)]) + host + port.to_bytes(2, "big"))
    _, reply, _, kind = _receive(sock, 4, deadline)
    if reply:
        number = _REPLIES.get(reply, errno.ECONNABORTED)
        raise OSError(number, f"the proxy does not get there (reply {reply})")
    size = _ADDRESS_BYTES.get(kind) or _receive(sock, 1, deadline)[0]
    _receive(sock, size + 2, deadline)


def _receive(sock: socket.socket, size: int, deadline: float) -> bytes:
    gone = ConnectionError("the proxy hung up; it does not get there, or does not want to")
    return sockets.receive(sock, size, deadline, gone)
