"""What a shell for others leaves of the environment that it was started in."""

from __future__ import annotations

import pytest

from pyrokernel.front.environment import forget_environment


def test_only_account_language_and_terminal_are_left(capsys: pytest.CaptureFixture[str]) -> None:
    kept = {"HOME": "/h", "USER": "u", "PATH": "/bin", "LANG": "C", "LC_CTYPE": "C", "TERM": "xterm", "NO_COLOR": "1"}
    gone = (
        "PYROKERNEL_MESH",
        "PYRO_NS_HOST",
        "XDG_CONFIG_HOME",
        "PAGER",
        "EDITOR",
        "SHELL",
        "LD_PRELOAD",
        "LC_x",
        "TERMX",
    )
    environ = kept | dict.fromkeys(gone, "x")
    forget_environment(environ)
    assert environ == kept
    assert capsys.readouterr().err == (
        "pyrokernel: PYROKERNEL_MESH: not read in a shell for others; use options, --config or --trust-environment\n"
    )


def test_nothing_is_said_where_nothing_was_meant_for_us(capsys: pytest.CaptureFixture[str]) -> None:
    forget_environment({"HOME": "/h", "EDITOR": "vi"})
    assert capsys.readouterr().err == ""
