"""What people type in IPython, for the kernels of the group. Runs in the shell process.

Each command is a cell of one line: what it does is in `pyrokernel.kernel.habits`. Lists of cells show it as typed.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cmd2 import Cmd, Cmd2ArgumentParser, CommandSet, Statement, with_argparser

from pyrokernel.client.group import Group
from pyrokernel.messages import HABIT
from pyrokernel.scripts import read_script
from pyrokernel.shell.here import Offers
from pyrokernel.shell.hints import ELSEWHERE, RUN_OPTIONS
from pyrokernel.shell.parser import Takes, assigned_by, block_of, heads_block, takes
from pyrokernel.shell.paths import last_word, offer_folders, offer_words
from pyrokernel.shell.restricted import local
from pyrokernel.shell.source import completeness, in_background
from pyrokernel.texts import label, stopwatch

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class

_LOOPS = re.compile(r"\s*-([nr])\s*(\d+)(?=\s|\Z)")
_APPEND = re.compile(r"(?:(-a|--append)(?:\s+|\Z))?(.*)", re.DOTALL)
_CD = re.compile(r"cd(\s+[^;&|]*)?")


class HabitCommands(CommandSet["Shell"]):
    """Run programs and files, measure, change directory and environment."""

    DEFAULT_CATEGORY = "Habits"

    @takes(Takes.CELL)
    def do_sh(self, statement: Statement) -> None:
        """Run a program on the kernels: !COMMAND. With NAME = !COMMAND, the lines it prints become a variable.

        $NAME and {EXPRESSION} stand for values of the kernel, $$ for a dollar. It runs in the kernel's directory
        and environment, with nothing to read; an exit code other than 0 counts as a failure. Below %%bash, %%sh
        or %%!, many lines run as they are, $NAME and {EXPRESSION} too.
        """
        if heads_block(statement.raw):
            self._run_block(statement)
            return
        command, name = str(statement).strip(), assigned_by(statement.raw)
        value = command.startswith("!")
        command = command.lstrip("!").strip()
        if not command:
            self._cmd.fail("usage: !COMMAND, for instance `!ls`")
            return
        if _CD.fullmatch(command):
            self._cmd.notice(f"`!{command}` ends with its program; `{command}` changes the directory of the kernels")
        if name or value:
            self._run(f"{name} = " * bool(name) + _call("lines_of", command), statement)
        else:
            self._run(_call("sh", command), statement)

    def offer_sh(self, text: str) -> Offers:
        """Complete a program or file of the kernels' machines."""
        return offer_words(self._cmd.target.group, text, programs=True)

    def _run_block(self, statement: Statement) -> None:
        """Run the lines below %%bash or %%sh."""
        word, arguments, text = block_of(statement.raw)
        if arguments or not text.strip():
            self._cmd.fail(f"usage: %%{word}, and on the lines below what it is to run")
            return
        self._run(_call("script", word.strip("!"), text), statement)

    @takes(Takes.CELL)
    def do_writefile(self, statement: Statement) -> None:
        """Write a file on the kernels: %%writefile [-a] FILE, and what is to be in it below; -a adds to the file.

        It begins in the directory of the kernels, see `cd`. Of FILE, $NAME and {EXPRESSION} are values of the kernel.
        """
        _, arguments, text = block_of(statement.raw)
        option, path = _APPEND.fullmatch(arguments).groups()  # type: ignore[union-attr]  # it matches any text
        if not heads_block(statement.raw) or not path:
            self._cmd.fail("usage: %%writefile [-a] FILE, and on the lines below what is to be in it")
            return
        group = self._cmd.target.anew()
        if option and len(hosts := one_per_host(group)) < len(group):
            self._cmd.notice(f"on {label(hosts.names)} only: kernels of one host share files")
            group = hosts
        source = _call("writefile", path, text, bool(option))
        self._cmd.last_result = self._cmd.run_cell(group, source, filename=HABIT, shown=statement.raw.strip())

    @takes(Takes.PYTHON)
    def do_time(self, statement: Statement) -> None:
        """Run Python and say how long it took: time SOURCE, or a block below %%time.

        Besides the time that has passed, the processor time of the kernel's process, all its threads together.
        """
        source = str(statement)
        if not source.strip():
            self._cmd.fail("usage: time SOURCE, for instance `time sum(range(1000))`")
            return
        self._cmd.run_on_target(source, shown=statement.raw.strip())
        self._tell_times()

    @takes(Takes.PYTHON)
    def do_timeit(self, statement: Statement) -> None:
        """Run a statement many times and say how long it takes: timeit [-n LOOPS] [-r RUNS] SOURCE.

        A block below %%timeit is measured as a whole; what stands behind %%timeit prepares it. Names that are set
        are gone afterwards.
        """
        options, setup, source = split_timeit(statement.raw)
        if not source.strip():
            self._cmd.fail("usage: timeit [-n LOOPS] [-r RUNS] SOURCE, for instance `timeit sum(range(1000))`")
            return
        if re.match(r"-[a-z]\b", source) and completeness(source) == "invalid":
            self._cmd.fail(f"timeit knows -n LOOPS and -r RUNS, not {source[:2]}; it prints what it measures")
            return
        behind = in_background(source)
        call = _call("time_it", behind or source, setup, options.get("n", 0), options.get("r", 0))
        self._run(f"{call} &" if behind else call, statement)

    @staticmethod
    def _run_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="Run a Python file of this machine on the kernels.")
        parser.add_argument("-i", action="store_true", help="accepted: it always sees the variables of the kernels")
        parser.add_argument("-t", "--time", action="store_true", help="say how long it took")
        for option, instead in RUN_OPTIONS.items():
            parser.add_argument(option, dest="instead", action="store_const", const=instead, help=argparse.SUPPRESS)
        parser.add_argument("file", nargs="?", metavar="FILE", help="its path here", completer=Cmd.path_complete)
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS", help="for its sys.argv")
        return parser

    @local
    @with_argparser(lambda: HabitCommands._run_parser())
    def do_run(self, args: argparse.Namespace) -> None:
        """Run a Python file of this machine on the kernels."""
        if args.instead or not args.file:
            self._cmd.fail(args.instead or "usage: run FILE [ARGUMENTS], for instance `run nightly.py --fast`")
            return
        behind = args.arguments[-1:] == ["&"]
        words = args.arguments[:-1] if behind else args.arguments
        script = read_script(args.file, words)
        text = f"{script.text} &" if behind else script.text
        self._cmd.run_on_target(text, shown=shlex.join(["run", args.file, *words]), **script.options())
        if args.time and not behind:
            self._tell_times()

    @takes(Takes.TEXT)
    def do_cd(self, statement: Statement) -> None:
        """Change the working directory of the kernels: cd [DIRECTORY]; home without one, "-" is the one before."""
        self._run(_call("cd", str(statement)), statement)

    def offer_cd(self, text: str) -> Offers:
        """Complete a directory of the kernels' machines."""
        return offer_folders(self._cmd.target.group, text)

    @takes(Takes.TEXT)
    def do_pwd(self, statement: Statement) -> None:
        """Print the working directory of the kernels."""
        self._run(f"{_HABITS}.pwd()", statement)

    @takes(Takes.TEXT)
    def do_env(self, statement: Statement) -> None:
        """List, print or set variables of the kernels' environment: env, env NAME, env NAME=VALUE."""
        self._run(_call("env", str(statement)), statement)

    @takes(Takes.TEXT)
    def do_pip(self, statement: Statement) -> None:
        """Run pip with the Python of the kernels: pip install NAME; once on each host, which they share."""
        words = str(statement).strip()
        group = one_per_host(self._cmd.target.anew())
        if len(group) < len(self._cmd.target.group):
            self._cmd.notice(f"on {label(group.names)} only: kernels of one host share what is installed")
        ok = self._cmd.run_cell(group, _call("pip", words or "help"), filename=HABIT, shown=statement.raw.strip())
        self._cmd.last_result = ok
        if ok and re.match("(install|uninstall)\\b", words):
            self._cmd.notice("modules that kernels have imported already stay as they are until `restart`")

    def offer_pip(self, text: str) -> Offers:
        """Complete a file of the kernels' machines, where a path or the option before it says that it is one."""
        word = last_word(text).value
        is_path = "/" in word or word.startswith((".", "~")) or re.search(r"\s-[rec]\s+\S*\Z", text)
        return offer_words(self._cmd.target.group, text) if is_path else []

    @takes(Takes.TEXT)
    def do_load_ext(self, statement: Statement) -> None:
        """Say what stands for an extension of IPython: load_ext NAME."""
        name = str(statement).strip()
        self._cmd.fail(ELSEWHERE.get(name) or ELSEWHERE["load_ext"])

    @takes(Takes.TEXT)
    def do_matplotlib(self, _: Statement) -> None:
        """Say how kernels draw."""
        self._cmd.print_lines([ELSEWHERE["matplotlib"]])

    @takes(Takes.TEXT)
    def do_reset(self, _: Statement) -> None:
        """Say how to begin anew."""
        self._cmd.fail(ELSEWHERE["reset"])

    def _tell_times(self) -> None:
        """Say how long the last cell took."""
        ended = {name: ending for name, ending in self._cmd.runner.outcomes.items() if "duration" in ending}
        self._cmd.print_lines(describe_times(ended))
        self._cmd.last_result = {name: (ending["duration"], ending.get("cpu")) for name, ending in ended.items()}

    def _run(self, source: str, statement: Statement) -> None:
        """Run a cell that we made of a command."""
        self._cmd.last_result = self._cmd.run_on_target(source, filename=HABIT, shown=statement.raw.strip())


_HABITS = "__import__('pyrokernel.kernel.habits', fromlist=['habits'])"


def _call(function: str, *arguments: str | int | bool) -> str:
    """Return the line that calls a function of `pyrokernel.kernel.habits` on the variables of the kernel."""
    return f"{_HABITS}.{function}({', '.join(map(repr, arguments))}, globals())"


def split_timeit(raw: str) -> tuple[dict[str, int], str, str]:
    """Split `timeit [-n LOOPS] [-r RUNS] SOURCE` into its options ("n", "r"), setup and source."""
    head = raw.lstrip()
    block = head.startswith("%%")
    text = re.sub(r"\A\W*\w+", "", head)
    options: dict[str, int] = {}
    while match := _LOOPS.match(text):
        options[match[1]] = int(match[2])
        text = text[match.end() :]
    if not block:
        return options, "", text.strip()
    setup, _, source = text.partition("\n")
    return options, setup.strip(), source


def describe_times(ended: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say how long a cell took; on several kernels, from the least to the most.

    Args:
        ended: By kernel name: duration and cpu, in seconds.
    """
    if not ended:
        return []
    passed, cpu = (_range([float(ending.get(what, 0.0)) for ending in ended.values()]) for what in ("duration", "cpu"))
    text = f"{passed} (CPU {cpu})"
    if len(ended) == 1:
        return [text]
    slowest = max(ended, key=lambda name: float(ended[name]["duration"]))
    return [f"[{label(ended)}] {text}, slowest {slowest}"]


def _range(seconds: Sequence[float]) -> str:
    """Return "380 to 518 µs": the least and the most."""
    least, most = stopwatch(min(seconds)), stopwatch(max(seconds))
    if least == most:
        return most
    value, _, unit = least.partition(" ")
    return f"{value if most.endswith(f' {unit}') and ' ' not in unit else least} to {most}"


def one_per_host(group: Group) -> Group:
    """Return the first kernel on each host."""
    firsts: dict[str, str] = {}
    for name in group.names:
        host = group.mesh.host_of(name)
        firsts.setdefault(host.name if host else name, name)
    chosen: Group = group[list(firsts.values())]
    return chosen
