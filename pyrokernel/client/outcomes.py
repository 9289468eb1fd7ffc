"""Outcomes: what has come of the items of a job so far, and every way to wait for it. Runs in the caller's process."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from pyrokernel.client.bar import REDRAW_SECONDS, Bar, LiveLine
from pyrokernel.client.withdrawal import obey_ctrl_c
from pyrokernel.errors import PyrokernelError


class Outcomes:
    """Results and failures, by index and as they arrive; the half of a job that its reader holds.

    Args:
        name: What is called, for the bar.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun = self._settled = time.monotonic()
        self._results: list[Any] = []
        self._have: list[bool] = []
        self._arrived: list[int] = []
        self._errors: dict[int, PyrokernelError] = {}
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        done, total = self.progress
        return f"<Job {self._name} {done} of {total} done>"

    @property
    def progress(self) -> tuple[int, int]:
        """How many items are done, failed ones included, and how many there are so far."""
        return len(self._arrived), len(self._results)

    @property
    def done(self) -> bool:
        """Whether every item added so far has its result or failure."""
        return len(self._arrived) == len(self._results)

    @property
    def arrived(self) -> list[int]:
        """The indices of the items that are done, failed ones included, as they came."""
        return list(self._arrived)

    @property
    def errors(self) -> dict[int, PyrokernelError]:
        """The failures so far, by index, as they came; what `results(check=False)` has in their places."""
        with self._changed:
            return dict(self._errors)

    def ready(self, index: int) -> bool:
        """Whether an item is done, failed or not; does not wait.

        Raises:
            IndexError: The job has no such item.
        """
        return self._have[self._position(index)]

    def __iter__(self) -> Iterator[Any]:
        """Yield the results in the order of the items; raise at the first that failed."""
        return self._in_order(check=True)

    def results(self, *, check: bool = True) -> list[Any]:
        """Wait for all results and return them in order; shape (n_items,).

        Args:
            check: Raise the first failure; False leaves the exception in its place.

        Raises:
            RemoteError: The function raised; `.index` says for which item.
            ReplyTimeoutError: The job ran out of its time; what runs goes on until `cancel`.
            KernelDiedError, KernelConnectionError: A kernel was lost, and with it the items it had.
            NotSerializableError: An item cannot travel; the message names it.
        """
        return list(self._in_order(check=check))

    def as_completed(self, *, check: bool = True) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as they arrive.

        Args:
            check: Raise a failure when it arrives; False yields the exception instead.
        """
        for position in itertools.count():
            self._await(lambda: len(self._arrived) > position or self.done)  # noqa: B023  used at once
            if position >= len(self._arrived):
                return
            index = self._arrived[position]
            yield index, self._checked(index, check)

    def result(self, index: int) -> Any:
        """Return the result of one item, when it is there; `ready` tells.

        Raises:
            IndexError: The job has no such item. Else as `results`.
        """
        index = self._position(index)
        self._await(lambda: self._have[index])
        return self._checked(index, check=True)

    def show(self, file: TextIO | None = None) -> None:
        """Wait until the job is done; draw meanwhile how far it is, how fast it goes, what failed and what is left.

        Where a line cannot be drawn over, it is written once, at the end.

        Args:
            file: Where; None for stderr.
        """
        stream = sys.stderr if file is None else file
        line = LiveLine(stream)
        bar = Bar(self._name, self._begun)
        try:
            while not self._await(lambda: self.done, REDRAW_SECONDS if line.possible else None):
                line.show(bar.text(*self.progress, time.monotonic(), failed=len(self._errors)))
        finally:
            line.erase()
        stream.write(bar.text(*self.progress, self._settled, failed=len(self._errors)) + "\n")
        stream.flush()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is done, in seconds; False if the time was not enough. Ctrl-C ends the wait only."""
        try:
            with self._changed:
                return self._changed.wait_for(lambda: self.done, timeout)
        except KeyboardInterrupt as ctrl_c:
            ctrl_c.add_note("the job goes on in the kernels; Job.cancel() stops it")
            raise

    def _give_up(self) -> str:
        """Cancel what has not arrived, after Ctrl-C; return what came of it."""
        raise NotImplementedError

    def _await(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait for something to arrive, in seconds; False if the time was not enough. Ctrl-C cancels the job."""
        try:
            with self._changed:
                return self._changed.wait_for(predicate, timeout)
        except KeyboardInterrupt as ctrl_c:
            obey_ctrl_c(ctrl_c, self._give_up, "the job may go on in the kernels; Job.cancel() stops it")
            raise

    def _in_order(self, *, check: bool) -> Iterator[Any]:
        for index in itertools.count():
            if index >= len(self._results):
                return
            self._await(lambda: self._have[index])  # noqa: B023  used at once
            yield self._checked(index, check)

    def _position(self, index: int) -> int:
        total = len(self._results)
        if not -total <= index < total:
            raise IndexError(f"there is no item {index} in a job of {total}")
        return index % total

    def _checked(self, index: int, check: bool) -> Any:
        error = self._errors.get(index)
        if check and error is not None:
            if not getattr(error, "__notes__", ()):
                error.add_note("results(check=False) returns the results of the other items")
            raise error
        return self._results[index]

    def _expect(self, count: int) -> range:
        """Make room for more items, with the lock held; return their indices."""
        first = len(self._results)
        self._results += [None] * count
        self._have += [False] * count
        return range(first, first + count)

    def _settle(self, index: int, result: Any, *, failed: bool) -> None:
        if not self._have[index]:
            if failed:  # not told from the result, which may itself be an exception
                self._errors[index] = result
            self._results[index] = result
            self._have[index] = True
            self._arrived.append(index)
            self._settled = time.monotonic()
