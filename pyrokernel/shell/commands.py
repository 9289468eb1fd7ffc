"""The commands about kernels: parse, ask the mesh, print, set `last_result`. Runs in the shell process."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cmd2 import Choices, Cmd2ArgumentParser, CommandSet, Statement, with_argparser

from pyrokernel.client.group import Group
from pyrokernel.errors import GatherError, PyrokernelError
from pyrokernel.messages import Event, EventKind, KernelInfo, Receipt
from pyrokernel.shell.display import columns, label
from pyrokernel.shell.parser import arguments_of

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class

_MIB = 1024 * 1024


class KernelCommands(CommandSet["Shell"]):
    """Choose kernels, look at them, interrupt and restart them."""

    DEFAULT_CATEGORY = "Kernels"

    def kernel_words(self) -> Choices:
        """Return what can stand for kernels: their names, and "all"."""
        return Choices.from_values([*self._cmd.target.mesh.names, "all"])

    @staticmethod
    def _parser(description: str, *, words: str = "*") -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description=description)
        parser.add_argument(
            "words",
            nargs=words,
            metavar="KERNELS",
            help='names, patterns such as "gpu-*", "tag:WORD", or "all"',
            choices_provider=KernelCommands.kernel_words,
        )
        return parser

    def _group(self, words: Iterable[str]) -> Group:
        """Return the kernels that words mean; none mean the current group, looked up anew."""
        target = self._cmd.target
        return target.mesh.select(words or target.words)

    @with_argparser(lambda: Cmd2ArgumentParser(description="List the kernels of the mesh; * marks the current group."))
    def do_ps(self, _: argparse.Namespace) -> None:
        """List the kernels of the mesh."""
        target = self._cmd.target
        infos = target.mesh.ps()
        current = set(target.group.names)
        rows = [["", "name", "status", "pid", "memory", "up", "restarts", "tags"]]
        rows += [_row(info, "*" if info.name in current else "") for info in infos]
        self._cmd.print_lines(columns(rows))
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

    def do_on(self, statement: Statement) -> None:
        """Run Python on other kernels, once: on KERNELS SOURCE.

        KERNELS is a name, a pattern, "tag:WORD", "all", or several of them with commas between.
        """
        words, source = arguments_of(f"on {statement}")
        if not source:
            self._cmd.fail('usage: on KERNELS SOURCE, for instance "on k0 x + 1"')
            return
        group = self._cmd.target.mesh.select(words.split(","))
        self._cmd.last_result = self._cmd.run_cell(group, source)

    @with_argparser(lambda: KernelCommands._parser("Interrupt what runs, whoever sent it."))
    def do_interrupt(self, args: argparse.Namespace) -> None:
        """Interrupt what runs."""
        group = self._group(args.words)
        try:
            receipts: Mapping[str, Receipt] = group.interrupt()
        except GatherError as error:
            receipts = error.replies
            self._cmd.fail(str(error))
        lines: dict[str, list[str]] = {}
        for name in group.names:
            if name in receipts:
                outcome = ": ".join(filter(None, [receipts[name].outcome, receipts[name].detail]))
                lines.setdefault(outcome, []).append(name)
        self._cmd.print_lines(f"{label(names)}: {outcome}" for outcome, names in lines.items())
        self._cmd.last_result = {name: receipt.outcome for name, receipt in receipts.items()}

    @staticmethod
    def _restart_parser() -> Cmd2ArgumentParser:
        parser = KernelCommands._parser("End kernels and start them afresh; their variables are lost.")
        parser.add_argument("-f", "--force", action="store_true", help="also those that are protected")
        return parser

    @with_argparser(lambda: KernelCommands._restart_parser())
    def do_restart(self, args: argparse.Namespace) -> None:
        """End kernels and start them afresh."""
        group = self._group(args.words)
        group.restart(force=args.force)
        self._cmd.target.settle()
        self._cmd.reader.variables.clear()
        self._cmd.print_lines([f"{label(group.names)}: restarted; variables are gone"])
        self._cmd.last_result = group.names

    @with_argparser(lambda: KernelCommands._parser("End kernels for good; their names are free again.", words="+"))
    def do_stop(self, args: argparse.Namespace) -> None:
        """End kernels for good."""
        names = self._group(args.words).names
        self._cmd.target.mesh.stop(names)
        self._cmd.target.settle()
        self._cmd.print_lines([f"{label(names)}: stopped"])
        self._cmd.last_result = names

    @with_argparser(lambda: KernelCommands._parser("List the variables of kernels: name, type, value in short."))
    def do_who(self, args: argparse.Namespace) -> None:
        """List the variables of kernels."""
        group = self._group(args.words)
        holders: dict[tuple[str, str, str], list[str]] = {}
        for kernel in group:
            try:
                variables = kernel.variables()
            except PyrokernelError as error:
                self._cmd.fail(str(error))
                continue
            for found in variables:
                key = (str(found["name"]), str(found["type"]), str(found["summary"]).partition("\n")[0])
                holders.setdefault(key, []).append(kernel.name)
        several = len(group) > 1
        rows = [[*(["kernels"] if several else []), "name", "type", "value"]]
        for key, names in sorted(holders.items(), key=lambda item: item[0][0]):
            rows.append([*([label(names)] if several else []), *key])
        self._cmd.print_lines(columns(rows) if len(rows) > 1 else ["no variables"])
        self._cmd.last_result = sorted({key[0] for key in holders})

    @staticmethod
    def _logs_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="Show what a kernel ran and printed lately, whoever sent it.")
        parser.add_argument(
            "kernel", nargs="?", help="its name", choices_provider=KernelCommands.kernel_words, default=""
        )
        parser.add_argument("-n", "--events", type=int, default=50, help="how many journal events (default: 50)")
        return parser

    @with_argparser(lambda: KernelCommands._logs_parser())
    def do_logs(self, args: argparse.Namespace) -> None:
        """Show what a kernel ran and printed lately."""
        kernel = self._group([args.kernel] if args.kernel else [])[0]
        last = int(kernel.describe()["last_seq"])
        events = kernel.events(max(0, last - args.events))
        for event in events:
            self._cmd.write("stdout", _event_text(event))
        self._cmd.last_result = len(events)


def _row(info: KernelInfo, mark: str) -> list[str]:
    up = _duration(time.time() - info.started) if info.started and info.status != "dead" else "-"
    memory = f"{info.memory_bytes / _MIB:.0f} MiB" if info.memory_bytes else "-"
    status = f"{info.status}: {info.cause}" if info.cause else str(info.status)
    tags = " ".join([*info.tags, *(["protected"] if info.protected else [])])
    return [mark, info.name, status, str(info.pid or "-"), memory, up, str(info.restarts), tags]


def _duration(seconds: float) -> str:
    """Show a time span in one unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _event_text(event: Event) -> str:
    """Show a journal event as a reader of the log wants it, "" for what only programs need."""
    data: Mapping[str, Any] = event.data
    match event.kind:
        case EventKind.STARTED:
            source = str(data.get("source", "")).rstrip().replace("\n", "\n... ")
            at = time.strftime("%H:%M:%S", time.localtime(event.at))
            return f"# {at} {data.get('author', '')} [{data.get('execution_count', '')}]\n>>> {source}\n"
        case EventKind.OUTPUT:
            return str(data.get("text", ""))
        case EventKind.RESULT:
            return f"{data.get('text', '')}\n"
        case EventKind.ERROR:
            return str(data.get("traceback", "")).rstrip() + "\n"
        case EventKind.GAP:
            return f"[... something is missing here: {data.get('reason', '')}]\n"
    return ""
