"""Subcommands that plugins contribute; loaded only when the command line asks for one, or for help.

Runs in the caller's process.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import traceback
from collections.abc import Callable, Container
from typing import Any

from pyrokernel.errors import PyrokernelError
from pyrokernel.front.configured import settings_of
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.parsing import Parser, add_common
from pyrokernel.front.terminal import complain
from pyrokernel.plugins import Plugin, Plugins, find, quietly
from pyrokernel.settings import Settings

_HOOK = "pyrokernel_register_subcommands"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


@dataclasses.dataclass(frozen=True)
class Subcommand:
    """What a plugin has registered.

    Attributes:
        plugin: Its name.
        name: The word on the command line.
        run: What does it, given the arguments and the settings; returns the exit code.
        help: What the list of commands says.
        configure: Adds its arguments to a parser, or None.
    """

    plugin: str
    name: Any
    run: Any
    help: str
    configure: Callable[[Any], object] | None

    def main(self, args: argparse.Namespace) -> int:
        """Do it; what it raises is shown whole, because it is the plugin's to mend."""
        settings = settings_of(args)
        try:
            code = self.run(args, settings)
        except (PyrokernelError, OSError):
            raise  # told in one line, as those of our own commands
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            traceback.print_exception(error)
            complain(f"{self.name} of plugin {self.plugin!r} raised {type(error).__name__}")
            return ExitCode.FAILED
        return ExitCode.OK if code is None else int(code)


def load(settings: Settings, taken: Container[str]) -> tuple[list[Subcommand], list[str]]:
    """Load the plugins in this process; return their subcommands, and what failed.

    Args:
        settings: Which plugins.
        taken: The words that are pyrokernel's own.
    """
    plugins = Plugins(settings, find(settings))
    found: dict[str, Subcommand] = {}

    def take(plugin: Plugin) -> None:
        def register(name: Any, run: Any, *, help: str = "", configure: Callable[[Any], object] | None = None) -> None:
            made = Subcommand(plugin.name, name, run, help, configure)
            if configure is not None:  # tried here, where what it raises or does not end is the plugin's own loss
                trial = Parser()
                add_common(trial)
                configure(trial)
            problem = _problem_of(made, found, taken)
            if problem:
                plugin.note(problem)
            else:
                found[name] = made

        plugins.call(plugin, _HOOK, register=register)

    with quietly():
        plugins.load(take)
    problems = [f"plugin {plugin.name!r}: {'; '.join(plugin.problems)}" for plugin in plugins.all if plugin.problems]
    return list(found.values()), problems


def _problem_of(made: Subcommand, found: dict[str, Subcommand], taken: Container[str]) -> str:
    """Say why a subcommand is refused, "" when it is not."""
    what = f"the subcommand {made.name!r} is refused"
    if not isinstance(made.name, str) or not _NAME.fullmatch(made.name):
        return f"{what}: use small letters and digits, with - or _ between"
    if not callable(made.run):
        return f"{what}: {type(made.run).__name__} cannot be called"
    if made.name in taken:
        return f"{what}: pyrokernel has one of that name itself"
    if made.name in found:
        return f"{what}: plugin {found[made.name].plugin!r} has one of that name, and comes first"
    return ""
