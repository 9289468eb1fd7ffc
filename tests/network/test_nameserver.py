"""Our name server, as stock clients see it: names have owners, and one client costs the others little."""

from __future__ import annotations

import contextlib
import logging
import random
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from Pyro5 import api, core, errors, nameserver, protocol, serializers
from Pyro5.callcontext import current_context
from served import reach

from pyrokernel.cli import main
from pyrokernel.errors import AccessRefusedError, NameServerError, NameTakenError, SettingsError
from pyrokernel.front.exits import ExitCode
from pyrokernel.roles import Role
from pyrokernel.wire import nameserver as ours
from pyrokernel.wire import registration
from pyrokernel.wire.introduction import words_for
from pyrokernel.wire.nameserver import EmbeddedNameServer, GuardedNameServer, open_storage
from pyrokernel.wire.naming import Directory
from pyrokernel.wire.trust import Peer

URI = "PYRO:x@10.0.0.1:900"
NSC = """
import sys
from Pyro5 import nsc
from Pyro5.callcontext import current_context
current_context.annotations = {"PKBY": sys.argv.pop(1).encode()}
sys.argv[0] = "pyro5-nsc"
nsc.main()
"""
"""The stock tool, let in by somebody who says for whom: what the gateway does for a certificate."""


@pytest.fixture(params=["memory", "sql"])
def storage(request: pytest.FixtureRequest, private_dir: Path) -> str:
    return "memory" if request.param == "memory" else f"sql:{private_dir / 'names.sqlite'}"


@pytest.fixture
def server(private_dir: Path, storage: str) -> Iterator[EmbeddedNameServer]:
    found = EmbeddedNameServer(private_dir / "ns.sock", storage)
    found.start()
    yield found
    found.close()


@contextlib.contextmanager
def client(server: EmbeddedNameServer, words: bytes | None = None) -> Iterator[Any]:
    """A stock proxy, of this account or of whom the words name."""
    proxy = api.Proxy(f"PYRO:{core.NAMESERVER_NAME}@{server.address}")
    current_context.annotations = {"PKBY": words} if words else {}
    try:
        proxy._pyroBind()
    finally:
        current_context.annotations = {}
    with proxy:
        yield proxy


@pytest.fixture
def of(server: EmbeddedNameServer) -> Iterator[Callable[..., Any]]:
    """Stock proxies of users and hosts: `of("ana")`, `of("lab1", kind="host")`; of this account without a name."""
    with contextlib.ExitStack() as stack:

        def make(
            user: str = "",
            role: Role = Role.USER,
            address: str = "10.0.0.1:5000",
            kind: str = "user",
            through: str = "",
        ) -> Any:
            words = words_for(user, role, address, kind, through) if user else None
            return stack.enter_context(client(server, words))

        yield make


def test_a_name_is_its_owners(of: Callable[..., Any]) -> None:
    ana, bob = of("ana"), of("bob")
    ana.register("camera", URI, metadata={"unit:1"})
    assert ana.lookup("camera", return_metadata=True)[1] == {"unit:1", "owner:user:ana"}
    for change in (
        lambda: bob.register("camera", URI + "1"),
        lambda: bob.remove("camera"),
        lambda: bob.remove(prefix="cam"),
        lambda: bob.remove(regex="c.*"),
        lambda: bob.set_metadata("camera", {"mine"}),
    ):
        with pytest.raises(errors.NamingError, match="held by"):
            change()
    assert str(bob.lookup("camera")) == URI
    ana.set_metadata("camera", {"unit:2"})
    assert bob.lookup("camera", return_metadata=True)[1] == {"unit:2", "owner:user:ana"}
    ana.set_metadata("camera", None)
    ana.register("camera", URI + "1")
    assert str(bob.lookup("camera")) == URI + "1"
    assert bob.lookup("camera", return_metadata=True)[1] == {"owner:user:ana"}
    assert ana.remove("camera") == 1
    assert ana.remove("camera") == 0


def test_who_changed_names_and_who_was_refused_is_noted(
    of: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pyrokernel.wire.nameserver")
    of("ana").register("camera", URI)
    with pytest.raises(errors.NamingError):
        of("bob", address="10.0.0.9:4").remove("camera")
    of().remove("camera")
    noted = [record.getMessage() for record in caplog.records]
    assert noted[0] == f"user ana registered camera for {URI}"
    assert noted[1].startswith("refused user bob 10.0.0.9:4: the name camera is held by user ana")
    assert re.fullmatch(r"account \S+ removed camera", noted[2])


def test_whom_a_host_introduces_is_called_so_in_log_and_errors(
    of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pyrokernel.wire.nameserver")
    monkeypatch.setattr(ours, "NAMES_OF_ONE", 1)
    ana = of("ana", through="lab2")
    ana.register("camera", URI)
    for change, message in (
        (lambda: ana.register("lamp", URI), "user ana@lab2 holds 1 names"),
        (lambda: ana.register("pyrokernel.kernel.k", URI), "is for hosts, and this is user ana@lab2"),
        (lambda: ana.set_metadata("camera", {"host:lab2"}), "for that host, and this is user ana@lab2"),
        (lambda: ana.set_metadata("camera", {"socket:/a"}), "for hosts, and this is user ana@lab2"),
        (lambda: of("ana").remove("camera"), "held by user ana@lab2, not by user ana;"),
    ):
        with pytest.raises(errors.NamingError, match=message):
            change()
    ana.remove("camera")
    ana.remove(prefix="none")
    noted = [record.getMessage() for record in caplog.records]
    assert noted[0] == f"user ana@lab2 registered camera for {URI}"
    assert noted[1].startswith("refused user ana@lab2 10.0.0.1:5000: ")
    assert noted[-2:] == ["user ana@lab2 removed camera", "user ana@lab2 removed 0 names"]


def test_a_user_a_host_and_an_account_of_one_name_are_three(of: Callable[..., Any]) -> None:
    of("lab1", kind="host").register("camera", URI)
    with pytest.raises(errors.NamingError, match="held by host lab1, not by user lab1"):
        of("lab1").register("camera", URI)


def test_an_admin_and_this_account_may_remove_anything(of: Callable[..., Any]) -> None:
    for number, remover in enumerate((of("eve", Role.ADMIN), of())):
        of("lab1", kind="host").register("pyrokernel.host.lab1", URI)
        of("ana").register(f"camera{number}", URI)
        assert remover.remove("pyrokernel.host.lab1") == 1
        assert remover.remove(prefix="camera") == 1


def test_of_what_matches_only_ones_own_is_removed(of: Callable[..., Any]) -> None:
    ana, bob = of("ana"), of("bob")
    for each, name in ((ana, "c1"), (ana, "c2"), (bob, "c3"), (bob, "d1")):
        each.register(name, URI)
    assert ana.remove(prefix="c") == 2
    assert bob.remove(regex="c.|d.") == 2
    assert set(bob.list()) == {core.NAMESERVER_NAME}
    assert ana.remove(prefix="c") == ana.remove(regex="c") == ana.remove() == 0


def test_observers_look_and_change_nothing_and_nobody_does_not_even_look(of: Callable[..., Any]) -> None:
    of("ana").register("camera", URI, metadata={"big"})
    observer = of("olga", Role.OBSERVER)
    look: list[Callable[[Any], Any]] = [
        lambda ns: ns.ping(), lambda ns: ns.count(), lambda ns: ns.list(), lambda ns: ns.list(prefix="c"),
        lambda ns: ns.list(regex="c"), lambda ns: ns.lookup("camera"), lambda ns: ns.yplookup(meta_any={"big"}),
    ]  # fmt: skip
    change: list[Callable[[Any], Any]] = [
        lambda ns: ns.register("own", URI), lambda ns: ns.remove("camera"), lambda ns: ns.remove(prefix="x"),
        lambda ns: ns.set_metadata("camera", ()),
    ]  # fmt: skip
    for ask in look:
        ask(observer)
    for ask in change:
        with pytest.raises(RuntimeError, match=r"olga is an observer here, and .* takes a user"):
            ask(observer)
    with pytest.raises(errors.CommunicationError, match="nils is nobody here"):
        of("nils", Role.NOBODY)


def test_who_may_only_look_asks_in_few_words(of: Callable[..., Any]) -> None:
    long = "x" * 300_000
    assert of("ana").list(prefix=long) == {}
    with pytest.raises(errors.CommunicationError):
        of("olga", Role.OBSERVER).list(prefix=long)


def test_every_method_that_a_client_reaches_is_one_of_ours() -> None:
    """A method of Pyro's that is not overridden would ask nobody."""
    reachable = {
        name for name in dir(GuardedNameServer) if getattr(getattr(GuardedNameServer, name), "_pyroExposed", False)
    }
    looking = {"count", "list", "lookup", "ping", "yplookup"}
    assert reachable == looking | {"register", "remove", "set_metadata", "take_revoked"}
    assert reachable <= set(vars(GuardedNameServer))


def test_names_of_pyrokernel_are_for_hosts_and_this_account(of: Callable[..., Any]) -> None:
    kernel, shared, host = "pyrokernel.kernel.k0", "pyrokernel.shared", "pyrokernel.host.lab1"
    ana, lab1, lab2 = of("ana", Role.ADMIN), of("lab1", kind="host"), of("lab2", kind="host")
    for name in (kernel, shared, host, "pyrokernel.anything"):
        with pytest.raises(errors.NamingError, match="is for hosts, and this is user ana"):
            ana.register(name, URI)
    with pytest.raises(errors.NamingError, match="is for that host, and this is lab2"):
        lab2.register(host, URI)
    with pytest.raises(errors.NamingError, match="reserved"):
        lab1.register("pyrokernel.anything", URI)
    for name in (kernel, shared, host):
        lab1.register(name, URI, metadata={"host:lab1", "class:pyrokernel.x"})
        with pytest.raises(errors.NamingError, match=r"held by host lab1|is for that host"):
            lab2.register(name, URI)
    of().register("pyrokernel.host.lab3", "PYRO:x@./u:/tmp/x.sock", metadata={"host:lab3"})


def test_the_name_server_keeps_its_own_name(of: Callable[..., Any], server: EmbeddedNameServer) -> None:
    own = core.NAMESERVER_NAME
    for each in (of(), of("eve", Role.ADMIN), of("lab1", kind="host")):
        for change in (
            lambda ns: ns.register(own, URI),
            lambda ns: ns.remove(own),
            lambda ns: ns.set_metadata(own, ()),
            lambda ns: ns.remove(prefix="Pyro."),
        ):
            with pytest.raises(errors.NamingError, match=r"name server's own|held by others"):
                change(each)
        assert server.address in str(each.lookup(own))


def test_the_shared_state_is_for_the_host_that_keeps_it(private_dir: Path) -> None:
    """Also while its name is free, to whoever comes first: all machines would put there what they share."""
    server = EmbeddedNameServer(private_dir / "k.sock", state_host="lab1")
    server.start()
    try:
        with client(server, words_for("lab2", Role.USER, "10.0.0.2:5000", "host")) as other:
            for words in ({"host:lab2"}, {"instance:x"}, None):
                with pytest.raises(errors.NamingError, match="host lab1 keeps the shared state"):
                    other.register("pyrokernel.shared", URI, metadata=words)
        with client(server, words_for("lab1", Role.USER, "10.0.0.1:5000", "host")) as keeper:
            keeper.register("pyrokernel.shared", URI, metadata={"host:lab1"})
            keeper.remove("pyrokernel.shared")
        with client(server) as account:
            account.register("pyrokernel.shared", URI, metadata={"host:lab1"})
        directory = Directory(server.address)
        assert directory.state_host() == "lab1"
        directory.close()
    finally:
        server.close()


def test_where_nobody_says_which_host_keeps_the_shared_state_only_one_may(of: Callable[..., Any]) -> None:
    first, second = of("lab1", kind="host"), of("lab2", kind="host", address="10.0.0.2:5000")
    first.register("pyrokernel.host.lab1", URI, metadata={"host:lab1"})
    first.register("pyrokernel.shared", URI, metadata={"host:lab1"})
    first.remove("pyrokernel.shared")
    second.register("pyrokernel.host.lab2", URI, metadata={"host:lab2"})
    for host, name in ((first, "lab1"), (second, "lab2")):
        with pytest.raises(errors.NamingError, match=r"several hosts \(lab1, lab2\).*set state_host"):
            host.register("pyrokernel.shared", URI, metadata={f"host:{name}"})


def test_a_host_does_not_write_that_something_is_another_hosts(of: Callable[..., Any]) -> None:
    lab1 = of("lab1", kind="host")
    with pytest.raises(errors.NamingError, match="'host:lab2' are for that host, and this is host lab1"):
        lab1.register("pyrokernel.kernel.k0", URI, metadata={"host:lab2"})
    lab1.register("pyrokernel.kernel.k0", URI, metadata={"host:lab1"})


def test_what_is_of_a_host_is_the_hosts_whoever_wrote_it(of: Callable[..., Any]) -> None:
    """A host that used this machine's socket yesterday, and the network today."""
    of().register("pyrokernel.kernel.k0", URI, metadata={"host:lab1"})
    assert of("lab1", kind="host").remove("pyrokernel.kernel.k0") == 1


@pytest.mark.parametrize(
    "word", ["host:lab2", "class:pyrokernel.kernel", "socket:/tmp/x.sock", "owner:user:ana", "owner:account:root"]
)
def test_nobody_writes_words_that_say_he_is_somebody_else(of: Callable[..., Any], word: str) -> None:
    bob = of("bob")
    bob.register("own", URI)
    for attempt in (lambda: bob.register("name", URI, metadata=[word]), lambda: bob.set_metadata("own", [word])):
        with pytest.raises(errors.NamingError, match="metadata"):
            attempt()
    assert "name" not in bob.list()
    bob.set_metadata("own", bob.lookup("own", return_metadata=True)[1] | {"more"})


@pytest.mark.parametrize(
    "name",
    [
        "", "a b", "a\nb", "a\x1b[2Jb", "\u202egnp", "a\u200bb", "a\x7f", "../x", "a/b", "a\\b", "a..b", "n" * 201,
        "pyrokernel.kernel.\u00e4", "pyrokernel.kernel.a@b", None, 7, ["x"],
    ],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(of: Callable[..., Any], name: Any) -> None:
    account = of()
    with pytest.raises(errors.NamingError) as told:
        account.register(name, URI)
    assert str(told.value).isprintable()
    assert account.count() == 1


@pytest.mark.parametrize(
    "metadata",
    [
        ["a\x1b[31m"], ["\n"], [""], [7], [["a"]], ["x"] * 65, ["x" * 4097], ["host:../lab"], ["tag:a b"],
        ["kernel:a/b"],
    ],
)  # fmt: skip
def test_metadata_that_are_none_are_refused(of: Callable[..., Any], metadata: Any) -> None:
    account = of()
    account.register("own", URI)
    for attempt in (
        lambda: account.register("n", URI, metadata=metadata),
        lambda: account.set_metadata("own", metadata),
    ):
        with pytest.raises(errors.NamingError):
            attempt()
    for attempt in (lambda: account.register("n", URI, metadata="word"), lambda: account.set_metadata("own", "word")):
        with pytest.raises(TypeError, match="should not be a str"):
            attempt()
    assert account.count() == 2


@pytest.mark.parametrize(
    "uri",
    [
        "x", "PYRO:x", "PYRO:x@", "PYRO:x@host:port", "PYRO:x@host:0", "PYRO:x@host:70000", "PYRO:x@h\x1b[m:1",
        "P" * 500,
        "PYRO:x@./u:/tmp/x.sock", "PYRO:x@127.0.0.1:22", "PYRO:x@localhost:22", "PYRO:x@a.localhost.:22",
        "PYRO:x@ip6-localhost:22",
        "PYRO:x@[::1]:22", "PYRO:x@[::ffff:127.0.0.1]:22", "PYRO:x@0.0.0.0:22", "PYRO:x@127.1:22",
        "PYRO:x@0x7f000001:22",
        "PYRO:x@2130706433:22", "PYRO:x@224.0.0.1:22", "PYRONAME:other", "PYROMETA:a,b",
    ],
)  # fmt: skip
def test_an_entry_of_another_machine_leads_to_an_address_that_others_can_reach(
    of: Callable[..., Any], uri: str
) -> None:
    with pytest.raises(errors.NamingError) as told:
        of("lab1", kind="host").register("pyrokernel.host.lab1", uri)
    assert str(told.value).isprintable()


def test_on_this_machine_loopback_and_sockets_are_addresses(of: Callable[..., Any]) -> None:
    of("lab1", kind="host", address="127.0.0.1:5000").register("pyrokernel.host.lab1", "PYRO:x@127.0.0.1:22")
    of("ana", address="").register("camera", "PYRO:x@./u:/tmp/x.sock")
    of("ana").register("alias", "PYRONAME:camera@10.0.0.1")


def test_one_owner_cannot_fill_it(of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "NAMES_OF_ONE", 3)
    ana, bob = of("ana"), of("bob")
    for number in range(3):
        ana.register(f"a{number}", URI)
    with pytest.raises(errors.NamingError, match="user ana holds 3 names, which is the limit; remove some"):
        ana.register("a3", URI)
    ana.register("a2", URI + "1")
    bob.register("b0", URI)
    ana.remove("a0")
    ana.register("a3", URI)
    monkeypatch.setattr(ours, "MAX_NAMES", 5)
    with pytest.raises(errors.NamingError, match="there are 5 names here"):
        bob.register("b1", URI)


@pytest.mark.parametrize("method", ["list", "remove"])
def test_a_pattern_that_would_take_for_ever_is_refused(of: Callable[..., Any], method: str) -> None:
    ana = of("ana")
    ana.register("a" * 200, URI)
    began = time.monotonic()
    for pattern in ("(a+)+b", "(a|a)*b", "a?" * 50 + "a" * 50, "("):
        with pytest.raises(errors.NamingError):
            getattr(ana, method)(regex=pattern)
    assert time.monotonic() - began < 5
    assert set(ana.list(regex="a+$")) == {"a" * 200}


def test_prefixes_are_texts_not_patterns_of_sql(of: Callable[..., Any]) -> None:
    ana = of("ana")
    for name in ("a_1", "ab1", "A_2", "a%3"):
        ana.register(name, URI)
    assert set(ana.list(prefix="a_")) == {"a_1"}
    assert set(ana.list(prefix="a%")) == {"a%3"}
    assert ana.remove(prefix="a_") == 1


def test_yellow_pages_answer_as_pyros_own(of: Callable[..., Any]) -> None:
    stock = nameserver.NameServer()
    mine = of()
    for ns in (stock, mine):
        ns.register("x", URI, metadata={"a", "b"})
        ns.register("y", URI, metadata={"b"})
    for question in ({"meta_all": {"a", "b"}}, {"meta_any": ["a", "b"]}, {"meta_all": ["none"]}, {}):
        for with_words in (True, False):
            expected = stock.yplookup(**question, return_metadata=with_words)
            found = mine.yplookup(**question, return_metadata=with_words)
            assert set(found) == set(expected)
            if not with_words:
                assert found == expected
    with pytest.raises(TypeError):
        mine.yplookup(meta_any="a")
    with pytest.raises(ValueError, match="same time"):
        mine.yplookup(meta_any=["a"], meta_all=["a"])
    with pytest.raises(ValueError, match="one thing at a time"):
        mine.list(prefix="a", regex="a")


def test_names_and_owners_survive_and_pyros_own_name_server_reads_them(private_dir: Path) -> None:
    path = private_dir / "names.sqlite"
    first = EmbeddedNameServer(private_dir / "ns.sock", f"sql:{path}")
    first.start()
    with client(first, words_for("lab1", Role.USER, "10.0.0.1:5", "host")) as lab1:
        lab1.register("pyrokernel.kernel.k0", URI, metadata={"host:lab1", "tag:big"})
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = EmbeddedNameServer(private_dir / "ns.sock", f"sql:{path}")
    again.start()
    with client(again, words_for("lab2", Role.USER, "10.0.0.2:5", "host")) as lab2:
        assert lab2.lookup("pyrokernel.kernel.k0", return_metadata=True) == (
            core.URI(URI),
            {"host:lab1", "tag:big", "owner:host:lab1"},
        )
        with pytest.raises(errors.NamingError, match="held by host lab1"):
            lab2.register("pyrokernel.kernel.k0", URI)
    again.close()
    stock = nameserver.NameServer(nameserver.SqlStorage(str(path)))
    assert str(stock.lookup("pyrokernel.kernel.k0")) == URI
    stock.register("of.stock", URI, metadata={"a"})
    assert set(open_storage(f"sql:{path}")) == {core.NAMESERVER_NAME, "pyrokernel.kernel.k0", "of.stock"}


def test_two_name_servers_never_share_a_file(private_dir: Path) -> None:
    text = f"sql:{private_dir / 'names.sqlite'}"
    held = open_storage(text)
    with pytest.raises(NameServerError, match="stop it first"):
        open_storage(text)
    held.close()
    open_storage(text).close()


def test_a_file_that_is_damaged_is_said_and_left_as_it_is(private_dir: Path) -> None:
    path = private_dir / "names.sqlite"
    path.write_bytes(b"these are no names at all" * 100)
    for _ in range(2):
        with pytest.raises(NameServerError, match="nameserver restore"):
            open_storage(f"sql:{path}")
    assert path.read_bytes().startswith(b"these are no names")


@pytest.mark.parametrize("text", ["", "sql", "sql:", "dbm:file", "redis:x"])
def test_a_storage_that_there_is_not_is_said(text: str) -> None:
    with pytest.raises(SettingsError, match="sql:FILE"):
        open_storage(text)


def test_what_cannot_be_written_is_not_kept_either(private_dir: Path) -> None:
    path = private_dir / "names.sqlite"
    server = EmbeddedNameServer(private_dir / "ns.sock", f"sql:{path}")
    server.start()
    try:
        with client(server) as account, contextlib.closing(sqlite3.connect(path)) as other:
            account.register("before", URI)
            other.execute(
                "CREATE TRIGGER full BEFORE INSERT ON pyro_metadata BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
            other.commit()
            with pytest.raises(errors.NamingError, match="disk full"):
                account.register("after", URI)
            with pytest.raises(errors.NamingError, match="disk full"):
                account.register("before", URI + "1")
            assert set(account.list()) == {core.NAMESERVER_NAME, "before"}
            assert str(account.lookup("before")) == URI
    finally:
        server.close()


def test_a_list_has_an_end_and_many_names_stall_nobody(private_dir: Path) -> None:
    server = EmbeddedNameServer(private_dir / "ns.sock")
    for number in range(99_000):
        words = frozenset({"class:x", f"instance:{number:032x}", "host:lab1", "tag:big", "owner:host:lab1"})
        server._storage[f"pyrokernel.kernel.k{number}"] = (URI, words)
    server.start()
    try:
        with client(server) as account:
            for ask in (account.list, lambda **more: account.yplookup(meta_all=["tag:big"], **more)):
                with pytest.raises(errors.NamingError, match="ask for a part"):
                    ask(return_metadata=True)
            assert len(account.list(prefix="pyrokernel.kernel.k1234", return_metadata=True)) == 11
            assert len(account.list(regex=r".*\.k5432.$")) == 10
            began = time.monotonic()
            account.register("one.more", URI)
            account.remove("one.more")
            assert time.monotonic() - began < 1
    finally:
        server.close()


def hello(words: bytes = b"") -> bytes:
    data = serializers.SerpentSerializer().dumps({"handshake": "hello", "object": core.NAMESERVER_NAME})
    said = {"PKBY": words} if words else None
    return bytes(protocol.SendingMessage(protocol.MSG_CONNECT, 0, 1, 1, data, annotations=said).data)


def dial(server: EmbeddedNameServer) -> socket.socket:
    return reach(server.address)


def test_silent_clients_by_the_hundred_stall_nobody(server: EmbeddedNameServer) -> None:
    """Silent before the handshake, in the middle of it, after it, and in the middle of a request."""
    begun = (b"", hello()[:20], hello(), hello() + b"PYRO")
    silent = [dial(server) for _ in range(400)]
    try:
        for number, sock in enumerate(silent):
            sock.sendall(begun[number % 4])
        began = time.monotonic()
        with client(server) as account:
            account.register("camera", URI)
            assert account.lookup("camera")
        assert time.monotonic() - began < 5
        # Those that did not shake hands are gone after a while; the others were let in, and may be slow.
        assert silent[0].recv(1) == b""
        assert silent[1].recv(1) == b""
    finally:
        for sock in silent:
            sock.close()


def call_message(serializer_id: int, data: bytes, flags: int = 0, annotations: dict[str, bytes] | None = None) -> bytes:
    found = protocol.SendingMessage(protocol.MSG_INVOKE, 0, 2, serializer_id, data, annotations=annotations)
    raw = bytearray(found.data)
    raw[8:10] = (int.from_bytes(raw[8:10], "big") | flags).to_bytes(2, "big")
    return bytes(raw)


COUNT = serializers.SerpentSerializer().dumpsCall(core.NAMESERVER_NAME, "count", (), {})
"""A good request, but for what is put behind it."""


@pytest.mark.parametrize(
    "message",
    [
        call_message(serializers.MarshalSerializer.serializer_id, b"[\xff\xff\xff\x7f"),
        call_message(serializers.SerpentSerializer.serializer_id, b"x", protocol.FLAGS_COMPRESSED),
        call_message(
            serializers.SerpentSerializer.serializer_id, b"()", protocol.FLAGS_KEEPSERIALIZED, {"BLBI": b"[\xff"}
        ),
        call_message(serializers.SerpentSerializer.serializer_id, COUNT + b" " * ours.MAX_REQUEST_BYTES),
    ],
    ids=["marshal", "compressed", "blob", "large"],
)
def test_what_could_cost_much_is_not_decoded(server: EmbeddedNameServer, message: bytes) -> None:
    with dial(server) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(hello(words_for("bob", Role.USER, "10.0.0.2:7")))
        assert sock.recv(4)
        sock.sendall(message)
        while sock.recv(65536):
            pass
    with client(server) as account:
        protocol.SendingMessage.ping(account._pyroConnection)
        assert account.count() == 1


def nsc(server: EmbeddedNameServer, words: bytes | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the stock tool, of this account or of whom the words name."""
    path = server.address.removeprefix("./u:")
    before = [sys.executable, "-m", "Pyro5.nsc"] if words is None else [sys.executable, "-c", NSC, words.decode()]
    return subprocess.run(
        [*before, "-u", path, *arguments], input="y\n", capture_output=True, text=True, timeout=30, check=False
    )


def test_the_stock_tool_does_all_it_can_and_says_what_is_refused(private_dir: Path) -> None:
    server = EmbeddedNameServer(private_dir / "ns.sock", f"sql:{private_dir / 'names.sqlite'}")
    server.start()
    bob = words_for("bob", Role.USER, "10.0.0.2:7")
    try:
        for arguments, expected in (
            (["ping"], "Name server ping ok."),
            (["register", "camera", URI], "Registered camera"),
            (["setmeta", "camera", "big", "red"], "Metadata updated"),
            (["lookup", "camera"], URI),
            (["list", "cam"], "camera --> "),
            (["listmatching", ".*mera"], "camera --> "),
            (["yplookup_all", "big", "red"], "camera --> "),
            (["yplookup_any", "big", "blue"], "camera --> "),
        ):
            done = nsc(server, None, *arguments)
            assert expected in done.stdout, done.stdout + done.stderr
        for arguments, expected in (
            (["register", "camera", URI], r"Error: NamingError - name already registered: camera"),
            (["remove", "camera"], r"Error: NamingError - the name camera is held by account \w+, not by user bob"),
            (["removematching", "cam"], r"Error: NamingError - 1 names match, and all are held by others"),
            (["setmeta", "camera", "mine"], r"Error: NamingError - the name camera is held by"),
            (
                ["register", "pyrokernel.kernel.k0", URI],
                r"Error: NamingError - the name pyrokernel.kernel.k0 is for hosts",
            ),
            (["listmatching", "(a+)+b"], r"Error: NamingError - a group cannot be repeated here"),
        ):
            done = nsc(server, bob, *arguments)
            assert re.search(expected, done.stdout), done.stdout + done.stderr
        assert "1 items removed" in nsc(server, None, "removematching", "cam").stdout
        assert "Nothing removed" in nsc(server, None, "remove", "camera").stdout
    finally:
        server.close()


def test_our_own_client_tells_a_refusal_from_a_name_that_is_taken(server: EmbeddedNameServer) -> None:
    directory = Directory(server.address)
    directory.register("n", URI, ())
    with pytest.raises(NameTakenError, match="held by PYRO:x"):
        directory.register("n", URI, ())
    for attempt in (
        lambda: directory.register("a/b", URI, ()),
        lambda: directory.remove(core.NAMESERVER_NAME),
    ):
        with pytest.raises(AccessRefusedError, match=r"looks like a path|name server's own"):
            attempt()
    directory.close()


def test_threads_that_register_one_name_agree_on_one_owner(server: EmbeddedNameServer) -> None:
    won = []

    def claim(user: str) -> None:
        with client(server, words_for(user, Role.USER, "10.0.0.1:5")) as mine, contextlib.suppress(errors.NamingError):
            mine.register("prize", URI)
            won.append(user)

    threads = [threading.Thread(target=claim, args=(f"u{number}",), daemon=True) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with client(server) as account:
        assert account.lookup("prize", return_metadata=True)[1] == {f"owner:user:{won[0]}"}
    assert len(won) == 1


def test_the_bounds_are_what_the_rules_say() -> None:
    assert registration.NAMES_OF_ONE < ours.MAX_NAMES


def test_what_the_page_says_of_a_stock_name_server_is_so(private_dir: Path) -> None:
    """docs/nameserver.md, "What a stock name server cannot refuse": should Pyro learn one of these, the page has to."""
    stock = nameserver.NameServerDaemon(
        unixsocket=str(private_dir / "stock.sock"), storage=f"sql:{private_dir / 'names.sqlite'}"
    )
    thread = threading.Thread(target=stock.requestLoop, daemon=True)
    thread.start()
    try:
        with api.Proxy(f"PYRO:{core.NAMESERVER_NAME}@./u:{private_dir / 'stock.sock'}") as anybody:
            for name in ("pyrokernel.kernel.k0", core.NAMESERVER_NAME, "a\x1b[2J", "a_1", "ab1"):
                anybody.register(name, URI)
            assert anybody.remove(prefix="a_") == 3  # the underscore stands for anything
            anybody.set_metadata("pyrokernel.kernel.k0", {"host:lab1", "owner:user:ana"})
            assert anybody.remove(regex="pyrokernel") == 1
            assert str(anybody.lookup(core.NAMESERVER_NAME)) == URI
    finally:
        stock.shutdown()
        thread.join(10)
        stock.close()


PEERS = [
    Peer(uid=1000, role=Role.ADMIN, user="me"),
    Peer(uid=-1, role=Role.ADMIN, user="eve", kind="user", address="10.0.0.4:1"),
    *(Peer(uid=-1, role=Role.USER, user=user, kind="user", address="10.0.0.3:1") for user in ("ana", "bob", "lab1")),
    *(Peer(uid=-1, role=Role.USER, user=host, kind="host", address="10.0.0.2:1") for host in ("lab1", "lab2")),
]
SOME = [
    None, "", "a", "ab", "a_b", "pyrokernel.kernel.k0", "pyrokernel.host.lab1", "pyrokernel.host.lab2",
    "pyrokernel.shared", core.NAMESERVER_NAME, "Pyro.", "x/y", "\x1b", 7, -1, True, 0.5, b"a", [], ["a"], {"a": 1},
    [["a"]], "a.*", "(a+)+", ".*", "[", URI, "PYRO:x@localhost:1", "PYRONAME:a", "host:lab1", ["host:lab1"],
    ["owner:user:ana"], ["owner:host:lab2", "big"], {"big"}, "p" * 300, ["w"] * 70, core.URI(URI), object(),
]  # fmt: skip


def test_whatever_is_asked_owners_keep_their_names(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random calls of random peers: only known errors, and no name passes on but by its owner or an admin."""
    dice = random.Random(11)
    kept = open_storage(storage)
    server = GuardedNameServer(kept, "PYRO:Pyro.NameServer@./u:/x")
    now = PEERS[0]
    monkeypatch.setattr(ours, "current_peer", lambda: now)
    methods = ["register"] * 4 + ["set_metadata", "remove", "list", "yplookup", "lookup", "count"]
    done = 0
    for _ in range(20_000 if storage == "memory" else 5000):
        now, before = dice.choice(PEERS), dict(kept.items())
        method, count = dice.choice(methods), dice.randint(0, 4)
        arguments = [dice.choice(SOME) for _ in range(count)]
        if method == "register" and dice.random() < 0.7:
            arguments = [dice.choice(SOME[2:9]), URI, dice.random() < 0.5, dice.choice(SOME)]
        try:
            getattr(server, method)(*arguments)
            done += 1
        except (errors.NamingError, TypeError, ValueError):
            assert dict(kept.items()) == before, f"{method}{arguments} was refused, and changed something"
            continue
        mine = f"{now.kind}:{now.user}"
        for name in before.keys() | kept.keys():
            was, is_now = before.get(name, ("", frozenset())), kept.get(name, ("", frozenset()))
            if was != is_now and name in before:
                assert now.role is Role.ADMIN or mine in registration.owners_in(was[1]), (now, method, arguments)
            if was != is_now and name in kept:
                assert name != core.NAMESERVER_NAME
                owner = [word for word in is_now[1] if word.startswith("owner:")]
                assert owner == ["owner:" + mine] or method == "set_metadata"
                assert len(owner) == 1
                assert name.startswith("pyrokernel.") <= (now.kind in ("host", "account") or method == "set_metadata")
        held = Counter(owner for _, words in kept.values() for owner in ours._owner_words(words))
        assert held == +server._held
    assert done > 300
    kept.close()


def run(ns: str, *words: str) -> int:
    """Run a command line in this process, for the name server at a socket."""
    return main([*words[:1], "--ns", ns, *words[1:]])


def test_the_names_of_a_host_that_is_gone_are_forgotten_and_those_that_answer_kept(
    server: EmbeddedNameServer, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Directory(server.address)
    gone = f"@127.0.0.1:{free_port()}"  # where nobody listens any more
    for host in ("lab1", "lab2"):
        words = {f"host:{host}", "class:pyrokernel.kernel"}
        directory.register(f"pyrokernel.host.{host}", f"PYRO:pyrokernel.host/a{gone}", words)
        directory.register(f"pyrokernel.kernel.{host}-0", f"PYRO:pyrokernel.kernel/b{gone}", words)
    directory.register("camera", f"PYRO:camera{gone}", {"host:lab2", "class:pyrokernel.published"})
    directory.register("pyrokernel.kernel.alive", f"PYRO:{core.NAMESERVER_NAME}@{server.address}", {"host:lab2"})
    assert run(server.address, "nameserver", "forget", "lab2") == ExitCode.REFUSED
    told = capsys.readouterr()
    assert told.out == "forgot 3 names of host lab2: camera, host.lab2, lab2-0\n"
    assert "somebody is: alive; end them first, or say --force" in told.err
    names = [entry.name for entry in directory.list("")]
    assert sorted(names) == [core.NAMESERVER_NAME, "pyrokernel.host.lab1", "pyrokernel.kernel.alive",
                             "pyrokernel.kernel.lab1-0"]  # fmt: skip
    assert run(server.address, "nameserver", "forget", "lab2", "--force") == ExitCode.OK
    assert capsys.readouterr().out == "forgot 1 name of host lab2: alive\n"
    assert run(server.address, "nameserver", "forget", "lab2") == ExitCode.NO_KERNEL
    assert "has no name of host 'lab2'; it has: lab1" in capsys.readouterr().err
    directory.close()


def test_whoever_may_not_remove_names_forgets_nothing(of: Callable[..., Any]) -> None:
    of("lab2", kind="host").register("pyrokernel.host.lab2", URI, metadata={"host:lab2"})
    with pytest.raises(errors.NamingError, match="held by"):
        of("bob").remove("pyrokernel.host.lab2")
    assert of("root", role=Role.ADMIN).remove("pyrokernel.host.lab2") == 1


def test_a_policy_says_that_a_kernel_is_on_another_machine(
    server: EmbeddedNameServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYROKERNEL_HOST", "lab1")
    directory = Directory(server.address)
    directory.register("pyrokernel.kernel.far", URI, {"host:lab2"})
    directory.close()
    assert run(server.address, "policy", "check", "ana", "far") == ExitCode.OK
    assert "far is on lab2, whose own policy decides" in capsys.readouterr().err
    assert run(server.address, "policy", "check", "ana", "near") == ExitCode.OK
    told = capsys.readouterr()
    assert "this is the policy of lab1" in told.err
    assert "observer" in told.out
