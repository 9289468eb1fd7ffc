"""The shell for others, by SSH and Telnet. Runs in the terminal server, and in the shells it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pyrokernel import hookimpl

if TYPE_CHECKING:
    from pyrokernel.hookspecs import RegisterSubcommand


@hookimpl
def pyrokernel_register_subcommands(register: RegisterSubcommand, settings: Mapping[str, Any]) -> None:
    """Add `pyrokernel terminal`."""
    # In here: kernels import this module, and have no use for any of it.
    from pyrokernel_terminal.command import configure, run

    register("terminal", run, help="serve the shell to others, by SSH and Telnet", configure=configure)


@hookimpl
def pyrokernel_register_command_sets(register: Callable[[Any], None], settings: Mapping[str, Any]) -> None:
    """Add `users` to the shell: who is connected."""
    from pyrokernel_terminal.shell import TerminalCommands

    register(TerminalCommands())
