"""`commands`: what can be called on kernels by name. Runs in the caller's process."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pyrokernel.client.contributions import format_commands
from pyrokernel.errors import SettingsError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.stub import stub_of
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.settings import command_line
from pyrokernel.texts import describe_silence, plural


def main(args: argparse.Namespace) -> int:
    """List the commands, or write what type checkers and editors read of them."""
    settings = settings_of(args)
    with open_mesh(settings) as mesh:
        group = mesh.select(args.kernels or ())
        found = group.commands.by_kernel()
    silent = [name for name in group.names if name not in found]
    if args.stub:
        infos = {info.name: info for infos in found.values() for info in infos}
        _write(args.stub, stub_of(infos.values(), settings.mesh, Path(args.stub).stem))
        note(f"{args.stub}: {plural(len(infos), 'command')}")
    elif args.json:
        say_json({name: [info.to_wire() for info in infos] for name, infos in found.items()})
    elif any(found.values()):
        say(format_commands(found, wide=sys.stdout.isatty()))
    elif found:
        note(f"no commands; they come with plugins and what is shipped: {command_line(settings, 'ship FILE.py')}")
    if silent:
        complain(describe_silence(silent))
    return ExitCode.TIMEOUT if silent else ExitCode.OK


def _write(file: str, text: str) -> None:
    try:
        Path(file).expanduser().write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot write {file}: {error.strerror}") from error
