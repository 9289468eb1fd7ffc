"""The shell in a real pseudo-terminal, key by key, over real kernels."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from holding import Hold
from shells import Start, run, starting
from waiting import wait_until

import pyrokernel as pk


@pytest.fixture
def start(mesh: pk.Mesh) -> Iterator[Start]:
    """Start a shell on some kernels and wait for its prompt."""
    with starting(mesh) as begin:
        yield begin


def test_an_expression_is_answered_and_leaving_says_what_stays(start: Start) -> None:
    shell = start("k0")
    shell.enter("20 + 22")
    shell.expect("\n42\n")
    shell.expect("k0>")
    shell.type("\x04")
    shell.expect("k0-k2 stay running")
    shell.expect("pyrokernel stop")
    assert shell.wait() == 0


def test_a_block_is_typed_line_by_line_with_its_margin(start: Start) -> None:
    shell = start("k0")
    shell.enter("def double(x):")
    shell.expect("...")
    shell.enter("return x * 2")
    shell.enter("")
    shell.expect("k0>")
    shell.enter("double(21)")
    shell.expect("\n42\n")


def test_a_pasted_block_runs_whole(start: Start) -> None:
    shell = start("k0")
    shell.type("\x1b[200~def triple(x):\n    y = x\n\n    return y * 3\n\nset(x for x in [1]); triple(14)\n\x1b[201~")
    shell.type("\r")
    shell.expect("\n42\n")


def test_tab_completes_an_attribute_of_a_live_object(start: Start) -> None:
    shell = start("k0")
    shell.enter("class Thing: unlikely_name = 4711")
    shell.expect("k0>")
    shell.enter("thing = Thing()")
    shell.expect("k0>")
    shell.type("thing.unl")
    shell.expect("thing.unl")
    shell.tab("ikely_name")
    shell.type("\r")
    shell.expect("\n4711\n")


def test_tab_completes_commands_and_kernels(start: Start) -> None:
    shell = start("k0")
    shell.type("inter")
    shell.tab("rupt")
    shell.type("k1\r")
    shell.expect("k1: not running")


def test_ctrl_c_interrupts_the_cell_and_not_the_shell(start: Start, kernel: pk.Kernel) -> None:
    shell = start("k0")
    shell.enter("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"])
    shell.type("\x03")
    shell.expect("k0: interrupted")
    shell.expect("KeyboardInterrupt")
    shell.expect("k0>")
    shell.enter("'still here'")
    shell.expect("\n'still here'\n")


def test_a_second_ctrl_c_offers_to_kill_and_restart(start: Start, mesh: pk.Mesh) -> None:
    shell = start("k1", prompt="k1>")
    shell.enter("while True:")
    for line in ("try: import time; time.sleep(60)", "except KeyboardInterrupt: print('deaf')"):
        shell.enter(line)
    shell.enter("")
    wait_until(lambda: mesh["k1"].describe()["running"])
    shell.type("\x03")
    shell.expect("\ndeaf")
    shell.type("\x03")
    shell.expect("[w/k/l]")
    shell.enter("k")
    shell.expect("kernel 'k1' died")
    shell.expect("k1: a fresh kernel answers now")
    shell.expect("k1>")
    shell.enter("6 * 7")
    shell.expect("\n42\n")


def test_a_question_of_the_kernel_is_asked_at_the_prompt(start: Start) -> None:
    shell = start("k0")
    shell.enter("name = input('who? ')")
    shell.expect("who?")
    shell.enter("bob")
    shell.expect("k0>")
    shell.enter("name * 2")
    shell.expect("\n'bobbob'\n")


def test_a_death_is_shown_with_its_cause_and_the_shell_lives_on(start: Start) -> None:
    shell = start("k2", prompt="k2>")
    shell.enter("import os, signal; print('last words'); os.kill(os.getpid(), signal.SIGKILL)")
    shell.expect("\nlast words\n")
    shell.expect("kernel 'k2' died: killed by SIGKILL")
    shell.expect("k2: a fresh kernel answers now")
    shell.enter("'back'")
    shell.expect("\n'back'\n")


def test_after_a_death_under_on_the_next_line_runs(start: Start) -> None:
    shell = start(prompt="3 kernels>")
    shell.enter("on k2 import os; os.kill(os.getpid(), 9)")
    shell.expect("k2: a fresh kernel answers now")
    shell.enter("'all of ' + 'them'")
    shell.expect("[k0-k2] 'all of them'")


@pytest.fixture
def alone() -> Iterator[pk.Mesh]:
    """A kernel of its own for a test: one that dies too often is given up."""
    with pk.local(1) as mesh:
        yield mesh


@pytest.mark.parametrize("line", ["name = input('who? ')", "breakpoint()"])
def test_a_kernel_that_dies_takes_its_question_with_it(alone: pk.Mesh, line: str) -> None:
    with starting(alone) as start:
        shell = start()
        pid = alone["k0"].describe()["pid"]
        shell.enter(line)
        shell.expect("\nwho?" if "who" in line else "(Pdb")
        shell.type("half an ans")
        os.kill(pid, signal.SIGKILL)
        shell.expect("kernel 'k0' died")
        shell.expect("k0: a fresh kernel answers now")
        shell.enter("'still ' + 'here'")
        shell.expect("'still here'")


@pytest.mark.parametrize("key", ["k", "l"])
def test_a_kernel_that_dies_while_one_thinks_what_to_do_keeps_its_successor(alone: pk.Mesh, key: str) -> None:
    with starting(alone) as start:
        shell = start()
        about = alone["k0"].describe()
        shell.type("\x1b[200~import time\nwhile True:\n    try: time.sleep(60)\n")
        shell.type("    except KeyboardInterrupt: print('deaf')\n\x1b[201~\r")
        wait_until(lambda: alone["k0"].describe()["running"])
        shell.type("\x03")
        shell.expect("\ndeaf")
        shell.type("\x03")
        shell.expect("[w/k/l]")
        os.kill(about["pid"], signal.SIGKILL)
        wait_until(lambda: alone.link_to("k0").instance != about["instance"])
        successor = alone.link_to("k0").instance
        shell.enter(key)
        shell.expect("kernel 'k0' died")
        shell.expect("k0: a fresh kernel answers now")
        shell.enter("'still ' + 'here'")
        shell.expect("'still here'")
        assert alone.link_to("k0").instance == successor


def test_a_restart_by_others_is_told_before_anything_runs(start: Start, mesh: pk.Mesh) -> None:
    shell = start("k2", prompt="k2>")
    mesh["k2"].restart()
    shell.enter("print('ran')")
    shell.expect("k2: restarted since the last cell")
    assert "\nran" not in shell.expect("k2>")
    shell.enter("print('ran')")
    shell.expect("\nran\n")


def test_equal_replies_of_many_are_one(start: Start) -> None:
    shell = start(prompt="3 kernels>")
    shell.enter("1 + 1")
    shell.expect("[k0-k2] 2\n")
    shell.enter("on k0,k2 1 / 0")
    shell.expect("[k0, k2]\nTraceback")
    shell.enter("use k1")
    shell.expect("k1>")


def test_output_streams_while_the_cell_runs(start: Start, mesh: pk.Mesh) -> None:
    shell = start("k0")
    shell.enter("print('one'); import threading; gate = threading.Event(); gate.wait(); print('two')")
    shell.expect("\none\n")
    mesh["k0"].pull("__name__")  # the cell still runs, and control is still answered
    shell.type("\x03")
    shell.expect("k0: interrupted")


def test_a_shell_that_is_hung_up_leaves_the_cell_running(start: Start, kernel: pk.Kernel) -> None:
    shell = start("k0")
    shell.enter("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"])
    shell.process.send_signal(signal.SIGHUP)
    shell.wait()
    assert kernel.describe()["running"]
    assert kernel.interrupt().outcome == "interrupted"


def test_one_command_runs_without_decoration(mesh: pk.Mesh) -> None:
    done = run(mesh, "k0", "-c", "print('a'); 1 + 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n2\n", "")
    done = run(mesh, "k0", "-c", "1 / 0")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_logs_count_lines_and_say_whose_they_are(mesh: pk.Mesh) -> None:
    for source in ("print('one', 'two', sep=chr(10), end='')", "for n in range(3): print('line', n)", "6 * 7"):
        mesh["k0"].execute(source)
    done = run(mesh, "k0", "-c", "logs -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")
    lines = run(mesh, "k0", "-c", "logs -n 11").stdout.splitlines()
    assert len(lines) == 11
    assert [line for line in lines[1:] if not line.startswith("[")] == [
        "one",
        "two",
        ">>> for n in range(3): print('line', n)",
        *(f"line {n}" for n in range(3)),
        ">>> 6 * 7",
        "42",
    ]
    done = run(mesh, "-c", "logs -n 1")
    assert done.stdout == "42\n"
    assert "this is k0, of k0-k2" in done.stderr


def test_ps_marks_the_kernels_in_use(mesh: pk.Mesh) -> None:
    header, *rows = run(mesh, "k1", "-c", "ps").stdout.splitlines()
    assert header.split()[:2] == ["NAME", "STATUS"]
    assert [row.split()[0] for row in rows] == ["k0", "*", "k2"]


def test_piped_input_runs_up_to_the_first_failure(mesh: pk.Mesh) -> None:
    done = run(
        mesh, "k0", text="def f():\n    return 'a;b|c>d'\nf()\nuse k1\nx = input()\nanswer\nx\nnonsense\n'never'\n"
    )
    assert done.stdout == "'a;b|c>d'\n'answer'\n"
    assert done.returncode == 1


def test_lines_typed_before_are_remembered_in_a_private_file(start: Start, mesh: pk.Mesh) -> None:
    shell = start("k0")
    shell.enter("'remembered' + ' line'")
    shell.expect("\n'remembered line'\n")
    shell.enter("exit")
    assert shell.wait() == 0
    history = mesh.settings.mesh_state_dir / "shell-history"
    assert "'remembered' + ' line'" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
    again = start("k0")
    again.type("\x1b[A\x1b[A\r")  # the newest is "exit"
    again.expect("\n'remembered line'\n")


def test_a_large_paste_runs_and_one_too_large_for_the_prompt_is_refused(start: Start) -> None:
    shell = start("k0")
    lines = "\n".join(f"x{number}={number}" for number in range(3_000))
    shell.type(f"\x1b[200~{lines}\nx2999+7\x1b[201~")
    shell.expect("x2999+7")
    shell.enter("")
    shell.expect("\n3006\n")
    shell.expect("k0>")
    for much in ("1\n" * 10_000, "1" * 500_001):
        shell.type(f"\x1b[200~{much}\x1b[201~")
        assert "11" not in shell.expect("save it to a file, and `run FILE`")
        shell.expect("k0>")  # while a notice is drawn the terminal is in its plain mode, which takes 4 KiB a line
    shell.enter("20 + 22")
    shell.expect("\n42\n")


def test_a_pasted_session_runs_what_was_typed_in_it(start: Start) -> None:
    shell = start("k0")
    shell.type("\x1b[200~>>> for i in range(2):\n...     print('at', i)\n... \nat 0\nat 1\n>>> 20 + 22\n0\n\x1b[201~\r")
    shell.expect("\nat 0\nat 1\n42\n")
    shell.type("text = '''\x1b[200~>>> 1\n\x1b[201~'''\r")
    shell.enter("text")
    shell.expect("\n'>>> 1\\n'\n")


def test_a_string_of_several_lines_is_typed_as_it_is(start: Start) -> None:
    shell = start("k0")
    for line in ("def f():", "'''one:", "  two", "'''", "return 3", ""):
        shell.enter(line)
    shell.expect("k0>")
    shell.enter("f.__doc__, f()")
    shell.expect("\n('one:\\n  two\\n', 3)\n")


def test_a_line_is_added_where_enter_would_run(start: Start) -> None:
    shell = start("k0")
    shell.type("print(40 + 1)\x1b\r")
    shell.enter("print(40 + 2)")
    shell.expect("\n41\n42\n")


def test_a_block_comes_back_from_history_whole_and_can_be_changed_inside(start: Start) -> None:
    shell = start("k0")
    shell.type("\x1b[200~def half(x):\n    return x // 2\n\x1b[201~\r")
    shell.expect("k0>")
    shell.type("\x1b[A\x1b[A\x1b[B")  # the block, then up and down in it
    shell.type("\x05 + 1")
    shell.enter("")
    shell.enter("")
    shell.enter("half(40)")
    shell.expect("\n21\n")


def test_a_search_in_history_may_be_for_half_a_call(start: Start) -> None:
    shell = start("k0")
    shell.enter("print('fo' + 'und')")
    shell.expect("\nfound\n")
    shell.expect("k0>")
    shell.type("\x12print(")
    shell.expect("'fo' + 'und')")
    shell.type("\r")
    shell.enter("")
    shell.expect("\nfound\n")
    shell.enter("answer = input('what? ')")
    shell.expect("\nwhat?")
    shell.enter("f(")
    shell.enter("answer")
    shell.expect("\n'f('\n")


def test_matching_brackets_are_shown(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = start("k0")
    monkeypatch.setattr("terminals._ESCAPES", re.compile("\0"))  # the colours are looked at
    shell.type("f(1)")
    shell.expect("48;2;170;204;204m(")
    shell.expect("48;2;170;204;204m)")


def test_a_restart_of_one_of_several_says_that_the_others_did_not_run_the_line_either(
    start: Start, mesh: pk.Mesh
) -> None:
    shell = start(prompt="3 kernels>")
    mesh["k1"].restart()
    shell.enter("print('ran')")
    shell.expect("k1: restarted since the last cell, variables are gone; nothing ran on the others either")
    shell.enter("print('ran')")
    shell.expect("] ran\n")


def test_a_long_dict_is_laid_out_and_a_long_result_cut_at_a_screen(start: Start) -> None:
    shell = start("k0")
    shell.enter("{'name': 'x' * 50, 'parts': ['y' * 50]}")
    shell.expect("\n{'name': '" + "x" * 50 + "',\n 'parts': ['" + "y" * 50 + "']}\n")
    shell.enter("['item %d' % n for n in range(500)]")
    assert "'item 400'" not in shell.expect("'item 499']\n")
    shell.enter("None")
    shell.enter("set result_lines 1000")
    shell.enter("['item %d' % n for n in range(500)]")
    assert "'item 400'" in shell.expect("'item 499']\n")


def test_ctrl_c_while_a_program_runs_shows_none_of_our_waiting(start: Start) -> None:
    shell = start("k0")
    shell.enter("!echo begun; sleep 60")
    shell.expect("\nbegun")  # what runs programs is imported by now
    shell.type("\x03")
    shell.expect("k0: interrupted")
    assert "subprocess" not in shell.expect("KeyboardInterrupt\n")


def test_ctrl_c_takes_a_line_back_that_a_deaf_kernel_has_not_taken(start: Start, mesh: pk.Mesh, tmp_path: Path) -> None:
    shell = start(prompt="3 kernels>")
    begun = tmp_path / "begun"
    with Hold(tmp_path) as hold:
        cell = mesh["k1"].submit(f"open({str(begun)!r}, 'w').close(){hold.source}")
        wait_until(begun.exists)
        shell.enter("print('taken by two')")
        shell.expect("print('taken by two')\n")
        wait_until(lambda: mesh["k2"].cells(1) and mesh["k2"].cells(1)[-1]["source"] == "print('taken by two')")
        shell.type("\x03")
        shell.expect("k1: may still run it")
        shell.expect("3 kernels")
    assert cell.reply(timeout=20).status == "ok"  # what another sent was not touched


def test_bytes_of_another_encoding_are_refused_in_a_sentence(start: Start) -> None:
    shell = start("k0")
    for paste in (b"x = '\xff'\r", b"\x1b[200~use \xff\x1b[201~\r"):
        shell.send(paste)
        assert "Error" not in shell.expect("nothing ran: the line is not valid UTF-8")
        shell.expect("k0>")


def test_variables_fit_a_narrow_terminal(start: Start) -> None:
    shell = start("k0", columns=40)
    shell.enter("quite_a_long_name = {'some': 'words ' * 20}; 'se' + 't'")
    shell.expect("'set'")
    shell.expect("k0>")
    shell.enter("who")
    shell.expect("NAME ")
    header, row = shell.expect("...\n").splitlines()[-2:]
    assert "VALUE" in header
    assert len(row) <= 40
