"""The command line, the environment and the process of a session."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from pathlib import Path

import pytest
from pyrokernel.cli import build_parser
from pyrokernel.roles import Role
from pyrokernel.settings import Settings

from pyrokernel_terminal.accounts import User
from pyrokernel_terminal.process import ShellProcess, command_for, environment_for

EVE = User("eve", Role.OBSERVER)
SLEEPER = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_IGN); time.sleep(50)"]


def open_terminals() -> int:
    """Count the descriptors of terminals that this process has."""
    found = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return sum("/ptmx" in path or "/pts/" in path for path in found)


@pytest.mark.parametrize(
    "line",
    ["1", "onfig=/tmp/x", "--act-for root:admin", "-v", "v", "c", " ", "\n--script=/etc/passwd", "--", "-", "=1"],
)
def test_a_line_of_a_client_is_never_an_option(line: str) -> None:
    command = command_for(EVE, line)
    parsed = build_parser().parse_args(command[command.index("shell") :])
    assert parsed.command == f"\n{line}"
    assert (parsed.act_for, parsed.restricted, parsed.script, parsed.config) == ("eve:observer", True, None, None)


def test_a_session_has_little_of_the_environment_of_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_AUTH_SOCK", "PYTHONINSPECT", "PAGER", "PYROKERNEL_ACT_FOR", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    environ = environment_for(Settings(act_for="root:admin"), "xterm-256color", "truecolor")
    assert "secret" not in environ.values()
    assert environ["PYROKERNEL_ACT_FOR"] == ""
    assert (environ["TERM"], environ["COLORTERM"], environ["LANG"]) == ("xterm-256color", "truecolor", "C.UTF-8")


@pytest.mark.parametrize("term", ["", "../../etc/passwd", "x" * 33, "xterm\x1b[2J", "a b", "-x", "xterm\n"])
def test_a_type_of_terminal_that_is_none_is_a_plain_one(term: str) -> None:
    assert environment_for(Settings(), term, "\x1b[2J") | {"TERM": "xterm"} == environment_for(Settings(), "xterm")


@pytest.mark.parametrize("had", [0, 1])
def test_a_session_for_which_there_are_too_few_descriptors_leaves_no_process_and_no_terminal(
    had: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody had counted it, and nobody would have ended it: it lived as long as the server."""
    pids: list[int] = []
    left = [None] * had
    spawn, dup = asyncio.create_subprocess_exec, os.dup

    async def spawn_noted(*command: str, **options: object) -> asyncio.subprocess.Process:
        process = await spawn(*command, **options)  # type: ignore[arg-type]
        pids.append(process.pid)
        return process

    def scarce_dup(descriptor: int) -> int:
        if not left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left.pop()
        return dup(descriptor)

    async def start() -> int:
        before = open_terminals()
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "create_subprocess_exec", spawn_noted)
            patch.setattr(os, "dup", scarce_dup)
            with pytest.raises(OSError, match="Too many open files"):
                await ShellProcess.start_in_terminal(SLEEPER, {}, 80, 24)
        await asyncio.sleep(0)  # what is closed lets go of its descriptor in the next round
        return open_terminals() - before

    assert asyncio.run(start()) == 0
    (pid,) = pids
    assert not Path(f"/proc/{pid}").exists()
