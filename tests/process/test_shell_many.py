"""The shell on 64 kernels, in windows that change, beside another shell, and while a name server is away."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from shells import Start, interrupt_all, starting

import pyrokernel as pk

COUNT = 64
NAMES = [f"k{number}" for number in range(COUNT)]


@pytest.fixture(scope="module")
def mesh() -> Iterator[pk.Mesh]:
    """A private mesh of many kernels, each of which knows its number."""
    with pk.local([pk.KernelSpec(name=name, env={"NUMBER": name[1:]}) for name in NAMES]) as found:
        found[:].execute("import os, threading; number = int(os.environ['NUMBER'])")
        yield found


@pytest.fixture
def start(mesh: pk.Mesh) -> Iterator[Start]:
    """Start a shell and wait for its prompt."""
    with starting(mesh, prompt=f"{COUNT} kernels>") as begin:
        yield begin
    interrupt_all(mesh)


def marked(shown: str) -> list[str]:
    """Return the labels that lines begin with, as in "[k0-k2] text"."""
    return re.findall(r"^\[(k[^\]]*)\] ", shown, re.MULTILINE)


def test_what_many_kernels_answer_alike_is_one_line(start: Start) -> None:
    shell = start()
    shell.enter("print('one'); print('two'); 6 * 7")
    shell.expect("\n[k0-k63] one\n[k0-k63] two\n[k0-k63] 42\n64 kernels>")
    shell.enter("number // 32")
    shown = shell.expect("\n64 kernels>")
    assert set(marked(shown)) == {"k0-k31", "k32-k63"}
    shell.enter("1 / (number % 2)")
    shown = shell.expect("\n64 kernels>")
    assert shown.count("ZeroDivisionError") == 1
    assert shown.count("] 1.0") == 1
    # Names that are no run are cut, and counted.
    assert "\n[k0, k2, k4, k6, k8, k10, k12, k14 and 24 more]\nTraceback" in shown


def test_what_many_kernels_answer_differently_is_a_line_each(start: Start) -> None:
    shell = start()
    shell.enter("number ** 2")
    shown = shell.expect("\n64 kernels>")
    for number, name in enumerate(NAMES):
        assert f"\n[{name}] {number**2}\n" in shown
    assert marked(shown) == NAMES  # whoever answered first


def test_the_window_of_a_phone_is_enough_for_many(start: Start) -> None:
    shell = start(columns=40)
    shell.enter("ps")
    shell.expect("NAME")
    shown = shell.expect("\n64 kernels>")
    rows = shown.split("\n")[1:-1]
    assert [row.split()[1] for row in rows] == NAMES
    assert max(len(row.rstrip()) for row in rows) <= 40


def test_tab_counts_the_kernels_that_have_a_name(start: Start, mesh: pk.Mesh) -> None:
    mesh[:].execute("special_all = 1")
    mesh[["k7", "k9"]].execute("special_few = 2")
    shell = start()
    shell.type("special_")
    shell.expect("special_")
    shell.tab("2 of 64")


def test_one_ctrl_c_interrupts_all_with_one_receipt(start: Start, mesh: pk.Mesh) -> None:
    shell = start()
    shell.enter("threading.Event().wait()")
    shell.expect("0 of 64 done, k0-k63 run")
    shell.type("\x03")
    shell.expect("k0-k63: interrupted\n")
    shown = shell.expect("\n64 kernels>")
    assert shown.count("KeyboardInterrupt") == 1
    assert "[k0-k63]\nTraceback" in shown
    assert not any(kernel.describe()["running"] for kernel in mesh[:])


def test_a_pattern_chooses_some_and_on_asks_one(start: Start) -> None:
    shell = start()
    shell.enter("use k1*")
    shell.expect("11 in use: k1, k10-k19\n11 kernels>")
    shell.enter("1 + 1")
    shell.expect("\n[k1, k10-k19] 2\n")
    shell.enter("on k63 number")
    shell.expect("\n63\n")
    shell.enter("ps")
    shown = shell.expect("\n   k63")
    assert re.findall(r"^\* +(k\d+)", shown, re.MULTILINE) == ["k1", *NAMES[10:20]]


def test_one_of_many_that_dies_is_told_and_the_others_answer(start: Start, mesh: pk.Mesh) -> None:
    shell = start()
    shell.enter("number == 20 and os.kill(os.getpid(), 9)")
    shown = shell.expect("k20: a fresh kernel answers now")
    assert "\n[k0-k19, k21-k63] False\n" in shown
    assert shown.count("died: killed by SIGKILL") == 1
    shell.expect("\n64 kernels>")
    shell.enter("'all of ' 'them'")
    shell.expect("\n[k0-k63] 'all of them'\n")
    mesh["k20"].execute("import os, threading; number = 20")


def test_a_window_that_changes_while_one_types_keeps_the_line(start: Start) -> None:
    shell = start("k0", prompt="k0>")
    shell.type("'wide ' + 'and ' + 'also ")
    shell.expect("also")
    shell.resize(24, 30)
    shell.type("narrow' + '!'")
    shell.expect("+ '!'")
    shell.resize(50, 160)
    shell.type(" * 2\r")
    shell.expect("\n'wide and also narrow!!'\n")
    shell.expect("k0>")


def test_a_window_that_changes_while_a_cell_runs_cuts_the_live_line(start: Start) -> None:
    shell = start()
    shell.enter("threading.Event().wait()")
    shell.expect("k0-k63 run, 1.")
    shell.resize(24, 24)
    shell.expect("0 of 64 done, k0-k63...")
    shell.resize(24, 100)
    shell.expect("s (Ctrl-C interrupts)")
    shell.type("\x03")
    shell.expect("64 kernels>")


def test_two_shells_of_one_user_keep_each_others_lines(start: Start, mesh: pk.Mesh) -> None:
    one, two = start("k0", prompt="k0>"), start("k0", prompt="k0>")
    for shell, word in ((one, "first"), (two, "second"), (one, "third"), (two, "fourth")):
        shell.enter(f"'line ' + '{word}'")
        shell.expect(f"\n'line {word}'\n")
        shell.expect("k0>")
    for shell in (one, two):
        shell.enter("history -s 'line '")
        shown = shell.expect("\nk0>")
        assert re.findall(r"'line ' \+ '(\w+)'\n", shown) == ["first", "second", "third", "fourth"]
        shell.enter("exit")
        assert shell.wait() == 0
    kept = (mesh.settings.mesh_state_dir / "shell-history").read_text()
    assert re.findall(r"'line ' \+ '(\w+)'", kept) == ["first", "second", "third", "fourth"]


def test_a_shell_goes_on_when_its_name_server_comes_back(served: Any) -> None:
    with served.connect() as mesh, starting(mesh, prompt="2 kernels>") as begin:
        shell = begin()
        shell.enter("kept = 41")
        shell.expect("\n2 kernels>")
        os.kill(served.host_pid(), signal.SIGKILL)
        for sum_, known in (("kept + 1", "42"), ("kept + 2", "43")):
            shell.enter(sum_)
            shell.expect(f"\n[k0-k1] {known}\n2 kernels>")
            shell.enter("ps")
            shown = shell.expect("\n2 kernels>")
            assert re.findall(r"^\* +(k\d) +idle", shown, re.MULTILINE) == ["k0", "k1"]
            if known == "42":  # so far without a name server, and without a host
                served.serve()
        mesh.start(1, name="extra")
        shell.enter("3 * 3")
        shell.expect("extra0 joined the group")
        shell.expect("[extra0, k0-k1] 9\n3 kernels>")
