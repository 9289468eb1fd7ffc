"""What Ctrl-C does while cells are on the screen: interrupt them, or leave them alone. Runs in the shell process."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, Protocol, TextIO

from pyrokernel.client.cell import Cell
from pyrokernel.client.group import Group
from pyrokernel.errors import GatherError, PyrokernelError
from pyrokernel.messages import Receipt
from pyrokernel.texts import describe_receipts, label

_GRACE_SECONDS = 0.3
"""The news that a cell ended after all may be on its way."""

_HELD = {
    "unanswered": "not interrupted yet, a C call does not let go",
    "caught": "the cell caught the interrupt and goes on",
}
"""Outcomes after which the cell still runs, as the shell tells them."""


class FrontEnd(Protocol):
    """What a runner needs of the shell around it."""

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked."""

    @property
    def at_prompt(self) -> bool:
        """Whether that person typed the line, so that the screen is theirs and not a script's."""

    @property
    def restricted(self) -> bool:
        """Whether nothing may be written to files."""

    @property
    def lines(self) -> int:
        """How many lines of a cell's output are shown."""

    @property
    def result_lines(self) -> int:
        """How many lines of a result are shown."""

    @property
    def stdout(self) -> TextIO:
        """Where the shell writes."""

    def write(self, stream: str, text: str) -> None:
        """Show what a kernel said."""

    def draw(self, path: str) -> None:
        """Show a picture, where that is possible."""

    def notice(self, text: str) -> None:
        """Say something of the shell's own."""

    def fitted(self, text: str) -> str:
        """Return a sentence in lines of the terminal's width."""

    def ask(
        self, prompt: str, *, password: bool = False, afresh: bool = False, until: threading.Event | None = None
    ) -> str:
        """Read a line, with `afresh` not one typed before the question; raises KeyboardInterrupt or EOFError.

        Once `until` is set, by another thread, nobody wants the answer any more: EOFError.
        """


class Attention:
    """The queue of what is to be shown, to which Ctrl-C talks too while the block runs."""

    def __init__(self) -> None:
        # SimpleQueue is the one queue whose put() a signal handler may call.
        self.inbox: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self.pressed = 0
        self._before: Any = None

    def __enter__(self) -> Attention:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _press(self, signum: int, frame: FrameType | None) -> None:
        self.pressed += 1
        self.inbox.put(None)


class Reaction(Protocol):
    """What Ctrl-C does.

    Attributes:
        does: That, in a word or two.
    """

    does: str

    def press(self) -> bool:
        """React; say whether to go on showing the cells."""

    def due(self) -> float | None:
        """Return in how many seconds `tick` has something to say, None for never."""

    def tick(self) -> None:
        """Say what it is time for."""

    def answered(self) -> None:
        """Note that a cell was given an answer: it reacts, whatever was pressed before."""


class Screen(Protocol):
    """Cells while they are shown, as `Showing` has them."""

    live: set[str]

    def cancelled(self, name: str) -> None:
        """Note that a cell will not run."""

    def catch_up(self) -> None:
        """Show what has happened meanwhile."""


class Detaching:
    """Ctrl-C leaves the cells alone and goes back to the prompt.

    Args:
        front: Where to say so.
        live: Kernels whose cell has not ended; looked at, not changed.
    """

    does = "leaves it running"

    def __init__(self, front: FrontEnd, live: set[str]) -> None:
        self._front, self._live = front, live

    def press(self) -> bool:
        """Leave."""
        names = sorted(self._live)
        self._front.notice(f"detached; what runs on {label(names)} goes on, `interrupt {' '.join(names)}` ends it")
        return False

    def due(self) -> float | None:
        """There is nothing to say later."""
        return None

    def tick(self) -> None:
        """There is nothing to say."""

    def answered(self) -> None:
        """There is nothing to take back."""


class Interrupting:
    """Ctrl-C interrupts a cell everywhere; again, it offers to kill the kernels that hold on.

    Args:
        front: Where receipts are shown and questions asked.
        group: The kernels.
        cells: The same cell, by kernel name.
        screen: Where they are shown.
    """

    does = "interrupts"

    def __init__(self, front: FrontEnd, group: Group, cells: Mapping[str, Cell], screen: Screen) -> None:
        self._front, self._group, self._cells, self._screen = front, group, cells, screen
        self._presses = 0
        self._held: dict[str, str] = {}
        self._tell_at = 0.0

    def press(self) -> bool:
        """Interrupt, or ask what to do about a cell that holds on."""
        self._presses += 1
        if self._presses > 1:
            self._held.clear()
            return self._ask_what_now()
        try:
            receipts: Mapping[str, Receipt] = self._group.interrupt(self._id)
        except GatherError as error:
            receipts = error.replies
        except PyrokernelError as error:
            self._front.notice(str(error))
            return True
        told = []
        for name, receipt in receipts.items():
            if name not in self._screen.live:
                continue
            if receipt.outcome == "not running" and self._cancel(name):
                told.append(Receipt(kernel=name, cell=self._id, outcome="cancelled before it started"))
            elif receipt.outcome in _HELD:
                self._held[name] = receipt.outcome
            else:
                told.append(receipt)
        self._tell_at = time.monotonic() + _GRACE_SECONDS
        for line in describe_receipts(told, "restart"):
            self._front.notice(line)
        return True

    def due(self) -> float | None:
        """Return in how many seconds to say which kernels hold on."""
        return max(0.0, self._tell_at - time.monotonic()) if self._held else None

    def tick(self) -> None:
        """Say which kernels an interrupt did not stop."""
        alike: dict[str, list[str]] = {}
        for name, outcome in self._held.items():
            alike.setdefault(_HELD[outcome] if name in self._screen.live else "interrupted", []).append(name)
        self._held.clear()
        for what, names in alike.items():
            hint = "" if what == "interrupted" else "; Ctrl-C again offers to kill and restart"
            self._front.notice(f"{label(names)}: {what}{hint}")

    def answered(self) -> None:
        """Begin anew: the next Ctrl-C interrupts, as the first did."""
        self._presses = 0
        self._held.clear()

    @property
    def _id(self) -> str:
        return next(iter(self._cells.values())).id

    def _cancel(self, name: str) -> bool:
        """Keep the cell from starting on a kernel that runs something else."""
        try:
            cancelled = self._cells[name].cancel()
        except PyrokernelError:
            return False
        if cancelled:
            self._screen.cancelled(name)
        return cancelled

    def _ask_what_now(self) -> bool:
        """Offer to kill kernels that hold on; say whether to go on waiting."""
        names = [name for name in self._group.names if name in self._screen.live]
        if not self._front.interactive:
            self._front.notice(f"left running on {label(names)}")
            return False
        question = f"{label(names)} still running. Wait, kill and restart (variables are lost), or leave it? [w/k/l] "
        try:
            answer = self._front.ask(question, afresh=True).strip().lower()[:1]
        except (KeyboardInterrupt, EOFError):
            answer = "w"
        # Whoever thinks about it takes time: a kernel that ended or died in it must not lose its successor.
        self._screen.catch_up()
        names = [name for name in names if name in self._screen.live]
        if not names:
            return True
        if answer == "l":
            self._front.notice(f"left running on {label(names)}; `follow` shows how it goes on")
            return False
        if answer == "k":
            try:
                self._kill(names)
            except PyrokernelError as error:
                self._front.notice(str(error))
        return True

    def _kill(self, names: list[str]) -> None:
        """Kill kernels and have them started afresh, the protected ones excepted."""
        mesh = self._group.mesh
        protected = [name for name in names if mesh.is_protected(name)]
        if protected:
            self._front.notice(f"{label(protected)}: protected; `restart --force` in another shell ends it")
        others = [name for name in names if name not in protected]
        if others:
            mesh.restart(others, force=True)
