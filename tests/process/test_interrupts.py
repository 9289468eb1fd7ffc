"""An interrupt stops what runs, nothing of it runs on, and the receipt says what happened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from waiting import wait_until

import pyrokernel as pk

STUCK = {
    "sleep": "time.sleep(60)",
    "loop": "while True: pass",
    "socket": "a.recv(1)",
    "lock": "lock.acquire()",
    "system": "os.system('echo $$ > {file}; exec sleep 60'); print('after')",
    "subprocess": "subprocess.run(['sh', '-c', 'echo $$ > {file}; exec sleep 60'])",
    "await": "await asyncio.sleep(60)",
    "await of a busy loop": "await busy()",
    "thread join": "thread.start(); thread.join()",
}
SET_UP = """
import asyncio, os, socket, subprocess, threading, time
a, b = socket.socketpair()
lock = threading.Lock(); lock.acquire()
thread = threading.Thread(target=time.sleep, args=(1,))
async def busy():
    while True: pass
"""


def printed(cell: pk.Cell) -> str:
    events = cell.events()
    return "".join(event.data["text"] for event in events if event.kind == "output")


def running(kernel: pk.Kernel) -> bool:
    return kernel.describe()["running"] is not None


@pytest.mark.parametrize("what", STUCK)
def test_stuck_code_is_interrupted_and_nothing_of_it_runs_on(kernel: pk.Kernel, what: str, tmp_path: Path) -> None:
    # An interrupt in the middle of an import would leave half a module behind, as it does in any Python.
    kernel.execute(SET_UP)
    file = tmp_path / "pid"
    cell = kernel.submit("print('stuck')\n" + STUCK[what].replace("{file}", str(file)))
    wait_until(lambda: "stuck" in printed(cell))
    if "{file}" in STUCK[what]:
        wait_until(lambda: file.exists() and file.read_text().strip())
    receipt = cell.interrupt()
    assert receipt.outcome == "interrupted", receipt
    reply = cell.reply(timeout=5, check=False)
    assert reply.ename == "KeyboardInterrupt"
    if file.exists():
        wait_until(lambda: not os.path.exists(f"/proc/{file.read_text().strip()}"))
    assert kernel.execute("'alive'").result == "alive"


def test_an_interrupted_task_does_not_go_on_in_the_next_cell(kernel: pk.Kernel) -> None:
    kernel.execute("import asyncio; went_on = False")
    cell = kernel.submit(
        "async def slow():\n"
        "    global went_on\n"
        "    print('asleep')\n"
        "    await asyncio.sleep(0.2)\n"
        "    went_on = True\n"
        "await slow()"
    )
    wait_until(lambda: "asleep" in printed(cell))
    assert cell.interrupt().outcome == "interrupted"
    cell.reply(timeout=5, check=False)
    assert kernel.execute("await asyncio.sleep(0.4); went_on").result is False


def test_a_task_that_cleans_up_is_awaited(kernel: pk.Kernel) -> None:
    kernel.execute("import asyncio")
    cell = kernel.submit(
        "try:\n    print('asleep'); await asyncio.sleep(60)\nfinally:\n    await asyncio.sleep(0.01); print('clean')"
    )
    wait_until(lambda: "asleep" in printed(cell))
    cell.interrupt()
    assert cell.reply(timeout=5, check=False).stdout == "asleep\nclean\n"


def test_nothing_runs_nothing_is_interrupted(kernel: pk.Kernel) -> None:
    assert kernel.interrupt().outcome == "not running"
    assert kernel.execute("1").result == 1


def test_only_the_cell_that_was_meant_is_interrupted(kernel: pk.Kernel) -> None:
    cell = kernel.submit("import time; time.sleep(0.3); 'done'")
    wait_until(lambda: running(kernel))
    assert kernel.interrupt("0" * 32).outcome == "not running"
    assert cell.reply(timeout=5).result == "done"


def test_a_c_call_that_holds_the_interpreter_is_escalated(mesh: pk.Mesh) -> None:
    kernel = mesh["k1"]
    kernel.execute("x = 1")
    cell = kernel.submit("sum(range(4 * 10**9))")
    wait_until(lambda: not kernel_answers(kernel))
    receipt = kernel.interrupt(cell.id)
    assert receipt.outcome == "unanswered"
    receipt = kernel.interrupt(cell.id, escalate=True)
    assert receipt.outcome == "killed", receipt
    with pytest.raises(pk.RemoteError, match="NameError"):
        kernel.execute("x")
    assert mesh["k1"].execute("2").result == 2


def kernel_answers(kernel: pk.Kernel) -> bool:
    try:
        kernel.describe(timeout=0.3)
    except pk.ReplyTimeoutError:
        return False
    return True


def test_a_protected_kernel_is_not_killed() -> None:
    with pk.local([pk.KernelSpec(name="camera", protected=True)]) as mesh:
        kernel = mesh["camera"]
        cell = kernel.submit("sum(range(3 * 10**8)); 'done'")
        wait_until(lambda: not kernel_answers(kernel))
        assert kernel.interrupt(cell.id, escalate=True).outcome == "refused"
        assert cell.reply(timeout=50, check=False).ename in ("KeyboardInterrupt", "")


def test_an_interrupt_reaches_every_kernel_of_a_group(group: pk.Group) -> None:
    group.submit("import time; time.sleep(60)")
    wait_until(lambda: all(running(kernel) for kernel in group))
    receipts = group.interrupt()
    assert {receipt.outcome for receipt in receipts.values()} == {"interrupted"}


def test_a_replaced_signal_handler_is_put_back(kernel: pk.Kernel) -> None:
    kernel.execute("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    cell = kernel.submit("import time; time.sleep(60)")
    wait_until(lambda: running(kernel))
    assert cell.interrupt().outcome == "interrupted"


def test_a_queued_cell_can_be_cancelled(kernel: pk.Kernel) -> None:
    first = kernel.submit("import time; time.sleep(60)")
    second = kernel.submit("print('never')")
    wait_until(lambda: running(kernel))
    assert second.cancel()
    assert not first.cancel(), "it runs already"
    first.interrupt()
    with pytest.raises(pk.CellCancelledError):
        second.reply(timeout=5)
