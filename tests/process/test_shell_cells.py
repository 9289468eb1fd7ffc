"""Cells that run or ran, in a real pseudo-terminal: background, follow, replay, cancel, watch, debuggers, floods."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from holding import Hold
from shells import Start, interrupt_all, run, starting
from waiting import wait_until

import pyrokernel as pk

WAIT = "import threading; gate = threading.Event(); gate.wait()"


@pytest.fixture
def start(mesh: pk.Mesh) -> Iterator[Start]:
    """Start a shell on some kernels and wait for its prompt."""
    with starting(mesh, prompt=">") as begin:
        yield begin
    interrupt_all(mesh)


def gated(name: str, then: str) -> str:
    """Return source of a cell that goes on when a variable is pushed."""
    return f"import time\nwhile '{name}' not in globals(): time.sleep(0.01)\n{then}"


def test_a_cell_in_the_background_is_told_of_above_the_prompt(start: Start, kernel: pk.Kernel) -> None:
    shell = start("k0")
    shell.enter("import time; [time.sleep(0.01) for n in iter(lambda: 'go' in globals(), True)]; 6 * 7 &")
    shell.expect("[1] k0: cell ")
    shell.expect(">")
    shell.type("half a li")
    kernel.push(go=1)
    shell.expect("[1] k0: done in ")
    shell.expect(": 42")
    shell.expect("half a li")


def test_a_failure_in_the_background_shows_its_last_line(start: Start) -> None:
    shell = start("k0")
    shell.enter("1 / 0 &")
    shell.expect("[1] k0: failed after ")
    shell.expect("ZeroDivisionError: division by zero (`cells ")


def test_a_script_waits_for_its_background_at_the_end(mesh: pk.Mesh) -> None:
    done = run(mesh, "k0", "-c", "import time; time.sleep(0.2); print('behind'); 1 &\nuse k1\nprint('before')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\nbehind\n1\n", "")
    done = run(mesh, "k0", "-c", "1 / 0 &\n2")
    assert done.returncode == 1
    assert done.stdout == "2\n"
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_questions_in_the_background_wait_until_they_are_answered_in_follow(start: Start, kernel: pk.Kernel) -> None:
    shell = start("k0")
    shell.enter("first = input('one? ') &")
    shell.expect("[1] k0: asks 'one?'; `follow 1` answers")
    # It is not followed before the other has ended, and asks as soon as it runs.
    shell.enter("second = input('two? ') &")
    shell.expect("[2] k0: cell ")
    shell.enter("follow 1")
    shell.expect("(Ctrl-C leaves it running)")
    shell.expect("\none?")
    shell.enter("un")
    shell.expect("[2] k0: asks 'two?'; `follow 2` answers")
    shell.enter("follow k0")
    shell.expect("\ntwo?")
    shell.enter("deux")
    shell.expect(">")  # of a prompt that said (busy) for a moment, only what differs is drawn anew
    wait_until(lambda: {"first", "second"} <= {one["name"] for one in kernel.variables()})
    assert kernel.pull("first", "second") == ("un", "deux")
    shell.enter("follow 2")
    shell.expect("no cell [2] is in the background any more")


def test_a_question_in_the_background_fails_when_the_shell_has_left(start: Start, kernel: pk.Kernel) -> None:
    shell = start("k0")
    shell.enter("input('anybody? ') &")
    shell.expect("`follow 1` answers")
    shell.expect(">")
    shell.type("\x04")
    assert shell.wait() == 0
    wait_until(lambda: kernel.describe()["running"] is None, timeout=15)
    assert kernel.cells()[-1]["ename"] == "InputUnavailableError"


def test_a_failure_in_the_background_of_a_group_is_told_while_others_go_on(start: Start, mesh: pk.Mesh) -> None:
    shell = start("k0", "k1")
    mesh["k1"].push(bad=1)
    shell.enter(
        "import time; 1 / ('bad' not in globals()); [time.sleep(0.01) for n in iter(lambda: 'end' in globals(), 1)] &"
    )
    shell.expect("[1] k1: failed after ")
    shell.expect("ZeroDivisionError")
    assert mesh["k0"].describe()["running"]
    mesh["k0"].push(end=1)
    assert "k1" not in shell.expect("[1] k0: done in ")


def test_follow_shows_what_another_runs_from_its_beginning(start: Start, kernel: pk.Kernel) -> None:
    cell = kernel.submit(gated("on_with_it", "print('later')"), want="text")
    early = kernel.submit("'next'", want="text")
    wait_until(lambda: kernel.describe()["running"])
    shell = start("k0")
    shell.enter("follow")
    shell.expect(f"k0: cell {cell.id[:8]} of ")
    kernel.push(on_with_it=1)
    shell.expect("\nlater\n")
    shell.expect(">")  # of "k0 (busy)>" that becomes "k0>" only what differs is drawn anew
    assert early.reply(10).text == "'next'"


def test_follow_shows_the_last_lines_of_much_output_and_ctrl_c_leaves_the_cell(start: Start, kernel: pk.Kernel) -> None:
    cell = kernel.submit(
        gated("never", "pass").replace("import time\n", "import time\nfor n in range(5000): print('n', n)\n")
    )
    wait_until(lambda: any("n 4999" in str(event.data.get("text")) for event in cell.events()))
    shell = start("k0")
    shell.enter("follow")
    shell.expect("... earlier output is not shown")
    shown = shell.expect("\nn 4999\n")
    assert "\nn 4900\n" in shown
    assert "\nn 4700\n" not in shown
    shell.type("\x03")
    shell.expect("detached; what runs on k0 goes on")
    assert kernel.describe()["running"]["cell"] == cell.id
    cell.interrupt()


def test_a_question_of_a_followed_cell_is_answered_here(start: Start, kernel: pk.Kernel) -> None:
    cell = kernel.submit("answer = input('who? ')\nprint('hello', answer)", stdin=True)
    wait_until(lambda: (kernel.describe()["running"] or {}).get("asks"))
    shell = start("k0")
    shell.enter("follow k0")
    shell.expect("who? ")
    shell.enter("bob")
    shell.expect("\nhello bob\n")
    assert cell.reply(10).ok


def test_cells_are_listed_once_for_all_kernels_and_replayed(start: Start, mesh: pk.Mesh) -> None:
    mesh[:].execute("print('same'); 4711")
    kernel = mesh["k0"]
    kernel.execute("'only here'")
    number = kernel.describe()["execution_count"]
    done = run(mesh, "-c", "cells")
    (row,) = [line for line in done.stdout.splitlines() if "4711" in line]
    assert "k0-k2" in row
    assert " ok " in row
    done = run(mesh, "k0", "-c", f"cells {number - 1}")
    assert done.stdout.splitlines()[1:] == [">>> print('same'); 4711", "same", "4711"]
    done = run(mesh, "-c", f"cells {row.split()[1] if row.split()[1].isalnum() else ''}")
    done = run(mesh, "-c", f"cells {kernel.cells(2)[0]['cell'][:10]}")
    assert "[k0-k2] same\n[k0-k2] 4711\n" in done.stdout
    assert run(mesh, "k0", "-c", "cells 999999").returncode == 1
    assert ">>> 'only here'\n" in run(mesh, "-c", "cells -1").stdout
    assert "[k0-k2] same\n[k0-k2] 4711\n" in run(mesh, "-c", "cells -2").stdout
    assert "no cell -9999 on k0" in run(mesh, "k0", "-c", "cells -9999").stderr


def test_a_map_is_one_row_whose_cells_are_listed_by_its_id(mesh: pk.Mesh) -> None:
    line = "map lambda n: 1 // (n - 7) over range(60)"
    run(mesh, "-c", line)
    # A kernel that was slow to begin may have had no item of it; then its last row is of another test.
    (row,) = [row for row in run(mesh, "-c", "cells -n 1", COLUMNS="200").stdout.splitlines() if line in row]
    assert "1 failed on k" in row
    assert row.endswith(f"(60 items)  {line}")
    _, *parts = run(mesh, "-c", f"cells {row.split()[1]}").stdout.splitlines()
    assert sum(int(found) for part in parts for found in re.findall(r"\((\d+) items?\)", part)) == 60
    assert sum("1 failed (" in part for part in parts) == 1
    number = parts[0].split()[0]
    assert f">>> {line}\n" in run(mesh, parts[0].split()[2], "-c", f"cells {number}").stdout


def test_cells_of_a_kernel_that_does_not_answer_are_not_said_to_be_none(mesh: pk.Mesh, tmp_path: Path) -> None:
    with Hold(tmp_path) as hold:
        mesh["k2"].submit(hold.source)
        wait_until(lambda: not _answers(mesh))
        done = run(mesh, "k2", "-c", "cells")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "k2 did not answer in time" in done.stderr


def _answers(mesh: pk.Mesh) -> bool:
    try:
        return bool(mesh["k2"].describe(timeout=0.2))
    except pk.ReplyTimeoutError:
        return False


def test_cells_lists_what_runs_and_waits_and_cancel_keeps_it_from_starting(start: Start, kernel: pk.Kernel) -> None:
    running = kernel.submit(gated("never_again", "pass"))
    waiting = kernel.submit("print('must not run')")
    wait_until(lambda: kernel.describe()["running"] and kernel.describe()["waiting"])
    shell = start("k0")
    shell.enter("cells -n 0")
    shell.expect(" running ")
    shell.expect(" waiting ")
    shell.expect(">")
    shell.type("cancel ")
    shell.tab(waiting.id[:8])
    shell.type("\r")
    shell.expect("k0: cancelled")
    assert waiting.reply(10, check=False).status == "cancelled"
    running.interrupt()


def test_watch_tells_what_others_run_and_not_what_this_shell_runs(start: Start, mesh: pk.Mesh) -> None:
    shell = start("k0")
    shell.enter("watch on")
    shell.expect("watch is on")
    shell.expect("k0>")
    shell.enter("'my own'")
    shell.expect("\n'my own'\n")
    cell = mesh["k0"].submit(gated("seen", "'theirs'"))
    shell.expect("k0: ")
    shown = shell.expect(" runs import time ...")
    assert "my own" not in shown
    mesh["k0"].push(seen=1)
    shell.expect("k0: the cell of ")
    shown = shell.expect("(ok): import time ...")
    assert "my own" not in shown
    assert cell.reply(10).ok


def test_watch_tells_a_map_of_others_once_and_none_of_this_shell(start: Start, mesh: pk.Mesh) -> None:
    shell = start()
    shell.enter("watch on")
    shell.expect("watch is on")
    shell.enter("map abs over range(60)")
    shell.expect("here: _map (list of 60)")
    mesh[:].map("abs", range(60)).wait()
    mesh["k0"].execute("'the last'")
    shown = shell.expect("ran 'the last'")
    assert "map abs" not in shown
    assert shown.count("map(abs, ...)") == 1


def test_a_breakpoint_is_answered_at_the_prompt_and_ctrl_c_leaves_it(start: Start) -> None:
    shell = start("k0")
    shell.enter("x = 41; breakpoint(); print('went', 'on')")
    shell.expect("(Pdb)")
    shell.enter("x + 1")
    shell.expect("\n42\n")
    shell.expect("(Pdb)")
    shell.enter("c")
    shell.expect("\nwent on\n")
    shell.expect("k0>")
    shell.enter("breakpoint(); print('went', 'on')")
    shell.expect("(Pdb)")
    shell.type("\x03")
    shown = shell.expect("left the debugger")
    shell.expect("k0>")
    assert "\nwent on" not in shown
    shell.enter("'still here'")
    shell.expect("\n'still here'\n")


def test_debug_opens_the_last_failure(start: Start) -> None:
    shell = start("k0")
    shell.enter("(lambda divisor: 1 / divisor)(0)")
    shell.expect("ZeroDivisionError")
    shell.expect("k0>")
    shell.enter("debug k0")
    shell.expect("\nZeroDivisionError: division by zero\n")
    shell.expect("(Pdb)")
    shell.enter("p divisor")
    shell.expect("\n0\n")
    shell.expect("(Pdb)")
    shell.type("\x04")
    shell.expect("k0>")
    shell.enter("cells -n 1")
    shell.expect(" ok      debug k0\n")


def test_a_flood_is_cut_and_its_end_shown(start: Start, mesh: pk.Mesh, tmp_path: Path) -> None:
    shell = start("k0")
    shell.enter("for n in range(200_000): print('line', n)")
    shell.expect("\nline 999\n... more output is not shown; `cells ")
    number = shell.expect(" >")[:-2]
    shown = shell.expect("k0>", timeout=60)
    assert "lines not shown; the last of them:\nline 199980\n" in shown
    assert "\nline 199999\n" in shown
    assert shown.count("\n") < 40
    whole = tmp_path / "whole"
    shell.enter(f"cells {number} > {whole}")
    wait_until(lambda: whole.exists() and whole.read_text().endswith("line 199998\nline 199999\n"))
    assert "\nline 5000\n" in whole.read_text()
    done = run(mesh, "k0", "-c", "for n in range(2000): print('line', n)")
    assert done.stdout.count("\n") == 2000


def test_a_giant_result_is_cut_in_the_middle(start: Start) -> None:
    shell = start("k0")
    shell.enter("'a' * 60_000 + 'z' * 40_000")
    shell.expect("\n'aaa")
    shown = shell.expect("\n... 94,402 characters are not shown; `cells ")
    assert 4_000 < shown.count("a") < 4_400
    shell.expect("zzz'\n")


def test_a_busy_kernel_is_explained_once(start: Start, kernel: pk.Kernel) -> None:
    cell = kernel.submit(gated("enough", "pass"))
    wait_until(lambda: kernel.describe()["running"])
    shell = start("k0")
    shell.enter("'after'")
    shell.expect("k0 is busy with a cell of ")
    shell.expect(": import time ...")
    kernel.push(enough=1)
    assert "busy" not in shell.expect("'after'\n")
    assert cell.reply(10).ok


def test_stepping_past_the_end_of_a_cell_leaves_the_debugger(start: Start) -> None:
    shell = start("k0")
    shell.enter("x = 41; breakpoint(); y = 1")
    shell.expect("(Pdb)")
    if sys.version_info >= (3, 13):  # where breakpoint() stops before the end, too
        shell.enter("n")
        shell.expect("(Pdb)")
    shell.enter("n")
    shown = shell.expect("k0>")
    assert "interpreter.py" not in shown
    shell.enter("x + y")
    assert "(Pdb)" not in shell.expect("\n42\n")


def test_ctrl_c_interrupts_what_the_debugger_continued(start: Start) -> None:
    shell = start("k0")
    shell.enter("import time; breakpoint(); time.sleep(60)")
    shell.expect("(Pdb)")
    shell.enter("c")
    shell.expect("k0 runs, ")
    shell.type("\x03")
    shell.expect("k0: interrupted")
    shell.expect("KeyboardInterrupt")
