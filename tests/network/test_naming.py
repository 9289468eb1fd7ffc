"""The name server, embedded and stock, over a unix socket and loopback TCP."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from Pyro5 import core, nameserver
from served import PORTABLE, stock_clients
from waiting import wait_until

from pyrokernel.errors import (
    AccessRefusedError,
    KernelNotFoundError,
    NameServerNotFoundError,
    NameTakenError,
    SettingsError,
)
from pyrokernel.wire.nameserver import EmbeddedNameServer
from pyrokernel.wire.naming import Directory, name_server_uri

URI = "PYRO:x@./u:/tmp/none/x.sock"


@pytest.fixture(params=["embedded", "stock over unix", "stock over tcp"])
def address(request: pytest.FixtureRequest, private_dir: Path) -> Iterator[str]:
    """The address of a running name server of each kind."""
    if request.param == "embedded":
        server = EmbeddedNameServer(private_dir / "ns.sock", portable=PORTABLE)
        server.start()
        yield server.address
        server.close()
        return
    if request.param == "stock over unix":
        stock = nameserver.NameServerDaemon(unixsocket=str(private_dir / "stock.sock"))
        found = f"./u:{private_dir / 'stock.sock'}"
    else:
        stock = nameserver.NameServerDaemon(host="127.0.0.1", port=0)
        found = stock.locationStr
    thread = threading.Thread(target=stock.requestLoop, daemon=True)
    thread.start()
    yield found
    stock.shutdown()
    thread.join(10)


def test_names_are_registered_found_listed_and_removed(address: str) -> None:
    directory = Directory(address)
    directory.register("pyrokernel.kernel.a", URI, {"tag:big", "tag:gpu", "instance:1"})
    entry = directory.lookup("pyrokernel.kernel.a")
    assert entry.uri == URI
    assert entry.value("instance") == "1"
    assert entry.values("tag") == ("big", "gpu")
    assert [found.name for found in directory.list("pyrokernel.kernel.")] == ["pyrokernel.kernel.a"]
    assert directory.remove("pyrokernel.kernel.a")
    with pytest.raises(KernelNotFoundError):
        directory.lookup("pyrokernel.kernel.a")
    directory.close()


def test_a_name_is_taken_only_once(address: str) -> None:
    directory = Directory(address)
    directory.register("n", URI, ())
    with pytest.raises(NameTakenError, match=r"none/x\.sock"):
        directory.register("n", URI + "2", ())
    directory.register("n", URI + "2", (), replace=True)
    assert directory.lookup("n").uri == URI + "2"
    directory.close()


def test_threads_share_a_directory(address: str) -> None:
    directory = Directory(address)
    threads = [
        threading.Thread(target=directory.register, args=(f"t{number}", URI, ()), daemon=True) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(directory.list("t")) == 8
    directory.close()


def test_nobody_there_is_said_with_what_to_do(private_dir: Path) -> None:
    with pytest.raises(NameServerNotFoundError, match="pyrokernel serve"):
        Directory(f"./u:{private_dir / 'none.sock'}").ping()


def test_a_directory_finds_a_restarted_server(private_dir: Path) -> None:
    server = EmbeddedNameServer(private_dir / "ns.sock", portable=PORTABLE)
    server.start()
    directory = Directory(server.address)
    directory.ping()
    assert directory.connected()
    server.close()
    wait_until(lambda: not directory.connected())
    with pytest.raises(NameServerNotFoundError):
        directory.ping()
    again = EmbeddedNameServer(private_dir / "ns.sock", portable=PORTABLE)
    again.start()
    directory.ping()
    directory.close()
    again.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org", "0.0.0.0", "[2001:db8::1]"])
def test_addresses_beyond_this_machine_are_refused_with_a_way_out(host: str) -> None:
    with pytest.raises(AccessRefusedError, match="ssh"):
        Directory(f"{host}:9090").ping()


def test_an_address_that_is_none_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="HOST:PORT"):
        name_server_uri("x:y:z")


@stock_clients
def test_the_embedded_server_is_seen_by_stock_tools(private_dir: Path) -> None:
    server = EmbeddedNameServer(private_dir / "ns.sock", portable=PORTABLE)
    server.start()
    found = subprocess.run(
        [sys.executable, "-m", "Pyro5.nsc", "-u", str(private_dir / "ns.sock"), "list"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    server.close()
    assert core.NAMESERVER_NAME in found.stdout
