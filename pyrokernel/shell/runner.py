"""One cell on a group, shown until it ends, come Ctrl-C, questions or deaths. Runs in the shell process.

A thread follows the events, in one loop for all kernels; the main thread shows them. Ctrl-C
raises nothing here: it is one more message in the same queue, so no event is lost to it.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, Protocol

from pyrokernel.client.cell import Cell
from pyrokernel.client.group import Group
from pyrokernel.errors import CellNotFoundError, GatherError, KernelDiedError, PyrokernelError
from pyrokernel.messages import Event, EventKind, Receipt, new_id
from pyrokernel.shell.display import Display
from pyrokernel.texts import describe_gap, label, one_line

_EVENTS_AHEAD = 1000
"""Events that may wait to be shown; the follower then waits, and the kernels' journals keep the rest."""

_SUCCESSOR_SECONDS = 2.0
_PATIENCE_SECONDS = 1.0
"""After this long without a start, the shell says what a kernel is busy with."""

_ASK_SECONDS = 0.3
_GRACE_SECONDS = 0.3


class FrontEnd(Protocol):
    """What a runner needs of the shell around it."""

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked."""

    def write(self, stream: str, text: str) -> None:
        """Show what a kernel said."""

    def notice(self, text: str) -> None:
        """Say something of the shell's own."""

    def ask(self, prompt: str, *, password: bool = False, afresh: bool = False) -> str:
        """Read a line, with `afresh` not one typed before the question; raises KeyboardInterrupt or EOFError."""


class Runner:
    """Runs cells for a front end, one at a time."""

    def __init__(self, front: FrontEnd) -> None:
        self._front = front

    def run(self, group: Group, source: str) -> bool:
        """Run a cell on every kernel of a group and show it; say whether it succeeded on all.

        Raises:
            PyrokernelError: It could not even be sent.
        """
        with _Attention() as attention:
            run = _Run(self._front, attention, group)
            return run.start(source) and run.to_end()


class _Attention:
    """The queue of one run, to which Ctrl-C talks too while the block runs."""

    def __init__(self) -> None:
        # SimpleQueue is the one queue whose put() a signal handler may call.
        self.inbox: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self.pressed = 0
        self._before: Any = None

    def __enter__(self) -> _Attention:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _press(self, signum: int, frame: FrameType | None) -> None:
        self.pressed += 1
        self.inbox.put(None)


class _Run:
    """One cell on its way."""

    def __init__(self, front: FrontEnd, attention: _Attention, group: Group) -> None:
        self._front, self._attention, self._group = front, attention, group
        self._cells: Mapping[str, Cell] = {}
        self._cell = new_id()
        self._live: set[str] = set()
        self._died: list[KernelDiedError] = []
        self._ok = True
        self._interrupts = 0
        self._waiting: set[str] = set()
        self._unanswered_at: float | None = None
        self._patient_until = time.monotonic() + _PATIENCE_SECONDS
        self._ahead = threading.Semaphore(_EVENTS_AHEAD)
        self._display = Display(group.names, front.write)

    def start(self, source: str) -> bool:
        """Send the cell; say whether any kernel took it."""
        try:
            self._cells = self._group.submit(source, want="text", stdin=True, cell=self._cell)
        except GatherError as error:
            # Some kernels have it already: show how it goes there.
            self._cells = {
                name: Cell(self._group.mesh, self._group[name].link, self._cell, after=int(sent["seq"]))
                for name, sent in error.replies.items()
            }
            for name, failure in error.errors.items():
                self._fail(name, failure)
        self._live = set(self._cells)
        self._waiting = set(self._cells)
        return bool(self._cells)

    def to_end(self) -> bool:
        """Show events until the cell has ended everywhere, or the user leaves it."""
        threading.Thread(target=self._follow, name="follow", daemon=True).start()
        while self._live:
            if self._attention.pressed > self._interrupts:
                self._interrupts += 1
                if not self._interrupt():
                    self._ok = False
                    break
                continue
            try:
                message = self._attention.inbox.get(timeout=self._due())
            except queue.Empty:
                self._display.flush()
                now = time.monotonic()
                if self._waiting and now >= self._patient_until:
                    self._explain_wait()
                if self._unanswered_at is not None and now >= self._unanswered_at:
                    self._tell_unanswered()
                continue
            if message is not None:
                self._ahead.release()
                self._take(*message)
        self._display.flush(all_of_it=True)
        self._display.margin()
        self._greet_successors()
        return self._ok

    def _follow(self) -> None:
        """Put what happens into the inbox; runs in a thread of its own."""
        try:
            for message in self._group.follow(self._cells, stdin=True):
                self._ahead.acquire()
                self._attention.inbox.put(message)
        except Exception as error:  # noqa: BLE001 - the main thread waits for a word from here, whatever happens
            for name in self._cells:
                self._attention.inbox.put((name, error))

    def _take(self, name: str, event: Event | Exception) -> None:
        if name not in self._live:
            return
        if isinstance(event, Exception):
            self._fail(name, event)
            return
        data = event.data
        match event.kind:
            case EventKind.STARTED:
                self._waiting.discard(name)
            case EventKind.OUTPUT:
                self._display.output(name, data["stream"], data["text"])
            case EventKind.RESULT:
                self._display.result(name, data["text"])
            case EventKind.ERROR:
                self._display.error(name, data["traceback"] or f"{data['ename']}: {data['evalue']}")
            case EventKind.INPUT:
                self._answer(name, data)
            case EventKind.GAP:
                self._display.remark(name, describe_gap(event))
            case EventKind.ENDED:
                self._ok &= data.get("status") == "ok"
                self._end(name)

    def _due(self) -> float | None:
        """Return how long the loop may wait for a message, in seconds; None for ever."""
        times = [self._patient_until] if self._waiting else []
        if self._unanswered_at is not None:
            times.append(self._unanswered_at)
        waits = [max(0.0, moment - time.monotonic()) for moment in times]
        due = self._display.due()
        return min([*waits, *([] if due is None else [due])], default=None)

    def _explain_wait(self) -> None:
        """Say, once, what the kernels run that have not begun with this cell."""
        for name in sorted(self._waiting):
            with contextlib.suppress(PyrokernelError):
                running = self._group[name].describe(timeout=_ASK_SECONDS)["running"]
                if running and running["cell"] != self._cell:
                    doing = one_line(running["source"])
                    self._front.notice(f"{name} is busy with a cell of {running['author']}: {doing}")
        self._waiting.clear()

    def _end(self, name: str) -> None:
        self._live.discard(name)
        self._waiting.discard(name)
        self._display.ended(name)

    def _fail(self, name: str, error: Exception) -> None:
        self._ok = False
        if isinstance(error, KernelDiedError):
            self._died.append(error)
            who = "died" if len(self._group) > 1 else f"kernel {name!r} died"
            self._display.error(name, f"{who}: {error.cause or 'cause unknown'}")
        else:
            self._display.error(name, str(error))
        self._end(name)

    def _answer(self, name: str, data: Mapping[str, Any]) -> None:
        """Ask the user what a kernel asks."""
        self._display.flush(all_of_it=True)
        prefix = f"[{name}] " if len(self._group) > 1 else ""
        kernel = self._group[name]
        try:
            text: str | None = self._front.ask(
                prefix + str(data.get("prompt", "")), password=bool(data.get("password"))
            )
        except EOFError:
            text = None
        except KeyboardInterrupt:
            self._attention.pressed += 1
            return
        try:
            kernel.answer_input(data["request"], text)
        except CellNotFoundError as error:
            self._front.notice(f"kernel {name!r}: {error}")

    def _interrupt(self) -> bool:
        """React to Ctrl-C; say whether to go on waiting."""
        self._display.flush(all_of_it=True)
        if self._interrupts > 1:
            return self._ask_what_now()
        try:
            receipts: Mapping[str, Receipt] = self._group.interrupt(self._cell)
        except GatherError as error:
            receipts = error.replies
        except PyrokernelError as error:
            self._front.notice(str(error))
            return True
        outcomes: dict[str, list[str]] = {}
        for name, receipt in receipts.items():
            if name not in self._live:
                continue
            outcome = receipt.outcome
            if outcome == "not running" and self._cancel(name):
                outcome = "cancelled before it started"
            elif outcome == "unanswered":
                # The news that the cell ended after all may be on its way.
                self._unanswered_at = time.monotonic() + _GRACE_SECONDS
                continue
            outcomes.setdefault(": ".join(filter(None, [outcome, receipt.detail])), []).append(name)
        for outcome, names in outcomes.items():
            self._front.notice(f"{label(names)}: {outcome}")
        return True

    def _tell_unanswered(self) -> None:
        """Say which kernels an interrupt did not reach."""
        self._unanswered_at = None
        names = [name for name in self._group.names if name in self._live]
        self._front.notice(
            f"{label(names)}: not interrupted yet, a C call does not let go; Ctrl-C again offers to kill and restart"
        )

    def _cancel(self, name: str) -> bool:
        """Keep the cell from starting on a kernel that runs something else."""
        try:
            cancelled = self._cells[name].cancel()
        except PyrokernelError:
            return False
        if cancelled:
            self._ok = False
            self._end(name)
        return cancelled

    def _ask_what_now(self) -> bool:
        """Offer to kill kernels that hold on; say whether to go on waiting."""
        names = [name for name in self._group.names if name in self._live]
        if not self._front.interactive:
            self._front.notice(f"left running on {label(names)}")
            return False
        question = f"{label(names)} still running. Wait, kill and restart (variables are lost), or leave it? [w/k/l] "
        try:
            answer = self._front.ask(question, afresh=True).strip().lower()[:1]
        except (KeyboardInterrupt, EOFError):
            answer = "w"
        if answer == "l":
            self._front.notice(f"left running on {label(names)}; `logs` shows what it prints")
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
        protected = [info.name for info in mesh.ps() if info.protected and info.name in names]
        if protected:
            self._front.notice(f"{label(protected)}: protected; `restart --force` in another shell ends it")
        mesh.restart([self._group[name] for name in names if name not in protected], force=True)

    def _greet_successors(self) -> None:
        """Say which of the dead answer again."""
        if not self._died:
            return
        deadline = time.monotonic() + _SUCCESSOR_SECONDS
        waiting = {error.kernel: str(error.instance) for error in self._died}
        back: list[str] = []
        while waiting and time.monotonic() < deadline:
            for name, instance in list(waiting.items()):
                if instance not in ("", self._instance_of(name, instance)):
                    back.append(name)
                    del waiting[name]
            if waiting:
                time.sleep(0.02)
        if back:
            self._front.notice(f"{label(back)}: a fresh kernel answers now; its variables are gone")
        if waiting:
            self._front.notice(f"{label(waiting)}: not back yet; `ps` tells more")

    def _instance_of(self, name: str, otherwise: str) -> str:
        with contextlib.suppress(PyrokernelError):
            return self._group.mesh.link_to(name).instance
        return otherwise
