"""Signal handlers of user code: they run, and never in the middle of the kernel's own business."""

from __future__ import annotations

import time
from collections import Counter

from waiting import wait_until

import pyrokernel as pk

LATE = "import signal\ndef late(*_):\n    raise TimeoutError('late')\nsignal.signal(signal.SIGALRM, late)"


def printed(kernel: pk.Kernel) -> str:
    return "".join(event.data["text"] for event in kernel.events() if event.kind == "output")


def test_a_handler_that_raises_about_the_end_of_a_cell_costs_no_reply_and_no_lock(kernel: pk.Kernel) -> None:
    kernel.execute(LATE)
    ends: Counter[str] = Counter()
    for number in range(60):
        delay = 0.00005 + 0.000005 * number
        reply = kernel.execute(f"signal.setitimer(signal.ITIMER_REAL, {delay}); None", check=False, timeout=10)
        ends[reply.status, reply.evalue] += 1
        time.sleep(0.002)  # let it strike between the cells too
    assert set(ends) <= {("ok", ""), ("error", "late")}
    assert kernel.execute("'here'", timeout=10).result == "here"


def test_a_handler_that_strikes_between_the_cells_runs_and_its_exception_is_printed(kernel: pk.Kernel) -> None:
    kernel.execute(LATE)
    kernel.execute("signal.setitimer(signal.ITIMER_REAL, 0.05); None")
    wait_until(lambda: "TimeoutError: late" in printed(kernel))
    kernel.execute("struck = []\nsignal.signal(signal.SIGALRM, lambda *_: struck.append(1))\nNone")
    kernel.execute("signal.setitimer(signal.ITIMER_REAL, 0.05); None")
    wait_until(lambda: kernel.pull("struck") == [1])


def test_half_a_line_that_a_handler_prints_between_the_cells_is_not_of_the_next_one(kernel: pk.Kernel) -> None:
    first = kernel.execute("signal.signal(signal.SIGALRM, lambda *_: print('between', end=''))\nNone")
    kernel.execute("struck = 0\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\nNone")
    wait_until(lambda: "between" in printed(kernel))
    after = kernel.execute("print('here')")
    assert after.stdout == "here\n"
    events = [event for event in kernel.events() if event.kind == "output" and "between" in event.data["text"]]
    assert [event.data["late"] for event in events] == [True]
    assert {event.cell for event in events}.isdisjoint({first.cell, after.cell})


def test_a_handler_in_a_cell_interrupts_it_as_ever(kernel: pk.Kernel) -> None:
    kernel.execute(LATE)
    reply = kernel.execute("import time; signal.alarm(1); time.sleep(60)", check=False, timeout=20)
    assert (reply.ename, reply.evalue) == ("TimeoutError", "late")
    assert "line 3, in late" in reply.traceback


def test_signal_and_getsignal_give_back_what_was_set(kernel: pk.Kernel) -> None:
    source = """
import signal
def mine(*_): pass
before = signal.signal(signal.SIGUSR1, mine)
kept = signal.getsignal(signal.SIGUSR1) is mine
replaced = signal.signal(signal.SIGUSR1, before) is mine
[before == signal.SIG_DFL, kept, replaced, signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL]
"""
    assert kernel.execute(source).result == [True, True, True, True]
