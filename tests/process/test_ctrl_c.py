"""Ctrl-C in the caller stops what the call sent, and nothing else; it never hangs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.client import members

NAP = "import time; time.sleep(60)"
PROMPT_SECONDS = 20.0
"""Far above what it takes, far below the 60 s that the cells would sleep."""


def running(kernel: pk.Kernel) -> bool:
    return kernel.describe()["running"] is not None


def main_thread_waits() -> bool:
    """Whether the main thread is in the client, and there in a wait."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None or Path(frame.f_code.co_filename).name not in ("selectors.py", "threading.py"):
        return False
    while frame is not None:
        if Path(members.__file__).parent == Path(frame.f_code.co_filename).parent:
            return True
        frame = frame.f_back
    return False


@contextmanager
def ctrl_c_once(ready: Callable[[], object]) -> Iterator[None]:
    """Press Ctrl-C in this process once something is so."""

    def press() -> None:
        wait_until(ready)
        wait_until(main_thread_waits)  # what is to be so may have been so before this block was entered
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    started = time.monotonic()
    try:
        yield
    finally:
        presser.join()
    assert time.monotonic() - started < PROMPT_SECONDS


def notes(error: BaseException) -> str:
    return "\n".join(error.__notes__)


def test_ctrl_c_in_execute_stops_the_cell_of_that_call(group: pk.Group) -> None:
    with ctrl_c_once(lambda: all(map(running, group))), pytest.raises(KeyboardInterrupt) as caught:
        group.execute(NAP)
    assert notes(caught.value) == "the cell was stopped on k0-k2"
    assert {reply.result for reply in group.execute("1", timeout=10).values()} == {1}
    kernel = group["k0"]
    for call in (lambda: kernel.execute(NAP), lambda: kernel.call("time.sleep", 60)):
        with ctrl_c_once(lambda: running(kernel)), pytest.raises(KeyboardInterrupt) as caught:
            call()
        assert notes(caught.value) == "the cell was stopped on k0"
    assert kernel.execute("1", timeout=10).result == 1


def test_ctrl_c_leaves_the_cells_of_others_alone(kernel: pk.Kernel) -> None:
    other = kernel.submit(f"{NAP.replace('60', '2')}; 'slept'")
    wait_until(lambda: running(kernel))
    with ctrl_c_once(lambda: kernel.describe()["waiting"]), pytest.raises(KeyboardInterrupt):
        kernel.execute("went_on = True")
    assert other.reply(timeout=30).result == "slept"
    assert "went_on" not in {entry["name"] for entry in kernel.variables()}


def test_ctrl_c_while_waiting_for_a_job_cancels_it(group: pk.Group) -> None:
    for wait in (lambda job: job.results(), list, lambda job: list(job.as_completed())):
        job = group.map("time.sleep" if group.execute("import time") else "", [0, 60, 60, 60, 60, 0, 0], chunk=1)
        with ctrl_c_once(lambda: all(map(running, group))), pytest.raises(KeyboardInterrupt) as caught:
            wait(job)
        assert "the job was stopped on k0-k2; " in notes(caught.value)
        assert "of 7 items have their results" in notes(caught.value)
        assert job.done
        assert {reply.result for reply in group.execute("1", timeout=10).values()} == {1}


def test_ctrl_c_in_wait_ends_only_the_wait(group: pk.Group) -> None:
    group.execute("import time")
    job = group[:1].map("time.sleep", [60])
    with ctrl_c_once(lambda: running(group["k0"])), pytest.raises(KeyboardInterrupt) as caught:
        job.wait()
    assert "goes on" in notes(caught.value)
    assert running(group["k0"])
    job.cancel()


def test_ctrl_c_passes_through_kernels_that_wait_for_kernels(served: Any) -> None:
    with served.connect() as mesh:
        outer, inner = mesh
        nested = outer.submit(f"import pyrokernel; pyrokernel.connect()[{inner.name!r}].execute({NAP!r})")
        wait_until(lambda: running(inner))
        assert nested.interrupt().outcome == "interrupted"
        assert nested.reply(timeout=10, check=False).ename == "KeyboardInterrupt"
        assert inner.execute("1", timeout=10).result == 1


def test_ctrl_c_gives_the_prompt_back_although_a_kernel_does_not_answer() -> None:
    with pk.local(2) as mesh:
        group = mesh[:]
        stopped = int(group["k1"].describe()["pid"])

        def stop() -> bool:
            if not all(map(running, group)):
                return False
            os.kill(stopped, signal.SIGSTOP)
            return True

        try:
            with ctrl_c_once(stop), pytest.raises(KeyboardInterrupt) as caught:
                group.execute(NAP)
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert "the cell was stopped on k0" in notes(caught.value)
        assert "may go on in k1" in notes(caught.value)
        group["k1"].interrupt()
        assert group["k1"].execute("1", timeout=30).result == 1


def test_a_second_ctrl_c_leaves_at_once(monkeypatch: pytest.MonkeyPatch, kernel: pk.Kernel) -> None:
    asked, leave = threading.Event(), threading.Event()
    withdraw = members.withdraw

    def slow(*args: object) -> object:
        asked.set()
        leave.wait(30)
        return withdraw(*args)

    def press_again() -> None:
        asked.wait(30)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    monkeypatch.setattr("pyrokernel.client.members.withdraw", slow)
    second = threading.Thread(target=press_again)
    second.start()
    with ctrl_c_once(lambda: running(kernel)), pytest.raises(KeyboardInterrupt) as caught:
        kernel.execute(NAP)
    assert "goes on in the kernels" in notes(caught.value)
    assert running(kernel)
    leave.set()
    second.join()
    wait_until(lambda: not running(kernel))


def test_ctrl_c_with_dead_kernels_does_not_hang() -> None:
    with pk.local([pk.KernelSpec(name="dead", restart="never"), pk.KernelSpec(name="stuck")]) as mesh:
        group = mesh[:]
        pid = int(group["dead"].describe()["pid"])

        def kill() -> bool:
            if not all(map(running, group)):
                return False
            os.kill(pid, signal.SIGKILL)
            return True

        with ctrl_c_once(kill), pytest.raises(KeyboardInterrupt):
            group.execute(NAP)
        assert group["stuck"].execute("1", timeout=10).result == 1
