"""`pyrokernel plugins`, subcommands of plugins, and a package from `plugins new` to its upgrade."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.cli import ExitCode

Served = Any  # tests/process/conftest.py

GOOD = '''
from pyrokernel import hookimpl

def ping() -> str:
    """Answer."""
    return "pong"

@hookimpl
def pyrokernel_register_commands(register):
    register(ping)

@hookimpl
def pyrokernel_register_subcommands(register):
    def configure(parser):
        parser.add_argument("who", help="whom")
        parser.add_argument("--code", type=int, default=0, help="exit code")

    def run(args, settings):
        if args.code == 99:
            raise ZeroDivisionError("the plugin's own")
        print("hi", args.who, settings.mesh)
        return args.code

    register("greet-all", run, help="greet them all", configure=configure)
    register("ps", run, help="take a name of pyrokernel's")
    register("clash", run, configure=lambda parser: parser.add_argument("--mesh"))
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plugins folder with one that works and one that does not."""
    path = tmp_path / "plugins"
    path.mkdir()
    (path / "pyrokernel_good.py").write_text(GOOD)
    (path / "pyrokernel_bad.py").write_text("print('noise')\nraise ValueError('no luck')\n")
    return path


@pytest.fixture
def cli(places: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line where no mesh runs."""
    variables = {f"PYROKERNEL_{name.upper()}": value for name, value in places.items()}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pyrokernel", *words],
            env={**os.environ, **variables}, capture_output=True, text=True, timeout=40, check=False, cwd=tmp_path,
        )  # fmt: skip

    return run


def test_without_a_mesh_they_are_loaded_here(cli: Callable[..., Any], folder: Path) -> None:
    done = cli("plugins", "--plugins-dir", str(folder))
    header, bad, good, *problems = done.stdout.splitlines()
    assert header.split()[:3] == ["NAME", "STATE", "COMMANDS"]
    assert bad.split()[:2] == ["bad", "failed"]
    assert good.split()[:3] == ["good", "loaded", "ping"]
    (problem,) = problems
    assert problem.startswith("bad: ValueError: no luck (")
    assert "no mesh 'default' runs" in done.stderr
    found = json.loads(cli("plugins", "--json", "--plugins-dir", str(folder), "--no-plugin", "bad").stdout)
    assert [info["name"] for info in found[""]] == ["good"]


def test_kernels_tell_of_theirs_and_doctor_of_those_that_failed(
    served_at: Callable[..., Served], places: dict[str, str], folder: Path
) -> None:
    served = served_at(places, "-n", "2", "--plugins-dir", str(folder))
    done = served.cli("plugins")
    assert done.stdout.splitlines()[-1].startswith("bad: ValueError: no luck (")
    assert served.cli("call", "-k", "k1", "ping").stdout == "'pong'\n"
    doctor = served.cli("doctor", check=False)
    assert doctor.returncode == ExitCode.UNWELL
    assert "bad: ValueError: no luck" in doctor.stdout
    served.stop()
    served.serve("--no-plugin", "bad", "--plugins-dir", str(folder), "--no-plugin", "other")
    assert [info["name"] for info in json.loads(served.cli("plugins", "--json").stdout)["k0"]] == ["good"]
    # What the host goes without, a fresh instance would go without.
    assert served.cli("plugins", "--plugins-dir", str(folder)).stderr == ""
    assert served.cli("doctor").returncode == ExitCode.OK


def test_subcommands_of_plugins_are_subcommands(cli: Callable[..., Any], folder: Path) -> None:
    at = ("--plugins-dir", str(folder))
    assert "greet-all" in cli(*at, "--help").stdout
    done = cli(*at, "greet-all", "Ada", "--code", "3", "--mesh", "lab")
    assert (done.stdout, done.returncode) == ("hi Ada lab\n", 3)
    assert "greet-all [-h]" in cli("greet-all", "--help", *at).stdout
    assert cli(*at, "greet-all").returncode == ExitCode.USAGE
    raised = cli(*at, "greet-all", "Ada", "--code", "99")
    assert raised.returncode == ExitCode.FAILED
    assert "in run" in raised.stderr
    assert raised.stderr.endswith("pyrokernel: greet-all of plugin 'good' raised ZeroDivisionError\n")


def test_a_word_that_nobody_knows_may_be_that_of_a_plugin_that_failed(cli: Callable[..., Any], folder: Path) -> None:
    done = cli("--plugins-dir", str(folder), "nosuch")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    bad, good, unknown = [line for line in done.stderr.splitlines() if line != "noise"]
    assert bad.startswith("pyrokernel: plugin 'bad': ValueError: no luck (")
    assert "'ps' is refused: pyrokernel has one of that name itself" in good
    assert unknown.startswith("pyrokernel: there is no command 'nosuch'")
    # Whoever knows what he wants does not wait for plugins, nor hear of them.
    assert "plugin" not in cli("--plugins-dir", str(folder), "ps").stderr
    assert cli("--plugins-dir", str(folder), "greet-all", "Ada").stderr == "noise\n"


def test_a_folder_that_is_not_there_is_said(cli: Callable[..., Any]) -> None:
    done = cli("plugins", "--plugins-dir", "nowhere")
    assert done.returncode == ExitCode.USAGE
    assert "there is no folder" in done.stderr


# A package, from its first file to its second version


@pytest.mark.parametrize("name", ["", "Ada", "1st", "a b", "class", "../x", "a--b", "remote-x", "remote_x"])
def test_bad_names_are_refused(cli: Callable[..., Any], tmp_path: Path, name: str) -> None:
    done = cli("plugins", "new", name)
    assert done.returncode == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


def test_a_new_plugin_works_and_passes_its_test(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("plugins", "new", "light-meter", "--dir", "made")
    package = tmp_path / "made" / "pyrokernel-light-meter"
    assert done.returncode == ExitCode.OK, done.stderr
    assert "install ./made/pyrokernel-light-meter" in done.stdout
    assert sorted(path.name for path in package.iterdir()) == [
        "README.md", "pyproject.toml", "pyrokernel_light_meter.py", "tests"
    ]  # fmt: skip
    again = cli("plugins", "new", "light_meter", "--dir", "made")
    assert again.returncode == ExitCode.USAGE
    assert "is there already" in again.stderr
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package)],
        env=os.environ, capture_output=True, text=True, timeout=50, check=False, cwd=package,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout
    assert "1 passed" in tested.stdout


@pytest.mark.timeout(180)
@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling, which builds it, is not there")
@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="pip is not there")
def test_a_package_installed_under_a_running_host_is_found_by_the_next_kernel(
    served_at: Callable[..., Served], places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but pip and a new kernel: no setting, no restart of the host; and the same for the next version."""
    python = _environment(tmp_path / "env")
    monkeypatch.setattr(sys, "executable", str(python))
    served = served_at(places, "--name", "before")
    assert "probe" not in served.cli("commands").stdout
    served.cli("plugins", "new", "probe", "--dir", str(tmp_path))
    package = tmp_path / "pyrokernel-probe"
    _pip(python, "wheel", "--wheel-dir", str(tmp_path / "wheels"), str(package))
    (wheel,) = (tmp_path / "wheels").iterdir()
    modules = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info" not in name]
    assert modules == ["pyrokernel_probe.py"]

    _pip(python, "install", str(wheel))
    served.cli("serve", "--detach", "--name", "first")
    assert served.cli("call", "-k", "first", "probe", "--who", "Ada").stdout == "'hello Ada, this is first'\n"
    told = served.cli("plugins")
    assert "before runs without probe 0.1.0, which is installed" in told.stderr
    assert "pyrokernel restart before" in told.stderr

    project = package / "pyproject.toml"
    project.write_text(project.read_text().replace('"0.1.0"', '"0.2.0"'))
    module = package / "pyrokernel_probe.py"
    module.write_text(module.read_text().replace('["hello"]', '["good day"]'))
    _pip(python, "install", str(package))
    served.cli("serve", "--detach", "--name", "second")
    assert served.cli("call", "-k", "second", "probe").stdout == "'good day world, this is second'\n"
    assert served.cli("call", "-k", "first", "probe").stdout == "'hello world, this is first'\n"
    told = served.cli("plugins")
    assert "first runs with probe 0.1.0, and 0.2.0 is installed" in told.stderr
    served.cli("restart", "first")
    assert served.cli("call", "-k", "first", "probe").stdout == "'good day world, this is first'\n"


def _environment(where: Path) -> Path:
    """Make an environment that finds what this one has, without anything to download; return its Python."""
    venv.create(where, with_pip=False, symlinks=True)
    (packages,) = (where / "lib").glob("python*/site-packages")
    root = str(Path(__file__).parents[2])
    packages.joinpath("ours.pth").write_text("\n".join([root, *(path for path in sys.path if path and path != root)]))
    return where / "bin" / "python"


def _pip(python: Path, *words: str) -> None:
    done = subprocess.run(
        [str(python), "-m", "pip", words[0], "--no-build-isolation", "--no-deps", "--no-index", *words[1:]],
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}, capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
