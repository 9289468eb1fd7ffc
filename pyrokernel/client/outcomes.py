"""Outcomes: what has come of the items of a job so far, and every way to wait for it. Runs in the caller's process."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        self._have = bytearray()
        self._arrived: list[range] = []
        self._count = 0
        self._errors: dict[int, PyrokernelError] = {}
        self._lock = threading.RLock()  # entered, and not the condition, in whose code Ctrl-C would leave it locked
        self._changed = threading.Condition(self._lock)
        self._awaited: list[Callable[[], Any]] = []

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        done, total = self.progress
        return f"<Job {self._name} {done} of {total} done>"

    @property
    def progress(self) -> tuple[int, int]:
        """How many items are done, failed ones included, and how many there are so far."""
        return self._count, len(self._results)

    @property
    def done(self) -> bool:
        """Whether every item added so far has its result or failure."""
        return self._count == len(self._results)

    @property
    def arrived(self) -> list[int]:
        """The indices of the items that are done, failed ones included, as they came."""
        return [index for some in list(self._arrived) for index in some]

    @property
    def errors(self) -> dict[int, PyrokernelError]:
        """The failures so far, by index, as they came; what `results(check=False)` has in their places."""
        with self._lock:
            return dict(self._errors)

    def ready(self, index: int) -> bool:
        """Whether an item is done, failed or not; does not wait.

        Raises:
            IndexError: The job has no such item.
        """
        return bool(self._have[self._position(index)])

    def __iter__(self) -> Iterator[Any]:
        """Yield the results in the order of the items; raise at the first that failed."""
        return itertools.chain.from_iterable(self._parts(check=True))

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
        self._await(lambda: self.done or (check and self._errors))  # woken once, and not for each that comes
        return list(itertools.chain.from_iterable(self._parts(check=check)))

    def as_completed(self, *, check: bool = True) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as they arrive.

        Args:
            check: Raise a failure when it arrives; False yields the exception instead.
        """
        for position in itertools.count():
            if position >= len(self._arrived):
                self._await(lambda: len(self._arrived) > position or self.done)  # noqa: B023  used at once
                if position >= len(self._arrived):
                    return
            for index in self._arrived[position]:
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
            with self._lock:
                return self._wait_for(lambda: self.done, timeout)
        except KeyboardInterrupt as ctrl_c:
            ctrl_c.add_note("the job goes on in the kernels; Job.cancel() stops it")
            raise

    def _give_up(self) -> str:
        """Cancel what has not arrived, after Ctrl-C; return what came of it."""
        raise NotImplementedError

    def _wait_for(self, predicate: Callable[[], Any], timeout: float | None) -> bool:
        """Wait with the lock held; `_tell` wakes those whose predicate has become true, and only them."""
        if predicate():
            return True
        self._awaited.append(predicate)
        try:
            return bool(self._changed.wait_for(predicate, timeout))
        finally:
            self._awaited.remove(predicate)

    def _tell(self) -> None:
        """Wake whoever waits for what has arrived, with the lock held."""
        if any(predicate() for predicate in self._awaited):
            self._changed.notify_all()

    def _await(self, predicate: Callable[[], Any], timeout: float | None = None) -> bool:
        """Wait for something to arrive, in seconds; False if the time was not enough. Ctrl-C cancels the job."""
        try:
            with self._lock:
                return self._wait_for(predicate, timeout)
        except KeyboardInterrupt as ctrl_c:
            obey_ctrl_c(ctrl_c, self._give_up, "the job may go on in the kernels; Job.cancel() stops it")
            raise

    def _parts(self, *, check: bool) -> Iterator[Sequence[Any]]:
        """Go through the results in order, as many at a time as are there when they are reached."""
        for start, stop in self._runs():
            if check and self._errors:
                for index in range(start, stop):
                    yield (self._checked(index, check),)
            else:
                yield self._results[start:stop]

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Go through the items in order, as (first, stop) of those that are done when they are reached."""
        at = 0
        while at < len(self._results):
            self._await(lambda: self._have[at])
            stop = self._have.find(0, at)
            yield at, (at := len(self._have) if stop < 0 else stop)

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
        self._have += bytes(count)
        return range(first, first + count)

    def _settle(self, first: int, results: Sequence[Any], failures: Mapping[int, PyrokernelError]) -> None:
        """Take what came of consecutive items, with the lock held; of one that has its outcome nothing changes.

        Args:
            first: Index of the first.
            results: In order; the exceptions in the places of failed ones.
            failures: Those by their positions, because a result may be an exception, too.
        """
        stop = first + len(results)
        if self._have.find(1, first, stop) >= 0:
            for offset, result in enumerate(results):
                if not self._have[first + offset]:
                    failed = {0: failures[offset]} if offset in failures else {}
                    self._settle(first + offset, [result], failed)
            return
        for offset, error in failures.items():
            self._errors[first + offset] = error
        self._results[first:stop] = results
        self._have[first:stop] = b"\1" * len(results)
        self._arrived.append(range(first, stop))
        self._count += len(results)
        self._settled = time.monotonic()
