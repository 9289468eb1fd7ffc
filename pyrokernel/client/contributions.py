"""What plugins and shipped files contribute to kernels, in the words of both front ends.

Runs in the caller's process.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pyrokernel.client.group import Group
from pyrokernel.client.listing import ask_all
from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import PyrokernelError
from pyrokernel.messages import CommandInfo, PluginInfo
from pyrokernel.plugins import LOAD_SECONDS, PREFIX, Found, find
from pyrokernel.texts import label, names_by, one_line, table, wide_table

_COMMANDS_HEADER = ("NAME", "SIGNATURE", "OWNER", "KERNELS", "ABOUT")
_PLUGINS_HEADER = ("NAME", "VERSION", "STATE", "WHERE", "COMMANDS", "NAMES", "HOOKS", "FROM")
_SIGNATURE_WIDTH = 48
_LONG = 1000
_LISTED = 5


def format_commands(found: Mapping[str, Iterable[CommandInfo]], *, wide: bool = True) -> str:
    """Lay out commands, one a line; kernels are named where not all have it.

    Args:
        found: By kernel, as `Commands.by_kernel` returns them.
        wide: Cut to the width of the terminal.
    """
    # A command that takes different arguments on some kernels is another one there.
    kernels: dict[tuple[str, str, str], list[str]] = {}
    abouts: dict[tuple[str, str, str], str] = {}
    for kernel, infos in found.items():
        for info in infos:
            key = (info.name, info.signature, info.owner)
            kernels.setdefault(key, []).append(kernel)
            abouts[key] = info.summary
    rows = [
        (
            key[0],
            one_line(key[1], _SIGNATURE_WIDTH if wide else _LONG),
            key[2],
            "" if len(kernels[key]) == len(found) else label(kernels[key]),
            one_line(abouts[key], _LONG),
        )
        for key in sorted(kernels)
    ]
    return _laid_out(_COMMANDS_HEADER, rows, ("OWNER", "KERNELS"), wide)


def format_plugins(found: Mapping[str, Sequence[PluginInfo]], *, wide: bool = True) -> str:
    """Lay out plugins, one line for each state that one is in; where it is in that is named unless it is everywhere.

    Args:
        found: The plugins by kernel; a process that is none may be among them by its name.
        wide: Cut to the width of the terminal.
    """
    states: dict[str, tuple[PluginInfo, list[str]]] = {}
    for kernel, infos in found.items():
        for info in infos:
            states.setdefault(repr(info), (info, []))[1].append(kernel)
    rows = [
        (
            info.name,
            info.version,
            _state(info),
            "" if len(kernels) == len(found) else label(kernels),
            _listed(info.commands),
            _listed(info.names),
            _listed([hook.removeprefix(PREFIX) for hook in info.hooks]),
            f"{info.distribution} in {info.where}" if info.distribution else info.where,
        )
        for info, kernels in sorted(states.values(), key=lambda state: state[0].name)
    ]
    return _laid_out(_PLUGINS_HEADER, rows, ("HOOKS", "NAMES"), wide)


def _laid_out(header: Sequence[str], rows: Sequence[Sequence[str]], spared: Sequence[str], wide: bool) -> str:
    return wide_table(header, rows, spared=spared) if wide else table(header, rows)


def _state(info: PluginInfo) -> str:
    if not info.loaded:
        return "failed"
    return "loaded, with problems" if info.problems else "loaded"


def _listed(words: Sequence[str]) -> str:
    more = len(words) - _LISTED
    return ", ".join(words[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def describe_problems(found: Mapping[str, Sequence[PluginInfo]]) -> Iterator[str]:
    """Say what failed, equal failures once.

    Args:
        found: As for `format_plugins`.
    """
    said: dict[str, list[str]] = {}
    for kernel, infos in found.items():
        for info in infos:
            for problem in info.problems:
                said.setdefault(f"{info.name}: {problem}", []).append(kernel)
    for text, kernels in said.items():
        yield text if len(kernels) == len(found) else f"{label(kernels)}: {text}"


def ask_plugins(group: Group, timeout: float) -> dict[str, list[PluginInfo]]:
    """Return the plugins of each kernel that answers.

    Args:
        group: The kernels.
        timeout: Seconds for an answer, to which comes what a plugin may take that hangs.
    """
    values, _, _ = ask_all(group, "plugins", timeout=timeout + LOAD_SECONDS)
    return {name: [PluginInfo.from_wire(one) for one in ones] for name, ones in values.items()}


def find_old(
    mesh: Mesh, found: Mapping[str, Sequence[PluginInfo]], restart: Callable[[Sequence[str]], str]
) -> list[str]:
    """Say which kernels of this machine have other plugins than those that are installed, and what to do.

    Args:
        mesh: Theirs; its host is asked where it looks for plugins, and which it goes without.
        found: The plugins by kernel.
        restart: Returns the command that restarts kernels.
    """
    try:
        hosts = {info.name: info.host for info in mesh.ps()}
        there = _settings_of_host(mesh)
    except PyrokernelError:  # without a host there is nobody who could start a fresh instance
        return []
    ours = {name: infos for name, infos in found.items() if hosts.get(name) == mesh.settings.host_name}
    plugins = {name: there[name] for name in ("plugins_dir", "no_plugin") if name in there}
    installed = find(dataclasses.replace(mesh.settings, **plugins))
    python = there.get("python", "")
    return list(describe_old(ours, installed, restart, python="" if is_this(python) else python))


def _settings_of_host(mesh: Mesh) -> dict[str, Any]:
    """Return what the host of this machine says of plugins; {} of one that is older than that answer."""
    for link in mesh.hosts():
        if link.name == mesh.settings.host_name:
            return dict(mesh.ask_host(link, "describe").get("settings", {}))
    return {}


def is_this(python: str) -> bool:
    """Whether a Python has the packages of this one: it lies in the same folder, under this name or another."""

    def place(path: str) -> tuple[str, str]:
        return os.path.realpath(os.path.dirname(path)), os.path.realpath(path)

    return not python or place(python) == place(sys.executable)


def describe_old(
    found: Mapping[str, Sequence[PluginInfo]],
    installed: Sequence[Found],
    restart: Callable[[Sequence[str]], str],
    *,
    python: str = "",
) -> Iterator[str]:
    """Say which kernels have other plugins than those that are installed, and what to do.

    Args:
        found: The plugins of the kernels of this machine, by kernel.
        installed: What a kernel would find now if it ran in this Python.
        restart: Returns the command that restarts kernels.
        python: In which Python kernels run, where that is another one.
    """
    elsewhere = [one for one in installed if one.distribution and python]
    here = [one for one in installed if one not in elsewhere]
    for text, kernels in names_by({kernel: _difference(infos, here) for kernel, infos in found.items()}).items():
        if text:
            yield f"{_run(kernels)} {text}; a fresh instance has it, without the variables: {restart(kernels)}"
    for lacking, kernels in names_by({kernel: _lacking(infos, elsewhere) for kernel, infos in found.items()}).items():
        if lacking:
            names = ", ".join(_versioned(one.name, one.version) for one in lacking)
            packages = " ".join(one.distribution for one in lacking)
            yield (
                f"{_run(kernels)} without {names}, which is installed for {sys.executable}; kernels have what is "
                f"installed for theirs: {python} -m pip install {packages}"
            )


def _difference(infos: Sequence[PluginInfo], installed: Sequence[Found]) -> str:
    """Say what a kernel has not, or in another version; "" when it has what is installed."""
    have = {info.name: info for info in infos}
    parts = [f"without {_versioned(one.name, one.version)}, which is installed" for one in _lacking(infos, installed)]
    for one in installed:
        held = have.get(one.name)
        if held is not None and held.where == one.where and held.version != one.version:
            parts.append(f"with {_versioned(one.name, held.version)}, and {one.version} is installed")
    return "; ".join(parts)


def _lacking(infos: Sequence[PluginInfo], installed: Sequence[Found]) -> tuple[Found, ...]:
    have = {info.name for info in infos}
    return tuple(one for one in installed if one.name not in have)


def _run(kernels: Sequence[str]) -> str:
    return f"{label(kernels)} {'runs' if len(kernels) == 1 else 'run'}"


def _versioned(name: str, version: str) -> str:
    return f"{name} {version}".rstrip()
