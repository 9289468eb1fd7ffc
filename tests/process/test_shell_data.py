"""Data between kernels and the shell's own Python, over real kernels; what a person sees, key by key."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from shells import Start, run_lines, starting
from waiting import wait_until

import pyrokernel as pk


@pytest.fixture
def start(mesh: pk.Mesh) -> Iterator[Start]:
    """Start a shell on some kernels and wait for its prompt."""
    with starting(mesh, prompt="3 kernels>") as begin:
        yield begin


def test_scatter_and_gather_go_through_the_python_of_the_shell(mesh: pk.Mesh) -> None:
    done = run_lines(
        mesh, "here n = 6", "scatter x = [", "i * 10 for i in range(n)]", "len(x)", "gather x as y", "here y[-1]"
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "6 items over k0-k2: 2 each",
        "[k0-k2] 2",
        "[0, 10, 20, 30, 40, 50]",
        "50",
    ]


def test_push_sends_and_pull_brings_what_each_kernel_has(mesh: pk.Mesh) -> None:
    done = run_lines(
        mesh, "here v = [1, 2]", "push v", "push w = len(v)", "on k2 v.append(w)", "pull v", "here v['k2']"
    )
    assert done.stdout.splitlines() == [
        "k0-k2: v (list of 2)",
        "k0-k2: w (int)",
        "[k0-k1] [1, 2]",
        "[k2] [1, 2, 2]",
        "[1, 2, 2]",
    ]
    assert run_lines(mesh, "use k1", "push v = 'one'", "pull v as u", "here u").stdout.splitlines()[-1] == "'one'"


def test_map_takes_names_of_the_kernels_and_expressions_of_the_shell(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "import math", "map math.factorial over range(5)", "here _map[-1]")
    assert done.stdout.splitlines() == ["[1, 1, 2, 6, 24]", "24"]
    done = run_lines(mesh, "here k = 3", "map lambda x: x * k over range(1000) into r", "here len(r), sum(r)")
    assert done.stdout.splitlines()[-1] == str((1000, 3 * sum(range(1000))))


def test_what_failed_in_a_map_is_counted_shown_and_kept(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "map lambda x: 1 // x over [2, 0, 1, 0]", "here 'never'")
    assert done.returncode == 1
    assert done.stdout == "[0, <ZeroDivisionError>, 1, <ZeroDivisionError>]\n"
    assert re.match(r"2 of 4 items failed; the first, item 1 \(0\) on k\d:\nTraceback", done.stderr)
    assert done.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")


def test_a_function_that_only_the_shell_knows_says_how_to_send_it(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "here def only_here(x): return x + 1", "", "map only_here over [1]")
    assert "`map (only_here) over ...` sends it" in done.stderr
    assert run_lines(mesh, "here def only_here(x): return x + 1", "", "map (only_here) over [1]").stdout == "[2]\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("gather nothing_there", "k0-k2: no variable 'nothing_there'"),
        ("pull nothing_there", "k0-k2: no variable 'nothing_there'"),
        ("push nothing_here", "there is no 'nothing_here' here"),
        ("scatter x = 5", "it has no items"),
        ("scatter x = 1 / 0", "ZeroDivisionError"),
        ("scatter 3 = x", "usage: scatter NAME = EXPR"),
        ("map f", "usage: map F over ITEMS"),
        ("map 5 over [1]", "call and map take a function"),
        ("gather x into y", "usage: gather NAME [as NEW]"),
    ],
)
def test_a_command_that_cannot_be_done_says_why_and_ends_a_script(mesh: pk.Mesh, line: str, said: str) -> None:
    done = run_lines(mesh, line, "here 'never'")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "EXCEPTION" not in done.stderr


@pytest.mark.parametrize("line", ["map abs over of_kernels into ys", "scatter x = of_kernels", "here of_kernels + 1"])
def test_a_variable_of_the_kernels_that_is_missed_here_says_how_it_comes(mesh: pk.Mesh, line: str) -> None:
    done = run_lines(mesh, "of_kernels = [1, 2]", line)
    assert "NameError" in done.stderr
    assert "`of_kernels` is a variable of the kernels, not here: `pull of_kernels` first" in done.stderr
    assert "is a variable of" not in run_lines(mesh, line.replace("of_kernels", "of_nobody")).stderr


def test_what_failed_in_a_map_is_one_line_among_results(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "map lambda x: 1 // x over [0] into r")
    assert done.returncode == 1
    error = pk.RemoteError(kernel="k0", ename="ValueError", evalue="a\nb", traceback="Traceback\n1\n")
    assert repr([error]) == "[RemoteError('ValueError: a')]"


def test_parts_that_do_not_join_can_be_pulled(mesh: pk.Mesh) -> None:
    pytest.importorskip("numpy")
    done = run_lines(
        mesh, "import numpy, os", "on k0 a = numpy.zeros((2, 2))", "on k1,k2 a = numpy.zeros((2, 3))", "gather a"
    )
    assert "do not join: ValueError" in done.stderr
    assert "`pull a`" in done.stderr


def test_here_is_typed_as_a_block_and_lists_its_variables(start: Start) -> None:
    shell = start()
    shell.enter("here def double(x):")
    shell.expect("...")
    shell.enter("return x * 2")
    shell.enter("")
    shell.expect("3 kernels>")
    shell.enter("here [double(21)]")
    shell.expect("\n[42]\n")
    shell.enter("here")
    shell.expect("double")
    shell.expect("function")


def test_ctrl_c_interrupts_here_and_not_the_shell(start: Start) -> None:
    shell = start()
    shell.enter("here import time; print('be' + 'gun'); time.sleep(60)")
    shell.expect("\nbegun\n")
    shell.type("\x03")
    shell.expect("KeyboardInterrupt")
    shell.expect("3 kernels>")
    shell.enter("here 6 * 7")
    shell.expect("\n42\n")


def test_a_flood_from_here_is_cut(start: Start) -> None:
    shell = start()
    shell.enter("here list(range(10**6))")
    shell.expect("characters are not shown; `here print(_)` shows all")
    shell.expect("3 kernels>")


def test_a_hint_says_where_a_value_landed(start: Start) -> None:
    shell = start()
    shell.enter("scatter s = range(1000)")
    shell.expect("1,000 items over k0-k2: 334 on k0, 333 on k1-k2")
    shell.enter("gather s")
    shell.expect("here: s (list of 1,000)")


def test_a_map_shows_a_bar_that_is_gone_at_the_end(start: Start) -> None:
    shell = start()
    shell.enter("here import time")
    shell.expect("3 kernels>")
    shell.enter("map lambda x: time.sleep(x) over [0.5] * 6")
    shell.expect("of 6  lambda")
    assert "here: _map (list of 6)" in shell.expect("3 kernels>")


def test_ctrl_c_cancels_a_map_and_keeps_what_has_arrived(start: Start, mesh: pk.Mesh) -> None:
    shell = start()
    shell.enter("here import time")
    shell.expect("3 kernels>")
    shell.enter("map lambda x: time.sleep(x) or 7 over [0, 60, 60, 60, 60, 60]")
    wait_until(lambda: any(kernel.describe()["running"] for kernel in mesh))
    shell.expect("1 of 6")
    shell.type("\x03")
    shell.expect("1 of 6 items have their results")
    assert "failed" not in shell.expect("here: _map (list of 6, 5 without a result)")
    shell.expect("3 kernels>")
    shell.enter("here _map[0]")
    shell.expect("\n7\n")
    wait_until(lambda: not any(kernel.describe()["running"] for kernel in mesh))


def test_tab_completes_names_of_the_shell_and_of_the_kernels(start: Start) -> None:
    shell = start()

    def complete(typed: str, rest: str) -> None:
        shell.type(typed)
        shell.expect(typed)
        shell.tab(rest)

    # Not written out: what was typed before is suggested, and shown too.
    shell.enter("globals()['unlikely_' + 'there'] = 4711; 'set' + 'up'")
    shell.expect("'setup'")
    shell.expect("3 kernels>")
    shell.enter("here globals()['unlikely_' + 'zebra'] = 'abc'; print('do' + 'ne')")
    shell.expect("\ndone\n")
    shell.expect("3 kernels>")
    complete("gather unl", "ikely_there")
    shell.type("\r")
    shell.expect("here: unlikely_there (list of 3)")
    shell.expect("3 kernels>")
    shell.enter("use k0")
    shell.expect("k0>")
    complete("here unlikely_ze", "bra")
    complete(".capita", "lize")  # which nothing else in the line has, should it be drawn anew
    shell.type("()\r")
    shell.expect("\n'Abc'\n")
    shell.expect("k0>")
    complete("push unlikely_ze", "bra")
    shell.type("\r")
    shell.expect("k0: unlikely_zebra (str of 3)")


def test_enter_right_after_tab_runs_what_tab_brings(start: Start) -> None:
    shell = start()
    completed, not_completed = "here: unlikely_zebra (str of 3)", "'unlikely_ze'"
    shell.enter("use k0")
    shell.expect("k0>")
    shell.enter("globals()['unlikely_' + 'zebra'] = 'abc'; 'set' + 'up'")
    shell.expect("'setup'")
    shell.expect("k0>")
    for _ in range(10):  # an answer that is late is none
        shell.type("pull unlikely_ze\t\r")
        shell.until(lambda: completed in shell.text or not_completed in shell.text, completed)
        if completed in shell.text:
            return
        shell.expect("k0>")
    pytest.fail("what Tab was to bring was never run")


def test_exit_here_ends_a_script_with_its_code(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "here exit(3)", "print('never')")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    done = run_lines(mesh, "here import sys; sys.exit('why')")
    assert (done.returncode, done.stderr) == (1, "why\n")


@pytest.mark.parametrize(("line", "code"), [("exit 3", 3), ("exit(3)", 3), ("quit 0", 0), ("exit()", 0), ("exit", 0)])
def test_exit_ends_a_script_with_its_code(mesh: pk.Mesh, line: str, code: int) -> None:
    done = run_lines(mesh, line, "print('never')")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_exit_takes_a_number_and_at_the_prompt_too(start: Start, mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "exit 300", "print('never')")
    assert (done.returncode, done.stdout) == (1, "")
    assert "an exit status is a number up to 255" in done.stderr
    shell = start()
    shell.enter("exit now")
    shell.expect("an exit status is a number")
    shell.expect("3 kernels>")
    shell.enter("exit(4)")
    assert shell.wait() == 4


def test_a_death_under_map_is_told_once(start: Start, mesh: pk.Mesh) -> None:
    shell = start()
    shell.enter("map (lambda x: x == 1 and __import__('os').kill(__import__('os').getpid(), 9)) over range(3)")
    shell.expect("a fresh kernel answers now; its variables are gone")
    shell.expect("here: _map")
    shell.enter("40 + 2")
    assert "restarted since" not in shell.expect("[k0-k2] 42\n")


def test_a_failure_in_a_list_gives_no_advice_of_the_library(mesh: pk.Mesh) -> None:
    job = mesh[:].map(lambda x: 1 // x, [0, 1])
    with pytest.raises(pk.RemoteError) as caught:
        job.results()
    assert caught.value.__notes__ == ["results(check=False) returns the results of the other items"]
    assert "check=False" not in repr(job.results(check=False)[0])
