"""What keys of the shared state hold is kept as long as they do, and one question a namespace tells which."""

from __future__ import annotations

import json
import time
import types
from collections.abc import Sequence
from typing import Any

import pytest

from pyrokernel.client import keeper
from pyrokernel.client.state_link import PIN
from pyrokernel.errors import StateUnavailableError
from pyrokernel.kernel.pins import SharedPins
from pyrokernel.kernel.references import References


class Asked:
    """Stands for the shared state, and notes what it is asked."""

    def __init__(self, space: str = "", root: Asked | None = None) -> None:
        self.space, self.root = space, root or self
        if root is None:
            self.held: dict[tuple[str, str], str] = {}
            self.asked: list[tuple[str, int]] = []
            self.patience: set[float | None] = set()
            self.away = False

    def in_space(self, space: str) -> Any:
        return types.SimpleNamespace(m=types.SimpleNamespace(_keys=Asked(space, self.root)))

    def tokens_of(self, keys: Sequence[str], *, patience: float | None = None) -> dict[str, str]:
        root = self.root
        root.asked.append((self.space, len(keys)))
        root.patience.add(patience)
        if root.away:
            raise StateUnavailableError(reason="away")
        return {key: root.held.get((self.space, key), "") for key in keys}


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def table() -> References:
    return References("k0", "0123456789abcdef")


@pytest.fixture
def pins(table: References, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> SharedPins:
    monkeypatch.setattr(keeper, "keep", lambda *_: None)
    shared: Any = asked
    return SharedPins(table, shared)


def pin(table: References, pins: SharedPins, token: str, space: str, key: str, ago: float = 60.0) -> str:
    """Pin something for a key, as if it had been done some seconds ago; return the name of the pin."""
    name = PIN + json.dumps([space, key, time.time() - ago])
    table.pin(token, name)
    pins.note(token, name)
    return name


def test_one_question_a_namespace_tells_what_its_keys_hold(table: References, pins: SharedPins, asked: Asked) -> None:
    tokens = [table.lend(object(), shown=str(number), holder="a").token for number in range(8)]
    names = [pin(table, pins, token, "ab"[number % 2], f"k{number}") for number, token in enumerate(tokens)]
    asked.held = {("a", "k0"): tokens[0], ("b", "k1"): tokens[1], ("a", "k2"): tokens[0]}
    assert pins._look() is True
    assert sorted(asked.asked) == [("a", 4), ("b", 4)]
    assert asked.patience == {1.0}
    assert set(table.pinned()) == {names[0], names[1]}
    asked.held.clear()
    assert pins._look() is True
    assert pins._look() is False
    assert pins._newest == {}


def test_what_was_just_pinned_is_about_to_be_stored(table: References, pins: SharedPins) -> None:
    name = pin(table, pins, table.lend(object(), shown="", holder="a").token, "", "k", ago=1.0)
    pins._look()
    assert set(table.pinned()) == {name}


def test_nothing_is_let_go_while_nobody_can_be_asked(table: References, pins: SharedPins, asked: Asked) -> None:
    name = pin(table, pins, table.lend(object(), shown="", holder="a").token, "", "k")
    asked.away = True
    assert pins._look() is True
    assert set(table.pinned()) == {name}


def test_of_a_key_that_is_stored_again_and_again_one_pin_is_left(table: References, pins: SharedPins) -> None:
    first, second = (table.lend(object(), shown="", holder="a").token for _ in range(2))
    names = [pin(table, pins, first, "", "k", ago) for ago in (5.0, 4.0, 3.0)]
    other = pin(table, pins, first, "", "other", 3.0)
    newer = pin(table, pins, second, "", "k", 2.0)
    assert set(table.pinned()) == {names[-1], other, newer}


def test_many_keys_are_asked_for_in_pages(table: References, pins: SharedPins, asked: Asked) -> None:
    token = table.lend(object(), shown="", holder="a").token
    for number in range(1500):
        pin(table, pins, token, "", f"k{number}")
        asked.held["", f"k{number}"] = token
    pins._look()
    assert [count for _, count in asked.asked] == [1000, 500]
    assert len(table.pinned()) == 1500
