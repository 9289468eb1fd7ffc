"""`pyrokernel serve` says at once what did not go well, and `doctor` what mends it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from waiting import wait_until

from pyrokernel.cli import ExitCode

Served = Any  # tests/process/conftest.py


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """An init file that raises in its third line."""
    path = tmp_path / "broken.py"
    path.write_text("import os\ndef f():\n    return nme\nf()\n")
    return path


def foreground(served: Served, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pyrokernel", "serve", *arguments],
        env={**served.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_told(line: str, name: str, path: Path) -> None:
    assert line.startswith(f"pyrokernel: {name}: the init file failed: NameError: name 'nme' is not defined")
    assert f"({path}, line 3)" in line
    assert f"pyrokernel logs {name}" in line
    assert line.rstrip().endswith(f"pyrokernel restart {name}")


def test_an_init_file_that_fails_is_told_at_once_and_the_kernel_runs(served: Served, broken: Path) -> None:
    done = served.cli("serve", "--name", "joined", "--init", str(broken), check=False)
    assert done.returncode == ExitCode.CODE_RAISED
    check_told(done.stderr.splitlines()[-1], "joined", broken)
    served.cli("stop")
    done = served.cli("serve", "--detach", "--name", "detached", "--init", str(broken), check=False)
    assert done.returncode == ExitCode.CODE_RAISED
    check_told(done.stderr, "detached", broken)
    assert served.cli("run", "-k", "detached", "-c", "f.__name__").stdout == "'f'\n"
    served.cli("stop")
    with foreground(served, "--name", "front", "--init", str(broken)) as host:
        assert host.stderr
        check_told(host.stderr.readline(), "front", broken)
        served.cli("stop")
        assert host.wait(20) == ExitCode.OK


def test_kernels_that_fail_alike_are_told_in_one_line(served: Served, broken: Path) -> None:
    done = served.cli("serve", "--name", "a0", "--name", "a1", "--init", str(broken), check=False)
    (line,) = [line for line in done.stderr.splitlines() if "init file" in line]
    assert line.startswith("pyrokernel: a0-a1: ")
    assert line.endswith("pyrokernel restart a0 a1")


def test_a_protected_kernel_whose_init_file_fails_is_restarted_by_the_advice(served: Served, broken: Path) -> None:
    done = served.cli("serve", "--name", "camera", "--init", str(broken), "--protected", check=False)
    advice = "pyrokernel restart camera --force"
    assert done.stderr.splitlines()[-1].endswith(advice)
    report = json.loads(served.cli("doctor", "--json", check=False).stdout)
    (finding,) = [finding for finding in report["findings"] if finding["about"] == "kernel camera"]
    assert finding["remedy"].endswith(advice)
    served.cli(*advice.split()[1:])


def test_an_init_file_of_a_mesh_file_is_told_or_refused(
    places: dict[str, str], served_at: Callable[..., Served], broken: Path
) -> None:
    served = served_at(places)
    file = broken.with_name("lab.toml")
    file.write_text('[[kernel]]\nname = "camera"\ninit = "gone.py"\n')
    done = served.cli("serve", str(file), check=False)
    assert done.returncode == ExitCode.USAGE
    assert str(broken.with_name("gone.py")) in done.stderr
    file.write_text('[[kernel]]\nname = "camera"\ninit = "broken.py"\nidle_stop = "2h"\n')
    done = served.cli("serve", str(file), check=False)
    assert done.returncode == ExitCode.CODE_RAISED
    check_told(done.stderr.splitlines()[-1], "camera", broken)


def test_an_init_file_that_goes_on_is_said_to(served: Served, tmp_path: Path) -> None:
    from pyrokernel.client.inits import await_init
    from pyrokernel.front.exits import ExitCode as Code
    from pyrokernel.front.inits import report_inits

    path = tmp_path / "slow.py"
    path.write_text("import time\nprint('on', flush=True)\ntime.sleep(60)\n")
    with foreground(served, "--name", "slow", "--init", str(path)) as joining, served.connect() as mesh:
        wait_until(lambda: "slow" in mesh.names)
        link = mesh["slow"].link
        assert await_init(link, 0.0) is None
        assert report_inits([link], mesh.settings, timeout=0.1) is Code.OK
        served.cli("interrupt", "slow")
        assert joining.stderr
        assert "KeyboardInterrupt" in joining.communicate(timeout=20)[1]


def test_doctor_says_one_thing_about_a_failed_init_file_and_how_to_mend_it(served: Served, broken: Path) -> None:
    served.cli("serve", "--name", "camera", "--init", str(broken), check=False)
    report = json.loads(served.cli("doctor", "--json", check=False).stdout)
    (finding,) = [finding for finding in report["findings"] if finding["about"] == "kernel camera"]
    assert finding["level"] == "wrong"
    assert f"NameError: name 'nme' is not defined ({broken}, line 3)" in finding["text"]
    assert finding["remedy"] == "correct the file, then: pyrokernel restart camera"
    broken.write_text("nme = 1\n")
    served.cli("restart", "camera")
    wait_until(lambda: served.cli("doctor", check=False).returncode == ExitCode.OK)


def test_doctor_lists_the_other_meshes_of_this_machine(served: Served) -> None:
    done = served.cli("doctor", "--json", "--mesh", "elsewhere")
    (finding,) = [finding for finding in json.loads(done.stdout)["findings"] if finding["about"] == "other mesh"]
    assert finding["level"] == "note"
    assert "'default' runs here too, with 2 kernels: k0-k1" in finding["text"]
    assert finding["text"].endswith("see: pyrokernel ps")


@pytest.mark.parametrize("how", [("--detach",), ()])
def test_a_module_that_cannot_be_preloaded_is_named_and_serve_ends(served: Served, how: tuple[str, ...]) -> None:
    for join in (True, False):
        done = served.cli("serve", *how, "--name", "k9", "--preload", "json,numpyy", check=False, timeout=30)
        assert done.returncode == ExitCode.FAILED
        line = done.stderr.splitlines()[-1]
        assert "No module named 'numpyy'" in line
        assert "correct --preload" in line
        assert len(done.stderr.splitlines()) == 1 + join
        served.cli("stop", check=False)


def test_what_ctrl_c_advises_reaches_the_same_mesh(served: Served) -> None:
    with foreground(served, "--mesh", "fg", "-n", "1") as host:
        assert host.stdout
        assert any("Ctrl-C" in line for line in iter(host.stdout.readline, ""))
        host.send_signal(signal.SIGINT)
        out, _ = host.communicate(timeout=20)
    served.cli("--mesh", "fg", "stop")
    assert "`pyrokernel --mesh fg serve`" in out
    assert "`pyrokernel --mesh fg stop`" in out


def test_a_host_that_runs_and_does_not_listen_is_not_said_to(served: Served, tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    served.environ.update(environ)
    served.cli("certs", "init")
    done = served.cli("serve", "--detach", "--listen", "127.0.0.1:9", check=False)
    assert done.returncode == ExitCode.USAGE
    assert (
        "lets other machines in at no address, and not 127.0.0.1:9; to change that, end it alone (kill" in done.stderr
    )
    assert "other machines reach it" not in done.stdout + done.stderr


def test_a_host_that_listens_on_loopback_does_not_invite_other_machines(served: Served, tmp_path: Path) -> None:
    served.environ["XDG_CONFIG_HOME"] = str(tmp_path)
    served.cli("certs", "init", "--name", "127.0.0.1")
    at = f"127.0.0.1:{free_port()}"
    done = served.cli("--mesh", "near", "serve", "--detach", "--listen", at)
    served.cli("--mesh", "near", "stop")
    assert f"programs of this machine reach it at {at} by certificate; other machines do not" in done.stdout
    assert "--join" not in done.stdout


def test_a_host_that_runs_and_is_in_another_mesh_is_not_taken_for_one_of_this(served: Served, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyrokernel", "serve", "--detach"],
        env={**served.environ, "PYROKERNEL_NS": f"./u:{tmp_path}/ns.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.USAGE
    assert "is in the mesh of the name server" in done.stderr
    assert "For more kernels there, leave that out" in done.stderr
