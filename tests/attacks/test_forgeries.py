"""Papers that are false, stolen or for something else: who one is, is what the certificate says, and nothing more."""

from __future__ import annotations

import contextlib
import json
import pickle
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attacking import Fortress, answer_to, context_of, hello, is_closed, object_in, plain, secured
from certificates import Authority
from fuzzing import HEADER_BYTES, JSON, MARSHAL, SERPENT, joined
from Pyro5.errors import PyroError
from Pyro5.protocol import FLAGS_BATCH, FLAGS_ONEWAY, MSG_CONNECT, MSG_CONNECTFAIL, MSG_CONNECTOK, MSG_PING, MSG_RESULT
from served import PORTABLE
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.errors import AccessRefusedError, KernelUnreachableError, NameServerNotFoundError, ProtocolError
from pyrokernel.roles import Role
from pyrokernel.wire import codec
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.connection import (
    FLAGS_COMPRESSED,
    FLAGS_EXCEPTION,
    MSG_INVOKE,
    Connection,
    IncomingMessage,
    MessageReader,
    frame,
)
from pyrokernel.wire.direct import ask_directly
from pyrokernel.wire.introduction import FOR, TO, words_for
from pyrokernel.wire.naming import Directory
from pyrokernel.wire.proxy import connect, read_greeting
from pyrokernel.wire.remote import Credentials, dial
from pyrokernel.wire.trust import Peer


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return open, (self.mark, "w")


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """A file that is there if a pickle of the attack was loaded."""
    found = tmp_path / "mark"
    yield found
    assert not found.exists(), "the pickle of somebody who may not run code was loaded"


# Who a connection is for


def greeting_of(fortress: Fortress, who: str, what: str = "k0", **annotations: Any) -> tuple[int, Any]:
    with fortress.secured(who) as sock:
        sock.sendall(hello(object_in(fortress.uri_of(what)), **annotations))
        kind, said = answer_to(sock)
    return kind, said["handshake"] if kind == MSG_CONNECTOK else said


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("kind", ["user", "host"])
def test_a_user_who_says_that_it_is_somebody_else_is_not_believed(fortress: Fortress, role: Role, kind: str) -> None:
    for said in (
        words_for("boss", role, "", kind),
        words_for("root", role, "127.0.0.1:1", kind),
        b"garbage",
        b"[" * 2000,
    ):
        found = greeting_of(fortress, "olga", annotations={FOR: said, TO: b"tls:127.0.0.1:1"})
        assert found[0] == MSG_CONNECTOK
        assert (found[1]["user"], found[1]["role"]) == ("olga", "observer")


def test_a_host_gives_its_users_no_more_than_it_has(fortress: Fortress) -> None:
    kind, said = greeting_of(fortress, "lab2", annotations={FOR: words_for("boss", Role.ADMIN, "")})
    assert (kind, said["user"], said["role"]) == (MSG_CONNECTOK, "boss@lab2", "user")
    kind, said = greeting_of(fortress, "lab2", annotations={FOR: words_for("eve", Role.OBSERVER, "")})
    assert (said["user"], said["role"]) == ("eve@lab2", "observer")
    kind, said = greeting_of(fortress, "lab2", annotations={FOR: words_for("olga", Role.ADMIN, "")})
    assert (said["user"], said["role"]) == ("olga@lab2", "observer"), "whom a line of the policy restricts"
    kind, said = greeting_of(fortress, "lab2", annotations={FOR: words_for("eve", Role.USER, "", "user", "lab1")})
    assert said["user"] == "eve@lab2", "who lets somebody in is whom the certificate names"


def test_a_host_is_no_other_host(fortress: Fortress) -> None:

    def lie() -> None:
        for role in (Role.ADMIN, Role.USER):
            kind, said = greeting_of(fortress, "lab2", annotations={FOR: words_for("lab1", role, "", "host")})
            assert kind == MSG_CONNECTFAIL
            assert "only a certificate" in said

    assert "host lab2 at 127.0.0.2" in fortress.log_of(lie, "says that it is host lab1")


@pytest.mark.parametrize(
    "said",
    [b"", b"null", b"[" * 2000, b"{}", words_for("x`; touch y; `", Role.USER), words_for("boss@lab1", Role.USER),
     words_for("host:lab1", Role.USER), words_for("\u0430na", Role.USER), words_for(" ", Role.USER),
     b'{"user":"a\\u001b[31m","role":"user"}', b'{"user":"a\\nb","role":"user"}',
     b'{"user":"' + b"x" * 1000 + b'","role":"user"}', b'{"user":"a","role":"user","kind":"account"}',
     pickle.dumps({"user": "boss", "role": "admin"}), b"\xff\xfe"],
)  # fmt: skip
def test_what_a_host_says_of_a_user_is_plain_or_refused(fortress: Fortress, said: bytes) -> None:
    kind, why = greeting_of(fortress, "lab2", annotations={FOR: said})
    assert kind == MSG_CONNECTFAIL
    assert "introduction" in why


def test_a_stolen_certificate_of_a_host_is_no_admin(fortress: Fortress) -> None:
    connection = fortress.open("lab2", "host")
    try:
        with pytest.raises(AccessRefusedError, match="`shutdown` takes an admin"):
            ask_directly(connection, "pyrokernel.host", "shutdown", ("because", True), 20)
    finally:
        connection.close()


# What is decoded of whom


@pytest.mark.parametrize("serializer_id", [0, 2, 3, 4, 5, 42, 80, 255])
@pytest.mark.parametrize("flags", [0, FLAGS_COMPRESSED])
def test_nothing_but_serpent_and_json_is_read_of_a_first_message(
    fortress: Fortress, mark: Path, serializer_id: int, flags: int
) -> None:
    trap = pickle.dumps({"handshake": Trap(mark), "object": Trap(mark)})
    for payload in (trap, MARSHAL.dumps({"object": "x"}), zlib.compress(trap)):
        with fortress.secured("ana") as sock:
            sock.sendall(hello("", payload=payload, serializer_id=serializer_id, flags=flags))
            assert answer_to(sock)[0] in (0, MSG_CONNECTFAIL)


@pytest.mark.parametrize("serializer", [SERPENT, JSON])
def test_a_first_message_that_is_compressed_or_no_connect_is_refused(fortress: Fortress, serializer: Any) -> None:
    number, payload = serializer.serializer_id, serializer.dumps({"handshake": "hello", "object": "pyrokernel.host"})
    bomb = zlib.compress(serializer.dumps({"handshake": "hello" * 100_000, "object": "pyrokernel.host"}))
    first = [hello("", payload=bomb, serializer_id=number, flags=FLAGS_COMPRESSED)]
    first += [hello("", payload=payload, serializer_id=number, msgtype=kind) for kind in (0, 2, 3, 4, 5, 6, 7, 255)]
    for data in first:
        with fortress.secured("ana") as sock:
            sock.sendall(data[:4096])
            assert answer_to(sock)[0] in (0, MSG_CONNECTFAIL)


def test_pickles_in_every_field_of_a_first_message_stay_bytes(fortress: Fortress, mark: Path) -> None:
    trap = pickle.dumps(Trap(mark))
    for where in ("kind", "codec", "instance", "pyrokernel", "segments"):
        with fortress.secured("ana") as sock:
            sock.sendall(hello(object_in(fortress.uri_of("k0")), **{where: trap}))
            answer_to(sock)
    with fortress.secured("ana") as sock:
        sock.sendall(hello(object_in(fortress.uri_of("k0")), annotations={b"PICK": trap, FOR: trap, b"STRM": trap}))
        answer_to(sock)


def test_no_pickle_of_an_observer_is_loaded(fortress: Fortress, mark: Path) -> None:
    trap, packed = pickle.dumps(Trap(mark)), Packed.dump(Trap(mark))
    kernel = "pyrokernel.kernel"
    bodies = [
        (codec.SERIALIZER_ID, joined(codec.encode((kernel, "complete", (packed,), {}))), 0),
        (codec.SERIALIZER_ID, joined(codec.encode((packed, "ping", (), {}))), 0),
        (codec.SERIALIZER_ID, joined(codec.encode((kernel, "describe", (), {"x": packed}))), 0),
        (codec.SERIALIZER_ID, b"\0\0\0\0" + len(trap).to_bytes(4, "big") + bytes(56) + trap, 0),
        (codec.SERIALIZER_ID, joined(codec.inline(trap, [memoryview(trap)])), 0),
        *[(number, trap, flags) for number in (0, 2, 3, 4, 5) for flags in (0, FLAGS_BATCH, 1 << 8)],
        (3, MARSHAL.dumpsCall(kernel, "ping", [], {}), 0),
        (1, SERPENT.dumpsCall(kernel, "complete", [{"__class__": "builtins.open", "x": 1}], {}), 0),
    ]
    for number, body, flags in bodies:
        with fortress.secured("olga") as sock:
            sock.sendall(hello(object_in(fortress.uri_of("k0"))))
            assert answer_to(sock)[0] == MSG_CONNECTOK
            sock.sendall(joined(frame(MSG_INVOKE, [body], serializer_id=number, flags=flags)))
            with contextlib.suppress(OSError):
                sock.recv(4096)


@pytest.fixture
def proxy() -> Iterator[dict[str, Any]]:
    """What Pyro's serializers make a proxy of, which dials as soon as it is looked into; nobody may do that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"PYRO:x@127.0.0.1:{listener.getsockname()[1]}"
        methods = ["__getitem__", "__iter__", "__len__", "get"]
        yield {"__class__": "Pyro5.client.Proxy", "state": [uri, [], methods, [], "hello", "marshal"]}
        listener.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            listener.accept()[0].close()
            pytest.fail("a process dialled where a proxy of somebody else leads")


@pytest.mark.parametrize("serializer", [SERPENT, JSON])
@pytest.mark.parametrize("who", ["nick", "olga", "lab2"])
def test_a_first_message_that_is_a_proxy_has_nobody_dial(
    fortress: Fortress, proxy: dict[str, Any], who: str, serializer: Any
) -> None:
    """The gateway would wait for its answer, with all its connections, and read that as marshal."""
    object_id = object_in(fortress.uri_of("k0"))
    for said in (proxy, {**proxy, "object": object_id}, {"object": proxy}, {"object": object_id, "handshake": proxy}):
        with fortress.secured(who) as sock:
            sock.sendall(hello("", payload=serializer.dumps(said), serializer_id=serializer.serializer_id))
            assert answer_to(sock)[0] == MSG_CONNECTFAIL


@pytest.mark.parametrize("serializer", [SERPENT, JSON])
def test_a_proxy_among_the_arguments_of_an_observer_has_nobody_dial(
    fortress: Fortress, proxy: dict[str, Any], serializer: Any
) -> None:
    kernel = object_in(fortress.uri_of("k0"))
    asked = [(kernel, "complete"), (kernel, "variables"), (kernel, "follow"), ("Pyro.NameServer", "yplookup")]
    for object_id, method in asked:
        batch = [(method, [{"x": [proxy]}], {})]
        for data, flags in (
            (serializer.dumpsCall(object_id, method, [proxy], {}), 0),
            (serializer.dumpsCall(object_id, "<batch>", batch, {}), FLAGS_BATCH),
        ):
            with fortress.secured("olga") as sock:
                sock.sendall(hello(object_id, codec=""))
                assert answer_to(sock)[0] == MSG_CONNECTOK
                sock.sendall(joined(frame(MSG_INVOKE, [data], serializer_id=serializer.serializer_id, flags=flags)))
                with contextlib.suppress(ConnectionError):
                    assert not sock.recv(1)


def test_not_a_number_is_plain_data_in_serpent(fortress: Fortress) -> None:
    data = SERPENT.dumpsCall("Pyro.NameServer", "yplookup", [[float("nan")]], {})
    with fortress.secured("olga") as sock:
        sock.sendall(hello("Pyro.NameServer", codec=""))
        assert answer_to(sock)[0] == MSG_CONNECTOK
        sock.sendall(joined(frame(MSG_INVOKE, [data], serializer_id=SERPENT.serializer_id)))
        assert answer_to(sock) == (MSG_RESULT, {})


def test_an_answer_that_is_a_proxy_has_no_client_dial(proxy: dict[str, Any]) -> None:
    near, far = socket.socketpair()
    with near, far:
        for said in (proxy, {"handshake": proxy}):
            data = joined(frame(MSG_CONNECTOK, [SERPENT.dumps(said)], serializer_id=1))
            message = IncomingMessage(data[:HEADER_BYTES], empty=True)
            message.body = memoryview(bytearray(data[HEADER_BYTES:]))
            with pytest.raises(ProtocolError):
                read_greeting(Connection(far, Peer(1)), message)


def answer_all(listener: socket.socket, answer: Any, flags: int) -> None:
    """Be a name server, and answer everything with the same."""
    with contextlib.suppress(OSError, PyroError), listener.accept()[0] as sock:
        reader, said = MessageReader(), {"handshake": "hello", "meta": {}}
        while True:
            message = reader.read(sock)
            if message is None:
                continue
            first = message.type == MSG_CONNECT
            data = SERPENT.dumps(said if first else answer)
            kind = MSG_CONNECTOK if first else MSG_RESULT
            sock.sendall(joined(frame(kind, [data], serializer_id=1, seq=message.seq, flags=0 if first else flags)))


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "proxy"])
def test_a_name_server_ends_no_client_and_has_none_dial(proxy: dict[str, Any], kind: str) -> None:
    ending = {"__class__": f"builtins.{kind}", "__exception__": True, "args": [0], "attributes": {}}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer, flags = (proxy, 0) if kind == "proxy" else (ending, FLAGS_EXCEPTION)
        thread = threading.Thread(target=answer_all, args=(listener, answer, flags))
        thread.start()
        directory = Directory(f"127.0.0.1:{listener.getsockname()[1]}")
        try:
            with pytest.raises(NameServerNotFoundError, match="plain data or an error"):
                directory.list("")
        finally:
            directory.close()
            thread.join()


@pytest.mark.parametrize("msgtype", [MSG_INVOKE, MSG_PING, MSG_CONNECT])
def test_what_an_observer_has_compressed_is_not_read(fortress: Fortress, msgtype: int) -> None:
    """A quarter of a megabyte would be a quarter of a gigabyte."""
    bomb = zlib.compress(bytes(200 << 20), 9)
    assert len(bomb) < 256 * 1024
    with fortress.connected() as mesh:
        pid = mesh["k0"].describe()["pid"]
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # from here on the peak of its memory is counted anew
    before = peak(pid)
    with fortress.secured("olga") as sock:
        sock.sendall(hello(object_in(fortress.uri_of("k0"))))
        answer_to(sock)
        sock.sendall(joined(frame(msgtype, [bomb], serializer_id=1, flags=FLAGS_COMPRESSED)))
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""
    assert peak(pid) - before < 50 * 1024


def peak(pid: int) -> int:
    """Return the most memory that a process has had, in KiB."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def test_observers_start_no_threads_and_ask_for_little_at_once(fortress: Fortress) -> None:
    with fortress.connected() as mesh:
        pid = mesh["k0"].describe()["pid"]
    threads = lambda: len(list(Path(f"/proc/{pid}/task").iterdir()))  # noqa: E731
    before = threads()
    many = SERPENT.dumpsCall("pyrokernel.kernel", "<batch>", [("ping", [], {})] * 5000, {})
    wait = SERPENT.dumpsCall("pyrokernel.kernel", "follow", [10**9, 3600.0], {})
    for body, flags in ((wait, FLAGS_ONEWAY), (many, FLAGS_BATCH)):
        with fortress.secured("olga") as sock:
            sock.sendall(hello(object_in(fortress.uri_of("k0")), codec=""))
            answer_to(sock)
            with contextlib.suppress(OSError):
                for _ in range(20):
                    sock.sendall(joined(frame(MSG_INVOKE, [body], serializer_id=1, flags=flags)))
            with contextlib.suppress(ConnectionError):
                assert not sock.recv(1)
    wait_until(lambda: threads() <= before + 1)


# Who serves


class Impostor:
    """Listens with an identity, and answers a handshake as a kernel does."""

    def __init__(self, certs: Path | None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.heard: list[bytes] = []
        self.context: ssl.SSLContext | None = None
        if certs is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certs / "key.pem", certs / "key.pem")
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(5)
            with sock, contextlib.suppress(OSError), self.secure(sock) as secured:
                self.heard.append(secured.recv(65536))
                said = SERPENT.dumps({"handshake": {"protocol": 1, "instance": ""}, "meta": {}})
                secured.sendall(joined(frame(MSG_CONNECTOK, [said], serializer_id=1)))
                secured.recv(65536)

    def secure(self, sock: socket.socket) -> socket.socket:
        return sock if self.context is None else self.context.wrap_socket(sock, server_side=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def impostor() -> Iterator[Callable[[Path | None], Impostor]]:
    made: list[Impostor] = []

    def make(certs: Path | None) -> Impostor:
        made.append(Impostor(certs))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority, with a host of the same name."""
    made = Authority(tmp_path_factory.mktemp("ca"), "elsewhere")
    made.identity("host", "lab1", ["127.0.0.1"])
    made.identity("user", "boss")
    return made


def fakes(fortress: Fortress, elsewhere: Authority) -> dict[str, Path | None]:
    made = fortress.folder / "certs"
    for name, names, how in (("far", ["10.1.2.3", "far.example"], {}), ("old", ["127.0.0.1"], {"begun": 20}),
                             ("early", ["127.0.0.1"], {"begun": -5})):  # fmt: skip
        if not (made / name).exists():
            fortress.authority.identity("host", name, names, **how)
    return {"user": fortress.certs("ana"), "other name": made / "far", "expired": made / "old",
            "not yet": made / "early", "foreign": elsewhere.directory / "lab1", "none": None}  # fmt: skip


FAKES = {
    "user": "wrong kind|certificate of user ana|purpose",
    "other name": "pyrokernel certs renew far --name 127.0.0.1",
    "expired": "expired.*renew",
    "not yet": "valid only in.*clock",
    "foreign": "did not sign",
    "none": "no TLS",
}


@pytest.mark.parametrize("kind", FAKES)
def test_clients_refuse_whoever_is_no_host_of_the_mesh_at_that_address(
    fortress: Fortress, elsewhere: Authority, impostor: Callable[[Path | None], Impostor], kind: str
) -> None:
    fake = impostor(fakes(fortress, elsewhere)[kind])
    credentials = Credentials(fortress.certs("ana"))
    with pytest.raises((AccessRefusedError, KernelUnreachableError), match=FAKES[kind]) as caught:
        connect(f"PYRO:pyrokernel.kernel/x@127.0.0.1:{fake.port}", kind="control", credentials=credentials)
    assert "\n" not in str(caught.value)
    with pytest.raises((AccessRefusedError, KernelUnreachableError)):
        dial("127.0.0.1", fake.port, 5, credentials)
    assert all(b"pyrokernel" not in heard for heard in fake.heard), (
        "something was said to whoever is not who it should be"
    )


def test_a_name_server_that_is_none_is_told_nothing_worth_having(
    fortress: Fortress, elsewhere: Authority, impostor: Callable[[Path | None], Impostor]
) -> None:
    for kind in ("user", "other name", "foreign"):
        fake = impostor(fakes(fortress, elsewhere)[kind])
        directory = Directory(f"127.0.0.1:{fake.port}", credentials=Credentials(fortress.certs("ana")))
        with pytest.raises((AccessRefusedError, NameServerNotFoundError)):
            directory.list("")
        directory.close()
        assert all(not heard for heard in fake.heard)


# Who comes


@pytest.mark.parametrize(
    ("name", "logged", "told"),
    [("boss", "certificate that the authority lab .* did not sign", "did not sign"),
     ("late", "expired", "expired.*renew"), ("early", "not valid yet|valid only in", "compare the clocks")],
)  # fmt: skip
def test_a_certificate_that_is_foreign_expired_or_of_tomorrow_is_refused_in_one_line(
    fortress: Fortress, elsewhere: Authority, name: str, logged: str, told: str
) -> None:
    certs = elsewhere.directory / name if name == "boss" else fortress.certs(f"user-{name}")
    if name != "boss" and not certs.exists():
        fortress.authority.identity("user", name, begun=20 if name == "late" else -5, at=f"user-{name}")

    def come() -> None:
        with contextlib.suppress(OSError), secured(fortress.port, certs) as sock:
            assert sock.recv(1) == b""

    assert "refused 127.0.0.2:" in fortress.log_of(come, logged)
    directory = Directory(fortress.address, credentials=Credentials(certs))
    with pytest.raises(pk.PyrokernelError, match=told) as caught:
        directory.ping()
    directory.close()
    assert "\n" not in str(caught.value)


def test_without_a_certificate_nobody_comes_in(fortress: Fortress) -> None:
    def come() -> None:
        with contextlib.suppress(OSError), secured(fortress.port, None) as sock:
            sock.sendall(hello("pyrokernel.host"))
            assert sock.recv(1) == b""

    fortress.log_of(come, "shows no certificate; it needs an identity")


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", hello("Pyro.NameServer"), bytes(500), b"SSH-2.0-x\r\n"]
)
def test_who_speaks_no_tls_is_told_so_in_the_log_and_gets_nothing(fortress: Fortress, said: bytes) -> None:
    def come() -> None:
        with plain(fortress.port) as sock:
            sock.sendall(said)
            found = b""
            with contextlib.suppress(ConnectionError):
                while piece := sock.recv(1000):
                    found += piece
            assert len(found) < 10  # an alert of TLS

    fortress.log_of(come, "refused 127.0.0.2:.* speaks no TLS, and plaintext is refused")


@pytest.mark.skipif(PORTABLE, reason="in portable mode there is no unix socket")
def test_tls_on_a_unix_socket_is_no_message(fortress: Fortress) -> None:
    for path in fortress.runtime.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(path))
            with pytest.raises((ssl.SSLError, ConnectionError)):
                context_of(fortress.certs("ana")).wrap_socket(sock)


def test_who_has_no_role_is_logged_once_with_name_and_reason(fortress: Fortress) -> None:
    def come() -> None:
        assert greeting_of(fortress, "nick")[0] == MSG_CONNECTFAIL

    since = len(fortress.logged())
    fortress.log_of(come, "refused user nick at 127.0.0.2:.* gives user nick no role")
    lines = fortress.logged(since).splitlines()
    assert len(lines) == len([line for line in lines if "newcomers: refused" in line or "more connections" in line])
    with fortress.secured("nick") as sock:
        sock.sendall(hello(object_in(fortress.uri_of("k0"))))
        answer_to(sock)
        wait_until(lambda: is_closed(sock))
    record = (next((fortress.folder / "s").rglob("audit.jsonl"))).read_text().splitlines()
    assert [one for one in map(json.loads, record) if one["what"] == "refused" and one.get("user") == "nick"]
