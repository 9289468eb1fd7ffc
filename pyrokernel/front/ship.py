"""`ship` and `unship`: code as modules in kernels, now and at every save. Runs in the caller's process."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pyrokernel.client import shipping
from pyrokernel.client.group import Group
from pyrokernel.client.mesh import Mesh
from pyrokernel.client.shipping import PASTED, Module, read_modules
from pyrokernel.client.versions import (
    describe_differences,
    describe_given_back,
    describe_printed,
    describe_shipped,
    format_shipped,
)
from pyrokernel.client.watching import Watched, ship_at_saves
from pyrokernel.errors import PyrokernelError, ReplyTimeoutError, SettingsError, ShipError
from pyrokernel.front.exits import ExitCode, code_of
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.settings import command_line
from pyrokernel.texts import describe_silence, plural

_STDIN = "-"
_SLIPS = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What Python raises of source that is none."""


def main(args: argparse.Namespace) -> int:
    """Ship files, or list what was shipped."""
    _check(args)
    settings = settings_of(args)
    watched = Watched([] if _STDIN in args.paths else args.paths)  # before they are read: no save is missed
    try:
        modules = [] if args.watch or not args.paths else _read(args.paths, args.name)
        watched.check()
    except ShipError as error:
        complain(str(error))
        return ExitCode.USAGE
    with open_mesh(settings) as mesh:
        if args.watch:
            return _watch(mesh, watched, args)
        group = mesh.select(args.kernels or ())
        if not args.paths:
            return _list(group, as_json=args.json)
        try:
            return _ship(group, modules, as_json=args.json)
        except ShipError as error:
            complain(str(error))
            # A file that does not compile is its author's to mend, as one that cannot be read.
            return ExitCode.USAGE if isinstance(error.__cause__, _SLIPS) else ExitCode.FAILED


def unship(args: argparse.Namespace) -> int:
    """Take shipped modules away again."""
    names = [Path(name).stem for name in args.names]
    settings = settings_of(args)
    with open_mesh(settings) as mesh:
        found = mesh.select(args.kernels or ()).unship(*args.names)
    if args.json:
        say_json(found)
    else:
        for line in describe_given_back(found, names):
            say(line)
    unknown = [name for name in names if not any(name in had for had in found.values())]
    if unknown:
        complain(
            f"no kernel has {', '.join(unknown)}; what was shipped: {command_line(settings, 'ship')} (without a file)"
        )
    return ExitCode.NO_KERNEL if unknown else ExitCode.OK


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together.

    Raises:
        SettingsError: It does not.
    """
    from_stdin = _STDIN in args.paths
    if args.watch and (from_stdin or not args.paths):
        raise SettingsError("--watch watches files: name them")
    if args.name and not from_stdin:
        raise SettingsError("--name names what comes from standard input: ship --name NAME -")
    if from_stdin and (sys.stdin is None or sys.stdin.isatty()):
        raise SettingsError("- ships source from standard input, and there is none: ship --name NAME - < FILE")


def _read(paths: Sequence[str], name: str) -> list[Module]:
    # A text is source, a Path is a file: which of both a word is must not be guessed here.
    return read_modules([sys.stdin.read() if path == _STDIN else Path(path) for path in paths], name or PASTED)


def _ship(group: Group, modules: Sequence[Module], *, as_json: bool) -> ExitCode:
    """Ship modules to kernels, and say what became of them."""
    printed: dict[str, str] = {}
    found = shipping.ship(group, modules, None, printed)
    if as_json:
        say_json({name: [one.to_wire() for one in ones] for name, ones in found.items()})
        return ExitCode.OK
    for line in [*describe_printed(printed), *describe_shipped(found)]:
        say(line)
    return ExitCode.OK


def _list(group: Group, *, as_json: bool) -> ExitCode:
    silent: Sequence[str] = ()
    try:
        found = group.shipped()
    except ReplyTimeoutError as error:
        found, silent = {}, error.missing or ()
        answering = [name for name in group.names if name not in silent]
        if answering:
            found = group[answering].shipped()
    if as_json:
        say_json({name: [one.to_wire() for one in ones] for name, ones in found.items()})
    elif any(found.values()):
        say(format_shipped(found, now=time.time()))
        for line in describe_differences(found):
            note(line)
    elif found:
        note(f"nothing was shipped yet; do it: {command_line(group.mesh.settings, 'ship FILE.py')}")
    if silent:
        complain(describe_silence(silent))
    return ExitCode.TIMEOUT if silent else ExitCode.OK


def _watch(mesh: Mesh, watched: Watched, args: argparse.Namespace) -> ExitCode:
    """Ship, and ship again what is saved, until Ctrl-C; what fails is shown, and does not end it."""

    def ship(modules: Sequence[Module]) -> None:
        # Chosen anew each time: kernels come, go and are restarted while one edits.
        _ship(mesh.select(args.kernels or ()), modules, as_json=args.json)

    def fail(error: PyrokernelError) -> None:
        complain(str(error))
        if code_of(error) not in (ExitCode.CODE_RAISED, ExitCode.FAILED):
            note("the next save tries again")

    def began() -> None:
        if not args.json:
            note(f"watching {plural(len(watched.paths), 'path')}; Ctrl-C ends it, and kernels keep what they have")

    ship_at_saves(watched, ship, fail, began)
    return ExitCode.OK
