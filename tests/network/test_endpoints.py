"""In portable mode both ends prove that they are of one account, and nothing is said to anybody before that."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from Pyro5 import protocol
from served import OBJECT, Service
from waiting import wait_until

from pyrokernel.errors import AccessRefusedError, KernelUnreachableError
from pyrokernel.roles import Role
from pyrokernel.wire import daemon as daemon_module
from pyrokernel.wire import proofs
from pyrokernel.wire.connection import Connection, frame
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.direct import ask_directly
from pyrokernel.wire.endpoints import Endpoint, answers, dial, listen, prove
from pyrokernel.wire.fanout import Fanout, Request
from pyrokernel.wire.proofs import PROOF_SECONDS, Unproven
from pyrokernel.wire.proxy import connect
from pyrokernel.wire.trust import Peer

HOST = "127.0.0.1"


@pytest.fixture
def endpoint(private_dir: Path) -> Iterator[Endpoint]:
    """One that accepts nobody by itself."""
    found = listen(private_dir / "e.sock", portable=True)
    yield found
    found.close()


@pytest.fixture
def served(private_dir: Path, service: Service) -> Iterator[Daemon]:
    found = Daemon(private_dir / "d.sock", identity={"kernel": "k", "instance": "i"}, portable=True)
    found.register(service, OBJECT)
    found.start()
    yield found
    found.close()


class Squatter:
    """Somebody at a port of this machine who keeps what he hears, and passes it on if he is told where to."""

    def __init__(self, onward: int = 0) -> None:
        self.heard = b""
        self.passed_back = b""
        self._onward = onward
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._listen, args=(client,), daemon=True).start()

    def _listen(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if not self._onward:
                while piece := client.recv(65536):
                    self.heard += piece
                    client.sendall(piece * 3)  # as much as a proof is, and something of the client's own in it
                return
            with socket.create_connection((HOST, self._onward)) as other:
                threading.Thread(target=self._pass_back, args=(other, client), daemon=True).start()
                while piece := client.recv(65536):
                    self.heard += piece
                    other.sendall(piece)

    def _pass_back(self, other: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := other.recv(65536):
                self.passed_back += piece
                client.sendall(piece)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def squatter() -> Iterator[Squatter]:
    found = Squatter()
    yield found
    found.close()


def port_and_key(path: Path) -> tuple[int, str]:
    place, key = path.read_text().split()
    return int(place.rpartition(":")[2]), key


def write(path: Path, port: int, key: str) -> None:
    path.write_text(f"127.0.0.1:{port} {key}\n")
    path.chmod(0o600)


def knock(port: int) -> socket.socket:
    """Connect as anybody on this machine may."""
    return socket.create_connection((HOST, port), timeout=10)


def test_the_file_of_an_endpoint_is_for_its_account_alone(endpoint: Endpoint) -> None:
    info = endpoint.path.lstat()
    assert stat.S_ISREG(info.st_mode)
    assert stat.S_IMODE(info.st_mode) == 0o600
    assert endpoint.sock.getsockname()[0] == HOST


def test_no_two_endpoints_have_one_key(private_dir: Path) -> None:
    found = [listen(private_dir / f"{number}.sock", portable=True) for number in range(3)]
    assert len({port_and_key(one.path)[1] for one in found}) == 3
    for one in found:
        one.close()
        assert not one.path.exists()


def test_who_has_the_key_is_of_this_account(served: Daemon) -> None:
    peer = prove(served.locationStr.removeprefix("./u:"), 10)
    assert (peer.uid, peer.role) == (os.getuid(), Role.ADMIN)
    assert peer.pid == os.getpid(), "the listener says which process it is"


def test_the_listener_learns_the_process_of_its_client(endpoint: Endpoint) -> None:
    admitted: list[Peer] = []

    def admit() -> None:
        client, _ = endpoint.sock.accept()
        with client:
            admitted.append(endpoint.admit(client))

    thread = threading.Thread(target=admit)
    thread.start()
    prove(endpoint.path, 10)
    thread.join(10)
    assert admitted == [Peer(os.getuid(), os.getpid(), Role.ADMIN, admitted[0].user)]


def test_the_proof_is_the_one_that_the_protocol_describes(served: Daemon) -> None:
    """By docs/protocol.md, with nothing of ours."""
    port, key = port_and_key(Path(served.locationStr.removeprefix("./u:")))
    nonce = os.urandom(32)
    with knock(port) as sock:
        sock.sendall(nonce)
        answer = sock.recv(72, socket.MSG_WAITALL)
        theirs, pid, mac = answer[:32], answer[32:40], answer[40:]

        def mac_of(who: bytes, process: bytes) -> bytes:
            said = b"pyrokernel endpoint 1" + who + port.to_bytes(2, "big") + process + nonce + theirs
            return hmac.new(bytes.fromhex(key), said, hashlib.sha256).digest()

        assert (int.from_bytes(pid, "big"), mac) == (os.getpid(), mac_of(b"S", pid))
        own = (4711).to_bytes(8, "big")
        sock.sendall(own + mac_of(b"C", own))
        hello = json.dumps({"handshake": "hello", "object": OBJECT}).encode()
        sock.sendall(b"".join(frame(protocol.MSG_CONNECT, [hello], serializer_id=3)))
        assert sock.recv(40, socket.MSG_WAITALL)[6] == protocol.MSG_CONNECTOK


@pytest.mark.parametrize(
    "said",
    [b"\0" * 72, b"PYRO" + bytes(200), os.urandom(72), b"GET / HTTP/1.1\r\n\r\n" + bytes(60)],
    ids=["zeros", "stock", "noise", "web"],
)
def test_a_stranger_learns_nothing_and_reaches_nothing(served: Daemon, service: Service, said: bytes) -> None:
    port, key = port_and_key(Path(served.locationStr.removeprefix("./u:")))
    with knock(port) as sock:
        sock.sendall(said)
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(4096):
                heard += piece
    assert len(heard) in (0, 72), "a nonce, a process id and a MAC; where the reset was quicker, not even that"
    assert bytes.fromhex(key) not in heard
    wait_until(lambda: served.connection_count() == 0)
    assert not service.marked


def test_silent_strangers_hold_nobody_up_and_the_oldest_have_to_go(
    served: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "MAX_UNPROVEN", 20)
    port, _ = port_and_key(Path(served.locationStr.removeprefix("./u:")))
    silent = [knock(port) for _ in range(60)]
    try:
        started = time.monotonic()
        connection = connect(served.uri_for(OBJECT), kind="control")
        with contextlib.closing(connection):
            assert ask_directly(connection, OBJECT, "echo", ("x",), 10) == "x"
        assert time.monotonic() - started < PROOF_SECONDS, "it waited for the silent ones"
        assert silent[0].recv(1) == b""
        wait_until(lambda: served.connection_count() <= 20)
        wait_until(lambda: served.connection_count() == 0, timeout=15)
    finally:
        for sock in silent:
            sock.close()


def test_who_has_the_port_of_a_dead_endpoint_is_told_nothing(private_dir: Path, squatter: Squatter) -> None:
    path = private_dir / "dead.sock"
    key = os.urandom(32).hex()
    write(path, squatter.port, key)
    assert not answers(path)
    with pytest.raises(KernelUnreachableError, match="somebody else"):
        connect(f"PYRO:{OBJECT}@./u:{path}", kind="control")
    wait_until(lambda: len(squatter.heard) == 64)
    assert bytes.fromhex(key) not in squatter.heard, "a nonce of each of the two, and nothing else"


def test_a_port_cannot_pass_on_what_is_proved_at_another(endpoint: Endpoint, served: Daemon, private_dir: Path) -> None:
    path = Path(served.locationStr.removeprefix("./u:"))
    port, key = port_and_key(path)
    between = Squatter(onward=port)
    try:
        write(private_dir / "between.sock", between.port, key)
        with pytest.raises(ConnectionRefusedError, match="somebody else"):
            prove(private_dir / "between.sock", 10)
        assert len(between.heard) == 32, "this end has proved nothing"
    finally:
        between.close()


def test_no_key_is_ever_sent(served: Daemon, private_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not to those who have it: seen from a relay that is let through for once."""
    port, key = port_and_key(Path(served.locationStr.removeprefix("./u:")))
    between = Squatter(onward=port)
    mac = proofs._mac
    monkeypatch.setattr(proofs, "_mac", lambda address, *rest: mac(address._replace(port=1), *rest))
    try:
        write(private_dir / "between.sock", between.port, key)
        connection = connect(f"PYRO:{OBJECT}@./u:{private_dir / 'between.sock'}", kind="control")
        with contextlib.closing(connection):
            assert ask_directly(connection, OBJECT, "echo", ("x",), 10) == "x"
        for said in (between.heard, between.passed_back):
            assert len(said) > 72
            assert bytes.fromhex(key) not in said
            assert key.encode() not in said
    finally:
        between.close()


def test_a_file_that_others_may_read_is_refused(endpoint: Endpoint) -> None:
    endpoint.path.chmod(0o644)
    with pytest.raises(AccessRefusedError, match="others"):
        dial(endpoint.path, 1)


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1:1\n", "127.0.0.1:0 " + "0" * 64 + "\n", "127.0.0.1:70000 " + "0" * 64 + "\n",
     "192.0.2.1:80 " + "0" * 64 + "\n", "127.0.0.1:80 " + "0" * 63 + "\n", "127.0.0.1:80 " + "0" * 64 + "\nmore"],
)  # fmt: skip
def test_a_file_that_says_something_else_leads_nowhere(private_dir: Path, text: str) -> None:
    path = private_dir / "x.sock"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConnectionRefusedError, match="not where a process listens"):
        dial(path, 1)


def test_an_endpoint_that_ended_without_a_word_does_not_answer(private_dir: Path) -> None:
    found = listen(private_dir / "gone.sock", portable=True)
    found.sock.close()
    assert found.path.exists()
    assert not answers(found.path)


def test_an_endpoint_that_does_not_react_may_be_alive(endpoint: Endpoint) -> None:
    assert answers(endpoint.path, 0.1)
    with pytest.raises(TimeoutError, match="has not proved itself"):
        prove(endpoint.path, 0.1)


def admit_and_serve(endpoint: Endpoint, daemon: Daemon) -> None:
    """Wake up, as a kernel does whose C call has ended."""
    client, _ = endpoint.sock.accept()
    conn = Connection(client, endpoint.admit(client))
    threading.Thread(target=daemon.serve_connection, args=(conn,), daemon=True).start()


@pytest.mark.parametrize("size", [10, 20_000_000])
def test_a_request_waits_until_the_other_end_can_prove_itself(endpoint: Endpoint, served: Daemon, size: int) -> None:
    """Whoever asks several kernels is not held up by the one that is in a C call."""
    started = time.monotonic()
    connection = connect(f"PYRO:{OBJECT}@./u:{endpoint.path}", kind="control")
    with contextlib.closing(connection), Fanout() as fanout:
        fanout.send(connection, Request(OBJECT, "echo", [b"x" * size]), 0)
        assert time.monotonic() - started < 1, "nobody has accepted yet"
        assert isinstance(connection.sock, Unproven)
        assert not list(fanout.answers(time.monotonic() + 0.05))
        admit_once = threading.Timer(0.0, admit_and_serve, (endpoint, served))
        admit_once.start()
        (answer,) = fanout.answers(time.monotonic() + 20)
        assert answer.value == b"x" * size
        assert not isinstance(connection.sock, Unproven)


def test_waiting_for_a_proof_takes_no_processor_time(endpoint: Endpoint) -> None:
    connection = connect(f"PYRO:{OBJECT}@./u:{endpoint.path}", kind="control")
    with contextlib.closing(connection), Fanout() as fanout:
        fanout.send(connection, Request(OBJECT, "echo", [b"x" * 20_000_000]), 0)
        before = time.thread_time()
        assert not list(fanout.answers(time.monotonic() + 0.5))
        assert time.thread_time() - before < 0.1


def test_a_large_message_of_one_thread_waits_for_the_proof(endpoint: Endpoint, served: Daemon) -> None:
    connection = connect(f"PYRO:{OBJECT}@./u:{endpoint.path}", kind="control")
    with contextlib.closing(connection):
        later = threading.Timer(0.1, admit_and_serve, (endpoint, served))
        later.start()
        assert ask_directly(connection, OBJECT, "echo", ("x" * 10_000_000,), 20) == "x" * 10_000_000
