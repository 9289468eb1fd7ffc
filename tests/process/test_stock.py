"""Stock programs: a Pyro5 proxy as a client, pyro5-ns as the name server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from served import stock_clients
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.host.processes import is_same, start_time

Served = Any  # tests/process/conftest.py

STOCK_CLIENT = """
import sys, Pyro5.api
with Pyro5.api.Proxy(sys.argv[1]) as kernel:
    kernel._pyroSerializer = sys.argv[2]
    reply = kernel.execute("print('from stock'); 6 * 7", {"want": "value"})
    print(reply["status"], reply["text"], reply["value"], reply["stdout"], end="")
    cell = kernel.submit("for i in range(3): print('line', i)")
    position, ended = cell["seq"], False
    while not ended:
        answer = kernel.follow(position, 10.0, {"cell": cell["cell"]})
        position = answer["next"]
        for event in answer["events"]:
            if event["kind"] == "output":
                print(event["data"]["text"], end="")
            ended = ended or event["kind"] == "ended"
    print(kernel.call("len", [[[1, 2, 3]], {}])["value"])
    print(kernel.execute("1 / 0")["ename"])
    print(kernel.execute("object()", {"want": "value"})["value_missing"])
    kernel.push({"x": [1, 2]})
    print(kernel.pull(["x"]))
    print(kernel.complete("import o")["matches"][:1])
"""


@stock_clients
@pytest.mark.parametrize("serializer", ["serpent", "json"])
def test_a_stock_proxy_executes_and_follows_from_its_own_process(mesh: pk.Mesh, serializer: str) -> None:
    uri = mesh.ps()[0].uri
    done = subprocess.run(
        [sys.executable, "-c", STOCK_CLIENT, uri, serializer], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:7] == [
        "ok 42 42 from stock", "line 0", "line 1", "line 2", "3", "ZeroDivisionError",
        "a object is not plain data, and this client does not read pickles",
    ]  # fmt: skip
    assert "[1, 2]" in done.stdout


STOCK_STATE = """
import sys, Pyro5.api, serpent
with Pyro5.api.Proxy(sys.argv[1]) as shared:
    blob = bytes(range(256))
    for key, value in {"n": 3, "text": "ä", "f": 0.5, "blob": blob}.items():
        shared.set(key, value)
    print(shared.get("n"), shared.get("text"), shared.get("f"), serpent.tobytes(shared.get("blob")) == blob)
    print(shared.increment("n", 2), shared.keys(), [entry["type"] for entry in shared.entries("b")])
    try:
        shared.set("list", [1])
    except RuntimeError as error:
        print(error)
"""


@stock_clients
def test_a_stock_proxy_reads_and_writes_numbers_texts_and_bytes_of_the_shared_state(mesh: pk.Mesh) -> None:
    mesh.shared.clear()
    uri = mesh.find_state().uri
    done = subprocess.run(
        [sys.executable, "-c", STOCK_STATE, uri], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "3 ä 0.5 True", "5 ['blob', 'f', 'n', 'text'] ['bytes']",
        "NotSerializableError: a list is set from a kernel or a Python client only",
    ]  # fmt: skip
    assert mesh.shared.get("blob") == bytes(range(256))


class NameServer:
    """A stock pyro5-ns on loopback or a unix socket."""

    def __init__(self, address: str, *options: str) -> None:
        self.address, self.options = address, options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.address.startswith("./u:"):
            Path(self.address.removeprefix("./u:")).unlink(missing_ok=True)
            where = ["-u", self.address.removeprefix("./u:")]
        else:
            host, port = self.address.split(":")
            where = ["-n", host, "-p", port, "-x"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "Pyro5.nameserver", *where, *self.options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        from pyrokernel.wire.naming import Directory

        def answers() -> bool:
            try:
                Directory(self.address, timeout=1).ping()
            except pk.NameServerNotFoundError:
                return False
            return True

        wait_until(answers, timeout=20)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(params=["unix", "tcp", "tcp with storage"])
def name_server(request: pytest.FixtureRequest, places: dict[str, str]) -> Iterator[NameServer]:
    folder = Path(places["runtime_dir"]).parent
    if request.param == "unix":
        server = NameServer(f"./u:{folder}/ns.sock")
    else:
        options = ["-s", f"sql:{folder}/names.sqlite"] if "storage" in request.param else []
        server = NameServer(f"127.0.0.1:{free_port()}", *options)
    server.start()
    yield server
    server.kill()


def test_a_stock_name_server_is_enough(name_server: NameServer, places: dict[str, str], served_at: Any) -> None:
    served = served_at({**places, "ns": name_server.address}, "-n", "2")
    with served.connect() as mesh:
        assert mesh.names == ["k0", "k1"]
        assert mesh["k1"].execute("1 + 1").result == 2


def test_a_name_server_that_is_killed_and_restarted_is_filled_again(
    name_server: NameServer, places: dict[str, str], served_at: Any
) -> None:
    served = served_at({**places, "ns": name_server.address}, "-n", "2")
    with served.connect() as running:
        running["k0"].execute("kept = 1")
        group = running[:]
        name_server.kill()
        assert group.execute("2")["k1"].result == 2, "a running client never notices"
        assert running["k0"].execute("kept").result == 1
        assert running[:].names == ["k0", "k1"]
        name_server.start()
        started = time.monotonic()

        def found() -> bool:
            with served.connect() as fresh:
                return fresh.names == ["k0", "k1"] and bool(fresh[:].execute("kept = 1"))

        wait_until(found, timeout=20)
        assert time.monotonic() - started < 10
        assert running[:].execute("3")["k0"].result == 3


def test_a_kernel_is_born_while_the_name_server_is_away(
    name_server: NameServer, places: dict[str, str], served_at: Any
) -> None:
    served = served_at({**places, "ns": name_server.address}, "-n", "1")
    with served.connect() as running:
        kernel = running["k0"]
        name_server.kill()
        with pytest.raises(pk.KernelDiedError):
            kernel.execute("import os; os._exit(1)")
        name_server.start()
        wait_until(lambda: answers(served, "k0"), timeout=20)


def test_a_host_of_this_machine_is_stopped_while_the_name_server_is_away(
    name_server: NameServer, places: dict[str, str], served_at: Any
) -> None:
    served = served_at({**places, "ns": name_server.address}, "-n", "1")
    pid = served.host_pid()
    started = start_time(pid)
    name_server.kill()
    done = served.cli("stop")
    assert done.stdout.startswith("stopped 1 kernel: k0\n")
    assert not is_same(pid, started)


PUBLISH = """
import pyrokernel as pk
class Stage:
    at = 0
    @pk.expose
    def move(self, by):
        self.at += by
        return self.at
pk.publish("stage", Stage())
"""


@stock_clients
@pytest.mark.parametrize("name_server", ["tcp"], indirect=True)
def test_what_a_kernel_publishes_is_found_by_its_name_and_comes_back_with_the_name_server(
    name_server: NameServer, places: dict[str, str], served_at: Any
) -> None:
    served = served_at({**places, "ns": name_server.address}, "-n", "1")
    host, port = name_server.address.split(":")
    code = 'import Pyro5.api; print(Pyro5.api.Proxy("PYRONAME:stage").move(2))'

    def moved() -> str:
        environ = {**os.environ, "PYRO_NS_HOST": host, "PYRO_NS_PORT": port}
        return subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=30, check=False
        ).stdout

    with served.connect() as mesh:
        mesh["k0"].execute(PUBLISH)
        assert mesh.open("stage").move(1) == 1
        assert moved() == "3\n"
        name_server.kill()
        name_server.start()
        wait_until(lambda: bool(mesh.published()), timeout=20)
        assert moved() == "5\n"
        assert mesh.open("stage").move(1) == 6


def answers(served: Served, name: str) -> bool:
    try:
        with served.connect() as mesh:
            return bool(mesh[name].execute("1", timeout=5).result == 1)
    except pk.PyrokernelError:
        return False


def test_a_name_held_by_another_living_mesh_is_an_error(
    name_server: NameServer, places: dict[str, str], served_at: Any
) -> None:
    served_at({**places, "ns": name_server.address}, "--name", "camera")
    other = {name: path + "2" for name, path in places.items()}
    from subprocess import run

    environ = {**os.environ, **{f"PYROKERNEL_{name.upper()}": path for name, path in other.items()}}
    environ.update(PYROKERNEL_NS=name_server.address, PYROKERNEL_HOST="other")
    try:
        done = run(
            [sys.executable, "-m", "pyrokernel", "serve", "--detach", "--name", "camera"],
            env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert "camera" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        run([sys.executable, "-m", "pyrokernel", "stop"], env=environ, capture_output=True, timeout=60, check=False)


def test_an_address_beyond_this_machine_is_refused_in_one_line(places: dict[str, str]) -> None:
    environ = {**os.environ, **{f"PYROKERNEL_{name.upper()}": path for name, path in places.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "pyrokernel", "--ns", "192.0.2.1:9090", "ps"],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "ssh" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
