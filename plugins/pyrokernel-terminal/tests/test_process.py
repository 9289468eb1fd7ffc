"""The command line and the environment of a session."""

from __future__ import annotations

import pytest
from pyrokernel.cli import build_parser
from pyrokernel.roles import Role
from pyrokernel.settings import Settings

from pyrokernel_terminal.accounts import User
from pyrokernel_terminal.process import command_for, environment_for

EVE = User("eve", Role.OBSERVER)


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
