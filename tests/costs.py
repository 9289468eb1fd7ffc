"""Counts what a request costs: calls of functions, of the system, processor time, memory. Runs in the test process.

Time on the clock is never looked at: it says more about what else the machine does. Whoever waits for an answer may
look for it again and again before it sleeps (`wire.alertness`); how often depends on the clock, so that is off here.
"""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import pytest

import pyrokernel as pk
from pyrokernel.wire.alertness import Alertness

PATIENT = "from pyrokernel.wire.alertness import Alertness\nAlertness.is_due = lambda self: False"

COUNT_FROM_NOW = """
import sys
from collections import Counter
counted = Counter()
def note(frame, event, arg):
    if event == "call":
        counted["functions"] += 1
    elif event == "c_call":
        counted[arg.__name__] += 1
sys.setprofile(note)
"""

COUNT_NO_MORE = "sys.setprofile(None)\ncounted"


@contextlib.contextmanager
def patient(mesh: pk.Mesh) -> Iterator[None]:
    """Have nobody look for messages while waiting: client and kernels go to sleep at once."""
    before = Alertness.is_due
    Alertness.is_due = lambda self: False  # type: ignore[method-assign]
    mesh[:].execute(PATIENT)
    try:
        yield
    finally:
        Alertness.is_due = before  # type: ignore[method-assign]


def calls_here(step: Callable[[], Any], times: int = 1) -> Counter[str]:
    """Count the calls of Python functions ("functions") in this thread, and those of each built-in by name."""
    counted: Counter[str] = Counter()

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            counted["functions"] += 1
            counted[f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"] += 1
        elif event == "c_call":
            counted[argument.__name__] += 1

    sys.setprofile(note)
    try:
        for _ in range(times):
            step()
    finally:
        sys.setprofile(None)
    return counted


def calls_in(kernel: pk.Kernel, step: Callable[[], Any], times: int) -> Counter[str]:
    """Count the calls in a kernel's main thread that a step costs, in so many steps."""

    def count(steps: int) -> Counter[str]:
        kernel.execute(COUNT_FROM_NOW)
        for _ in range(steps):
            step()
        found: Counter[str] = kernel.execute(COUNT_NO_MORE).result
        return found

    offset = count(0)
    counted = count(times)
    counted.subtract(offset)
    return counted


def system_calls(thread: int, step: Callable[[], Any], times: int) -> Counter[str]:
    """Count the calls of the system that a thread makes meanwhile; skips the test where they cannot be traced."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    process = subprocess.Popen([strace, "-c", "-p", str(thread)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    ready, _, _ = select.select([process.stderr], [], [], 10)
    said = process.stderr.readline() if ready else "strace says nothing"
    if "attached" not in said:
        process.kill()
        process.communicate()
        pytest.skip(f"system calls cannot be traced here: {said.strip()}")
    for _ in range(times):
        step()
    process.send_signal(signal.SIGINT)
    table = process.communicate()[1]
    found = Counter()
    for line in table.splitlines():
        columns = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
        if columns and columns[2] != "total":
            found[columns[2]] = int(columns[1])
    return found


class PipeLoop:
    """A process that answers calls over what `multiprocessing.Pipe` makes: the least that one would write by hand."""

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()
        self._process.wait(10)

    def call(self, name: str, *args: Any) -> Any:
        """Call a function there."""
        self._connection.send((name, args))
        return self._connection.recv()


def serve(connection: Connection) -> None:
    """Answer calls until the other side closes: the loop of that process."""
    known: dict[str, Callable[..., Any]] = {"step": lambda number: number + 1, "used": time.process_time}
    with contextlib.suppress(EOFError):
        while True:
            name, args = connection.recv()
            connection.send(known[name](*args))


def processor_seconds(step: Callable[[], Any], theirs: Callable[[], float], times: int) -> float:
    """Return what steps cost in this thread and, as the other process says of itself, in that."""
    there, here = theirs(), time.thread_time()
    for _ in range(times):
        step()
    return time.thread_time() - here + theirs() - there


def peak_bytes(pid: int | str) -> int:
    """Return the highest memory of a process since `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]


def forget_peak(pid: int | str) -> int:
    """Begin to look for the highest memory of a process anew; return what it has now."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"the highest memory of a process cannot be had here: {error}")
    return peak_bytes(pid)


def main_thread() -> int:
    """Return the system's id of the thread that runs the test."""
    return threading.get_native_id()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
