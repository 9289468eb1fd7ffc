"""The kernel owns the work: whoever dies, output and results are there for the next client."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from served import from_template
from waiting import wait_until

import pyrokernel as pk

Served = Any  # tests/process/conftest.py

LINES = 40
PRINTING = f"import time\nfor i in range({LINES}):\n    print('line', i)\n    time.sleep(0.05)\n'the result'"
CLIENT = """
import sys, pyrokernel as pk
mesh = pk.connect()
cell = mesh["k0"].submit(sys.argv[1])
print(cell.id, flush=True)
for event in cell.follow():
    pass
"""


SCRIPT = """
import beside
import pyrokernel as pk
if __name__ == "__main__":
    with pk.local([pk.KernelSpec(name="k0", init="first.py")]) as mesh:
        print(mesh["k0"].call(beside.double, 21), mesh["k0"].pull("first"))
"""


def test_functions_of_a_module_beside_the_script_travel_to_a_private_mesh(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "beside.py").write_text("def double(x):\n    return 2 * x\n")
    (folder / "script.py").write_text(SCRIPT)
    (tmp_path / "first.py").write_text("first = 'here'\n")
    done = subprocess.run(
        [sys.executable, "project/script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(pk.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("42 here\n", "")


PRIVATE_CLIENT = """
import pyrokernel as pk, time
mesh = pk.local(2)
print(mesh.settings.runtime_dir, *[info.pid for info in mesh.ps()], flush=True)
mesh[:].submit("while True: pass")
time.sleep(60)
"""


def start_client(served: Served) -> tuple[subprocess.Popen[str], str]:
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, PRINTING], env=served.environ, stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    return client, client.stdout.readline().strip()


def all_of_it(served: Served, cell: str) -> tuple[list[str], Any]:
    """What another client finds of a cell."""
    with served.connect() as mesh:
        handle = mesh["k0"].cell(cell)
        text = "".join(event.data["text"] for event in handle.follow(timeout=30) if event.kind == "output")
        return text.splitlines(), handle.reply(timeout=5).result


def test_a_killed_client_loses_nothing(served: Served) -> None:
    client, cell = start_client(served)
    with served.connect() as mesh:
        wait_until(lambda: len(mesh["k0"].events(cell=cell)) > 5)
    client.kill()
    client.communicate()
    lines, result = all_of_it(served, cell)
    assert lines == [f"line {number}" for number in range(LINES)]
    assert result == "the result"


def test_a_killed_host_loses_nothing_and_the_next_adopts_the_kernels(served: Served) -> None:
    with served.connect() as mesh:
        kernel = mesh["k0"]
        kernel.execute("kept = 42")
        instance = kernel.instance
        cell = kernel.submit(PRINTING)
        os.kill(served.host_pid(), signal.SIGKILL)
        assert cell.reply(timeout=30).result == "the result", "a client with a connection never notices"
    served.serve()
    with served.connect() as mesh:
        assert mesh["k0"].instance == instance
        assert mesh["k0"].execute("kept").result == 42
    lines, _ = all_of_it(served, cell.id)
    assert lines == [f"line {number}" for number in range(LINES)]


@from_template
def test_a_killed_template_loses_nothing_and_is_replaced(served: Served) -> None:
    with served.connect() as mesh:
        host, kernels = served.host_pid(), [info.pid for info in mesh.ps()]
        cell = mesh["k0"].submit(PRINTING)
        templates = [
            int(pid)
            for pid in Path(f"/proc/{host}/task/{host}/children").read_text().split()
            if Path(f"/proc/{pid}/comm").read_text() == "pk-template\n" and int(pid) not in kernels
        ]
        assert templates
        for pid in templates:
            os.kill(pid, signal.SIGKILL)
        assert cell.reply(timeout=30).result == "the result"
        mesh["k1"].restart()
        assert mesh["k1"].execute("1 + 1").result == 2
    lines, _ = all_of_it(served, cell.id)
    assert len(lines) == LINES


def test_a_second_serve_joins_the_running_mesh(served: Served) -> None:
    with served.connect() as mesh:
        instance = mesh["k0"].instance
        served.serve("--name", "camera", "--tag", "optics")
        assert mesh.names == ["camera", "k0", "k1"]
        assert mesh["k0"].instance == instance
        assert mesh.tagged("optics").names == ["camera"]


def test_a_detached_mesh_survives_the_hangup_of_its_terminal(served: Served) -> None:
    os.kill(served.host_pid(), signal.SIGHUP)
    with served.connect() as mesh:
        assert mesh["k0"].execute("1").result == 1
        assert served.host_pid()


def test_stop_leaves_nothing_behind(served: Served) -> None:
    with served.connect() as mesh:
        pids = [info.pid for info in mesh.ps()]
        pids.append(served.host_pid())
        mesh["k0"].execute("import subprocess; p = subprocess.Popen(['sleep', '60'])")
        pids.append(mesh["k0"].execute("p.pid").result)
    served.stop()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    left = [path for path in Path(served.places["runtime_dir"]).rglob("*") if not path.is_dir()]
    assert left == []


def test_a_request_sent_twice_runs_once(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.execute("count = 0")
    first = kernel.execute("count += 1; count", cell="a" * 32)
    again = kernel.execute("count += 1; count", cell="a" * 32)
    assert (first.result, again.result) == (1, 1)
    assert kernel.execute("count").result == 1


def test_a_late_client_asks_for_a_cell_by_its_id(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.ReplyTimeoutError) as caught:
        mesh["k0"].execute("import time; time.sleep(0.5); 'late'", timeout=0.1)
    assert mesh["k0"].cell(caught.value.cell).reply(timeout=10).result == "late"


def test_an_unknown_cell_is_said(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.CellNotFoundError):
        mesh["k0"].cell("f" * 32).reply(timeout=1)


def test_threads_share_handles(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda number=number: results.append(kernel.execute(f"{number} * 2").result))
        for number in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [number * 2 for number in range(16)]


def in_child(mesh: pk.Mesh, queue: Any) -> None:
    queue.put(mesh["k0"].execute("'from a child'").result)


def test_a_forked_client_has_connections_of_its_own(mesh: pk.Mesh) -> None:
    mesh["k0"].execute("1")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=in_child, args=(mesh, queue)) for _ in range(3)]
    for child in children:
        child.start()
    assert [queue.get(timeout=20) for _ in children] == ["from a child"] * 3
    assert mesh["k0"].execute("'parent'").result == "parent"
    for child in children:
        child.join(10)
        assert child.exitcode == 0
    assert mesh["k0"].execute("'still there'").result == "still there"


def test_a_kernel_uses_the_mesh_as_any_client_would(mesh: pk.Mesh) -> None:
    source = "import pyrokernel as pk\nwith pk.connect() as mesh:\n    r = mesh['k1'].execute('6 * 7').result\nr"
    assert mesh["k0"].execute(source).result == 42


def test_a_kernel_that_would_wait_for_itself_is_told(mesh: pk.Mesh) -> None:
    source = "import pyrokernel as pk\npk.connect()['k0'].execute('1')"
    with pytest.raises(pk.RemoteError, match="WouldDeadlockError"):
        mesh["k0"].execute(source, timeout=20)


def test_a_ring_of_waits_is_told(mesh: pk.Mesh) -> None:
    source = (
        "import pyrokernel as pk\n"
        "inner = \"import pyrokernel as pk; pk.connect()['k0'].execute('1')\"\n"
        "pk.connect()['k1'].execute(inner)"
    )
    with pytest.raises(pk.RemoteError, match="k0 waits on k1 waits on k0"):
        mesh["k0"].execute(source, timeout=20)


def test_two_cells_that_wait_for_each_other_are_told(mesh: pk.Mesh) -> None:
    source = "import pyrokernel as pk, time\nm = pk.connect(); time.sleep(0.3)\nm[{other!r}].execute('1')"
    cells = [
        mesh["k0"].submit(source.replace("{other!r}", "'k1'")),
        mesh["k1"].submit(source.replace("{other!r}", "'k0'")),
    ]
    replies = [cell.reply(timeout=20, check=False) for cell in cells]
    assert "WouldDeadlockError" in {reply.ename for reply in replies}


def test_a_private_mesh_ends_with_its_client(tmp_path: Path) -> None:
    client = subprocess.Popen([sys.executable, "-c", PRIVATE_CLIENT], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    directory, *pids = client.stdout.readline().split()
    client.send_signal(signal.SIGKILL)
    client.communicate()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    wait_until(lambda: not os.path.exists(directory))


def test_local_leaves_nothing_behind() -> None:
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with pk.local(2) as mesh:
        directory = mesh.settings.runtime_dir
        pids = [info.pid for info in mesh.ps()]
        mesh[:].execute("1")
    assert not os.path.exists(directory)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_the_time_of_a_reply_is_measured(mesh: pk.Mesh) -> None:
    reply = mesh["k0"].execute("import time; time.sleep(0.2)")
    assert 0.2 <= reply.duration < 5
    assert abs(reply.started - time.time()) < 60


def test_a_file_of_the_users_does_not_take_the_place_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError('this is not the one')\n")
    (tmp_path / "mine.py").write_text("x = 42\n")
    source = (
        "import os, pyrokernel as pk\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "with pk.local([pk.KernelSpec(name='k', preload=('mine',))]) as mesh:\n"
        "    print(mesh['k'].execute('import mine; mine.x').result)\n"
    )
    # For a checkout that is not installed: the working directory must not be the way to the package.
    environ = {**os.environ, "PYTHONPATH": str(Path(pk.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", source], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("42\n", "")


def look_up(mesh: pk.Mesh, queue: Any) -> None:
    queue.put(mesh["k0"].name)


def test_a_child_forked_in_the_middle_of_a_lookup_can_look_up(mesh: pk.Mesh) -> None:
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            _ = mesh.names

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        children = [context.Process(target=look_up, args=(mesh, queue)) for _ in range(5)]
        for child in children:
            child.start()
        assert [queue.get(timeout=20) for _ in children] == ["k0"] * 5
        for child in children:
            child.join(10)
    finally:
        stop.set()
        busy.join()


def test_long_waits_leave_no_threads_at_the_host(mesh: pk.Mesh) -> None:
    (host,) = mesh.hosts()
    pid = mesh.ask_host(host, "describe")["pid"]
    mesh["k0"].execute("import time; time.sleep(0.3)")
    before = len(os.listdir(f"/proc/{pid}/task"))
    for _ in range(8):
        mesh["k0"].execute("import time; time.sleep(0.3)")
    assert len(os.listdir(f"/proc/{pid}/task")) <= before + 1


def test_a_cell_of_an_earlier_instance_tells_how_that_ended(mesh: pk.Mesh) -> None:
    kernel = mesh["k2"]
    cell = kernel.submit("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"])
    kernel.restart(force=True)
    with pytest.raises(pk.KernelDiedError):
        list(cell.follow(timeout=20))
    with pytest.raises(pk.KernelDiedError):
        cell.reply(timeout=5)
    assert kernel.execute("1").result == 1
