"""A gateway before a daemon: who comes in, as whom, and how it leads out again. All in threads of the test process."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import socket
import ssl
import stat
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from ports import free_port
from Pyro5.errors import PyroError
from served import OBJECT, PORTABLE, Service
from waiting import wait_until

from pyrokernel.audit import AuditFile, Filter
from pyrokernel.certs.bundles import take_revoked
from pyrokernel.certs.crl import make_crl
from pyrokernel.errors import (
    AccessRefusedError,
    KernelRestartedError,
    KernelUnreachableError,
    PyrokernelError,
    SettingsError,
)
from pyrokernel.gateway import questions
from pyrokernel.gateway.gateway import Gateway
from pyrokernel.gateway.newcomers import MAX_NEWCOMERS
from pyrokernel.gateway.visitors import Visitors
from pyrokernel.roles import Role
from pyrokernel.settings import Settings
from pyrokernel.wire import proxy
from pyrokernel.wire.daemon import Daemon, current_peer
from pyrokernel.wire.direct import ask_directly
from pyrokernel.wire.exposing import expose
from pyrokernel.wire.fanout import ConnectionLost, Fanout, Request
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.introduction import FOR, pack, words_for
from pyrokernel.wire.nameserver import EmbeddedNameServer
from pyrokernel.wire.naming import Directory, public_uri, reachable_uri
from pyrokernel.wire.proxy import Proxy, connect
from pyrokernel.wire.remote import Credentials
from pyrokernel.wire.revoked import SEEN

POLICY = """
[users]
ana = "user"
olga = "observer"
nils = "nobody"
ada = "admin"
"""


class Asked(Service):
    """Also tells who asks."""

    @expose(Role.OBSERVER)
    def whoami(self) -> list[Any]:
        peer = current_peer()
        return [peer.user, peer.role.word, peer.kind, peer.uid, bool(peer.address)]

    @expose(Role.USER)
    def echo(self, value: Any) -> Any:
        return value

    @expose(Role.USER)
    def bulk(self, size: int) -> bytes:
        return bytes(size)


class Machine:
    """A daemon behind a gateway, in a directory of its own, listening at a port that was free."""

    def __init__(self, folder: Path, authority: Authority, name: str, *, portable: bool = PORTABLE) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        policy = folder / "policy.toml"
        policy.write_text(POLICY)
        self.certs = authority.identity("host", name, ["127.0.0.1"], at=f"host-{name}-{os.urandom(4).hex()}")
        self.settings = settings = Settings(
            listen=self.address,
            host_certs=str(self.certs),
            policy=str(policy),
            portable=portable,
            state_dir=str(folder / "state"),
        )
        settings.mesh_state_dir.mkdir(parents=True)
        self.record = AuditFile(settings.mesh_state_dir, 1 << 20)
        self.record.create()
        self.service = Asked()
        self.daemon = Daemon(folder / "abc123.sock", identity={"kernel": "k", "instance": "abc123"}, portable=portable)
        self.daemon.register(self.service, OBJECT)
        self.daemon.start()
        record = {"role": "kernel", "instance": "abc123", "spec": {"name": "k"}}
        (folder / "kernels").mkdir()
        (folder / "kernels" / "k.json").write_text(json.dumps(record))
        self.gateway = Gateway(self.settings, folder, folder / "gateway")
        self.thread = threading.Thread(target=self.gateway.run)
        self.thread.start()
        self.uri = public_uri(self.daemon.uri_for(OBJECT), self.address)
        self.way_out = Credentials.of_process(str(folder / "gateway"))

    def close(self) -> None:
        self.service.gate.set()
        self.gateway.loop.stop()
        self.thread.join(10)
        self.daemon.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def users(authority: Authority) -> dict[str, Credentials]:
    return {name: Credentials(authority.identity("user", name)) for name in ("ada", "ana", "olga", "nils", "zoe")}


@pytest.fixture(scope="module", params=["portable"] if PORTABLE else ["unix", "portable"])
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Machine]:
    portable = request.param == "portable"
    made = Machine(tmp_path_factory.mktemp("m") / "one", authority, "lab1", portable=portable)
    yield made
    made.close()


def asked(uri: str, credentials: Credentials, method: str, *args: Any, instance: str = "", machine: str = "") -> Any:
    connection = connect(uri, kind="control", instance=instance, credentials=credentials, machine=machine)
    try:
        return ask_directly(connection, OBJECT, method, args, 20)
    except ConnectionLost as lost:
        raise lost.__cause__ or lost from lost
    finally:
        connection.close()


def test_who_comes_in_is_who_its_certificate_says_with_the_role_of_the_policy(
    machine: Machine, users: dict[str, Credentials]
) -> None:
    assert asked(machine.uri, users["ana"], "whoami") == ["ana", "user", "user", -1, True]
    assert asked(machine.uri, users["olga"], "whoami") == ["olga", "observer", "user", -1, True]
    assert asked(machine.uri, users["zoe"], "whoami")[1] == "observer"  # of whom the policy says nothing


def test_a_certificate_that_is_refused_is_on_record(machine: Machine, authority: Authority, tmp_path: Path) -> None:
    old = authority.identity("user", "old", begun=20, days=10, at=f"old-{os.urandom(4).hex()}")
    foreign = Authority(tmp_path / "other", "other").identity("user", "eve")
    for identity in (old, foreign, foreign, None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if identity is not None:
            context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
        host, _, port = machine.address.rpartition(":")
        sock = socket.create_connection((host, int(port)))
        with contextlib.suppress(ssl.SSLError, ConnectionError), context.wrap_socket(sock) as secured:
            assert secured.recv(1) == b""
    # Of a flood one line: the second stranger of that kind is counted with the next.
    wanted = ["an expired certificate", "a certificate of another authority", "no certificate"]
    wait_until(lambda: len(machine.record.read(Filter())[0]) >= len(wanted))
    records, _, _ = machine.record.read(Filter())
    assert [one["asked"] for one in records] == [f"a connection with {one}" for one in wanted]
    assert all(one["what"] == "refused" and one["via"].startswith("127.0.0.1:") for one in records)


def test_who_has_no_role_is_told_so_by_the_gateway(machine: Machine, users: dict[str, Credentials]) -> None:
    with pytest.raises(PyrokernelError, match="gives user nils no role"):
        asked(machine.uri, users["nils"], "whoami")


def test_an_observer_is_refused_what_takes_a_user(machine: Machine, users: dict[str, Credentials]) -> None:
    with pytest.raises(AccessRefusedError, match="olga is an observer here"):
        asked(machine.uri, users["olga"], "bulk", 5)


def test_large_answers_and_requests_pass_whole(machine: Machine, users: dict[str, Credentials]) -> None:
    assert asked(machine.uri, users["ana"], "bulk", 30_000_000) == bytes(30_000_000)
    data = os.urandom(20_000_000)
    assert asked(machine.uri, users["ana"], "echo", data) == data


def test_64_connections_are_served_in_one_loop(machine: Machine, users: dict[str, Credentials]) -> None:
    connections = [connect(machine.uri, kind="control", credentials=users["ana"]) for _ in range(64)]
    with Fanout() as fanout:
        for turn in range(3):
            for number, connection in enumerate(connections):
                fanout.send(connection, Request(OBJECT, "echo", [[turn, number]]), number)
            answers = {answer.token: answer.value for answer in fanout.answers(time.monotonic() + 30)}
            assert answers == {number: [turn, number] for number in range(64)}
    for connection in connections:
        connection.close()


def test_another_life_of_a_kernel_is_noticed(machine: Machine, users: dict[str, Credentials]) -> None:
    with pytest.raises(KernelRestartedError):
        asked(machine.uri, users["ana"], "whoami", instance="an older one")


@pytest.mark.parametrize("name", [("kernel", "camera"), ("host", "lab1")])
def test_another_kernel_than_was_asked_for_gets_no_request(
    machine: Machine, users: dict[str, Credentials], name: tuple[str, str]
) -> None:
    connection = connect(machine.uri, kind="control", name=name, credentials=users["ada"])
    machine.service.marked = False
    with pytest.raises(AccessRefusedError, match=f"the name server says that {name[0]} '{name[1]}' is, there is"):
        ask_directly(connection, OBJECT, "mark", (), 20)
    connection.close()
    known = connect(machine.uri, kind="control", name=("kernel", "k"), credentials=users["ana"])
    assert ask_directly(known, OBJECT, "whoami", (), 20)[0] == "ana"
    assert not machine.service.marked
    known.close()


@pytest.mark.parametrize(
    "word", ["../one/abc123", "gateway", "", "nothing", "abc123.sock", "abc\x00d", "a" * 5000, "/etc/passwd", ".", ".."]
)
def test_a_word_that_is_no_socket_of_the_mesh_leads_nowhere(
    machine: Machine, users: dict[str, Credentials], word: str
) -> None:
    with pytest.raises(
        (PyrokernelError, ConnectionLost, PyroError, OSError),
        match=r"there is no|closed|too large|bytes|unknown object|invalid uri|reset by peer|Broken pipe",
    ):
        asked(f"PYRO:{OBJECT}/{word}@{machine.address}", users["ana"], "whoami")


def say_by_tls(monkeypatch: pytest.MonkeyPatch, words: bytes) -> list[Any]:
    """Have connections by TLS say whom they are for, as a gateway does; return what lists those that did."""
    original, sent = proxy.frame, []

    def with_words(*args: Any, **options: Any) -> Any:
        sent.append(args)
        return original(*args, **{**options, "annotations": pack({FOR: words})})

    monkeypatch.setattr(proxy, "frame", with_words)
    return sent


def test_what_a_user_says_of_itself_is_not_believed(
    machine: Machine, users: dict[str, Credentials], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = say_by_tls(monkeypatch, words_for("root", Role.ADMIN))
    assert asked(machine.uri, users["ana"], "whoami")[:2] == ["ana", "user"]
    assert sent


def test_a_process_without_a_key_reaches_another_machine_by_its_gateway(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    other = Machine(tmp_path / "two", authority, "lab2")
    try:
        found = asked(machine.uri, other.way_out, "whoami")
        assert found[0] == "lab2"
        assert found[2] == "host"
        data = os.urandom(5_000_000)
        assert asked(machine.uri, other.way_out, "echo", data) == data
        with pytest.raises(KernelUnreachableError, match=r"nobody answers at 127\.0\.0\.1:1"):
            asked(f"PYRO:{OBJECT}/abc123@127.0.0.1:1", other.way_out, "whoami")
        assert asked(machine.uri, other.way_out, "whoami", machine="lab1")[0] == "lab2"
        with pytest.raises(KernelUnreachableError, match=r"is host lab1 by its certificate, and not lab3"):
            asked(machine.uri, other.way_out, "whoami", machine="lab3")
    finally:
        other.close()


INTRODUCING = """
[users]
ana = "observer"
nils = "nobody"
boss = "admin"
[kernels.k]
eve = "observer"
[hosts]
lab2 = "user"
"""


def test_whom_a_host_introduces_a_line_of_the_policy_can_restrict(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lower one counts, the host's or the user's; who has no line has the host's: `default` is for certificates."""
    first, second = Machine(tmp_path / "one", authority, "lab1"), Machine(tmp_path / "two", authority, "lab2")
    policy = tmp_path / "one" / "policy.toml"
    policy.write_text(INTRODUCING)
    wait_until(lambda: first.gateway._visitors._decisions._policy.hosts)
    try:
        for user, role in (("ana", "observer"), ("eve", "observer"), ("boss", "user"), ("new", "user")):
            said = pack({FOR: words_for(user, Role.ADMIN)})
            monkeypatch.setattr(proxy, "said_of_us", lambda said=said: said)
            assert asked(first.uri, second.way_out, "whoami")[:3] == [user, role, "user"]
        monkeypatch.setattr(proxy, "said_of_us", lambda: pack({FOR: words_for("nils", Role.ADMIN)}))
        refused = r"gives user nils@lab2 no role; .*check nils --through lab2"
        with pytest.raises(KernelUnreachableError, match=refused):
            asked(first.uri, second.way_out, "whoami")
        monkeypatch.setattr(proxy, "said_of_us", lambda: pack({FOR: words_for("new", Role.ADMIN)}))
        connection = connect(first.uri, kind="control", credentials=second.way_out)
        assert ask_directly(connection, OBJECT, "whoami", (), 20)[1] == "user"
        policy.write_text(INTRODUCING.replace("nils", "new"))
        wait_until(lambda: connection.has_input)
        connection.close()
    finally:
        first.close()
        second.close()


def test_a_host_is_the_one_that_was_meant_or_nothing_is_said_to_it(
    machine: Machine, users: dict[str, Credentials]
) -> None:
    assert asked(machine.uri, users["ana"], "whoami", machine="lab1")[0] == "ana"
    with pytest.raises(AccessRefusedError, match=r"is host lab1 by its certificate, and not lab2"):
        asked(machine.uri, users["ana"], "whoami", machine="lab2")


def test_a_stock_client_reaches_an_object_by_its_public_name(machine: Machine, users: dict[str, Credentials]) -> None:
    proxy = Proxy(machine.uri, 10, users["ana"])
    assert proxy.echo([1, "x"]) == [1, "x"]
    assert proxy.still_connected()
    proxy.close()


def test_a_user_who_serves_is_no_host(machine: Machine, users: dict[str, Credentials], authority: Authority) -> None:
    """Neither by its kind nor by what its certificate is for."""
    fake = socket.create_server(("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    mallory = authority.identity("user", "mallory", ["127.0.0.1"], at=f"mallory-{os.urandom(4).hex()}")
    context.load_cert_chain(mallory / "key.pem")

    def serve() -> None:
        with fake, fake.accept()[0] as plain, contextlib.suppress(OSError):  # it is refused, as it should be
            context.wrap_socket(plain, server_side=True).recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(AccessRefusedError):
        asked(f"PYRO:{OBJECT}/abc123@127.0.0.1:{fake.getsockname()[1]}", users["ana"], "whoami")
    thread.join(10)


def test_silent_clients_by_the_hundred_hold_nobody_up(machine: Machine, users: dict[str, Credentials]) -> None:
    host, _, port = machine.address.partition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(MAX_NEWCOMERS + 50)]
    for each in silent[:100]:
        each.send(b"\x16\x03\x01\x02\x00")  # the beginning of a ClientHello
    assert asked(machine.uri, users["ana"], "whoami")[0] == "ana"
    wait_until(lambda: len(machine.gateway._newcomers) <= MAX_NEWCOMERS)
    for each in silent:
        each.close()
    wait_until(lambda: len(machine.gateway._newcomers) == 0)


def test_a_changed_policy_ends_connections_with_the_old_role(
    authority: Authority, users: dict[str, Credentials], tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "one", authority, "lab3")
    try:
        connection = connect(machine.uri, kind="control", credentials=users["ana"])
        assert ask_directly(connection, OBJECT, "whoami", (), 20)[1] == "user"
        (tmp_path / "one" / "policy.toml").write_text('[users]\nana = "observer"\n')
        wait_until(lambda: connection.has_input)
        assert asked(machine.uri, users["ana"], "whoami")[1] == "observer"
    finally:
        machine.close()


def test_a_plugin_that_hangs_about_one_user_holds_up_nobody_else(
    authority: Authority,
    users: dict[str, Credentials],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 0.6)
    machine = Machine(tmp_path / "one", authority, "lab7")
    gate, hanging = threading.Event(), {"zoe"}

    def hang(user: str, *_: str) -> None:
        if user in hanging:
            gate.wait(20)

    decider = machine.gateway._visitors._decisions._decider
    monkeypatch.setattr(type(decider), "has_plugins", True)
    monkeypatch.setattr(decider, "ask_plugins", hang)
    try:
        opened = connect(machine.uri, kind="control", credentials=users["ana"])
        hangs = connect(machine.uri, kind="control", credentials=users["zoe"])
        assert ask_directly(opened, OBJECT, "whoami", (), 20)[1] == "user"
        assert asked(machine.uri, users["olga"], "whoami")[1] == "observer"
        with pytest.raises(ConnectionLost) as caught:
            ask_directly(hangs, OBJECT, "whoami", (), 20)
        assert "has not answered in time about user zoe; try again" in str(caught.value.__cause__)
        assert ask_directly(opened, OBJECT, "whoami", (), 20)[1] == "user"
        hanging.add("ana")  # who is in already: nobody knows any more what she may do
        wait_until(lambda: opened.has_input)
        opened.close()
        hangs.close()
    finally:
        gate.set()
        machine.close()
    gone = [record.getMessage() for record in caplog.records if "ana at" in record.getMessage()]
    assert gone[0].endswith(" has to go: the policy of this machine has not answered in time")


def test_one_certificate_has_its_share_of_connections_also_while_a_plugin_is_slow(
    authority: Authority, users: dict[str, Credentials], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 60.0)
    machine = Machine(tmp_path / "one", authority, "lab7")
    gate = threading.Event()
    visitors = machine.gateway._visitors
    decider = visitors._decisions._decider
    monkeypatch.setattr(visitors, "_share", 2)
    monkeypatch.setattr(type(decider), "has_plugins", True)
    monkeypatch.setattr(decider, "ask_plugins", lambda user, *_: gate.wait(20) and None if user == "zoe" else None)
    try:
        waiting = [connect(machine.uri, kind="control", credentials=users["zoe"]) for _ in range(2)]
        answers = [threading.Thread(target=ask_directly, args=(one, OBJECT, "whoami", (), 20)) for one in waiting]
        for each in answers:
            each.start()
        wait_until(lambda: len(machine.gateway._undecided) == 2)
        with pytest.raises(PyrokernelError, match="user zoe has 2 connections to this machine, and no certificate"):
            asked(machine.uri, users["zoe"], "whoami")
        assert asked(machine.uri, users["ana"], "whoami")[0] == "ana"
        gate.set()
        for each in answers:
            each.join(20)
        assert not machine.gateway._undecided
        with pytest.raises(PyrokernelError, match="user zoe has 2 connections"):
            asked(machine.uri, users["zoe"], "whoami")
        for one in waiting:
            one.close()
        wait_until(lambda: not visitors._here)
        assert asked(machine.uri, users["zoe"], "whoami")[0] == "zoe"
    finally:
        gate.set()
        machine.close()


class Recording:
    """A plugin that leaves everything to the file, and remembers of whom it was asked."""

    all = (types.SimpleNamespace(name="recording"),)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def implements(self, hook: str) -> bool:
        return True

    def call(self, plugin: object, hook: str, *, user: str, kind: str, kernel: str, address: str) -> None:
        self.asked.append(f"{kind} {user}")


def test_of_whom_a_host_introduces_a_plugin_is_asked_once_and_of_the_host_once(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, plugin = Machine(tmp_path / "one", authority, "lab1"), Recording()
    lab2 = Credentials(authority.identity("host", "lab2", at=str(tmp_path / "h")))
    monkeypatch.setattr(machine.gateway._visitors._decisions._decider, "_plugins", plugin)
    say_by_tls(monkeypatch, words_for("ana", Role.ADMIN))
    try:
        connection = connect(machine.uri, kind="control", credentials=lab2)
        assert ask_directly(connection, OBJECT, "whoami", (), 20)[:2] == ["ana", "user"]
        wait_until(lambda: len(plugin.asked) >= 4)  # and once more by whoever looks around each second
        assert plugin.asked[:4] == ["host lab2", "user ana"] * 2
        connection.close()
    finally:
        machine.close()


def test_where_somebody_comes_from_is_not_what_a_host_says(
    machine: Machine, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab2 = Credentials(authority.identity("host", "lab2", at=str(tmp_path / "h")))
    say_by_tls(monkeypatch, words_for("nils", Role.ADMIN, "10.9.9.9:1"))
    with pytest.raises(PyrokernelError, match="gives user nils@lab2 no role"):
        asked(machine.uri, lab2, "whoami")
    (record,) = machine.record.read(Filter(user="nils@lab2"))[0]
    assert record["via"].startswith("127.0.0.1:")


def revoking(authority: Authority, number: int, *credentials: Credentials) -> bytes:
    """Return a list that revokes the certificates of some users."""
    now = datetime.datetime.now(datetime.UTC)
    serials = [int(Identity.load(one.identity).cert["serialNumber"], 16) for one in credentials]
    return make_crl(dict.fromkeys(serials, now), number, ca_key=authority.key, ca=authority.cert)


DAMAGED = "-----BEGIN X509 CRL-----\nMIIBI\n-----END X509 CRL-----\n"
"""Base64 that ends too early."""


def test_what_was_revoked_stays_so_when_an_older_list_or_none_is_put_there(
    authority: Authority, users: dict[str, Credentials], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(tmp_path / "one", authority, "lab5")
    crl = machine.certs / "crl.pem"
    try:
        crl.write_bytes(revoking(authority, 4, users["ana"]))
        wait_until(lambda: (machine.certs / SEEN).exists())
        for change, said in (
            (lambda: crl.write_bytes(revoking(authority, 3)), f"{crl} is number 3 of the list"),
            (crl.unlink, f"{crl} is gone, and number 4 of it was there"),
            (lambda: crl.write_text(DAMAGED), f"{crl} is damaged, or has no number, and number 4 of it was there"),
        ):
            change()
            wait_until(lambda said=said: said in caplog.text)
            with pytest.raises(PyrokernelError, match="revoked"):
                asked(machine.uri, users["ana"], "whoami")
            assert asked(machine.uri, users["zoe"], "whoami")[0] == "zoe"
            # Nor does the next gateway begin with it, nor does this host go out by it.
            with pytest.raises(SettingsError, match="from where the authority lies"):
                Visitors(machine.gateway.loop, machine.settings, 1, lambda peer: None)
            with pytest.raises(SettingsError, match="from where the authority lies"):
                Identity.load(machine.certs).client_context()
        crl.write_bytes(revoking(authority, 5))
        wait_until(lambda: not machine.gateway._visitors._revoked)
        assert asked(machine.uri, users["ana"], "whoami")[0] == "ana"
        assert stat.S_IMODE((machine.certs / SEEN).stat().st_mode) == 0o600
    finally:
        machine.close()


def test_what_has_ended_is_hung_up_on_also_while_the_list_is_damaged(
    authority: Authority, users: dict[str, Credentials], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(tmp_path / "one", authority, "lab8")
    crl, ca = machine.certs / "crl.pem", machine.certs / "ca.pem"
    try:
        crl.write_bytes(revoking(authority, 4))
        wait_until(lambda: (machine.certs / SEEN).exists())
        opened = connect(machine.uri, kind="control", credentials=users["zoe"])
        assert ask_directly(opened, OBJECT, "whoami", (), 20)[0] == "zoe"
        crl.write_text(DAMAGED)
        wait_until(lambda: f"{crl} is damaged" in caplog.text)
        [(pump, visitor)] = machine.gateway._visitors._here.items()
        machine.gateway._visitors._here[pump] = visitor._replace(until=0.0)
        wait_until(lambda: opened.has_input)
        assert "zoe at 127.0.0.1" in caplog.text
        assert "has to go: the certificate has expired" in caplog.text
        opened.close()
        # Other tools write what a certificate says in front of it, in any language.
        ca.write_bytes("Aussteller: Universität\n".encode() + ca.read_bytes())
        crl.write_bytes(revoking(authority, 5, users["ana"]))
        wait_until(lambda: bool(machine.gateway._visitors._revoked))
        assert json.loads((machine.certs / SEEN).read_bytes())["number"] == 5
    finally:
        machine.close()


def test_a_name_server_by_itself_is_told_what_is_revoked_and_hangs_up(
    authority: Authority, users: dict[str, Credentials], tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "one", authority, "lab6")
    server = EmbeddedNameServer(
        machine.folder / "ns.sock",
        location=machine.address,
        portable=PORTABLE,
        on_revoked=functools.partial(take_revoked, machine.certs),
    )
    server.start()
    ada, ana = (Directory(machine.address, credentials=users[name]) for name in ("ada", "ana"))
    try:
        ana.ping()
        crl = revoking(authority, 7, users["ana"]).decode()
        with pytest.raises(AccessRefusedError, match="takes an admin"):
            ana.take_revoked(crl)
        assert (ada.take_revoked(crl), ada.take_revoked(crl)) == (True, False)
        wait_until(lambda: not ana.connected())
        with pytest.raises(AccessRefusedError, match="revoked"):
            ana.ping()
        with pytest.raises(AccessRefusedError, match="number 6, and number 7 is known"):
            ada.take_revoked(revoking(authority, 6).decode())
    finally:
        for each in (ada, ana, server, machine):
            each.close()


def test_a_renewed_certificate_of_the_host_is_shown_without_a_restart(
    authority: Authority, users: dict[str, Credentials], tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "one", authority, "lab4")
    try:
        before = machine.gateway._visitors.context
        anew = authority.identity("host", "lab4", ["127.0.0.1"], at="host-lab4-anew")
        os.replace(anew / "key.pem", machine.certs / "key.pem")
        wait_until(lambda: machine.gateway._visitors.context is not before)
        assert asked(machine.uri, users["ana"], "whoami")[0] == "ana"
    finally:
        machine.close()


def test_what_is_on_the_same_machine_is_reached_without_a_detour(machine: Machine) -> None:
    near = machine.daemon.uri_for(OBJECT)
    assert reachable_uri(near, machine.address) == near
    gone = near.replace("abc123", "gone")
    assert reachable_uri(gone, machine.address) == f"PYRO:{OBJECT}/gone@{machine.address}"
