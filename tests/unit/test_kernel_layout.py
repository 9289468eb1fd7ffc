"""Long builtin containers are shown over several lines; the text still means the same value."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from pyrokernel.kernel.layout import MAX_CHARS, WIDTH, laid_out
from pyrokernel.kernel.results import text_of


def shown(value: Any) -> str:
    return laid_out(value, repr(value))


@pytest.mark.parametrize("value", [[1, 2], {"a": {"b": (1,)}}, (), "x" * 200, range(10**9), object()])
def test_what_fits_on_a_line_or_is_no_builtin_container_stays_as_it_is(value: Any) -> None:
    assert shown(value) == repr(value)


def test_every_item_of_a_long_container_has_a_line_below_its_bracket() -> None:
    value = {"name": "x" * 40, "parts": ["y" * 40, ("z" * 40,)], "empty": {}}
    assert shown(value).splitlines() == [
        "{'name': '" + "x" * 40 + "',",
        " 'parts': ['" + "y" * 40 + "',",
        "           ('" + "z" * 40 + "',)],",
        " 'empty': {}}",
    ]


def test_numbers_fill_their_lines() -> None:
    lines = shown({"squares": [n * n for n in range(100)]}).splitlines()
    assert len(lines) == 9
    assert max(map(len, lines)) <= WIDTH


def test_lines_of_an_item_keep_their_margin() -> None:
    class Array:
        def __repr__(self) -> str:
            return "array([1,\n       2])"

    assert shown({"a": Array(), "b": [Array()]}).splitlines() == [
        "{'a': array([1,",
        "             2]),",
        " 'b': [array([1,",
        "              2])]}",
    ]


@pytest.mark.parametrize("many", [1, 7, 40])
def test_the_text_means_the_same_value(many: int) -> None:
    value = {n: [("word " * n, {str(m): [m, {m}] for m in range(n)}, ())] for n in range(many)}
    assert ast.literal_eval(shown(value)) == value


def test_giants_and_deep_ones_and_rings_cost_little() -> None:
    giant = ["x" * 100] * 1000
    assert len(repr(giant)) > MAX_CHARS
    assert shown(giant) == repr(giant)
    ring: list[Any] = ["x" * 100]
    ring += [ring, ring]
    assert shown(ring) == "['" + "x" * 100 + "',\n [...],\n [...]]"
    deep: list[Any] = ["x" * 100]
    for _ in range(200):
        deep = [deep]
    assert shown(deep) == repr(deep)


def test_a_long_key_does_not_multiply_the_text() -> None:
    value = {"k" * 5000: list("a" * 2000)}
    assert len(shown(value)) < 10 * len(repr(value))
    assert ast.literal_eval(shown(value)) == value


def test_only_what_people_read_is_laid_out_and_an_item_whose_repr_fails_the_second_time_costs_nothing() -> None:
    class Once:
        calls = 0

        def __repr__(self) -> str:
            self.calls += 1
            return "once" * 30 + str(1 // (self.calls % 2))

    value = [Once(), 1]
    assert text_of(value, for_people=True) == (f"[{'once' * 30}1, 1]", False)
    words = ["word" * 10] * 3
    assert text_of(words) == (repr(words), False)
    assert text_of(words, for_people=True)[0].count("\n") == 2
