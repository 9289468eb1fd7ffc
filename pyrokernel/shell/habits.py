"""What people type in IPython, for the kernels of the group. Runs in the shell process.

Each command is a cell of one line: what it does is in `pyrokernel.kernel.habits`. Lists of cells show it as typed.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cmd2 import Cmd, Cmd2ArgumentParser, CommandSet, Statement, with_argparser

from pyrokernel.client.group import Group
from pyrokernel.client.listing import ask_all
from pyrokernel.messages import HABIT, Inspection
from pyrokernel.scripts import read_script
from pyrokernel.shell.completer import ANSWER_SECONDS, merge
from pyrokernel.shell.cut import cut_text
from pyrokernel.shell.here import Offers
from pyrokernel.shell.hints import ELSEWHERE
from pyrokernel.shell.parser import Takes, assigned_by, in_background, takes
from pyrokernel.shell.restricted import local
from pyrokernel.texts import label, names_by, one_line, stopwatch

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class

_VARIANTS_SHOWN = 3
_VALUES_SHOWN = 8
_TIMES_SHOWN = 8
_LOOPS = re.compile(r"\s*-([nr])\s*(\d+)(?=\s|\Z)")
_CD = re.compile(r"cd(\s+[^;&|]*)?")


class HabitCommands(CommandSet["Shell"]):
    """Look at objects, run programs and files, measure."""

    DEFAULT_CATEGORY = "Habits"

    @takes(Takes.TEXT)
    def do_inspect(self, statement: Statement) -> None:
        """Say what a name is in the kernels: NAME?, or NAME?? for its source; also inspect [--source] NAME.

        It answers while a cell runs, and runs no code of the object.
        """
        text = str(statement).strip()
        name = text.removeprefix("--source").strip()
        if not name:
            self._cmd.fail("usage: NAME? or NAME??, for instance `len?`")
            return
        detail = int(name != text)
        group = self._group()
        answers, errors, missing = ask_all(group, "inspect", name, len(name), {"detail": detail})
        silent = [kernel for kernel in group.names if kernel in missing or kernel in errors]
        found = {kernel: Inspection.from_wire(answers[kernel]) for kernel in group.names if kernel in answers}
        known = {kernel: inspection for kernel, inspection in found.items() if inspection.found}
        if known:
            text = "\n".join(describe(known, source=bool(detail)))
            self._cmd.print_lines([self._in_short(text, name)])
        without = [kernel for kernel in found if kernel not in known]
        if without:
            hint = "" if known or name not in self._cmd.reader.commands else f"; `help {name}` tells of the command"
            say = self._cmd.notice if known else self._cmd.fail
            say(f"{label(without)}: there is no `{one_line(name)}`{hint}")
        if silent:
            (self._cmd.notice if found else self._cmd.fail)(f"{label(silent)}: no answer; a C call may hold on")
        self._cmd.last_result = {kernel: inspection.to_wire() for kernel, inspection in known.items()}

    def offer_inspect(self, text: str) -> Offers:
        """Complete a name that the kernels know."""
        return merge(self._cmd.target.group.complete(text, timeout=0.8 * ANSWER_SECONDS))

    @takes(Takes.TEXT)
    def do_sh(self, statement: Statement) -> None:
        """Run a program on the kernels: !COMMAND. With NAME = !COMMAND, the lines it prints become a variable.

        $NAME and {EXPRESSION} stand for values of the kernel, $$ for a dollar. It runs in the kernel's directory
        and environment, with nothing to read; an exit code other than 0 counts as a failure.
        """
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
        ended = {name: ending for name, ending in self._cmd.runner.outcomes.items() if "duration" in ending}
        self._cmd.print_lines(describe_times(ended))
        self._cmd.last_result = {name: (ending["duration"], ending.get("cpu")) for name, ending in ended.items()}

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
        behind = in_background(source)
        call = _call("time_it", behind or source, setup, options.get("n", 0), options.get("r", 0))
        self._run(f"{call} &" if behind else call, statement)

    @staticmethod
    def _run_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="Run a Python file of this machine on the kernels.")
        parser.add_argument("file", metavar="FILE", help="its path here", completer=Cmd.path_complete)
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS", help="for its sys.argv")
        return parser

    @local
    @with_argparser(lambda: HabitCommands._run_parser())
    def do_run(self, args: argparse.Namespace) -> None:
        """Run a Python file of this machine on the kernels."""
        behind = args.arguments[-1:] == ["&"]
        words = args.arguments[:-1] if behind else args.arguments
        script = read_script(args.file, words)
        text = f"{script.text} &" if behind else script.text
        self._cmd.run_on_target(text, shown=shlex.join(["run", args.file, *words]), **script.options())

    @takes(Takes.TEXT)
    def do_cd(self, statement: Statement) -> None:
        """Change the working directory of the kernels: cd [DIRECTORY]; home without one, "-" is the one before."""
        self._run(_call("cd", str(statement)), statement)

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
        group = one_per_host(self._group())
        if len(group) < len(self._cmd.target.group):
            self._cmd.notice(f"on {label(group.names)} only: kernels of one host share what is installed")
        ok = self._cmd.run_cell(group, _call("pip", words or "help"), filename=HABIT, shown=statement.raw.strip())
        self._cmd.last_result = ok
        if ok and re.match("(install|uninstall)\\b", words):
            self._cmd.notice("modules that kernels have imported already stay as they are until `restart`")

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

    def _group(self) -> Group:
        """Return the current group, looked up anew."""
        target = self._cmd.target
        return target.mesh.select(target.words)

    def _run(self, source: str, statement: Statement) -> None:
        """Run a cell that we made of a command."""
        self._cmd.last_result = self._cmd.run_on_target(source, filename=HABIT, shown=statement.raw.strip())

    def _in_short(self, text: str, name: str) -> str:
        see_all = f"`pyrokernel shell -c '{one_line(name)}??'` shows all"
        return cut_text(text, see_all, self._cmd.lines) if self._cmd.at_prompt else text


_HABITS = "__import__('pyrokernel.kernel.habits', fromlist=['habits'])"


def _call(function: str, *arguments: str | int) -> str:
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


def describe(found: Mapping[str, Inspection], *, source: bool) -> list[str]:
    """Say what a name is; where kernels differ, for each what it is there.

    Args:
        found: By kernel name, not empty.
        source: Show the source in place of the docstring, where there is one.
    """
    variants = names_by({kernel: _page(inspection, source) for kernel, inspection in found.items()})
    lines: list[str] = []
    for page, kernels in list(variants.items())[:_VARIANTS_SHOWN]:
        if len(variants) > 1:
            lines += ["", f"[{label(kernels)}]"]
        lines += [*page[:2], *_values({kernel: found[kernel].summary for kernel in kernels}), *page[2:]]
    more = [kernel for kernels in list(variants.values())[_VARIANTS_SHOWN:] for kernel in kernels]
    lines += ["", f"{label(more)}: different again"] if more else []
    return lines[1:] if len(variants) > 1 else lines


def _page(inspection: Inspection, source: bool) -> tuple[str, ...]:
    """Return the lines about a name, but for its value; the first two are of one line each."""
    head = inspection.signature or inspection.name
    head = f"{inspection.name}{head}" if head.startswith("(") else head
    page = [f"Name:      {head}", f"Type:      {inspection.type}"]
    if source and inspection.source:
        return (*page, "Source:", inspection.source.rstrip("\n"))
    page += ["Docstring:", inspection.docstring] if inspection.docstring else []
    page += ["Source:    not kept"] if source else []
    return tuple(page)


def _values(summaries: Mapping[str, str]) -> list[str]:
    """Show the value that a name has on each kernel, equal ones together."""
    alike = names_by(summaries)
    if len(alike) == 1:
        (summary,) = alike
        return [f"Value:     {summary}"] if summary else []
    lines = [f"Value:     [{label(kernels)}] {one_line(summary, 80)}" for summary, kernels in alike.items()]
    more = len(lines) - _VALUES_SHOWN
    return [*lines[:_VALUES_SHOWN], f"           ... and {more} more"] if more > 0 else lines


def describe_times(ended: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say how long a cell took on each kernel; of many, on the quickest and the slowest.

    Args:
        ended: By kernel name: duration and cpu, in seconds.
    """
    times = {
        name: f"{stopwatch(ending['duration'])} (CPU {stopwatch(ending.get('cpu', 0.0))})"
        for name, ending in ended.items()
    }
    if len(times) == 1:
        return list(times.values())
    if len(times) <= _TIMES_SHOWN:
        return [f"{name}: {time}" for name, time in times.items()]
    first, *_, last = sorted(ended, key=lambda name: float(ended[name]["duration"]))
    return [f"{len(times)} kernels, quickest {first}: {times[first]}, slowest {last}: {times[last]}"]


def one_per_host(group: Group) -> Group:
    """Return the first kernel on each host."""
    firsts: dict[str, str] = {}
    for name in group.names:
        host = group.mesh.host_of(name)
        firsts.setdefault(host.name if host else name, name)
    chosen: Group = group[list(firsts.values())]
    return chosen
