"""A chunk in a kernel: failures keep their places, and each item is called once or taken back, never both."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pyrokernel.kernel.chunk import Chunk


def test_values_and_failures_keep_their_places() -> None:
    found = Chunk().call_each(lambda x: 6 // x, [1, 0, 2, 3, 0], calls=False)
    assert found["values"] == [6, None, 3, 2, None]
    assert [(offset, failure["error"]) for offset, failure in found["failures"]] == [
        (1, "ZeroDivisionError"),
        (4, "ZeroDivisionError"),
    ]
    assert found["seconds"] > 0


@pytest.mark.parametrize("error", [StopIteration, IndexError, GeneratorExit, Exception])
@pytest.mark.parametrize("calls", [False, True])
def test_whatever_a_function_raises_costs_only_its_item(error: type[BaseException], calls: bool) -> None:
    def function(x: int) -> int:
        if x in (0, 2, 4):
            raise error if issubclass(error, Exception) else RuntimeError
        return x

    items: list[Any] = [((x,), {}) for x in range(5)] if calls else list(range(5))
    chunk = Chunk()
    found = chunk.call_each(function, items, calls=calls)
    assert found["values"] == [None, 1, None, 3, None]
    assert [offset for offset, _ in found["failures"]] == [0, 2, 4]
    assert (chunk.called, chunk.failed) == (5, 3)


def test_generators_are_run_where_their_items_come() -> None:
    order: list[Any] = []

    def function(x: int) -> Iterator[int]:
        order.append(("begun", x))
        yield x
        if x == 1:
            raise ValueError("in the middle")
        order.append(("ended", x))

    found = Chunk().call_each(function, [0, 1, 2], calls=False)
    assert found["values"] == [[0], None, [2]]
    assert order == [("begun", 0), ("ended", 0), ("begun", 1), ("begun", 2), ("ended", 2)]
    whole = Chunk().call_each(function, [((0,), {}), ((), {"x": 2})], calls=True)
    assert whole["values"] == [[0], [2]]


def test_what_cannot_travel_and_an_unexpected_generator_are_mended() -> None:
    chunk = Chunk()
    found = chunk.call_each(lambda x: (i for i in range(x)) if x == 2 else x, [1, 2, 3], calls=False)
    mended = chunk.mend(found, lambda value: "it is three" if value == 3 else "")
    assert mended["values"] == [1, [0, 1], None]
    ((offset, failure),) = mended["failures"]
    assert (offset, failure["error"], chunk.failed) == (2, "NotSerializableError", 1)
    assert "it is three" in failure["message"]


def test_what_was_taken_back_before_it_began_is_not_called() -> None:
    chunk = Chunk()
    assert chunk.take_back() == 0
    found = chunk.call_each(pytest.fail, [1, 2, 3], calls=False)
    assert found["values"] == []


def test_what_is_left_is_taken_back_in_the_middle() -> None:
    chunk = Chunk()
    kept: list[int] = []

    def function(x: int) -> int:
        if x == 2:
            kept.extend((chunk.take_back(), chunk.take_back()))
        return x

    assert chunk.call_each(function, list(range(10)), calls=False)["values"] == [0, 1, 2]
    assert kept == [3, 3]
    assert chunk.take_back() == 3


def test_each_item_is_called_or_taken_back_whenever_somebody_asks() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(300):
            chunk, called, kept = Chunk(), [], []
            begin = threading.Event()

            def ask(chunk: Chunk = chunk, kept: list[int] = kept, begin: threading.Event = begin) -> None:
                begin.wait()
                kept.append(chunk.take_back())

            asking = threading.Thread(target=ask)
            asking.start()
            begin.set()
            values = chunk.call_each(lambda x, called=called: called.append(x) or x, list(range(200)), calls=False)[
                "values"
            ]
            asking.join()
            # Asked before it began, the answer may come first: then nothing is called at all.
            assert values == called == list(range(len(values)))
            assert kept == [len(values)]
    finally:
        sys.setswitchinterval(interval)
