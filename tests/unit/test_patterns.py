"""Patterns of clients: what could take for ever is refused, what people write is taken."""

from __future__ import annotations

import random
import re
import time

import pytest

from pyrokernel.wire.patterns import BadPatternError, compile_bounded, matching

NAMES = ["pyrokernel.kernel.k0", "pyrokernel.kernel.gpu-1", "pyrokernel.host.lab1", "camera", "aaaa"]


@pytest.mark.parametrize(
    "pattern",
    [
        "cam",
        r"pyrokernel\.kernel\.(gpu|cpu)-\d+.*",
        ".*lab.*",
        "(?:a|b)?c",
        "[a-z]{2,5}$",
        "[]a]+",
        r"\w+\.\w+",
        "(camera|k[0-9])",
        "^$",
        "a{3}",
        "",
        "x{",
    ],
)
def test_what_people_write_matches_as_it_does_in_python(pattern: str) -> None:
    expected = [name for name in NAMES if re.match(pattern, name)]
    assert list(matching(compile_bounded(pattern), NAMES)) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a|a)*b",
        "(?:a*)*b",
        "(a|aa)+$",
        "a*a*a*b",
        "a?" * 30 + "a" * 30,
        "(a|a)" * 30 + "b",
        r"(.*)\1\1b",
        "(?=a)",
        "(?P<x>a)",
        "(?i)a",
        "(a+){2,}b",
        "(a{0,200}){0,200}b",
        ".{0,99}.{0,99}.{0,99}b",
        "a" * 201,
        "(((a+)?)+)?b",
    ],
)
def test_what_could_take_for_ever_is_refused_at_once(pattern: str) -> None:
    began = time.process_time()
    with pytest.raises(BadPatternError):
        compile_bounded(pattern)
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize("pattern", ["(", "(a", "a)", "[", "*", "a**", "\\", "a{2}{3}", "[z-a]", "x{5,2}", None, 7])
def test_what_is_no_pattern_is_said(pattern: str) -> None:
    with pytest.raises(BadPatternError):
        compile_bounded(pattern)


def test_whatever_is_taken_takes_a_name_in_milliseconds() -> None:
    """Random patterns of the parts that make trouble, on the names that make the most of it."""
    parts = [
        "a",
        "a*",
        "a+",
        "a?",
        ".*",
        "(a|a)",
        "(a|ab)?",
        "(?:a*)",
        "[ab]+",
        "a{0,9}",
        "b",
        "|",
        "$",
        "(a?a?)",
        ".",
        "(",
        ")",
    ]
    names = ["a" * 199, "a" * 198 + "b", "ab" * 100]
    dice = random.Random(7)
    taken, slowest = 0, 0.0
    for _ in range(20_000):
        pattern = "".join(dice.choices(parts, k=dice.randint(1, 12)))
        try:
            compiled = compile_bounded(pattern)
        except BadPatternError:
            continue
        taken += 1
        for name in names:
            began = time.process_time()
            compiled.match(name)
            slowest = max(slowest, time.process_time() - began)
    assert taken > 1000
    assert slowest < 0.1


def test_a_flood_of_names_is_given_up_in_time() -> None:
    pattern = compile_bounded(".*a.*b")
    began = time.monotonic()
    with pytest.raises(BadPatternError, match="prefix"):
        list(matching(pattern, ["a" * 200] * 1_000_000))
    assert time.monotonic() - began < 5
