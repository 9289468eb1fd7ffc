"""The backlog of a job: items go out in order, come back to their places, and are never lost or doubled."""

from __future__ import annotations

import random

from pyrokernel.client.backlog import Backlog, Span


def drain(backlog: Backlog, size: int = 1000) -> list[tuple[int, int]]:
    found = []
    while backlog:
        span = backlog.take(size)
        found.append((span.first, span.stop))
    return found


def test_items_that_come_one_by_one_travel_together_where_they_may() -> None:
    backlog = Backlog()
    for first in range(5):
        backlog.add(Span(first, first + 1), join=True)
    backlog.add(Span(5, 7), join=False)
    assert len(backlog) == 7
    assert drain(backlog) == [(0, 5), (5, 7)]


def test_items_with_other_retries_stay_apart() -> None:
    backlog = Backlog()
    backlog.add(Span(0, 2, retries=1), join=True)
    backlog.add(Span(2, 4, retries=0), join=True)
    assert drain(backlog) == [(0, 2), (2, 4)]


def test_what_comes_back_is_first_again_and_stays_by_itself() -> None:
    backlog = Backlog()
    backlog.add(Span(0, 10), join=True)
    first, second = backlog.take(4), backlog.take(4)
    backlog.put_back(second)
    backlog.put_back(first)
    assert len(backlog) == 10
    assert drain(backlog) == [(0, 4), (4, 8), (8, 10)]


def test_each_item_goes_out_as_often_as_it_came_back_and_once_more() -> None:
    dice = random.Random(7)
    backlog = Backlog()
    backlog.add(Span(0, 500), join=True)
    done: list[int] = []
    while backlog:
        span = backlog.take(dice.randint(1, 40))
        kept = dice.randint(0, len(span))
        done += range(span.first, span.first + kept)
        if kept < len(span):
            backlog.put_back(Span(span.first + kept, span.stop))
    assert sorted(done) == list(range(500))


def test_what_is_cleared_is_gone() -> None:
    backlog = Backlog()
    backlog.add(Span(0, 3), join=True)
    backlog.clear()
    assert (len(backlog), drain(backlog)) == (0, [])
