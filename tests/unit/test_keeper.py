"""The keeper renews what it is given, on one thread that comes and goes; and what a client holds by it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import wait_until

from pyrokernel.client import holdings, keeper
from pyrokernel.client.holdings import Holding
from pyrokernel.client.keeper import Keeper
from pyrokernel.errors import KernelDiedError, KernelUnreachableError


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    """A keeper that nobody else uses."""
    made = Keeper()
    monkeypatch.setattr(keeper, "_keeper", made)
    yield made
    made._kept.clear()
    made.hurry(None)


def has_thread(own: Keeper) -> bool:
    """Whether the keeper's thread exists."""
    return own._thread is not None


def test_what_is_kept_is_renewed_again_and_again_until_it_is_dropped(own: Keeper) -> None:
    calls: list[str] = []
    keeper.keep("a", lambda: calls.append(threading.current_thread().name) or True, 0.01)
    wait_until(lambda: len(calls) > 3)
    assert set(calls) == {"pyrokernel-keeper"}
    assert keeper.drop("a")
    assert not keeper.drop("a")
    keeper.hurry(None)
    wait_until(lambda: not has_thread(own))


def test_the_thread_ends_with_the_last_thing_and_begins_anew(own: Keeper) -> None:
    done = threading.Event()
    keeper.keep("a", lambda: done.set() or False, 60)
    assert done.wait(10)
    wait_until(lambda: not has_thread(own))
    done.clear()
    keeper.keep("a", lambda: done.set() or False, 60)
    assert done.wait(10)


def test_a_renewal_that_raises_is_tried_again(own: Keeper) -> None:
    calls: list[int] = []

    def renew() -> bool:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("away")
        return False

    keeper.keep("a", renew, 0.01)
    wait_until(lambda: len(calls) == 3)
    wait_until(lambda: not has_thread(own))


def test_a_key_that_is_kept_anew_by_its_own_renewal_stays(own: Keeper) -> None:
    calls: list[str] = []

    def second() -> bool:
        calls.append("second")
        return False

    def first() -> bool:
        calls.append("first")
        keeper.keep("a", second, 0.01)
        return False

    keeper.keep("a", first, 0.01)
    wait_until(lambda: calls == ["first", "second"])


def test_what_has_waited_longest_is_renewed_first(own: Keeper) -> None:
    calls: list[int] = []
    now = time.monotonic()
    for late in (2, 5, 1, 4, 3):
        kept = keeper._Kept(lambda late=late: calls.append(late) or True, 60)  # type: ignore[misc]
        kept.due = now - late
        own._kept[late] = kept
    own._renew_due()
    assert calls == [5, 4, 3, 2, 1]


def test_hurry_calls_what_is_not_due(own: Keeper) -> None:
    calls: list[int] = []
    keeper.keep("a", lambda: calls.append(1) or True, 3600)
    wait_until(lambda: len(calls) == 1)
    keeper.hurry("a")
    keeper.hurry("nothing of that name")
    wait_until(lambda: len(calls) == 2)


def test_a_forked_child_has_a_keeper_of_its_own(own: Keeper) -> None:
    keeper.keep("a", lambda: True, 3600)
    child = os.fork()
    if child == 0:
        done = threading.Event()
        keeper.hurry("a")
        keeper.keep("b", lambda: done.set() or False, 3600)
        os._exit(0 if done.wait(10) else 1)
    assert os.waitpid(child, 0)[1] == 0


class Asked:
    """Stands for a kernel, and notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.error: Exception | None = None

    def __call__(self, method: str, what: Any, *more: Any) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append((method, what if isinstance(what, dict) else list(what)))


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def holding(own: Keeper, asked: Asked) -> Holding:
    return Holding(("references", "client", "instance"), asked)


def test_all_that_is_held_is_renewed_with_one_request(holding: Holding, asked: Asked) -> None:
    for token in ("a", "b", "a"):
        holding.take(token, 1, leased=True)
    wait_until(lambda: asked.calls)
    holding.give("b", parked=False)
    wait_until(lambda: ("give_back", {"b": 1}) in asked.calls)
    assert asked.calls[-2:] == [("renew", ["a"]), ("give_back", {"b": 1})]


def test_the_second_handle_of_the_same_object_keeps_it(holding: Holding, asked: Asked) -> None:
    holding.take("a", 1, leased=True)
    holding.take("a", 2, leased=True)
    holding.give("a", parked=False)
    wait_until(lambda: ("renew", ["a"]) in asked.calls)
    holding.give("a", parked=False)
    wait_until(lambda: ("give_back", {"a": 2}) in asked.calls)


def test_what_was_pickled_is_renewed_once_more_and_not_given_back(holding: Holding, asked: Asked) -> None:
    holding.take("a", 1, leased=True)
    wait_until(lambda: asked.calls == [("renew", ["a"])])
    holding.give("a", parked=True)
    wait_until(lambda: asked.calls == [("renew", ["a"])] * 2)
    wait_until(lambda: not has_thread(keeper._current()))


def test_how_often_something_was_lent_is_forgotten_with_its_lease(
    holding: Holding, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding.take("kept", 1, leased=True)
    for number in range(20):
        holding.take(f"a{number}", 3, leased=True)
        holding.give(f"a{number}", parked=True)
    wait_until(lambda: asked.calls)
    keeper.hurry(holding.key)
    wait_until(lambda: len(holding._parked) == 20)
    holding.take("a0", 0, leased=False)  # it came back in time
    wait_until(lambda: len(holding._parked) == 19)
    monkeypatch.setattr(holdings, "LEASE_SECONDS", 0.0)
    keeper.hurry(holding.key)
    wait_until(lambda: not holding._parked)
    assert holding._times == {"kept": 1, "a0": 3}
    holding.give("a0", parked=False)
    wait_until(lambda: ("give_back", {"a0": 3}) in asked.calls)
    holding.forget()
    assert holding._times == {"kept": 1}


def test_a_dead_kernel_is_not_asked_again(holding: Holding, asked: Asked) -> None:
    asked.error = KernelDiedError(kernel="k0")
    holding.take("a", 1, leased=True)
    wait_until(lambda: not has_thread(keeper._current()))
    asked.error = None
    holding.take("b", 1, leased=True)
    wait_until(lambda: asked.calls)


def test_a_kernel_out_of_reach_is_asked_again_for_as_long_as_a_lease_may_last(
    holding: Holding, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_AGAIN_SECONDS", 0.01)
    asked.error = KernelUnreachableError("away")
    holding.take("a", 1, leased=True)
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() > begun + 0.1)
    assert has_thread(keeper._current())
    asked.error = None
    wait_until(lambda: asked.calls == [("renew", ["a"])])
    monkeypatch.setattr(holdings, "LEASE_SECONDS", 0.01)
    asked.error = KernelUnreachableError("away")
    keeper.hurry(holding.key)
    wait_until(lambda: not has_thread(keeper._current()))
