"""Names, routes and texts that mean something else to a path, a log, a terminal or a name server."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from attacking import Fortress, answer_to, hello, object_in
from fuzzing import JSON, joined
from Pyro5.errors import NamingError
from Pyro5.protocol import MSG_CONNECTFAIL
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.errors import AccessRefusedError, KernelUnreachableError, PyrokernelError, StateValueError
from pyrokernel.gateway.routes import Routes
from pyrokernel.messages import KERNEL_OBJECT
from pyrokernel.wire import codec
from pyrokernel.wire.connection import MSG_INVOKE, frame
from pyrokernel.wire.naming import Directory, Entry
from pyrokernel.wire.proxy import Proxy, connect
from pyrokernel.wire.remote import Credentials
from pyrokernel.wire.trust import account_of_process

NOWHERE = [
    "", "/", "x", "x/", "/gateway", "pyrokernel.host/gateway", "x/../host", "../../etc/passwd", "/etc/passwd",
    "x/host.sock", "x/./host", "x/host\0", "x/\0", "x/host\n", "x/" + "a" * 300, "x" * 3000, "x/%2e%2e", "x/kernels",
    "x/kernels/k0", "pyrokernel.kernel", "pyrokernel.kernel/0123456789abcdef", "x/\u202ehost", "x/ns ", "ns/",
    "x/host.lock", "\ud800/host\ud800", "x/\x1b[31mhost", "Pyro.Daemon", "pyrokernel.host/host/../hosts",
]  # fmt: skip


@pytest.mark.parametrize("object_id", NOWHERE)
def test_a_route_that_is_none_leads_nowhere_and_says_so(fortress: Fortress, object_id: str) -> None:
    since = len(fortress.logged())
    payload = json.dumps({"handshake": "hello", "object": object_id}).encode()
    with fortress.secured("boss") as sock:
        sock.sendall(hello("", payload=payload, serializer_id=JSON.serializer_id))
        kind, _ = answer_to_json(sock)
        assert kind == MSG_CONNECTFAIL
    said = fortress.logged(since)
    assert said.replace("\n", "").isprintable()
    assert all(" " in line for line in said.splitlines())


def answer_to_json(sock: Any) -> tuple[int, Any]:
    """Return type and text of an answer in JSON."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data[6], data[40:]


def test_what_no_record_names_is_no_way_in(fortress: Fortress) -> None:
    """A socket that user code makes beside those of the kernels: no line of the policy could be for it."""
    path = fortress.runtime / "feedfacefeedface.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        try:
            with fortress.secured("boss") as sock:
                sock.sendall(hello("pyrokernel.kernel/feedfacefeedface"))
                assert answer_to(sock)[0] == MSG_CONNECTFAIL
        finally:
            path.unlink()


def test_routes_are_found_without_reading_the_records_each_time(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "k0.json").write_text('{"instance": "0f", "role": "kernel", "spec": {"name": "k0"}}')
    (tmp_path / "0f.sock").touch()
    (tmp_path / "host.sock").touch()
    os.utime(tmp_path / "kernels", (1, 1))
    routes = Routes(tmp_path)
    assert routes.find("pyrokernel.kernel/0f") == (tmp_path / "0f.sock", "k0")
    assert routes.find("pyrokernel.host") == (tmp_path / "host.sock", "")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: pytest.fail("read again"))
    for _ in range(3):
        with pytest.raises(PyrokernelError):
            routes.find("pyrokernel.kernel/0e")


# Entries of a name server


def entries(fortress: Fortress, who: str) -> Directory:
    return Directory(fortress.address, credentials=Credentials(fortress.certs(who)))


@pytest.mark.parametrize(
    ("who", "name"),
    [("ana", "pyrokernel.kernel.k0"), ("ana", "pyrokernel.kernel.new"), ("ana", "pyrokernel.host.lab1"),
     ("ana", "pyrokernel.shared"), ("lab2", "pyrokernel.shared"), ("ana", "Pyro.NameServer"),
     ("lab2", "pyrokernel.host.lab1"),
     ("lab2", "pyrokernel.kernel.k0"), ("lab2", "Pyro.NameServer"), ("lab2", "pyrokernel.other"), ("olga", "camera"),
     ("ana", "../x"), ("ana", "a\x1b[31mb"), ("ana", "a\nb"), ("ana", "x" * 5000), ("ana", ""), ("ana", "a\0b"),
     ("boss", "pyrokernel.kernel.\u202e0k"), ("boss", "Pyro.NameServer")],
)  # fmt: skip
def test_a_name_that_is_not_ones_own_is_not_given(fortress: Fortress, who: str, name: str) -> None:
    directory = entries(fortress, who)
    try:
        with pytest.raises(AccessRefusedError, match=r"."):
            directory.register(name, f"PYRO:pyrokernel.kernel/x@{fortress.address}", ["instance:x"], replace=True)
    finally:
        directory.close()
    with fortress.connected() as mesh:
        assert mesh.names == ["k0", "k1"]


@pytest.mark.parametrize("method", ["remove", "set_metadata"])
def test_names_of_others_are_neither_removed_nor_marked(fortress: Fortress, method: str) -> None:
    for who in ("ana", "olga", "lab2"):
        proxy = Proxy(f"PYRO:Pyro.NameServer@{fortress.address}", 10, Credentials(fortress.certs(who)))
        try:
            for arguments in ({"prefix": "pyrokernel."}, {"regex": ".*"}, {"name": "pyrokernel.kernel.k0"}):
                if method == "remove":
                    with pytest.raises((NamingError, RuntimeError), match=r"held by|observer"):
                        proxy.remove(**arguments)
            if method == "set_metadata":
                with pytest.raises((NamingError, RuntimeError), match=r"held by|are for hosts|observer"):
                    proxy.set_metadata("pyrokernel.kernel.k0", ["socket:/tmp/evil.sock", "owner:host:lab2"])
        finally:
            proxy.close()


@pytest.mark.parametrize(
    "uri",
    ["PYRO:x@./u:/tmp/evil.sock", "PYRO:x@10.0.0.1:99999999", "PYRO:x\x1b[31m@10.0.0.1:9", "PYRONAME:x", "PYROMETA:a",
     "nonsense", "PYRO:x@10.0.0.1:9\n", "PYRO:" + "x" * 2000 + "@10.0.0.1:9"],
)  # fmt: skip
def test_an_entry_of_another_machine_leads_to_that_or_is_refused(fortress: Fortress, uri: str) -> None:
    directory = entries(fortress, "lab2")
    try:
        with pytest.raises(PyrokernelError):
            directory.register("pyrokernel.kernel.forged", uri, ["instance:x"])
    finally:
        directory.close()


def forged(fortress: Fortress, uri: str, *words: str) -> None:
    """Have a host register a kernel that leads elsewhere."""
    directory = entries(fortress, "lab2")
    try:
        metadata = ["class:pyrokernel.kernel", "host:lab2", "version:0", *words]
        directory.register("pyrokernel.kernel.forged", uri, metadata, replace=True)
    finally:
        directory.close()


@pytest.mark.parametrize(
    ("host", "state_host", "refusal"),
    [
        ("lab2", "", r"host 'lab2', and host 'lab1' keeps it \(says the name server\)"),
        ("", "", r"no host, and host 'lab1' keeps it"),
        ("lab1", "lab2", r"host 'lab1', and host 'lab2' keeps it \(setting state_host\)"),
        ("lab2", "lab2", r"is host lab1 by its certificate, and not lab2"),
    ],
)
def test_who_answers_for_the_shared_state_is_the_host_that_keeps_it(
    fortress: Fortress, monkeypatch: pytest.MonkeyPatch, host: str, state_host: str, refusal: str
) -> None:
    """Whatever a name server says of it: a stock one takes anything from anybody."""
    lookup = Directory.lookup

    def misled(directory: Directory, name: str) -> Entry:
        found = lookup(directory, name)
        words = {word for word in found.metadata if not word.startswith("host:")}
        return Entry(name, found.uri, frozenset(words | ({f"host:{host}"} if host else set())))

    with fortress.connected("ana") as mesh:
        mesh.shared.set("a", 1)
    monkeypatch.setattr(Directory, "lookup", misled)
    with fortress.connected("ana", state_host=state_host) as mesh, pytest.raises(AccessRefusedError, match=refusal):
        mesh.shared.set("a", 2)
    monkeypatch.undo()
    with fortress.connected("ana") as mesh:
        assert mesh.shared.get("a") == 1
        mesh.shared.delete("a")


@pytest.fixture
def forging(fortress: Fortress) -> Any:
    yield lambda uri, *words: forged(fortress, uri, *words)
    directory = entries(fortress, "lab2")
    directory.remove("pyrokernel.kernel.forged")
    directory.close()


def test_an_entry_that_leads_to_an_attacker_gets_nothing_said(fortress: Fortress, forging: Any) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        forging(f"PYRO:pyrokernel.kernel/x@127.0.0.1:{listener.getsockname()[1]}", "instance:x")
        listener.settimeout(0.2)
        with fortress.connected(timeout=4) as mesh:
            cell = mesh["forged"]
            accepted = threading.Thread(target=lambda: heard.append(hear(listener)))
            accepted.start()
            with pytest.raises(PyrokernelError):
                cell.execute("secret = 1", timeout=4)
            accepted.join()
    assert heard
    assert b"secret" not in heard[0]
    assert b"pyrokernel" not in heard[0]


def hear(listener: socket.socket) -> bytes:
    listener.settimeout(5)
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(2)
        data = sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        return data


def test_an_entry_with_the_instance_of_another_kernel_is_found_out(fortress: Fortress, forging: Any) -> None:
    forging(f"PYRO:pyrokernel.kernel/{fortress.instance_of('k0')}@{fortress.address}", "instance:0000000000000000")
    with fortress.connected(timeout=4) as mesh, pytest.raises(PyrokernelError):
        mesh["forged"].execute("1", timeout=4)


@pytest.mark.parametrize("kind", ["open", "link", "relative", "nul", "long", "none", "file"])
def test_a_socket_in_metadata_counts_only_where_it_is_ones_own(tmp_path: Path, kind: str) -> None:
    private, shared = tmp_path / "p", tmp_path / "o"
    private.mkdir(mode=0o700)
    shared.mkdir()
    shared.chmod(0o755)
    (tmp_path / "l").symlink_to(private)
    for directory in (private, shared):
        (directory / "k.sock").touch()
    path = {
        "open": shared / "k.sock", "link": tmp_path / "l" / "k.sock", "relative": Path("k.sock"),
        "nul": "/tmp/\0k.sock", "long": "/" + "x/" * 3000, "none": private / "gone.sock",
        "file": private / "k.sock" / "x",
    }[kind]  # fmt: skip
    entry = Entry.of("n", "PYRO:o/k@10.0.0.1:9", [f"socket:{path}"])
    assert entry.uri == "PYRO:o/k@10.0.0.1:9"
    assert Entry.of("n", "PYRO:o/k@10.0.0.1:9", [f"socket:{private}/k.sock"]).uri == f"PYRO:o@./u:{private}/k.sock"
    with pytest.raises((AccessRefusedError, KernelUnreachableError, ValueError)):
        connect(f"PYRO:o@./u:{path}", kind="control").close()


# Texts on terminals

ESCAPES = "\x1b[31m\x1b]0;owned\x07\x9b2J\r\x08\u202eevil"
LOOK = [
    ["ps"], ["cells"], ["audit"], ["refs"], ["state", "ls"], ["state", "history", "key"], ["state", "locks"],
    ["policy"], ["logs", "k0"], ["commands"], ["plugins"], ["doctor"], ["nameserver", "status"],
]  # fmt: skip


def test_pickles_of_somebody_else_are_not_ones_own_whatever_ones_account_is_called(fortress: Fortress) -> None:
    """Ana's process runs as this account; who shows a certificate of its name is another one than ana."""
    fortress.authority.identity("user", account_of_process())
    with fortress.connected("ana") as mesh:
        mesh.shared.set("ana's", Path("a"))
        assert mesh.shared.get("ana's") == Path("a")
    with fortress.connected(account_of_process()) as mesh:
        mesh.shared.set("namesake's", Path("b"))
        assert mesh.shared.get("namesake's") == Path("b")
        with pytest.raises(StateValueError, match="trust='ana'"):
            mesh.shared.get("ana's")
    with fortress.connected("ana") as mesh:
        with pytest.raises(StateValueError, match="is not loaded"):
            mesh.shared.get("namesake's")
        for key in ("ana's", "namesake's"):
            mesh.shared.delete(key)


def test_nothing_that_others_have_written_moves_a_terminal(fortress: Fortress) -> None:
    with fortress.connected("ana") as mesh:
        kernel = mesh["k0"]
        kernel.execute(
            f"x = {ESCAPES!r}\nclass C:\n    def __repr__(self): return x\n"
            "C.__name__ = C.__qualname__ = x\nprint(x)\nC()\n# " + ESCAPES.replace("\r", "")
        )
        kernel.execute(f"raise ValueError({ESCAPES!r})", check=False)
        kernel.execute("import sys; print(x, file=sys.stderr)")
        reference = kernel.ref("C()")
        mesh.shared.set("key", ESCAPES)
        mesh.shared.set("pair", {ESCAPES: [ESCAPES]})
        running = kernel.submit(f"import time; time.sleep(60) # {ESCAPES[:4]}")
        try:
            for words in LOOK:
                done = fortress.cli(*words, check=False)
                for text in (done.stdout, done.stderr):
                    if words[0] != "logs":  # output is shown as it was printed, as a terminal would have it
                        assert harmful(text) == "", (words, text)
            assert "ValueError" in fortress.cli("logs", "k0", check=False).stdout
        finally:
            running.interrupt()
            del reference


def harmful(text: str) -> str:
    return "".join(sorted({each for each in text if not each.isprintable() and each not in "\n\t"}))


def test_names_of_kernels_and_of_what_is_published_have_no_escapes(fortress: Fortress) -> None:
    with fortress.connected("boss") as mesh:
        for name in ("\x1b[31mk", "a\nb", "../k", "k" * 200, "\u202ek", ""):
            with pytest.raises(PyrokernelError):
                mesh.start([pk.KernelSpec(name=name)])
            with pytest.raises(PyrokernelError):
                mesh["k0"].execute(f"import pyrokernel as pk\npk.publish({name!r}, object())")


def test_whoever_may_only_look_writes_into_no_cell_of_others(fortress: Fortress) -> None:
    """Requests that fail, that may not be, and that the parser of Python warns of: while a cell of somebody runs."""
    uri = fortress.uri_of("k0")
    asked = [
        joined(frame(MSG_INVOKE, codec.encode((KERNEL_OBJECT, method, arguments, {}))))
        for method, arguments in (("inspect", ("len", 1, {"detail": "HACKED"})), ("complete", (5, "HACKED")),
                                  ("execute", ("HACKED",)), ("HACKED", ()), ("describe", ("HACKED",) * 9))
    ]  # fmt: skip
    warned = b"# serpent utf-8 python3.2\n('pyrokernel.kernel','ping',[1if 2else 3],{})"
    asked.append(joined(frame(MSG_INVOKE, [warned], serializer_id=1)))
    with fortress.connected("boss") as mesh:
        cell = mesh["k0"].submit("import time; time.sleep(60)")
        wait_until(lambda: mesh["k0"].describe()["running"])
        for data in asked:
            with fortress.secured("olga") as sock:
                sock.sendall(hello(object_in(uri), codec="pickle5"))
                answer_to(sock)
                sock.sendall(data)
                with contextlib.suppress(OSError):
                    sock.recv(4096)
        cell.interrupt()
        reply = cell.reply(timeout=20, check=False)
    assert "HACKED" not in reply.stdout + reply.stderr
    assert "olga" not in reply.stdout + reply.stderr
    assert "SyntaxWarning" not in reply.stdout + reply.stderr


def test_what_the_parser_of_python_warns_of_is_no_line_of_the_log(fortress: Fortress) -> None:
    since = len(fortress.logged())
    for _ in range(5):
        with fortress.secured("nick") as sock:
            sock.sendall(hello("", payload=b"# serpent utf-8 python3.2\n\n\n{'object':[1if 2else 3]}"))
            answer_to(sock)
    assert "SyntaxWarning" not in fortress.logged(since)
