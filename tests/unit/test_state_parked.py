"""Who waits is found by what was written, first come first, and told when the time is over."""

from __future__ import annotations

from typing import Any

from pyrokernel.state.parked import Parked, Wait
from pyrokernel.stores import Row


def wait(space: str = "", prefix: str = "", deadline: float = 100.0) -> Wait:
    return Wait(space, prefix, attempt=lambda _: None, give_up=lambda: None, deadline=deadline)


def row(key: str, space: str = "") -> Row:
    return Row(1, space, key, "set")


def tokens(found: list[tuple[Wait, Any]]) -> list[Any]:
    return [token for _, token in found]


def test_a_write_concerns_those_with_its_space_and_prefix() -> None:
    parked = Parked()
    for token, (space, prefix) in enumerate([("", ""), ("", "a"), ("", "b"), ("s", "a")]):
        parked.add(wait(space, prefix), token)
    assert tokens(parked.concerned([row("ab")])) == [0, 1]
    assert tokens(parked.concerned([row("b"), row("ab"), row("a")])) == [0, 1, 2]
    assert tokens(parked.concerned([row("a", "s"), row("x", "none")])) == [3]
    assert tokens(parked.concerned([])) == []


def test_the_first_to_come_is_the_first_also_after_an_undone_answer() -> None:
    parked = Parked()
    waits = [wait("~lock/", "l") for _ in range(5)]
    for token, one in enumerate(waits):
        parked.add(one, token)
    parked.remove(waits[1])
    parked.add(waits[1], 1)
    assert tokens(parked.concerned([row("l", "~lock/")])) == [0, 1, 2, 3, 4]


def test_who_is_removed_is_concerned_by_nothing() -> None:
    parked = Parked()
    one = wait()
    parked.add(one, 1)
    parked.remove(one)
    parked.remove(one)
    assert tokens(parked.concerned([row("a")])) == []
    assert len(parked) == 0


def test_those_whose_time_is_over_are_taken_out() -> None:
    parked = Parked()
    assert parked.next_deadline() == float("inf")
    for token, deadline in enumerate([30.0, 10.0, 20.0]):
        parked.add(wait(str(token), deadline=deadline), token)
    assert parked.next_deadline() == 10.0
    assert tokens(parked.late(9.9)) == []
    assert sorted(tokens(parked.late(20.0))) == [1, 2]
    assert (parked.next_deadline(), len(parked)) == (30.0, 1)
    assert tokens(parked.late(30.0)) == [0]
    assert parked.next_deadline() == float("inf")
