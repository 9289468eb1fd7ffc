"""What people type in IPython: which of it is a command, how it is read, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from pyrokernel.messages import Inspection
from pyrokernel.shell.habits import HabitCommands, describe_times, one_per_host, split_timeit
from pyrokernel.shell.hints import ELSEWHERE, PROGRAMS, RUN_OPTIONS, for_failure, for_unknown, for_word
from pyrokernel.shell.inspecting import InspectCommands, describe
from pyrokernel.shell.parser import Parser, Piece, SourceReader, Takes, assigned_by
from pyrokernel.shell.restricted import admit
from pyrokernel.texts import stopwatch

COMMANDS = {
    name.removeprefix("do_"): getattr(getattr(commands, name), "takes", Takes.WORDS)
    for commands in (HabitCommands, InspectCommands)
    for name in dir(commands)
    if name.startswith("do_")
}


@pytest.fixture
def reader() -> SourceReader:
    return SourceReader(COMMANDS)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("cd /tmp", "cd"),
        ("cd -", "cd"),
        ("cd ..", "cd"),
        ("run /tmp/x.py -n 3", "run"),
        ("pip -V", "pip"),
        ("env A=1", "env"),
        ("time f(x)", "time"),
        ("time (1 + 1)", "time"),
        ("timeit -n 10 x / y", "timeit"),
        ("files = !ls -l", "sh"),
        ("!!ls", "sh"),
        ("env = gym.make('x')", ""),
        ("run / 2", ""),
        ("cd // n", ""),
        ("x != y", ""),
        ("time.sleep(1)", ""),
    ],
)
def test_habits_are_commands_and_arithmetic_is_not(reader: SourceReader, line: str, command: str) -> None:
    assert reader.command_of(line) == command


def test_a_variable_of_that_name_is_still_python(reader: SourceReader) -> None:
    reader.variables |= {"time", "env", "matplotlib"}
    assert [reader.command_of(line) for line in ("time (1)", "env", "time f(x)", "matplotlib inline")] == [
        "", "", "time", "matplotlib",
    ]  # fmt: skip


def test_a_block_below_a_command_is_one_piece_to_its_blank_line(reader: SourceReader) -> None:
    lines = ["%%timeit x = 1", "y = x", "for i in range(3):", "    y += i", "", "z"]
    block = "\n".join(lines[:4])
    assert list(reader.pieces(lines)) == [Piece(block, "timeit"), Piece("z")]
    assert Parser(reader).parse(block).command == "timeit"
    assert not Parser(reader).parse(block).terminator
    assert Parser(reader).parse(block + "\n").terminator


def test_the_lines_of_a_program_can_be_assigned(reader: SourceReader) -> None:
    statement = Parser(reader).parse("files = !ls -l | head")
    assert (statement.command, str(statement), assigned_by(statement.raw)) == ("sh", "ls -l | head", "files")
    assert assigned_by("!ls") == ""


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ("timeit f(x)", ({}, "", "f(x)")),
        ("%timeit -n 10 -r2 f(-n)", ({"n": 10, "r": 2}, "", "f(-n)")),
        ("timeit -n 10", ({"n": 10}, "", "")),
        ("timeit -x", ({}, "", "-x")),
        ("%%timeit -n 5 x = 1\ny = x\nz", ({"n": 5}, "x = 1", "y = x\nz")),
        ("  %%timeit\nx", ({}, "", "x")),
    ],
)
def test_timeit_is_split_into_options_setup_and_source(raw: str, parts: tuple[Any, ...]) -> None:
    assert split_timeit(raw) == parts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ns"),
        (1.234e-9, "1.23 ns"),
        (12.34e-6, "12.3 µs"),
        (999.96e-6, "1 ms"),
        (0.1234, "123 ms"),
        (59.94, "59.9 s"),
        (64, "1 min 4 s"),
        (3700, "1 h 1 min"),
    ],
)
def test_a_measured_time_has_three_digits(seconds: float, text: str) -> None:
    assert stopwatch(seconds) == text


def test_times_of_several_kernels_are_one_line_from_the_least_to_the_most() -> None:
    assert describe_times({"k0": {"duration": 1.2, "cpu": 1.1}}) == ["1.2 s (CPU 1.1 s)"]
    two = {"k0": {"duration": 1.2, "cpu": 1.1}, "k1": {"duration": 0.5}}
    assert describe_times(two) == ["[k0-k1] 500 ms to 1.2 s (CPU 0 ns to 1.1 s), slowest k0"]
    many = {f"k{n}": {"duration": float(n), "cpu": 0.5} for n in range(1, 20)}
    assert describe_times(many) == ["[k1-k19] 1 to 19 s (CPU 500 ms), slowest k19"]
    assert describe_times({}) == []


def test_a_name_is_described_once_where_kernels_agree() -> None:
    about = Inspection(
        found=True, name="f", type="function", signature="f(x)", docstring="Doc.", source="def f(x): ...\n"
    )
    assert describe({"k0": about, "k1": about}, source=False) == [
        "Name:      f(x)", "Type:      function", "Docstring:", "Doc.",
    ]  # fmt: skip
    assert describe({"k0": about}, source=True)[2:] == ["Source:", "def f(x): ..."]


def test_values_that_differ_are_told_by_kernel() -> None:
    found = {f"k{n}": Inspection(found=True, name="x", type="int", summary=str(n // 2)) for n in range(4)}
    assert describe(found, source=False) == [
        "Name:      x", "Type:      int", "Value:     [k0-k1] 0", "Value:     [k2-k3] 1",
    ]  # fmt: skip


def test_a_name_that_means_different_things_is_described_for_each() -> None:
    kinds = ["int", "str", "str", "list", "dict", "set"]
    found = {f"k{n}": Inspection(found=True, name="x", type=kind) for n, kind in enumerate(kinds)}
    assert describe(found, source=False) == [
        "[k0]", "Name:      x", "Type:      int", "",
        "[k1-k2]", "Name:      x", "Type:      str", "",
        "[k3]", "Name:      x", "Type:      list", "",
        "k4-k5: different again",
    ]  # fmt: skip


class FakeMesh:
    def host_of(self, name: str) -> Any:
        return type("Link", (), {"name": "a" if name < "k2" else "b"})


class FakeGroup:
    names = ("k0", "k1", "k2", "k3")
    mesh = FakeMesh()

    def __getitem__(self, names: list[str]) -> list[str]:
        return names


def test_pip_runs_once_on_each_host() -> None:
    chosen: Any = one_per_host(FakeGroup())  # type: ignore[arg-type]  # all it needs of a group
    assert chosen == ["k0", "k2"]


def test_only_run_is_kept_from_a_shell_for_others() -> None:
    admitted, refused = admit([HabitCommands()])
    assert len(admitted) == 1
    assert refused == {"run"}


def failure(ename: str, evalue: str = "") -> list[dict[str, str]]:
    return [{"status": "ok"}, {"ename": ename, "evalue": evalue}]


def test_a_program_typed_as_python_gets_a_hint() -> None:
    hint = "`!ls` runs a program on the kernels"
    assert for_failure("ls", failure("NameError", "name 'ls' is not defined")) == hint
    assert for_failure("ls -l", failure("NameError", "name 'ls' is not defined")) == hint
    assert for_failure("git status", failure("SyntaxError")) == "`!git` runs a program on the kernels"
    assert for_failure("nvidia-smi", failure("NameError", "name 'nvidia' is not defined")).startswith("`!nvidia-smi`")
    assert for_failure("autoreload 2", failure("SyntaxError")) == ELSEWHERE["autoreload"]


def test_a_slip_in_a_command_before_what_is_no_python_gets_the_command() -> None:
    commands = ["scatter", "gather", "use"]
    assert for_failure("scater x = 3", failure("SyntaxError"), commands) == "did you mean `scatter`?"
    assert for_failure("sorted x = 3", failure("SyntaxError"), commands) == ""
    assert for_failure("scater", failure("NameError", "name 'scater' is not defined"), commands) == ""


def test_what_is_no_program_gets_none() -> None:
    assert for_failure("ls", failure("NameError", "name 'other' is not defined")) == ""
    assert for_failure("ls(1)", failure("NameError", "name 'ls' is not defined")) == ""
    assert for_failure("ls", failure("ValueError")) == ""
    assert for_failure("frob x", failure("SyntaxError")) == ""
    assert for_failure("ls\nx y", failure("SyntaxError")) == ""
    assert for_failure("ls", []) == ""


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("y = %pwd", "`%` begins a line, and gives no value; `y = !pwd` keeps the lines that a program prints"),
        ("y = %who", "`%` begins a line, and gives no value; `y = !COMMAND` keeps the lines that a program prints"),
        ("z = %sx ls -l", "`z = !ls -l` keeps the lines that a program prints"),
        ("x = %timeit -o 1", "`timeit` prints what it measures; `import timeit; x = timeit.timeit(...)` keeps it"),
    ],
)
def test_the_value_of_a_magic_command_is_had_otherwise(line: str, hint: str) -> None:
    assert for_failure(line, failure("SyntaxError")) == hint


def test_a_word_of_the_shell_that_is_called_as_a_function_says_how_it_is_used() -> None:
    undefined = failure("NameError", "name 'nz' is not defined")
    assert for_failure("nz(3)", undefined, ["nz"]).endswith("and no function: `nz 3`")
    assert for_failure("x = nz(3) + 1", undefined, ["nz"]).endswith("and no function: `nz ...`")
    assert for_failure("nz(3)", undefined, ["other"]) == ""


def test_a_habit_inside_a_block_is_told_where_it_stands() -> None:
    assert "line of their own" in for_failure("for n in x:\n    !echo {n}", failure("SyntaxError"))


def test_words_of_elsewhere_have_an_answer_of_one_line() -> None:
    assert for_word("ls") == "`!ls` runs a program on the kernels"
    assert for_word("frob") == ""
    elsewhere = "autoreload debug history paste save store edit notebook pycat load rerun prun"
    for word in elsewhere.split():
        assert for_word(word)
    assert not PROGRAMS & (ELSEWHERE.keys() | COMMANDS.keys())
    for answer in (*ELSEWHERE.values(), *RUN_OPTIONS.values()):
        assert "\n" not in answer
        assert len(answer) < 130


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Out", "`cells`"), ("_5", "`cells`"), ("In", "`history 3-5`"), ("_i3", "`history 3-5`"), ("_x", "")],
)
def test_what_ipython_keeps_by_number_is_told_wherever_it_stands(name: str, hint: str) -> None:
    found = for_failure(f"for x in y:\n    print({name})", failure("NameError", f"name '{name}' is not defined"))
    assert hint in found
    assert bool(hint) == bool(found)
    assert for_failure("get_ipython().magic('ls')", failure("NameError", "name 'get_ipython' is not defined"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("%nonsense", "there is no command 'nonsense'; `help` lists them all"),
        (":tme 3", "there is no command 'tme'; did you mean `time`? `help` lists them all"),
        ("%%nonsense\nrm x", "nothing ran: there is no command 'nonsense'; `help` lists them all"),
        ("%%cd\n/tmp", "nothing ran: `cd` takes no lines below it; `cd` alone is a line"),
        ("%autoreload 2", ELSEWHERE["autoreload"]),
        ("%%capture out\nx", f"nothing ran: {ELSEWHERE['capture']}"),
        ("%%\nx", "nothing ran: there is no command ''; `help` lists them all"),
    ],
)
def test_a_command_that_does_not_exist_is_answered(text: str, answer: str) -> None:
    assert for_unknown(text, COMMANDS) == answer
