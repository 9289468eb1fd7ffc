"""Portable mode does without all that Windows lacks: shown on Linux, by taking it away from every process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

LACKING = Path(__file__).parents[1] / "lacking"
"""A `sitecustomize` by which our modules find no fork, no unix sockets, no `fcntl`, no `SIGKILL` ..."""

ENVIRON = {"PYTHONPATH": str(LACKING)}
"""The setting is not given: it is `portable` wherever there are no unix sockets."""


def run(program: str) -> str:
    """Run a client that lacks it, with hosts and kernels that do; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nassert sys.pyrokernel_lacks\nimport pyrokernel as pk\n{program}"],
        env={**os.environ, **ENVIRON},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def served(places: dict[str, str], served_at: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A detached mesh of two kernels."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    return served_at(places, "-n", "2")


def test_our_modules_really_find_nothing_of_it() -> None:
    asked = "import pyrokernel.systems as s, pyrokernel.wire.sockets as t, pyrokernel.again as a\n"
    shown = (
        "print(hasattr(s.os, 'fork'), hasattr(t.socket, 'AF_UNIX'), hasattr(t.select, 'poll'), a.CAN_FORK, s.limits())"
    )
    assert run(asked + shown) == "False False False False None\n"


@pytest.mark.parametrize("forbidden", ["os.fork()", "os.memfd_create('x')", "socket.socket(socket.AF_UNIX)"])
def test_what_is_forbidden_fails_for_everybody(forbidden: str) -> None:
    program = f"import os, socket\ntry:\n    {forbidden}\nexcept AssertionError as error:\n    print(error)"
    assert "in portable mode" in run(program)


def test_kernels_execute_call_and_map() -> None:
    program = """
with pk.local(3) as mesh:
    group = mesh[:]
    print(group.execute("import sys; print('heard'); (sys.pyrokernel_lacks, 6 * 7)")["k2"].result)
    print(group.execute("1 / 0", check=False)["k0"].ename)
    group.execute("def double(x): return 2 * x")
    print(group.call("double", 21))
    print(list(group.map(lambda x: x * x, range(10))))
    print(mesh["k0"].execute("import os; os.path.exists('/')").result, mesh.names)
"""
    assert run(program).splitlines() == [
        "(True, 42)",
        "ZeroDivisionError",
        "{'k0': 42, 'k1': 42, 'k2': 42}",
        "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]",
        "True ['k0', 'k1', 'k2']",
    ]


def test_data_goes_to_kernels_and_back() -> None:
    program = """
import numpy
with pk.local(2) as mesh:
    group = mesh[:]
    group.push(small=1, large=numpy.arange(1_000_000))
    print({name: value.sum() for name, value in group.pull("large").items()}, group.pull("small"))
    group.scatter("xs", range(100)); group.execute("s = [sum(xs)]"); print(sum(group.gather("s")))
    reference = mesh["k0"].ref("large")
    print(reference.sum())
"""
    shown = run(program).splitlines()
    assert shown[1:] == ["4950", "499999500000"]
    assert shown[0].count("499999500000") == 2


def test_a_cell_is_interrupted_and_a_kernel_restarted() -> None:
    program = """
with pk.local(1) as mesh:
    kernel = mesh["k0"]
    cell = kernel.submit("print('on', flush=True)\\nwhile True: pass")
    next(event for event in cell.follow() if event.kind == "output")
    print(kernel.interrupt().outcome, cell.reply(timeout=10, check=False).ename)
    kernel.execute("x = 1")
    before = kernel.instance
    kernel.restart()
    print(mesh["k0"].instance != before, mesh["k0"].execute("x", check=False).ename)
    mesh["k0"].submit("while True: pass")
    mesh["k0"].restart(force=True)
    print(mesh["k0"].execute("1 + 1").result)
    (more,) = mesh.start(1)
    print(more.execute("2 + 2").result)
    mesh.stop([more.name])
    print(mesh.names)
"""
    assert run(program).splitlines() == ["interrupted KeyboardInterrupt", "True NameError", "2", "4", "['k0']"]


def test_a_kernel_that_dies_is_told_of_and_replaced() -> None:
    program = """
with pk.local(1) as mesh:
    try:
        mesh["k0"].execute("import os; os.abort()")
    except pk.errors.KernelDiedError as error:
        print(error.cause, error.last_cell["source"])
    print(mesh["k0"].execute("1 + 1").result)
"""
    assert run(program).splitlines() == ["killed by SIGABRT (Aborted) import os; os.abort()", "2"]


def test_a_kernel_preloads_what_lies_beside_the_mesh_and_says_what_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 42")
    program = f"""
import os
os.chdir({str(tmp_path)!r})
with pk.local([pk.KernelSpec(name="k", preload=("mine",))]) as mesh:
    print(mesh["k"].execute("import sys; sys.modules['mine'].x").result)
    try:
        mesh.start([pk.KernelSpec(name="bad", preload=("mine", "numpyy"))])
    except pk.errors.HostError as error:
        print(error)
"""
    shown = run(program).splitlines()
    assert shown[0] == "42"
    assert shown[1].endswith("preloading mine, numpyy failed: ModuleNotFoundError: No module named 'numpyy'")


def test_what_cannot_be_had_is_said_in_one_line() -> None:
    program = """
with pk.local(1) as mesh:
    mesh["k0"].submit("sum(range(10**10))")
    try:
        while mesh["k0"].describe(timeout=0.3):
            pass
    except pk.ReplyTimeoutError:  # now it holds the interpreter
        pass
    receipt = mesh["k0"].interrupt(escalate=False)
    print(receipt.outcome, "-", receipt.detail)
    mesh["k0"].restart(force=True)
    print(mesh["k0"].execute("1 + 1").result)
    try:
        mesh.start([pk.KernelSpec(name="small", memory_bytes=1 << 30)])
    except pk.errors.PyrokernelError as error:
        print(error)
"""
    shown = run(program).splitlines()
    assert shown[0].startswith(
        "unanswered - its host cannot help: here only a kernel itself can interrupt its cell; restart"
    )
    assert shown[1] == "2"
    assert shown[2].endswith("this system limits no memory; start it without `memory_bytes`")
    assert len(shown) == 3


def test_the_shared_state_is_shared() -> None:
    program = """
with pk.local(2) as mesh:
    shared = mesh.shared
    shared.m["a"] = {"b": 1}
    shared.m["large"] = b"x" * 5_000_000
    print(mesh[:].execute("shared.m['a']['b'], len(shared.m['large'])")["k1"].result)
    mesh["k0"].execute("shared.m['c'] = bytes(200_000)")
    print(len(shared.m["c"]), sorted(shared.m))
    with shared.lock("l"):
        print(shared.get("a"))
"""
    assert run(program).splitlines() == ["(1, 5000000)", "200000 ['a', 'c', 'large']", "{'b': 1}"]


def test_a_mesh_is_served_shown_and_stopped(served: Any) -> None:
    assert served.cli("run", "-c", "6 * 7", "-k", "k0").stdout.strip() == "42"
    shown = served.cli("ps").stdout
    assert "k0" in shown
    assert "k1" in shown
    typed = subprocess.run(
        [sys.executable, "-m", "pyrokernel", "shell"],
        input="40 + 2\n:to k1\nx = 5\nx\n",
        env=served.environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "42" in typed.stdout, typed.stderr
    done = served.cli("stop", "--force")
    assert done.returncode == 0
    assert not list(Path(served.places["runtime_dir"]).glob("*/*.sock"))


def test_the_state_outlives_its_process_and_its_mesh(served: Any) -> None:
    served.cli("state", "set", "a", "1")
    served.cli("stop", "--force")
    served.serve("-n", "1")
    assert served.cli("state", "get", "a").stdout.strip() == "1"


def test_the_next_host_adopts_the_kernels(served: Any) -> None:
    served.cli("run", "-c", "x = 5")
    host = served.host_pid()
    os.kill(host, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{host}/cmdline").exists() or not Path(f"/proc/{host}/cmdline").read_bytes())
    served.serve()
    assert served.cli("run", "-c", "x", "-k", "k1").stdout.strip() == "5"
