"""Short calls take the short way, and everything that is promised of a cell holds there too."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.client.calls import Exchange, kernel_request
from pyrokernel.messages import new_id
from pyrokernel.wire.fanout import Request


def request(source: str, cell: str) -> Request:
    return kernel_request("execute", source, {"cell": cell, "want": "value"}, cell=cell)


def test_who_asks_next_finds_the_cell_that_was_answered_in_its_place(kernel: pk.Kernel) -> None:
    for number in range(200):
        reply = kernel.execute(f"print({number}); {number}")
        assert kernel.cells(1)[-1]["cell"] == reply.cell
        kinds = [event.kind for event in kernel.events(cell=reply.cell)]
        assert kinds == ["started", "output", "result", "ended"]
        assert kernel.describe()["running"] is None


def test_requests_that_came_together_are_listed_and_cancelled_like_any_other(kernel: pk.Kernel) -> None:
    kernel.execute("import time; ran = []; go = False")
    sources = ["while not go: time.sleep(0.001)", "ran.append(1)", "ran.append(2)"]
    cells = [new_id() for _ in sources]
    with Exchange(kernel.mesh, "work") as exchange:
        for source, cell in zip(sources, cells, strict=True):
            exchange.send(kernel.link, request(source, cell), cell)
        wait_until(lambda: kernel.describe()["running"])
        assert kernel.describe()["running"]["cell"] == cells[0]
        (waiting,) = kernel.describe()["waiting"]
        assert (waiting["cell"], waiting["source"]) == (cells[1], "ran.append(1)")
        assert kernel.cancel(cells[1])
        kernel.push(go=True)
        outcomes = {token: error for _, token, _, error in exchange.answers(time.monotonic() + 20)}
    assert isinstance(outcomes.pop(cells[1]), pk.CellCancelledError)
    assert outcomes == {cells[0]: None, cells[2]: None}
    assert kernel.pull("ran") == [2]


def test_a_thousand_requests_sent_at_once_are_answered_in_order_and_others_get_their_turn(kernel: pk.Kernel) -> None:
    kernel.execute("order = []")
    with Exchange(kernel.mesh, "work") as exchange:
        for number in range(1000):
            exchange.send(kernel.link, request(f"order.append({number})", new_id()), number)
        cell = kernel.submit("len(order)")
        answers = [token for _, token, _, error in exchange.answers(time.monotonic() + 30) if error is None]
    assert answers == list(range(1000)) == kernel.pull("order")
    assert cell.reply(timeout=10).result < 1000, "what was submitted waited for all that others had sent"


@contextlib.contextmanager
def ctrl_c(after: float) -> Iterator[None]:
    """Press it after so many seconds, in the middle of what it takes back."""

    def press(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        with pytest.raises(KeyboardInterrupt) as pressed:
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "the cell was stopped" in " ".join(pressed.value.__notes__)


@pytest.mark.parametrize("after", [0.02, 0.5])
def test_ctrl_c_takes_back_a_call_whichever_way_it_waits(kernel: pk.Kernel, after: float) -> None:
    kernel.execute("import time")
    with ctrl_c(after):
        kernel.call("time.sleep", 60)
    assert kernel.call("abs", -1) == 1


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_a_call_of_several_waits_for_one_that_takes_longer_whichever_it_is(group: pk.Group, slow: int) -> None:
    group.execute("import time\ndef step(): return 'soon'")
    group[slow].execute("def step(): time.sleep(0.2); return 'late'")
    expected = {name: "late" if name == group.names[slow] else "soon" for name in group.names}
    for _ in range(2):
        answered = group.call("step")
        assert answered == expected
        assert list(answered) == group.names


def test_several_of_which_one_is_gone_are_asked_like_any(group: pk.Group) -> None:
    group.call("abs", -1)  # the connections are kept
    first, *others = group.names
    with pytest.raises(pk.GatherError) as failed:
        group.execute(f"import os; os.getpid() == {group[0].describe()['pid']} and os.kill(os.getpid(), 9)")
    assert list(failed.value.errors) == [first]
    assert isinstance(failed.value.errors[first], pk.KernelDiedError)
    assert list(failed.value.replies) == others
    with pytest.raises(pk.GatherError) as failed:
        group.call("abs", -2)
    assert isinstance(failed.value.errors[first], pk.KernelRestartedError)
    assert {name: reply.result for name, reply in failed.value.replies.items()} == dict.fromkeys(others, 2)
    assert group.call("abs", -3) == dict.fromkeys(group.names, 3)


@pytest.mark.parametrize("after", [0.02, 0.5])
def test_ctrl_c_takes_back_a_call_of_several(group: pk.Group, after: float) -> None:
    group.execute("import time")
    with ctrl_c(after):
        group.call("time.sleep", 60)
    assert group.call("abs", -1) == dict.fromkeys(group.names, 1)


def test_what_is_not_answered_in_time_is_not_taken_for_the_next_answer(group: pk.Group) -> None:
    for timeout in (0.0, 0.01, 0.1):
        with pytest.raises(pk.ReplyTimeoutError) as late:
            group.execute("import time; time.sleep(0.3); 'late'", timeout=timeout)
        assert list(late.value.missing) == group.names
        assert {reply.result for reply in group.execute("'soon'").values()} == {"soon"}


def test_arguments_come_as_what_they_were(group: pk.Group) -> None:
    group.execute("def same(*args): return [(type(one).__name__, one) for one in args]")
    args = (1, 2**100, -0.5, 1j, True, None, "\udc80 text", b"bytes", "x" * 10_000, [1], {"a": (2,)})
    for some in (args, args[:8], args[8:], *((one,) for one in args), ()):
        expected = [(type(one).__name__, one) for one in some]
        assert group.call("same", *some) == dict.fromkeys(group.names, expected)
        assert group[0].call("same", *some) == expected


def test_a_kernel_that_dies_at_once_is_told_of_as_dead(mesh: pk.Mesh) -> None:
    kernel = mesh["k1"]
    with pytest.raises(pk.KernelDiedError) as death:
        kernel.call("os.kill", kernel.describe()["pid"], signal.SIGKILL)
    assert death.value.signal == signal.SIGKILL
    assert death.value.last_cell is not None
    assert death.value.last_cell["source"] == "os.kill(...)"
    assert mesh["k1"].call("abs", -2) == 2


def test_a_kernel_in_which_the_end_of_a_cell_fails_goes_on(kernel: pk.Kernel) -> None:
    # As a profiler of the user's does, or a lack of memory, in the kernel's own code.
    kernel.execute(
        "import sys\n"
        "def strike(frame, event, argument):\n"
        "    if event == 'call' and frame.f_code.co_name == '_finish':\n"
        "        sys.setprofile(None)\n"
        "        raise MemoryError('no more')\n"
        "sys.setprofile(strike)"
    )
    assert kernel.describe()["running"] is None
    assert kernel.execute("6 * 7", timeout=20).result == 42
