"""Cells on the screen, one per kernel, until they end or the user leaves them. Runs in the shell process.

A thread follows the events, in one loop for all kernels; the main thread shows them. Ctrl-C
raises nothing here: it is one more message in the same queue, so no event is lost to it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

from pyrokernel.client.bar import LiveLine
from pyrokernel.client.cell import Cell
from pyrokernel.client.group import Group
from pyrokernel.errors import CellNotFoundError, KernelConnectionError, KernelDiedError
from pyrokernel.messages import Event, EventKind
from pyrokernel.scripts import exit_of
from pyrokernel.shell.busy import describe_wait
from pyrokernel.shell.ctrl_c import Attention, FrontEnd, Reaction
from pyrokernel.shell.display import Display
from pyrokernel.shell.following import Follower
from pyrokernel.shell.journals import Past
from pyrokernel.shell.live import Watch
from pyrokernel.shell.successors import greet_successors
from pyrokernel.texts import describe_gap

_EVENTS_AHEAD = 200
"""Events that may wait to be shown; the follower then waits, and the kernels' journals keep the rest."""

_NEWS_SECONDS = 0.3
"""How long the end of an interrupted cell may take to be heard of."""

_PATIENCE_SECONDS = 1.0
"""After this long without a start, the shell says what a kernel is busy with."""

_DEBUGGERS = ("(Pdb", "(pdb", "ipdb>", "(com)")
"""How the questions of debuggers begin, in which Ctrl-C leaves the debugger."""


class Showing:
    """Cells on the screen, one per kernel.

    Args:
        front: Where they are shown.
        attention: Takes events and Ctrl-C.
        group: The kernels.
        cells: By kernel name.

    Attributes:
        live: Kernels whose cell has not ended.
        outcomes: By kernel name, data of its events "error" and "ended".
        died: The deaths that were told.
    """

    def __init__(self, front: FrontEnd, attention: Attention, group: Group, cells: Mapping[str, Cell]) -> None:
        self._front, self._attention, self._group = front, attention, group
        self._cells = cells
        self.live = set(cells)
        self.outcomes: dict[str, dict[str, Any]] = {name: {} for name in cells}
        self._reaction: Reaction
        self.died: list[KernelDiedError] = []
        self._ok = True
        self._pressed = 0
        self._waiting = set(cells)
        self._patient_until = time.monotonic() + _PATIENCE_SECONDS
        self._explained = False
        self._ahead = threading.Semaphore(_EVENTS_AHEAD)
        self._numbers: dict[str, int] = {}
        self._asked: set[str] = set()
        self._over: set[str] = set()
        """Kernels whose last event has come; the thread that follows adds to it."""
        self._asking = ""
        self._unwanted = threading.Event()
        self._exited: set[str] = set()
        self._live_line = LiveLine(front.stdout) if front.at_prompt else None
        self._line_shown = False
        self._watch = Watch(list(cells))
        self._display = Display(
            group.names,
            self._write,
            see_all=self._see_all if front.at_prompt else None,
            see_result=self._see_result if front.at_prompt else None,
            lines=front.lines,
            result_lines=front.result_lines,
        )

    def react_with(self, reaction: Reaction) -> None:
        """Say what Ctrl-C does."""
        self._reaction = reaction

    def recall(self, name: str, past: Past) -> None:
        """Show what a cell said before."""
        self._waiting.discard(name)
        if past.cut:
            self._display.remark(name, f"... earlier output is not shown; {self._see_all(name)}")
        for event in past.events:
            if event.kind != EventKind.INPUT:
                self._take(name, event)
        if past.question is not None and name in self.live:
            self._answer(name, past.question)

    def to_end(self, *, stdin: bool = True) -> bool:
        """Show events until the cells have ended everywhere, or the user leaves them."""
        follower = Follower(self._group.mesh, stdin=stdin)
        for name in self.live:
            follower.add(self._cells[name])
        threading.Thread(target=self._follow, args=(follower,), name="follow", daemon=True).start()
        try:
            while self.live:
                if self._attention.pressed > self._pressed:
                    self._pressed = self._attention.pressed  # however often: one reaction
                    self._clear_screen_line()
                    self._display.flush(all_of_it=True)
                    if not self._reaction.press():
                        self._ok = False
                        break
                    if self._attention.pressed > self._pressed:
                        # Pressed again meanwhile: the news that the cell has ended comes before what to do about it.
                        self.catch_up()
                    continue
                try:
                    message = self._attention.inbox.get(timeout=self._due())
                except queue.Empty:
                    self._tick()
                    continue
                if message is not None:
                    self._ahead.release()
                    self._take(*message)
        finally:
            follower.stop()
            self._erase_live_line()
        self._display.flush(all_of_it=True)
        self._display.margin()
        if not self.live and self._reaction.due() is not None:
            self._reaction.tick()
        greet_successors(self._group.mesh, self.died, self._front.notice)
        return self._ok

    def fail(self, name: str, error: Exception) -> None:
        """Show why there is nothing (more) of a cell."""
        self._ok = False
        if isinstance(error, KernelDiedError):
            self.died.append(error)
            who = "died" if len(self._group) > 1 else f"kernel {name!r} died"
            self._display.error(name, self._front.fitted(f"{who}: {error.cause or 'cause unknown'}"))
        else:
            self._display.error(name, self._front.fitted(str(error)))
        self._end(name)

    def cancelled(self, name: str) -> None:
        """Note that a cell will not run."""
        self._ok = False
        self._end(name)

    def _follow(self, follower: Follower) -> None:
        """Put what happens into the inbox; runs in a thread of its own."""
        try:
            for cell, item in follower.events():
                self._ahead.acquire()
                if isinstance(item, Exception) or item.kind == EventKind.ENDED:
                    self._over.add(cell.kernel)
                    if cell.kernel == self._asking:
                        self._unwanted.set()
                self._attention.inbox.put((cell.kernel, item))
        except Exception as error:  # noqa: BLE001 - the main thread waits for a word from here, whatever happens
            for name in self._cells:
                self._attention.inbox.put((name, error))

    def catch_up(self) -> None:
        """Show what has happened meanwhile, and what is on its way, until the cell has ended everywhere."""
        deadline = time.monotonic() + _NEWS_SECONDS
        while self.live:
            try:
                message = self._attention.inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return
            if message is not None:
                self._ahead.release()
                self._take(*message)

    def _take(self, name: str, event: Event | Exception) -> None:
        if name not in self.live:
            return
        if isinstance(event, Exception):
            self.fail(name, event)
            return
        data = event.data
        if event.kind in (EventKind.ERROR, EventKind.ENDED):
            self.outcomes[name].update(data)
        match event.kind:
            case EventKind.STARTED:
                self._waiting.discard(name)
                self._numbers[name] = int(data.get("execution_count", 0))
            case EventKind.ERROR:
                self._show_error(name, event)
            case EventKind.INPUT:
                self._answer(name, data)
            case EventKind.ENDED:
                self._ok &= data.get("status") == "ok" or name in self._exited
                self._end(name)
            case _:
                self._show(name, event)

    def _show(self, name: str, event: Event) -> None:
        """Put on the screen what a kernel says."""
        data = event.data
        match event.kind:
            case EventKind.OUTPUT:
                self._display.output(name, data["stream"], data["text"])
            case EventKind.RESULT:
                self._display.result(name, data["text"])
            case EventKind.PROGRESS:
                self._watch.progress(name, float(data["done"]), float(data["total"]), str(data["text"]))
            case EventKind.FIGURE:
                self._display.remark(name, f"[figure: {data['path']}]")
                if len(self._group) == 1:
                    self._front.draw(data["path"])
            case EventKind.GAP:
                self._display.remark(name, describe_gap(event))

    def _show_error(self, name: str, event: Event) -> None:
        """Show what a cell raised; leaving it is no accident."""
        data = event.data
        if data["ename"] == "BdbQuit":
            self._display.remark(name, "left the debugger; the cell ended there")
        elif (exit_ := exit_of(event)) is not None:
            self._exit(name, *exit_)
        else:
            self._display.error(name, data["traceback"] or f"{data['ename']}: {data['evalue']}")

    def _due(self) -> float | None:
        """Return how long the loop may wait for a message, in seconds; None for ever."""
        now = time.monotonic()
        waits = [self._display.due(), self._reaction.due(), self._watch.due() if self._live_line else None]
        if self._waiting and not self._explained:
            waits.append(max(0.0, self._patient_until - now))
        return min((wait for wait in waits if wait is not None), default=None)

    def _tick(self) -> None:
        """Do what it is time for."""
        self._display.flush()
        if self._reaction.due() == 0.0:
            self._erase_live_line()
            self._reaction.tick()
        if self._waiting and not self._explained and time.monotonic() >= self._patient_until:
            self._explained = True
            self._erase_live_line()
            for line in describe_wait(self._group, self._waiting, self._cells):
                self._front.notice(line)
        if self._live_line and self._watch.due() <= 0.0:
            line = self._watch.line(sorted(self.live), sorted(self._waiting), ctrl_c=self._reaction.does)
            if self._display.at_margin:
                self._live_line.show(line)
                self._line_shown = True

    def _write(self, stream: str, text: str) -> None:
        self._erase_live_line()
        self._front.write(stream, text)

    def _erase_live_line(self) -> None:
        if self._live_line:
            self._live_line.erase()
            self._line_shown = False

    def _clear_screen_line(self) -> None:
        """Get away from the ^C that the terminal has drawn, which goes with the live line if there is one."""
        if self._live_line and not self._line_shown:
            self._front.write("stdout", "\n")
            self._display.at_margin = True
        self._erase_live_line()

    def _see_all(self, name: str) -> str:
        """Say how to see all that a cell said, also what is cut here."""
        if self._front.restricted:
            return f"`set lines {100 * self._front.lines}` shows more of the next"
        if not self._cells:  # no kernel has taken it
            return f"`pyrokernel logs {name}` has what it ran before"
        return f"`cells {self._which(name)} > FILE` writes all that the journal has"

    def _see_result(self, name: str) -> str:
        """Say how to see a whole result that is too long to be shown unasked."""
        return f"`cells {self._which(name)}` shows all"

    def _which(self, name: str) -> str:
        """Say what `cells` knows the cell by."""
        one = len(self._cells) == 1 and name in self._numbers
        return str(self._numbers[name]) if one else next(iter(self._cells.values())).id[:8]

    def _end(self, name: str) -> None:
        self.live.discard(name)
        self._waiting.discard(name)
        self._display.ended(name)

    def _exit(self, name: str, code: int, text: str) -> None:
        """Show that a cell left by `sys.exit`: as Python itself, nothing when all is well."""
        if code:
            self._display.error(name, text or f"exit code {code}")
        else:
            self._exited.add(name)

    def _answer(self, name: str, data: Mapping[str, Any]) -> None:
        """Ask the user what a kernel asks."""
        if data["request"] in self._asked:
            return
        self._asked.add(data["request"])
        self._display.flush(all_of_it=True)
        self._erase_live_line()
        prompt = str(data.get("prompt", ""))
        prefix = f"[{name}] " if len(self._group) > 1 else ""
        self._unwanted.clear()
        self._asking = name
        if name in self._over:
            return  # how it ended comes next
        try:
            text: str | None = self._front.ask(
                prefix + prompt, password=bool(data.get("password")), until=self._unwanted
            )
        except EOFError:
            if self._unwanted.is_set():
                return
            text = None
        except KeyboardInterrupt:
            if not prompt.startswith(_DEBUGGERS):
                self._attention.pressed += 1
                return
            text = None
        try:
            self._reaction.answered()
            self._group[name].answer_input(data["request"], text)
        except CellNotFoundError as error:
            self._front.notice(f"kernel {name!r}: {error}")
        except KernelConnectionError:
            return  # how it ended comes as an event
