"""Outcomes of a job: settled in bulk, once each, and read in every way while others settle."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from pyrokernel.client.outcomes import Outcomes
from pyrokernel.errors import PyrokernelError, SettingsError


class Filled(Outcomes):
    def __init__(self, count: int) -> None:
        super().__init__("f")
        self._expect(count)

    def settle(self, first: int, *results: Any, failures: tuple[int, ...] = ()) -> None:
        with self._changed:
            self._settle(first, results, {offset: results[offset] for offset in failures})
            self._tell()


def test_results_come_in_order_whatever_came_first() -> None:
    job = Filled(5)
    job.settle(3, "d", "e")
    assert (job.progress, job.done, job.arrived) == ((2, 5), False, [3, 4])
    job.settle(0, "a", "b", "c")
    assert job.results() == list(job) == ["a", "b", "c", "d", "e"]
    assert list(job.as_completed()) == [(3, "d"), (4, "e"), (0, "a"), (1, "b"), (2, "c")]
    assert [job.ready(index) for index in range(-1, 5)] == [True] * 6


def test_an_item_is_settled_once() -> None:
    job, error = Filled(3), SettingsError("too late")
    job.settle(1, "first")
    job.settle(0, error, error, error, failures=(0, 1, 2))
    assert job.results(check=False) == [error, "first", error]
    assert job.errors == {0: error, 2: error}
    assert (job.arrived, job.progress) == ([1, 0, 2], (3, 3))


def test_a_failure_is_raised_where_its_item_comes_and_an_exception_as_a_result_is_none() -> None:
    job, error, value = Filled(3), SettingsError("no"), ValueError("a result")
    job.settle(0, value, 1, error, failures=(2,))
    iteration = iter(job)
    assert [next(iteration), next(iteration)] == [value, 1]
    with pytest.raises(PyrokernelError):
        next(iteration)
    with pytest.raises(PyrokernelError):
        job.results()
    assert job.results(check=False) == [value, 1, error]


def test_reading_in_order_takes_no_call_for_each_item() -> None:
    """A job of items that take next to nothing spent a third of its time on that."""
    job, calls = Filled(10_000), []
    job.settle(0, *range(10_000))
    sys.setprofile(lambda _frame, event, _argument: calls.append(event))
    try:
        found = list(job)
    finally:
        sys.setprofile(None)
    assert found == list(range(10_000))
    assert len(calls) < 100


@pytest.mark.parametrize(
    "read", [lambda job: job.results(), list, lambda job: [r for _, r in sorted(job.as_completed())]]
)
def test_readers_wait_for_what_comes(read: Any) -> None:
    job = Filled(100)
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.extend(read(job)))
    reader.start()
    for first in range(0, 100, 10):
        job.settle(first, *range(first, first + 10))
    reader.join(30)
    assert found == list(range(100))


def test_a_wait_for_one_item_ends_when_it_is_there() -> None:
    job = Filled(100)
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.append(job.result(50)))
    reader.start()
    job.settle(0, *range(50))
    assert not job.wait(0.01)
    job.settle(50, 50)
    reader.join(30)
    assert found == [50]
