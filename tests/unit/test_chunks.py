"""Chunks: how items are cut, halved and named, without a kernel."""

from __future__ import annotations

import datetime
import pathlib
import threading
from typing import Any

import pytest

from pyrokernel.client.backlog import Span
from pyrokernel.client.chunks import Chunk, Line, check_calls, show_call, show_indices, show_item
from pyrokernel.client.links import Link
from pyrokernel.errors import KernelDiedError, NotSerializableError, SettingsError


class Loud:
    def __repr__(self) -> str:
        raise AssertionError("a repr of the user's was run")


class Odd(type):
    @property
    def __name__(cls) -> str:
        raise RuntimeError


class Nameless(metaclass=Odd):
    """A class whose name cannot be read."""


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (17, "17"),
        ("text", "'text'"),
        (1.5, "1.5"),
        (None, "None"),
        (1 << 5000, "<int of 5001 bits>"),
        ([1, [2, [3, [4]]]], "[1, [2, <list>]]"),
        (tuple(range(9)), "(0, 1, 2, 3, ...)"),
        ({"a": 1}, "{'a': 1}"),
        (datetime.date(2024, 5, 1), "datetime.date(2024, 5, 1)"),
        (pathlib.PurePosixPath("a.txt"), "PurePosixPath('a.txt')"),
        (Loud(), "<Loud>"),
        ([Loud()], "[<Loud>]"),
        (Nameless(), "an item that cannot be shown"),
    ],
)
def test_an_item_is_shown_in_short(item: Any, text: str) -> None:
    assert show_item(item) == text


@pytest.mark.parametrize("item", ["x" * 10**8, b"x" * 10**8, [["x" * 100] * 9] * 10**6, dict.fromkeys(range(10**6))])
def test_a_huge_item_is_shown_in_short(item: Any) -> None:
    assert len(show_item(item)) <= 60


def test_arrays_are_shown_by_their_shape() -> None:
    numpy = pytest.importorskip("numpy")
    assert show_item(numpy.zeros((1000, 3))) == "<ndarray of shape (1000, 3)>"
    assert "7" in show_item(numpy.int64(7))


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([4], "item 4"),
        ([4, 5], "items 4 to 5"),
        ([0, 1, 2, 7], "items 0 to 2, 7"),
        (range(0, 20, 2), "items 0, 2, 4, 6 and 6 more"),
    ],
)
def test_indices_are_shown_as_runs(indices: Any, text: str) -> None:
    assert show_indices(indices) == text


def test_a_chunk_is_halved_until_one_item_is_left() -> None:
    assert Chunk(10, [0, 1, 2], 1).halves() == [Span(10, 11, 1), Span(11, 13, 1)]
    assert Chunk(10, [0], 1).halves() == []


def test_a_chunk_knows_which_items_are_left_of_it() -> None:
    assert Chunk(10, [0, 1, 2], 1).span() == Span(10, 13, 1)
    assert Chunk(10, [0, 1, 2], 1).span(2) == Span(12, 13, 1)


def test_an_item_that_cannot_travel_is_named_once_it_is_alone() -> None:
    with pytest.raises(NotSerializableError, match=r"item 7 \(<lock>\) cannot travel: TypeError"):
        Chunk(7, [threading.Lock()], 0).request("f", {"shown": "f"})


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "()"),
        ((1000,), {"bins": 10}, "(1000, bins=10)"),
        (("a", [1, 2]), {}, "('a', [1, 2])"),
        ((Loud(),), {"other": Loud()}, "(<Loud>, other=<Loud>)"),
        (tuple(range(9)), {"bins": 10}, "(0, 1, 2, 3, bins=10, ...)"),
        ((), dict.fromkeys("abcdef", 0), "(a=0, b=0, c=0, d=0, ...)"),
    ],
)
def test_a_call_is_shown_as_it_would_be_written(args: Any, kwargs: Any, text: str) -> None:
    assert show_call(args, kwargs) == text


def test_a_huge_call_is_shown_in_short() -> None:
    shown = show_call(("x" * 10**7, "y" * 100), {"z": "z" * 10**7})
    assert len(shown) <= 60
    assert shown.startswith("('xxx")
    assert shown.endswith(" ...)")


def test_calls_travel_as_tuples_and_dicts() -> None:
    assert check_calls([([1, 2], {}), [(3,), {"bins": 10}]]) == [((1, 2), {}), ((3,), {"bins": 10})]
    assert check_calls(((number,), {}) for number in range(2)) == [((0,), {}), ((1,), {})]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (1000, r"call 7 is \(args, kwargs\), such as \(\(1000,\), \{'bins': 10\}\), not 1000"),
        ((1000,), r"call 7 is .*, not \(1000\)"),
        (((1000,),), "call 7 is"),
        ("ab", "call 7 is .*, not 'ab'"),
        ({"a": 1, "b": 2}, "call 7 is"),
        ((1000, {}), r"the args of call 7 are a tuple or list, as in .*, not 1000"),
        (("text", {}), "the args of call 7 are a tuple or list, .*, not 'text'"),
        (({1, 2}, {}), "the args of call 7 are"),
        (((1000,), 10), "the kwargs of call 7 are a dict, .*, not 10"),
        (((1000,), None), "the kwargs of call 7 are a dict, .*, not None"),
        (((1000,), {1: 2}), "the kwargs of call 7 have names of type str, not 1"),
    ],
)
def test_what_is_no_call_is_refused_by_its_index(call: Any, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        check_calls([((), {}), call], first=6)


def test_a_call_that_cannot_travel_is_shown() -> None:
    chunk = Chunk(7, [((threading.Lock(),), {"bins": 10})], 0, calls=True)
    with pytest.raises(NotSerializableError, match=r"call 7 \(<lock>, bins=10\) cannot travel: TypeError"):
        chunk.request("f", {"shown": "f"})


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("died_in", [2, None])
def test_where_answers_may_be_lost_what_is_behind_the_first_without_one_may_have_begun(
    keeps: bool, died_in: int | None
) -> None:
    """By TCP those of a process that dies are lost where it had not read all: a deadly item would be tried again."""
    line = Line(Link("k0", "PYRO:k0@./u:k0"))
    line.link.keeps_answers = keeps
    chunks = [Chunk(first, [first], 0, cell=f"cell {first}") for first in range(5)]
    for chunk in chunks:
        line.append(chunk)
    line.remove(chunks[0])
    last = None if died_in is None else {"cell": f"cell {died_in}", "source": ""}
    death = KernelDiedError(kernel="k0", instance="i", last_cell=last, cause="killed by SIGKILL")
    assert line.explain(death) is death
    never = [chunk.first for chunk in chunks[1:] if line.never_began(chunk, death)]
    assert never == ([2, 3, 4] if keeps else [] if died_in is None else [3, 4])
