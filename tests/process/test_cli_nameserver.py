"""`pyrokernel nameserver` as people run it, looked at with Pyro5's own tool."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nameservers import NameServerProcess, nsc, stock_environ
from ports import free_port
from served import stock_clients
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.errors import AccessRefusedError, NameServerNotFoundError, NameTakenError
from pyrokernel.wire.naming import Directory
from pyrokernel.wire.remote import Credentials

URI = "PYRO:x@10.0.0.1:900"
NAMESERVER = ["-m", "pyrokernel", "nameserver"]
PUBLISH = """
import pyrokernel as pk
class Camera:
    @pk.expose
    def snap(self):
        return 1
pk.publish("camera", Camera())
"""


@pytest.fixture
def folder(places: dict[str, str]) -> Path:
    """A private directory with a short path."""
    return Path(places["runtime_dir"]).parent


Start = Callable[..., NameServerProcess]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start name servers on `ns.sock` in the folder; all are ended."""
    begun: list[NameServerProcess] = []

    def make(*options: str, words: list[str] = NAMESERVER, address: str = "", **more: Any) -> NameServerProcess:
        where = ["-u", str(folder / "ns.sock")] if words is NAMESERVER else []
        found = address or f"./u:{folder}/ns.sock"
        begun.append(NameServerProcess([*words, *where, *options], found, folder / "log", **more))
        return begun[-1]

    yield make
    for each in begun:
        if each.process.poll() is None:
            each.end(signal.SIGKILL)


def cli(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*[sys.executable], *NAMESERVER, *words],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@stock_clients
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end_and_leaves_no_socket(folder: Path, start: Start, number: int) -> None:
    server = start()
    path = str(folder / "ns.sock")
    assert "Registered camera" in nsc("-u", path, "register", "camera", URI).stdout
    assert f"camera --> {URI}" in nsc("-u", path, "list").stdout
    assert server.end(number) == 0
    assert not (folder / "ns.sock").exists()
    assert "Traceback" not in server.log.read_text()


@stock_clients
def test_what_it_says_at_its_start_works(folder: Path, start: Start, places: dict[str, str]) -> None:
    """The commands that it prints, one after the other."""
    server = start()
    lines = [line.partition(":  ")[2].strip() for line in server.log.read_text().splitlines()[1:4]]
    environ = {**os.environ, **{f"PYROKERNEL_{name.upper()}": value for name, value in places.items()}}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    try:
        for line in lines:
            done = subprocess.run(
                line, shell=True, env=environ, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr
        assert "pyrokernel.kernel.k0" in done.stdout
    finally:
        subprocess.run(lines[0].replace("serve --detach", "stop"), shell=True, env=environ, timeout=60, check=False)


@stock_clients
def test_names_survive_a_kill_and_hosts_find_theirs_again(
    folder: Path, start: Start, places: dict[str, str], served_at: Any
) -> None:
    server = start("-s", f"sql:{folder}/names.sqlite")
    nsc("-u", str(folder / "ns.sock"), "register", "camera", URI)
    mesh = served_at({**places, "ns": server.address}, "-n", "2")
    server.end(signal.SIGKILL)
    server.start()
    assert URI in nsc("-u", str(folder / "ns.sock"), "lookup", "camera").stdout
    with mesh.connect() as found:
        assert found.names == ["k0", "k1"]
        assert found["k0"].execute("6 * 7").result == 42
    mesh.stop()
    directory = Directory(server.address)
    wait_until(lambda: not directory.list("pyrokernel."))
    directory.close()


def test_without_storage_hosts_announce_themselves_again(start: Start, places: dict[str, str], served_at: Any) -> None:
    server = start()
    mesh = served_at({**places, "ns": server.address}, "-n", "1")
    server.end(signal.SIGKILL)
    server.start()
    with mesh.connect() as found:
        wait_until(lambda: found.names == ["k0"] and bool(found.hosts()))


@stock_clients
def test_status_says_how_it_is_in_words_json_and_metrics(
    folder: Path, start: Start, places: dict[str, str], served_at: Any
) -> None:
    server = start()
    served_at({**places, "ns": server.address}, "-n", "2")
    path = str(folder / "ns.sock")
    words = cli("status", "-u", path)
    assert words.returncode == 0
    assert "2 kernels, 1 host" in words.stdout
    told = json.loads(cli("status", "--json", "--ns", server.address).stdout)
    assert (told["answers"], told["names"], told["kernels"], told["dead"]) == (True, 4, 2, [])
    assert 0 < told["seconds"] < 10
    metrics = dict(
        line.split() for line in cli("status", "--metrics", "-u", path).stdout.splitlines() if line[0] != "#"
    )
    assert metrics["pyrokernel_nameserver_up"] == "1"
    assert metrics["pyrokernel_nameserver_kernels"] == "2"
    nsc("-u", path, "register", "pyrokernel.kernel.gone", "PYRO:x@./u:/nonexistent/x.sock")
    assert "nobody listens any more at: pyrokernel.kernel.gone" in cli("status", "-u", path).stdout


def test_status_of_one_that_is_not_there_is_a_code_and_a_value(folder: Path) -> None:
    path = str(folder / "none.sock")
    for option, expected in (("--json", '"answers": false'), ("--metrics", "pyrokernel_nameserver_up 0")):
        done = cli("status", option, "-u", path)
        assert done.returncode == 3
        assert expected in done.stdout
        assert done.stderr.startswith("pyrokernel: no name server answers")


def test_status_of_a_stock_name_server(folder: Path, start: Start) -> None:
    path = folder / "stock.sock"
    start("-u", str(path), words=["-m", "Pyro5.nameserver"], address=f"./u:{path}")
    assert "1 name: 0 kernels" in cli("status", "-u", str(path)).stdout


@stock_clients
def test_it_is_backed_up_while_it_is_written_to_and_restored_while_it_is_not(folder: Path, start: Start) -> None:
    storage, backup = f"sql:{folder}/names.sqlite", str(folder / "backup.sqlite")
    server = start("-s", storage)
    directory, stop, written = Directory(server.address), threading.Event(), []

    def write() -> None:
        number = 0
        while not stop.is_set():
            directory.register(f"n{number}", URI, {"a", "b"})
            written.append(f"n{number}")
            number += 1

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        wait_until(lambda: len(written) > 5)
        before = len(written)
        for _ in range(5):
            done = cli("backup", backup, "-s", storage)
            assert done.returncode == 0, done.stderr
        after = len(written)
    finally:
        stop.set()
        writer.join(10)
        directory.close()
    with contextlib.closing(sqlite3.connect(backup)) as copy:
        names = {name for (name,) in copy.execute("SELECT name FROM pyro_names")}
    assert set(written[:before]) <= names
    assert after > before, "nothing was written meanwhile"
    assert os.stat(backup).st_mode & 0o777 == 0o600

    refused = cli("restore", backup, "-s", storage)
    assert refused.returncode == 9
    assert "stop it first" in refused.stderr
    server.end()
    done = cli("restore", backup, "-s", storage)
    assert done.returncode == 0, done.stderr
    (aside,) = folder.glob("names.sqlite.replaced-*")
    assert str(aside) in done.stderr
    server.start()
    listed = nsc("-u", str(folder / "ns.sock"), "list").stdout
    assert {line.split(" ")[0] for line in listed.splitlines() if " --> " in line} == names


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["backup", "b"], 2, "-s sql:FILE"),
        (["backup", "-s", "sql:f"], 2, "which file to write to"),
        (["restore", "-s", "sql:f"], 2, "which file to restore"),
        (["backup", "x.sqlite", "-s", "sql:x.sqlite"], 2, "itself"),
        (["restore", "x.sqlite", "-s", "sql:x.sqlite"], 2, "itself"),
        (["backup", "b", "-s", "sql:/nonexistent/f"], 9, "cannot be backed up"),
        (["status", "b"], 2, "takes no file"),
        (["--force"], 2, "nameserver takes no --force; it goes with forget HOST"),
        (["restore", "b", "-s", "sql:f", "--force"], 2, "restore takes no --force; it goes with forget HOST"),
        (["-s", "dbm:x"], 2, "use memory, or sql:FILE"),
        (["-n", "127.0.0.1", "-p", "0"], 2, "from 1 to 65535"),
        (["--nathost", "x"], 2, "belong together"),
        (["-n", "127.0.0.1", "-u", "/tmp/other.sock"], 2, "is called ns.sock"),
        (["--bchost=x"], 2, "there is no option --bchost"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words: list[str], code: int, told: str, folder: Path) -> None:
    done = cli(*words, PYROKERNEL_RUNTIME_DIR=str(folder / "r"), XDG_CONFIG_HOME=str(folder))
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_damaged_backup_is_not_restored(folder: Path) -> None:
    (folder / "bad").write_bytes(b"no database" * 1000)
    (folder / "names").write_bytes(b"")
    done = cli("restore", str(folder / "bad"), "-s", f"sql:{folder}/names")
    assert done.returncode == 9
    assert sorted(path.name for path in folder.iterdir()) == ["bad", "names", "names.lock"]


def test_there_is_one_name_server_at_a_socket_and_one_for_a_file(folder: Path, start: Start) -> None:
    storage = f"sql:{folder}/names.sqlite"
    start("-s", storage)
    for words in (["-u", f"{folder}/ns.sock"], ["-u", f"{folder}/other.sock", "-s", storage]):
        done = cli(*words)
        assert done.returncode == 9
        assert "stop it first" in done.stderr
    assert "answers in" in cli("status", "-u", f"{folder}/ns.sock").stdout


def test_systemd_is_told_when_it_is_ready_and_when_it_ends(folder: Path, start: Start) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "notify"))
        systemd.settimeout(10)
        server = start(environ={"NOTIFY_SOCKET": str(folder / "notify")})
        assert systemd.recv(100) == b"READY=1"
        server.end()
        assert systemd.recv(100) == b"STOPPING=1"


def test_doctor_names_the_command_that_brings_a_name_server_back(folder: Path, places: dict[str, str]) -> None:
    for address, command in (
        (f"./u:{folder}/ns.sock", f"pyrokernel nameserver -u {folder}/ns.sock"),
        ("127.0.0.1:9", "pyrokernel nameserver -n 127.0.0.1 -p 9"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pyrokernel", "--ns", address, "doctor"],
            env={**os.environ, "XDG_CONFIG_HOME": str(folder), "PYROKERNEL_RUNTIME_DIR": places["runtime_dir"]},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert command in done.stdout


def test_a_host_whose_name_server_is_gone_is_told_from_a_mesh_that_does_not_run(
    places: dict[str, str], start: Start, served_at: Callable[..., Any]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    stock = ["-m", "Pyro5.nameserver", "-n", "127.0.0.1", "-p", address.rpartition(":")[2]]
    server = start(words=stock, address=address)
    served = served_at({**places, "ns": address, "timeout": "60"}, "-n", "1")
    del served.environ["PYROKERNEL_NS"]
    pid = served.cli("doctor").stdout.partition("(process ")[2].partition(")")[0]
    server.end()
    told = f"the host runs here (process {pid}), and its name server {address} does not answer"
    again = f"pyrokernel nameserver -n 127.0.0.1 -p {address.rpartition(':')[2]}, or pyro5-ns if it was that"
    report = json.loads(served.cli("doctor", "--json", check=False).stdout)
    assert [found for found in report["findings"] if found["level"] == "wrong"] == [
        {"level": "wrong", "about": "name server", "text": told, "remedy": again}
    ]
    for words in (["ps"], ["run", "-c", "1"], ["serve", "--detach", "-n", "1"], ["--ns", address, "ps"]):
        done = served.cli(*words, check=False, timeout=30)  # `serve` does not wait for it
        assert done.stderr == f"pyrokernel: {told}; start that again: {again}\n"
    server.start()
    assert served.cli("doctor").returncode == 0


def test_where_nothing_answers_at_an_address_no_host_is_to_be_started() -> None:
    with pytest.raises(NameServerNotFoundError, match=r"check the address, and whether the name server runs") as caught:
        Directory(f"127.0.0.1:{free_port()}").ping()
    assert "`pyrokernel serve`" not in str(caught.value)


# Over TLS, with Pyro5's own tool


@pytest.fixture
def authority(folder: Path) -> Any:
    pytest.importorskip("cryptography", reason="certificates are made with cryptography: pip install cryptography")
    from certificates import Authority

    return Authority(folder / "issued")


def policy(folder: Path) -> str:
    """Write a policy by which users may register names, but for olga."""
    file = folder / "policy.toml"
    file.write_text('default = "user"\n[users]\nolga = "observer"\n')
    return str(file)


@pytest.fixture(params=["ours", "stock"])
def secured(request: pytest.FixtureRequest, authority: Any, folder: Path, start: Start) -> NameServerProcess:
    """A name server on TCP with mutual TLS, ours or Pyro5's."""
    identity = authority.identity("host", "names", ["localhost", "127.0.0.1"])
    port, credentials = str(free_port()), Credentials(authority.identity("user", "watcher"))
    where = ["-n", "127.0.0.1", "-p", port, "-x"]
    address = f"127.0.0.1:{port}"
    if request.param == "ours":
        environ = {"PYROKERNEL_HOST_CERTS": str(identity), "PYROKERNEL_POLICY": policy(folder)}
        return start(*where, address=address, environ=environ, credentials=credentials)
    environ = stock_environ(identity)
    return start(*where, words=["-m", "Pyro5.nameserver"], address=address, environ=environ, credentials=credentials)


def at(server: NameServerProcess) -> list[str]:
    host, _, port = server.address.rpartition(":")
    return ["-n", host, "-p", port]


def test_the_stock_tool_works_over_tls(secured: NameServerProcess, authority: Any) -> None:
    ana = stock_environ(authority.identity("user", "ana"))
    for words, expected in (
        (["ping"], "ping ok"),
        (["register", "camera", URI], "Registered camera"),
        (["setmeta", "camera", "big"], "updated"),
        (["list", "cam"], f"camera --> {URI}"),
        (["lookup", "camera"], URI),
        (["yplookup_any", "big"], "camera"),
        (["remove", "camera"], "Removed camera"),
    ):
        done = nsc(*at(secured), *words, environ=ana)
        assert expected in done.stdout, done.stdout + done.stderr


def test_over_tls_nobody_comes_in_without_a_certificate_of_the_mesh(
    secured: NameServerProcess, authority: Any, folder: Path
) -> None:
    from certificates import Authority

    foreign = stock_environ(Authority(folder / "foreign", "other").identity("user", "ana"))
    ours = stock_environ(authority.identity("user", "bob"))
    trusting = {**foreign, "PYRO_SSL_CACERTS": ours["PYRO_SSL_CACERTS"]}
    bare = {**ours, "PYRO_SSL_CLIENTCERT": "", "PYRO_SSL_CLIENTKEY": ""}
    for environ in (foreign, trusting, bare):
        done = nsc(*at(secured), "list", environ=environ)
        assert "START LIST" not in done.stdout
    with socket.create_connection(("127.0.0.1", int(at(secured)[3])), 5) as plain:
        plain.settimeout(10)
        plain.sendall(b"PYRO" + bytes(36))
        with contextlib.suppress(ConnectionResetError):
            assert b"PYRO" not in plain.recv(100)
    assert secured.answers()


HALF_A_HELLO = bytes.fromhex("16030100f0010000ec0303")
"""Of TLS: a client hello that never gets further."""


def test_silent_clients_by_the_hundred_stall_nobody_over_tls(authority: Any, folder: Path, start: Start) -> None:
    port, ana = free_port(), authority.identity("user", "ana")
    environ = {"PYROKERNEL_HOST_CERTS": str(authority.identity("host", "names", ["127.0.0.1"]))}
    address = f"127.0.0.1:{port}"
    server = start("-n", "127.0.0.1", "-p", str(port), address=address, environ=environ, credentials=Credentials(ana))
    alone = min(cost(server, ana) for _ in range(3))
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(300)]
        for sock in silent[::2]:
            with contextlib.suppress(ConnectionError):  # of very many the oldest have gone already
                sock.sendall(HALF_A_HELLO)
        assert min(cost(server, ana) for _ in range(3)) < 3 * alone + 1
        # And each of them is shown the door, without having been asked in.
        for sock in silent:
            sock.settimeout(20)
            with contextlib.suppress(ConnectionError):
                while sock.recv(100):
                    pass


def cost(server: NameServerProcess, identity: Path) -> float:
    """Return the seconds that Pyro's own tool takes for a list."""
    begun = time.monotonic()
    assert "Pyro.NameServer" in nsc(*at(server), "list", environ=stock_environ(identity)).stdout
    return time.monotonic() - begun


def test_a_stock_name_server_is_stalled_by_one_silent_client_as_the_page_says(
    authority: Any, folder: Path, start: Start
) -> None:
    port, ana = free_port(), authority.identity("user", "ana")
    environ = stock_environ(authority.identity("host", "names", ["127.0.0.1"]))
    server = start(
        "-n", "127.0.0.1", "-p", str(port), "-x", words=["-m", "Pyro5.nameserver"],
        address=f"127.0.0.1:{port}", environ=environ, credentials=Credentials(ana),
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", port), 5), pytest.raises(subprocess.TimeoutExpired):
        nsc(*at(server), "list", environ=stock_environ(ana), timeout=2 + 2 * cost_of_python())
    assert cost(server, ana) < 20


def cost_of_python() -> float:
    """Return the seconds that the tool takes to load, on this machine at this moment."""
    begun = time.monotonic()
    nsc("--help")
    return time.monotonic() - begun


@stock_clients
def test_ours_knows_users_and_hosts_by_their_certificates(authority: Any, folder: Path, start: Start) -> None:
    identity = authority.identity("host", "names", ["127.0.0.1"])
    port, storage = str(free_port()), f"sql:{folder}/names.sqlite"
    ana, bob, olga = (Credentials(authority.identity("user", name)) for name in ("ana", "bob", "olga"))
    lab1, lab2 = (Credentials(authority.identity("host", name, ["127.0.0.1"])) for name in ("lab1", "lab2"))
    address = f"127.0.0.1:{port}"
    server = start(
        "-n", "127.0.0.1", "-p", port, "-s", storage,
        address=address, environ={"PYROKERNEL_HOST_CERTS": str(identity), "PYROKERNEL_POLICY": policy(folder)},
        credentials=ana,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        ana_, bob_, olga_, lab1_, lab2_ = (
            stack.enter_context(contextlib.closing(Directory(address, credentials=each)))
            for each in (ana, bob, olga, lab1, lab2)
        )
        ana_.register("camera", URI, ())
        lab1_.register("pyrokernel.host.lab1", URI, {"host:lab1"})
        lab1_.register("pyrokernel.kernel.k0", URI, {"host:lab1"})
        server.end(signal.SIGKILL)
        server.start()
        assert ana_.lookup("camera").metadata == {"owner:user:ana"}
        for attempt in (
            lambda: bob_.register("camera", URI, (), replace=True),
            lambda: bob_.remove("camera"),
            lambda: lab2_.register("pyrokernel.kernel.k0", URI, (), replace=True),
            lambda: lab2_.remove("pyrokernel.host.lab1"),
            lambda: lab2_.register("pyrokernel.host.lab9", URI, ()),
            lambda: ana_.register("pyrokernel.kernel.evil", URI, ()),
            lambda: lab1_.register("pyrokernel.kernel.k1", "PYRO:x@./u:/tmp/x.sock", ()),
        ):
            with pytest.raises(AccessRefusedError, match="refused: "):
                attempt()
        with pytest.raises(AccessRefusedError, match="olga is an observer"):
            olga_.remove("camera")
        with pytest.raises(NameTakenError):
            lab2_.register("pyrokernel.kernel.k0", URI, ())
        assert lab1_.remove("pyrokernel.kernel.k0")
        assert {entry.name for entry in bob_.list("")} == {"Pyro.NameServer", "camera", "pyrokernel.host.lab1"}
    # This account comes in by the socket, and may put all right.
    assert "Removed camera" in nsc("-u", str(folder / "ns.sock"), "remove", "camera").stdout


@pytest.mark.parametrize(("more", "not_for"), [((), ""), (("--nathost", "lab9", "--natport", "5000"), "lab9")])
def test_a_name_that_the_certificate_is_not_for_is_noted(
    authority: Any, folder: Path, start: Start, more: tuple[str, ...], not_for: str
) -> None:
    environ = {"PYROKERNEL_HOST_CERTS": str(authority.identity("host", "names", ["localhost", "127.0.0.1"]))}
    port, credentials = str(free_port()), Credentials(authority.identity("user", "watcher"))
    where = ["-n", "127.0.0.1", "-p", port, *more]
    server = start(*where, address=f"127.0.0.1:{port}", environ=environ, credentials=credentials)
    told = server.log.read_text()
    assert (f"is for localhost, 127.0.0.1, and not for {not_for}, by which" in told) == bool(not_for), told
    assert ("certs renew" in told) == bool(not_for)


def test_an_identity_that_is_missing_is_said_before_anything_is_served(folder: Path) -> None:
    done = cli("-n", "127.0.0.1", "-u", f"{folder}/ns.sock", XDG_CONFIG_HOME=str(folder))
    assert done.returncode == 2
    assert "certs" in done.stderr
    assert not (folder / "ns.sock").exists()


def test_a_mesh_has_its_names_there_over_tls(authority: Any, folder: Path, start: Start, served_at: Any) -> None:
    port = str(free_port())
    user = authority.identity("user", "ana")
    server = start(
        "-n", "127.0.0.1", "-p", port, address=f"127.0.0.1:{port}", credentials=Credentials(user),
        environ={"PYROKERNEL_HOST_CERTS": str(authority.identity("host", "names", ["127.0.0.1"]))},
    )  # fmt: skip
    mine = {
        "runtime_dir": str(folder / "r"), "state_dir": str(folder / "s"), "ns": server.address, "certs": str(user),
        "host_certs": str(authority.identity("host", "lab1", ["127.0.0.1"])), "host": "lab1",
        "listen": f"127.0.0.1:{free_port()}",
    }  # fmt: skip
    mesh = served_at(mine, "-n", "1")
    with mesh.connect() as found:
        assert isinstance(found, pk.Mesh)
        assert found["lab1-0"].execute("6 * 7").result == 42
        found["lab1-0"].execute(PUBLISH)
    entries = {entry.name: entry for entry in Directory(server.address, credentials=Credentials(user)).list("")}
    assert set(entries) == {"Pyro.NameServer", "pyrokernel.host.lab1", "pyrokernel.kernel.lab1-0", "camera"}
    # What runs on a host, its kernels and their users, is that host to others.
    for name in ("pyrokernel.host.lab1", "pyrokernel.kernel.lab1-0", "camera"):
        assert entries[name].values("owner") == ("host:lab1",)
    mesh.stop()
    watcher = Directory(server.address, credentials=Credentials(user))
    wait_until(lambda: [entry.name for entry in watcher.list("")] == ["Pyro.NameServer"])
    watcher.close()
