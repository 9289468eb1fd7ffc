"""`call`: run a command of kernels, whose parameters are words and options here. Runs in the caller's process."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pyrokernel.client.commands import one_for
from pyrokernel.client.group import Group
from pyrokernel.client.parcels import pack_arguments
from pyrokernel.errors import CommandNotFoundError, PyrokernelError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.parsing import Parser
from pyrokernel.front.reach import in_time, open_mesh, settings_of
from pyrokernel.front.run import Run
from pyrokernel.front.terminal import complain
from pyrokernel.front.writer import LiveWriter, Writer
from pyrokernel.messages import CommandInfo
from pyrokernel.texts import describe_silence
from pyrokernel.wording import add_arguments, arguments_from, without_arguments, written

_HINTS = 3


def main(args: argparse.Namespace) -> int:
    """Call a command on the kernels that are meant."""
    begun = time.monotonic()
    settings = in_time(settings_of(args), args.timeout)
    with open_mesh(settings) as mesh:
        group = mesh.select(args.kernels or ())
        by_kernel = group.commands.by_kernel()
        silent = [name for name in group.names if name not in by_kernel]
        if silent:
            complain(describe_silence(silent))
            return ExitCode.TIMEOUT
        try:
            info = one_for(args.name, by_kernel, "-k {}")
        except CommandNotFoundError as error:
            complain(f"{error}{_near(error)}")
            return ExitCode.NO_KERNEL
        values, options = _read(info, args.arguments)
        sent = Call(info.name, values, options, want="value" if args.json else "text")
        writer: Writer = LiveWriter(group.names, sys.stderr if args.json else sys.stdout, sys.stderr)
        run = Run(group, sent, args, begun, writer)
        with run.minding_interrupts():
            code = run.follow()
        if args.json:
            said = _say_values(group, run)
            code = code or said
    return code


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a command, as `Run` sends it.

    Attributes:
        name: Of the command.
        args, kwargs: Its arguments.
        want: What of the result is of use: "text", or "value".
    """

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    want: str = "text"
    is_stdin: bool = False

    @property
    def text(self) -> str:
        """How the call reads."""
        return written(self.name, self.args, self.kwargs)

    def options(self) -> dict[str, Any]:
        """Return what kernels are told beside the text."""
        return {"call": [f":{self.name}", pack_arguments(self.args, self.kwargs)], "want": self.want}


def parser_of(info: CommandInfo) -> Parser:
    """Make the parser of a command, whose help is its docstring."""
    parser = Parser(
        prog=f"pyrokernel call {info.name}",
        description=without_arguments(info.doc) or f"Call {info.name}{info.signature}.",
        epilog=f"{info.name}{info.signature}   ({info.owner})",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, info.parameters)
    return parser


def _read(info: CommandInfo, words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    return arguments_from(parser_of(info).parse_args(words), info.parameters)


def _near(error: CommandNotFoundError) -> str:
    near = difflib.get_close_matches(error.name, error.names, n=_HINTS)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _say_values(group: Group, run: Run) -> ExitCode:
    """Write the value of each kernel as a line of JSON."""
    code = ExitCode.OK
    for name, cell in run.ended.items():
        said: dict[str, Any] = {"kernel": name}
        try:
            reply = cell.reply(group.mesh.settings.timeout, check=False)
            said["status"] = reply.status
            if reply.status == "ok":
                said["value"] = reply.result
            else:
                said |= {"ename": reply.ename, "evalue": reply.evalue}
        except PyrokernelError as error:  # the value cannot travel, or the kernel has died since
            said["error"] = str(error)
            code = ExitCode.FAILED
        sys.stdout.write(_dumped(said) + "\n")
    sys.stdout.flush()
    return code


def _dumped(said: Mapping[str, Any]) -> str:
    try:
        return json.dumps(said, default=_as_json)
    except (TypeError, ValueError):  # keys that JSON has not, or a list that contains itself
        return json.dumps({**said, "value": repr(said["value"])})


def _as_json(value: Any) -> Any:
    """Return what stands for a value that JSON does not know: an array's list, else how it is shown."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else repr(value)
