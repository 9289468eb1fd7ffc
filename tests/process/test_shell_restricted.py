"""A shell for others: what it refuses, said at the prompt, and what it must not do although it is asked to."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from shells import Start, starting
from terminals import Terminal
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.shell.app import Shell

ADMITTED = {
    # Each of these was looked at: the process of the shell reads or writes no file for it, starts no program, and
    # runs or unpickles nothing. What kernels do is their business: `sh`, `pip` and `cd` are cells like others.
    # `ship` refuses files itself, and sends what was typed; `plugins` says what was found when the shell started;
    # `shared` refuses what loads values (get, diff) and what writes files (backup), see below; `refs` asks kernels
    # for a list and has them end what is on it.
    "alias", "cancel", "cd", "cells", "commands", "debug", "env", "exit", "follow", "help", "history", "inspect",
    "interrupt", "load_ext", "logs", "matplotlib", "on", "pip", "plugins", "ps", "pwd", "quit", "refs", "reset",
    "restart", "set", "sh", "shared", "ship", "stop", "time", "timeit", "tour", "unship", "use", "watch", "who", "whos",
    "writefile",
}  # fmt: skip
REFUSED = {"edit", "gather", "here", "map", "pull", "push", "run", "scatter"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A configuration folder with a startup file that would be noticed."""
    folder = tmp_path / "config" / "pyrokernel"
    folder.mkdir(parents=True)
    (folder / "shell.pk").write_text("print('the startup file ran')\n")
    return tmp_path


@pytest.fixture
def start(mesh: pk.Mesh, home: Path) -> Iterator[Start]:
    """Start a restricted shell on the first kernel and wait for its prompt."""
    environ = {"XDG_CONFIG_HOME": str(home / "config"), "EDITOR": "touch"}
    with starting(mesh, prompt="", options=("k0", "--restricted", "--trust-environment"), **environ) as begin:

        def begin_restricted(*arguments: str) -> Terminal:
            terminal = begin(*arguments)
            assert "the startup file ran" not in terminal.expect("k0>")
            return terminal

        yield begin_restricted


def test_every_command_was_decided_on(mesh: pk.Mesh) -> None:
    shell = Shell(mesh, restricted=True)
    assert set(shell.get_visible_commands()) == ADMITTED, "decide: LOCAL = True, or admitted here with a look at it"
    assert shell.refused == REFUSED
    assert {name for name in shell.get_all_commands() if name[0] != "_"} == ADMITTED | REFUSED
    assert set(shell.settables) == {"lines", "result_lines", "timing"}


def test_no_value_of_the_shared_state_is_loaded_in_the_process_of_the_shell(start: Start, mesh: pk.Mesh) -> None:
    mesh.shared.set("trap", 1)
    mesh.shared.set("trap", 2)
    shell = start()
    for line in ("shared get trap", "shared diff trap", "shared backup mine"):
        shell.enter(line)
        shell.expect(f"`{line.rpartition(' ')[0]}` is not in this shell, which is served to others")
        shell.expect("k0>")
    assert not list(Path(mesh.shared.describe()["backups"]).glob("*"))
    shell.enter("shared history trap")
    shell.expect("REVISION")
    shell.expect("k0>")
    mesh.shared.clear()


def test_the_words_of_refused_commands_are_known(mesh: pk.Mesh) -> None:
    whole = Shell(mesh)
    assert set(Shell(mesh, restricted=True).reader.commands) == set(whole.reader.commands)


def test_nothing_below_the_commands_is_left_open(mesh: pk.Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    """What no command reaches today would be within reach of one that is added tomorrow."""
    whole, shell = Shell(mesh), Shell(mesh, restricted=True)
    for completer in ("path_complete", "shell_cmd_complete"):
        arguments = ("/bin/l", "x /bin/l", 2, 8)
        assert len(getattr(whole, completer)(*arguments)) > 0
        assert len(getattr(shell, completer)(*arguments)) == 0
    shell.pager = shell.pager_chop = "echo a program ran"
    shell.ppaged("a page", chop=True)
    assert capsys.readouterr().out == "a page\n"
    assert (whole.main_session.enable_suspend, shell.main_session.enable_suspend) == (True, False)
    for line in ("alias create shell ps", "alias delete shell", "alias create edit ps", "alias delete edit"):
        shell.onecmd_plus_hooks(line)
    assert "shell" not in shell.get_all_commands()
    assert not shell.allow_redirection
    assert not shell.allow_clipboard


@pytest.mark.parametrize(
    "line",
    [
        "here open({path!r}, 'w')", "%here open({path!r}, 'w')", ":here open({path!r}, 'w')",
        "push x = open({path!r}, 'w')", "scatter x = open({path!r}, 'w')", "map str over open({path!r}, 'w')",
        "pull x", "gather x", "edit", "edit 1", "run /etc/hostname", "%run /etc/hostname",
    ],
)  # fmt: skip
def test_what_works_on_this_machine_is_refused(start: Start, line: str, tmp_path: Path) -> None:
    path = tmp_path / "made"
    shell = start()
    shell.enter("1 + 1")
    shell.expect("\n2\n")
    shell.enter(line.format(path=str(path)))
    shell.expect("is not in this shell, which is served to others")
    shell.enter("'goes on'")
    shell.expect("\n'goes on'\n")
    assert not path.exists()


@pytest.mark.parametrize("line", ["ps > {path}", "ps >> {path}", "ps | tee {path}", "logs > {path}", "help > {path}"])
def test_output_goes_to_no_file_and_no_program(start: Start, line: str, tmp_path: Path) -> None:
    path = tmp_path / "made"
    shell = start()
    shell.enter(line.format(path=path))
    shell.expect("is not in this shell, which is served to others: output stays here")
    assert not path.exists()


def test_neither_an_alias_nor_a_pasted_block_is_a_way_around(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "made"
    shell = start()
    shell.enter(f"alias create save ps > {path}")
    shell.expect("k0>")
    shell.enter("save")
    shell.expect("output stays here")
    shell.enter(f"alias create mine here open({str(path)!r}, 'w')")
    shell.expect("k0>")
    shell.enter("mine")
    shell.expect("is not in this shell")
    shell.enter("alias delete save")
    shell.expect("k0>")
    shell.type(f"\x1b[200~x = 1\nhere open({str(path)!r}, 'w')\nps > {path}\n\x1b[201~\r")
    shell.expect("`here` is not in this shell")
    shell.enter("alias create shell ps")
    shell.enter("alias delete shell")
    shell.enter(f"shell touch {path}")
    shell.expect("SyntaxError")
    assert not path.exists()


def test_no_startup_file_no_history_file_no_file_names(start: Start, mesh: pk.Mesh, home: Path) -> None:
    (home / "unlikely-name.txt").write_text("")
    before = sorted(mesh.settings.mesh_state_dir.glob("shell-history"))
    shell = start()
    shell.enter("'remembered ' + 'for now'")
    shell.expect("\n'remembered for now'\n")
    shell.enter("history -s remembered")
    shell.expect("1  'remembered ' + 'for now'")
    shell.type(f"ps > {home}/unlik\t")
    shell.type("\x03")
    shell.expect("k0>")
    shell.type(f"alias create x ps > {home}/unlik\t")
    shell.type("\x03")
    shell.enter("exit")
    shown = shell.expect("stay running, with all variables")
    assert shell.wait() == 0
    assert "unlikely-name" not in shown
    assert sorted(mesh.settings.mesh_state_dir.glob("shell-history")) == before


def test_keys_that_would_stop_it_or_open_an_editor_do_nothing(start: Start, kernel: pk.Kernel) -> None:
    shell = start()
    shell.type("\x1a")
    shell.type("\x18\x05")  # Ctrl-X Ctrl-E, an editor where that is allowed
    shell.type("\x1b!")  # Meta-!, a system command where that is allowed
    shell.enter("")
    shell.enter("'awake'")
    shell.expect("\n'awake'\n")
    shell.enter("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"])
    shell.type("\x1a")
    shell.type("\x1c")
    shell.type("\x03")
    shell.expect("k0: interrupted")
    assert shell.process.poll() is None
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{shell.process.pid}/status").read_text().splitlines())
    # Whether a Ctrl-Z stops a process depends on who started it; that it is ignored does not.
    assert not {signal.SIGTSTP, signal.SIGQUIT} - {n + 1 for n in range(64) if int(status["SigIgn"], 16) >> n & 1}


def test_settings_are_few_and_no_editor_is_among_them(start: Start) -> None:
    shell = start()
    shell.enter("set editor touch")
    shell.expect("Parameter 'editor' not supported")
    shell.enter("set debug true")
    shell.expect("Parameter 'debug' not supported")
    shell.enter("help here")
    shell.expect("`here` is not in this shell")
    shell.enter("set timing true")
    shell.expect("k0>")
    shell.enter("6 * 7")
    shell.expect("\n42\ntook ")


def test_a_hung_up_restricted_shell_ends(start: Start) -> None:
    shell = start()
    shell.process.send_signal(signal.SIGHUP)
    shell.wait()
