"""The floor: the least that a round trip or a copy can take on this machine. Runs in the process of an experiment."""

from __future__ import annotations

import multiprocessing
import socket
from types import TracebackType
from typing import Any, Self

import functions

MESSAGE_BYTES = 64


class RawSocket:
    """A byte string to another process and back over a unix socket, nothing encoded."""

    name = "raw socket"

    def __init__(self, *, tcp: bool = False) -> None:
        self._tcp = tcp
        if tcp:
            self.name = "raw socket, TCP"

    def __enter__(self) -> Self:
        self._sock, other = tcp_pair() if self._tcp else socket.socketpair()
        self._process = multiprocessing.get_context("fork").Process(target=self._echo, args=(other,), daemon=True)
        self._process.start()
        other.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._sock.close()
        self._process.join(5)

    def _echo(self, other: socket.socket) -> None:
        self._sock.close()
        while content := other.recv(MESSAGE_BYTES):
            number = int.from_bytes(content, "little")
            other.sendall((number + 1).to_bytes(MESSAGE_BYTES, "little"))

    def call(self, number: int) -> int:
        """Send a number; return what comes back."""
        self._sock.sendall(number.to_bytes(MESSAGE_BYTES, "little"))
        return int.from_bytes(self._sock.recv(MESSAGE_BYTES), "little")


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two sockets that are connected by TCP on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for sock in (one, other):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other


class Memory:
    """Copies within one process, on one core, to pages that are there already, and the checksum of the copy."""

    name = "memcpy + checksum"

    def __init__(self, array: Any) -> None:
        import numpy as np

        self._array, self._copy = array, np.empty_like(array)
        np.copyto(self._copy, array)
        self._into = np.copyto

    def copy(self, _: int) -> int:
        """Copy once; return the checksum."""
        self._into(self._copy, self._array)
        return functions.checksum(self._copy)

    def copy_and_sum(self, times: int, parts: int = 1) -> list[int]:
        """Copy once; return the checksums of each of so many equal parts, all of it taken so often."""
        self._into(self._copy, self._array)
        size = len(self._copy) // parts
        found = []
        for _ in range(times):
            found += [functions.checksum(self._copy[part * size : (part + 1) * size]) for part in range(parts)]
        return found
