"""`run`: send code to kernels, show its output as it comes, end with an exit code. Runs in the caller's process."""

from __future__ import annotations

import argparse
import getpass
import signal
import sys
import threading
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pyrokernel.client.cell import Cell
from pyrokernel.client.group import Group
from pyrokernel.client.launch import local
from pyrokernel.errors import PyrokernelError, SettingsError
from pyrokernel.front.control import describe_receipt
from pyrokernel.front.exits import ExitCode, code_of, worst
from pyrokernel.front.reach import open_mesh, settings_of, split_words
from pyrokernel.front.terminal import complain, has_person, note, say, say_json
from pyrokernel.front.writer import JsonWriter, LiveWriter
from pyrokernel.messages import Event, EventKind, new_id
from pyrokernel.texts import plural

_RECEIPT_SECONDS = 5.0
_ENDINGS = {"ok": ExitCode.OK, "cancelled": ExitCode.INTERRUPTED}


def main(args: argparse.Namespace) -> int:
    """Run code on the kernels that are meant."""
    source, filename = read_source(args)
    settings = settings_of(args)
    with local(args.local) if args.local else open_mesh(settings) as mesh:
        group = mesh.select(split_words(args.kernels))
        # A kernel can ask a person only where there is one, and only one kernel can.
        asks = len(group) == 1 and has_person() and not args.detach
        cell = new_id()
        options: dict[str, Any] = {"want": "text", "cell": cell, "filename": filename, "stdin": asks}
        cells = group.submit(source, **options)
        if args.detach:
            return _leave(group, cell, args.json)
        writer = JsonWriter(sys.stdout) if args.json else LiveWriter(group.names, sys.stdout, sys.stderr)
        run = Run(group, cells, cell, writer, asks=asks)
        with run.minding_interrupts():
            return run.follow(args.timeout)


def read_source(args: argparse.Namespace) -> tuple[str, str]:
    """Return the code to run, and how tracebacks shall call it ("" for its number).

    Raises:
        SettingsError: There is none, or the file cannot be read.
    """
    if args.code is not None:
        return args.code, ""
    if args.source in (None, "-"):
        if args.source is None and (has_person() or sys.stdin is None):
            raise SettingsError("nothing to run: give a FILE, -c CODE, or - and code on standard input")
        return sys.stdin.read(), "<stdin>"
    path = Path(args.source).expanduser()
    try:
        with tokenize.open(str(path)) as stream:  # as Python reads source: by its coding line
            return stream.read(), str(path.absolute())
    except (OSError, SyntaxError, UnicodeError) as error:
        raise SettingsError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


class Run:
    """One cell on some kernels, followed to its end.

    Args:
        group, cells, cell: The kernels, what `submit` returned, and the id that all cells have.
        writer: Shows events.
        asks: Whether questions of input() are answered here.
    """

    def __init__(
        self, group: Group, cells: dict[str, Cell], cell: str, writer: LiveWriter | JsonWriter, *, asks: bool
    ) -> None:
        self._group = group
        self._cells = cells
        self._cell = cell
        self._writer = writer
        self._asks = asks
        self._asking = False
        self._interrupted = False
        self._interrupter: threading.Thread | None = None
        self._codes: dict[str, ExitCode] = {}

    def follow(self, timeout: float | None) -> ExitCode:
        """Show everything until all have ended, or the time has passed, or Ctrl-C came twice."""
        try:
            for kernel, found in self._group.follow(self._cells, stdin=self._asks, timeout=timeout):
                self._take(kernel, found)
        except KeyboardInterrupt:
            self._say_left("left; the cell goes on")
            return ExitCode.INTERRUPTED
        if self._interrupter is not None:
            self._interrupter.join(_RECEIPT_SECONDS)  # the receipts may come after the end that they report
        missing = [name for name in self._cells if name not in self._codes]
        if missing:
            self._say_left(f"no end within {timeout:g} s on {', '.join(missing)}; the cell goes on")
            return ExitCode.TIMEOUT
        code = worst(self._codes.values())
        return ExitCode.INTERRUPTED if self._interrupted and code is ExitCode.CODE_RAISED else code

    @contextmanager
    def minding_interrupts(self) -> Iterator[None]:
        """Let Ctrl-C interrupt the cells, and only the second one this program."""
        before = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _take(self, kernel: str, found: Event | PyrokernelError) -> None:
        if isinstance(found, PyrokernelError):
            self._writer.line(kernel, str(found), error=True)
            self._codes[kernel] = code_of(found)
            return
        clean_exit = found.kind == EventKind.ERROR and _is_clean_exit(found)
        if isinstance(self._writer, JsonWriter) or not clean_exit:
            self._writer.write(kernel, found)
        if found.kind == EventKind.INPUT and self._asks:
            self._answer(kernel, found)
        elif clean_exit:
            self._codes[kernel] = ExitCode.OK
        elif found.kind == EventKind.ENDED:
            self._codes.setdefault(kernel, _ENDINGS.get(str(found.data.get("status")), ExitCode.CODE_RAISED))

    def _answer(self, kernel: str, event: Event) -> None:
        """Ask the person at the terminal."""
        prompt = event.data.get("prompt", "")
        self._asking = True
        try:
            text = getpass.getpass(prompt) if event.data.get("password") else input(prompt)
        except (KeyboardInterrupt, EOFError):
            print(file=sys.stderr)
            self._interrupt()
            return
        finally:
            self._asking = False
        try:
            self._group[kernel].answer_input(event.data["request"], text)
        except PyrokernelError as error:  # its cell was interrupted meanwhile, or its kernel has died
            note(str(error))

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._asking or self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        # In a thread of its own, so that the loop goes on and shows what the interrupt does.
        self._interrupter = threading.Thread(target=self._interrupt, name="interrupt", daemon=True)
        self._interrupter.start()

    def _interrupt(self) -> None:
        self._interrupted = True
        try:
            receipts = self._group.interrupt(self._cell)
            for name, receipt in receipts.items():
                if (
                    receipt.outcome == "not running"
                    and name not in self._codes
                    and self._group[name].cancel(self._cell)
                ):
                    note(f"{name}: cancelled before it started")
                elif name not in self._codes or receipt.outcome != "not running":
                    note(describe_receipt(receipt))
        except PyrokernelError as error:
            complain(str(error))

    def _say_left(self, what: str) -> None:
        name = self._group.names[0]
        note(f"{what}. Its output: pyrokernel logs {name} --cell {self._cell[:8]} -f")


def _is_clean_exit(event: Event) -> bool:
    """Tell whether a script ended with `sys.exit()` or `sys.exit(0)`, which is no failure."""
    return event.data.get("ename") == "SystemExit" and event.data.get("evalue") in ("", "0", "None")


def _leave(group: Group, cell: str, as_json: bool) -> int:
    if as_json:
        say_json({"cell": cell, "kernels": group.names})
        return ExitCode.OK
    say(cell)
    note(f"runs on {plural(len(group), 'kernel')}; its output: pyrokernel logs {group.names[0]} --cell {cell[:8]} -f")
    return ExitCode.OK
