"""What the interpreter takes a line for: an expression, whose value is shown, or a statement."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from pyrokernel.kernel.interpreter import Interpreter


@pytest.fixture(autouse=True)
def _variables(interpreter: Interpreter) -> None:
    interpreter.namespace().variables.update(a=5, d={}, f=lambda *args, **named: (args, named))


def run(interpreter: Interpreter, source: str) -> Any:
    return interpreter.run_source("c", source, repr, filename="<cell 1>")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("a", "5"),
        ("a == 5", "True"),
        ("a != 5", "False"),
        ("a >= 5", "True"),
        ("a <= 5", "True"),
        ("f(x=1)", "((), {'x': 1})"),
        ("f (x=1)", "((), {'x': 1})"),
        ("f(a, x=1)[1]['x']", "1"),
        ("d.get('=', 3)", "3"),
        ("(b := 7)", "7"),
        ("lambda: 3 # = 4", None),
        ("[x for x in range(2)]", "[0, 1]"),
        ("'import sys'", "'import sys'"),
        ("a  # what it is", "5"),
        ("await f_async()", "6"),
        ("from_ + import_", "3"),
    ],
)
def test_the_value_of_a_line_that_is_an_expression_is_shown(
    interpreter: Interpreter, source: str, shown: str | None
) -> None:
    run(interpreter, "async def f_async(): return 6")
    run(interpreter, "from_ = 1")
    run(interpreter, "import_ = 2")
    outcome = run(interpreter, source)
    assert outcome.traceback == ""
    assert outcome.rendered == shown if shown else outcome.rendered.startswith("<function")


@pytest.mark.parametrize(
    ("source", "name", "value"),
    [
        ("b = 6", "b", 6),
        ("b=6", "b", 6),
        ("a += 1", "a", 6),
        ("a **= 2", "a", 25),
        ("a //= 2", "a", 2),
        ("a <<= 1", "a", 10),
        ("b: int = 6", "b", 6),
        ("b = c = 6", "c", 6),
        ("b, c = 5, 6", "c", 6),
        ("d['k'] = 6", "d", {"k": 6}),
        ("for b in range(7): b", "b", 6),
        ("if a: b = 6", "b", 6),
        ("import math as b", "b", __import__("math")),
        ("b = 6 # ; c", "b", 6),
        ("b = 6; b", "b", 6),
        ("del d", "d", None),
        ("pass", "a", 5),
        ("", "a", 5),
        ("# nothing", "a", 5),
        ("   ", "a", 5),
    ],
)
def test_a_line_that_is_a_statement_is_carried_out(
    interpreter: Interpreter, source: str, name: str, value: object
) -> None:
    outcome = run(interpreter, source)
    assert outcome.traceback == ""
    assert interpreter.namespace().variables.get(name) == value
    assert (outcome.rendered is None) == (source != "b = 6; b")


def test_what_a_line_imports_from_the_future_holds_for_those_that_follow(interpreter: Interpreter) -> None:
    run(interpreter, "from __future__ import annotations")
    run(interpreter, "def g(x: no_such_name): pass")
    assert run(interpreter, "g.__annotations__['x']").rendered == "'no_such_name'"


@pytest.mark.parametrize(
    "source",
    [
        "a b",
        " a",
        "f(",
        "a = ",
        "return 3",
        "a[",
        "0x",
        "if a",
        "f(x for x in d, 1)",
        "print 'x'",
        "f() = 1",
        "1 +",
        "5\\",
    ],
)
def test_what_is_neither_is_told_of_once_as_the_compiler_does(interpreter: Interpreter, source: str) -> None:
    with pytest.raises(SyntaxError) as expected:
        compile(source, "<cell 1>", "exec")
    outcome = run(interpreter, source)
    assert (outcome.ename, outcome.evalue) == (type(expected.value).__name__, str(expected.value))
    assert outcome.traceback.count("SyntaxError") + outcome.traceback.count("IndentationError") == 1


@pytest.mark.parametrize("source", ["d['\\d'] = 1", "'\\d'", "f(x='\\d')", "a is 5"])
def test_a_warning_of_the_compiler_is_given_once(interpreter: Interpreter, source: str) -> None:
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        run(interpreter, source)
    assert len(given) == 1


@pytest.mark.parametrize("source", ["a\n", "a\nb = 1\na", "b = 1\n\n\na"])
def test_of_several_lines_the_last_expression_is_shown(interpreter: Interpreter, source: str) -> None:
    assert run(interpreter, source).rendered == "5"
