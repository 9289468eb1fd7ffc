"""The host as a process: how it starts, leaves, dies and is followed, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosting import HostProcess
from ports import free_port
from waiting import is_alive, wait_until

from pyrokernel.errors import AccessRefusedError, HostError, NameTakenError
from pyrokernel.host.processes import listener_pid, start_time
from pyrokernel.messages import Death, KernelSpec
from pyrokernel.settings import Settings
from pyrokernel.wire.naming import Directory

Starter = Callable[..., HostProcess]

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")


@pytest.fixture
def start(places: dict[str, str]) -> Iterator[Starter]:
    """Starts hosts of one mesh; ends them, and kernels that they left."""
    hosts: list[HostProcess] = []

    def starter(*names: str, ns: str = "", portable: bool = False, **fields: Any) -> HostProcess:
        specs = fields.pop("specs", [KernelSpec(name=name) for name in names])
        settings = Settings(**places, ns=ns, portable=portable)
        hosts.append(HostProcess(settings, specs, **fields))
        return hosts[-1]

    yield starter
    if all(host.process.poll() is not None for host in hosts):
        starter()  # adopts whatever still lives, and ends it
    for host in reversed(hosts):
        host.close()


def pids(host: HostProcess) -> dict[str, int]:
    return {name: info["pid"] for name, info in host.kernels().items()}


def test_a_report_names_the_kernels_and_the_name_server(start: Starter) -> None:
    host = start("k0", "k1")
    assert host.report["ok"]
    assert [info["name"] for info in host.report["kernels"]] == ["k0", "k1"]
    assert {info["status"] for info in host.report["kernels"]} == {"idle"}
    directory = Directory(host.report["ns"])
    assert directory.lookup("pyrokernel.kernel.k0").uri == host.report["kernels"][0]["uri"]
    assert directory.lookup(f"pyrokernel.host.{host.report['host']}").value("pid") == str(host.process.pid)
    directory.close()


def test_there_is_one_host_per_mesh_and_machine(start: Starter) -> None:
    host = start("k0")
    second = start("k1")
    assert second.wait() == 1
    assert second.report["running"]
    assert str(host.process.pid) in second.report["message"]
    assert list(host.kernels()) == ["k0"]


def test_a_host_that_fails_to_start_says_why_and_leaves_nothing(start: Starter, places: dict[str, str]) -> None:
    host = start(specs=[KernelSpec(name="k0", cwd="/no such place")])
    assert host.wait() == 1
    assert "/no such place" in host.report["message"]
    assert list(Path(places["runtime_dir"]).iterdir()) == []


def test_one_kernel_that_fails_does_not_spoil_the_others(start: Starter) -> None:
    host = start(specs=[KernelSpec(name="k0"), KernelSpec(name="k1", preload=("no_such_module",))])
    assert host.report["ok"]
    assert "no_such_module" in host.report["failed"][0]["message"]
    assert list(host.kernels()) == ["k0"]


def test_shutdown_leaves_nothing_but_the_journals(start: Starter, places: dict[str, str]) -> None:
    host = start("k0", "k1")
    kernels = pids(host)
    deaths = host.call("shutdown", "enough")
    assert [death["asked"] for death in deaths] == [True, True]
    assert host.wait() == 0
    assert not any(is_alive(pid) for pid in kernels.values())
    assert list(Path(places["runtime_dir"]).iterdir()) == []


def test_a_private_mesh_ends_with_its_client_and_leaves_nothing(start: Starter, places: dict[str, str]) -> None:
    host = start("k0", "k1", private=True)
    kernels = pids(host)
    host.cut_lifeline()
    assert host.wait() == 0
    assert not any(is_alive(pid) for pid in kernels.values())
    assert not Path(places["runtime_dir"]).exists()


def test_kernels_of_a_private_mesh_end_with_its_client_also_without_a_host(start: Starter) -> None:
    host = start("k0", private=True)
    kernels = pids(host)
    host.process.kill()
    host.wait()
    assert is_alive(kernels["k0"])
    host.cut_lifeline()
    wait_until(lambda: not is_alive(kernels["k0"]))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_kernels_outlive_their_host_and_the_next_one_adopts_them(start: Starter, how: signal.Signals) -> None:
    host = start("k0", "k1")
    before = host.kernels()
    cell = host.ask_kernel("k0", "submit", "import time; time.sleep(0.5); kept = 7; print('done', kept)", {})["cell"]
    host.process.send_signal(how)
    assert host.wait() == (-signal.SIGKILL if how == signal.SIGKILL else 0)
    heir = start()
    after = heir.kernels()
    assert {name: info["instance"] for name, info in after.items()} == {
        name: info["instance"] for name, info in before.items()
    }
    reply = heir.ask_kernel("k0", "reply", cell, 10)
    assert reply["stdout"] == "done 7\n"


def test_leaving_says_how_to_come_back(start: Starter) -> None:
    host = start("k0")
    host.process.send_signal(signal.SIGINT)
    host.wait()
    assert host.process.stdout is not None
    text = host.process.stdout.read().decode()
    assert "1 kernel keeps running" in text
    assert "pyrokernel stop" in text


def test_what_died_without_a_host_is_told_and_restarted(start: Starter) -> None:
    host = start("k0")
    before = host.kernels()["k0"]
    host.process.kill()
    host.wait()
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(lambda: not is_alive(before["pid"]))
    heir = start()
    death = heir.call("obituary", before["instance"], 0.0)
    assert death["cause"] == "died while no host watched"
    assert heir.kernels()["k0"]["instance"] == death["successor"]


def test_an_adopted_kernel_that_dies_is_noticed_too(start: Starter) -> None:
    start("k0").process.kill()
    heir = start()
    before = heir.kernels()["k0"]
    os.kill(before["pid"], signal.SIGKILL)
    death = heir.call("obituary", before["instance"], 10.0)
    assert (death["signal"], death["exit_code"]) == (None, None)
    fresh = heir.call("await_kernel", "k0", before["instance"], 10.0)
    assert fresh["instance"] == death["successor"]


def test_a_declared_kernel_that_lives_already_is_adopted(start: Starter) -> None:
    host = start("k0")
    before = host.kernels()["k0"]["instance"]
    host.process.kill()
    host.wait()
    heir = start("k0", "k1")
    assert heir.report["ok"]
    assert heir.kernels()["k0"]["instance"] == before
    assert set(heir.kernels()) == {"k0", "k1"}


@linux
def test_the_death_of_a_template_costs_no_kernel(start: Starter) -> None:
    host = start("k0")
    before = host.kernels()["k0"]
    (template,) = set(host.children()) - {before["pid"]}
    os.kill(template, signal.SIGKILL)
    host.call("start_kernels", [KernelSpec(name="k1").to_wire()])
    assert host.kernels()["k0"]["instance"] == before["instance"]
    assert host.kernels()["k1"]["status"] == "idle"


@linux
def test_a_template_killed_with_requests_on_the_way_loses_none(start: Starter, places: dict[str, str]) -> None:
    host = start()
    (template,) = host.children()
    os.kill(template, signal.SIGSTOP)
    specs = [KernelSpec(name=f"k{number}").to_wire() for number in range(3)]
    answers: list[dict[str, Any]] = []
    caller = threading.Thread(target=lambda: answers.extend(host.call("start_kernels", specs)))
    caller.start()
    wait_until(lambda: len(list((Path(places["runtime_dir"]) / "default" / "kernels").glob("*.json"))) == 3)
    os.kill(template, signal.SIGKILL)
    caller.join(30)
    assert [info["status"] for info in answers] == ["idle"] * 3


@linux
def test_modules_that_crash_a_template_are_an_error_with_its_last_words(start: Starter, places: dict[str, str]) -> None:
    folder = Path(places["state_dir"])
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "crash_module.py").write_text("import os; os.write(2, b'about to fall'); os.kill(os.getpid(), 11)\n")
    environ = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", os.getcwd())])}
    host = start("k0")
    with pytest.raises(HostError, match=r"(?s)template died.*about to fall"):
        host.call("start_kernels", [KernelSpec(name="k1", preload=("crash_module",), env=environ).to_wire()])
    assert list(host.kernels()) == ["k0"]


@linux
def test_modules_that_start_threads_are_not_forked(start: Starter, places: dict[str, str]) -> None:
    folder = Path(places["state_dir"])
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "busy_module.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    environ = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", os.getcwd())])}
    host = start(specs=[KernelSpec(name="k0", preload=("busy_module",), env=environ)])
    assert host.report["ok"], host.report
    command = Path(f"/proc/{host.kernels()['k0']['pid']}/cmdline").read_text().split("\0")
    assert "pyrokernel.kernel" in command


def test_a_portable_mesh_works_without_fork(start: Starter) -> None:
    host = start("k0", portable=True)
    before = host.kernels()["k0"]
    os.kill(before["pid"], signal.SIGKILL)
    assert host.call("obituary", before["instance"], 10.0)["signal"] == signal.SIGKILL
    assert host.call("await_kernel", "k0", before["instance"], 10.0)["status"] == "idle"


def test_a_kernel_that_cannot_listen_is_killed_when_its_time_is_up(start: Starter) -> None:
    host = start("k0")
    pid = host.kernels()["k0"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(pid))
    (death,) = host.call("stop_kernels", ["k0"], 0.1)
    assert (death["signal"], death["asked"]) == (signal.SIGKILL, True)


def is_stopped(pid: int) -> bool:
    """Whether all threads are: one that is still on its way takes a SIGTERM, and all end by that."""
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


def test_everything_a_kernel_started_dies_with_it(start: Starter) -> None:
    host = start("k0")
    source = (
        "import subprocess\n"
        "here = subprocess.Popen(['sleep', '60'])\n"
        "group = subprocess.Popen(['sleep', '60'], process_group=0)\n"
        "print(here.pid, group.pid)"
    )
    cell = host.ask_kernel("k0", "submit", source, {})["cell"]
    children = [int(pid) for pid in host.ask_kernel("k0", "reply", cell, 10)["stdout"].split()]
    assert all(is_alive(pid) for pid in children)
    before = host.kernels()["k0"]
    os.kill(before["pid"], signal.SIGKILL)
    assert host.call("obituary", before["instance"], 10.0)
    wait_until(lambda: not any(is_alive(pid) for pid in children))
    wait_until(lambda: not any(start_time(pid) for pid in children))


def test_a_detached_host_lets_go_of_the_terminal(start: Starter, places: dict[str, str]) -> None:
    host = start("k0", detached=True)
    links = [os.readlink(f"/proc/{host.process.pid}/fd/{number}") for number in range(3)]
    assert links[0] == os.devnull
    assert links[1] == links[2]
    assert links[1].endswith("host.log")
    host.process.send_signal(signal.SIGHUP)
    assert host.kernels()["k0"]["status"] == "idle"


def test_names_are_refused_and_requests_explained(start: Starter) -> None:
    host = start(specs=[KernelSpec(name="k0", protected=True)])
    with pytest.raises(NameTakenError):
        host.call("start_kernels", [KernelSpec(name="k0").to_wire()])
    with pytest.raises(AccessRefusedError, match="protected"):
        host.call("restart_kernels", ["k0"], False)
    assert host.call("restart_kernels", ["k0"], True)[0]["restarts"] == 1


def test_the_journal_of_a_dead_instance_can_be_read(start: Starter) -> None:
    host = start("k0")
    before = host.kernels()["k0"]["instance"]
    cell = host.ask_kernel("k0", "submit", "print('kept')", {})["cell"]
    host.ask_kernel("k0", "reply", cell, 10)
    host.call("restart_kernels", ["k0"], False)
    found = host.call("read_journal", "k0", before, 0, 65536)
    assert any(event["data"].get("text") == "kept\n" for event in found["events"])
    assert found["next"] == found["events"][-1]["seq"]
    assert [entry["alive"] for entry in host.call("instances", "k0")] == [True, False]


def test_the_journal_of_a_living_instance_has_only_what_the_kernel_numbered(start: Starter) -> None:
    host = start("k0")
    before = host.kernels()["k0"]
    cell = host.ask_kernel("k0", "submit", "print('kept')", {})["cell"]
    host.ask_kernel("k0", "reply", cell, 10)
    os.kill(before["pid"], signal.SIGSTOP)  # from here on it numbers nothing
    (life,) = host.call("instances", "k0")
    capture = max(Path(life["journal_dir"]).glob("capture-*.out"))
    with capture.open("ab") as stream:
        stream.write(b"waiting\n")

    def texts(after: int) -> list[str]:
        events = host.call("read_journal", "k0", before["instance"], after, 65536)["events"]
        return [event["data"]["text"] for event in events if event["kind"] == "output"]

    assert texts(0) == ["kept\n"]
    last = host.call("read_journal", "k0", before["instance"], 0, 65536)["next"]
    assert texts(last) == []
    os.kill(before["pid"], signal.SIGKILL)
    assert host.call("obituary", before["instance"], 10.0)
    assert texts(last) == ["waiting\n"]


@pytest.mark.parametrize(("method", "arguments"), [("stop_kernels", (["k0", "k1"], 5.0)), ("shutdown", ("enough",))])
def test_each_end_is_told_as_the_protocol_says(start: Starter, method: str, arguments: tuple[Any, ...]) -> None:
    host = start("k0", "k1")
    deaths = [Death.from_wire(death) for death in host.call(method, *arguments)]
    assert [death.kernel for death in deaths] == ["k0", "k1"]
    protocol = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    assert re.search(rf"^\| `{method}\([^|]*\| list of Death \|", protocol, re.MULTILINE)


@linux
def test_a_stopped_kernel_is_interrupted_when_it_goes_on(start: Starter) -> None:
    host = start("k0")
    info = host.kernels()["k0"]
    pid = info["pid"]

    def submit(source: str) -> str:
        return str(host.ask_kernel("k0", "submit", source, {"want": "text"})["cell"])

    source = "import subprocess, time; child = subprocess.Popen(['sleep', '60']); print('on'); time.sleep(60)"
    for _ in range(6):  # any thread may be the first to go on, and so take the signal
        cell = submit(source)
        options = {"cell": cell}
        wait_until(lambda: "output" in str(host.ask_kernel("k0", "follow", 0, 0.0, options)["events"]))  # noqa: B023
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        assert host.call("signal_kernel", "k0", info["instance"], int(signal.SIGINT), cell)
        os.kill(pid, signal.SIGCONT)
        assert host.ask_kernel("k0", "reply", cell, 10)["ename"] == "KeyboardInterrupt"
        child = submit("child.wait(10)")
        assert host.ask_kernel("k0", "reply", child, 10)["text"] == f"-{signal.SIGINT}"


def test_whoever_listens_can_be_found(start: Starter) -> None:
    host = start("k0")
    kernel = host.kernels()["k0"]
    assert listener_pid(kernel["uri"].partition("./u:")[2]) == kernel["pid"]
    assert listener_pid("/nowhere/k.sock") == 0


@linux
def test_an_idle_host_never_wakes(start: Starter) -> None:
    host = start("k0")

    def switches() -> int:
        total = 0
        for status in Path(f"/proc/{host.process.pid}/task").glob("*/status"):
            lines = [line for line in status.read_text().splitlines() if "ctxt_switches" in line]
            total += sum(int(line.split()[1]) for line in lines)
        return total

    last, since = switches(), time.monotonic()

    def quiet_for_a_second() -> bool:
        nonlocal last, since
        now = switches()
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since >= 1

    wait_until(quiet_for_a_second)


@pytest.fixture
def name_server() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts stock pyro5-ns, again and again at the same address."""
    port = free_port()
    started: list[subprocess.Popen[bytes]] = []

    def starter(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "Pyro5.nameserver", "-n", "127.0.0.1", "-p", str(port), "-x", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(process)

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers)
        return process

    starter.address = f"127.0.0.1:{port}"  # type: ignore[attr-defined]
    yield starter
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("storage", [False, True], ids=["memory", "sql"])
def test_a_name_server_that_comes_back_knows_every_kernel(
    start: Starter, name_server: Any, places: dict[str, str], storage: bool
) -> None:
    arguments = ["-s", f"sql:{places['runtime_dir']}.sql"] if storage else []
    process = name_server(*arguments)
    host = start("k0", "k1", "k2", ns=name_server.address)
    assert host.report["ok"]
    process.kill()
    process.wait()
    before = host.kernels()["k0"]
    os.kill(before["pid"], signal.SIGKILL)
    fresh = host.call("await_kernel", "k0", before["instance"], 10.0)
    host.call("stop_kernels", ["k2"], 5.0)
    name_server(*arguments)
    directory = Directory(name_server.address)
    expected = {"k0": fresh["instance"], "k1": host.kernels()["k1"]["instance"]}

    def known() -> dict[str, str]:
        entries = directory.list("pyrokernel.kernel.")
        return {entry.name.rpartition(".")[2]: entry.value("instance") for entry in entries}

    wait_until(lambda: known() == expected, 5)
    directory.close()


def test_a_name_server_that_is_not_there_is_a_clear_error(start: Starter, places: dict[str, str]) -> None:
    host = start("k0", ns="127.0.0.1:1")
    assert host.wait() == 1
    assert host.report["error"] == "NameServerNotFoundError"
    assert list(Path(places["runtime_dir"]).iterdir()) == []


def test_a_name_server_beyond_this_machine_is_refused_before_anything_starts(
    start: Starter, places: dict[str, str]
) -> None:
    host = start("k0", ns="10.1.2.3:9090")
    assert host.wait() == 1
    assert host.report["error"] == "AccessRefusedError"
    assert "10.1.2.3 is not this machine" in host.report["message"]
    assert not Path(places["runtime_dir"]).exists()
    assert not Path(places["state_dir"]).exists()
