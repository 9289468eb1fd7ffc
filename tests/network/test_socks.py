"""The way through a SOCKS5 proxy: what is asked of it, and what it means when it does not help."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from pyrokernel.errors import SettingsError
from pyrokernel.wire.silence import is_silence
from pyrokernel.wire.socks import connect_by


class Proxy:
    """Answers one client as it is told to.

    Args:
        answers: What it says to the greeting, and to the request.
    """

    def __init__(self, *answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard: list[bytes] = []
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock:
            for answer in self._answers:
                self.heard.append(sock.recv(1000))
                sock.sendall(answer)

    def close(self) -> None:
        self._thread.join(5)
        self._listener.close()


@pytest.fixture
def proxies() -> Iterator[list[Proxy]]:
    """Proxies that a test makes; all are closed."""
    made: list[Proxy] = []
    yield made
    for proxy in made:
        proxy.close()


WELCOME = b"\x05\x00"
DONE = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"


def test_a_name_is_looked_up_by_the_proxy_and_what_follows_is_the_connection(proxies: list[Proxy]) -> None:
    proxies.append(Proxy(WELCOME, DONE + b"hello"))
    with connect_by(proxies[0].address, "lab2.example", 9191, 5) as sock:
        assert sock.recv(100) == b"hello"
    assert proxies[0].heard == [b"\x05\x01\x00", b"\x05\x01\x00\x03\x0clab2.example\x23\xe7"]


def test_an_answer_with_a_name_is_read_whole(proxies: list[Proxy]) -> None:
    proxies.append(Proxy(WELCOME, b"\x05\x00\x00\x03\x02ab\x00\x50after"))
    with connect_by(proxies[0].address, "lab2", 1, 5) as sock:
        assert sock.recv(100) == b"after"


@pytest.mark.parametrize(("reply", "silent"), [(3, True), (4, True), (5, False), (6, True), (1, False)])
def test_a_proxy_that_does_not_get_there_says_why(proxies: list[Proxy], reply: int, silent: bool) -> None:
    proxies.append(Proxy(WELCOME, bytes([5, reply, 0, 1]) + bytes(6)))
    with pytest.raises(OSError, match="does not get there") as caught:
        connect_by(proxies[0].address, "lab2", 1, 5)
    assert is_silence(caught.value) is silent


@pytest.mark.parametrize("answer", [b"\x05\xff", b"HT", b"\x04\x00"])
def test_what_is_no_proxy_is_told_from_one(proxies: list[Proxy], answer: bytes) -> None:
    proxies.append(Proxy(answer))
    with pytest.raises(ConnectionError, match="no SOCKS5 proxy"):
        connect_by(proxies[0].address, "lab2", 1, 5)


def test_a_proxy_that_hangs_up_is_no_endless_wait(proxies: list[Proxy]) -> None:
    proxies.append(Proxy(WELCOME, b"\x05"))
    with pytest.raises(ConnectionError, match="hung up"):
        connect_by(proxies[0].address, "lab2", 1, 5)


def test_a_proxy_that_is_silent_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(TimeoutError):
        connect_by(f"127.0.0.1:{mute.getsockname()[1]}", "lab2", 1, 0.2)


def test_without_a_proxy_the_setting_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(ConnectionError, match=r"setting via.*ssh -N -D"):
            connect_by(f"127.0.0.1:{taken.getsockname()[1]}", "lab2", 1, 5)
    with pytest.raises(SettingsError, match="HOST:PORT"):
        connect_by("nonsense", "lab2", 1, 5)
