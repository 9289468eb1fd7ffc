"""input() in a cell is answered by a front end of that cell, or fails within seconds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from waiting import wait_until

import pyrokernel as pk

GIVEN_UP_SECONDS = 8.0

FRONT_END = """
import sys, time
from pyrokernel.wire.proxy import Proxy
with Proxy(sys.argv[1], 30.0) as kernel:
    cell = kernel.submit("input('who? ')", {"stdin": True})
    print(cell["cell"], flush=True)
    position = cell["seq"]
    while True:
        answer = kernel.follow(position, 25.0, {"cell": cell["cell"], "stdin": True})
        position = answer["next"]
        if sys.argv[2] == "asks" and any(event["kind"] == "input" for event in answer["events"]):
            print("asks", flush=True)
            sys.stdin.readline()
"""


@contextmanager
def front_end(mesh: pk.Mesh, how: str) -> Iterator[tuple[subprocess.Popen[str], pk.Cell]]:
    """Run a front end that has sent a cell in a process of its own; it polls while it asks, or not."""
    with subprocess.Popen(
        [sys.executable, "-c", FRONT_END, mesh.ps()[0].uri, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        kernel = mesh["k0"]
        cell = kernel.cell(process.stdout.readline().strip())
        wait_until(lambda: asks(kernel))
        try:
            yield process, cell
        finally:
            process.kill()


def asks(kernel: pk.Kernel) -> object:
    running = kernel.describe()["running"]
    return running and running["asks"]


@pytest.mark.parametrize("how", ["polls", "asks"])
def test_a_killed_front_end_lets_go_of_the_kernel(mesh: pk.Mesh, how: str) -> None:
    with front_end(mesh, how) as (process, cell):
        if how == "asks":
            assert process.stdout
            assert process.stdout.readline() == "asks\n"
        process.kill()
        reply = cell.reply(timeout=GIVEN_UP_SECONDS, check=False)
    assert reply.ename == "InputUnavailableError"
    assert "went away" in reply.evalue
    assert mesh["k0"].execute("1").result == 1


def test_a_front_end_of_another_cell_does_not_answer_for_this_one(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    with front_end(mesh, "polls") as (_, cell):
        kernel.answer_input(asked(kernel)["request"], "Ada")
        assert cell.reply(timeout=5).status == "ok"
        begun = time.monotonic()
        with pytest.raises(pk.RemoteError, match="none is attached to this cell"):
            kernel.execute("input('?')", timeout=20)
        assert time.monotonic() - begun < GIVEN_UP_SECONDS


def asked(kernel: pk.Kernel) -> dict[str, object]:
    found: dict[str, object] = kernel.describe()["running"]["asks"]
    return found


def test_whoever_follows_everything_answers_for_any_cell(kernel: pk.Kernel) -> None:
    options = {"stdin": True}
    last = kernel._ask("follow", 0, 0.0)["last"]
    kernel._ask("follow", last, 0.0, options)
    cell = kernel.submit("input('?')")
    wait_until(lambda: asks(kernel))
    kernel.answer_input(str(asked(kernel)["request"]), "x")
    assert cell.reply(timeout=5).result == "x"


def test_an_executed_cell_is_answered_by_whoever_follows_it(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.RemoteError, match="no front end came") as caught:
        mesh["k1"].execute("input('?')", stdin=True, timeout=20)
    assert caught.value.ename == "InputUnavailableError"


def test_a_kernel_says_what_it_is_asking(kernel: pk.Kernel) -> None:
    before = time.time()
    cell = kernel.submit("x = 1\nimport getpass; getpass.getpass('key? ')", stdin=True)
    wait_until(lambda: asks(kernel))
    running = kernel.describe()["running"]
    assert before - 1 <= running["since"] <= time.time() + 1
    assert (running["cell"], running["source"].splitlines()[0]) == (cell.id, "x = 1")
    assert running["asks"]["prompt"] == "key? "
    assert running["asks"]["password"] is True
    kernel.answer_input(running["asks"]["request"], "secret")
    assert cell.reply(timeout=5).result == "secret"
    assert kernel.describe()["running"] is None


def test_a_kernel_lists_what_waits_whichever_way_it_came(mesh: pk.Mesh) -> None:
    kernel = mesh["k2"]
    first = kernel.submit("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"])
    kernel.submit("print('submitted')")
    with pytest.raises(pk.ReplyTimeoutError):
        kernel.execute("# a first line\nprint('executed')", timeout=0.1)
    with pytest.raises(pk.ReplyTimeoutError):
        kernel.execute("x = '" + "y" * 300_000 + "'", timeout=0.1)
    waiting = kernel.describe()["waiting"]
    author = kernel.describe()["running"]["author"]
    assert waiting[0]["source"] == "print('submitted')"
    assert sorted(cell["source"] for cell in waiting[1:]) == ["", "# a first line\nprint('executed')"]
    assert {cell["author"] for cell in waiting} == {author}
    assert all(len(cell["cell"]) == 32 for cell in waiting)
    first.interrupt()


def test_an_interrupted_question_shows_the_code_of_the_user_only(kernel: pk.Kernel) -> None:
    cell = kernel.submit("def ask():\n    return input('?')\nask()", stdin=True, filename="<mine>")
    wait_until(lambda: asks(kernel))
    assert cell.interrupt().outcome == "interrupted"
    lines = cell.reply(timeout=5, check=False).traceback.splitlines()
    assert [line for line in lines if line.startswith("  File")] == [
        '  File "<mine>", line 3, in <module>',
        '  File "<mine>", line 2, in ask',
    ]
    assert lines[-1] == "KeyboardInterrupt"
