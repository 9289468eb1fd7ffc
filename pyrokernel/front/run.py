"""`run`: send code to kernels, show its output as it comes, end with an exit code. Runs in the caller's process."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pyrokernel.client.calls import Exchange, kernel_request
from pyrokernel.client.cell import Cell, how_it_ended
from pyrokernel.client.group import Group
from pyrokernel.client.launch import local
from pyrokernel.client.links import LONG_POLL_SECONDS
from pyrokernel.errors import KernelDiedError, PyrokernelError, SettingsError
from pyrokernel.front.answers import OutOfTimeError, can_answer, next_answer
from pyrokernel.front.exits import ExitCode, code_of, worst
from pyrokernel.front.reach import in_time, open_mesh, settings_of
from pyrokernel.front.source import Sent, read_source
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.front.waiting import WaitingNote
from pyrokernel.front.writer import JsonWriter, LiveWriter, Writer
from pyrokernel.messages import Event, EventKind, new_id
from pyrokernel.scripts import exit_of
from pyrokernel.settings import command_line
from pyrokernel.texts import describe_receipts, label, plural

_RECEIPT_SECONDS = 5.0
_ENDINGS = {"ok": ExitCode.OK, "cancelled": ExitCode.INTERRUPTED}


def main(args: argparse.Namespace) -> int:
    """Run code on the kernels that are meant."""
    begun = time.monotonic()
    source = read_source(args)
    if args.local and args.detach:
        raise SettingsError("--detach leaves nothing to come back to on the private mesh of --local")
    settings = in_time(settings_of(args), args.timeout)
    with local(args.local, **settings.dump()) if args.local else open_mesh(settings) as mesh:
        group = mesh.select(args.kernels or ())
        run = Run(group, source, args, begun)
        if args.detach:
            return run.detach()
        with run.minding_interrupts():
            return run.follow()


class Run:
    """One cell on some kernels, sent, and followed to its end.

    Args:
        group: The kernels.
        source: The code, or the call.
        args: Has timeout, json, local and detach.
        begun: Since when the time of all of it counts.
        writer: Shows what happens; None for the usual one.
    """

    def __init__(
        self, group: Group, source: Sent, args: argparse.Namespace, begun: float, writer: Writer | None = None
    ) -> None:
        self._group = group
        self._source = source
        self._args = args
        self._deadline = None if args.timeout is None else begun + args.timeout
        self._cell = new_id()
        # Only one kernel can ask; and where nobody stays, nobody answers.
        self._asks = len(group) == 1 and not args.detach and can_answer(stdin_is_code=source.is_stdin)
        self._writer = writer or (
            JsonWriter(sys.stdout) if args.json else LiveWriter(group.names, sys.stdout, sys.stderr)
        )
        self._waiting = WaitingNote(group.mesh, [kernel.link for kernel in group], self._cell)
        self._cells: dict[str, Cell] = {}
        self._asking = False
        self._interrupted = False
        self._interrupter: threading.Thread | None = None
        self._started: set[str] = set()
        self._ended: set[str] = set()
        self._codes: dict[str, ExitCode] = {}
        self._exits: dict[str, int] = {}

    @property
    def ended(self) -> dict[str, Cell]:
        """The cell on each kernel that has told of its end, by name."""
        return {name: self._cells[name] for name in self._group.names if name in self._ended}

    def detach(self) -> int:
        """Send the cell and leave."""
        usual = time.monotonic() + self._group.mesh.settings.timeout
        self._exchange(usual if self._deadline is None else self._deadline, follow=False)
        if self._cells:
            self._say_detached(list(self._cells))
        return self._code()

    def follow(self) -> int:
        """Send the cell; show everything until all have ended, the time has passed, or Ctrl-C came twice."""
        if not self._args.json:
            self._waiting.start()
        try:
            self._exchange(self._deadline, follow=True)
        except KeyboardInterrupt:
            self._say_left("left")
            return ExitCode.INTERRUPTED
        finally:
            self._waiting.stop()
        if self._interrupter is not None:
            self._interrupter.join(_RECEIPT_SECONDS)  # the receipts may come after the end that they report
        going_on = [name for name in self._cells if name not in self._codes]
        if going_on:
            self._say_left(f"no end within {self._args.timeout:g} s on {label(going_on)}")
            self._say_unstarted([name for name in going_on if name not in self._started])
            self._codes.update(dict.fromkeys(going_on, ExitCode.TIMEOUT))
        return self._code()

    @contextmanager
    def minding_interrupts(self) -> Iterator[None]:
        """Let Ctrl-C interrupt the cells, and only the second one this program."""
        before = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _exchange(self, deadline: float | None, *, follow: bool) -> None:
        """Send the cell to all kernels and follow it on those that have taken it, all in one loop.

        Args:
            deadline: Moment of the monotonic clock.
            follow: Until the cells end; else only until they are taken.
        """
        mesh = self._group.mesh
        options = {"want": "text", "cell": self._cell, "client": mesh.client, "stdin": self._asks}
        submit = kernel_request("submit", self._source.text, {**options, **self._source.options()})
        with Exchange(mesh, "control", blocking=False) as exchange:
            for kernel in self._group:
                exchange.send(kernel.link, submit, submit)
            for name, token, value, error in exchange.answers(deadline):
                if error is not None:
                    self._take_error(name, error)
                    continue
                if token is submit:
                    self._cells[name] = Cell(mesh, self._group[name].link, self._cell, after=int(value["seq"]))
                else:
                    for event in self._cells[name].take(value):
                        self._take(name, event)
                if follow and name not in self._codes:
                    cell = self._cells[name]
                    about = {"cell": cell.id, "stdin": self._asks}
                    exchange.send(cell.link, kernel_request("follow", cell.after, LONG_POLL_SECONDS, about))
            self._say_untaken([name for name in exchange.pending if name not in self._cells])

    def _say_untaken(self, names: list[str]) -> None:
        """Say which kernels have not taken the cell, which therefore will not run there."""
        if not names:
            return
        kill = command_line(self._group.mesh.settings, f"interrupt --kill {' '.join(names)}")
        complain(
            f"{label(names)} did not take the cell in time, and it will not run there: a C call may hold the "
            f"interpreter. Try again later; to end what runs at the cost of the variables: {kill}"
        )
        self._codes.update(dict.fromkeys(names, ExitCode.TIMEOUT))

    def _take_error(self, kernel: str, error: PyrokernelError) -> None:
        self._waiting.started(kernel)
        if kernel in self._cells:
            error = how_it_ended(error)
        if isinstance(error, KernelDiedError) and kernel in self._cells:
            for event in self._cells[kernel].last_words():
                self._take(kernel, event)
        self._writer.line(kernel, str(error), error=True)
        self._codes[kernel] = code_of(error)

    def _take(self, kernel: str, found: Event) -> None:
        if found.kind != EventKind.QUEUED:
            self._started.add(kernel)
            self._waiting.started(kernel)
        exit_ = exit_of(found)
        if exit_ is not None:
            self._exits[kernel], text = exit_
            if text and not self._args.json:
                self._writer.line(kernel, text, error=True)
        if exit_ is None or self._args.json:
            self._writer.write(kernel, found)
        if found.kind == EventKind.INPUT and self._asks:
            self._answer(kernel, found)
        elif found.kind == EventKind.ENDED and kernel not in self._codes:
            self._ended.add(kernel)
            usual = ExitCode.CODE_RAISED if self._exits.get(kernel, 1) else ExitCode.OK
            self._codes[kernel] = _ENDINGS.get(str(found.data.get("status")), usual)

    def _code(self) -> int:
        """Return the exit code: what the machinery met, or else how the first kernel that did not end well ended."""
        code = worst(self._codes.values())
        if code is not ExitCode.CODE_RAISED:
            return code
        if self._interrupted:
            return ExitCode.INTERRUPTED
        failed = [name for name in self._group.names if self._codes.get(name)]
        return self._exits.get(failed[0]) or code

    def _answer(self, kernel: str, event: Event) -> None:
        """Answer a question of input() from standard input."""
        self._asking = True
        try:
            text = next_answer(
                event.data.get("prompt", ""),
                password=bool(event.data.get("password")),
                quiet=self._args.json,
                deadline=self._deadline,
            )
        except OutOfTimeError:
            return
        except KeyboardInterrupt:
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
        if self._asking or self._interrupted or not self._cells:
            raise KeyboardInterrupt
        self._interrupted = True
        # In a thread of its own, so that the loop goes on and shows what the interrupt does.
        self._interrupter = threading.Thread(target=self._interrupt, name="interrupt", daemon=True)
        self._interrupter.start()

    def _interrupt(self) -> None:
        self._interrupted = True
        kill = command_line(self._group.mesh.settings, "interrupt --kill")
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
                    note("\n".join(describe_receipts([receipt], kill)))
        except PyrokernelError as error:
            complain(str(error))

    def _say_left(self, what: str) -> None:
        """Say what becomes of the cells that are left behind."""
        if not self._cells:
            note(f"{what}: no kernel has taken the cell, and it will not run")
        elif self._args.local:
            note(f"{what}; the private mesh ends, and the cell with it")
        else:
            note(f"{what}; the cell goes on. Its output: {self._logs(next(iter(self._cells)))}")

    def _say_unstarted(self, names: list[str]) -> None:
        """Say where the cell still waits for its turn."""
        if names and not self._args.local:
            words = f"interrupt {' '.join(names)} --cell {self._cell}"
            cancel = command_line(self._group.mesh.settings, words)
            note(f"on {label(names)} it has not started: it waits there, and will run; cancel it: {cancel}")

    def _say_detached(self, names: list[str]) -> None:
        if self._args.json:
            say_json({"cell": self._cell, "kernels": names})
            return
        say(self._cell)
        note(f"runs on {plural(len(names), 'kernel')}; its output: {self._logs(names[0])}")

    def _logs(self, name: str) -> str:
        return command_line(self._group.mesh.settings, f"logs {name} --cell {self._cell[:8]} -f")
