"""Chunks: how items are cut, halved and named, without a kernel."""

from __future__ import annotations

import datetime
import pathlib
import threading
from typing import Any

import pytest

from pyrokernel.client.chunks import Chunk, cut, show_indices, show_item
from pyrokernel.errors import NotSerializableError


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


def test_chunks_hold_all_items_in_order() -> None:
    chunks = cut(range(100), 3, chunk=None, retries=1)
    assert [item for chunk in chunks for item in chunk.items] == list(range(100))
    assert [chunk.first for chunk in chunks] == [sum(len(c.items) for c in chunks[:n]) for n in range(len(chunks))]
    assert {len(chunk.items) for chunk in cut(range(10), 3, chunk=5, retries=0)} == {5}


def test_a_chunk_is_halved_until_one_item_is_left() -> None:
    first, second = Chunk(10, [0, 1, 2], 1).halves()
    assert (first.first, first.items, first.retries) == (10, [0], 1)
    assert (second.first, second.items) == (11, [1, 2])
    assert first.halves() == []


def test_an_item_that_cannot_travel_is_named_once_it_is_alone() -> None:
    with pytest.raises(NotSerializableError, match=r"item 7 \(<lock>\) cannot travel: TypeError"):
        Chunk(7, [threading.Lock()], 0).request("f", {"shown": "f"})
