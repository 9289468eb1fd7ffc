"""Sharing out a job, without a kernel: fair shares, what is taken back of whom, and every item in one place."""

from __future__ import annotations

import random
from typing import Any

from pyrokernel.client.backlog import Span
from pyrokernel.client.chunks import Chunk
from pyrokernel.client.links import Link
from pyrokernel.client.pace import Pace
from pyrokernel.client.sharing import LONG_SECONDS, WORTH_SECONDS, Sharing


def sharing(kernels: int, items: int, *, chunk: int | None = None, known: float | None = None) -> Sharing:
    """Share items among kernels, of which each is known to take some seconds."""
    counted = iter(range(10**6))
    pace = Pace(chunk, None if known is None else (known, 10.0))

    def make(span: Span) -> Chunk:
        return Chunk(span.first, list(range(span.first, span.stop)), 0, cell=f"{next(counted):032x}")

    links = [Link(f"k{number}", f"PYRO:k{number}", f"instance{number}") for number in range(kernels)]
    found = Sharing(links, pace, whole=chunk is not None, make=make)
    found.backlog.add(Span(0, items), join=True)
    return found


def fill(found: Sharing, now: float = 0.0) -> None:
    for line in found.alive.values():
        while (lacking := found.lacking(line)) and found.deal(line, lacking, now):
            pass


def sizes(found: Sharing) -> list[list[int]]:
    return [[len(chunk.items) for chunk in line.chunks] for line in found.lines]


def test_a_job_that_nobody_knows_begins_with_one_item_a_kernel() -> None:
    found = sharing(3, 100)
    fill(found)
    assert sizes(found) == [[1], [1], [1]]


def test_each_kernel_gets_its_share_and_two_chunks_of_what_takes_long() -> None:
    found = sharing(4, 1000, known=1e-4)
    fill(found)
    assert sizes(found) == [[250]] * 4
    long = sharing(2, 1000, known=0.01)
    fill(long)
    assert sizes(long) == [[3, 3], [3, 3]]


def test_whoever_has_nothing_gets_what_the_richest_has_not_begun() -> None:
    found = sharing(2, 4, known=0.02, chunk=1)
    fill(found)
    rich, poor = found.lines
    assert sizes(found) == [[1, 1], [1, 1]]
    for chunk in list(poor.chunks):
        assert found.leave(chunk, 0.01)
    assert found.deal(poor, 1, 0.01) == []
    (asked,) = found.level(0.01)
    assert asked is rich.chunks[-1]
    assert found.level(0.01) == [], "one question for one that is idle"
    found.regain(asked, 0, 0.01, 0.02)
    assert rich.withdrawn == 1
    assert found.lacking(rich) == 0, "it has not even read what was taken back"
    (given,) = found.deal(poor, 1, 0.02)
    assert given.items == asked.items


def test_what_a_chunk_has_not_begun_after_long_is_taken_back() -> None:
    found = sharing(1, 100, known=1e-5)
    fill(found)
    (chunk,) = found.lines[0].chunks
    assert found.look == LONG_SECONDS
    assert found.level(LONG_SECONDS / 2) == []
    assert found.level(LONG_SECONDS) == [chunk]
    found.regain(chunk, 3, LONG_SECONDS, LONG_SECONDS + 0.01)
    assert (chunk.items, len(found.backlog), found.lines[0].items) == ([0, 1, 2], 97, 3)
    fill(found, 0.1)
    assert all(len(later.items) < 50 for later in found.lines[0].chunks[1:]), "it is known to be slow now"
    assert found.level(10.0) == [], "there is nothing more to give back"


def test_chunks_of_a_chosen_size_stay_whole() -> None:
    found = sharing(2, 10, chunk=5)
    fill(found)
    assert sizes(found) == [[5, 5], []]
    found.deal(found.lines[1], 1, 0.0)
    assert found.level(1.0) == [found.lines[0].chunks[-1]]


def test_a_chunk_that_is_over_in_a_moment_is_left_alone() -> None:
    found = sharing(2, 10, known=1e-6)
    fill(found)
    assert sizes(found) == [[10], []]
    found.deal(found.lines[1], 1, 0.0)
    assert found.level(0.0) == []
    assert found.look == WORTH_SECONDS
    assert found.level(WORTH_SECONDS) == found.lines[0].chunks


def test_what_came_back_first_counts() -> None:
    found = sharing(1, 10, known=1e-5)
    fill(found)
    (chunk,) = found.level(1.0)
    assert found.leave(chunk, 1.0)
    found.regain(chunk, 2, 1.0, 1.0)
    assert (len(found.backlog), len(chunk.items)) == (0, 10)
    assert not found.leave(chunk, 1.0)


def test_every_item_is_in_one_place_whatever_happens() -> None:
    dice = random.Random(3)
    found = sharing(4, 400)
    done: list[Any] = []
    now = 0.0
    while len(done) < 400:
        now += dice.random() * 0.05
        fill(found, now)
        asked = found.level(now)
        busy = [line for line in found.lines if line.chunks]
        if busy:
            line = dice.choice(busy)
            chunk = line.chunks[0]
            begun = len(chunk.items) if dice.random() < 0.5 else dice.randint(1, len(chunk.items))
            if begun < len(chunk.items):
                asked.append(chunk)
                found.regain(chunk, begun, now, now)
            assert found.leave(chunk, now)
            found._pace.note(line, begun, begun * dice.choice([1e-4, 0.01]), 10)
            done += chunk.items
        for chunk in asked:
            if chunk in chunk.line.chunks:
                found.regain(chunk, 0 if chunk is not chunk.line.chunks[0] else dice.randint(0, 1), now, now)
        for line in found.lines:
            line.withdrawn = 0
        waiting = [*found.backlog._spans]
        there = [index for span in waiting for index in range(span.first, span.stop)]
        there += [item for line in found.lines for chunk in line.chunks for item in chunk.items]
        assert sorted(there + done) == list(range(400))
        assert sum(line.items for line in found.lines) == found._flying
