"""`shell`: make sure that a mesh runs, then hand over to the interactive shell. Runs in the shell process."""

from __future__ import annotations

import argparse
import os
import sys

from pyrokernel.errors import NameServerNotFoundError
from pyrokernel.front.environment import forget_environment
from pyrokernel.front.reach import living_records, open_mesh, settings_of
from pyrokernel.front.terminal import note
from pyrokernel.messages import KernelSpec
from pyrokernel.settings import Settings, command_line

_ASKED_OF_SSHD = "SSH_ORIGINAL_COMMAND"
"""The command of whoever comes by ssh, in whose place sshd starts this shell: here it is one of its lines."""


def main(args: argparse.Namespace) -> int:
    """Start the shell, and a mesh for it if there is none."""
    command = args.command
    if args.restricted and not args.trust_environment:
        if command is None and args.script is None:
            command = os.environ.get(_ASKED_OF_SSHD) or None
        forget_environment(os.environ)
    settings = settings_of(args)
    if sys.stdout is None:
        sys.exit("pyrokernel: standard output is closed")
    # None when it was closed, as by `<&-`.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    try:
        open_mesh(settings).close()
    except NameServerNotFoundError:
        if settings.ns or settings.act_for:  # not ours to replace, or of somebody for whom the account is not used
            raise
        _start_mesh(settings)
    from pyrokernel.shell.app import run_shell  # cmd2 takes a third of a second to import

    return run_shell(
        settings,
        args.words,
        command=command,
        script=args.script,
        restricted=args.restricted,
        startup=args.startup,
    )


def _start_mesh(settings: Settings) -> None:
    from pyrokernel.front.serve import start_detached  # what starts a mesh is not loaded where one runs

    specs = [] if living_records(settings) else [KernelSpec(name="k0")]
    report = start_detached(settings, specs)
    names = ", ".join(info["name"] for info in report["kernels"])
    note(
        f"no mesh was running: started {settings.mesh!r} with {names}; it stays until {command_line(settings, 'stop')}"
    )
