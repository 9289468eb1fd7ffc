"""What kernels and plugins contribute: `commands` and `plugins` list it. Runs in the shell process."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Container
from typing import TYPE_CHECKING

from cmd2 import Cmd2ArgumentParser, CommandSet, with_argparser

from pyrokernel.client.contributions import (
    ask_plugins,
    describe_problems,
    find_old,
    format_commands,
    format_plugins,
)
from pyrokernel.client.group import Group
from pyrokernel.messages import PluginInfo
from pyrokernel.texts import describe_silence

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class

_HERE = "this shell"


class ContributedCommands(CommandSet["Shell"]):
    """List the commands and plugins that kernels have."""

    DEFAULT_CATEGORY = "Code"

    @with_argparser(lambda: Cmd2ArgumentParser(description="List the commands that the kernels of the group have."))
    def do_commands(self, _: argparse.Namespace) -> None:
        """List the commands that the kernels of the group have, of plugins and of what was shipped."""
        remote = self._cmd.remote
        group = self._cmd.target.anew()
        remote.learn(group, afresh=True)
        found = remote.by_kernel(group)
        names = sorted({info.name for infos in found.values() for info in infos})
        if names:
            self._cmd.print_lines([format_commands(found, wide=self._cmd.stdout.isatty())])
        elif found:
            self._cmd.print_lines(["no commands; `ship FILE.py` and plugins bring some"])
        self._tell_silence(group, found)
        for name in names:
            if name not in remote.words:
                self._cmd.notice(f"the word `{name}` is the shell's own or Python's; `{name}(...)` calls the command")
        self._cmd.last_result = names

    @with_argparser(lambda: Cmd2ArgumentParser(description="List the plugins of the kernels and of this shell."))
    def do_plugins(self, _: argparse.Namespace) -> None:
        """List the plugins of the kernels and of this shell, and what failed in them."""
        group = self._cmd.target.anew()
        kernels = ask_plugins(group, group.mesh.settings.timeout)
        found = {**kernels, _HERE: self._of_shell({info.name for infos in kernels.values() for info in infos})}
        if any(found.values()):
            self._cmd.print_lines([format_plugins(found, wide=self._cmd.stdout.isatty())])
        elif kernels:
            self._cmd.print_lines(["no plugins"])
        old = find_old(group.mesh, kernels, lambda names: f"`restart {' '.join(names)}`")
        for line in [*describe_problems(found), *old]:
            self._cmd.notice(line)
        self._tell_silence(group, kernels)
        self._cmd.last_result = sorted({info.name for infos in found.values() for info in infos})

    def _of_shell(self, names: Container[str]) -> list[PluginInfo]:
        """Return the plugins of this shell, without those of kernels that bring nothing to it.

        Args:
            names: Of the plugins of the kernels.
        """
        here = self._cmd.plugins
        infos = here.plugins.infos() if here.plugins is not None else []
        ours = [dataclasses.replace(info, commands=tuple(here.commands.get(info.name, ())), names=()) for info in infos]
        return [info for info in ours if info.commands or info.problems or info.name not in names]

    def _tell_silence(self, group: Group, answers: Container[str]) -> None:
        silent = [name for name in group.names if name not in answers]
        if silent:
            self._cmd.fail(describe_silence(silent))
