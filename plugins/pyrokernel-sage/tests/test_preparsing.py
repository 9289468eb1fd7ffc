"""Which sources pass through the preparser, and what they become. Runs in the test process."""

from __future__ import annotations

import importlib.util

import pytest

from pyrokernel_sage.preparsing import is_sage_source, preparsed, sage_preparse

needs_preparser = pytest.mark.skipif(
    importlib.util.find_spec("sage") is None or importlib.util.find_spec("sage.repl") is None,
    reason="passagemath-repl is not installed",
)


def power(source: str) -> str:
    """Stand for Sage's preparser."""
    return source.replace("^", "**")


@pytest.mark.parametrize("filename", ["<cell 3>", "<cell 12>", "script.sage", "lib/x.sage", "notebook-cell"])
def test_cells_and_sage_files_are_preparsed(filename: str) -> None:
    assert is_sage_source(filename)
    assert preparsed("2^10", filename, power) == "2**10"


@pytest.mark.parametrize("filename", ["analysis.py", "init.py", "window.pyw", "<habit>"])
def test_python_files_and_lines_of_front_ends_stay(filename: str) -> None:
    assert not is_sage_source(filename)
    assert preparsed("2^10", filename, power) is None


def test_a_source_that_stays_the_same_is_left_alone() -> None:
    assert preparsed("x + y", "<cell 1>", power) is None


def test_what_cannot_be_preparsed_stays_as_it_was_typed() -> None:
    def fail(source: str) -> str:
        raise ValueError(source)

    assert preparsed("2^10", "<cell 1>", fail) is None


def test_what_is_no_python_either_way_stays_as_it_was_typed() -> None:
    assert preparsed("print 2^3", "<cell 1>", power) is None


def test_what_only_the_preparser_breaks_shows_that_it_did() -> None:
    assert preparsed("x ^ 2", "<cell 1>", lambda source: "x ** ** 2") == "x ** ** 2"


def test_await_at_top_level_is_python() -> None:
    assert preparsed("await f(2^3)", "<cell 1>", power) == "await f(2**3)"


@needs_preparser
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("2^10", "Integer(2)**Integer(10)"),
        ("3/4", "Integer(3)/Integer(4)"),
        ("1.5", "RealNumber('1.5')"),
        ("2^^3", "Integer(2)^Integer(3)"),
        ("R.<x> = QQ[]", "R = QQ['x']; (x,) = R._first_ngens(1)"),
        ("[1..5]", "(ellipsis_range(Integer(1),Ellipsis,Integer(5)))"),
        ("0x1F", "Integer(0x1F)"),
        ("1r + 2.5r", "1 + 2.5"),
        ("'2^3'", None),
        ("2x", None),
        ("if 1\n  2", None),
    ],
)
def test_the_preparser_of_sage(source: str, expected: str | None) -> None:
    assert preparsed(source, "<cell 1>") == expected


@needs_preparser
@pytest.mark.parametrize(
    "source",
    [
        '"""Two\nlines 2^3."""\n2^2\nraise ValueError(3)\n',
        "a = [\n  1,\n  2^2,\n]\nb = 3",
        "x = 1 + \\\n    2 + \\\n    3\ny = 4\n\nz = '\\\n5'\n",
        "if x:\n    y = 2 \\\n        + 1\n    z = 3\nelse:\n    z = 2^3  # why \\\n    w = '%d' % 3\n",
        "R.<x> = QQ[]\nf(x) = x^2\nfor i in [1..3]:\n    print(i)\n",
    ],
)
def test_lines_keep_their_numbers(source: str) -> None:
    found = sage_preparse(source)
    assert found.count("\n") == source.count("\n")
    last = [line for line in source.splitlines() if line.strip()][-1]
    at = source.splitlines().index(last)
    assert found.splitlines()[at].split()[0] == last.split()[0] or "ellipsis" in found


@needs_preparser
def test_a_continued_statement_means_the_same() -> None:
    text = preparsed("x = 1 + \\\n    2 + \\\n    3\ny = '\\\n5'", "<cell 1>")
    assert text is not None
    names: dict[str, object] = {"Integer": int}
    exec(text, names)
    assert (names["x"], names["y"]) == (6, "5")
