"""A process that acts for somebody: every connection of it is theirs, and there is no way back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from shells import run

import pyrokernel as pk
from pyrokernel.errors import SettingsError
from pyrokernel.roles import Role
from pyrokernel.settings import Settings
from pyrokernel.wire import introduction
from pyrokernel.wire.trust import account

ACCOUNT = account(os.getuid())


def act(mesh: pk.Mesh, code: str, act_for: str = "ana:user") -> str:
    """Run Python in a process that acts for somebody; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", f"import pyrokernel as pk\nmesh = pk.connect()\n{code}"],
        env={**os.environ, **mesh.settings.to_env(), "PYROKERNEL_ACT_FOR": act_for},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def authors(kernel: pk.Kernel) -> dict[str, str]:
    """Return the authors of cells by their source."""
    return {cell["source"]: cell["author"] for cell in kernel.cells()}


def test_cells_and_calls_are_of_whom_the_process_acts_for(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    act(mesh, "mesh['k0'].execute('by_ana = 1'); mesh['k0'].call('len', [1])")
    kernel.execute("by_account = 2")
    found = authors(kernel)
    assert found["by_ana = 1"] == "ana"
    assert found["len(...)"] == "ana"
    assert found["by_account = 2"] == ACCOUNT


def test_what_it_writes_to_the_shared_state_is_theirs_and_its_own_to_load(mesh: pk.Mesh) -> None:
    shown = act(
        mesh,
        "mesh.shared.m['by/ana'] = complex(1, 2); print(mesh.shared.m['by/ana'])\n"
        "with mesh.shared.lock('l'): print(mesh.shared.locks())",
    )
    assert shown.startswith("(1+2j)")
    assert "'author': 'ana'" in shown or "author='ana'" in shown
    (entry,) = mesh.shared.entries("by/")
    assert entry.author == "ana"
    mesh.shared.clear()


def test_what_their_cell_writes_says_so_beside_the_account_and_the_kernel(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    act(mesh, "mesh['k0'].execute('shared.m[\\'cell\\'] = 1')")
    kernel.execute("shared.m['own'] = 1")
    found = {entry.key: (entry.author, entry.via) for entry in mesh.shared.entries("")}
    assert found == {"cell": (ACCOUNT, "k0, ana"), "own": (ACCOUNT, "k0")}
    mesh.shared.clear()


def test_and_so_does_each_call_of_their_job(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    kernel.execute("def write(key): shared.m[key] = 1")
    act(mesh, "list(mesh[['k0']].map('write', ['a', 'b', 'c']))")
    assert {entry.via for entry in mesh.shared.entries("")} == {"k0, ana"}
    mesh.shared.clear()


def test_who_acts_for_somebody_cannot_say_to_be_somebody_else(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    act(mesh, "pk.connect(act_for='')['k0'].execute('still_ana = 1')")
    assert authors(kernel)["still_ana = 1"] == "ana"
    act(
        mesh,
        "try: pk.connect(act_for='bob:admin')\nexcept pk.errors.SettingsError: pass\nelse: raise SystemExit(1)",
    )


def test_neither_kernels_nor_hosts_inherit_it() -> None:
    assert Settings(act_for="ana:user").to_env()["PYROKERNEL_ACT_FOR"] == ""


@pytest.mark.parametrize("text", ["ana", "ana:", ":user", "ana:root", "a na:user", "ana\x1b[2J:user"])
def test_a_wrong_act_for_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        Settings(act_for=text)


def test_one_process_acts_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introduction, "_ours", introduction._Ours())
    assert introduction.said_of_us() == b""
    introduction.act_for("ana", Role.USER)
    introduction.act_for("ana", Role.USER)
    with pytest.raises(SettingsError, match="acts for ana:user, and cannot act for ana:admin too"):
        introduction.act_for("ana", Role.ADMIN)
    assert introduction.acts_for() == "ana"


def test_a_shell_acts_for_whom_its_command_line_names(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    done = run(mesh, "k0", "--act-for", "bob:user", "-c", "by_bob = 3")
    assert done.returncode == 0, done.stderr
    assert authors(kernel)["by_bob = 3"] == "bob"


def test_who_acts_for_somebody_starts_no_mesh(tmp_path: object) -> None:
    environ = {**os.environ, "PYROKERNEL_RUNTIME_DIR": f"{tmp_path}/r", "PYROKERNEL_STATE_DIR": f"{tmp_path}/s"}
    command = [sys.executable, "-m", "pyrokernel", "shell", "--act-for", "bob:user", "-c", "1"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "start it" in done.stderr
