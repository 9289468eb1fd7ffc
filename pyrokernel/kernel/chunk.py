"""A chunk: a function called for each of some items, of which others may take back what has not begun.

Runs in the kernel process.
"""

from __future__ import annotations

import itertools
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pyrokernel.errors import NotSerializableError, error_to_wire
from pyrokernel.kernel.interpreter import format_error


class Chunk:
    """The items of one request of a job, on their way through a function.

    Whoever calls the function and whoever takes items back draw from one iterator of a list. A step of it is one step
    under the interpreter's lock, so each item has one taker, and nobody locks anything for it.

    Attributes:
        called: For how many items the function was called.
        failed: For how many of them it raised.
    """

    def __init__(self) -> None:
        self.called = self.failed = 0
        self._total = 0
        self._left: Iterator[Any] | None = None
        self._unwanted = False

    def take_back(self) -> int:
        """Keep what has not begun from beginning (any thread, one at a time); return how many items have begun."""
        if self._left is None:
            self._unwanted = True  # and only then look again: `call_each` looks in the opposite order
            if self._left is None:
                return 0
        taken = len(list(self._left))
        self._total -= taken
        return self._total

    def call_each(self, function: Callable[..., Any], items: Sequence[Any], *, calls: bool) -> dict[str, Any]:
        """Call a function once for each item that nobody takes back; a failure is kept as data.

        A generator that it returns is run to its end, where the item comes.

        Args:
            function: Whatever is called.
            items: Its one argument each time, or with `calls` the (args, kwargs).
            calls: Which of the two.

        Returns:
            "values" of the items that were begun, in order, None for those that failed; "failures", each
            (position, the error as data); "seconds" that it took.
        """
        begun = time.perf_counter()
        left = iter(items if type(items) is list else list(items))
        self._total, self._left = len(items), left
        if self._unwanted:
            self.take_back()
        values: list[Any] = []
        failures: list[tuple[int, dict[str, Any]]] = []

        def go_on(step: Callable[..., bool], some: Iterator[Any]) -> bool:
            while True:
                try:
                    return step(function, some, values)
                except Exception as error:  # noqa: BLE001  the user's function may raise anything; an interrupt ends the whole chunk
                    failures.append((len(values), _failure_of(error)))
                    values.append(None)

        # Few functions return generators, and to look at each value doubles what a call costs. The first one tells;
        # `mend` finds a generator that comes unexpectedly later.
        if calls:
            go_on(_call_whole, left)
        elif self._total == 1 or go_on(_call_with, itertools.islice(left, 1)):
            go_on(_call_with, left)
        else:
            go_on(_call_plainly, left)
        self.called, self.failed = len(values), len(failures)
        return {"values": values, "failures": failures, "seconds": time.perf_counter() - begun}

    def mend(self, outcome: dict[str, Any], why_not: Callable[[Any], str]) -> dict[str, Any]:
        """Make failures of the values that cannot travel, so that they do not cost the others theirs.

        Args:
            outcome: As `call_each` returned it.
            why_not: Says why a value cannot travel, "" for one that can.
        """
        values, failures = list(outcome["values"]), dict(outcome["failures"])
        for offset, value in enumerate(values):
            try:
                if type(value) is types.GeneratorType:
                    values[offset] = value = list(value)
                if reason := why_not(value):
                    raise NotSerializableError(f"the result stayed in the kernel: {reason}")
            except Exception as error:  # noqa: BLE001  as above
                failures[offset], values[offset] = _failure_of(error), None
        self.failed = len(failures)
        return {**outcome, "values": values, "failures": sorted(failures.items())}


def _failure_of(error: Exception) -> dict[str, Any]:
    return {**error_to_wire(error), "traceback": format_error(error)}


def _call_with(function: Callable[..., Any], left: Iterator[Any], values: list[Any]) -> bool:
    """Go on with the items as arguments, until one fails; say whether there was a generator."""
    found = False
    for item in left:
        value = function(item)
        if type(value) is types.GeneratorType:
            found, value = True, list(value)
        values.append(value)
    return found


def _call_plainly(function: Callable[..., Any], left: Iterator[Any], values: list[Any]) -> bool:
    """Go on as `_call_with`, where no value is a generator."""
    for item in left:
        values.append(function(item))  # noqa: PERF401  a comprehension would lose what came before a failure
    return False


def _call_whole(function: Callable[..., Any], left: Iterator[Any], values: list[Any]) -> bool:
    """Go on with the items as whole calls, until one fails."""
    for args, kwargs in left:
        value = function(*args, **kwargs)
        values.append(list(value) if type(value) is types.GeneratorType else value)
    return False
