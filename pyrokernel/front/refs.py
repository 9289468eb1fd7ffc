"""`refs`: references to objects in kernels, and their end. Runs in the caller's process."""

from __future__ import annotations

import argparse
import sys
import time

from pyrokernel.errors import SettingsError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.texts import describe_silence, format_references, plural


def main(args: argparse.Namespace) -> int:
    """List the references, or revoke some."""
    if args.ids and args.action != "revoke":
        raise SettingsError("an ID goes with revoke: pyrokernel refs revoke ID")
    with open_mesh(settings_of(args)) as mesh:
        if args.action == "revoke":
            if not args.ids:
                raise SettingsError("say which: pyrokernel refs revoke ID; `pyrokernel refs` lists them")
            ended = {which: mesh.revoke(which) for which in args.ids}
            if args.json:
                say_json(ended)
            else:
                say(f"revoked {plural(sum(ended.values()), 'reference')}")
            return ExitCode.OK
        group = mesh.select(args.kernels or ())
        found, silent = group.list_references()
    if args.json:
        say_json([info.to_wire() for info in found])
    elif found:
        say(format_references(found, now=time.time(), wide=sys.stdout.isatty()))
    elif not silent:
        note("no references; kernel.ref('camera') makes one, and ref.url() one that can be mailed")
    if silent:
        complain(describe_silence(silent))
    return ExitCode.TIMEOUT if silent else ExitCode.OK
