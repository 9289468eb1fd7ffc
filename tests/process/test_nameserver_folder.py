"""The folder nameserver/ keeps its word: commands of the README run, units and containers are ones that can start."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nameservers import NameServerProcess, stock_environ
from ports import free_port
from waiting import wait_until

from pyrokernel.cli import build_parser
from pyrokernel.host.meshfile import load_mesh_file
from pyrokernel.wire.remote import Credentials

FOLDER = Path(__file__).parents[2] / "nameserver"
SYSTEMD = FOLDER / "systemd"
README = (FOLDER / "README.md").read_text()
SERVICES = sorted(path.name for path in SYSTEMD.glob("*.service"))
PREFIX = "/opt/pyrokernel/bin/"

STAYS = re.compile(r"(?:^|&& |; )(?:pyro5-ns|pyrokernel nameserver) -")
"""A block that ends with a name server in the foreground: the reader opens another terminal for what follows."""

SUDO = """#!{python}
# Does below {root} what would need root elsewhere, and checks what it cannot do.
import os, pathlib, subprocess, sys
root = pathlib.Path({root!r})
words = [str(root) + word if word.startswith(("/etc/", "/opt/")) else word for word in sys.argv[1:]]
if words[0] == "install":
    while "-o" in words:
        del words[words.index("-o") : words.index("-o") + 2]
    target = pathlib.Path(words[-1])
    if "-d" not in words:
        assert target.parent.is_dir(), target
    subprocess.run(words, check=True)
elif words[0] == "systemctl":
    for unit in words[3:]:
        name, at, instance = unit.partition("@")
        assert (root / "etc/systemd/system" / (name + "@.service" if at else unit)).exists(), unit
else:
    assert words[0] in ("python3", "useradd", "runuser", str(root / "opt/pyrokernel/bin/pip")), words
"""


def sections() -> dict[str, list[str]]:
    """Return the blocks of shell of each section of the README."""
    found = {}
    for part in re.split(r"^(?=#+ )", README, flags=re.MULTILINE):
        heading = part.partition("\n")[0].lstrip("# ")
        found[heading] = re.findall(r"^```sh\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    return {heading: blocks for heading, blocks in found.items() if blocks}


SECTIONS = sections()
FIRST, *OTHERS = SECTIONS


class Terminal:
    """Somebody who follows the README in a home directory of their own."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.folder = folder
        self.port = str(free_port())
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYROKERNEL_", "PYRO_", "XDG_"))
        }
        self.environ = {
            **clean,
            "HOME": str(home),
            "PATH": f"{home / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYROKERNEL_RUNTIME_DIR": str(home / "run"),
        }
        self.begun: list[subprocess.Popen[str]] = []
        self.said = ""

    def follow(self, block: str) -> None:
        """Do what a block of the README says."""
        block = re.sub(r"\b9090\b", self.port, block)
        if STAYS.search(block.splitlines()[-1]):
            self.open(block)
            return
        done = subprocess.run(
            ["bash", "-ec", block], env=self.environ, cwd=self.folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        # Pyro's own tool ends with 0 whatever became of it.
        assert "Error" not in done.stdout + done.stderr
        self.said = done.stdout

    def open(self, block: str) -> None:
        """Start a name server in a terminal of its own, and wait until it answers."""
        self.begun.append(
            subprocess.Popen(
                ["bash", "-ec", block], env=self.environ, cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )
        )  # fmt: skip
        path = re.search(r'-u "\$HOME/([\w/.]+)"', block)
        where = [f"{self.environ['HOME']}/{path[1]}"] if path else []
        if not path or self.port in block:
            where.append("")  # other machines are let in by another process, which comes later
        wait_until(lambda: all(map(self._answers, where)), timeout=30)

    def _answers(self, path: str) -> bool:
        process = self.begun[-1]
        if process.poll() is not None:
            assert process.stdout is not None
            pytest.fail(process.stdout.read())
        with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as probe:
            target: Any = path or ("127.0.0.1", int(self.port))
            return probe.connect_ex(target) == 0

    def close_last(self) -> None:
        """End the name server that was opened last, and all it has begun."""
        process = self.begun.pop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=20)


@pytest.fixture
def terminal(places: dict[str, str], tmp_path: Path) -> Iterator[Terminal]:
    folder = tmp_path / "nameserver"
    shutil.copytree(FOLDER, folder)
    found = Terminal(Path(places["runtime_dir"]).parent, folder)
    yield found
    while found.begun:
        found.close_last()


def test_the_readme_has_blocks_in_each_of_its_sections() -> None:
    assert OTHERS == [
        "Which one: ours or `pyro5-ns`", "Across machines", "As a service", "Backup and restore", "Monitoring",
    ]  # fmt: skip


def test_the_first_screen_of_the_readme_works(terminal: Terminal) -> None:
    for block in SECTIONS[FIRST]:
        terminal.follow(block)
    assert "pyrokernel.kernel.k0" in terminal.said or "here" in terminal.said


def test_a_stock_name_server_as_the_readme_has_it(terminal: Terminal) -> None:
    for block in SECTIONS["Which one: ours or `pyro5-ns`"]:
        terminal.follow(block)


def test_across_machines_as_the_readme_has_it(terminal: Terminal) -> None:
    if "certs" not in build_parser().commands():
        pytest.skip("this version has no command certs")
    pytest.importorskip("cryptography", reason="certificates are made with cryptography: pip install cryptography")
    for block in SECTIONS["Across machines"]:
        if "pyro5-ns " in block:
            terminal.close_last()  # both want the port
        terminal.follow(block)
        if "list" in block:
            assert "Pyro.NameServer" in terminal.said


def test_installing_services_as_the_readme_has_it(terminal: Terminal) -> None:
    root = Path(terminal.environ["HOME"]) / "root"
    (root / "etc/systemd/system").mkdir(parents=True)
    shim = Path(terminal.environ["HOME"]) / "bin" / "sudo"
    shim.parent.mkdir()
    shim.write_text(SUDO.format(python=sys.executable, root=str(root)))
    shim.chmod(0o755)
    (terminal.folder / "names").mkdir()
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (terminal.folder / "names" / name).touch()
    for block in SECTIONS["As a service"]:
        terminal.follow(block)
    installed = {path.name for path in (root / "etc/systemd/system").iterdir()}
    assert installed == {path.name for path in SYSTEMD.glob("*.*er*")} - {"pyro5-ns.service"}


def test_backup_restore_and_monitoring_as_the_readme_has_them(terminal: Terminal) -> None:
    serving = SECTIONS[FIRST][0]
    terminal.follow(serving)
    for block in SECTIONS["Monitoring"]:
        terminal.follow(block)
    textfile = Path(terminal.environ["HOME"]) / "textfile" / "names.prom"
    assert "pyrokernel_nameserver_up 1" in textfile.read_text()
    for block in SECTIONS["Backup and restore"]:
        if "restore" in block:
            terminal.close_last()
        terminal.follow(block)
    terminal.follow(serving)
    terminal.follow(SECTIONS["Monitoring"][0])


# Units


def entries(unit: str, key: str) -> list[str]:
    """Return the values of a key of a unit."""
    return re.findall(rf"^{key}=(.*)$", (SYSTEMD / unit).read_text(), re.MULTILINE)


def command(unit: str, key: str = "ExecStart") -> list[str]:
    """Return a command of a unit, without its shell and with dollars and percents as the shell gets them."""
    (line,) = entries(unit, key)
    words = shlex.split(line.replace("%%", "%").replace("$$", "$"))
    return shlex.split(words[2].removeprefix("exec ")) if words[0] == "/bin/sh" else words


def test_commands_of_units_are_ones_that_there_are() -> None:
    for unit in SERVICES:
        for key in ("ExecStart", "ExecStop"):
            if entries(unit, key):
                program, *words = command(unit, key)
                assert program.startswith(PREFIX)
                if program == PREFIX + "pyrokernel":
                    build_parser().parse_args(words)
                else:
                    assert program == PREFIX + "pyro5-ns"


def test_the_mesh_file_beside_the_template_can_be_served() -> None:
    settings, specs = load_mesh_file(SYSTEMD / "ana.toml")
    assert set(settings) == {"ns", "host", "listen", "host_certs"}
    assert len(specs) == 4


@pytest.mark.parametrize("unit", ["pyrokernel-nameserver.service", "pyro5-ns.service"])
def test_the_command_of_a_unit_serves(unit: str, places: dict[str, str]) -> None:
    """With folders, port and account of the test's own; all else is as in the unit."""
    pytest.importorskip("cryptography", reason="certificates are made with cryptography: pip install cryptography")
    from certificates import Authority

    folder, port = Path(places["runtime_dir"]).parent, str(free_port())
    authority = Authority(folder / "issued")
    identity = authority.identity("host", "names", ["localhost", "127.0.0.1"])
    program, *words = command(unit)
    line = shlex.join(words).replace("0.0.0.0", "127.0.0.1").replace("9090", port)
    line = re.sub(r"/(run|var/lib)/pyrokernel-names", str(folder / "names"), line)
    (folder / "names").mkdir(mode=0o700)
    module = "pyrokernel" if program.endswith("pyrokernel") else "Pyro5.nameserver"
    environ = {**stock_environ(identity), "PYROKERNEL_HOST_CERTS": str(identity)}
    server = NameServerProcess(
        ["-m", module, *shlex.split(line)],
        f"127.0.0.1:{port}",
        folder / "log",
        environ=environ if module != "pyrokernel" else {"PYROKERNEL_HOST_CERTS": str(identity)},
        credentials=Credentials(authority.identity("user", "ana")),
    )
    try:
        assert (folder / "names" / "names.sqlite").exists()
    finally:
        server.end()


@pytest.fixture
def analysed(tmp_path: Path) -> Path:
    """A folder with the units, whose programs exist on every machine."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    for path in SYSTEMD.iterdir():
        (tmp_path / path.name).write_text(re.sub(rf"{PREFIX}(pyrokernel|pyro5-ns)\b", "/bin/true", path.read_text()))
    return tmp_path


def analyse(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *words], cwd=cwd, capture_output=True, text=True, timeout=50, check=False
    )


def test_systemd_finds_nothing_wrong_with_the_units(analysed: Path) -> None:
    units = [str(path) for path in sorted(analysed.iterdir()) if path.suffix in (".service", ".timer")]
    done = analyse("verify", "--man=no", *units, cwd=analysed)
    said = [
        line for line in done.stderr.splitlines() if any(Path(unit).name.partition("@")[0] in line for unit in units)
    ]
    assert said == []


@pytest.mark.parametrize(("unit", "most"), [(unit, 30 if "@" in unit else 20) for unit in SERVICES])
def test_systemd_finds_the_units_hardened(analysed: Path, unit: str, most: int) -> None:
    """Tenths of its scale, on which 100 is no protection at all."""
    done = analyse("security", "--offline=true", f"--threshold={most}", unit, cwd=analysed)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze does not look at files")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


# Containers


@pytest.fixture
def compose() -> Any:
    yaml = pytest.importorskip("yaml", reason="the compose file is read with PyYAML: pip install pyyaml")
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


def test_commands_of_the_compose_file_are_ones_that_there_are(compose: Any) -> None:
    for name, service in compose["services"].items():
        arguments = build_parser().parse_args(service["command"])
        assert arguments.subcommand == ("nameserver" if name == "names" else "serve")
    check = compose["services"]["names"]["healthcheck"]["test"]
    assert check[:2] == ["CMD", "pyrokernel"]
    assert build_parser().parse_args(check[2:]).action == "status"


def test_services_of_the_compose_file_fit_together(compose: Any) -> None:
    services = compose["services"]
    names = build_parser().parse_args(services["names"]["command"])
    assert set(compose["volumes"]) == set(services)
    for name, service in services.items():
        assert service["hostname"] == name
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert service["environment"]["PYROKERNEL_HOST_CERTS"] == service["volumes"][0].split(":")[1]
        if name != "names":
            assert service["environment"]["PYROKERNEL_NS"] == f"names:{names.port}"
            listen = build_parser().parse_args(service["command"]).listen
            assert service["ports"] == [f"{listen.rpartition(':')[2]}:{listen.rpartition(':')[2]}"]


def test_the_image_is_made_of_what_there_is(compose: Any) -> None:
    common = compose["x-common"]["build"]
    file = FOLDER / common["context"] / common["dockerfile"]
    text = file.read_text()
    extra = re.search(r'"/src\[(\w+)\]"', text)
    assert extra
    assert f"{extra[1]} = [" in (FOLDER.parent / "pyproject.toml").read_text()
    assert build_parser().parse_args(["nameserver", "status"]).action == "status"
