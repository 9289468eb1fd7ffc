"""The commands about cells: what ran, runs and waits, here or sent by others. Runs in the shell process."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from cmd2 import Choices, Cmd2ArgumentParser, CommandSet, CompletionItem, with_argparser

from pyrokernel.client.cell import Cell
from pyrokernel.client.listing import ask_all, list_cells
from pyrokernel.errors import GatherError
from pyrokernel.messages import HABIT
from pyrokernel.shell.background import Job
from pyrokernel.shell.journals import Journal, Past, is_cell
from pyrokernel.shell.listing import format_cells
from pyrokernel.shell.replaying import replay
from pyrokernel.shell.watching import Watcher
from pyrokernel.texts import describe_missing, describe_silence, label, one_line, span

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class

_LISTED = 20
_POST_MORTEM = "__import__('pyrokernel.kernel.debugging', fromlist=['debugging']).look_back()"


class CellCommands(CommandSet["Shell"]):
    """List cells, follow and replay them, keep them from starting, look into their failures."""

    DEFAULT_CATEGORY = "Cells"

    def __init__(self) -> None:
        super().__init__()
        self._watcher: Watcher | None = None

    def kernel_words(self) -> Choices:
        """Return what can stand for kernels."""
        return Choices.from_values(self._cmd.target.offered())

    def waiting_cells(self) -> Choices:
        """Return the cells that have not started, with their kernels and sources."""
        listed, _ = list_cells(self._cmd.target.anew(), 0)
        waiting = {cell["cell"]: cell for cell in listed if cell["status"] == "waiting"}
        return Choices(
            [
                CompletionItem(cell["cell"][:8], display_meta=f"{cell['kernel']}: {one_line(cell['source'], 40)}")
                for cell in waiting.values()
            ]
        )

    @staticmethod
    def _cells_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="List what ran, runs and waits, whoever sent it; or replay one cell.")
        parser.add_argument(
            "words",
            nargs="*",
            metavar="KERNELS|CELL",
            help="kernels; or the number (-1: the last) or id of a cell, which is replayed; of a `map`, its cells",
            choices_provider=CellCommands.kernel_words,
        )
        parser.add_argument(
            "-n", "--ended", type=int, default=_LISTED, help=f"how many that ended, per kernel (default: {_LISTED})"
        )
        return parser

    @with_argparser(lambda: CellCommands._cells_parser())
    def do_cells(self, args: argparse.Namespace) -> None:
        """List what ran, runs and waits, or replay one cell: cells 17."""
        names = self._cmd.target.mesh.names
        chosen = [word for word in args.words if is_cell(word) and word not in names]
        group = self._cmd.target.anew([word for word in args.words if word not in chosen])
        if chosen:
            for word in chosen:
                replay(self._cmd, group, word)
            return
        found, silent = list_cells(group, max(0, args.ended))
        if found or not silent:
            self._cmd.print_lines([format_cells(found, now=time.time()) if found else "no cells yet"])
        for line in describe_missing(silent):
            self._cmd.fail(line)
        self._cmd.last_result = found

    @staticmethod
    def _kernels_parser(description: str) -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description=description)
        parser.add_argument(
            "words",
            nargs="*",
            metavar="KERNELS",
            help="names, ranges, patterns, nothing for the current group; or the number of a cell in the background: 1",
            choices_provider=CellCommands.kernel_words,
        )
        return parser

    def _job(self, word: str) -> Job | None:
        """Return the cell in the background that a word means, "1" or "[1]"; a kernel of that name comes first."""
        number = word.strip("[]")
        if word in self._cmd.target.mesh.names:
            return None
        return next((job for job in self._cmd.background.jobs if str(job.number) == number), None)

    @with_argparser(lambda: CellCommands._kernels_parser("Show what runs now, whoever sent it, until it ends."))
    def do_follow(self, args: argparse.Namespace) -> None:
        """Show what runs now, whoever sent it, until it ends; Ctrl-C leaves it running."""
        word = " ".join(args.words)
        job = self._job(word)
        if job is None and word.isdecimal() and word not in self._cmd.target.mesh.names:
            self._cmd.fail(f"no cell [{word}] is in the background any more; `cells` lists what ran")
            return
        group = job.group if job else self._cmd.target.anew(args.words)
        abouts, errors, silent = ask_all(group, "describe")
        for error in errors.values():
            self._cmd.fail(str(error))
        if silent:
            self._cmd.fail(describe_silence(silent))
        running = {
            name: about
            for name, about in abouts.items()
            if about["running"] and (job is None or about["running"]["cell"] == job.id)
        }
        if not running:
            what = f"[{job.number}] does not run" if job else "nothing runs"
            self._cmd.print_lines([f"{what} on {label(abouts)}"] if abouts else [])
            self._cmd.last_result = None
            return
        self._introduce(running)
        past: dict[str, Past] = {}
        cells: dict[str, Cell] = {}
        for name, about in running.items():
            cell = about["running"]
            journal = Journal(group[name], cell["cell"], float(cell.get("since") or 0.0))
            past[name], cells[name] = journal.recent(cell.get("asks"))
        with self._cmd.background.hushed(cells.values()):
            self._cmd.last_result = self._cmd.runner.attach(group[list(cells)], cells, past)

    def _introduce(self, running: dict[str, Any]) -> None:
        """Say whose cells are about to be shown."""
        alike: dict[str, list[str]] = {}
        for name, about in running.items():
            alike.setdefault(about["running"]["cell"], []).append(name)
        for names in alike.values():
            cell = running[names[0]]["running"]
            since = f", since {span(max(0.0, time.time() - cell['since']))}" if cell.get("since") else ""
            line = f"{label(names)}: cell {cell['cell'][:8]} of {cell['author']}{since}: {one_line(cell['source'])}"
            self._cmd.notice(f"{line} (Ctrl-C leaves it running)")

    @staticmethod
    def _cancel_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="Keep a cell that waits from starting, on all kernels of the group.")
        parser.add_argument(
            "cell",
            help="the beginning of its id, or its number in the background: 1",
            choices_provider=CellCommands.waiting_cells,
        )
        return parser

    @with_argparser(lambda: CellCommands._cancel_parser())
    def do_cancel(self, args: argparse.Namespace) -> None:
        """Keep a cell that waits from starting."""
        word = args.cell.strip("[]")
        job = self._job(args.cell)
        group = job.group if job else self._cmd.target.anew()
        listed, _ = list_cells(group, 0)
        meant = [cell for cell in listed if cell["cell"].startswith(job.id if job else word)]
        waiting = {cell["cell"] for cell in meant if cell["status"] == "waiting"}
        if len(waiting) > 1:
            self._cmd.fail(f"{word} could be any of {', '.join(sorted(cell[:8] for cell in waiting))}")
            return
        if not waiting:
            running = [cell["kernel"] for cell in meant]
            hint = f"it runs on {label(running)}; `interrupt {' '.join(running)}` ends it"
            self._cmd.fail(
                f"no cell {word} waits on {label(group.names)}: {hint if running else '`cells` lists those that do'}"
            )
            return
        (chosen,) = waiting
        names = [cell["kernel"] for cell in meant if cell["status"] == "waiting"]
        try:
            done = group[names].cancel(chosen)
        except GatherError as error:
            self._cmd.fail(str(error))
            done = error.replies
        for what, found in (("cancelled", True), ("runs already", False)):
            if kernels := [name for name, cancelled in done.items() if cancelled is found]:
                self._cmd.print_lines([f"{label(kernels)}: {what}"])
        self._cmd.last_result = done

    @staticmethod
    def _debug_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="Open pdb on the last failure of a kernel; Ctrl-C or Ctrl-D leaves it.")
        parser.add_argument(
            "kernel", nargs="?", default="", help="its name", choices_provider=CellCommands.kernel_words
        )
        return parser

    @with_argparser(lambda: CellCommands._debug_parser())
    def do_debug(self, args: argparse.Namespace) -> None:
        """Open pdb on the last failure of a kernel."""
        group = self._cmd.target.anew([args.kernel] if args.kernel else [])
        if len(group) != 1:
            self._cmd.fail(f"pdb looks into one kernel at a time: `debug {group.names[0]}`")
            return
        shown = args.cmd2_statement.raw.strip()
        self._cmd.last_result = self._cmd.run_cell(group, _POST_MORTEM, filename=HABIT, shown=shown)

    @staticmethod
    def _watch_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="Tell above the prompt what others run on the kernels of the group.")
        parser.add_argument("state", nargs="?", choices=("on", "off"), help="without it, say whether it is on")
        return parser

    @with_argparser(lambda: CellCommands._watch_parser())
    def do_watch(self, args: argparse.Namespace) -> None:
        """Tell above the prompt what others run on the kernels of the group: watch on."""
        if args.state == "on" and self._watcher is None:
            if not self._cmd.at_prompt:
                self._cmd.fail("watch tells a person at a prompt; in a script, `pyrokernel logs -f` follows a kernel")
                return
            self._watcher = Watcher(lambda: self._cmd.target.group, self._cmd.tell)
            self._watcher.start()
        elif args.state == "off" and self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        on = self._watcher is not None
        self._cmd.print_lines([f"watch is {'on: what others run is told above the prompt' if on else 'off'}"])
        self._cmd.last_result = on
