"""`map`: many calls spread over kernels, shown as they go. Runs in the shell process."""

from __future__ import annotations

import ast
import re
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from cmd2 import Statement

from pyrokernel.client.bar import REDRAW_SECONDS, Bar, LiveLine
from pyrokernel.client.job import Job
from pyrokernel.errors import CellCancelledError, KernelDiedError, PyrokernelError, RemoteError
from pyrokernel.shell.here import Offers, Outcome
from pyrokernel.shell.local import LocalCommands
from pyrokernel.shell.parser import Takes, takes
from pyrokernel.shell.successors import greet_successors
from pyrokernel.texts import one_line, plural

_RESULTS_SHOWN = 20
_STOPPED = ("cancelled", "KeyboardInterrupt")

_OVER = re.compile(r"\bover\b")
_INTO = re.compile(r"\s+into\s+(\w+)\s*\Z")
_DOTTED_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class JobCommands(LocalCommands):
    """Spread calls over kernels."""

    @takes(Takes.TEXT)
    def do_map(self, statement: Statement) -> None:
        """Call a function once per item, spread over the kernels of the group: map F over ITEMS [into NAME].

        F is a name that the kernels know, such as `math.sqrt`, or any other expression of the shell's own
        Python, such as `lambda x: x ** 2`; so is ITEMS. The results land in the shell's own Python, in order,
        as NAME or `_map`; an item that failed has its exception there. Ctrl-C cancels what is left.
        """
        parts = split_map(str(statement))
        if parts is None:
            self._cmd.fail("usage: map F over ITEMS [into NAME], for instance `map lambda x: x ** 2 over range(100)`")
            return
        what, items_text, name = parts
        by_name = _DOTTED_NAME.fullmatch(what) is not None
        function = Outcome(what) if by_name else self._here.evaluate(what)
        if self._failed(function):
            return
        items = self._here.evaluate(items_text, list)
        if self._failed(items):
            return
        job = self._cmd.target.anew().map(function.value, items.value, shown=statement.raw.strip())
        results, failures, cancelled = self._wait(job, what)
        # Of those that Ctrl-C stopped, its own message tells.
        told = {index: error for index, error in failures.items() if not (cancelled and _kind(error) in _STOPPED)}
        if told:
            self._tell(told, name, len(results))
        died = {error.kernel: error for error in failures.values() if isinstance(error, KernelDiedError)}
        if died:
            greet_successors(self._cmd.target.mesh, died.values(), self._cmd.notice)
            self._cmd.target.settle()  # what was told of need not be told again before the next cell
        if by_name and what.partition(".")[0] in self._here.namespace and _not_found(failures):
            self._cmd.notice(
                f"the kernels do not know it, the shell's own Python does: `map ({what}) over ...` sends it"
            )
        missing = f", {len(failures):,} without a result" if failures else ""
        self._land(name, results, [in_order(results, failures)], about=missing)

    def _wait(self, job: Job, what: str) -> tuple[list[Any], dict[int, PyrokernelError], bool]:
        """Show how far a job is until it is done or Ctrl-C cancels it.

        Returns:
            Results in order, by index those that are failures, and whether Ctrl-C was pressed.
        """
        unfinished = CellCancelledError("the job was cancelled")
        arrived: dict[int, Any] = {}
        cancelled = False
        try:
            with _Drawing(job, what):
                arrived.update(job.as_completed(check=False))
        except KeyboardInterrupt as ctrl_c:
            cancelled = True
            self._cmd.fail("; ".join(getattr(ctrl_c, "__notes__", [])) or "cancelled")
            if job.done:
                arrived.update(enumerate(job.results(check=False)))
        results = [arrived.get(index, unfinished) for index in range(len(job))]
        failed = {index: result for index, result in enumerate(results) if isinstance(result, PyrokernelError)}
        return results, failed, cancelled

    def _tell(self, failures: Mapping[int, PyrokernelError], name: str, total: int) -> None:
        """Say what failed: how many items, and the first with its traceback."""
        index, error = next(iter(failures.items()))
        first = f"item {index}"
        text = str(error)
        if isinstance(error, RemoteError):
            first += f" ({one_line(error.item)}) on {error.kernel}" if error.item else f" on {error.kernel}"
            text = error.traceback or f"{error.ename}: {error.evalue}"
        self._cmd.fail(f"{len(failures):,} of {plural(total, 'item')} failed; the first, {first}:")
        self._cmd.write("stderr", self._in_short(text.rstrip("\n"), f"here print({name}[{index}])") + "\n")

    def offer_map(self, text: str) -> Offers:
        """Complete a name that the kernels know, or Python of the shell's own."""
        over = _OVER.search(text)
        if over is not None and over.end() < len(text):
            begin = over.end()
            return [(match, begin + start, about) for match, start, about in self._here.offer(text[begin:])]
        by_name = _DOTTED_NAME.fullmatch(text.removesuffix("."))
        return self._on_kernels(text) if by_name else self._here.offer(text)


def split_map(text: str) -> tuple[str, str, str] | None:
    """Split "F over ITEMS [into NAME]", each where what comes of it is Python; None when there is no "over"."""
    splits = [(text[: match.start()].strip(), text[match.end() :].strip()) for match in _OVER.finditer(text)]
    splits = [(function, rest) for function, rest in splits if function and rest]
    into = _INTO.search(text)
    for function, rest in splits:
        if _is_expression(function):
            if _is_expression(rest):
                return function, rest, "_map"
            if into and _is_expression(rest[: into.start() - len(text)]):
                return function, rest[: into.start() - len(text)], into[1]
    # None is Python: whoever evaluates the first says why.
    return (*splits[0], "_map") if splits else None


def _is_expression(text: str) -> bool:
    try:
        ast.parse(f"({text}\n)", mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


class _Drawing:
    """A line that shows how far a job is, while its block runs.

    Args:
        job: Whose items are counted.
        what: What it calls.
    """

    def __init__(self, job: Job, what: str) -> None:
        self._job = job
        self._what = what
        self._line = LiveLine(sys.stdout)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self._line.erase()

    def _draw(self) -> None:
        bar = Bar(self._what, time.monotonic())
        while not self._over.wait(REDRAW_SECONDS):
            failed = len(self._job.errors)
            self._line.show(bar.text(*self._job.progress, time.monotonic(), failed=failed))


def in_order(results: list[Any], failures: Mapping[int, PyrokernelError]) -> str:
    """Show results in short, by their name those that are failures."""
    from pyrokernel.kernel.summaries import SUMMARY_LIMIT, summary  # late, as in `here`

    if not failures:
        return summary(results)
    words = []
    for index, result in enumerate(results[:_RESULTS_SHOWN]):
        failure = failures.get(index)
        words.append(summary(result, 40) if failure is None else f"<{_kind(failure)}>")
    text = f"[{', '.join(words)}{', ...' if len(results) > len(words) else ''}]"
    return text if len(text) <= SUMMARY_LIMIT else text[: SUMMARY_LIMIT - 3] + "..."


def _kind(failure: PyrokernelError) -> str:
    """Name a failure by what was raised."""
    if isinstance(failure, CellCancelledError):
        return "cancelled"
    return failure.ename if isinstance(failure, RemoteError) else type(failure).__name__


def _not_found(failures: Mapping[int, PyrokernelError]) -> bool:
    """Whether a name was not known in a kernel."""
    return any(_kind(failure) == "NameError" for failure in failures.values())
