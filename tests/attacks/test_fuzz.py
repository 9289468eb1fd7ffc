"""A hundred thousand inputs that are nearly right: each ends in an error of ours, soon, and takes little memory."""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import fcntl
import fractions
import gc
import logging
import os
import resource
import select
import socket
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import Authority
from fuzzing import (
    HEADER_BYTES,
    SERPENT,
    Mutator,
    answers,
    bounded_memory,
    calls,
    envelopes,
    greetings,
    hello_words,
    joined,
)
from Pyro5.errors import ConnectionClosedError
from Pyro5.protocol import MSG_CONNECT
from served import OBJECT, Service

from pyrokernel.errors import NotSerializableError, ProtocolError, PyrokernelError
from pyrokernel.gateway.newcomers import Newcomer, Newcomers
from pyrokernel.gateway.pump import Pump
from pyrokernel.loop import Loop
from pyrokernel.roles import Role
from pyrokernel.wire import codec
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.connection import MSG_INVOKE, Connection, EagerReader, IncomingMessage, MessageReader, frame
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.exposing import expose
from pyrokernel.wire.fanout import open_answer
from pyrokernel.wire.greeting import FirstMessage, object_of, refusal, with_annotations
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.introduction import FOR, introduced, pack, unpack, words_for
from pyrokernel.wire.opcodes import SmallRequest
from pyrokernel.wire.plain import dump_plain, load_plain
from pyrokernel.wire.proxy import read_greeting
from pyrokernel.wire.spare import KEPT_NUMBER
from pyrokernel.wire.tls import TlsSocket
from pyrokernel.wire.trust import Peer
from pyrokernel.wire.values import decode_value

# Pyro reads serpent with the parser of Python, which warns of what it can read all the same.
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")

LONGEST_SECONDS = 5.0
"""For one input, on a machine that is busy: an honest one takes a tenth of a millisecond."""
GROWTH_BYTES = 300 << 20

REFUSED = (ProtocolError, ConnectionClosedError, OSError)
METHODS: list[tuple[str, tuple[Any, ...]]] = [("look", ("abc", 1)), ("echo", (Packed.dump(1),)), ("mark", ())]
EVERY_KIND = [*greetings(OBJECT), *calls(OBJECT, METHODS), *answers()]
ENVELOPES = [joined(codec.encode(value)) for value in envelopes()]
PLAIN_VALUES: list[Any] = [
    [1, "a", {2: 3}], datetime.datetime(2026, 1, 1), decimal.Decimal("1.5"), uuid.UUID(int=5), fractions.Fraction(1, 3),
    range(5), collections.deque([1], 3), collections.OrderedDict(a=1), {1, 2}, slice(1, 2), ..., np.float64(3), 3 + 4j,
    datetime.timedelta(5),
]  # fmt: skip
ARRAYS = [np.arange(20.0), np.zeros((2, 3), "i4"), np.array(["a", "bc"]), np.zeros(3, [("a", "i4"), ("b", "f8")])]


def try_all(inputs: Iterable[bytes], reader: Callable[[bytes], Any], refused: tuple[type[BaseException], ...]) -> None:
    """Give each input to a reader: it is read or refused, nothing else."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: collections.Counter[str] = collections.Counter()
    with bounded_memory():
        for data in inputs:
            begun = time.perf_counter()
            try:
                reader(data)
                outcomes["read"] += 1
            except refused:
                outcomes["refused"] += 1
            assert time.perf_counter() - begun < LONGEST_SECONDS, data[:400]
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < GROWTH_BYTES
    assert outcomes["read"], "no input was right: nothing behind the first check was tried"
    assert outcomes["refused"]


def whole(data: bytes) -> IncomingMessage:
    """Return a message as a reader would, whose body may be too short."""
    if len(data) < HEADER_BYTES:
        raise ProtocolError("no header")
    message = IncomingMessage(data[:HEADER_BYTES], empty=True)
    message.body = memoryview(bytearray(data[HEADER_BYTES:]))
    if message.annotations_size > len(message.body):
        raise ProtocolError("no body")
    return message


@pytest.mark.parametrize("make", [MessageReader, EagerReader, FirstMessage])
def test_readers_take_messages_and_refuse_all_else(make: Callable[[], Any]) -> None:
    def read(data: bytes) -> None:
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                near.send(data)
            near.shutdown(socket.SHUT_WR)
            reader = make()
            while reader.read(far) is not None:
                while isinstance(reader, EagerReader) and reader.has_next:
                    reader.next()
                if select.select([far], [], [], 0)[0] and not far.recv(1, socket.MSG_PEEK):
                    return

    try_all(Mutator(1).messages(EVERY_KIND, 8000), read, REFUSED)


def test_a_first_message_is_taken_apart_or_refused() -> None:
    def read(data: bytes) -> None:
        message = whole(data)
        object_of(message)
        with_annotations(message, {})
        refusal(message, "why")
        introduced(Peer(1, role=Role.USER), unpack(message.body[: message.annotations_size]))

    try_all(Mutator(2).messages(greetings("o"), 12_000), read, (ProtocolError,))


@pytest.mark.parametrize(
    "said",
    [b"[" * 4000, b'{"user":' * 500, b'{"user":"a\\u001b[31m","role":"user"}', b'{"user":"a\\n","role":"user"}',
     b'{"user":"' + b"x" * 300 + b'","role":"user"}', b'{"user":5,"role":"user"}', b'{"user":"a","role":["user"]}',
     b'{"user":"a","role":"user","kind":["host"]}', b'{"user":"a","role":"user","address":"\\u202e"}', b"null", b""],
)  # fmt: skip
def test_an_introduction_that_is_none_is_refused(said: bytes) -> None:
    with pytest.raises(ProtocolError):
        introduced(Peer(1, role=Role.USER), {FOR: said})


@pytest.mark.parametrize(
    "text",
    ["(" * 4000, "-" * 4000 + "1", "[" * 199 + "]" * 199, "1+" * 1900 + "1", "{'object': " * 190, "a" + ".b" * 1900,
     "not " * 1000 + "1", "lambda: " * 500 + "1", "f'{" * 100, "9" * 4000, "1if 2 else 3", "*" * 4000, "'\\ud800'",
     "{'object': __import__('os')}", "{'object': 'a', **{}}", "{'object': 1e999}", "[]" * 2000, "{'object': b'x'}"],
)  # fmt: skip
def test_what_the_parser_of_python_would_choke_on_is_refused(text: str) -> None:
    payload = b"# serpent utf-8 python3.2\n" + text.encode("utf-8", "surrogatepass")
    message = whole(joined(frame(MSG_CONNECT, [payload], serializer_id=1)))
    begun = time.perf_counter()
    with pytest.raises(ProtocolError):
        object_of(message)
    assert time.perf_counter() - begun < LONGEST_SECONDS


def test_an_envelope_is_decoded_or_refused() -> None:
    try_all(Mutator(3).some_of(ENVELOPES, 16_000), lambda data: codec.decode(memoryview(bytearray(data))), REFUSED)


def test_a_request_of_an_observer_is_decoded_or_refused() -> None:
    requests = [joined(codec.encode((OBJECT, method, (1, "two", [3, {4: b"5"}]), {"six": 7}))) for method in "ab"]
    reader = lambda data: SmallRequest(memoryview(data)).arguments()  # noqa: E731
    try_all(Mutator(4).some_of(requests, 16_000), reader, (ProtocolError,))


def test_plain_data_is_loaded_or_refused() -> None:
    streams = [dump_plain(value)[0] for value in PLAIN_VALUES]
    try_all(Mutator(5).some_of(streams, 12_000), load_plain, (NotSerializableError,))


def test_arrays_are_loaded_or_refused() -> None:
    made = [dump_plain(array) for array in ARRAYS]
    buffers = [one for _, one in made]
    chance = Mutator(6)

    def read(data: bytes) -> None:
        load_plain(data, chance.chance.choice(buffers))

    try_all(chance.some_of([stream for stream, _ in made], 8000), read, (NotSerializableError,))


@pytest.mark.parametrize("kind", ["int", "float", "str", "bytes", "plain", "reference"])
def test_a_value_of_the_shared_state_is_loaded_or_refused(kind: str) -> None:
    valid = {"int": b"123", "float": b"1.5"}.get(kind, dump_plain([1, "a"])[0])
    reader = lambda data: decode_value(kind, [data])  # noqa: E731
    if kind == "bytes":
        assert reader(b"\xff") == b"\xff"
        return
    try_all(Mutator(7).some_of([valid], 1500), reader, (NotSerializableError,))


def test_an_answer_to_a_client_is_one_or_a_protocol_error() -> None:
    try_all(Mutator(8).messages(answers(), 8000), lambda data: open_answer(whole(data), 0), (PyrokernelError,))


def test_an_answer_to_a_handshake_is_one_or_an_error_of_ours() -> None:
    valid = [data for data in answers() if data[6] in (2, 3)]
    near, far = socket.socketpair()
    with near, far:
        try_all(
            Mutator(9).messages(valid, 8000),
            lambda data: read_greeting(Connection(far, Peer(1)), whole(data)),
            (PyrokernelError,),
        )


class Served(Service):
    """What the daemon serves here."""

    @expose(Role.OBSERVER)
    def look(self, code: str, at: int = 0) -> list[str]:
        return [code[:at]]


class Watched:
    """A daemon, and all that it and its threads have to complain of."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "d.sock"
        self.complaints: list[str] = []
        self.daemon = Daemon(self.path, identity={"kernel": "k", "instance": "i"})
        self.daemon.register(Served(), OBJECT)
        self.daemon.start()

    def say(self, data: bytes) -> None:
        """Say something, hang up, and read what comes."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(LONGEST_SECONDS + 3)
            sock.connect(str(self.path))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(1 << 16):
                    pass


@pytest.fixture
def watched(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("f")
    directory.chmod(0o700)
    found = Watched(directory)
    monkeypatch.setattr(threading, "excepthook", lambda args: found.complaints.append(repr(args.exc_value)))

    class Complaints(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                found.complaints.append(self.format(record))

    handler = Complaints()
    logging.getLogger("pyrokernel").addHandler(handler)
    try:
        with bounded_memory():
            yield found
        assert found.complaints == []
        found.say(greetings(OBJECT)[0])
        deadline = time.monotonic() + 5
        while found.daemon.connection_count() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert found.daemon.connection_count() == 0
    finally:
        logging.getLogger("pyrokernel").removeHandler(handler)
        found.daemon.close()


def opening(role: Role, kind: str = "control") -> bytes:
    """Return the first message of somebody whom the gateway has let in."""
    said = pack({FOR: words_for("eve", role, "10.0.0.9:7")})
    payload = SERPENT.dumps({"handshake": hello_words(kind), "object": OBJECT})
    return joined(frame(MSG_CONNECT, [payload], serializer_id=1, annotations=said))


@pytest.mark.parametrize("role", [Role.OBSERVER, Role.USER, Role.ADMIN])
@pytest.mark.parametrize("kind", ["control", "work"])
def test_a_daemon_survives_whatever_follows_a_handshake(watched: Watched, role: Role, kind: str) -> None:
    first = opening(role, kind)
    for data in Mutator(10 + role).messages(calls(OBJECT, METHODS), 1200):
        watched.say(first + data)


def test_a_daemon_survives_whatever_comes_before_a_handshake(watched: Watched) -> None:
    for data in Mutator(20).messages(greetings(OBJECT), 2500):
        watched.say(data)


SHAPES: list[Any] = [
    None, 1, "x", [], (), {}, (1, 2, 3), (OBJECT, "echo", ()), ([], "echo", (), {}), (OBJECT, 5, (), {}),
    (OBJECT, "echo", 5, {}), (OBJECT, "echo", "text", {}), (OBJECT, "echo", (), []), (OBJECT, "echo", {1: 2}, {}),
    (OBJECT, "nothing", (), {}), (OBJECT, "__class__", (), {}), (OBJECT, "_x", (), {}), (OBJECT, "", (), {}),
    (OBJECT, "hidden", (), {}), ("nothing", "echo", (), {}), ("\ud800", "echo", (), {}),
    (OBJECT + "/..", "echo", (), {}), (OBJECT, "\ud800\n\x1b[31m", (), {}), (OBJECT, "x" * 5000, (), {}),
    (None, None, None, None), (b"", b"", b"", b""),
]  # fmt: skip


@pytest.mark.parametrize("role", [Role.OBSERVER, Role.USER, Role.ADMIN])
def test_requests_of_another_shape_are_answered_by_an_error(watched: Watched, role: Role) -> None:
    for shape in SHAPES:
        watched.say(opening(role) + joined(frame(MSG_INVOKE, codec.encode(shape))))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.identity("host", "lab1", ["127.0.0.1"])
    made.identity("user", "ana")
    return made


class Recorded:
    """What a client says in a handshake, and behind it."""

    def __init__(self, authority: Authority) -> None:
        self.server = Identity(authority.directory / "lab1").server_context()
        client = Identity(authority.directory / "ana").client_context()
        up, down, there, back = (ssl.MemoryBIO() for _ in range(4))
        ours = client.wrap_bio(down, up, server_hostname="127.0.0.1")
        theirs = self.server.wrap_bio(there, back, server_side=True)
        self.said: list[bytes] = []
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                ours.do_handshake()
            if said := up.read():
                self.said.append(said)
                there.write(said)
            with contextlib.suppress(ssl.SSLWantReadError):
                theirs.do_handshake()
            down.write(back.read())


def test_tls_handshakes_that_are_nearly_right_are_refused(authority: Authority) -> None:
    recorded = Recorded(authority)
    assert len(recorded.said) == 2

    def shake(data: bytes) -> None:
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            secured = TlsSocket(far, recorded.server, server_side=True)
            with contextlib.suppress(BlockingIOError):
                near.send(data)
            near.shutdown(socket.SHUT_WR)
            assert not secured.advance() or secured.getpeercert()

    mutator = Mutator(30)
    inputs = (b"".join(mutator.some_of([one], 1) if mutator.chance.random() < 0.7 else [one]) for one in
              mutator.chance.choices([*recorded.said, b"".join(recorded.said)], k=3000))  # fmt: skip
    before = time.monotonic()
    for data in inputs:
        with pytest.raises(OSError, match=r"."):
            shake(data)
    assert time.monotonic() - before < 60


class Secured:
    """Both ends of a connection under TLS, of which what the client sends can be changed on its way."""

    def __init__(self, authority: Authority) -> None:
        self.near, far = socket.socketpair()
        self.near.setblocking(False)
        far.setblocking(False)
        self.server = TlsSocket(far, Identity(authority.directory / "lab1").server_context(), server_side=True)
        context = Identity(authority.directory / "ana").client_context()
        self.client = TlsSocket(self.near, context, server_hostname="127.0.0.1")
        for _ in range(3):
            self.client.advance()
            self.server.advance()

    def cipher(self, data: bytes) -> bytes:
        """Return what the client would put on the wire."""
        self.client._engine.write(data)
        return self.client._outgoing.read()

    def close(self) -> None:
        self.near.close()
        self.server.close()


def test_records_that_were_changed_on_their_way_end_the_connection(authority: Authority) -> None:
    mutator = Mutator(31)
    for _ in range(300):
        secured = Secured(authority)
        try:
            good = secured.cipher(b"x" * 100)
            (bad,) = mutator.some_of([good], 1)
            with contextlib.suppress(BlockingIOError):
                secured.near.send(bad)
            secured.near.shutdown(socket.SHUT_WR)
            read = b""
            with contextlib.suppress(OSError):
                while piece := secured.server.recv(1000):
                    read += piece
            assert read in (b"", b"x" * 100)  # whole records or nothing
        finally:
            secured.close()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("behind", [b"", b"\x17\x03\x03\x00\x20" + bytes(32), b"garbage" * 100])
@pytest.mark.parametrize("before", [b"", b"abc"])
def test_a_goodbye_ends_what_is_read_whatever_comes_behind_it(
    authority: Authority, before: bytes, behind: bytes
) -> None:
    """Each way of reading; one that went round in circles would stop a whole gateway."""

    def said() -> Secured:
        secured = Secured(authority)
        data = secured.cipher(before) if before else b""
        with contextlib.suppress(ssl.SSLError):
            secured.client._engine.unwrap()
        secured.near.send(data + secured.client._outgoing.read() + behind)
        return secured

    secured = said()
    assert [secured.server.recv(10), secured.server.recv(10)] == ([before, b""] if before else [b"", b""])
    secured.close()
    secured, target = said(), bytearray(10)
    assert secured.server.recv_into(memoryview(target), 0, socket.MSG_WAITALL) == len(before)
    assert secured.server.recv_into(memoryview(target)) == 0
    secured.close()
    secured = said()
    assert secured.server.recv_available() == before
    assert not secured.server.is_open()
    secured.close()


@pytest.mark.parametrize("under_tls", [False, True])
def test_newcomers_leave_by_an_error_of_theirs_and_nothing_is_left(authority: Authority, under_tls: bool) -> None:
    """As the gateway has them: with a loop, thousands of them, and nothing of them stays."""
    loop = Loop()
    identity = Identity(authority.directory / "lab1")
    context = identity.server_context()
    greeted: list[str] = []

    def greet(newcomer: Newcomer, message: IncomingMessage) -> None:
        with contextlib.suppress(ProtocolError):
            greeted.append(object_of(message))
        newcomer.sock.close()

    newcomers = Newcomers(loop, lambda: identity, lambda *_: None)
    valid = Recorded(authority).said if under_tls else greetings("o")
    inputs = Mutator(32).some_of(valid, 2000) if under_tls else Mutator(32).messages(valid, 4000)
    logging.getLogger("pyrokernel.gateway").setLevel(logging.CRITICAL)
    try:
        for data in inputs:
            near, far = socket.socketpair()
            with near:
                near.setblocking(False)
                far.setblocking(False)
                sock: Any = TlsSocket(far, context, server_side=True) if under_tls else far
                newcomers.add(Newcomer(sock, "10.0.0.1:5", greet))
                with contextlib.suppress(BlockingIOError):
                    near.send(data)
                near.shutdown(socket.SHUT_WR)
                for _ in range(3):
                    loop.call(loop.stop)
                    loop.run()
                    loop._running = True
                assert far.fileno() < 0
        assert len(newcomers) == 0
        assert under_tls or greeted
    finally:
        logging.getLogger("pyrokernel.gateway").setLevel(logging.NOTSET)
        loop.close()


def test_a_pump_passes_on_what_it_gets_and_nothing_else() -> None:
    """In pieces of any size, with either side hanging up at any moment."""
    chance = Mutator(33).chance
    for _ in range(400):
        loop = Loop()
        (one, near), (far, two) = socket.socketpair(), socket.socketpair()
        for sock in (one, near, far, two):
            sock.setblocking(False)
        ended: list[Pump] = []
        Pump(loop, near, far, ended.append).begin()
        sent, got = b"", b""
        for _ in range(chance.randrange(1, 8)):
            piece = chance.randbytes(chance.choice((1, 100, 70_000)))
            with contextlib.suppress(BlockingIOError):
                sent += piece[: one.send(piece)]
            loop.call(loop.stop)
            loop.run()
            loop._running = True
            with contextlib.suppress(BlockingIOError):
                got += two.recv(1 << 20)
        one.close()
        while not ended:
            loop.call(loop.stop)
            loop.run()
            loop._running = True
            with contextlib.suppress(BlockingIOError):
                got += two.recv(1 << 20)
        with contextlib.suppress(BlockingIOError):
            while piece := two.recv(1 << 20):
                got += piece
        assert got == sent
        assert near.fileno() == far.fileno() == -1
        two.close()
        loop.close()


def descriptors() -> Iterator[int]:
    """Open what may come as a segment and is none, or a smaller one, or one that can still be cut."""
    memory = [os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) for _ in range(3)]
    for number, size in zip(memory, (0, 4096, 1 << 22), strict=True):
        os.ftruncate(number, size)
    for number in memory[1:]:
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    cut = os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(cut, 1 << 22)
    yield from (*memory, cut, os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_RDWR), *os.pipe(),
                os.open("/", os.O_RDONLY))  # fmt: skip


def with_segment(encoded: bytes) -> bytes:
    """Return a message that says that a segment comes with it."""
    return joined(frame(MSG_INVOKE, [encoded], flags=1 << 12))


def test_segments_that_are_none_are_refused_and_their_descriptors_closed() -> None:
    """On the unix side, where large data goes beside the messages."""
    places = [struct.pack("!QQ", size, place) for size in (0, 1, 4096, 1 << 40) for place in (0, 64, 4096, 1 << 63)]
    stream = ENVELOPES[2][64:][:200]
    tables = [struct.pack("!II", count, len(stream)) + b"".join(places[:count]) + bytes(64) + stream
              for count in (0, 1, 2, 5, 16)]  # fmt: skip
    mutator, numbers = Mutator(34), list(descriptors())
    before = len(os.listdir("/proc/self/fd"))
    with bounded_memory():
        for data in mutator.messages([with_segment(one) for one in (*tables, *ENVELOPES)], 5000):
            near, far = socket.socketpair()
            with near, far:
                near.setblocking(False)
                far.setblocking(False)
                reader = MessageReader()
                reader.segments = True
                given = mutator.chance.choices(numbers, k=mutator.chance.choice((0, 1, 1, 1, 1, 2, 9)))
                with contextlib.suppress(OSError, ProtocolError, ConnectionClosedError):
                    near.send(data[:HEADER_BYTES])
                    if data[HEADER_BYTES:]:
                        socket.send_fds(near, [data[HEADER_BYTES:]], given)
                    near.shutdown(socket.SHUT_WR)
                    message = reader.read(far)
                    if message is not None:
                        message.decode()
            message = None
    for number in numbers:
        os.close(number)
    gc.collect()
    # What was mapped is kept for the next time, so much of it and no more.
    assert len(os.listdir("/proc/self/fd")) <= before - len(numbers) + KEPT_NUMBER
