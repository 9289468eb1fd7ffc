"""A socket under TLS does what those do that connections know: no more waits, no fewer bytes."""

from __future__ import annotations

import os
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority

from pyrokernel.errors import AccessRefusedError
from pyrokernel.wire import codec
from pyrokernel.wire.connection import MSG_INVOKE, EagerReader, frame, send_now
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.tls import TlsSocket

NOW = socket.MSG_DONTWAIT


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def contexts(authority: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    host = Identity(authority.identity("host", "lab1", ["localhost"]))
    user = Identity(authority.identity("user", "ana"))
    return host.server_context(), user.client_context()


def joined(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[TlsSocket, TlsSocket]:
    """Return the two ends of a connection on which hands were shaken."""
    ours, theirs = socket.socketpair()
    far = TlsSocket(theirs, server, server_side=True)
    near = TlsSocket(ours, client, server_hostname="localhost")
    thread = threading.Thread(target=far.shake_hands, args=(time.monotonic() + 10,))
    thread.start()
    near.shake_hands(time.monotonic() + 10)
    thread.join(10)
    return near, far


@pytest.fixture
def pair(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[tuple[TlsSocket, TlsSocket]]:
    near, far = joined(*contexts)
    yield near, far
    near.close()
    far.close()


def test_each_sees_the_certificate_of_the_other(pair: tuple[TlsSocket, TlsSocket]) -> None:
    near, far = pair
    assert ("URI", "pyrokernel:host:lab1") in near.getpeercert()["subjectAltName"]
    assert ("URI", "pyrokernel:user:ana") in far.getpeercert()["subjectAltName"]


def test_without_waiting_nothing_is_there_until_it_is(pair: tuple[TlsSocket, TlsSocket]) -> None:
    near, far = pair
    with pytest.raises(BlockingIOError):
        far.recv(10, NOW)
    with pytest.raises(BlockingIOError):
        far.recv_into(memoryview(bytearray(10)), 0, NOW)
    assert near.send(b"0123456789") == 10
    assert far.recv(4, NOW) == b"0123"
    assert far.read_pending() == b"456789"  # of which a selector tells nothing
    assert far.read_pending() == b""


def test_a_receiver_that_waits_for_all_gets_all(pair: tuple[TlsSocket, TlsSocket]) -> None:
    near, far = pair
    data = os.urandom(3_000_000)
    thread = threading.Thread(target=near.sendall, args=(data,))
    thread.start()
    buffer = bytearray(len(data) - 7)
    assert far.recv_into(memoryview(buffer), 0, socket.MSG_WAITALL) == len(buffer)
    assert bytes(buffer) + far.recv(7, socket.MSG_WAITALL) == data
    thread.join(10)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_full_socket_does_not_take_is_sent_when_it_is_sent_again(
    pair: tuple[TlsSocket, TlsSocket], seed: int
) -> None:
    near, far = pair
    chance = random.Random(seed)
    near.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    buffers = [chance.randbytes(chance.choice((1, 40, 900, 70_000, 400_000))) for _ in range(30)]
    left: list[codec.Buffer] = list(buffers)
    got = bytearray()
    refused = 0
    while left or len(got) < sum(map(len, buffers)):
        before = left
        left = send_now(near, left)  # type: ignore[arg-type]  # of either kind
        refused += left is before and bool(left)
        for _ in range(chance.randrange(3)):
            try:
                got += far.recv(chance.randrange(1, 100_000), NOW)
            except BlockingIOError:
                break
    assert bytes(got) == b"".join(buffers)
    assert refused


def test_messages_that_come_together_are_all_read_though_the_socket_is_empty(
    pair: tuple[TlsSocket, TlsSocket],
) -> None:
    near, far = pair
    values = [b"a" * 10, b"b" * 100_000, b"c" * 20, b"d" * 300_000, b"e"]
    reader, found = EagerReader(), []
    thread = threading.Thread(
        target=lambda: near.sendall(
            b"".join(b"".join(map(bytes, frame(MSG_INVOKE, codec.encode(value)))) for value in values)
        )
    )
    thread.start()
    far.setblocking(False)
    deadline = time.monotonic() + 20
    while len(found) < len(values):
        # As a selector loop: it reads when there is something to read, and never otherwise.
        assert select.select([far], [], [], max(0.0, deadline - time.monotonic()))[0]
        message = reader.read(far)
        while message is not None:
            found.append(codec.decode(message.payload))
            message = reader.next()
    thread.join(10)
    assert found == values


def test_the_end_of_a_connection_is_the_end(pair: tuple[TlsSocket, TlsSocket]) -> None:
    near, far = pair
    near.send(b"last words")
    assert far.is_open() is False  # it talks out of turn
    near.shutdown(socket.SHUT_RDWR)
    near.close()
    assert far.recv(100) == b""
    assert far.is_open() is False


def test_a_connection_that_was_cut_off_is_over(pair: tuple[TlsSocket, TlsSocket]) -> None:
    near, far = pair
    assert far.is_open()
    near.raw.shutdown(socket.SHUT_RDWR)  # no goodbye
    assert far.recv_available() == b""
    assert not far.is_open()


def test_a_handshake_that_does_not_come_to_an_end_is_given_up(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError, match="in time"):
        TlsSocket(ours, contexts[1], server_hostname="localhost").shake_hands(time.monotonic() + 0.2)


def test_whoever_is_refused_behind_the_handshake_is_told_why(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    """In TLS 1.3 a client is through before its certificate is judged."""
    stranger = Identity(Authority(tmp_path, "other").identity("user", "eve"))
    client = stranger.client_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    ours, theirs = socket.socketpair()
    far = TlsSocket(theirs, contexts[0], server_side=True)
    near = TlsSocket(ours, client)
    near.explain = lambda error: f"refused: {error.reason}"
    refused: list[Exception] = []

    def serve() -> None:
        try:
            far.shake_hands(time.monotonic() + 10)
        except ssl.SSLError as error:
            refused.append(error)

    thread = threading.Thread(target=serve)
    with ours, theirs:
        thread.start()
        near.shake_hands(time.monotonic() + 10)
        with pytest.raises(AccessRefusedError, match="refused: TLSV1_ALERT_UNKNOWN_CA"):
            near.recv(10)
        thread.join(10)
    assert isinstance(refused[0], ssl.SSLCertVerificationError)
