"""A function as a command line: the words that it takes, and the call that they mean."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from pyrokernel.arguments import Parameters
from pyrokernel.errors import SettingsError
from pyrokernel.wording import add_arguments, arguments_from, read_literal, without_arguments


def parser_of(function: Callable[..., Any]) -> tuple[argparse.ArgumentParser, list[dict[str, Any]]]:
    parameters = Parameters.of(function, "f").described(inspect.getdoc(function) or "")
    parser = argparse.ArgumentParser(prog="f", exit_on_error=False)
    add_arguments(parser, parameters)
    return parser, parameters


def called(function: Callable[..., Any], line: str) -> tuple[list[Any], dict[str, Any]]:
    parser, parameters = parser_of(function)
    return arguments_from(parser.parse_args(line.split()), parameters)


def plain(a: int, b: float, c: str = "x", *, loud: bool = False, deep: bool = True, where: Path = Path()) -> None: ...


def rest(a: int, b: int = 5, *more: float, **options: object) -> None: ...


def placed(a: int = 1, b: int = 2, c: object = object(), /) -> None: ...


def lists(values: list[int], names: list[str] = []) -> None: ...  # noqa: B006


def odd(help: int = 1, _: int = 2, a_b: int = 3, a_b_: int = 4, argument_x: int = 5) -> None: ...


def chosen(mode: Literal["a", "b"], sure: bool, on: Literal[True, False] = True) -> None: ...


@pytest.mark.parametrize(
    ("function", "line", "args", "kwargs"),
    [
        (plain, "1 2", [1, 2.0], {}),
        (plain, "0x10 -1e5", [16, -1e5], {}),
        (plain, "007 -.5", [7, -0.5], {}),
        (plain, "1 2 --c y --loud", [1, 2.0], {"c": "y", "loud": True}),
        (plain, "1 2 --no-deep --where a/b", [1, 2.0], {"deep": False, "where": "a/b"}),
        (rest, "1", [1], {}),
        (rest, "1 --b 6", [1], {"b": 6}),
        (rest, "1 2 3", [1, 5, 2.0, 3.0], {}),
        (rest, "--b 6 1 2", [1, 6, 2.0], {}),
        (placed, "", [], {}),
        (placed, "--b 3", [1, 3], {}),
        (placed, "--c [1]", [1, 2, [1]], {}),
        (lists, "1 2", [[1, 2]], {}),
        (lists, "1 2 --names x y", [[1, 2]], {"names": ["x", "y"]}),
        (odd, "--argument-help 7 --argument-_ 8", [], {"help": 7, "_": 8}),
        (odd, "--a-b 9 --argument-a_b_ 10", [], {"a_b": 9, "a_b_": 10}),
        (chosen, "a yes --no-on", ["a", True], {"on": False}),
    ],
)  # fmt: skip
def test_words_mean_a_call(function: Callable[..., Any], line: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    assert called(function, line) == (args, kwargs)


def test_assignments_become_options() -> None:
    def f(**options: object) -> None: ...

    assert called(f, "n=3 name=Ada") == ([], {"n": 3, "name": "Ada"})


@pytest.mark.parametrize(
    ("function", "line"),
    [(plain, "1.5 2"), (plain, "1 x"), (chosen, "c yes"), (chosen, "a perhaps"), (plain, "1")],
)
def test_words_that_are_not_what_is_taken_are_refused(function: Callable[..., Any], line: str) -> None:
    parser, _ = parser_of(function)
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parser.parse_args(line.split())


def test_a_place_before_one_that_is_given_must_be_filled() -> None:
    def f(a: object = object(), *more: int) -> None: ...

    with pytest.raises(SettingsError, match="give --a as well"):
        called(f, "2")


def test_percent_signs_of_a_docstring_are_shown() -> None:
    def f(a: int, b: int = 1, c: bool = False) -> None:
        """Do it.

        Args:
            a: 50% of it.
            b: 60%s.
            c: 70%.
        """

    shown = parser_of(f)[0].format_help()
    assert all(text in shown for text in ("50% of it.", "60%s. (default: 1)", "70%. (default: False)"))


def test_the_help_has_the_docstring_but_its_arguments() -> None:
    doc = "Do it.\n\nAt once.\n\nArgs:\n    a: One.\n        More.\n\n    b: Two.\n\nReturns:\n    Nothing."
    assert without_arguments(doc) == "Do it.\n\nAt once.\n\nReturns:\n    Nothing."
    assert without_arguments("") == ""


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("[1, 2]", [1, 2]), ("'a b'", "a b"), ("a b", "a b"), ("(", "(")]
)
def test_where_anything_is_taken_a_word_is_a_literal_or_itself(text: str, value: object) -> None:
    assert read_literal(text) == value


def test_a_list_may_be_written_as_python_writes_it() -> None:
    assert called(lists, "[1,2] 3 --names a b") == ([[1, 2, 3]], {"names": ["a", "b"]})
    with pytest.raises(argparse.ArgumentError, match=r"\[1"):
        called(lists, "[1")
