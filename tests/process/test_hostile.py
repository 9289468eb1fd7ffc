"""Code that fights its kernel: a cell always ends, and the kernel goes on or says why it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

import pyrokernel as pk
from pyrokernel import systems

Served = Any  # tests/process/conftest.py

SET_UP = """
class Exits(Exception):
    def __str__(self): raise SystemExit
class Presses(Exception):
    def __str__(self): raise KeyboardInterrupt
class Meta(type):
    def __getattribute__(cls, name): raise SystemExit
class Strange(Exception, metaclass=Meta): pass
class Text(str):
    def __len__(self): raise SystemExit
class Lies(Exception):
    def __str__(self): return Text("lies")
"""


@pytest.mark.parametrize("name", ["Exits", "Presses", "Strange", "Lies"])
def test_an_exception_whose_text_fights_back_ends_its_cell(kernel: pk.Kernel, name: str) -> None:
    kernel.execute(SET_UP)
    for _ in range(2):
        assert kernel.submit(f"raise {name}").reply(timeout=10, check=False).status == "error"
        assert kernel.execute(f"raise {name}", check=False, timeout=10).ename == name
    assert kernel.describe()["running"] is None


def test_an_exception_whose_text_never_ends_is_interrupted(kernel: pk.Kernel) -> None:
    cell = kernel.submit(
        "class E(Exception):\n    def __str__(self):\n        print('in')\n        while True: pass\nraise E"
    )
    for event in cell.follow(timeout=20):
        if event.kind == "output":
            assert cell.interrupt().outcome == "interrupted"
    assert cell.reply(timeout=5, check=False).ename == "E"


@pytest.mark.parametrize("way", ["execute", "submit"])
def test_a_namespace_that_cannot_be_is_an_error_of_the_cell(kernel: pk.Kernel, way: str) -> None:
    instance = kernel.instance
    if way == "execute":
        reply = kernel.execute("1", namespace="a-b", check=False, timeout=10)
    else:
        reply = kernel.submit("1", namespace="a-b").reply(timeout=10, check=False)
    assert reply.ename == "SettingsError"
    assert kernel.describe()["running"] is None
    assert kernel.instance == instance


def test_an_alarm_that_raises_between_the_cells_is_survived(kernel: pk.Kernel) -> None:
    kernel.execute(
        "import signal\ndef late(*_): raise TimeoutError('late')\nsignal.signal(signal.SIGALRM, late)\nkept = 1"
    )
    for delay in (0.05, 0.0001, 0.0002, 0.0003):
        kernel.execute(f"signal.setitimer(signal.ITIMER_REAL, {delay}); None", check=False, timeout=10)
        time.sleep(0.1)  # the alarm, not a condition, is waited for
    assert kernel.execute("kept", timeout=10).result == 1


def test_a_storm_of_interrupts_loses_nothing_and_locks_nothing(mesh: pk.Mesh) -> None:
    kernel = mesh["k1"]
    stop = threading.Event()

    def pest() -> None:
        while not stop.wait(0.001):
            kernel.interrupt()

    pests = [threading.Thread(target=pest) for _ in range(3)]
    for thread in pests:
        thread.start()
    try:
        ended = time.monotonic() + 6
        while time.monotonic() < ended:
            reply = kernel.execute("print('x')\nfor _ in range(20000): pass", check=False, timeout=20)
            assert reply.ename in ("", "KeyboardInterrupt"), reply
    finally:
        stop.set()
        for thread in pests:
            thread.join(20)
    seqs = [event.seq for event in kernel.events()]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert kernel.execute("'still there'", timeout=10).result == "still there"


def test_closing_the_kernels_own_descriptors_ends_it_with_a_cause() -> None:
    with pk.local(1) as mesh:
        with pytest.raises(pk.PyrokernelError):
            mesh["k0"].execute("import os; os.closerange(3, 30); None", timeout=10)
        wait_until(lambda: answers(mesh), timeout=30)


def answers(mesh: pk.Mesh) -> bool:
    try:
        return bool(mesh["k0"].execute("6 * 7", timeout=3).result == 42)
    except pk.PyrokernelError:
        return False


@pytest.mark.parametrize(
    "source",
    [
        "import multiprocessing; multiprocessing.Lock()",
        "class N:\n    def __reduce__(self): raise NotImplementedError\nN()",
    ],
)
def test_a_value_that_refuses_to_be_pickled_does_not_fail_its_cell(kernel: pk.Kernel, source: str) -> None:
    reply = kernel.execute(source)
    assert reply.ok
    with pytest.raises(pk.ResultUnavailableError):
        _ = reply.result


def test_a_large_half_line_is_in_the_reply(mesh: pk.Mesh) -> None:
    kernel = mesh["k2"]
    for _ in range(5):
        reply = kernel.execute("import sys; _ = sys.stdout.write('x' * 20_000_000)", timeout=30)
        assert reply.stdout
        assert reply.truncated


def test_tasks_made_before_an_await_in_one_cell_have_the_loop(kernel: pk.Kernel) -> None:
    kernel.execute("import asyncio\nasync def five(): return 5")
    assert kernel.execute("t = asyncio.create_task(five())\nawait t").result == 5
    assert kernel.execute("loop = asyncio.get_running_loop()\nawait five()").result == 5


def test_a_pickle_that_exits_is_an_error_of_the_call(kernel: pk.Kernel) -> None:
    kernel.execute("class X:\n    def __reduce__(self): raise SystemExit\nx = X()")
    with pytest.raises(pk.PyrokernelError, match="SystemExit"):
        kernel.pull("x")
    assert kernel.execute("1").result == 1


def test_restarts_leak_no_descriptors_of_the_client() -> None:
    with pk.local(1) as mesh:
        kernel = mesh["k0"]
        kernel.restart(force=True)
        kernel.execute("1")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            kernel.restart(force=True)
            kernel.execute("1")
        assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_serve_started_twice_at_once_is_one_mesh(places: dict[str, str]) -> None:
    environ = {**os.environ, **{f"PYROKERNEL_{name.upper()}": path for name, path in places.items()}}
    command = [sys.executable, "-m", "pyrokernel"]
    both = [
        subprocess.Popen(
            [*command, "serve", "--detach", "-n", "1"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    try:
        said = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        with pk.connect(**places) as mesh:
            assert mesh.names == ["k0"]  # -n says how many there are in all
    finally:
        subprocess.run([*command, "stop"], env=environ, capture_output=True, timeout=60, check=False)


def test_a_bad_setting_leaves_no_directory_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systems, "temporary_root", lambda: str(tmp_path))
    for options in ({"timeout": -1}, {"nosuch": 1}):
        with pytest.raises(pk.SettingsError):
            pk.local(1, **options)
    assert os.listdir(tmp_path) == []


def test_sigint_from_outside_interrupts_the_running_cell(kernel: pk.Kernel) -> None:
    cell = kernel.submit("print('in')\nimport time; time.sleep(60)")
    for event in cell.follow(timeout=20):
        if event.kind == "output":
            os.kill(kernel.describe()["pid"], signal.SIGINT)
    assert cell.reply(timeout=5, check=False).ename == "KeyboardInterrupt"
