"""`nameserver backup` and `restore`: the file of names, also while it is in use. Runs in the caller's process."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from pyrokernel.errors import SettingsError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.terminal import note, say
from pyrokernel.texts import plural
from pyrokernel.wire.names_file import backup_names, restore_names


def backup(args: argparse.Namespace) -> int:
    """Copy the names to a file, while the name server that has them goes on."""
    source, target = _file_of(args), _given(args, "write to")
    if source == target:
        raise SettingsError(f"{target} is the file of names itself; write the backup to another one")
    say(f"{target}: {plural(backup_names(source, target), 'name')}")
    return ExitCode.OK


def restore(args: argparse.Namespace) -> int:
    """Put a backup in place of the names; no name server may have them meanwhile."""
    target, source = _file_of(args), _given(args, "restore")
    if source == target:
        raise SettingsError(f"{target} is the file of names itself; name the backup")
    number, aside = restore_names(source, target)
    if aside is not None:
        note(f"what was there is kept in {aside}")
    say(f"{target}: {plural(number, 'name')}; the next name server with -s sql:{target} begins with them")
    return ExitCode.OK


ACTIONS_ON_FILES: dict[str, Callable[[argparse.Namespace], int]] = {"backup": backup, "restore": restore}


def _file_of(args: argparse.Namespace) -> Path:
    kind, _, path = args.storage.partition(":")
    if kind != "sql" or not path:
        raise SettingsError(f"say where the names are kept: pyrokernel nameserver {args.action} BACKUP -s sql:FILE")
    return _absolute(path)


def _given(args: argparse.Namespace, what: str) -> Path:
    if not args.file:
        raise SettingsError(f"say which file to {what}: pyrokernel nameserver {args.action} BACKUP -s sql:FILE")
    return _absolute(args.file)


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))
