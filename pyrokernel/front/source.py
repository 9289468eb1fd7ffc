"""What `run` and `call` send. Runs in the caller's process."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Protocol

from pyrokernel.errors import SettingsError
from pyrokernel.front.terminal import has_person
from pyrokernel.scripts import Source, read_script


class Sent(Protocol):
    """What is sent as a cell."""

    @property
    def text(self) -> str:
        """The code, or how a call reads."""

    @property
    def is_stdin(self) -> bool:
        """Whether it came from standard input, which has no answers to input() then."""

    def options(self) -> dict[str, Any]:
        """Return what kernels are told beside the text."""


def read_source(args: argparse.Namespace) -> Source:
    """Return the code to run.

    Raises:
        SettingsError: There is none, there is too much, or the file cannot be read.
    """
    if args.code is not None:
        if args.source is not None:
            raise SettingsError(f"run either the file {args.source!r} or the code of -c, not both")
        return Source(args.code)
    if args.source in (None, "-"):
        if args.source is None and (has_person() or sys.stdin is None):
            raise SettingsError("nothing to run: give a FILE, -c CODE, or - and code on standard input")
        return Source(sys.stdin.read(), "<stdin>", ("-", *args.arguments), is_stdin=True)
    return read_script(args.source, args.arguments)
