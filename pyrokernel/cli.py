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
from collections.abc import Callable, Sequence
from typing import TypeAlias

from pyrokernel import __version__
from pyrokernel.errors import PyrokernelError
from pyrokernel.front import certs_words, state_words
from pyrokernel.front.exits import ExitCode, code_of
from pyrokernel.front.parsing import COMMAND, Parser, add_common, count, merge, moment, seconds
from pyrokernel.front.terminal import complain, prepare

__all__ = ["ExitCode", "build_parser", "main"]

_TARGETS = 'a name, a range such as "k0-k3" or "lab2-[0-3]", a pattern such as "gpu-*", "tag:WORD" or "all"'


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    place = parser.first_word(words)
    word = words[place] if place >= 0 else ""
    if word not in parser.commands() and "--version" not in words:
        _add_contributed(parser, word, words)
    args = parser.parse_args(words)
    prepare()
    if getattr(args, COMMAND) is None:
        parser.print_help()
        return ExitCode.USAGE
    _configure_log(args.verbose)
    try:
        code = int(_main_of(args.target)(args))
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more; without this the interpreter would complain at its own last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.PIPE_CLOSED
    except (PyrokernelError, OSError, KeyboardInterrupt) as error:
        return _report(error, show_traceback=args.verbose >= 2)
    return code


def _main_of(target: str | Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return what a command does: the function of a module of `front`, or that of a plugin."""
    if callable(target):
        return target
    module, _, function = target.partition(":")
    main: Callable[[argparse.Namespace], int] = getattr(
        importlib.import_module(f"pyrokernel.front.{module}"), function or "main"
    )
    return main


def _configure_log(verbose: int) -> None:
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)


def _add_contributed(parser: Parser, word: str, words: Sequence[str]) -> None:
    """Add the subcommands of plugins, for a word that is none of ours, or for the list of them all.

    Args:
        parser: Of the whole command line.
        word: The command that is asked for, "" for help.
        words: The whole line, of which only the common options are known yet.
    """
    common = Parser(add_help=False, allow_abbrev=False)
    add_common(common, top=True)
    given, _ = common.parse_known_args(list(words))
    merge(given)
    if given.verbose:
        _configure_log(given.verbose)
    # What loads plugins is loaded for those who need it.
    from pyrokernel.front import subcommands
    from pyrokernel.front.configured import settings_of

    try:
        found, problems = subcommands.load(settings_of(given), parser.commands())
    except (PyrokernelError, OSError) as error:
        found, problems = [], [str(error)]
    action = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for each in found:
        made = _command(action, each.name, each.main, each.help or f"of plugin {each.plugin}", f"Plugin {each.plugin}.")
        if each.configure is not None:
            each.configure(made)
        add_common(made)
    if word and word not in parser.commands():
        for problem in problems:  # its absence may be the reason why nobody knows the word
            complain(problem)


def _report(error: BaseException, *, show_traceback: bool) -> int:
    if show_traceback:
        traceback.print_exception(error)
    with contextlib.suppress(BrokenPipeError):
        complain("interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__)
    return code_of(error)


def build_parser() -> Parser:
    """Make the parser of the whole command line."""
    parser = Parser(
        prog="pyrokernel",
        description="Persistent, named Python kernels: start them, reach them, run code on many at once.",
        epilog="Exit codes: " + ", ".join(f"{code.value} {code.name}" for code in ExitCode) + ".",
    )
    parser.add_argument("--version", action="version", version=f"pyrokernel {__version__}")
    add_common(parser, top=True)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest=COMMAND)
    for add in (
        _add_serve, _add_shell, _add_run, _add_ship, _add_unship, _add_call, _add_commands, _add_ps, _add_cells,
        _add_logs, _add_refs, _add_interrupt, _add_restart, _add_stop, _add_state, _add_certs, _add_plugins,
        _add_nameserver, _add_demo, _add_doctor, _add_policy, _add_audit,
    ):  # fmt: skip
        add_common(add(commands))
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def _command(
    commands: _Commands,
    name: str,
    target: str | Callable[[argparse.Namespace], int],
    text: str,
    more: str | None = None,
) -> Parser:
    """Add a command.

    Args:
        commands: Where to.
        name: How it is called.
        target: Module of `front`, and the function if that is not `main`; or what a plugin does.
        text: What it does, as the list of commands says it.
        more: What its help and docs/cli.md say below the options.
    """
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=more)
    parser.set_defaults(target=target)
    return parser


def _add_json(parser: argparse.ArgumentParser, text: str = "answer in JSON") -> None:
    parser.add_argument("--json", action="store_true", help=text)


def _add_kernels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-k",
        "--kernels",
        action="append",
        metavar="WORD",
        help=f"which kernels: {_TARGETS} (may be repeated; commas too; default: all)",
    )


def _add_serve(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "serve",
        "serve",
        "start kernels and a host that watches over them, or join the host that runs",
        "Without FILE.toml, -n and --name it starts one kernel, k0. What FILE.toml and -n ask for is meant to exist: "
        "kernels of these names that run already are left as they are, so -n 4 twice makes four. Init files run once "
        "the kernels are ready; serve waits up to 10 s for their end and says which failed, where, and how to mend "
        "that. Their kernels run all the same, and serve --detach ends with code 1. A mesh file spells sizes and times "
        "as these options do.",
    )
    parser.add_argument("file", nargs="?", metavar="FILE.toml", help="mesh file that declares kernels")
    parser.add_argument(
        "-n",
        dest="number",
        type=count,
        metavar="N",
        help="this many kernels: k0, k1, ...; those that run are left as they are",
    )
    parser.add_argument("--name", action="append", metavar="NAME", help="a kernel of this name (may be repeated)")
    parser.add_argument("--detach", action="store_true", help="return when they are ready; they survive logout")
    parser.add_argument(
        "--portable", action="store_true", default=None, help="do without fork, unix sockets and shared memory"
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="let other machines in here, by mutual TLS (see `pyrokernel certs`)"
    )
    parser.add_argument(
        "--advertise", metavar="HOST:PORT", help="how others reach that, if by another address: of a router, say"
    )
    parser.add_argument(
        "--join",
        metavar="NS[:PORT]",
        help="join the mesh of this name server, by mutual TLS; listens at the address by which it is reached, port "
        "9191 or the next that is free, unless --listen says where; numbered kernels are HOST-0, HOST-1 ...",
    )
    group = parser.add_argument_group("on other machines")
    group.add_argument(
        "--ssh",
        metavar="HOST,...",
        help="start hosts there instead, over ssh (as USER@HOST or as your ssh configuration names them), with "
        "certificates if this account has the authority; they join --join, --ns or the host that runs here",
    )
    group.add_argument("--remote-command", default="pyrokernel", metavar="CMD", help="how pyrokernel is called there")
    group.add_argument(
        "--tunnel",
        nargs="?",
        const="in",
        choices=("in", "both"),
        help="they cannot be dialled: others reach them by a port of this machine and ssh; with both, they cannot dial "
        "others either, and do so by ssh from here",
    )
    group.add_argument("--ca", metavar="DIR", help="directory of the authority (default: as of `certs`)")
    group = parser.add_argument_group("what the kernels are like (those of -n and --name)")
    group.add_argument("--tag", action="append", metavar="T", help="word to choose them by (may be repeated)")
    group.add_argument("--init", default="", metavar="FILE", help="Python file run at every start")
    group.add_argument("--env", action="append", metavar="K=V", help="environment variable (may be repeated)")
    group.add_argument("--cwd", default="", metavar="DIR", help="working directory (default: that of serve)")
    group.add_argument("--path", action="append", metavar="DIR", help="folder to import from (may be repeated)")
    group.add_argument(
        "--preload", action="append", metavar="MOD", help="import once, share between kernels (may be repeated)"
    )
    group.add_argument("--protected", action="store_true", help="never kill or restart without an explicit yes")
    group.add_argument(
        "--restart",
        default="always",
        choices=("always", "on-failure", "never"),
        help="after a death that nobody asked for (default: always)",
    )
    group.add_argument(
        "--threads",
        type=count,
        default=0,
        metavar="N",
        help="BLAS and OpenMP threads (default: 0, which divides the processors)",
    )
    group.add_argument(
        "--memory", default="", metavar="SIZE", help="limit of private memory, such as 4G (default: none)"
    )
    group.add_argument(
        "--descriptors", type=count, default=0, metavar="N", help="limit of open files (default: all the system gives)"
    )
    group.add_argument("--journal", default="64M", metavar="SIZE", help="cap of the journal on disk (default: 64M)")
    group.add_argument(
        "--idle-stop",
        default="",
        metavar="TIME",
        help="end after so long without a request, such as 90, 30m or 2h (default: never)",
    )
    return parser


def _add_shell(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands, "shell", "shell", "open the interactive shell; starts a mesh with one kernel if none runs"
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help=f"kernels to begin with: {_TARGETS} (default: all)")
    parser.add_argument("-c", dest="command", metavar="COMMAND", help="run one line of the shell and leave")
    parser.add_argument("--script", metavar="FILE", help="run a file of shell lines and leave")
    parser.add_argument(
        "--restricted",
        action="store_true",
        help="serve others: without what touches files and processes of this machine",
    )
    parser.add_argument(
        "--trust-environment",
        action="store_true",
        help="with --restricted: read PYROKERNEL_... and other variables, for whoever starts it with ones of their own",
    )
    parser.add_argument(
        "--act-for", metavar="USER:ROLE", help="be this user to the mesh, with what an observer, user or admin may do"
    )
    parser.add_argument("--no-startup", dest="startup", action="store_false", help="do not run the startup file")
    return parser


def _add_run(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "run",
        "run",
        "run code on kernels and show its output as it comes",
        "A script sees what it would see as `python FILE ARG ...`: sys.argv, __file__ and its folder at the head of "
        "sys.path (for this cell only), and the name __main__. What it defines stays in the kernel. sys.exit(N) ends "
        "run with code N, sys.exit(TEXT) shows the text and ends with 1; of several kernels the first that did not "
        "end well counts. On one kernel input() is answered here: by you, or by the lines of standard input. Ctrl-C "
        "interrupts the cell, or cancels it while it waits; a second one leaves.",
    )
    parser.add_argument("source", nargs="?", metavar="FILE", help='Python file; "-" for standard input')
    parser.add_argument(
        "arguments", nargs="*", metavar="ARG", help="for the script; put -- before those that begin with -"
    )
    parser.add_argument("-c", dest="code", metavar="CODE", help="code instead of a file")
    _add_kernels(parser)
    parser.add_argument("--local", type=count, default=0, metavar="N", help="run on N fresh kernels of a private mesh")
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="leave after so long, sending included; what runs goes on (default: wait)",
    )
    parser.add_argument("--detach", action="store_true", help="print the id of the cell and leave")
    _add_json(parser, "each event as a line of JSON")
    return parser


def _add_ship(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "ship",
        "ship",
        "send code to kernels as modules; without PATH, list what they have",
        "Cells import what was shipped by its name. Functions marked with @pyrokernel.command, and those named "
        "remote_X (as X), become commands: pyrokernel call X. Kernels that start later get it as well. What has not "
        "changed is not run again; of several files all are loaded or none, and where one raises the kernel keeps "
        "what it had. A file that cannot be read or is no Python ends with code 2 and nothing sent, code that raises "
        "with 1. With --watch an error is shown, and the next save tries again.",
    )
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help='Python file, or folder of a package; "-" for source on standard input'
    )
    _add_kernels(parser)
    parser.add_argument("--name", default="", metavar="NAME", help="what the source on standard input is imported as")
    parser.add_argument("--watch", action="store_true", help="ship again at every save, until Ctrl-C")
    _add_json(parser)
    return parser


def _add_unship(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "unship", "ship:unship", "take shipped modules and their commands away again")
    parser.add_argument("names", nargs="+", metavar="NAME", help="of the module, or of its file")
    _add_kernels(parser)
    _add_json(parser)
    return parser


def _add_call(commands: _Commands) -> Parser:
    parser = _command(
        commands,
        "call",
        "call",
        "call a command of the kernels; pyrokernel call NAME --help shows what it takes",
        "Options of pyrokernel itself stand before NAME; what follows belongs to the command: its required parameters "
        "by position, the others as options. All kernels that are meant must have the command, and alike. Output, "
        "results, Ctrl-C and exit codes are as with run; how far a command is shows on a terminal.",
    )
    parser.leaves_rest = True
    parser.add_argument("name", metavar="NAME", help="the command; pyrokernel commands lists them")
    parser.add_argument("arguments", nargs="*", default=[], metavar="ARG", help="for the command")
    _add_kernels(parser)
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="leave after so long; what runs goes on (default: wait)"
    )
    _add_json(parser, "a line of JSON for each kernel, with the value; output goes to standard error")
    parser.set_defaults(local=0, detach=False)
    return parser


def _add_commands(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "commands", "commands", "list the commands of the kernels, and what they take")
    _add_kernels(parser)
    parser.add_argument(
        "--stub", default="", metavar="FILE.pyi", help="write them for type checkers and editors instead"
    )
    _add_json(parser)
    return parser


def _add_plugins(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "plugins",
        "plugins",
        "list the plugins of the kernels, and what failed; or write a new one",
        "Without a mesh it loads them in its own process. It says which kernels run an older version than the one that "
        "is installed. plugins new NAME writes a package that works: a command, a test, and what pip needs.",
    )
    parser.add_argument("action", nargs="?", choices=("new",), metavar="new", help="write the package of a new plugin")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="how the new plugin is called")
    parser.add_argument("--dir", default=".", metavar="DIR", help="where its folder is made (default: here)")
    _add_json(parser)
    return parser


def _add_ps(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "ps", "ps", "list the kernels and what they do")
    _add_json(parser)
    return parser


def _add_cells(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "cells", "cells", "list the cells that run, that wait, and that ended last")
    parser.add_argument("words", nargs="*", metavar="WORD", help=f"which kernels: {_TARGETS} (default: all)")
    parser.add_argument(
        "-n", dest="ended", type=count, default=5, metavar="N", help="so many of those that ended (default: 5)"
    )
    _add_json(parser)
    return parser


def _add_logs(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "logs", "logs", "replay what a kernel was sent and printed, also a dead one")
    parser.add_argument("kernel", metavar="NAME", help="which kernel")
    parser.add_argument("-f", "--follow", action="store_true", help="then show what comes")
    parser.add_argument("-n", dest="lines", type=count, metavar="LINES", help="only the last lines (default: all)")
    parser.add_argument(
        "--cell", default="", metavar="ID", help="only the output of one cell (the id or its beginning)"
    )
    parser.add_argument("--instance", default="", metavar="ID", help="an earlier life of the kernel (or its beginning)")
    parser.add_argument("--lives", action="store_true", help="list the lives of the kernel that have a journal")
    _add_json(parser, "each event as a line of JSON")
    return parser


def _add_refs(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "refs",
        "refs",
        "list the references to objects in kernels, or revoke some",
        "A handle lives while a program has it, a URL until it expires, what is shared or published until it is taken "
        "back. The ID opens nothing: the list may be shown. What was reached by a URL is revoked with it.",
    )
    parser.add_argument(
        "action", nargs="?", choices=("list", "revoke"), default="list", metavar="ACTION", help="list or revoke"
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="which to revoke: its ID, or its URL")
    _add_kernels(parser)
    _add_json(parser)
    return parser


def _add_policy(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "policy",
        "policy",
        "say who may do what in the mesh of this account, and which line of the policy says so",
        "The file is policy.toml beside the configuration file, or what the setting policy says; a gateway reads it "
        "anew when it changes. Without USER it tells what each line says; with USER, plugins are asked, too. Nothing "
        "is changed by it: to give somebody a role, write the line.",
    )
    parser.add_argument("action", choices=("check",), metavar="check", help="tell what holds")
    parser.add_argument("user", nargs="?", default="", metavar="USER", help="name in a certificate")
    parser.add_argument("kernel", nargs="?", default="", metavar="KERNEL", help="with which kernel (default: the rest)")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--host", action="store_true", help="USER is the name of a host")
    who.add_argument(
        "--through", default="", metavar="HOST", help="USER shows no certificate and is introduced by that host"
    )
    _add_json(parser)
    return parser


def _add_audit(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "audit",
        "audit",
        "show who ran what, where and when, from the record that the hosts keep; for admins",
        "Cells and calls, starts, restarts, stops and deaths of kernels, and refusals. Like calls that follow each "
        "other are one line with their number; the journal of the kernel has each (pyrokernel logs). Times are those "
        "of the hosts. A cell without an end still runs, or died with its kernel. Where the host of this machine does "
        "not run, its file is read, without what was run since; other hosts that do not answer are named, and the code "
        "is that of why.",
    )
    parser.add_argument("--user", default="", metavar="USER", help="only what this user did; or USER@HOST, host:NAME")
    parser.add_argument("--kernel", default="", metavar="NAME", help="only what was done in or to this kernel")
    parser.add_argument(
        "--since", type=moment, default=0.0, metavar="TIME",
        help="only what is no older: how long ago, such as 90, 30m or 2h, or when, such as 2026-01-31T14:05",
    )  # fmt: skip
    parser.add_argument("-n", dest="number", type=count, metavar="N", help="only the last N")
    parser.add_argument("--state", action="store_true", help="writes to the shared state, too, as far as it has them")
    parser.add_argument("-f", "--follow", action="store_true", help="then show what comes")
    _add_json(parser, "each record as a line of JSON")
    return parser


def _add_interrupt(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(commands, "interrupt", "control:interrupt", "interrupt what kernels run")
    parser.add_argument("words", nargs="+", metavar="WORD", help=f"which kernels: {_TARGETS}")
    parser.add_argument(
        "--cell", default="", metavar="ID", help="only this cell (the id or its beginning); cancelled if it waits"
    )
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
    parser.add_argument("--force", action="store_true", help="also protected kernels")
    _add_json(parser)
    return parser


def _add_state(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "state",
        "state",
        "look at the shared state and change it; back it up and bring it back",
        "The process that keeps the shared state is started by the first use. A key that is not there ends with code "
        "4, a conflict with what others wrote with 7.",
    )
    state_words.add_actions(parser)
    return parser


def _add_certs(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "certs",
        "certs",
        "make, renew and revoke the certificates of a mesh across machines",
        "One machine has the authority; from there, identity directories are copied to where they are used. It needs "
        "the package cryptography: pip install 'pyrokernel[network]'.",
    )
    certs_words.add_actions(parser)
    return parser


def _add_nameserver(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "nameserver",
        "nameserver",
        "run a name server by itself, or look after one",
        "It is Pyro5's own, with the options of pyro5-ns and for the same pyro5-nsc, but a name belongs to who "
        "registered it, and who says nothing holds nobody up. Without -n and -p it serves this account on a unix "
        "socket; on TCP, loopback included, only with mutual TLS. There is no broadcast: clients name the address. "
        "status tells whether one answers, also a pyro5-ns (code 3 if not); backup copies the file of -s while it is "
        "in use; restore puts a backup in its place while it is not; forget HOST removes the names of a host that is "
        "gone for good, which takes an admin.",
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("status", "backup", "restore", "forget"),
        metavar="ACTION",
        help="status, backup, restore or forget; none to serve",
    )
    parser.add_argument(
        "file", nargs="?", default="", metavar="BACKUP|HOST", help="file to write, or to restore; host to forget"
    )
    parser.add_argument("--force", action="store_true", help="with forget: also what answers, or refuses to")
    parser.add_argument("-n", "--host", metavar="HOST", help="address to listen at (default: localhost, with -p)")
    parser.add_argument("-p", "--port", type=count, metavar="PORT", help="port to listen at (default: 9090, with -n)")
    parser.add_argument(
        "-u", "--unixsocket", metavar="PATH", help="unix socket of this account (default: in the runtime directory)"
    )
    parser.add_argument(
        "-s", "--storage", default="memory", metavar="STORAGE", help="memory, or sql:FILE (default: memory)"
    )
    parser.add_argument("--nathost", default="", metavar="HOST", help="address by which clients beyond a router come")
    parser.add_argument("--natport", type=count, default=0, metavar="PORT", help="port by which they come")
    parser.add_argument("-x", "--nobc", action="store_true", help="no broadcast, as for pyro5-ns; there is none anyway")
    _add_json(parser, "status in JSON")
    parser.add_argument("--metrics", action="store_true", help="status in the text format of Prometheus")
    return parser


def _add_demo(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands,
        "demo",
        "demo",
        "survey the standard library on a private mesh, then kill a client and a kernel",
        "It takes about half a minute, with --quick a few seconds; nothing of it stays.",
    )
    parser.add_argument(
        "-n",
        dest="number",
        type=count,
        default=0,
        metavar="N",
        help="kernels (default: as many as processors, up to 8)",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    return parser


def _add_doctor(commands: _Commands) -> argparse.ArgumentParser:
    parser = _command(
        commands, "doctor", "doctor", "show what is configured, reachable and wrong, and the command that mends it"
    )
    _add_json(parser)
    return parser
