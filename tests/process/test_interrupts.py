"""An interrupt stops what runs, nothing of it runs on, and the receipt says what happened."""

from __future__ import annotations

import concurrent.futures
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import is_alive, wait_until

import pyrokernel as pk

STUCK = {
    "sleep": "time.sleep(60)",
    "loop": "while True: pass",
    "socket": "a.recv(1)",
    "lock": "lock.acquire()",
    "system": "os.system('echo $$ > {file}; exec sleep 60'); print('after')",
    "subprocess": "subprocess.run(['sh', '-c', 'echo $$ > {file}; exec sleep 60'])",
    # Nobody reaps what it started before the next Popen does: the constructor never returned.
    "subprocess that just begins": "Slow(['sh', '-c', 'echo $$ > {file}; exec sleep 60'])",
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
class Slow(subprocess.Popen):
    def _execute_child(self, *args):
        super()._execute_child(*args)
        time.sleep(60)
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
        wait_until(lambda: not is_alive(file.read_text().strip()))
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


def test_a_cell_that_catches_the_interrupt_and_goes_on_is_said_to_and_ended_by_escalation(kernel: pk.Kernel) -> None:
    cell = kernel.submit(
        "import time\nwhile True:\n    try:\n        print('in')\n        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n        pass"
    )
    wait_until(lambda: any(event.kind == "output" for event in cell.events()))
    assert kernel.interrupt(cell.id).outcome == "caught"
    assert kernel.interrupt(cell.id, escalate=True).outcome == "killed"
    with pytest.raises(pk.KernelDiedError):
        cell.reply(timeout=10)
    assert kernel.execute("2").result == 2


def test_a_cell_that_cleans_up_for_a_moment_is_not_killed_for_it(kernel: pk.Kernel) -> None:
    cell = kernel.submit(
        "import time\ntry:\n    print('in')\n    time.sleep(60)\nfinally:\n    time.sleep(0.5); cleaned = True"
    )
    wait_until(lambda: any(event.kind == "output" for event in cell.events()))
    receipt = kernel.interrupt(cell.id, escalate=True)
    assert (receipt.outcome, receipt.detail) == ("interrupted", "after it had cleaned up")
    assert kernel.pull("cleaned") is True


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


DEAF = """
import time
print('begun')
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print('caught')
"""


def test_a_cell_that_catches_the_interrupt_and_goes_on_is_not_called_interrupted(kernel: pk.Kernel) -> None:
    cell = kernel.submit(DEAF)
    wait_until(lambda: "begun" in printed(cell))
    for _ in range(2):
        receipt = cell.interrupt()
        assert receipt.outcome == "caught", receipt
        assert receipt.cell == cell.id
    assert not cell.done
    wait_until(lambda: printed(cell).count("caught") == 2)
    kernel.restart()


def test_a_cell_that_cleans_up_in_time_is_interrupted(kernel: pk.Kernel) -> None:
    cell = kernel.submit(
        "import time\ntry:\n    print('begun'); time.sleep(60)\nfinally:\n    time.sleep(0.1); print('clean')"
    )
    wait_until(lambda: "begun" in printed(cell))
    assert cell.interrupt(wait=5).outcome == "interrupted"
    reply = cell.reply(timeout=5, check=False)
    assert reply.ename == "KeyboardInterrupt"
    assert reply.stdout == "begun\nclean\n"


def test_a_cell_that_cleans_up_for_longer_than_one_waits_is_left_to_it(kernel: pk.Kernel) -> None:
    kernel.push(clean=False)
    cell = kernel.submit(
        "import time\ntry:\n    print('begun'); time.sleep(60)\nfinally:\n    while not clean: time.sleep(0.01)"
    )
    wait_until(lambda: "begun" in printed(cell))
    assert cell.interrupt(wait=0.05).outcome == "caught"
    kernel.push(clean=True)
    assert cell.reply(timeout=5, check=False).ename == "KeyboardInterrupt"


def test_two_may_interrupt_the_same_cell_at_once(kernel: pk.Kernel) -> None:
    cell = kernel.submit("import time; time.sleep(60)")
    wait_until(lambda: running(kernel))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        outcomes = sorted(receipt.outcome for receipt in pool.map(lambda _: cell.interrupt(), range(2)))
    assert outcomes[0] == "interrupted"
    assert outcomes[1] in ("interrupted", "not running")
    assert kernel.execute("'alive'").result == "alive"


HELD = """
import gc, os, time
ran = []
executor, = [one for one in gc.get_objects() if type(one).__name__ == "Executor"]
step = executor.capture.{step}
def step_late(*arguments):
    found = step(*arguments)
    if len(ran) == {after} and not os.path.exists({go!r}):
        open({held!r}, "w").close()
        while not os.path.exists({go!r}):
            time.sleep(0.001)
    return found
executor.capture.{step} = step_late
"""

Late = Callable[[str, int], None]


@pytest.fixture
def late(tmp_path: Path) -> Iterator[tuple[pk.Kernel, Late, Path, Path]]:
    """A kernel; what makes it stand still, once so much has run, before or after the code of a cell; signs of that."""
    held, go = tmp_path / "held", tmp_path / "go"
    with pk.local(1) as mesh:

        def hold(step: str, after: int) -> None:
            mesh["k0"].execute(HELD.format(step=step, after=after, held=str(held), go=str(go)))

        yield mesh["k0"], hold, held, go
        go.touch()


def test_a_cell_whose_code_has_not_begun_yet_is_interrupted_too(late: tuple[pk.Kernel, Late, Path, Path]) -> None:
    kernel, hold, held, go = late
    hold("begin", 0)
    cell = kernel.submit("ran.append(1)")
    wait_until(held.exists)
    assert kernel.interrupt(wait=0.01).outcome == "unanswered"
    assert kernel.interrupt("0" * 32, wait=0.01).outcome == "not running"
    go.touch()
    assert cell.reply(timeout=10, check=False).ename == "KeyboardInterrupt"
    assert kernel.execute("ran").result == [], "and nobody else is interrupted"


def test_a_cell_whose_code_is_over_is_not_interrupted_and_nobody_is_killed_for_it(
    late: tuple[pk.Kernel, Late, Path, Path],
) -> None:
    kernel, hold, held, go = late
    hold("end", 1)
    cell = kernel.submit("ran.append(1); 'done'")
    wait_until(held.exists)
    assert kernel.interrupt(cell.id, escalate=True).outcome == "not running"
    go.touch()
    assert cell.reply(timeout=10).result == "done"


def test_a_job_that_is_cancelled_as_a_chunk_begins_does_not_go_on(late: tuple[pk.Kernel, Late, Path, Path]) -> None:
    kernel, hold, held, go = late
    hold("begin", 1)
    job = kernel.map("ran.append", [0, 1, 2], chunk=1)
    wait_until(held.exists)
    job.cancel()
    go.touch()
    assert kernel.execute("ran", timeout=10).result == [0]
    assert [index for index, error in job.errors.items() if type(error) is pk.CellCancelledError] == [1, 2]


def test_a_signal_by_the_host_is_not_taken_for_one_that_came_too_late(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    kernel.execute(
        "import gc, time\n"
        "found, = [one for one in gc.get_objects() if type(one).__name__ == 'Interrupts']\n"
        "found._request_file.write_text('0' * 32)"
    )
    cell = kernel.submit("print('begun'); time.sleep(60)")
    wait_until(lambda: "begun" in printed(cell))
    mesh.signal_kernel(mesh.link_to(kernel.name), signal.SIGINT)
    assert cell.reply(timeout=10, check=False).ename == "KeyboardInterrupt"
