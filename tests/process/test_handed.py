"""Connections that the gateway hands on: no hop for calls, and all that counts there counts as before."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Never

import pytest
from attacking import Fortress
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.client import links
from pyrokernel.errors import AccessRefusedError, PyrokernelError
from pyrokernel.messages import KERNEL_OBJECT
from pyrokernel.wire import handed, proxy
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.direct import ask_directly
from pyrokernel.wire.fanout import ConnectionLost
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.remote import Credentials
from pyrokernel.wire.tls import TlsSocket

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("PYROKERNEL_PORTABLE")),
    reason="nothing is handed on in portable mode, without unix sockets",
)


@pytest.fixture(scope="module")
def lasting() -> Iterator[Fortress]:
    made = Fortress()
    yield made
    made.close()


@pytest.fixture
def fortress(lasting: Fortress) -> Fortress:
    """A mesh behind a gateway that has its paper."""
    wait_until((lasting.runtime / "handed.pem").exists)
    return lasting


def open_handed(fortress: Fortress, name: str = "ana", kernel: str = "k0") -> Connection:
    """Open a connection, and ask for it to be handed on."""
    credentials = Credentials(fortress.certs(name))
    return proxy.connect(fortress.uri_of(kernel), kind="work", credentials=credentials, handed=True)


def run(connection: Connection, source: str, **options: object) -> dict[str, object]:
    """Run a cell in the kernel at the other end; return its reply."""
    reply: dict[str, object] = ask_directly(connection, KERNEL_OBJECT, "execute", (source, options), 20)
    return reply


def is_over(connection: Connection) -> bool:
    """Whether the other side has hung up."""
    try:
        run(connection, "1")
    except (ConnectionLost, PyrokernelError):
        return True
    return False


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process do nothing for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_was_handed_on_goes_on_without_the_gateway(fortress: Fortress) -> None:
    with contextlib.closing(open_handed(fortress)) as connection:
        assert connection.is_handed
        with stopped(fortress.gateway_pid()):
            assert run(connection, "6 * 7")["text"] == "42"


def test_it_is_of_who_the_gateway_says_with_the_role_that_it_says(fortress: Fortress) -> None:
    with contextlib.closing(open_handed(fortress)) as connection:
        assert (connection.greeting["user"], connection.greeting["role"]) == ("ana", "user")
        run(connection, "'handed'")
    told = [json.loads(line) for line in fortress.cli("audit", "--json").stdout.splitlines()]
    assert [one["user"] for one in told if one.get("source") == "'handed'"] == ["ana"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections that handles open from now on."""
    found: list[Connection] = []

    def connect(*args: Any, **options: Any) -> Connection:
        found.append(proxy.connect(*args, **options))
        return found[-1]

    monkeypatch.setattr(links, "connect", connect)
    return found


def have_handed(kernel: pk.Kernel, opened: list[Connection]) -> None:
    """Call until a handle does so on a connection that was handed on."""
    for number in range(links._OFTEN + 2):
        assert kernel.call(max, [1, number]) == max(1, number)
    wait_until(lambda: any(one.is_handed for one in opened))
    (found,) = [one for one in opened if one.is_handed]
    wait_until(lambda: kernel.call(max, [1, 2]) == 2 and found.uses)


def test_calls_that_follow_each_other_are_handed_on(fortress: Fortress, opened: list[Connection]) -> None:
    with fortress.connected() as mesh:
        kernel = mesh["k0"]
        have_handed(kernel, opened)
        with stopped(fortress.gateway_pid()):
            assert [kernel.call(max, [1, number]) for number in (5, 6)] == [5, 6]
        (found,) = [one for one in opened if one.is_handed]
        before = found.uses
        assert kernel.execute(f"len({'x' * 3_000_000!r})").result == 3_000_000
        assert kernel.call(bytes, 3_000_000) == bytes(3_000_000)
        assert found.uses == before + 2


def test_without_a_connection_that_is_handed_on_calls_go_on(
    fortress: Fortress, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fails(*args: object) -> Never:
        asked.append(args)
        raise ConnectionResetError("gone")

    monkeypatch.setattr(proxy, "follow", fails)
    with fortress.connected() as mesh:
        assert [mesh["k0"].call(max, [1, number]) for number in range(50)] == [max(1, number) for number in range(50)]
        wait_until(lambda: asked)
        assert mesh["k0"].call(max, [1, 2]) == 2
    assert len(asked) == 1, "it is not asked for again at once"


def test_who_may_run_nothing_stays_with_the_gateway(fortress: Fortress) -> None:
    with contextlib.closing(open_handed(fortress, "olga")) as connection:
        assert not connection.is_handed
        assert connection.greeting["role"] == "observer"
        with pytest.raises(AccessRefusedError):
            run(connection, "1")


def test_another_certificate_at_the_second_handshake_is_refused(
    fortress: Fortress, monkeypatch: pytest.MonkeyPatch
) -> None:
    boss = Identity(fortress.certs("boss"))

    def follow(sock: TlsSocket, identity: Identity, kernel: bytes, deadline: float) -> TlsSocket:
        return handed.follow(sock, boss, kernel, deadline)

    monkeypatch.setattr(proxy, "follow", follow)
    # In TLS 1.3 the client is through before the server has judged its certificate.
    with contextlib.suppress(OSError, PyrokernelError), contextlib.closing(open_handed(fortress)) as connection:
        assert is_over(connection)
    monkeypatch.undo()
    with contextlib.closing(open_handed(fortress)) as connection:
        assert run(connection, "1")["status"] == "ok"


def test_what_waits_behind_a_cell_is_listed_and_its_turn_comes(fortress: Fortress, opened: list[Connection]) -> None:
    with fortress.connected() as mesh:
        kernel = mesh["k0"]
        have_handed(kernel, opened)
        running = kernel.submit("import time\nwhile True: time.sleep(0.01)")
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(kernel.execute, "'waits'")
            try:
                wait_until(lambda: "'waits'" in [cell["source"] for cell in kernel.describe()["waiting"]])
                assert "'waits'" in [cell["source"] for cell in kernel.describe()["waiting"]], "it was looked at before"
                second = threads.submit(kernel.call, max, [1, 2])
            finally:
                running.interrupt()
            assert first.result(20).result == "waits"
            assert second.result(20) == 2


# What ends it


@pytest.fixture
def own() -> Iterator[Fortress]:
    """A mesh that a test may spoil."""
    made = Fortress()
    wait_until((made.runtime / "handed.pem").exists)
    yield made
    made.close()


def test_a_role_that_ends_ends_it(own: Fortress) -> None:
    with contextlib.closing(open_handed(own)) as connection, contextlib.closing(open_handed(own, "boss")) as other:
        policy = own.folder / "policy.toml"
        policy.write_text(policy.read_text().replace('ana = "user"', 'ana = "observer"'))
        wait_until(lambda: is_over(connection))
        assert run(other, "1")["status"] == "ok"
        assert "ana at 127.0.0.1" in own.logged()


def test_its_gateways_end_ends_it_and_the_next_one_hands_on_too(own: Fortress) -> None:
    paper = (own.runtime / "handed.pem").read_bytes()
    with contextlib.closing(open_handed(own)) as connection:
        pid = own.gateway_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_over(connection))
    wait_until(lambda: own.gateway_pid() != pid and (own.runtime / "handed.pem").read_bytes() != paper, 20)

    def is_handed() -> bool:
        with contextlib.suppress(PyrokernelError), contextlib.closing(open_handed(own)) as connection:
            return connection.is_handed and run(connection, "1")["status"] == "ok"
        return False

    wait_until(is_handed, 20)


def test_the_end_of_either_side_leaves_nothing_open(own: Fortress) -> None:
    with contextlib.closing(open_handed(own)) as connection:
        run(connection, "import os")
        before = own.descriptors(), int(str(run(connection, "len(os.listdir('/proc/self/fd'))")["text"]))
        for _ in range(20):
            open_handed(own).close()
        with contextlib.suppress(PyrokernelError, OSError):
            for _ in range(20):
                other = open_handed(own, "ana", "k1")
        with own.connected("boss") as mesh:
            mesh["k1"].restart()
        wait_until(lambda: is_over(other))
        wait_until(lambda: own.descriptors() <= before[0] + 2)
        wait_until(lambda: int(str(run(connection, "len(os.listdir('/proc/self/fd'))")["text"])) <= before[1])


def test_a_visitor_who_asks_and_is_silent_then_is_hung_up_on(own: Fortress, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a thread of the kernel, for no longer than any handshake may take."""

    def silent(sock: TlsSocket, identity: Identity, kernel: bytes, deadline: float) -> TlsSocket:
        raise TimeoutError(sock.raw.recv(1))

    monkeypatch.setattr(proxy, "follow", silent)
    began = own.descriptors()
    with pytest.raises(TimeoutError, match="b''"):
        open_handed(own)
    wait_until(lambda: own.descriptors() <= began)


@pytest.mark.parametrize(
    "garbage", [b"PYRO" * 100, b"\x16\x03\x01\xff\xff" + bytes(3000), b"\0" * 500], ids=["plain", "record", "nothing"]
)
def test_garbage_in_place_of_the_second_handshake_is_hung_up_on(
    fortress: Fortress, monkeypatch: pytest.MonkeyPatch, garbage: bytes
) -> None:
    def wild(sock: TlsSocket, identity: Identity, kernel: bytes, deadline: float) -> TlsSocket:
        sock.raw.sendall(garbage)
        with contextlib.suppress(ConnectionError):
            while sock.raw.recv(1000):  # an alert, at most
                pass
        raise TimeoutError("hung up")

    before = fortress.descriptors()
    monkeypatch.setattr(proxy, "follow", wild)
    with pytest.raises(TimeoutError, match="hung up"):
        open_handed(fortress)
    monkeypatch.undo()
    with contextlib.closing(open_handed(fortress)) as connection:
        assert run(connection, "1")["status"] == "ok"
    wait_until(lambda: fortress.descriptors() <= before)


def test_nothing_is_left_on_disk() -> None:
    made = Fortress()
    try:
        wait_until((made.runtime / "handed.pem").exists)
        assert (made.runtime / "handed.pem").stat().st_mode & 0o777 == 0o600
        runtime = made.runtime
        made.cli("stop")
        assert not runtime.exists()
    finally:
        made.close()
