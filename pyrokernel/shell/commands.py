"""The commands about kernels: parse, ask the mesh, print, set `last_result`. Runs in the shell process."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cmd2 import Choices, Cmd2ArgumentParser, CommandSet, Completions, Statement, with_argparser

from pyrokernel.client.kernel import Kernel
from pyrokernel.client.listing import ask_all
from pyrokernel.errors import GatherError
from pyrokernel.messages import Receipt
from pyrokernel.shell.parser import Takes, arguments_of, takes
from pyrokernel.texts import Tail, Transcript, describe_receipts, format_kernels, label, table, wide_table

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class


class KernelCommands(CommandSet["Shell"]):
    """Choose kernels, look at them, interrupt and restart them."""

    DEFAULT_CATEGORY = "Kernels"

    def kernel_words(self) -> Choices:
        """Return what can stand for kernels: their names, their tags, and "all"."""
        return Choices.from_values(self._cmd.target.offered())

    @staticmethod
    def _parser(description: str, *, words: str = "*") -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description=description)
        parser.add_argument(
            "words",
            nargs=words,
            metavar="KERNELS",
            help='names, ranges such as "k0-k3" or "lab2-[0-3]", patterns such as "gpu-*", "tag:WORD", or "all"',
            choices_provider=KernelCommands.kernel_words,
        )
        return parser

    @with_argparser(lambda: Cmd2ArgumentParser(description="List the kernels of the mesh; * marks the current group."))
    def do_ps(self, _: argparse.Namespace) -> None:
        """List the kernels of the mesh."""
        target = self._cmd.target
        infos = target.mesh.ps()
        text = format_kernels(infos, now=time.time(), marked=target.group.names) if infos else "no kernels"
        self._cmd.print_lines([text])
        self._cmd.last_result = [info.to_wire() for info in infos]

    @with_argparser(lambda: KernelCommands._parser("Choose the kernels that Python goes to; without words, say which."))
    def do_use(self, args: argparse.Namespace) -> None:
        """Choose the kernels that Python goes to."""
        target = self._cmd.target
        if args.words:
            target.use(args.words)
            self._cmd.reader.variables.clear()
            self._cmd.show_target()
        if not args.words or len(target.group) > 1:
            self._cmd.print_lines([f"{len(target.group)} in use: {label(target.group.names)}"])
        self._cmd.last_result = target.group.names

    @takes(Takes.WORD_AND_PYTHON)
    def do_on(self, statement: Statement) -> None:
        """Run Python, or a command of theirs, on other kernels, once: on KERNELS SOURCE.

        KERNELS is a name, a range, a pattern, "tag:WORD", "all", or several of them with commas between.
        """
        words, source = arguments_of(statement.raw)
        if not source:
            self._cmd.fail('usage: on KERNELS SOURCE, for instance "on k0 x + 1"')
            return
        group = self._cmd.target.mesh.select([words])
        if self._cmd.remote.command_of(group, source):
            self._cmd.last_result = self._cmd.remote.run_on(group, source)
        else:
            self._cmd.last_result = self._cmd.run_cell(group, source)

    def complete_on(self, text: str, line: str, begidx: int, endidx: int) -> Completions:
        """Complete the first word; what comes behind it is Python."""
        chosen, comma, _ = text.rpartition(",")
        words = [f"{chosen}{comma}{word}" for word in self._cmd.target.offered() if word not in chosen.split(",")]
        return self._cmd.basic_complete(text, line, begidx, endidx, words)

    @staticmethod
    def _interrupt_parser() -> Cmd2ArgumentParser:
        parser = KernelCommands._parser("Interrupt what runs, whoever sent it.")
        parser.add_argument("--kill", action="store_true", help="kill kernels whose cell goes on; variables are lost")
        return parser

    @with_argparser(lambda: KernelCommands._interrupt_parser())
    def do_interrupt(self, args: argparse.Namespace) -> None:
        """Interrupt what runs."""
        group = self._cmd.target.anew(args.words)
        try:
            receipts: Mapping[str, Receipt] = group.interrupt(escalate=args.kill)
        except GatherError as error:
            receipts = error.replies
            self._cmd.fail(str(error))
        self._cmd.print_lines(describe_receipts(receipts.values(), "interrupt --kill"))
        if any(receipt.outcome == "killed" for receipt in receipts.values()):
            self._cmd.target.settle()  # whoever killed them knows that their variables are gone
            self._cmd.reader.variables.clear()
        self._cmd.last_result = {name: receipt.outcome for name, receipt in receipts.items()}

    @staticmethod
    def _restart_parser() -> Cmd2ArgumentParser:
        parser = KernelCommands._parser("End kernels and start them afresh; their variables are lost.")
        parser.add_argument("-f", "--force", action="store_true", help="also those that are protected")
        return parser

    @with_argparser(lambda: KernelCommands._restart_parser())
    def do_restart(self, args: argparse.Namespace) -> None:
        """End kernels and start them afresh."""
        target = self._cmd.target
        names = [info.name for info in target.mesh.restart(args.words or target.group.names, force=args.force)]
        target.settle()
        self._cmd.show_target()
        self._cmd.reader.variables.clear()
        self._cmd.print_lines([f"{label(names)}: restarted; variables are gone"])
        self._cmd.last_result = names

    @staticmethod
    def _stop_parser() -> Cmd2ArgumentParser:
        parser = KernelCommands._parser("End kernels for good; their names are free again.", words="+")
        parser.add_argument("-f", "--force", action="store_true", help="also those that are protected")
        return parser

    @with_argparser(lambda: KernelCommands._stop_parser())
    def do_stop(self, args: argparse.Namespace) -> None:
        """End kernels for good."""
        names = self._cmd.target.mesh.stop(args.words, force=args.force)
        self._cmd.target.settle()
        self._cmd.show_target()
        self._cmd.print_lines([f"{label(names)}: stopped"])
        self._cmd.last_result = names

    @with_argparser(lambda: KernelCommands._parser("List the variables of kernels: name, type, value in short."))
    def do_who(self, args: argparse.Namespace) -> None:
        """List the variables of kernels."""
        group = self._cmd.target.anew(args.words)
        holders: dict[tuple[str, str, str], list[str]] = {}
        seconds = group.mesh.settings.timeout
        values, errors, missing = ask_all(group, "variables", timeout=seconds)
        for error in errors.values():
            self._cmd.fail(str(error))
        for name in missing:
            self._cmd.fail(f"kernel {name!r} did not answer in {seconds:g} s: a C call may hold its interpreter")
        for name, variables in values.items():
            for found in variables:
                key = (str(found["name"]), str(found["type"]), str(found["summary"]).partition("\n")[0])
                holders.setdefault(key, []).append(name)
        several = len(group) > 1
        found_by_name = sorted(holders.items(), key=lambda item: item[0][0])
        rows = [(label(names) if several else "", *key) for key, names in found_by_name]
        if values:
            self._cmd.print_lines([self._variables(rows) if rows else "no variables"])
        self._cmd.last_result = sorted({key[0] for key in holders})

    do_whos = do_who

    def _variables(self, rows: Sequence[tuple[str, ...]]) -> str:
        """Lay out variables, on a terminal as wide as that."""
        header = ("KERNELS", "NAME", "TYPE", "VALUE")
        return wide_table(header, rows, spared=("TYPE",)) if self._cmd.stdout.isatty() else table(header, rows)

    @staticmethod
    def _logs_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="Show what a kernel ran and printed lately, whoever sent it.")
        parser.add_argument(
            "kernel", nargs="?", help="its name", choices_provider=KernelCommands.kernel_words, default=""
        )
        parser.add_argument("-n", "--lines", type=int, default=50, help="how many lines, the last ones (default: 50)")
        return parser

    @with_argparser(lambda: KernelCommands._logs_parser())
    def do_logs(self, args: argparse.Namespace) -> None:
        """Show what a kernel ran and printed lately."""
        group = self._cmd.target.anew([args.kernel] if args.kernel else [])
        kernel = group[0]
        if len(group) > 1:
            self._cmd.notice(f"this is {kernel.name}, of {label(group.names)}; `logs {group[1].name}` shows another")
        text = _last_lines(kernel, max(1, args.lines)).removesuffix("\n")
        self._cmd.print_lines([text or "nothing yet"])
        self._cmd.last_result = text


def _last_lines(kernel: Kernel, limit: int) -> str:
    """Return the last lines of a kernel's journal as the text of a session.

    A line may be many events, and an event many lines: read from ever further back until there are enough.
    """
    last = int(kernel.describe()["last_seq"])
    reach = limit
    while True:
        reach *= 4
        tail = Tail(limit)
        transcript = Transcript(tail.write)
        position = max(0, last - reach)
        while position < last and (events := kernel.events(position)):
            for event in events:
                transcript.add(event)
            position = events[-1].seq
        if tail.full or reach >= last:
            return tail.text
