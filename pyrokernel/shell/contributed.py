"""What kernels and plugins contribute: `commands` and `plugins` list it. Runs in the shell process."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cmd2 import Cmd2ArgumentParser, CommandSet, with_argparser

from pyrokernel.messages import PluginInfo
from pyrokernel.shell.shipping import ask_group
from pyrokernel.texts import label, names_by, one_line, table, wide_table

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class


class ContributedCommands(CommandSet["Shell"]):
    """List the commands and plugins that kernels have."""

    DEFAULT_CATEGORY = "Code"

    @with_argparser(lambda: Cmd2ArgumentParser(description="List the commands that the kernels of the group have."))
    def do_commands(self, _: argparse.Namespace) -> None:
        """List the commands that the kernels of the group have, of plugins and of what was shipped."""
        remote = self._cmd.remote
        group = self._cmd.target.anew()
        remote.learn(group, afresh=True)
        rows = []
        hidden = []
        found = remote.of(group)
        for name, holders in found.items():
            for info, names in _alike(holders):
                where = "" if len(names) == len(group) else label(names)
                rows.append((f"{name}{info.signature}", one_line(info.summary, 50), info.owner, where))
            if name not in remote.words:
                hidden.append(name)
        if rows:
            header = ("COMMAND", "WHAT IT DOES", "OWNER", "KERNELS")
            lay_out = wide_table if self._cmd.stdout.isatty() else table
            self._cmd.print_lines([lay_out(header, rows)])
        else:
            self._cmd.print_lines(["no commands; `ship FILE.py` and plugins bring some"])
        for name in hidden:
            self._cmd.notice(f"the word `{name}` is the shell's own or Python's; `{name}(...)` calls the command")
        self._cmd.last_result = list(found)

    @with_argparser(lambda: Cmd2ArgumentParser(description="List the plugins of the kernels and of this shell."))
    def do_plugins(self, _: argparse.Namespace) -> None:
        """List the plugins of the kernels and of this shell, and what failed in them."""
        asked = ask_group(self._cmd, "plugins")
        found = {name: [PluginInfo.from_wire(one) for one in ones] for name, ones in asked.items()}
        rows: list[tuple[str, ...]] = []
        problems: list[str] = []
        by_name: dict[str, dict[str, PluginInfo]] = {}
        for kernel, infos in found.items():
            for info in infos:
                by_name.setdefault(info.name, {})[kernel] = info
        here = self._cmd.plugins
        ours = {info.name: info for info in here.plugins.infos()} if here.plugins is not None else {}
        for name in sorted({*by_name, *ours}):
            rows += _rows(name, by_name.get(name, {}), ours.get(name), here.commands.get(name, []))
            said = {kernel: tuple(info.problems) for kernel, info in by_name.get(name, {}).items()}
            for sentences, kernels in names_by(said).items():
                problems += [f"{label(kernels)}: plugin {name!r}: {sentence}" for sentence in sentences]
        problems += [f"this shell: {problem}" for problem in here.problems]
        header = ("PLUGIN", "VERSION", "WHERE", "COMMANDS", "NAMES", "STATE")
        self._cmd.print_lines([table(header, rows) if rows else "no plugins"])
        for problem in problems:
            self._cmd.notice(problem)
        self._cmd.last_result = sorted({*by_name, *ours})


def _alike(holders: Mapping[str, Any]) -> Iterator[tuple[Any, list[str]]]:
    """Yield the kernels that say the same of a command, together."""
    left = dict(holders)
    while left:
        info = next(iter(left.values()))
        names = [name for name, other in left.items() if other == info]
        for name in names:
            del left[name]
        yield info, names


def _rows(
    name: str, kernels: Mapping[str, PluginInfo], ours: PluginInfo | None, commands: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """Yield a line for each thing that there is to say of a plugin."""
    for info, names in _alike(kernels):
        state = "not loaded" if not info.loaded else "with problems" if info.problems else ""
        yield name, info.version, label(names), ", ".join(info.commands), ", ".join(info.names), state
    if ours is not None and (commands or ours.problems or not kernels):
        state = "not loaded" if not ours.loaded else "with problems" if ours.problems else ""
        yield name, ours.version, "this shell", ", ".join(commands), "", state
