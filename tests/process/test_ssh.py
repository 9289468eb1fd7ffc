"""The simple way from afar: `ssh -t host pyrokernel shell`, and sshd that lets in the restricted shell alone.

With Debian's OpenSSH on both sides, in pseudo-terminals.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openssh
import pytest
from terminals import Terminal
from waiting import is_alive, wait_until

import pyrokernel as pk

pytestmark = [openssh.needs_server, pytest.mark.slow]

SHELL = f"{sys.executable} -I -m pyrokernel shell"
FORCED = """
ForceCommand {shell} --config {config} --restricted k0
DisableForwarding yes
PermitUserRC no
PermitUserEnvironment no
AcceptEnv {accepted}
"""
HOSTILE = {
    "PYROKERNEL_PLUGINS_DIR": "{folder}",
    "PYROKERNEL_CONFIG": "{folder}/other.toml",
    "PYROKERNEL_TRUST": "mallory",
    "PYROKERNEL_ACT_FOR": "mallory:admin",
    "PYROKERNEL_MESH": "another",
    "PYRO_NS_HOST": "./u:/tmp/another",
    "XDG_CONFIG_HOME": "{folder}",
    "PAGER": "touch {folder}/made",
    "EDITOR": "touch {folder}/made",
    "VISUAL": "touch {folder}/made",
    "SHELL": "/bin/touch",
    "LESSOPEN": "|touch {folder}/made",
    "PYTHONSTARTUP": "{folder}/pyrokernel_evil.py",
}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return openssh.make_key(tmp_path_factory.mktemp("keys") / "key")


@pytest.fixture
def config(mesh: pk.Mesh, tmp_path: Path) -> Path:
    """A configuration file that says which mesh; a server starts commands without variables."""
    return openssh.configured(tmp_path / "config.toml", mesh.settings.dump())


@pytest.fixture
def usual(key: Path) -> Iterator[int]:
    """The port of a server that lets its user do anything."""
    with openssh.serving(key, "") as port:
        yield port


@pytest.fixture
def forced(key: Path, config: Path) -> Iterator[int]:
    """The port of a server that lets its user do nothing but the restricted shell."""
    with openssh.serving(key, FORCED.format(shell=SHELL, config=config, accepted="LANG LC_*")) as port:
        yield port


@pytest.fixture
def careless(key: Path, config: Path, tmp_path: Path) -> Iterator[int]:
    """The same, of an operator who lets in variables that should stay outside."""
    accepted = " ".join([*HOSTILE, "SSH_ORIGINAL_COMMAND"])
    with openssh.serving(key, FORCED.format(shell=SHELL, config=config, accepted=accepted)) as port:
        yield port


def opened(port: int, key: Path, *words: str, options: tuple[str, ...] = ("-t",), **environ: str) -> Terminal:
    line = openssh.command(port, openssh.account(), key, *words, options=options)
    return openssh.terminal(line, **environ)


def done(
    port: int, key: Path, *words: str, text: str = "", options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    line = openssh.command(port, openssh.account(), key, *words, options=options)
    return subprocess.run(line, input=text, capture_output=True, text=True, timeout=40, check=False)


def test_a_shell_over_ssh_is_the_shell(usual: int, key: Path, config: Path, kernel: pk.Kernel) -> None:
    terminal = opened(usual, key, SHELL, "--config", str(config), "--no-startup", "k0")
    try:
        terminal.expect("k0>")
        terminal.enter("'größer → ' + str(6 * 7)")
        terminal.expect("\n'größer → 42'\n")
        kernel.execute("very_long_name = 41")
        terminal.type("very_l")
        terminal.tab("ong_name")
        terminal.enter(" + 1")
        terminal.expect("\n42\n")
        terminal.resize(50, 77)
        terminal.enter("here import os; os.get_terminal_size().columns")
        terminal.expect("\n77\n")
        terminal.enter("import time; time.sleep(60)")
        wait_until(lambda: kernel.describe()["running"])
        terminal.type("\x03")
        terminal.expect("k0: interrupted")
        terminal.enter("here exit(7)")
        assert terminal.wait() == 7
    finally:
        terminal.close()


def test_a_client_that_is_killed_leaves_no_shell(usual: int, key: Path, config: Path, kernel: pk.Kernel) -> None:
    terminal = opened(usual, key, SHELL, "--config", str(config), "--no-startup", "k0")
    try:
        terminal.expect("k0>")
        terminal.enter("here import os; f'pid={os.getpid()}.'")
        terminal.expect("\n'pid=")
        shell = int(terminal.expect(".'\n")[:-3])
        assert is_alive(shell)
    finally:
        terminal.close()
    wait_until(lambda: not is_alive(shell))


def test_an_account_that_may_do_nothing_else_gets_the_restricted_shell(forced: int, key: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    terminal = opened(forced, key)
    try:
        terminal.expect("k0>")
        terminal.enter(f"here open({str(made)!r}, 'w')")
        terminal.expect("is not in this shell, which is served to others")
        terminal.enter("6 * 7")
        terminal.expect("\n42\n")
        terminal.type("\x1a\x1c\x03")
        terminal.enter("'still here'")
        terminal.expect("\n'still here'\n")
        terminal.enter("exit")
        terminal.expect("stay running")
        assert terminal.wait() == 0
    finally:
        terminal.close()
    assert not made.exists()


def test_another_command_is_no_way_around(forced: int, key: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    for words in (f"touch {made}", f"scp -t {made}", f"sh -c 'touch {made}'", "bash"):
        ended = done(forced, key, words, text=f"touch {made}\n")
        assert ended.returncode == 1, words
        assert not ended.stdout
    for words in (f"here open({str(made)!r}, 'w')", f"run {made}", f"1\nedit {made}"):
        ended = done(forced, key, words)
        assert ended.returncode == 1
        assert "is not in this shell" in ended.stderr
    assert not made.exists()


def test_a_command_is_a_line_of_the_restricted_shell(forced: int, key: Path, kernel: pk.Kernel) -> None:
    kernel.execute("results = [1, 2, 3]")
    ended = done(forced, key, "on k0 len(results)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "3\n", "")
    ended = done(forced, key, "1 / 0")
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr


def test_a_command_that_is_sent_as_a_variable_is_no_way_around_either(careless: int, key: Path, tmp_path: Path) -> None:
    options = ("-o", "SendEnv=SSH_ORIGINAL_COMMAND")
    line = openssh.command(careless, openssh.account(), key, options=options)
    environ = {**os.environ, "SSH_ORIGINAL_COMMAND": f"here open({str(tmp_path / 'made')!r}, 'w')"}
    ended = subprocess.run(
        line, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=40, check=False
    )
    assert ended.returncode == 1
    assert "is not in this shell" in ended.stderr
    assert not (tmp_path / "made").exists()


def test_files_are_not_copied_and_ports_not_forwarded(forced: int, key: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    source = tmp_path / "source"
    source.write_text("x")
    line = openssh.command(forced, openssh.account(), key)
    copy = ["scp", *line[1 : line.index("-p")], "-P", str(forced), str(source), f"{openssh.account()}@127.0.0.1:{made}"]
    assert subprocess.run(copy, capture_output=True, timeout=40, check=False).returncode != 0
    assert not made.exists()
    refused = done(forced, key, options=("-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9"), text="1\n")
    assert refused.returncode == 255


def test_what_a_client_sends_along_changes_no_setting(
    careless: int, key: Path, tmp_path: Path, kernel: pk.Kernel
) -> None:
    (tmp_path / "pyrokernel_evil.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')\n")
    (tmp_path / "pyrokernel").mkdir()
    (tmp_path / "pyrokernel" / "shell.pk").write_text("print('the startup file ran')\n")
    sent = {name: value.format(folder=tmp_path) for name, value in HOSTILE.items()}
    options = ("-t", *(word for name in HOSTILE for word in ("-o", f"SendEnv={name}")))
    terminal = opened(careless, key, options=options, **sent)
    try:
        told = terminal.expect("k0>")
        assert "not read in a shell for others" in told
        assert "the startup file ran" not in told
        terminal.enter("help")
        terminal.expect("k0>")
        terminal.enter("edit")
        terminal.expect("is not in this shell")
        terminal.enter("whose = 'mine'; 'ran'")
        terminal.expect("\n'ran'\n")
        assert {cell["author"] for cell in kernel.cells()} == {openssh.account()}
    finally:
        terminal.close()
    assert not (tmp_path / "made").exists()


def test_a_python_that_would_go_on_after_the_shell_is_refused(config: Path) -> None:
    command = [*SHELL.replace(" -I ", " ").split(), "--config", str(config), "--restricted", "-c", "1"]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONINSPECT": "1"}, capture_output=True, text=True, timeout=40, check=False
    )
    assert ended.returncode == 2
    assert "would give a Python of this machine to others" in ended.stderr


def test_each_key_may_be_another_user_of_the_mesh(key: Path, config: Path, kernel: pk.Kernel) -> None:
    """As `command=` in authorized_keys, or in a Match block of sshd."""
    command = f"ForceCommand {SHELL} --config {config} --restricted --act-for ana:user k0"
    with openssh.serving(key, command) as port:
        assert done(port, key, text="ana_was_here = 1\n").returncode == 0
    assert {cell["source"]: cell["author"] for cell in kernel.cells()}["ana_was_here = 1"] == "ana"
