"""`users` in the shell: who is connected by SSH and Telnet. Runs in the shell process."""

from __future__ import annotations

from typing import Any

from cmd2 import CommandSet, Statement

from pyrokernel_terminal.who import ask, describe


class TerminalCommands(CommandSet[Any]):
    """Who else is here."""

    DEFAULT_CATEGORY = "Kernels"

    def do_users(self, _: Statement) -> None:
        """List who is connected to this machine's terminal server: name, role, from where, since when, idle."""
        found = ask(self._cmd.target.mesh.settings)
        self._cmd.print_lines([describe(found)])
        self._cmd.last_result = found
