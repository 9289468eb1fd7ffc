"""The Python of the shell's own, and what the data commands make of their texts; no shell, no kernels."""

from __future__ import annotations

import pickle
import signal
import sys
import threading

import pytest

from pyrokernel.errors import CellCancelledError, KernelDiedError, RemoteError
from pyrokernel.shell.data import by_kernel, shares
from pyrokernel.shell.here import Here, described
from pyrokernel.shell.jobs import in_order, split_map
from pyrokernel.shell.parser import SourceReader, Takes


@pytest.fixture
def here() -> Here:
    return Here()


def test_variables_stay_from_one_run_to_the_next(here: Here) -> None:
    here.run("x = 20")
    assert here.run("def double(n):\n    return n * 2\ndouble(x) + 2").shown == "42"
    assert here.namespace["_"] == 42
    assert [found["name"] for found in here.variables()] == ["double", "x"]


def test_nothing_is_shown_of_none_and_of_what_a_semicolon_ends(here: Here) -> None:
    assert here.run("None").shown == ""
    assert here.run("1 + 1;").shown == ""
    assert here.run("y = 1").shown == ""


def test_a_traceback_has_the_lines_of_the_user_and_no_frames_of_the_shell(here: Here) -> None:
    here.run("def f(n):\n    return 1 / n")
    error = here.run("f(0)").error
    assert error.startswith("Traceback (most recent call last):\n")
    assert '  File "<here 1>", line 2, in f\n    return 1 / n\n' in error
    assert error.endswith("ZeroDivisionError: division by zero\n")
    assert "pyrokernel" not in error


def test_the_last_exception_is_there_for_a_debugger(here: Here) -> None:
    here.run("raise ValueError(1)")
    assert here.run("import sys; sys.last_value").shown == "ValueError(1)"


def test_a_syntax_error_shows_its_place_only(here: Here) -> None:
    error = here.run("1 +").error
    assert error.startswith('  File "<here 1>", line 1\n    1 +\n')
    assert error.endswith("SyntaxError: invalid syntax\n")


def test_an_exception_that_cannot_be_shown_is_named(here: Here) -> None:
    here.run("class Odd(Exception):\n    def __str__(self): raise ValueError")
    assert "Odd" in here.run("raise Odd").error


def test_an_expression_may_go_over_lines_and_its_errors_are_text(here: Here) -> None:
    assert here.evaluate("1 +\n2").value == 3
    assert here.evaluate("(n for n in range(3))", list).value == [0, 1, 2]
    assert here.evaluate("(1 // n for n in range(3))", list).error.endswith(
        "ZeroDivisionError: integer division or modulo by zero\n"
    )
    assert here.evaluate("x = 1").error.endswith("SyntaxError: invalid syntax\n")


def test_ctrl_c_ends_the_code_and_its_handler_is_gone_afterwards(here: Here) -> None:
    before = signal.getsignal(signal.SIGINT)
    here.namespace["press"] = lambda: signal.raise_signal(signal.SIGINT)
    error = here.run("press()\nnever = 1").error
    assert error.endswith("KeyboardInterrupt\n")
    assert "in press" not in error
    assert "never" not in here.namespace
    assert signal.getsignal(signal.SIGINT) is before


def test_code_runs_in_other_threads_too(here: Here) -> None:
    shown = []
    thread = threading.Thread(target=lambda: shown.append(here.run("6 * 7").shown))
    thread.start()
    thread.join()
    assert shown == ["42"]


def test_what_is_defined_here_can_be_saved(here: Here) -> None:
    main = sys.modules["__main__"]
    here.run("class Thing: pass\nimport pickle")
    assert pickle.loads(here.run("pickle.dumps([1, Thing.__name__])").value) == [1, "Thing"]
    assert here.run("type(pickle.loads(pickle.dumps(Thing()))) is Thing").value is True
    assert sys.modules["__main__"] is main


def test_exit_leaves_and_standard_input_stays_open(here: Here) -> None:
    with pytest.raises(SystemExit):
        here.run("exit()")
    assert not sys.stdin.closed
    assert sys.modules["__main__"] is not vars(here)["_module"]


def test_a_line_that_was_begun_is_ended(here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    here.run("print('a', end='')")
    here.run("print('b')")
    assert capsys.readouterr().out == "a\nb\n"


def test_tab_knows_the_variables_and_what_they_have(here: Here) -> None:
    here.run("spam = 'text'; other = 1")
    assert here.offer("") == [("other", 0, "int"), ("spam", 0, "str")]
    assert here.offer_names("sp") == [("spam", 0, "str")]
    assert [match for match, start, _ in here.offer("x = spam.upp") if start == 9] == ["upper"]


def test_a_space_before_a_bracket_means_the_command_where_python_follows() -> None:
    reader = SourceReader({"here": Takes.PYTHON, "ps": Takes.WORDS})
    assert [reader.command_of(line) for line in ("here [1, 2]", "here (1)", "here [n for n in x]")] == ["here"] * 3
    assert [reader.command_of(line) for line in ("here[1]", "here(1)", "here = [1]", "ps (1)")] == [""] * 4
    reader.variables.add("here")
    assert reader.command_of("here [1]") == ""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("f over xs", ("f", "xs", "_map")),
        ("f over xs into ys", ("f", "xs", "ys")),
        ("lambda x: x ** 2 over range(100)", ("lambda x: x ** 2", "range(100)", "_map")),
        ("lambda x: x + ' over ' over ['into b']", ("lambda x: x + ' over '", "['into b']", "_map")),
        ("f over 'a into b'", ("f", "'a into b'", "_map")),
        ("f over over into", ("f", "over into", "_map")),  # no Python: its evaluation says so
        ("f", None),
        ("f over ", None),
        ("over xs", None),
    ],
)
def test_map_is_split_where_both_sides_are_python(text: str, parts: tuple[str, str, str] | None) -> None:
    assert split_map(text) == parts


def test_scatter_says_how_many_went_where() -> None:
    names = ["k0", "k1", "k2", "k3"]
    assert shares(1000, names) == "1,000 items over k0-k3: 250 each"
    assert shares(6, names) == "6 items over k0-k3: 2 on k0-k1, 1 on k2-k3"
    assert shares(1, ["k7"]) == "1 item on k7"


def test_equal_values_are_one_line_and_many_different_ones_are_cut() -> None:
    assert by_kernel({"k0": 1, "k1": 1, "k2": 5}) == ["[k0-k1] 1", "[k2] 5"]
    lines = by_kernel({f"k{number}": number for number in range(64)})
    assert (len(lines), lines[-1]) == (9, "... and 56 more")


def test_failures_are_named_among_results() -> None:
    failure = RemoteError(kernel="k0", ename="ValueError", evalue="", traceback="", index=1)
    cancelled = CellCancelledError("the job was cancelled")
    assert in_order([1, failure, cancelled], {1: failure, 2: cancelled}) == "[1, <ValueError>, <cancelled>]"
    died = KernelDiedError(kernel="k0")
    assert in_order([died] * 30, dict.fromkeys(range(30), died)).endswith("...")


def test_a_value_is_described_in_a_few_words() -> None:
    assert [described(value) for value in (list(range(1000)), 3.5, {"a": 1})] == ["list of 1,000", "float", "dict of 1"]
    numpy = pytest.importorskip("numpy")
    assert described(numpy.zeros((3, 4))) == "ndarray, 3 x 4"


def test_a_given_name_is_made_at_first_use_and_is_nobodys_variable() -> None:
    made: list[int] = []

    def make() -> list[int]:
        made.append(1)
        return made

    here = Here({"shared": make})
    here.run("x = 1")
    assert (made, [found["name"] for found in here.variables()]) == ([], ["x"])
    assert here.run("shared").shown == "[1]"
    assert here.evaluate("[shared, shared]").value == [made, made]
    assert made == [1]
    assert [match for match, _, _ in here.offer("shared.app")] == ["append"]
    assert "shared" not in [found["name"] for found in here.variables()]
    here.run("shared = 3")
    assert here.run("shared").shown == "3"
    assert "shared" in [found["name"] for found in here.variables()]
    here.run("del shared")
    assert here.evaluate("shared").value is made


def test_a_given_name_that_cannot_be_made_is_told_as_what_it_raises() -> None:
    def fail() -> None:
        raise LookupError("nobody answers")

    here = Here({"shared": fail})
    assert here.run("shared").error.endswith("LookupError: nobody answers\n")
    assert here.evaluate("shared").error.endswith("LookupError: nobody answers\n")
    assert here.run("1 + 1").shown == "2"
