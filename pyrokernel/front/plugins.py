"""`plugins`: what is loaded, where it comes from, what failed, and what a restart would bring.

Runs in the caller's process.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyrokernel.client.contributions import ask_plugins, describe_problems, find_old, format_plugins
from pyrokernel.commands import CommandTable, KernelIdentity
from pyrokernel.errors import NameServerNotFoundError, SettingsError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.newplugin import command_of, write_plugin
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.messages import PluginInfo
from pyrokernel.plugins import Plugins, find, quietly
from pyrokernel.settings import Settings, command_line
from pyrokernel.texts import describe_silence


def main(args: argparse.Namespace) -> int:
    """List the plugins, or write a new one."""
    if args.action == "new":
        if not args.name:
            raise SettingsError("give the new plugin a name: pyrokernel plugins new NAME")
        return _write(args.name, Path(args.dir))
    settings = settings_of(args)
    try:
        mesh = open_mesh(settings)
    except NameServerNotFoundError:
        if settings.ns:
            raise
        infos = load_here(settings)
        _say({"": infos}, args.json)
        if not args.json:
            serve = command_line(settings, "serve --detach")
            note(f"no mesh {settings.mesh!r} runs: this is how they load in this process; start one: {serve}")
        return ExitCode.OK
    with mesh:
        group = mesh.select()
        found = ask_plugins(group, settings.timeout)
        old = find_old(mesh, found, lambda names: command_line(settings, f"restart {' '.join(names)}"))
    _say(found, args.json)
    for line in old:
        note(line)
    silent = [name for name in group.names if name not in found]
    if silent:
        complain(describe_silence(silent))
    return ExitCode.TIMEOUT if silent else ExitCode.OK


def _write(name: str, folder: Path) -> ExitCode:
    """Write the package of a new plugin, and say how to go on."""
    package = write_plugin(name, folder)
    # With the ./, else pip asks its index for a package of that name, which may be somebody else's.
    quoted = shlex.quote(str(package) if package.is_absolute() else f"./{package}")
    say(f"wrote {package}: {', '.join(sorted(path.name for path in package.iterdir()))}")
    say("try it, test it, install it (kernels that start then have it):")
    say(f"  pyrokernel run --local 1 --plugins-dir {quoted} -c '{command_of(name)}()'")
    say(f"  python -m pytest {quoted}")
    say(f"  python3 -m pip --python {shlex.quote(sys.prefix)} install {quoted}")
    return ExitCode.OK


def load_here(settings: Settings) -> list[PluginInfo]:
    """Load the plugins in this process, have them register their commands, and return what came of that."""
    found = find(settings)
    table = CommandTable()
    plugins = Plugins(settings, found)

    with quietly():
        plugins.load(lambda plugin: plugins.take_commands(plugin, table, KernelIdentity("")))
    return plugins.infos()


def _say(found: Mapping[str, Sequence[PluginInfo]], as_json: bool) -> None:
    """Write what kernels have; the kernel "" is this process."""
    if as_json:
        say_json({name: [info.to_wire() for info in infos] for name, infos in found.items()})
        return
    if not any(found.values()):
        note("no plugins; write one: pyrokernel plugins new NAME")
        return
    say(format_plugins(found, wide=sys.stdout.isatty()))
    for line in describe_problems(found):
        say(line)
