"""What `doctor` can see on this machine without asking anybody. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import os
import platform
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pyrokernel import systems
from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.front.reach import living_records
from pyrokernel.host.places import Places, filesystem_type, refuse_network_filesystem
from pyrokernel.settings import (
    ENV_PREFIX,
    MAX_SOCKET_PATH_BYTES,
    Settings,
    check_private,
    command_line,
    configuration_dir,
)
from pyrokernel.texts import label, plural, size
from pyrokernel.wire.endpoints import answers

_LIBRARIES = ("Pyro5", "serpent", "pluggy", "cmd2", "cloudpickle")
_TESTED = ((3, 11), (3, 13))
_FEW_DESCRIPTORS = 256
_LITTLE_DISK_BYTES = 512 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that `doctor` looked at.

    Attributes:
        level: "ok", "note" (worth knowing, nothing wrong) or "wrong".
        about: What was looked at, in a word or two.
        text: What was found.
        remedy: The command that mends it, "" when nothing is wrong.
    """

    level: str
    about: str
    text: str
    remedy: str = ""


def check_machine(settings: Settings) -> Iterator[Finding]:
    """Look at everything local."""
    yield _check_python()
    yield from _check_libraries()
    yield _check_descriptors()
    yield _check_runtime_dir(settings)
    yield from _check_state_dir(settings)
    yield from _check_sockets(settings)
    yield from find_other_meshes(settings)


def origins(settings: Settings, args: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Say of every setting which value it has, and where that comes from.

    Args:
        settings: In use.
        args: Command-line options by name; None for those not given.
    """
    path = args.get("config") or os.environ.get(ENV_PREFIX + "CONFIG")
    file = Path(path or configuration_dir() / "config.toml")
    in_file: Mapping[str, Any] = {}
    if file.exists():
        in_file = tomllib.loads(file.read_text())
    found = {}
    for name, value in settings.dump().items():
        variable = ENV_PREFIX + name.upper()
        if args.get(name) is not None:
            origin = f"--{name.replace('_', '-')}"
        elif variable in os.environ:
            origin = variable
        elif name in in_file:
            origin = str(file)
        elif name == "ns" and os.environ.get("PYRO_NS_HOST"):
            origin = "PYRO_NS_HOST"
        else:
            origin = "default"
        found[name] = (value, origin)
    return found


def _check_python() -> Finding:
    version = platform.python_version()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    text = f"{platform.python_implementation()} {version} on {system}"
    if sys.platform != "linux" or not _TESTED[0] <= sys.version_info[:2] <= _TESTED[1]:
        return Finding("note", "python", f"{text}: written for, not tested (docs/platforms.md)")
    return Finding("ok", "python", text)


def _check_libraries() -> Iterator[Finding]:
    found, missing = [], []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("ok", "libraries", ", ".join(found))
    if missing:
        yield Finding("wrong", "libraries", f"missing: {', '.join(missing)}", "python -m pip install pyrokernel")


def _check_descriptors() -> Finding:
    resource = systems.limits()
    if resource is None:
        return Finding("ok", "descriptors", "this system does not limit them")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    text = f"{shown} open files allowed"
    if soft != resource.RLIM_INFINITY and soft < _FEW_DESCRIPTORS:
        return Finding("wrong", "descriptors", f"only {text}: each kernel takes some", "ulimit -n 4096")
    return Finding("ok", "descriptors", text)


def _check_runtime_dir(settings: Settings) -> Finding:
    path = settings.mesh_runtime_dir
    elsewhere = f"export {ENV_PREFIX}RUNTIME_DIR=/tmp/$USER-pk"
    try:
        if len(os.fsencode(path / ("0" * 16 + ".sock"))) > MAX_SOCKET_PATH_BYTES:
            raise SettingsError(f"{path} is too long for the address of a socket")
        refuse_network_filesystem(path, "runtime_dir")
        check_private(path)
    except FileNotFoundError:
        return Finding("ok", "runtime dir", f"{path} (made by the first serve)")
    except SettingsError as error:
        return Finding("wrong", "runtime dir", str(error), elsewhere)
    except AccessRefusedError as error:
        return Finding("wrong", "runtime dir", str(error), _private_remedy(path) or elsewhere)
    return Finding("ok", "runtime dir", str(path))


def _private_remedy(path: Path) -> str:
    """Return what makes a directory private, "" when it is not ours to change."""
    info = path.lstat()
    return f"chmod 700 {path}" if info.st_uid == systems.own_uid() and path.is_dir() and not path.is_symlink() else ""


def _check_state_dir(settings: Settings) -> Iterator[Finding]:
    path = settings.mesh_state_dir
    remedy = f"export {ENV_PREFIX}STATE_DIR=/var/tmp/$USER-pk"
    try:
        refuse_network_filesystem(path, "state_dir")
    except SettingsError as error:
        yield Finding("wrong", "state dir", str(error), remedy)
        return
    parent = next(found for found in (path, *path.parents) if found.exists())
    if path.exists():
        try:
            check_private(path)
        except AccessRefusedError as error:
            yield Finding("wrong", "state dir", str(error), _private_remedy(path) or remedy)
            return
    if not os.access(parent, os.W_OK | os.X_OK):
        yield Finding("wrong", "state dir", f"{parent} cannot be written to", remedy)
        return
    free = shutil.disk_usage(parent).free
    text = f"{path} ({filesystem_type(path) or 'unknown file system'}, {size(free)} free)"
    if free < _LITTLE_DISK_BYTES:
        yield Finding("wrong", "state dir", f"{text}: journals need more", remedy)
    else:
        yield Finding("ok", "state dir", text)


def _check_sockets(settings: Settings) -> Iterator[Finding]:
    """Look for sockets that nobody listens at, and kernels that nobody watches."""
    places = Places.of(settings)
    living = living_records(settings, state=True)
    alive = [record for record in living if record.role == "kernel"]
    hosts_own = {settings.host_socket, places.name_server_socket}
    sockets = sorted(set(places.runtime.glob("*.sock")) - hosts_own)
    stale = [str(path) for path in sockets if not answers(path)]
    if stale:
        text = f"{plural(len(stale), 'socket')} left by kernels that are gone"
        yield Finding("wrong", "sockets", text, shlex.join(["rm", *stale]))
    if answers(settings.host_socket):
        return
    if living or any(path.exists() for path in hosts_own):
        text = "the host is gone without a goodbye"
        if alive:
            text += f"; {plural(len(alive), 'kernel')} without it: {label(record.name for record in alive)}"
        yield Finding("wrong", "host", text, command_line(settings, "serve --detach"))
    dead = len(list(places.records.glob("*.json"))) - len(living)
    if dead > 0:
        text = f"{plural(dead, 'kernel')} died while no host watched"
        yield Finding("note", "records", f"{text}; the next serve records that, and restarts by policy")


def find_other_meshes(settings: Settings) -> Iterator[Finding]:
    """List the other meshes that run on this machine, each with the command that reaches it."""
    own = settings.mesh_runtime_dir
    try:
        folders = sorted(path for path in own.parent.iterdir() if path.is_dir() and path != own)
    except OSError:
        return
    for folder in folders:
        try:
            other = dataclasses.replace(settings, mesh=folder.name, ns="")
            check_private(folder)
        except (SettingsError, AccessRefusedError, FileNotFoundError):
            continue  # no mesh of this user's
        alive = living_records(other)
        if alive or answers(other.host_socket):
            kernels = f": {label(record.name for record in alive)}" if alive else ""
            text = f"{folder.name!r} runs here too, with {plural(len(alive), 'kernel')}{kernels}"
            yield Finding("note", "other mesh", f"{text}; see: {command_line(other, 'ps')}")
