"""Both ends of a connection that is handed on, without a gateway: whom they trust, and what other threads see."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from certificates import Authority

from pyrokernel.certs.ephemeral import make_paper
from pyrokernel.errors import ProtocolError
from pyrokernel.wire import sockets
from pyrokernel.wire.handed import SharedTlsSocket, follow, hand_on, paper_of, take_over
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.tls import TlsSocket

pytestmark = pytest.mark.skipif(not hasattr(socket, "send_fds"), reason="descriptors cannot be passed on here")


class Scene:
    """A client, its gateway, and a kernel; the first two have shaken hands."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "certs")
        self.client = Identity(self.authority.identity("user", "ana"))
        host = Identity(self.authority.identity("host", "lab1", ["lab1"]))
        self.paper = folder / "handed.pem"
        self.paper.write_bytes(make_paper("pyrokernel"))
        ours, theirs = socket.socketpair()
        self.inner, self.to_kernel = socket.socketpair()
        self.outer = TlsSocket(ours, self.client.client_context(), server_hostname="lab1")
        self.gateway = TlsSocket(theirs, host.server_context(), server_side=True)
        with ThreadPoolExecutor(1) as threads:
            done = threads.submit(self.gateway.shake_hands, time.monotonic() + 10)
            self.outer.shake_hands(time.monotonic() + 10)
            done.result(10)

    def hand_on(self, expected: bytes = b"", told: bytes = b"") -> tuple[SharedTlsSocket, TlsSocket]:
        """Have the kernel take the connection over; return both ends.

        Args:
            expected: Certificate that the kernel trusts, that of the client if not given.
            told: That which the client trusts, that of the kernel if not given.
        """
        expected = expected or self.gateway.certificate()
        hand_on(self.gateway, self.to_kernel)
        deadline = time.monotonic() + 10
        with ThreadPoolExecutor(1) as threads:
            taken = threads.submit(take_over, self.inner, self.paper, expected, deadline)
            try:
                followed = follow(self.outer, self.client, told or paper_of(self.paper), deadline)
            except OSError:
                self.outer.raw.shutdown(socket.SHUT_RDWR)
                with contextlib.suppress(OSError):
                    taken.result(10).close()
                raise
            return taken.result(10), followed

    def close(self) -> None:
        """Close all of it."""
        for sock in (self.outer, self.gateway, self.inner, self.to_kernel):
            sock.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


@pytest.fixture
def ends(scene: Scene) -> Iterator[tuple[SharedTlsSocket, TlsSocket]]:
    """Kernel and client, after the gateway has gone."""
    kernel, client = scene.hand_on()
    scene.gateway.close()
    yield kernel, client
    kernel.close()


def await_input(kernel: SharedTlsSocket) -> None:
    assert kernel.has_ahead or sockets.is_ready(kernel, 10)


def test_what_is_looked_at_is_read_afterwards_and_its_reader_is_told(ends: tuple[SharedTlsSocket, TlsSocket]) -> None:
    kernel, client = ends
    told = threading.Event()
    kernel.on_ahead = told.set
    with pytest.raises(BlockingIOError):
        sockets.look(kernel, 4)  # type: ignore[arg-type]  # as good as one
    client.sendall(b"request and more")
    await_input(kernel)
    assert sockets.look(kernel, 7) == b"request"  # type: ignore[arg-type]
    assert told.is_set()
    assert kernel.has_ahead
    assert not sockets.is_ready(kernel, 0.0), "no selector tells of it any more"
    assert sockets.look(kernel, 100) == b"request and more"  # type: ignore[arg-type]
    assert kernel.recv(8) == b"request "
    target = bytearray(4)
    assert kernel.recv_into(memoryview(target)) == 4
    assert target == b"and "
    assert kernel.read_pending() == b"more"
    assert not kernel.has_ahead
    with pytest.raises(BlockingIOError):
        kernel.recv(1)


def test_whoever_looks_sees_the_end(ends: tuple[SharedTlsSocket, TlsSocket]) -> None:
    kernel, client = ends
    client.shutdown(socket.SHUT_RDWR)
    await_input(kernel)
    assert sockets.look(kernel, 1) == b""  # type: ignore[arg-type]
    assert kernel.recv(1) == b""


def test_threads_that_look_disturb_neither_reading_nor_writing(ends: tuple[SharedTlsSocket, TlsSocket]) -> None:
    kernel, client = ends
    over = threading.Event()

    def looks() -> None:
        while not over.is_set():
            with contextlib.suppress(BlockingIOError):
                sockets.look(kernel, 100)  # type: ignore[arg-type]

    def echoes() -> None:
        while not over.is_set():
            view = memoryview(b"")
            with contextlib.suppress(BlockingIOError):
                view = memoryview(kernel.recv(100_000))
            while view:
                with contextlib.suppress(BlockingIOError):
                    view = view[kernel.send(view, sockets.NOW) :]

    client.setblocking(True)
    client.raw.settimeout(30)
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(one) for one in (looks, looks, echoes)]
        try:
            for number in range(100):
                piece = number.to_bytes(4) * 8_000
                client.sendall(piece)
                assert client.recv(len(piece), sockets.WAIT_ALL) == piece
        finally:
            over.set()
        for one in running:
            one.result(10)


def test_a_client_with_another_certificate_than_was_named_is_refused(scene: Scene) -> None:
    other = Identity(scene.authority.identity("user", "eve"))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        scene.hand_on(expected=paper_of(other.chain_file))


def test_a_kernel_with_another_certificate_than_was_named_is_refused(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(make_paper("pyrokernel"))
    with pytest.raises(OSError, match="certificate verify failed"):
        scene.hand_on(told=paper_of(tmp_path / "other.pem"))


def test_nothing_may_follow_the_answer(scene: Scene) -> None:
    scene.gateway.sendall(b"more")
    assert sockets.is_ready(scene.outer, 10)
    assert scene.outer.recv(1) == b"m"
    with pytest.raises(ProtocolError, match="something came behind"):
        scene.hand_on()


def test_a_gateway_that_hands_nothing_on_is_not_waited_for(scene: Scene) -> None:
    scene.to_kernel.sendall(b"\0")
    client = scene.gateway.certificate()
    with pytest.raises(ConnectionResetError, match="handed nothing on"):
        take_over(scene.inner, scene.paper, client, time.monotonic() + 10)
    with pytest.raises(TimeoutError):
        take_over(scene.inner, scene.paper, client, time.monotonic() + 0.05)
