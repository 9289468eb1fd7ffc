"""What `name?` answers, when source is complete, and what the list of variables shows."""

from __future__ import annotations

import linecache
import sys
from typing import Any

import pytest

from pyrokernel.kernel.inspection import inspect_name, is_complete, list_variables

CELL = '''
def plain(a, b=2, /, c="x", *args, d, e=None, **rest):
    """Do it.

    Closely.
        Indented.
    """
    return a


def mark(function):
    return function


@mark
class Marked:
    """A class of a cell."""

    def method(self, x: int, y: "Bare" = None) -> None:
        """Say so."""

    @property
    def image(self) -> bytes:
        """The last image."""
        raise AssertionError

    @classmethod
    def make(cls, size): ...

    def __call__(self, volts): ...


class Bare:
    value = 1
'''


@pytest.fixture
def namespace() -> Any:
    name = "<test cell 1>"
    linecache.cache[name] = (len(CELL), None, CELL.splitlines(keepends=True), name)
    held: dict[str, Any] = {"__name__": "__nowhere__"}
    exec(compile(CELL, name, "exec", dont_inherit=True), held)
    held["marked"] = held["Marked"]()
    yield held
    del linecache.cache[name]


def test_a_function_of_a_cell_shows_signature_docstring_and_source(namespace: dict[str, Any]) -> None:
    found = inspect_name("plain", 5, namespace, detail=1)
    assert (found.found, found.name, found.type) == (True, "plain", "function")
    assert found.signature == "(a, b=2, /, c='x', *args, d, e=None, **rest)"
    assert found.docstring == "Do it.\n\nClosely.\n    Indented."
    assert found.source.startswith("def plain(")
    assert found.source.endswith("return a\n")
    assert inspect_name("plain", 5, namespace).source == ""


def test_a_class_of_a_cell_shows_its_source_with_decorators(namespace: dict[str, Any]) -> None:
    found = inspect_name("Marked", 6, namespace, detail=1)
    assert (found.type, found.docstring) == ("class", "A class of a cell.")
    assert found.source.startswith("@mark\nclass Marked:")
    assert found.source.endswith("volts): ...\n")
    assert inspect_name("Bare", 4, namespace, detail=1).source == "class Bare:\n    value = 1\n"


def test_methods_properties_and_callable_objects(namespace: dict[str, Any]) -> None:
    assert inspect_name("marked.method", 13, namespace).signature == "(x: int, y: Bare = None)"
    assert inspect_name("marked.make", 11, namespace).signature == "(size)"
    assert inspect_name("marked", 6, namespace).signature == "(volts)"
    found = inspect_name("marked.image", 12, namespace, detail=1)
    assert (found.type, found.docstring, found.summary) == ("property", "The last image.", "")
    assert "raise AssertionError" in found.source


@pytest.mark.parametrize(
    ("code", "cursor", "name"),
    [
        ("marked.method", 3, "marked"),
        ("marked.method", 9, "marked.method"),
        ("marked?", 7, "marked"),
        ("marked.method(", 14, "marked.method"),
        ("marked.method(1, ", 17, "marked.method"),
        ("x = len(plain", 13, "plain"),
        ("print(plain(1)", 12, "plain"),
    ],
)
def test_the_expression_at_the_cursor_is_meant(namespace: dict[str, Any], code: str, cursor: int, name: str) -> None:
    assert inspect_name(code, cursor, namespace).name == name


def test_what_is_not_there_is_not_found(namespace: dict[str, Any]) -> None:
    for code in ("nothing", "marked.nothing", "", "1 +", "((", "for", "'", "\x00", "\ud800"):
        assert not inspect_name(code, len(code), namespace).found


def test_builtins_say_what_their_text_says() -> None:
    found = inspect_name("sorted", 6, {})
    assert found.signature == "(iterable, /, *, key=None, reverse=False)"
    assert found.docstring.startswith("Return a new list")


# -- is_complete


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", "complete"),
        ("# note", "complete"),
        ("x = 1", "complete"),
        ("x = 1\ny = 2", "complete"),
        ("await f()", "complete"),
        ("'\\d'", "complete"),
        ("x = (", "incomplete"),
        ("f(\n1,\n", "incomplete"),
        ("'''abc", "incomplete"),
        ("x = \\", "incomplete"),
        ("@decorator", "incomplete"),
        ("if x:", "incomplete"),
        ("if x: pass", "incomplete"),
        ("if x:\n    y", "incomplete"),
        ("if x:\n    y\n", "complete"),
        ("def f():\n\n", "incomplete"),
        ("try:\n    x\n", "incomplete"),
        ("try:\n    x\nfinally:\n    y\n", "complete"),
        ("class A:\n    x = 1\n\ny = 1", "complete"),
        ("a b", "invalid"),
        ("1 +", "invalid"),
        ("else:", "invalid"),
        ("x\x00", "invalid"),
        ("'\ud800'", "invalid"),
        ("(" * 5000, "invalid"),
    ],
)
def test_source_is_complete_when_the_console_would_run_it(code: str, expected: str) -> None:
    assert is_complete(code) == expected


def test_is_complete_prints_no_warning(capfd: pytest.CaptureFixture[str]) -> None:
    is_complete("x = '\\d'; y = '\\777'")
    assert capfd.readouterr() == ("", "")


def test_huge_source_is_not_parsed() -> None:
    assert is_complete("(" * 10_000_000) == "complete"


# -- variables


class Untouchable:
    def __repr__(self) -> str:
        raise AssertionError

    __len__ = __str__ = __repr__  # type: ignore[assignment]


class LoudList(list[int]):
    def __repr__(self) -> str:
        raise AssertionError

    __len__ = __iter__ = __repr__  # type: ignore[assignment]


def test_variables_are_listed_by_name_with_type_summary_and_size() -> None:
    namespace: dict[str, Any] = {
        "text": "a" * 1000,
        "number": 7,
        "huge": 10**5000,
        "items": [1, "two", None, Untouchable()],
        "table": {"a": (1,), "b": set()},
        "odd": Untouchable(),
        "loud": LoudList([1, 2]),
        "error": ValueError("no", 2),
        "sys": sys,
        "_hidden": 1,
        "__name__": "x",
    }
    found = {item["name"]: item for item in list_variables(namespace)}
    assert list(found) == sorted(name for name in namespace if not name.startswith("_"))
    assert found["number"] == {"name": "number", "type": "int", "summary": "7", "size": None}
    assert found["text"]["size"] == 1000
    assert len(found["text"]["summary"]) <= 200
    assert found["huge"]["summary"] == "<int of 16610 bits>"
    assert found["items"]["summary"] == f"[1, 'two', None, <{__name__}.Untouchable>]"
    assert found["table"]["summary"] == "{'a': (1,), 'b': set()}"
    assert found["odd"]["summary"] == f"<{__name__}.Untouchable>"
    assert (found["loud"]["summary"], found["loud"]["size"]) == (f"<{__name__}.LoudList, 2 items>", 2)
    assert found["error"]["summary"] == "ValueError('no', 2)"
    assert found["sys"]["summary"] == "<module sys>"


def test_variables_can_be_asked_for_by_name() -> None:
    found = list_variables({"ps": 3, "other": 4, "_x": 5}, {"ps", "use", "_x"})
    assert [variable["name"] for variable in found] == ["ps"]
