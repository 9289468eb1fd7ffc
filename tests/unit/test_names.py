"""Names at the name server stay true: announced, replaced when stale, re-announced, pruned."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import PORTABLE
from waiting import wait_until

from pyrokernel.errors import AccessRefusedError, KernelNotFoundError, NameServerNotFoundError, NameTakenError
from pyrokernel.host import names
from pyrokernel.host.names import Announcer
from pyrokernel.messages import KernelInfo
from pyrokernel.wire.endpoints import listen
from pyrokernel.wire.naming import Entry
from pyrokernel.wire.trust import check_address


class FakeDirectory:
    """A name server that can be switched off, and forgets everything when it is."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.up = True
        self.is_connected = False
        self.refusal: Exception | None = None
        self.refused: set[str] = set()

    def _ask(self) -> None:
        if self.refusal is not None:
            self.is_connected = False
            raise self.refusal
        self.is_connected = self.up
        if not self.up:
            raise NameServerNotFoundError("nobody answers")

    def register(self, name: str, uri: str, metadata: Iterable[str], *, replace: bool = False) -> None:
        self._ask()
        if name in self.refused:
            raise AccessRefusedError(f"the name server refused {name}")
        if name in self.entries and not replace:
            raise NameTakenError(name=name, holder="?")
        self.entries[name] = Entry(name, uri, frozenset(metadata))

    def lookup(self, name: str) -> Entry:
        self._ask()
        if name not in self.entries:
            raise KernelNotFoundError(name)
        return self.entries[name]

    def remove(self, name: str) -> bool:
        self._ask()
        if name in self.refused:
            raise AccessRefusedError(f"the name server refused {name}")
        return self.entries.pop(name, None) is not None

    def having(self, word: str) -> list[Entry]:
        self._ask()
        return [entry for _, entry in sorted(self.entries.items()) if word in entry.metadata]

    def list(self, prefix: str) -> list[Entry]:
        self._ask()
        return [entry for name, entry in sorted(self.entries.items()) if name.startswith(prefix)]

    def come_back_with(self, name: str, *metadata: str) -> None:
        """Answer again, and have an entry."""
        self.entries[name] = Entry(name, "PYRO:x@./u:/gone", frozenset(metadata))
        self.up = True

    def connected(self) -> bool:
        return self.is_connected

    def close(self) -> None:
        self.is_connected = False

    def crash(self) -> None:
        self.up = self.is_connected = False
        self.entries.clear()


@pytest.fixture
def directory() -> FakeDirectory:
    return FakeDirectory()


@pytest.fixture
def announcer(directory: FakeDirectory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Announcer]:
    monkeypatch.setattr(names, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(names, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(names, "MISSING_SECONDS", 0.01)
    fake: Any = directory
    found = Announcer(fake, "lab", outside=True)
    found.start()
    yield found
    found.close()


@pytest.fixture
def listening() -> Iterator[str]:
    """The URI of somebody who answers."""
    with tempfile.TemporaryDirectory(prefix="pk-") as folder:
        endpoint = listen(Path(folder, "s.sock"), portable=PORTABLE)
        yield f"PYRO:x@./u:{endpoint.path}"
        endpoint.close()


def kernel(name: str = "k0", instance: str = "aa", **fields: Any) -> KernelInfo:
    return KernelInfo(name=name, instance=instance, uri="PYRO:x@./u:/nowhere/k.sock", pid=7, **fields)


def test_a_name_tells_who_is_behind_it(announcer: Announcer, directory: FakeDirectory) -> None:
    announcer.announce(kernel(tags=("optics", "slow"), protected=True)).result(10)
    entry = directory.entries["pyrokernel.kernel.k0"]
    assert (entry.value("host"), entry.value("instance"), entry.value("pid")) == ("lab", "aa", "7")
    assert entry.values("tag") == ("optics", "slow")
    assert {"class:pyrokernel.kernel", "protected"} <= entry.metadata


def test_the_host_has_a_name_too(announcer: Announcer, directory: FakeDirectory) -> None:
    announcer.announce_host("PYRO:h@./u:/h.sock", "hh").result(10)
    assert directory.entries["pyrokernel.host.lab"].uri == "PYRO:h@./u:/h.sock"


def test_a_name_held_by_another_host_is_never_taken(announcer: Announcer, directory: FakeDirectory) -> None:
    directory.register("pyrokernel.kernel.k0", "PYRO:x@./u:/gone", {"host:other", "instance:bb"})
    with pytest.raises(NameTakenError, match="instance bb on host other"):
        announcer.announce(kernel()).result(10)


def test_a_name_held_by_somebody_alive_here_is_never_taken(
    announcer: Announcer, directory: FakeDirectory, listening: str
) -> None:
    directory.register("pyrokernel.kernel.k0", listening, {"host:lab", "instance:bb"})
    with pytest.raises(NameTakenError):
        announcer.announce(kernel()).result(10)


def test_a_name_left_by_the_dead_of_this_host_is_replaced(announcer: Announcer, directory: FakeDirectory) -> None:
    directory.register("pyrokernel.kernel.k0", "PYRO:x@./u:/gone", {"host:lab", "instance:bb"})
    announcer.announce(kernel()).result(10)
    assert directory.entries["pyrokernel.kernel.k0"].value("instance") == "aa"


def test_a_restart_replaces_its_own_name(announcer: Announcer, directory: FakeDirectory) -> None:
    announcer.announce(kernel()).result(10)
    announcer.announce(kernel(instance="cc")).result(10)
    assert directory.entries["pyrokernel.kernel.k0"].value("instance") == "cc"


def test_a_withdrawn_name_is_gone(announcer: Announcer, directory: FakeDirectory) -> None:
    announcer.announce(kernel()).result(10)
    announcer.withdraw("k0", "aa")
    wait_until(lambda: directory.entries == {})


def test_a_late_withdrawal_leaves_the_successor_its_name(announcer: Announcer, directory: FakeDirectory) -> None:
    announcer.announce(kernel(instance="cc")).result(10)
    announcer.withdraw("k0", "aa")
    announcer.announce(kernel("k1")).result(10)
    assert directory.entries["pyrokernel.kernel.k0"].value("instance") == "cc"


def test_a_name_server_that_is_away_gets_the_name_later(announcer: Announcer, directory: FakeDirectory) -> None:
    directory.crash()
    with pytest.raises(NameServerNotFoundError):
        announcer.announce(kernel()).result(10)
    directory.up = True
    wait_until(lambda: "pyrokernel.kernel.k0" in directory.entries)


def test_a_name_server_that_forgot_everything_is_told_again(announcer: Announcer, directory: FakeDirectory) -> None:
    announcer.announce_host("PYRO:h@./u:/h.sock", "hh").result(10)
    announcer.announce(kernel()).result(10)
    directory.crash()
    directory.up = True
    wait_until(lambda: len(directory.entries) == 2)


def test_what_died_while_the_name_server_was_away_is_pruned(announcer: Announcer, directory: FakeDirectory) -> None:
    announcer.announce(kernel()).result(10)
    kept = dict(directory.entries)
    directory.crash()
    announcer.withdraw("k0", "aa")
    with pytest.raises(NameServerNotFoundError):
        announcer.announce(kernel("k1")).result(10)
    directory.entries.update(kept)  # it had a disk
    directory.up = True
    wait_until(lambda: list(directory.entries) == ["pyrokernel.kernel.k1"])


def test_pruning_leaves_other_hosts_and_the_living_alone(
    announcer: Announcer, directory: FakeDirectory, listening: str
) -> None:
    directory.crash()  # who looked before all of them were there would not look again
    for name, uri, *metadata in (
        ("other", "PYRO:x@./u:/gone", "host:other", "instance:1"),
        ("alive", listening, "host:lab", "instance:2"),
        ("dead", "PYRO:x@./u:/gone", "host:lab", "instance:3"),
        ("tcp", "PYRO:x@localhost:1", "host:lab", "instance:4"),
    ):
        directory.entries[f"pyrokernel.kernel.{name}"] = Entry(f"pyrokernel.kernel.{name}", uri, frozenset(metadata))
    directory.up = True
    announcer.announce(kernel()).result(10)
    wait_until(lambda: "pyrokernel.kernel.dead" not in directory.entries)
    assert sorted(name.rpartition(".")[2] for name in directory.entries) == ["alive", "k0", "other", "tcp"]


def test_a_refusal_is_told_at_once_and_is_final(announcer: Announcer, directory: FakeDirectory) -> None:
    directory.refusal = AccessRefusedError("10.1.2.3 is not this machine")
    with pytest.raises(AccessRefusedError):
        announcer.announce(kernel()).result(10)
    announcer.withdraw("k0", "aa").result(10)
    with pytest.raises(AccessRefusedError):
        announcer.announce(kernel("k1")).result(10)
    directory.refusal = None
    announcer.announce(kernel("k2")).result(10)
    wait_until(lambda: directory.is_connected)
    assert list(directory.entries) == ["pyrokernel.kernel.k2"]


def test_names_that_were_registered_outlast_a_stranger_at_the_address(
    announcer: Announcer, directory: FakeDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    announcer.announce(kernel()).result(10)
    with caplog.at_level(logging.INFO):
        directory.crash()
        directory.refusal = AccessRefusedError("the peer runs as uid 7")
        wait_until(lambda: "uid 7; trying again" in caplog.text)
    directory.up, directory.refusal = True, None
    wait_until(lambda: "pyrokernel.kernel.k0" in directory.entries)


def test_one_name_that_is_refused_does_not_keep_the_others_from_being_announced_and_removed(
    announcer: Announcer, directory: FakeDirectory
) -> None:
    for name in ("k0", "k1", "k2"):
        announcer.announce(kernel(name)).result(10)
    directory.crash()
    directory.refused = {"pyrokernel.kernel.k0", "pyrokernel.kernel.gone-0"}
    for name in ("gone-0", "gone-1"):
        directory.come_back_with(f"pyrokernel.kernel.{name}", "host:lab", "instance:bb")
    left = ["pyrokernel.kernel.gone-0", "pyrokernel.kernel.k1", "pyrokernel.kernel.k2"]
    wait_until(lambda: sorted(directory.entries) == left)
    directory.refused = set()
    wait_until(lambda: "pyrokernel.kernel.k0" in directory.entries)


@pytest.mark.parametrize("refused", [False, True])
def test_why_a_name_is_lost_is_said_once_and_it_comes_back_when_it_can(
    announcer: Announcer, directory: FakeDirectory, caplog: pytest.LogCaptureFixture, refused: bool
) -> None:
    announcer.announce(kernel()).result(10)
    looks = []
    having = directory.having
    directory.having = lambda word: looks.append(word) or having(word)  # type: ignore[method-assign, func-returns-value]
    with caplog.at_level(logging.WARNING):
        if refused:
            directory.refused.add("pyrokernel.kernel.k0")
            del directory.entries["pyrokernel.kernel.k0"]
        else:
            directory.come_back_with("pyrokernel.kernel.k0", "host:other", "instance:bb")
        wait_until(lambda: len(looks) > 5)
    # One look may see it as removed, before the attempt tells more.
    assert len(caplog.records) <= 2
    directory.refused.clear()
    directory.entries.clear()
    wait_until(lambda: directory.entries and directory.entries["pyrokernel.kernel.k0"].value("instance") == "aa")


def test_a_name_that_is_lost_while_it_is_owed_is_owed_no_more(announcer: Announcer, directory: FakeDirectory) -> None:
    directory.crash()
    with pytest.raises(NameServerNotFoundError):
        announcer.announce(kernel()).result(10)
    directory.come_back_with("pyrokernel.kernel.k0", "host:other", "instance:bb")
    with pytest.raises(NameTakenError):
        announcer.announce(kernel(instance="cc")).result(10)
    announcer.announce(kernel("k1")).result(10)
    assert "pyrokernel.kernel.k0" not in announcer._owed


def test_a_mistake_is_logged_and_told_and_ends_nothing(
    announcer: Announcer, directory: FakeDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    directory.refusal = ZeroDivisionError("a mistake of ours")
    with pytest.raises(ZeroDivisionError):
        announcer.announce(kernel()).result(10)
    announcer.withdraw("k0", "aa").result(10)
    assert "a mistake of ours" in caplog.text
    directory.refusal = None
    announcer.announce(kernel("k1")).result(10)


@pytest.mark.parametrize(
    "address", ["", "./u:/run/ns.sock", "localhost:9090", "localhost", "127.0.0.1:9090", "127.8.9.1", "[::1]:9090"]
)
def test_name_servers_on_this_machine_are_welcome(address: str) -> None:
    check_address(address, has_identity=False)


@pytest.mark.parametrize(
    "address", ["10.1.2.3:9090", "10.1.2.3", "0.0.0.0:9090", "example.org:9090", "[2001:db8::1]:9090", ":9090"]
)
def test_name_servers_beyond_this_machine_are_refused(address: str) -> None:
    with pytest.raises(AccessRefusedError, match="is not this machine"):
        check_address(address, has_identity=False)


@pytest.mark.parametrize("outside", [True, False])
def test_a_name_that_somebody_removed_comes_back(
    directory: FakeDirectory, monkeypatch: pytest.MonkeyPatch, outside: bool
) -> None:
    """Who owns a name may remove it, also by hand, and tells nobody: its kernel could be found by no one."""
    monkeypatch.setattr(names, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(names, "MISSING_SECONDS", 0.01)
    fake: Any = directory
    announcer = Announcer(fake, "lab", outside=outside)
    announcer.start()
    announcer.announce(kernel()).result(10)
    announcer.announce(kernel(name="k1")).result(10)
    directory.remove("pyrokernel.kernel.k0")
    wait_until(lambda: "pyrokernel.kernel.k0" in directory.entries)
    announcer.withdraw("k1", "aa").result(10)
    announcer.close()
    assert "pyrokernel.kernel.k1" not in directory.entries


def publish(directory: FakeDirectory, name: str, kernel: str, instance: str, uri: str, host: str = "lab") -> None:
    """Register an object as a kernel would that has published it."""
    words = {"class:pyrokernel.published", f"kernel:{kernel}", f"instance:{instance}", f"host:{host}"}
    directory.register(name, uri, words)


def test_what_a_kernel_published_goes_with_its_instance(
    announcer: Announcer, directory: FakeDirectory, listening: str
) -> None:
    announcer.announce(kernel()).result(10)
    announcer.announce(kernel(name="k1")).result(10)
    publish(directory, "stage", "k0", "aa", listening)
    publish(directory, "camera", "k1", "aa", listening)
    publish(directory, "laser", "k0", "aa", listening, host="other")
    announcer.announce(kernel(instance="cc")).result(10)
    wait_until(lambda: "stage" not in directory.entries)
    assert {"camera", "laser"} <= set(directory.entries)


def test_what_a_kernel_published_goes_with_its_name(announcer: Announcer, directory: FakeDirectory) -> None:
    announcer.announce(kernel()).result(10)
    publish(directory, "stage", "k0", "aa", "PYRO:x@./u:/gone")
    announcer.withdraw("k0", "aa").result(10)
    wait_until(lambda: "stage" not in directory.entries)


def test_what_a_kernel_published_stays_until_somebody_knows_it_to_be_gone(
    announcer: Announcer, directory: FakeDirectory, listening: str
) -> None:
    """A host that has just started has not announced yet the kernels that it adopts."""
    publish(directory, "stage", "k9", "aa", listening)
    announcer.announce(kernel()).result(10)
    announcer.withdraw("k0", "aa").result(10)
    announcer.announce(kernel(instance="bb")).result(10)
    assert "stage" in directory.entries
