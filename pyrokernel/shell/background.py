"""Cells sent to the background: one thread follows them all and tells when one is done. Runs in the shell process."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pyrokernel.client.cell import Cell
from pyrokernel.client.group import Group
from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import KernelDiedError, PyrokernelError
from pyrokernel.messages import Event, EventKind, new_id
from pyrokernel.scripts import exit_of
from pyrokernel.shell.following import Follower
from pyrokernel.shell.runner import Runner, send
from pyrokernel.texts import label, names_by, one_line, span

MAX_JOBS = 200
_SHOWN_CHARS = 100
_TOGETHER_SECONDS = 0.3
"""How long a failure or a question of one kernel waits for the same of others, to be told together."""

_FAILURES = ("failed", "lost")


@dataclasses.dataclass
class Outcome:
    """How a cell goes on one kernel.

    Attributes:
        number: Its execution count, 0 before it started.
        exit: Code and text of a `sys.exit` that ended it, None for none.
        question: What its `input()` asks, until that is told; None for nothing.
        told: Whether its end was told.
        text: Result or error, in one line.
        more: Whether it said more than that.
        how: "" while it runs; then "done", "failed", "cancelled" or "lost".
        seconds: How long it took.
    """

    number: int = 0
    text: str = ""
    more: bool = False
    how: str = ""
    seconds: float = 0.0
    exit: tuple[int, str] | None = None
    question: str | None = None
    told: bool = False

    @property
    def urgent(self) -> bool:
        """Whether there is something to tell before the cell has ended elsewhere."""
        return self.question is not None or (self.how in _FAILURES and not self.told)

    def take(self, item: Event | PyrokernelError) -> None:
        """Note what happened."""
        if isinstance(item, PyrokernelError):
            self.how, self.question = "lost", None
            self.text = one_line(str(item), _SHOWN_CHARS)
            if isinstance(item, KernelDiedError):
                self.text = f"the kernel died: {item.cause or 'cause unknown'}"
            return
        data = item.data
        match item.kind:
            case EventKind.STARTED:
                self.number = int(data.get("execution_count", 0))
            case EventKind.OUTPUT:
                self.more = True
            case EventKind.INPUT:
                self.question = one_line(str(data["prompt"]), _SHOWN_CHARS)
            case EventKind.RESULT:
                self.text = one_line(data["text"], _SHOWN_CHARS)
                self.more = self.more or self.text != data["text"]
            case EventKind.ERROR:
                self.exit = exit_of(item)
                text = f"{data['ename']}: {data['evalue']}".removesuffix(": ")
                self.text = one_line(text if self.exit is None else f"exit {self.exit[0]}", _SHOWN_CHARS)
                self.more = self.more or self.exit is None or bool(self.exit[1])
            case EventKind.ENDED:
                self.question = None
                status = "ok" if self.exit == (0, "") else str(data["status"])
                self.how = {"ok": "done", "error": "failed"}.get(status, status)
                self.seconds = float(data.get("duration", 0.0))


class Job:
    """A cell in the background.

    Args:
        number: Of the job, in this shell.
        group: Its kernels.
        id: Of the cell.
        cells, failed: By kernel name, where it was taken, and why it was not.
    """

    def __init__(
        self, number: int, group: Group, id: str, cells: Mapping[str, Cell], failed: Mapping[str, PyrokernelError]
    ) -> None:
        self.number, self.group, self.id, self.cells, self.failed = number, group, id, cells, failed
        self.outcomes = {name: Outcome() for name in group.names}
        for name, error in failed.items():
            self.outcomes[name].take(error)

    @property
    def done(self) -> bool:
        """Whether it has ended on all kernels."""
        return all(outcome.how for outcome in self.outcomes.values())

    def announce(self) -> str:
        """Say what was sent where."""
        return f"[{self.number}] {label(self.cells)}: cell {self.id[:8]}"

    def news(self) -> list[str]:
        """Return what is to be told now: questions, failures, and once it has ended everywhere, all ends."""
        asking = {name: outcome.question for name, outcome in self.outcomes.items() if outcome.question is not None}
        lines = [
            f"[{self.number}] {label(names)}: asks {f'{question!r}' if question else 'for a line'}; "
            f"`follow {self.number}` answers"
            for question, names in names_by(asking).items()
        ]
        over = {
            name: outcome
            for name, outcome in self.outcomes.items()
            if outcome.how and not outcome.told and (self.done or outcome.how in _FAILURES)
        }
        lines += self._describe(over)
        for outcome in over.values():
            outcome.told = True
        for outcome in self.outcomes.values():
            outcome.question = None
        return lines

    def _describe(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """Say how it ended; equal outcomes on one line."""
        alike: dict[tuple[str, str], list[str]] = {}
        for name, outcome in outcomes.items():
            alike.setdefault((outcome.how, outcome.text), []).append(name)
        lines = []
        for (how, text), names in alike.items():
            first = self.outcomes[names[0]]
            took = {"done": " in ", "failed": " after "}.get(how, "")
            took = took and took + span(max(self.outcomes[name].seconds for name in names))
            number = first.number if len(self.outcomes) == 1 else self.id[:8]
            rest = f" (`cells {number}` shows the rest)" if any(self.outcomes[name].more for name in names) else ""
            lines.append(f"[{self.number}] {label(names)}: {how}{took}{': ' if text else ''}{text}{rest}")
        return lines


class Background:
    """The cells that a shell sent to the background.

    Args:
        runner: Shows them, where nobody is told.

    Attributes:
        tell: Shows a line above the prompt, from any thread; None in scripts, which wait for all with `finish`.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.tell: Callable[[str], None] | None = None
        self._jobs: dict[str, Job] = {}
        self._count = 0
        self._ok = True
        self._hushed: set[tuple[str, str]] = set()
        self._due: set[str] = set()
        self._lock = threading.Lock()
        self._follower: Follower | None = None

    @property
    def jobs(self) -> list[Job]:
        """Those that have not ended, the oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def start(self, group: Group, source: str, **options: Any) -> Job:
        """Send a cell; options as `Runner.run`.

        Raises:
            PyrokernelError: It could not be sent to any kernel, or there are too many already.
        """
        if len(self._jobs) >= MAX_JOBS:
            if self.tell is not None:
                raise PyrokernelError(
                    f"{MAX_JOBS} cells are in the background already; wait for some, or `cancel` them"
                )
            self._finish_first()
        sent = new_id()
        # In a script nobody would be told of a question.
        cells, failed = send(group, source, sent, stdin=self.tell is not None, **options)
        if not cells:
            raise next(iter(failed.values()))
        with self._lock:
            self._count += 1
            job = Job(self._count, group, sent, cells, failed)
            self._jobs[sent] = job
            if self.tell is not None:
                self._follow(group.mesh, cells)
                if failed:
                    self._tell_soon(job)
        return job

    def finish(self) -> bool:
        """Show all cells of a script one after the other, each to its end; say whether all succeeded."""
        while self._jobs:
            self._finish_first()
        ok, self._ok = self._ok, True
        return ok

    def _finish_first(self) -> None:
        """Show the oldest cell of a script to its end."""
        job = self.jobs[0]
        self._ok &= self._runner.attach(job.group, job.cells, ours=True, failed=job.failed)
        del self._jobs[job.id]

    @contextlib.contextmanager
    def hushed(self, cells: Iterable[Cell]) -> Iterator[None]:
        """Tell nothing of some cells while they are on the screen."""
        self._hushed = {(cell.kernel, cell.id) for cell in cells}
        try:
            yield
        finally:
            self._hushed = set()

    def _follow(self, mesh: Mesh, cells: Mapping[str, Cell]) -> None:
        """Follow some more cells, in the one thread for all."""
        fresh = self._follower is None
        if self._follower is None:
            self._follower = Follower(mesh, stdin=True)  # keeps questions open, until somebody answers
        for cell in cells.values():
            self._follower.add(cell)
        if fresh:
            threading.Thread(target=self._work, args=(self._follower,), name="background", daemon=True).start()

    def _work(self, follower: Follower) -> None:
        """Take note of what happens; runs in a thread of its own."""
        while True:
            try:
                for cell, item in follower.events():
                    self._take(cell, item)
            except Exception as error:  # noqa: BLE001 - whatever it is, the person waits for a word
                self._give_up(f"the cells in the background are no longer followed: {error}")
                return
            with self._lock:
                if follower.idle:
                    self._follower = None
                    return

    def _take(self, cell: Cell, item: Event | PyrokernelError) -> None:
        with self._lock:
            job = self._jobs.get(cell.id)
            if job is None:
                return
            outcome = job.outcomes[cell.kernel]
            outcome.take(item)
            if (cell.kernel, cell.id) in self._hushed:
                outcome.told, outcome.question = bool(outcome.how), None
            if job.done:
                del self._jobs[cell.id]
                lines = job.news()
            else:
                if outcome.urgent:
                    self._tell_soon(job)
                return
        self._say(lines)

    def _tell_soon(self, job: Job) -> None:
        """Tell what is urgent about a job, in a moment: other kernels may be about to say the same."""
        if job.id not in self._due:
            self._due.add(job.id)
            timer = threading.Timer(_TOGETHER_SECONDS, self._tell_now, (job,))
            timer.daemon = True
            timer.start()

    def _tell_now(self, job: Job) -> None:
        with self._lock:
            self._due.discard(job.id)
            lines = job.news()
        self._say(lines)

    def _give_up(self, why: str) -> None:
        with self._lock:
            self._jobs.clear()
            self._follower = None
        self._say([why])

    def _say(self, lines: list[str]) -> None:
        assert self.tell is not None  # or there would be no thread
        if lines:
            self.tell("\n".join(lines))
