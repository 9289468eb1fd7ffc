"""`refs`: references to objects in the kernels of the group, and their end. Runs in the shell process."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from cmd2 import Cmd2ArgumentParser, CommandSet, with_argparser

from pyrokernel.texts import describe_silence, format_references, plural

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class


def _parser() -> Cmd2ArgumentParser:
    parser = Cmd2ArgumentParser(description="List the references to objects in the kernels, or revoke some.")
    parser.add_argument("action", nargs="?", choices=("list", "revoke"), default="list", help="list or revoke")
    parser.add_argument("ids", nargs="*", metavar="ID", help="which to revoke: the id from the list, or a URL")
    return parser


class ReferenceCommands(CommandSet["Shell"]):
    """See who has references to what."""

    DEFAULT_CATEGORY = "Data"

    @with_argparser(_parser)
    def do_refs(self, args: argparse.Namespace) -> None:
        """List the references to objects in the kernels of the group; refs revoke ID ends one."""
        group = self._cmd.target.anew()
        if args.action == "revoke" and args.ids:
            ended = sum(group.revoke(which) for which in args.ids)
            self._cmd.print_lines([f"revoked {plural(ended, 'reference')}"])
            self._cmd.last_result = ended
            return
        if args.action == "revoke" or args.ids:
            self._cmd.fail("say which: `refs revoke ID`; `refs` lists them")
            return
        found, silent = group.list_references()
        if found:
            lines = format_references(found, now=time.time(), wide=self._cmd.stdout.isatty())
            self._cmd.print_lines([lines])
        elif not silent:
            self._cmd.print_lines(["no references; `kernel.ref('camera')` makes one, in `here` or any program"])
        if silent:
            self._cmd.fail(describe_silence(silent))
        self._cmd.last_result = [info.id for info in found]
