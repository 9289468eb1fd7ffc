"""Commands of the shell that plugins bring, for its own process. Runs in the shell process.

A plugin that raises, hangs or takes a word of the shell's own is noted and gone without.
"""

from __future__ import annotations

import keyword
from typing import Any

from cmd2 import CommandSet

from pyrokernel.plugins import Plugin, Plugins, find, quietly
from pyrokernel.settings import Settings
from pyrokernel.shell.house import House
from pyrokernel.shell.restricted import admit, commands_in

HOOK = "pyrokernel_register_command_sets"


class ShellPlugins:
    """The plugins that were loaded for a shell.

    Attributes:
        plugins: They, None when there are none.
        commands: By plugin, the commands that it brought.
    """

    def __init__(self, plugins: Plugins | None = None) -> None:
        self.plugins = plugins
        self.commands: dict[str, list[str]] = {}

    @property
    def problems(self) -> list[str]:
        """What went wrong, one sentence each; shape (n_problems,)."""
        found = self.plugins.all if self.plugins is not None else ()
        return [f"plugin {plugin.name!r}: {problem}" for plugin in found for problem in plugin.problems]


def extend(house: House, settings: Settings) -> ShellPlugins:
    """Load the plugins and take in their sets of commands.

    Args:
        house: The shell, which has its own commands already.
        settings: Say where plugins are, and which to go without.
    """
    found = find(settings)
    if not found:
        return ShellPlugins()
    with quietly():
        return _load(house, Plugins(settings, found))


def _load(house: House, plugins: Plugins) -> ShellPlugins:
    offered: list[tuple[Plugin, CommandSet[Any]]] = []

    def take(plugin: Plugin) -> None:
        plugins.call(plugin, HOOK, register=lambda command_set: offered.append((plugin, command_set)))

    plugins.load(take)
    extended = ShellPlugins(plugins)
    for plugin, command_set in offered[:]:  # one that was given up may go on and add to it
        try:
            extended.commands.setdefault(plugin.name, []).extend(_add(house, command_set))
        except Exception as error:  # noqa: BLE001 - the set is code of the plugin's
            plugin.note(f"its commands for the shell are refused: {error}")
    return extended


def _add(house: House, command_set: CommandSet[Any]) -> list[str]:
    """Take in a set of commands; return the names of those that may be called.

    Raises:
        ValueError: A name is taken. Or whatever a set raises when cmd2 takes it.
    """
    names = commands_in(command_set)
    taken = sorted(
        name for name in names if name in house.get_all_commands() or name in house.refused or keyword.iskeyword(name)
    )
    if taken:
        raise ValueError(f"{', '.join(taken)}: the shell has that already; give it another name")
    admitted, refused = admit([command_set]) if house.restricted else ([command_set], set())
    for one in admitted:
        house.register_command_set(one)
    for name in refused:
        house.refuse(name)
    return [name for name in names if name not in refused]
