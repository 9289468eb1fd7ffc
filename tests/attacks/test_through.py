"""Thousands of messages that are nearly right, through the gateway, to everything that is behind it."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacking import Fortress, answer_to, context_of, hello, plain
from fuzzing import MARSHAL, SERPENT, Mutator, calls, greetings, joined
from Pyro5.protocol import MSG_CONNECTOK

from pyrokernel.wire import codec
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.connection import MSG_INVOKE, frame

KERNEL, HOST, NAMES, STATE = "pyrokernel.kernel", "pyrokernel.host", "Pyro.NameServer", "pyrokernel.shared"

METHODS = {
    KERNEL: [("describe", ()), ("complete", ("imp", 3)), ("execute", ("1+1", {})), ("follow", (0, 0.0)),
             ("cells", (5,)), ("inspect", ("len", 3)), ("call", (Packed.dump((("len", [1]), {})), {})),
             ("reply", ("ab" * 16, 0.0))],
    HOST: [("list_kernels", ()), ("describe", ()), ("deaths", (-1, 0.0)), ("read_journal", ("k0", "", 0, 1000)),
           ("obituary", ("0" * 16, 0.0)), ("instances", ("k0",))],
    NAMES: [("list", ("x",)), ("lookup", ("x",)), ("yplookup", (["a"],)), ("count", ()),
            ("set_metadata", ("x", ["y"]))],
    STATE: [("read", ("", "key")), ("keys", ("", "")), ("set", ("", "key", "int", [b"1"])), ("spaces", ())],
}  # fmt: skip


class Behind:
    """All that can be reached through the gateway, and what it has to complain of."""

    def __init__(self, fortress: Fortress) -> None:
        self.fortress = fortress
        with fortress.connected("ana") as mesh:
            mesh.shared.set("key", 1)
            mesh["k0"].execute("kept = 5")
        self.words = {KERNEL: fortress.instance_of("k0"), HOST: "host", NAMES: "ns", STATE: fortress.state_instance()}
        self.processes = self.living()

    def living(self) -> dict[str, str]:
        with self.fortress.connected("boss") as mesh:
            return {info.name: f"{info.pid} {info.instance}" for info in mesh.ps()}

    def logs(self) -> str:
        folder = self.fortress.folder / "s"
        return "".join(path.read_text(errors="replace") for path in folder.rglob("*.log") if path.is_file())

    def object_of(self, target: str) -> str:
        return f"{target}/{self.words[target]}"


@pytest.fixture
def behind(fortress: Fortress) -> Iterator[Behind]:
    found = Behind(fortress)
    yield found
    assert found.living() == found.processes
    with fortress.connected("ana") as mesh:
        assert mesh["k0"].execute("kept").result == 5
        assert mesh.shared.get("key") is not None
        assert mesh.names == ["k0", "k1"]
    assert "Traceback" not in found.logs()


def harmless_only(data: bytes) -> bool:
    """Whether a request cannot do by chance what its sender may do: end or change what the test looks at."""
    return not any(word in data for word in (b"stop", b"shutdown", b"restart", b"clear", b"delete", b"exec", b"set"))


@pytest.mark.parametrize("target", METHODS)
@pytest.mark.parametrize("who", ["olga", "ana"])
@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_what_follows_a_handshake(behind: Behind, target: str, who: str, count: int) -> None:
    context = context_of(behind.fortress.certs(who))
    mutator = Mutator(40 + len(who) + len(target))
    for kind in ("control", "work"):
        first = hello(behind.object_of(target), kind=kind, codec="pickle5")
        for data in filter(harmless_only, mutator.messages(calls(target, METHODS[target]), count)):
            say(behind.fortress.port, context, first, data)


def say(port: int, context: ssl.SSLContext, first: bytes, data: bytes) -> None:
    """Open a connection, say something, hang up, and read what comes."""
    with plain(port) as raw, contextlib.suppress(OSError), context.wrap_socket(raw) as sock:
        sock.settimeout(20)
        sock.sendall(first)
        if data:
            assert answer_to(sock)[0] == MSG_CONNECTOK
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        try:
            while sock.recv(1 << 16):
                pass
        except TimeoutError:
            pytest.fail(f"no answer and no end to {data[:300]!r}")


def test_what_is_no_first_message(behind: Behind) -> None:
    context = context_of(behind.fortress.certs("lab2"))
    for data in Mutator(50).messages(greetings(behind.object_of(KERNEL)), 200):
        say(behind.fortress.port, context, data, b"")


SHAPES = [None, 5, "x", [], (1, 2), ("a", "b", "c"), ("a", "b", 5, {}), ("a", "b", (), 5), ({}, [], (), {})]


@pytest.mark.parametrize("target", METHODS)
@pytest.mark.parametrize("who", ["olga", "ana"])
def test_requests_of_another_shape_and_arguments_of_another_type(behind: Behind, target: str, who: str) -> None:
    context = context_of(behind.fortress.certs(who))
    shapes = [*SHAPES, *[(target, *rest) for rest in ((5, (), {}), ("nothing", (), {}), ("__init__", (), {}))]]
    shapes += [
        (target, method, arguments, {})
        for method, _ in METHODS[target]
        if method not in ("set", "set_metadata")
        for arguments in (
            (None,) * 9,
            ([], {}, -1, "x"),
            (-1e300, float("nan")),
            (2**70,) * 3,
            ("\ud800\n\x1b[31m",) * 2,
        )
    ]
    first = hello(behind.object_of(target), codec="pickle5")
    for shape in shapes:
        say(behind.fortress.port, context, first, joined(frame(MSG_INVOKE, codec.encode(shape))))
        if isinstance(shape, tuple) and len(shape) == 4:
            with contextlib.suppress(TypeError, ValueError, UnicodeError):
                payload = SERPENT.dumpsCall(*shape[:2], shape[2] if isinstance(shape[2], tuple) else (), {})
                say(behind.fortress.port, context, first, joined(frame(MSG_INVOKE, [payload], serializer_id=1)))
    say(behind.fortress.port, context, first, joined(frame(MSG_INVOKE, [MARSHAL.dumps(5)], serializer_id=3)))


def test_the_logs_are_where_this_looks(behind: Behind) -> None:
    assert behind.logs()
    assert isinstance(behind.fortress.folder, Path)
