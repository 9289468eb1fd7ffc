"""The `pyrokernel` command: its parser, and what becomes of errors. Runs in the caller's process.

Each subcommand lives in `pyrokernel.front`; it is imported when it is called, so that
`--help` and TAB cost nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TypeAlias

from pyrokernel import __version__
from pyrokernel.errors import PyrokernelError
from pyrokernel.front.exits import ExitCode, code_of
from pyrokernel.front.terminal import complain, prepare

__all__ = ["ExitCode", "build_parser", "main"]

_TARGETS = 'a name, a pattern such as "gpu-*", "tag:WORD" or "all"'


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    args = build_parser().parse_args(argv)
    prepare()
    level = {0: logging.WARNING, 1: logging.INFO}.get(args.verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    module, _, function = args.target.partition(":")
    try:
        code = int(getattr(importlib.import_module(f"pyrokernel.front.{module}"), function or "main")(args))
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more; without this the interpreter would complain at its own last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.PIPE_CLOSED
    except (PyrokernelError, OSError, KeyboardInterrupt) as error:
        return _report(error, show_traceback=args.verbose >= 2)
    return code


def _report(error: BaseException, *, show_traceback: bool) -> int:
    if show_traceback:
        traceback.print_exception(error)
    with contextlib.suppress(BrokenPipeError):
        complain("interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__)
    return code_of(error)


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="pyrokernel",
        description="Persistent, named Python kernels: start them, reach them, run code on many at once.",
        epilog="Exit codes: " + ", ".join(f"{code.value} {code.name}" for code in ExitCode) + ".",
    )
    parser.add_argument("--version", action="version", version=f"pyrokernel {__version__}")
    _add_common(parser, top=True)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_serve, _add_shell, _add_run, _add_ps, _add_logs, _add_interrupt, _add_restart, _add_stop, _add_demo,
        _add_doctor,
    ):  # fmt: skip
        _add_common(add(commands))
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(commands: _Commands, name: str, target: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(target=target)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, top: bool = False) -> None:
    """Add the options that may stand before or after the command."""
    group = parser.add_argument_group("which mesh")

    def default(value: object) -> object:
        # A command that is not given an option must not undo what stood before it.
        return value if top else argparse.SUPPRESS

    group.add_argument("--mesh", metavar="NAME", default=default(None), help="name of the mesh")
    group.add_argument(
        "--ns", metavar="ADDRESS", default=default(None), help='name server: "./u:PATH", or "HOST:PORT" on loopback'
    )
    group.add_argument("--config", metavar="FILE", default=default(None), help="configuration file (TOML)")
    group.add_argument(
        "-v", "--verbose", action="count", default=default(0), help="log what happens; -vv also shows tracebacks"
    )


def _count(text: str) -> int:
    """Read a number that counts something."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _add_json(parser: argparse.ArgumentParser, text: str = "answer in JSON") -> None:
    parser.add_argument("--json", action="store_true", help=text)


def _add_serve(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands, "serve", "serve", "start kernels and a host that watches over them, or join the host that runs"
    )
    parser.add_argument("file", nargs="?", metavar="FILE.toml", help="mesh file that declares kernels")
    parser.add_argument("-n", dest="number", type=_count, metavar="N", help="this many kernels: k0, k1, ...")
    parser.add_argument("--name", action="append", metavar="NAME", help="a kernel of this name (may be repeated)")
    parser.add_argument("--detach", action="store_true", help="return when they are ready; they survive logout")
    parser.add_argument("--portable", action="store_true", default=None, help="start kernels without fork")
    group = parser.add_argument_group("what the kernels are like (those of -n and --name)")
    group.add_argument("--tag", action="append", metavar="T", help="word to choose them by (may be repeated)")
    group.add_argument("--init", default="", metavar="FILE", help="Python file run at every start")
    group.add_argument("--env", action="append", metavar="K=V", help="environment variable (may be repeated)")
    group.add_argument("--cwd", default="", metavar="DIR", help="working directory")
    group.add_argument("--preload", action="append", metavar="MOD", help="import once, share between kernels")
    group.add_argument("--protected", action="store_true", help="never kill or restart without an explicit yes")
    group.add_argument("--restart", default="always", choices=("always", "on-failure", "never"), help="after a death")
    group.add_argument(
        "--threads", type=_count, default=0, metavar="N", help="BLAS and OpenMP threads; 0 divides the processors"
    )
    group.add_argument("--memory", default="", metavar="SIZE", help="limit of private memory, such as 4G")
    group.add_argument("--descriptors", type=_count, default=0, metavar="N", help="limit of open files")
    group.add_argument("--journal", default="64M", metavar="SIZE", help="cap of the journal on disk")
    group.add_argument(
        "--idle-stop", default="", metavar="TIME", help="end after so long without a request, such as 2h"
    )
    return parser


def _add_shell(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands, "shell", "shell", "open the interactive shell; starts a mesh with one kernel if none runs"
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help=f"kernels to begin with: {_TARGETS}")
    parser.add_argument("-c", dest="command", metavar="COMMAND", help="run one line of the shell and leave")
    parser.add_argument("--script", metavar="FILE", help="run a file of shell lines and leave")
    return parser


def _add_run(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "run", "run", "run code on kernels and show its output as it comes")
    parser.add_argument("source", nargs="?", metavar="FILE", help='Python file; "-" for standard input')
    parser.add_argument("-c", dest="code", metavar="CODE", help="code instead of a file")
    parser.add_argument(
        "-k",
        "--kernels",
        action="append",
        metavar="WORD",
        help=f"which kernels: {_TARGETS} (may be repeated; commas too)",
    )
    parser.add_argument("--local", type=_count, default=0, metavar="N", help="run on N fresh kernels of a private mesh")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="leave after so long; the cell goes on")
    parser.add_argument("--detach", action="store_true", help="print the id of the cell and leave")
    _add_json(parser, "each event as a line of JSON")
    return parser


def _add_ps(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "ps", "ps", "list the kernels and what they do")
    _add_json(parser)
    return parser


def _add_logs(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "logs", "logs", "replay what a kernel was sent and printed, also a dead one")
    parser.add_argument("kernel", metavar="NAME", help="which kernel")
    parser.add_argument("-f", "--follow", action="store_true", help="then show what comes")
    parser.add_argument("-n", dest="lines", type=_count, metavar="LINES", help="only the last lines")
    parser.add_argument(
        "--cell", default="", metavar="ID", help="only the output of one cell (the id or its beginning)"
    )
    parser.add_argument("--instance", default="", metavar="ID", help="an earlier life of the kernel (or its beginning)")
    _add_json(parser, "each event as a line of JSON")
    return parser


def _add_interrupt(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "interrupt", "control:interrupt", "interrupt what kernels run")
    parser.add_argument("words", nargs="+", metavar="WORD", help=f"which kernels: {_TARGETS}")
    parser.add_argument("--cell", default="", metavar="ID", help="only where this cell runs")
    parser.add_argument("--kill", action="store_true", help="kill those that hold on; fresh instances take their names")
    _add_json(parser)
    return parser


def _add_restart(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "restart", "control:restart", "give kernels a fresh instance; their variables are lost")
    parser.add_argument("words", nargs="+", metavar="WORD", help=f"which kernels: {_TARGETS}")
    parser.add_argument("--force", action="store_true", help="kill at once, also protected ones")
    _add_json(parser)
    return parser


def _add_stop(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands, "stop", "control:stop", "end kernels; without names, everything of the mesh on this machine"
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help=f"which kernels: {_TARGETS}; none for host and all")
    parser.add_argument("--all", action="store_true", help="also on the other machines of the mesh")
    _add_json(parser)
    return parser


def _add_demo(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands, "demo", "demo", "survey the standard library on a private mesh, then kill a client and a kernel"
    )
    parser.add_argument(
        "-n", dest="number", type=_count, default=0, metavar="N", help="kernels; as many as processors unless told"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    return parser


def _add_doctor(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands, "doctor", "doctor", "show what is configured, reachable and wrong, and the command that mends it"
    )
    _add_json(parser)
    return parser
