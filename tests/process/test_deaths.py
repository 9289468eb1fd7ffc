"""A kernel that dies says so: at once, with its cause, and without the others noticing."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import wait_until

import pyrokernel as pk


@pytest.fixture
def mesh() -> Iterator[pk.Mesh]:
    """A mesh of its own for each test: a kernel that dies too often is given up."""
    with pk.local(3) as found:
        yield found


KILL = "print('last words', flush=True); import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def wait_in_thread(mesh: pk.Mesh) -> tuple[threading.Thread, list[BaseException]]:
    """Call k0 for a minute from a thread; return that, once the cell runs, and what it will catch."""
    caught: list[BaseException] = []
    kernel = mesh["k0"]

    def call() -> None:
        try:
            kernel.execute("import time; time.sleep(60)")
        except pk.PyrokernelError as error:
            caught.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    wait_until(lambda: kernel.describe()["running"])
    return caller, caught


def test_a_killed_kernel_is_announced_with_its_cause(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    with pytest.raises(pk.KernelDiedError) as caught:
        kernel.execute(KILL)
    error = caught.value
    assert error.signal == signal.SIGKILL
    assert error.last_cell is not None
    assert error.last_cell["source"] == KILL
    assert error.tail == "last words\n"
    assert error.peak_memory_bytes
    assert error.peak_memory_bytes > 1_000_000


def test_the_name_answers_again_and_old_handles_say_so(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    idle = mesh["k0"]
    other = mesh["k1"]
    other.execute("kept = 1")
    with pytest.raises(pk.KernelDiedError):
        kernel.execute(KILL)
    fresh = mesh["k0"]
    assert fresh.execute("1 + 1").result == 2
    assert fresh.instance != idle.instance
    with pytest.raises(pk.KernelRestartedError) as caught:
        idle.execute("1")
    assert caught.value.new_instance == fresh.instance
    assert idle.execute("2").result == 2, "from then on it belongs to the new instance"
    assert other.execute("kept").result == 1


def test_an_exit_code_is_told(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.KernelDiedError) as caught:
        mesh["k0"].execute("import os; os._exit(3)")
    assert caught.value.exit_code == 3
    assert caught.value.signal is None


def test_a_crash_in_c_code_is_told(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.KernelDiedError) as caught:
        mesh["k0"].execute("import ctypes; ctypes.string_at(0)")
    assert caught.value.signal == signal.SIGSEGV


def test_children_that_keep_descriptors_open_do_not_hide_a_death(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    pid, children = kernel.execute(
        "import multiprocessing, os, time\n"
        "context = multiprocessing.get_context('fork')\n"
        "children = [context.Process(target=time.sleep, args=(60,)) for _ in range(3)]\n"
        "for child in children: child.start()\n"
        "os.getpid(), [child.pid for child in children]"
    ).result
    caller, caught = wait_in_thread(mesh)
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    caller.join(10)
    assert isinstance(caught[0], pk.KernelDiedError)
    # Its children would have kept a guess from closed sockets waiting for a minute.
    assert time.monotonic() - killed < 10
    wait_until(lambda: not any(os.path.exists(f"/proc/{child}") for child in children))


def test_a_child_that_left_the_group_does_not_hide_a_death_either(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    pid, child = kernel.execute(
        "import ctypes, os, time\n"
        "libc = ctypes.CDLL(None)\n"
        "child = libc.fork()  # a fork that Python does not see\n"
        "if child == 0:\n"
        "    libc.setsid(); libc.sleep(20); libc._exit(0)\n"
        "os.getpid(), child"
    ).result
    try:
        caller, caught = wait_in_thread(mesh)
        os.kill(pid, signal.SIGKILL)
        caller.join(10)
        assert caught, "the socket is still open in the child; only the host can tell"
        assert isinstance(caught[0], pk.KernelDiedError)
    finally:
        if os.path.exists(f"/proc/{child}"):
            os.kill(child, signal.SIGKILL)


def test_a_death_ends_the_call_of_its_kernel_only(mesh: pk.Mesh) -> None:
    group = mesh[:]
    group.push(me=None)
    for kernel in group:
        kernel.push(me=kernel.name)
    with pytest.raises(pk.GatherError) as caught:
        group.execute("import os, signal\nif me == 'k1': os.kill(os.getpid(), signal.SIGKILL)\nme")
    assert list(caught.value.errors) == ["k1"]
    assert isinstance(caught.value.errors["k1"], pk.KernelDiedError)
    assert {name: reply.result for name, reply in caught.value.replies.items()} == {"k0": "k0", "k2": "k2"}


def test_submitted_cells_report_the_death_of_their_kernel(mesh: pk.Mesh) -> None:
    cell = mesh["k0"].submit(KILL)
    with pytest.raises(pk.KernelDiedError):
        for _ in cell.follow():
            pass


def test_a_kernel_that_keeps_dying_is_given_up() -> None:
    with pk.local(1) as mesh:

        def kill() -> Any:
            try:
                mesh["k0"].execute("import os; os._exit(1)")
            except pk.KernelNotFoundError as error:
                return error
            except pk.PyrokernelError:
                return None

        wait_until(lambda: kill() is not None, timeout=30)
        (info,) = mesh.ps()
        assert info.status == "dead"
        assert info.cause


def test_restart_never_leaves_it_dead() -> None:
    with pk.local([pk.KernelSpec(name="once", restart="never")]) as mesh:
        with pytest.raises(pk.KernelDiedError):
            mesh["once"].execute("import os; os._exit(1)")
        wait_until(lambda: mesh.ps()[0].status == "dead")
        with pytest.raises(pk.KernelNotFoundError):
            mesh["once"]


def test_an_asked_restart_is_followed_by_its_handle(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.execute("x = 1")
    before = kernel.instance
    kernel.restart()
    assert kernel.instance != before
    with pytest.raises(pk.RemoteError, match="NameError"):
        kernel.execute("x")


def test_an_init_file_runs_at_every_start(tmp_path: Any) -> None:
    init = tmp_path / "camera.py"
    init.write_text("camera = 'ready'\nprint('camera on')\n")
    with pk.local([pk.KernelSpec(name="camera", init=str(init))]) as mesh:
        assert mesh["camera"].execute("camera, __name__").result == ("ready", "__main__")
        mesh["camera"].restart()
        assert mesh["camera"].execute("camera").result == "ready"
        texts = [event.data.get("text") for event in mesh["camera"].events()]
        assert "camera on\n" in texts


def test_an_init_file_that_fails_is_shown(mesh: pk.Mesh) -> None:
    mesh.start([pk.KernelSpec(name="camera", init="/nonexistent/camera.py")])
    kernel = mesh["camera"]
    kernel.execute("1")
    assert "camera.py" in kernel.describe()["init_error"]


def test_a_private_mesh_whose_init_file_fails_is_an_error_that_names_the_line(tmp_path: Any) -> None:
    init = tmp_path / "camera.py"
    init.write_text("import os\nos.environ['NO_SUCH_PORT']\n")
    with pytest.raises(pk.RemoteError) as caught:
        pk.local([pk.KernelSpec(name="camera", init=str(init)), pk.KernelSpec(name="k0")])
    error = caught.value
    assert (error.kernel, error.ename) == ("camera", "KeyError")
    first, *traceback = str(error).splitlines()
    assert first == f"the init file of kernel 'camera' failed: KeyError: 'NO_SUCH_PORT' ({init}, line 2)"
    assert "    os.environ['NO_SUCH_PORT']" in traceback
    with pytest.raises(pk.GatherError, match="2 of 2 kernels failed\ncamera, k0: the init file of this kernel"):
        pk.local([pk.KernelSpec(name=name, init=str(init)) for name in ("camera", "k0")])


def test_what_was_printed_right_before_a_death_still_arrives(mesh: pk.Mesh) -> None:
    source = "import os, time\nprint('early'); time.sleep(0.3)\nos.write(1, b'last words\\n'); os._exit(1)"
    cell = mesh["k0"].submit(source)
    seen = ""
    followed = cell.follow(timeout=20)

    def read_on() -> None:
        nonlocal seen
        for event in followed:
            seen += event.data.get("text", "")

    with pytest.raises(pk.KernelDiedError):
        read_on()
    assert seen == "early\nlast words\n"
    cells = mesh[1:].submit(source)
    texts = dict.fromkeys(cells, "")
    for name, event in mesh[1:].follow(cells, timeout=20):
        if not isinstance(event, pk.PyrokernelError):
            texts[name] += event.data.get("text", "")
    assert set(texts.values()) == {"early\nlast words\n"}


def test_a_client_that_notices_no_death_keeps_nothing_open_of_the_dead(mesh: pk.Mesh) -> None:
    mesh["k0"].call("abs", -1)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with pk.connect(settings=mesh.settings) as other:
        for _ in range(3):
            died = other["k0"].describe()
            os.kill(died["pid"], signal.SIGKILL)
            wait_until(lambda died=died: other.lookup("k0").value("instance") not in ("", died["instance"]))  # type: ignore[misc]
            assert mesh["k0"].call("abs", -1) == 1
    assert len(os.listdir("/proc/self/fd")) <= before  # what earlier tests have left may have been closed meanwhile


def test_to_interrupt_a_cell_whose_kernel_has_died_says_so(mesh: pk.Mesh) -> None:
    cell = mesh["k0"].submit("import time; time.sleep(60)")
    wait_until(lambda: mesh["k0"].describe()["running"])
    os.kill(mesh["k0"].describe()["pid"], signal.SIGKILL)
    with pytest.raises(pk.KernelDiedError):
        cell.interrupt()
    assert mesh["k0"].call("abs", -1) == 1
