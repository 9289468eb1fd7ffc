"""`state`: the shared state as files: exported, backed up, restored, measured. Runs in the caller's process."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyrokernel.client.links import Link
from pyrokernel.client.mesh import Mesh
from pyrokernel.client.state_texts import describe_spaces
from pyrokernel.errors import AccessRefusedError, NameServerNotFoundError, SettingsError, StateError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.reach import living_records, open_mesh, settings_of
from pyrokernel.front.state import opened
from pyrokernel.front.terminal import has_person, note, say, say_json
from pyrokernel.host.places import Places
from pyrokernel.messages import STOP_SECONDS
from pyrokernel.settings import Settings, command_line
from pyrokernel.state.backups import Backups, restore
from pyrokernel.texts import one_line, plural, size, span, table

_SURVIVES = {
    "process": "a write that was answered survives the end of any process",
    "power": "a write that was answered survives a power cut",
}


def export(args: argparse.Namespace) -> int:
    """Write keys to a file."""
    with opened(args) as shared:
        number = shared.export_to(Path(args.file).expanduser(), args.prefix)
    note(f"{args.file}: {plural(number, 'key')}")
    return ExitCode.OK


def import_file(args: argparse.Namespace) -> int:
    """Set the keys of a file."""
    with opened(args) as shared:
        number = shared.import_from(Path(args.file).expanduser(), replace=args.replace, trust=args.trust)
    note(f"{plural(number, 'key')} set")
    return ExitCode.OK


def backup(args: argparse.Namespace) -> int:
    """Make a backup."""
    with open_mesh(settings_of(args)) as mesh:
        say(mesh.shared.backup(args.name))
    return ExitCode.OK


def backups(args: argparse.Namespace) -> int:
    """List backups; the service is not asked, for it may be in need of one."""
    settings = settings_of(args)
    with _kept(settings) as (directory, _, _):
        found: list[dict[str, Any]] = [
            {"name": path.name, "path": str(path), "at": path.stat().st_mtime, "bytes": disk_bytes([path])}
            for path in reversed(Backups(directory).all())
        ]
    if args.json:
        say_json(found)
    elif found:
        now = time.time()
        rows = [(one_line(one["name"]), span(max(0.0, now - one["at"])), size(one["bytes"])) for one in found]
        say(table(("NAME", "AGE", "SIZE"), rows, right=("AGE", "SIZE")))
    else:
        note(f"no backup in {directory / 'backups'}; make one: {command_line(settings, 'state backup')}")
    return ExitCode.OK


def restore_backup(args: argparse.Namespace) -> int:
    """Put a backup in place of the shared state."""
    settings = settings_of(args)
    if settings.state_store != "sqlite":
        raise StateError(f"the store {settings.state_store!r} (setting state_store) is restored with its own tools")
    with _kept(settings) as (directory, mesh, host):
        chosen = _find_backup(directory, args.backup, settings)
        if not args.yes and not has_person():
            raise SettingsError("restore replaces what is there now; where nobody can be asked, say so with --yes")
        if not args.yes and not _agreed(chosen, settings):
            note("nothing was changed")
            return ExitCode.REFUSED

        def stop() -> None:
            if mesh is not None and host is not None:
                mesh.ask_host(host, "stop_state", timeout=STOP_SECONDS + 5)

        aside = restore(directory, chosen, stop)
        note(f"what was there is kept in {aside}")
        if mesh is None:
            say(f"{chosen.name} is in place; the next serve begins with it")
        else:
            about = mesh.shared.describe()
            say(f"{chosen.name} is in place: {describe_spaces(about['keys'])}, revision {about['revision']}")
    return ExitCode.OK


def status(args: argparse.Namespace) -> int:
    """Say where it is, how much it is, and how safe."""
    with open_mesh(settings_of(args)) as mesh:
        begun = time.perf_counter()
        about = mesh.shared.describe()
        took = time.perf_counter() - begun
    directory = Path(about["directory"])
    found = Backups(directory).all()
    kept = list(found)
    told: dict[str, Any] = {
        **about,
        "bytes": disk_bytes(path for path in directory.iterdir() if path != Path(about["backups"])),
        "backup_bytes": disk_bytes(kept),
        "newest_backup": str(found[-1]) if found else "",
    }
    if args.json:
        say_json(told)
        return ExitCode.OK
    rows = [
        ("where", str(directory)),
        ("kept by", f"host {about['host']}, process {about['pid']}, which answers in {span(took)}"),
        ("keys", describe_spaces(about["keys"])),
        ("revision", str(about["revision"])),
        ("durability", f"{about['durability']}: {_SURVIVES.get(about['durability'], '')}"),
        ("on disk", f"{size(told['bytes'])}, and {size(told['backup_bytes'])} in {plural(len(found), 'backup')}"),
        ("newest backup", describe_backup(found[-1]) if found else "none"),
    ]
    for name, text in rows:
        say(f"{name:<14} {text}")
    return ExitCode.OK


def describe_backup(path: Path) -> str:
    """Name a backup, with its age."""
    return f"{one_line(path.name)}, {span(max(0.0, time.time() - path.stat().st_mtime))} old"


def disk_bytes(paths: Iterator[Path] | list[Path]) -> int:
    """Return what files, and those in folders, take; what has several names counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in paths:
        inside = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
        for file in inside or [path]:
            with contextlib.suppress(FileNotFoundError):  # taken out of use since
                about = file.lstat()
                sizes[about.st_dev, about.st_ino] = about.st_size
    return sum(sizes.values())


@contextlib.contextmanager
def _kept(settings: Settings) -> Iterator[tuple[Path, Mesh | None, Link | None]]:
    """Find the directory of the shared state; with the mesh and the host that keeps it, None where no host runs.

    Raises:
        AccessRefusedError: No host runs, and yet a process uses it.
    """
    try:
        mesh = open_mesh(settings)
    except NameServerNotFoundError:
        if settings.ns:
            raise
        mesh = None
    if mesh is None or not mesh.hosts():
        if any(record.role == "state" for record in living_records(settings, state=True)):
            serve = command_line(settings, "serve --detach")
            raise AccessRefusedError(f"the shared state is in use, and its host is gone; first run: {serve}")
        yield Places.of(settings).shared, None, None
        return
    with mesh:
        host = mesh.state_host()
        yield Path(mesh.ask_host(host, "describe")["shared_dir"]), mesh, host


def _find_backup(directory: Path, word: str, settings: Settings) -> Path:
    """Return the backup that a word means: one of ours by its name, or a folder.

    Raises:
        StateError: There is none.
    """
    named = directory / "backups" / word
    if os.sep not in word and named.exists():
        return named
    given = Path(word).expanduser()
    if given.exists():
        return given
    raise StateError(f"there is no backup {word!r}; see: {command_line(settings, 'state backups')}")


def _agreed(backup: Path, settings: Settings) -> bool:
    """Ask the person at the terminal."""
    note(f"{describe_backup(backup)}, is to take the place of the shared state of mesh {settings.mesh!r};")
    note("what was written since is gone from it then, and kept aside")
    try:
        return input("go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
