"""Those who come by the hundred, say half of something, or never read: others keep their speed, nothing piles up."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attacking import (
    ATTACKER,
    Fortress,
    answer_to,
    context_of,
    hello,
    is_closed,
    object_in,
    plain,
    slow_down,
    timed,
)
from served import PORTABLE
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.gateway.newcomers import ARRIVAL_SECONDS, MAX_NEWCOMERS
from pyrokernel.gateway.pump import LINGER_SECONDS
from pyrokernel.messages import STATE_OBJECT
from pyrokernel.wire import codec
from pyrokernel.wire.connection import MSG_INVOKE, IncomingMessage, frame

MOST_SLOWER = 8.0
"""Ratio of medians: two cores for the attacker, the gateway, the kernel and whoever means well."""


@pytest.fixture
def kernel(fortress: Fortress) -> Iterator[pk.Kernel]:
    with fortress.connected() as mesh:
        found = mesh["k0"]
        found.execute("def f(x): return x")
        for _ in range(30):
            found.call("f", 1)
        yield found


def call_times(kernel: pk.Kernel, count: int = 300) -> list[float]:
    return [timed(lambda: kernel.call("f", 1)) for _ in range(count)]


def connect_times(fortress: Fortress, count: int = 10) -> list[float]:
    """Return how long those who mean well take to come in."""
    uri = fortress.uri_of("k0")

    def come() -> None:
        with fortress.secured("ana", "127.0.0.1") as sock:
            sock.sendall(hello(object_in(uri)))
            assert answer_to(sock)[0] == 2

    return [timed(come) for _ in range(count)]


def client_hello() -> bytes:
    context, up = context_of(None), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), up).do_handshake()
    return up.read()


def silent(fortress: Fortress) -> list[Any]:
    return [plain(fortress.port) for _ in range(2 * MAX_NEWCOMERS)]


def half(fortress: Fortress) -> list[Any]:
    """Say the first word of TLS, and no other; or the beginning of it."""
    said = client_hello()
    found = [plain(fortress.port) for _ in range(2 * MAX_NEWCOMERS)]
    for number, sock in enumerate(found):
        with contextlib.suppress(ConnectionError):  # the first ones have been shown the door already
            sock.sendall(said if number % 2 else said[: number % len(said)])
    return found


def wordless(fortress: Fortress) -> list[Any]:
    """Shake hands, and say nothing."""
    return [fortress.secured("olga") for _ in range(200)]


def begun(fortress: Fortress) -> list[Any]:
    """Begin a first message, and do not end it."""
    said = hello("pyrokernel.host/host")
    found = [fortress.secured("olga") for _ in range(200)]
    for number, sock in enumerate(found):
        sock.sendall(said[: number % len(said)])
    return found


def deaf(fortress: Fortress) -> list[Any]:
    """Ask for ever, and read nothing."""
    said = hello(object_in(fortress.uri_of("k0")))
    ask = b"".join(frame(MSG_INVOKE, codec.encode(("pyrokernel.kernel", "follow", (0, 0.0), {}))))
    found = [fortress.secured("olga") for _ in range(60)]
    for sock in found:
        sock.sendall(said)
        sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantWriteError, BlockingIOError, ConnectionError):
            while True:
                sock.send(ask * 100)
    return found


@pytest.mark.parametrize("attack", [silent, half, wordless, begun, pytest.param(deaf, marks=pytest.mark.soak)])
def test_hundreds_who_say_half_of_something_slow_nobody_down(
    fortress: Fortress, kernel: pk.Kernel, attack: Callable[[Fortress], list[Any]]
) -> None:
    before, memory, said = fortress.descriptors(), fortress.memory(), len(fortress.logged())
    calm, calm_coming = call_times(kernel), connect_times(fortress)
    held = attack(fortress)
    try:
        # Who asks without a pause has its turns of the interpreter, as many as the cells of all others together.
        assert slow_down(calm, call_times(kernel)) < (5 * MOST_SLOWER if attack is deaf else MOST_SLOWER)
        assert slow_down(calm_coming, connect_times(fortress)) < MOST_SLOWER
        assert fortress.descriptors() - before <= 2 * MAX_NEWCOMERS + 16
        assert fortress.memory() - memory < 100 << 20
        wait_until(lambda: attack is deaf or all(map(is_closed, held)), timeout=3 * ARRIVAL_SECONDS)
    finally:
        for sock in held:
            sock.close()
    wait_until(lambda: fortress.descriptors() <= before + 2, timeout=LINGER_SECONDS + 15)
    assert len(fortress.logged()) - said < 20_000


def test_a_flood_that_goes_on_slows_nobody_down(fortress: Fortress, kernel: pk.Kernel) -> None:
    before, said = fortress.descriptors(), len(fortress.logged())
    calm, calm_coming = call_times(kernel), connect_times(fortress)
    stop, count = threading.Event(), 0

    def flood() -> None:
        nonlocal count
        held: list[socket.socket] = []
        while not stop.is_set():
            held.append(plain(fortress.port))
            count += 1
            if len(held) > MAX_NEWCOMERS:
                held.pop(0).close()
        for sock in held:
            sock.close()

    flooder = threading.Thread(target=flood)
    flooder.start()
    try:
        wait_until(lambda: count > 2 * MAX_NEWCOMERS)
        # The interpreter of this process is the attacker's too, so the ratio has room for that.
        assert slow_down(calm, call_times(kernel)) < 4 * MOST_SLOWER
        assert slow_down(calm_coming, connect_times(fortress)) < 4 * MOST_SLOWER
    finally:
        stop.set()
        flooder.join()
    wait_until(lambda: fortress.descriptors() <= before + 2)
    seconds = 60
    assert len(fortress.logged()) - said < seconds * 6 * 500


def test_who_takes_a_second_to_come_in_is_not_pushed_out_by_the_flood_of_another(fortress: Fortress) -> None:
    slow = plain(fortress.port, "127.0.0.1")
    flood = [plain(fortress.port, ATTACKER) for _ in range(3 * MAX_NEWCOMERS)]
    try:
        with context_of(fortress.certs("ana")).wrap_socket(slow) as sock:
            sock.sendall(hello(object_in(fortress.uri_of("k0"))))
            assert answer_to(sock)[0] == 2
    finally:
        for one in flood:
            one.close()


def test_one_byte_at_a_time_ends_when_the_time_is_over(fortress: Fortress) -> None:
    said = hello(object_in(fortress.uri_of("k0")))
    begun, sent = time.monotonic(), 0
    with fortress.secured("ana") as sock:
        while not is_closed(sock) and sent < len(said) - 1:
            with contextlib.suppress(OSError):
                sock.settimeout(5)
                sock.send(said[sent : sent + 1])
            sent += 1
            time.sleep(0.1)  # the pace is the attack
    assert time.monotonic() - begun < ARRIVAL_SECONDS + 5


def test_garbage_behind_the_handshake_or_the_first_message_ends_the_connection(fortress: Fortress) -> None:
    before = fortress.descriptors()
    said = hello(object_in(fortress.uri_of("k0")))
    garbage = [
        b"\x00" * 64,
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(40_000),
        b"\x17\x03\x03\xff\xff" + bytes(70_000),
        b"\x16\x03\x03\x00\x04\x00\x00\x00\x00",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x14\x03\x03\x00\x01\x01",
    ]
    context = context_of(fortress.certs("ana"))
    for first in (b"", said, said[:50]):
        for bad in garbage:
            # The last record and the garbage in one packet: the gateway gets both with one call.
            with plain(fortress.port) as raw:
                down, up = ssl.MemoryBIO(), ssl.MemoryBIO()
                engine = context.wrap_bio(down, up)
                while True:
                    try:
                        engine.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        raw.sendall(up.read())
                        down.write(raw.recv(65536))
                if first:
                    engine.write(first)
                with contextlib.suppress(OSError):  # the gateway was quicker
                    raw.sendall(up.read() + bad)
                    raw.shutdown(socket.SHUT_WR)
                raw.settimeout(10)
                with contextlib.suppress(ConnectionError):
                    while raw.recv(65536):
                        pass
    wait_until(lambda: fortress.descriptors() <= before + 2)


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RD, None])
def test_half_closed_connections_leave_nothing(fortress: Fortress, how: int | None) -> None:
    before = fortress.descriptors()
    uri = fortress.uri_of("k0")
    held = []
    for number in range(40):
        sock = fortress.secured("ana")
        if number % 2:
            sock.sendall(hello(object_in(uri)))
            answer_to(sock)
        if how is None:
            with contextlib.suppress(OSError):
                sock.unwrap()  # a goodbye of TLS, and no end of TCP
        else:
            sock.shutdown(how)
        held.append(sock)
    try:
        if how == socket.SHUT_WR:
            wait_until(lambda: fortress.descriptors() <= before + 2)
    finally:
        for sock in held:
            sock.close()
    wait_until(lambda: fortress.descriptors() <= before + 2)


@pytest.mark.parametrize("count", [600, pytest.param(5000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_connections_that_come_and_go_leave_nothing(fortress: Fortress, count: int) -> None:
    said = hello(object_in(fortress.uri_of("k0")))
    context = context_of(fortress.certs("ana"))

    def come_and_go(times: int) -> None:
        for number in range(times):
            sock = plain(fortress.port)
            if number % 4:
                sock = context.wrap_socket(sock)
            if number % 4 > 1:
                sock.sendall(said)
            if number % 4 > 2:
                answer_to(sock)
            sock.close()

    come_and_go(100)
    wait_until(lambda: fortress.descriptors() < 60)
    before = fortress.descriptors(), fortress.threads(), fortress.memory()
    come_and_go(count)
    wait_until(lambda: fortress.descriptors() <= before[0] + 2)
    assert fortress.threads() == before[1]
    assert fortress.memory() - before[2] < 20 << 20
    with fortress.connected() as mesh:
        assert mesh["k0"].describe()["name"] == "k0"


def test_no_certificate_has_all_connections(fortress: Fortress, kernel: pk.Kernel) -> None:
    said = hello(object_in(fortress.uri_of("k1")))
    held, refused = [], ""
    try:
        for _ in range(400):
            sock = fortress.secured("olga")
            held.append(sock)
            sock.sendall(said)
            kind, words = answer_to(sock)
            if kind == 3:
                refused = words
                break
        assert "close some" in refused
        assert "olga has" in refused
        assert len(held) < 300
        with fortress.secured("ana") as other:
            other.sendall(said)
            assert answer_to(other)[0] == 2
    finally:
        for sock in held:
            sock.close()


def test_who_reads_no_answers_is_held_up_and_takes_no_memory(fortress: Fortress, kernel: pk.Kernel) -> None:
    """A flood of output, of which one who follows reads nothing; and one who asks for much and reads nothing."""
    kernel.execute("data = b'x' * 50_000_000")
    before = fortress.memory()
    kernel_memory = "import resource; resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    used = kernel.execute(kernel_memory).result
    calm = call_times(kernel)
    held = []
    try:
        for _ in range(10):
            connection = fortress.open("ana", kind="control")
            connection.sock.setblocking(True)
            held.append(connection)
            for seq in range(20):
                request = ("pyrokernel.kernel", "follow", (0, 0.0, {"max_bytes": 10_000_000}), {})
                connection.send(frame(MSG_INVOKE, codec.encode(request), seq=seq))
        kernel.execute("print('y' * 20_000_000)", timeout=60)
        # They are answered until what they do not read is in the way; from then on they cost nobody anything.
        wait_until(lambda: slow_down(calm, call_times(kernel, 50)) < MOST_SLOWER, timeout=20)
        assert slow_down(calm, call_times(kernel)) < MOST_SLOWER
        assert fortress.memory() - before < 60 << 20
        assert kernel.execute(kernel_memory).result - used < 400_000
    finally:
        for connection in held:
            connection.close()


@pytest.mark.skipif(PORTABLE, reason="in portable mode there is no unix socket whose queue could be full")
def test_a_kernel_that_accepts_nobody_holds_up_nobody_else(fortress: Fortress, kernel: pk.Kernel) -> None:
    """Its queue is full; whoever wants to go there is told so at once, and all others keep their speed."""
    with fortress.connected() as mesh:
        pid = mesh["k1"].describe()["pid"]
    said, uri = hello(object_in(fortress.uri_of("k1"))), fortress.runtime / f"{fortress.instance_of('k1')}.sock"
    calm = call_times(kernel)
    held: list[socket.socket] = []
    os.kill(pid, signal.SIGSTOP)
    try:
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            held.append(sock)
            try:
                sock.connect(str(uri))
            except BlockingIOError:
                break
        for _ in range(5):
            with fortress.secured("ana") as late:
                late.sendall(said)
                kind, words = answer_to(late)
                assert (kind, "try again later" in words) == (3, True)
        assert slow_down(calm, call_times(kernel)) < MOST_SLOWER
    finally:
        os.kill(pid, signal.SIGCONT)
        for sock in held:
            sock.close()

    def answers() -> bool:
        with fortress.secured("ana") as sock:
            sock.sendall(said)
            return answer_to(sock)[0] == 2

    wait_until(answers, timeout=30)


def test_without_descriptors_nobody_comes_in_and_who_is_in_keeps_the_speed(
    fortress: Fortress, kernel: pk.Kernel
) -> None:
    pid, said = fortress.gateway_pid(), len(fortress.logged())
    calm = call_times(kernel)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (fortress.descriptors() + 20, limits[1]))
    flood = [plain(fortress.port) for _ in range(60)]
    try:
        wait_until(lambda: "no connection can be taken" in fortress.logged(said))
        assert slow_down(calm, call_times(kernel)) < MOST_SLOWER
        lines = [
            line for line in fortress.logged(said).splitlines() if "can be taken" in line or "that happened" in line
        ]
        assert len(lines) < 40
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for sock in flood:
            sock.close()
    wait_until(lambda: connect_times(fortress, 1), timeout=20)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.soak
def test_what_somebody_asked_for_who_has_gone_is_not_answered_for_long(fortress: Fortress, kernel: pk.Kernel) -> None:
    """Thousands of requests in a row, each of which takes long, of observers who hang up."""
    kernel.execute("for _ in range(4000): print('z' * 1000)", timeout=60)
    pid = kernel.describe()["pid"]
    calm = call_times(kernel)
    held = deaf(fortress)
    try:
        assert slow_down(calm, call_times(kernel)) < 5 * MOST_SLOWER
        # As a client that has died: the answers that come are for nobody.
    finally:
        for sock in held:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    def is_idle() -> bool:
        before = cpu_seconds(pid)
        time.sleep(0.5)  # over which the use of the processor is measured
        return cpu_seconds(pid) - before < 0.15

    wait_until(is_idle, timeout=LINGER_SECONDS + 15)


def ask_again_and_again(sock: ssl.SSLSocket, request: bytes) -> None:
    """Ask, take the answer, and ask anew, until the connection ends."""

    def take(size: int) -> bytes:
        data = sock.recv(min(size, 1 << 20))
        if not data:
            raise ConnectionError("it has ended")
        return data

    with contextlib.suppress(OSError, ValueError):
        while True:
            sock.sendall(request)
            head = b""
            while len(head) < 40:
                head += take(40 - len(head))
            left = IncomingMessage(head).size
            while left:
                left -= len(take(left))


@contextlib.contextmanager
def asking(fortress: Fortress, object_id: str, kind: str, *request: Any) -> Iterator[None]:
    """Have an observer ask for something on thirty connections, as fast as it is answered."""
    message = b"".join(frame(MSG_INVOKE, codec.encode(request)))
    socks = [fortress.secured("olga") for _ in range(30)]
    threads = [threading.Thread(target=ask_again_and_again, args=(sock, message)) for sock in socks]
    try:
        for sock in socks:
            sock.sendall(hello(object_id, kind=kind))
            assert answer_to(sock)[0] == 2
        for thread in threads:
            thread.start()
        time.sleep(0.5)  # until all of them have asked
        yield
    finally:
        for sock in socks:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for sock in socks:
            sock.close()


def test_an_observer_who_looks_without_end_leaves_cells_their_time(fortress: Fortress, kernel: pk.Kernel) -> None:
    kernel.execute("for n in range(5000): globals()[f'many_{n}'] = [n]")
    begun = "from time import perf_counter; t = perf_counter()"
    work = f"{begun}; n = sum(i for i in range(10 ** 6)); perf_counter() - t"
    try:
        calm = [kernel.execute(work).result for _ in range(5)]
        with asking(fortress, object_in(fortress.uri_of("k0")), "control", "pyrokernel.kernel", "variables", (), {}):
            attacked = [kernel.execute(work, timeout=60).result for _ in range(3)]
        assert slow_down(calm, attacked) < MOST_SLOWER
    finally:
        kernel.execute("for n in range(5000): del globals()[f'many_{n}']")


def test_an_observer_who_looks_without_end_leaves_the_shared_state_its_time(fortress: Fortress) -> None:
    with fortress.connected("boss") as mesh:
        mesh["k0"].execute("with shared.transaction() as t:\n    for n in range(4000): t[f'many/{n}'] = n", timeout=60)
        shared = mesh.shared
        calm = [timed(lambda: shared.get("many/1")) for _ in range(200)]
        state = f"{STATE_OBJECT}/{fortress.state_instance()}"
        with asking(fortress, state, "work", STATE_OBJECT, "entries", ("", "", None, 10_000), {}):
            attacked = [timed(lambda: shared.get("many/1")) for _ in range(30)]
        assert slow_down(calm, attacked) < MOST_SLOWER
        assert max(attacked) < 2
