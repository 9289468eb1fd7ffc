"""How a host begins: before it is told what to do, beside its template, and what of it a kernel has."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from served import PORTABLE
from waiting import wait_until

import pyrokernel as pk
from pyrokernel import systems
from pyrokernel.again import Child
from pyrokernel.client.starting import StartingHost


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_host_that_is_told_nothing_ends_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    host = StartingHost(private=True)
    descriptor, host._told = host._told, -1
    os.close(descriptor)
    assert host.process.wait(30) == 0
    host.give_up()
    assert capfd.readouterr() == ("", "")


def test_a_mesh_with_a_setting_that_cannot_be_leaves_no_process_and_no_descriptor() -> None:
    before = children(), set(os.listdir("/proc/self/fd"))
    with pytest.raises(pk.SettingsError, match="unknown setting"):
        pk.local(1, no_such_setting=1)
    assert (children(), set(os.listdir("/proc/self/fd"))) == before


@pytest.mark.parametrize(
    "where", [(StartingHost, "_read_line"), (pk.Mesh, "hosts"), (pk.Mesh, "_hang_up"), (Child, "wait")]
)
def test_ctrl_c_in_the_start_or_end_of_a_mesh_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]
) -> None:
    """As long as this process goes on, not only until its end: no process, ended or not, and no directory."""
    before, pressed = children(), []
    there = getattr(*where)

    def press(*arguments: Any) -> Any:
        if not pressed:
            pressed.append(True)
            raise KeyboardInterrupt
        return there(*arguments)

    monkeypatch.setattr(*where, press)
    with tempfile.TemporaryDirectory(prefix="pk-", dir="/tmp") as root:  # where nobody else has anything
        monkeypatch.setattr(systems, "temporary_root", lambda: root)
        with pytest.raises(KeyboardInterrupt):
            pk.local(1).close()
        assert (children(), os.listdir(root)) == (before, [])


@pytest.mark.parametrize("after", [0.05, 0.15, 0.3])
def test_ctrl_c_while_a_mesh_starts_leaves_no_process(after: float) -> None:
    before = children()

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGALRM, press)
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        pk.local(1).close()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGALRM, handler)
    wait_until(lambda: children() <= before)


def test_a_host_that_dies_at_once_is_an_error_with_its_code() -> None:
    host = StartingHost(detached=True)
    os.kill(host.process.pid, signal.SIGKILL)
    with pytest.raises(pk.HostError, match="ended at its start with code -9"):
        host.report(30)
    host.give_up()


def test_a_detached_host_and_its_kernels_keep_nothing_open_that_was_handed_down(
    places: dict[str, str],
) -> None:
    """As of a test runner that waits for the end of a pipe which it has open as 3."""
    reading, handed_down = os.pipe()
    os.set_inheritable(handed_down, True)
    try:
        environ = {**os.environ, **{f"PYROKERNEL_{name.upper()}": value for name, value in places.items()}}
        subprocess.run(
            [sys.executable, "-m", "pyrokernel", "serve", "--detach"],
            env=environ, pass_fds=[handed_down], check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(handed_down)
        assert select.select([reading], [], [], 20)[0], "somebody holds it"
        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)
        subprocess.run([sys.executable, "-m", "pyrokernel", "stop"], env=environ, check=True, stdout=subprocess.DEVNULL)


def test_a_kernel_has_the_descriptors_of_a_kernel_alone(kernel: pk.Kernel) -> None:
    """The host's pipe to its client among them would keep the client from seeing that the host is gone."""
    mine = {os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{number}") or os.path.islink(f"/proc/self/fd/{number}")}  # fmt: skip
    pipes = {name for name in mine if name.startswith("pipe:")}
    shared = kernel.execute(
        "import os\n[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') "
        "if os.path.islink(f'/proc/self/fd/{n}')]"
    ).result
    assert len(pipes & set(shared)) <= 1, "only the lifeline is shared"


def test_a_new_kernel_has_not_loaded_what_few_kernels_need(mesh: pk.Mesh) -> None:
    """Each module that kernels load after their birth costs each of them anew, in time and in memory."""
    (fresh,) = mesh.start(1, name="fresh")
    try:
        loaded = set(fresh.execute("import sys; list(sys.modules)").result)
        assert not loaded & {"pyrokernel.client.mesh", "ctypes", "tempfile", "importlib.metadata", "subprocess"}
        assert PORTABLE or "cloudpickle" in loaded, "what the first call of a function takes is there from the template"
        assert fresh.execute("shared.m.get('nothing')").result is None
    finally:
        mesh.stop(["fresh0"])
