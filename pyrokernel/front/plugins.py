"""`plugins`: what is loaded, where it comes from, what failed, and what a restart would bring.

Runs in the caller's process.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.group import Group
from pyrokernel.commands import CommandTable, KernelIdentity
from pyrokernel.errors import NameServerNotFoundError, SettingsError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.newplugin import command_of, write_plugin
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.subcommands import quietly
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.messages import PluginInfo
from pyrokernel.plugins import LOAD_SECONDS, PREFIX, Found, Plugins, find
from pyrokernel.settings import Settings, command_line
from pyrokernel.texts import describe_silence, label, names_by, wide_table

_HEADER = ("NAME", "VERSION", "STATE", "KERNELS", "COMMANDS", "NAMES", "HOOKS", "FROM")
_LISTED = 5


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
        hosts = {info.name: info.host for info in mesh.ps()}
    _say(found, args.json)
    ours = {name: infos for name, infos in found.items() if hosts.get(name) == settings.host_name}
    for line in describe_old(ours, find(settings), settings):
        note(line)
    silent = [name for name in group.names if name not in found]
    if silent:
        complain(describe_silence(silent))
    return ExitCode.TIMEOUT if silent else ExitCode.OK


def _write(name: str, folder: Path) -> ExitCode:
    """Write the package of a new plugin, and say how to go on."""
    package = write_plugin(name, folder)
    quoted = shlex.quote(str(package))
    say(f"wrote {package}: {', '.join(sorted(path.name for path in package.iterdir()))}")
    say("try it, test it, install it (kernels that start then have it):")
    say(f"  pyrokernel run --local 1 --plugins-dir {quoted} -c '{command_of(name)}()'")
    say(f"  python -m pytest {quoted}")
    say(f"  python -m pip install {quoted}")
    return ExitCode.OK


def ask_plugins(group: Group, timeout: float) -> dict[str, list[PluginInfo]]:
    """Return the plugins of each kernel that answers.

    Args:
        group: The kernels.
        timeout: Seconds for an answer, to which comes what a plugin may take that hangs.
    """
    links = [kernel.link for kernel in group]
    seconds = timeout + LOAD_SECONDS
    values, _, _ = gather(group.mesh, links, kernel_request("plugins"), kind="control", timeout=seconds)
    return {name: [PluginInfo.from_wire(one) for one in ones] for name, ones in values.items()}


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
    rows = [_row(info, kernels, len(found)) for info, kernels in _by_plugin(found)]
    if not rows:
        note("no plugins; write one: pyrokernel plugins new NAME")
        return
    say(wide_table(_HEADER, rows, spared=("HOOKS", "NAMES")))
    for line in describe_problems(found):
        say(line)


def _by_plugin(found: Mapping[str, Sequence[PluginInfo]]) -> list[tuple[PluginInfo, list[str]]]:
    """Return each state of a plugin, and the kernels in which it is in that."""
    states: dict[str, tuple[PluginInfo, list[str]]] = {}
    for kernel, infos in found.items():
        for info in infos:
            states.setdefault(repr(info), (info, []))[1].append(kernel)
    return sorted(states.values(), key=lambda state: state[0].name)


def _row(info: PluginInfo, kernels: Sequence[str], count: int) -> tuple[str, ...]:
    state = "loaded" if info.loaded else "failed"
    return (
        info.name,
        info.version,
        f"{state}, with problems" if info.loaded and info.problems else state,
        "" if len(kernels) == count else label(kernels),
        _listed(info.commands),
        _listed(info.names),
        _listed([hook.removeprefix(PREFIX) for hook in info.hooks]),
        f"{info.distribution} in {info.where}" if info.distribution else info.where,
    )


def _listed(words: Sequence[str]) -> str:
    more = len(words) - _LISTED
    return ", ".join(words[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def describe_problems(found: Mapping[str, Sequence[PluginInfo]]) -> Iterator[str]:
    """Say what failed, equal failures once.

    Args:
        found: The plugins by kernel; the kernel "" is this process.
    """
    said: dict[str, list[str]] = {}
    for kernel, infos in found.items():
        for info in infos:
            for problem in info.problems:
                said.setdefault(f"{info.name}: {problem}", []).append(kernel)
    for text, kernels in said.items():
        yield text if len(kernels) == len(found) else f"{label(kernels)}: {text}"


def describe_old(
    found: Mapping[str, Sequence[PluginInfo]], installed: Sequence[Found], settings: Settings
) -> Iterator[str]:
    """Say which kernels have other plugins than those that are installed, and what to do.

    Args:
        found: The plugins of the kernels of this machine, by kernel.
        installed: What a kernel would find now.
        settings: The mesh.
    """
    said: dict[str, str] = {}
    for kernel, infos in found.items():
        have = {info.name: info for info in infos}
        parts = []
        for one in installed:
            held = have.get(one.name)
            if held is None:
                parts.append(f"without {_versioned(one.name, one.version)}, which is installed")
            elif held.where == one.where and held.version != one.version:
                parts.append(f"with {_versioned(one.name, held.version)}, and {one.version} is installed")
        if parts:
            said[kernel] = "; ".join(parts)
    for text, kernels in names_by(said).items():
        restart = command_line(settings, f"restart {' '.join(kernels)}")
        verb = "runs" if len(kernels) == 1 else "run"
        yield f"{label(kernels)} {verb} {text}; a fresh instance has it, without the variables: {restart}"


def _versioned(name: str, version: str) -> str:
    return f"{name} {version}".rstrip()
