"""`ps`: what the kernels of the mesh do. Runs in the caller's process."""

from __future__ import annotations

import argparse
import time

from pyrokernel.front.exits import ExitCode
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.settings import command_line
from pyrokernel.texts import format_kernels


def main(args: argparse.Namespace) -> int:
    """List the kernels."""
    settings = settings_of(args)
    with open_mesh(settings) as mesh:
        roster = mesh.roster()
        infos = roster.described()
    for host, error in roster.silent.items():
        complain(f"host {host!r} does not answer: {error}")
    if args.json:
        say_json([info.to_wire() for info in infos])
    elif infos:
        say(format_kernels(infos, now=time.time()))
    else:
        note(f"mesh {settings.mesh!r} has no kernels; start some: {command_line(settings, 'serve -n 2')}")
    return ExitCode.FAILED if roster.silent else ExitCode.OK
