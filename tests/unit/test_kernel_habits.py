"""What commands such as `!ls` and `timeit` do in a kernel: here in this process, without one."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from pyrokernel.kernel import habits
from pyrokernel.kernel.interpreter import HabitError, Interpreter
from pyrokernel.messages import HABIT

_CLEANS_UP = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    print("cleaned up")
"""


@pytest.fixture(autouse=True)
def _usual_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHELL", "/bin/sh")
    monkeypatch.chdir(tmp_path)


def run(interpreter: Interpreter, source: str, **options: Any) -> Any:
    return interpreter.run_source("c", source, repr, filename=options.pop("filename", "<cell 1>"), **options)


@pytest.mark.parametrize(
    ("command", "expanded"),
    [
        ("echo $name", "echo bob"),
        ("echo $name.txt", "echo bob.txt"),
        ("echo {name}/{n + 1}", "echo bob/42"),
        ("echo {n:05d} {name!r}", "echo 00041 'bob'"),
        ("echo {table['a:b']} {words[0:1]}", "echo colon ['x']"),
        ("echo { {1: 'one'}[1] }", "echo one"),
        ("echo $HOME ${name} $1 $?", "echo $HOME ${name} $1 $?"),
        ("echo $$name $$", "echo $name $"),
        ("echo '$name' \"it's $name\"", "echo '$name' \"it's bob\""),
        ("echo \\$name", "echo \\$name"),
        ("awk '{print}' f; awk '{print $1}'", "awk '{print}' f; awk '{print $1}'"),
        ("awk '{{print $1}}'", "awk '{print $1}'"),
        ("find . -exec ls {} \\;", "find . -exec ls {} \\;"),
        ("echo {missing} a{b,c} {", "echo {missing} a{b,c} {"),
        ("a && b | c > d", "a && b | c > d"),
    ],
)
def test_a_command_gets_values_of_the_namespace(command: str, expanded: str) -> None:
    variables = {"name": "bob", "n": 41, "table": {"a:b": "colon"}, "words": ["x", "y"]}
    assert habits.expand(command, variables) == expanded


def test_an_expression_that_fails_is_not_given_to_the_shell_as_text() -> None:
    with pytest.raises(KeyError):
        habits.expand("rm -r {table['missing']}", {"table": {}})


def test_a_command_writes_where_the_kernel_writes(capfd: pytest.CaptureFixture[str]) -> None:
    variables: dict[str, Any] = {"x": 5}
    habits.sh("echo out $x; echo err >&2", variables)
    assert capfd.readouterr() == ("out 5\n", "err\n")
    assert variables["_exit_code"] == 0


@pytest.mark.parametrize(("command", "said"), [("exit 3", "exit code 3"), ("kill -9 $$$$", "killed by SIGKILL")])
def test_a_command_that_fails_says_how(command: str, said: str) -> None:
    variables: dict[str, Any] = {}
    with pytest.raises(HabitError, match=f"^{said}$"):
        habits.sh(command, variables)
    assert variables["_exit_code"] != 0


def test_the_shell_of_the_account_runs_it_unless_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own-shell"
    own.write_text('#!/bin/sh\necho "own $2"\n')
    own.chmod(0o755)
    monkeypatch.setenv("SHELL", str(own))
    habits.sh("date", {})
    monkeypatch.setenv("SHELL", "/nowhere")
    habits.sh("echo usual", {})
    assert capfd.readouterr().out == "own date\nusual\n"


def test_lines_of_a_command_are_a_value(capfd: pytest.CaptureFixture[str]) -> None:
    variables: dict[str, Any] = {}
    assert habits.lines_of("printf 'a\\nb c\\n'; exit 1", variables) == ["a", "b c"]
    assert capfd.readouterr().err == "exit code 1\n"


def test_a_program_that_is_interrupted_may_clean_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    monkeypatch.setenv("PROGRAM", _CLEANS_UP)

    def interrupt() -> None:
        wait_until(lambda: begun.exists() and begun.read_text())
        for pid in (int(begun.read_text()), os.getpid()):  # as the kernel does for its process group
            os.kill(pid, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        habits.sh(f'exec {sys.executable} -c "$PROGRAM" {begun}', {})
    thread.join()
    assert capfd.readouterr().out == "cleaned up\n"


def test_cd_goes_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a b").mkdir()
    habits.cd("'a b'", {})
    assert Path.cwd() == tmp_path / "a b"
    habits.cd("-", {})
    assert Path.cwd() == tmp_path
    habits.cd("{there}", {"there": "a b"})
    habits.pwd()
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/a b", str(tmp_path), *[f"{tmp_path}/a b"] * 2]
    with pytest.raises(HabitError, match=r"^cd: nowhere: No such file or directory$"):
        habits.cd("nowhere", {})


def test_env_lists_without_secrets_and_sets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("A_TOKEN", "hush")
    monkeypatch.setenv("PLAIN", "1")
    habits.env("", {})
    listed = capsys.readouterr().out.splitlines()
    assert {"A_TOKEN=<hidden>", "PLAIN=1"} <= set(listed)
    habits.env("A_TOKEN", {})
    habits.env("PLAIN = {n} x", {"n": 2})
    habits.env("PLAIN", {})
    assert capsys.readouterr().out == "hush\n2 x\n"
    with pytest.raises(HabitError, match="no variable 'MISSING'"):
        habits.env("MISSING", {})


def test_pip_is_that_of_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run_nothing(command: str, variables: dict[str, Any]) -> int:
        ran.append(command)
        return 0

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(habits, "_run", run_nothing)
    habits.pip("install {name}", {"name": "x"})
    habits.pip("uninstall x", {})
    assert ran == [f"{sys.executable} -m pip install x", f"{sys.executable} -m pip uninstall x --yes"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HabitError, match="has no pip"):
        habits.pip("list", {})


def test_timeit_says_it_as_ipython_does(capsys: pytest.CaptureFixture[str]) -> None:
    habits.time_it("n = 1 + 1", "", 1000, 3, {})
    habits.time_it("1 + 1", "", 1, 1, {})
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"[\d.]+ [µn]s ± [\d.]+ [pµn]?s per loop \(mean ± std\. dev\. of 3 runs, 1,000 loops each\)", lines[0]
    )
    assert "(mean ± std. dev. of 1 run, 1 loop each)" in "".join(lines[1:])


def test_timeit_chooses_its_loops_and_uses_the_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    variables: dict[str, Any] = {"calls": []}
    habits.time_it("calls.append(x); time.sleep(0.3)", "import time\nx = 4", 0, 1, variables)
    assert variables["calls"] == [4, 4]
    assert variables.keys() <= {"calls", "__builtins__"}
    assert "1 loop each" in capsys.readouterr().out


def test_timeit_keeps_the_lines_of_a_string() -> None:
    variables: dict[str, Any] = {"seen": []}
    habits.time_it("text = '''a\nb'''\nseen.append(text)", "", 1, 1, variables)
    assert variables["seen"] == ["a\nb"]


def test_a_failure_in_timeit_points_to_the_statement_alone(interpreter: Interpreter) -> None:
    source = "__import__('pyrokernel.kernel.habits', fromlist=['x']).time_it('a = 1\\n1 / zero', 'zero = 0', 1, 1, {})"
    outcome = run(interpreter, source, filename=HABIT)
    assert outcome.traceback.splitlines()[:3] == [
        "Traceback (most recent call last):",
        '  File "<timeit>", line 3, in inner',
        "    1 / zero",
    ]


def test_return_does_not_leave_timeit() -> None:
    with pytest.raises(SyntaxError):
        habits.time_it("return 1", "", 1, 1, {})


def test_what_a_habit_says_is_no_traceback(interpreter: Interpreter) -> None:
    outcome = run(
        interpreter, "__import__('pyrokernel.kernel.habits', fromlist=['x']).cd('/nowhere', {})", filename=HABIT
    )
    assert (outcome.ename, outcome.traceback) == ("HabitError", "cd: /nowhere: No such file or directory\n")


def test_inputs_are_remembered_as_ipython_does(interpreter: Interpreter) -> None:
    run(interpreter, "1")
    run(interpreter, "2", shown="%two")
    run(interpreter, "3")
    outcome = run(interpreter, "_iii, _ii, _i, ___, __, _")
    assert outcome.rendered == repr(("1", "%two", "3", 1, 2, 3))


def test_a_giant_input_is_not_kept(interpreter: Interpreter) -> None:
    run(interpreter, "x = 1 # " + "a" * 10_000_000)
    assert len(run(interpreter, "_i").rendered) < 70_000


def test_namespaces_have_inputs_of_their_own(interpreter: Interpreter) -> None:
    run(interpreter, "1", namespace="other")
    assert run(interpreter, "_i").rendered == "''"


def test_a_script_runs_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    variables: dict[str, Any] = {"name": "bob"}
    habits.script("sh", "name=eve\nif true; then\n  echo $name {name}\nfi\n\nexit 0", variables)
    assert capfd.readouterr().out == "eve {name}\n"
    with pytest.raises(HabitError, match="exit code 3"):
        habits.script("", "exit 3", variables)
    assert variables["_exit_code"] == 3
    with pytest.raises(HabitError, match="nowhere-at-all: No such file"):
        habits.script("nowhere-at-all", "ls", variables)
    with pytest.raises(HabitError, match="null byte"):
        habits.script("sh", "echo \0", variables)


def test_a_script_longer_than_an_argument_runs_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    variables: dict[str, Any] = {}
    long = ": " + "x" * 70 + "\n"
    habits.script("sh", "echo $0\n" + long * 40_000 + "echo end $0", variables)
    assert capfd.readouterr().out == "sh\nend sh\n"
    with pytest.raises(HabitError, match="exit code 3"):
        habits.script("sh", long * 2000 + "exit 3\necho never", variables)
    assert (variables["_exit_code"], capfd.readouterr().out) == (3, "")


def test_a_file_is_written_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    habits.writefile('"$name.txt"', "  a $name\n{b}", False, {"name": "notes"})
    habits.writefile("notes.txt", "c", True, {})
    assert (tmp_path / "notes.txt").read_text() == "  a $name\n{b}\nc\n"
    habits.writefile("notes.txt", "", False, {})
    assert (tmp_path / "notes.txt").read_text() == ""
    assert capsys.readouterr().out == (
        "notes.txt: 2 lines written\nnotes.txt: 1 line added\nnotes.txt: 0 lines written\n"
    )
    with pytest.raises(HabitError, match="writefile: nowhere/x: No such file"):
        habits.writefile("nowhere/x", "", False, {})
