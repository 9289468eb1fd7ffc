"""From a command line to settings, mesh, hosts and kernels. Runs in the caller's process."""

from __future__ import annotations

import argparse
import fnmatch
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyrokernel import settings as settings_module
from pyrokernel.client.links import Link
from pyrokernel.client.mesh import Mesh, connect
from pyrokernel.errors import KernelConnectionError, KernelNotFoundError, NameServerNotFoundError
from pyrokernel.host.places import Places
from pyrokernel.host.processes import is_same
from pyrokernel.host.registry import Record, Registry
from pyrokernel.messages import KernelInfo
from pyrokernel.settings import ENV_PREFIX, Settings
from pyrokernel.texts import label

_PATIENCE_SECONDS = 5.0
"""What an answer may take beyond the time that the work is given."""


def settings_of(args: argparse.Namespace, mesh_file: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings: configuration file, mesh file, environment, command line; later wins.

    Args:
        args: Has mesh, ns and config.
        mesh_file: Settings that a mesh file gives.
    """
    beneath = {key: value for key, value in (mesh_file or {}).items() if ENV_PREFIX + key.upper() not in os.environ}
    given = {"mesh": args.mesh, "ns": args.ns, "portable": getattr(args, "portable", None)}
    return settings_module.load(
        file=args.config, **{**beneath, **{key: value for key, value in given.items() if value is not None}}
    )


def command_line(settings: Settings, words: str) -> str:
    """Return the command that does something else to the same mesh."""
    usual = settings_module.load()
    options = []
    for name in ("mesh", "ns"):
        if getattr(settings, name) != getattr(usual, name):
            options += [f"--{name}", getattr(settings, name)]
    return " ".join(["pyrokernel", *map(shlex.quote, options), words])


def open_mesh(settings: Settings) -> Mesh:
    """Connect to the mesh.

    Raises:
        NameServerNotFoundError: It does not run; the message has the command that starts it.
    """
    try:
        return connect(settings)
    except NameServerNotFoundError as error:
        if settings.ns:
            raise
        serve = command_line(settings, "serve --detach")
        alive = living_records(settings)
        if alive:
            names = label(record.name for record in alive)
            message = (
                f"mesh {settings.mesh!r} has no host, but its kernels live ({names}); watch over them again: {serve}"
            )
        else:
            message = f"mesh {settings.mesh!r} is not running on this machine; start it: {serve}"
        raise NameServerNotFoundError(message) from error


def living_records(settings: Settings) -> list[Record]:
    """List the kernels of this machine that are alive, with a host or without one."""
    records = Registry(Places.of(settings).records).read_all()
    return [record for record in records if is_same(record.pid, record.start_time)]


def survey_hosts(mesh: Mesh) -> tuple[list[KernelInfo], dict[str, Link], list[str]]:
    """Ask every host for its kernels.

    Returns:
        The kernels, by host and in the order of their start; the hosts that answer, by name; the others' names.
    """
    infos: list[KernelInfo] = []
    hosts: dict[str, Link] = {}
    silent: list[str] = []
    for host in mesh.hosts():
        try:
            wires = mesh.ask_host(host, "list_kernels")
        except (KernelConnectionError, OSError):
            silent.append(host.name)
            continue
        hosts[host.name] = host
        infos += [KernelInfo.from_wire(wire) for wire in wires]
    return infos, hosts, silent


def choose(infos: Sequence[KernelInfo], words: Iterable[str]) -> list[KernelInfo]:
    """Return the kernels that words mean: a name, a pattern, "tag:WORD" or "all"; also dead ones.

    Raises:
        KernelNotFoundError: A word means none.
    """
    chosen: dict[str, KernelInfo] = {}
    for word in words:
        found = [info for info in infos if _means(word, info)]
        if not found:
            names = ", ".join(info.name for info in infos) or "none"
            raise KernelNotFoundError(f"no kernel matches {word!r}; there are: {names}")
        chosen.update((info.name, info) for info in found)
    return list(chosen.values())


def tell_hosts(
    mesh: Mesh, infos: Iterable[KernelInfo], hosts: Mapping[str, Link], method: str, *args: Any, timeout: float
) -> list[dict[str, Any]]:
    """Call a method of each host with the names of its kernels; return what all answered, joined.

    Args:
        timeout: Seconds that the work of each host may take.

    Raises:
        HostError: As a host says.
    """
    by_host: dict[str, list[str]] = {}
    for info in infos:
        by_host.setdefault(info.host, []).append(info.name)
    answers: list[dict[str, Any]] = []
    for host, names in by_host.items():
        answers += mesh.ask_host(hosts[host], method, names, *args, timeout=timeout + _PATIENCE_SECONDS)
    return answers


def split_words(words: Iterable[str] | None) -> list[str]:
    """Take apart options that may be repeated and may hold several words with commas between them."""
    return [word for given in words or () for word in given.split(",") if word]


def _means(word: str, info: KernelInfo) -> bool:
    if word == "all":
        return True
    if word.startswith("tag:"):
        return word.removeprefix("tag:") in info.tags
    return fnmatch.fnmatchcase(info.name, word)
