"""How soon things are noticed: run `python tests/benchmarks/reactions.py`; prints one table, decides nothing.

Deaths, restarts and interrupts on a private mesh, each measured from the moment it is
caused to the moment a caller knows; medians and maxima over some rounds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable

import pyrokernel as pk

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5

STUCK = {
    "time.sleep(60)": "time.sleep(60)",
    "while True: pass": "while True: pass",
    "a blocking socket read": "a.recv(1)",
    "os.system('sleep 60')": "os.system('sleep 60')",
    "subprocess.run": "subprocess.run(['sleep', '60'])",
    "await asyncio.sleep(60)": "await asyncio.sleep(60)",
}
SET_UP = "import asyncio, os, socket, subprocess, time\na, b = socket.socketpair()"


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    while not condition():
        time.sleep(0.001)


def running(kernel: pk.Kernel) -> bool:
    """Tell whether a cell runs and has printed its first line."""
    about = kernel.describe()
    return about["running"] is not None and any(
        event.kind == "output" for event in kernel.events(cell=about["running"]["cell"])
    )


def death(rows: dict[str, list[float]], *, children: bool) -> None:
    """Kill a kernel in the middle of a cell."""
    with pk.local(2) as mesh:
        kernel = mesh["k0"]
        if children:
            kernel.execute(
                "import multiprocessing, time\nc = multiprocessing.get_context('fork')\n"
                "ps = [c.Process(target=time.sleep, args=(60,)) for _ in range(3)]\n"
                "for p in ps: p.start()"
            )
        pid = kernel.describe()["pid"]
        known: list[float] = []

        def call() -> None:
            with contextlib.suppress(pk.KernelDiedError):
                mesh["k0"].execute("import time; print('in'); time.sleep(60)")
            known.append(time.perf_counter())

        caller = threading.Thread(target=call)
        caller.start()
        until(lambda: running(kernel))
        killed = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        caller.join()
        word = " with multiprocessing children" if children else ""
        rows.setdefault(f"kill -9{word}: KernelDiedError", []).append((known[0] - killed) * 1e3)
        assert mesh["k0"].execute("1 + 1").result == 2
        rows.setdefault(f"kill -9{word}: the name answers again", []).append((time.perf_counter() - killed) * 1e3)


def interrupts(rows: dict[str, list[float]]) -> None:
    """Interrupt each kind of stuck code."""
    with pk.local(1) as mesh:
        kernel = mesh["k0"]
        kernel.execute(SET_UP)
        for name, source in STUCK.items():
            cell = kernel.submit(f"print('in')\n{source}")
            until(lambda: running(kernel))
            started = time.perf_counter()
            assert cell.interrupt().outcome == "interrupted"
            cell.reply(timeout=10, check=False)
            rows.setdefault(f"interrupt of {name}", []).append((time.perf_counter() - started) * 1e3)
        cell = kernel.submit("print('in')\nsum(range(4 * 10**9))")
        until(lambda: stuck(kernel))
        started = time.perf_counter()
        assert kernel.interrupt(cell.id, escalate=True).outcome == "killed"
        rows.setdefault("escalation of sum(range(4e9)), fresh instance included", []).append(
            (time.perf_counter() - started) * 1e3
        )


def stuck(kernel: pk.Kernel) -> bool:
    """Tell whether a kernel cannot even answer."""
    try:
        kernel.describe(timeout=0.2)
    except pk.ReplyTimeoutError:
        return True
    return False


def main() -> None:
    """Measure and print."""
    rows: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        death(rows, children=False)
        death(rows, children=True)
        interrupts(rows)
    print("| what | median | maximum |\n|---|---|---|")
    for name, values in rows.items():
        print(f"| {name} | {statistics.median(values):.1f} ms | {max(values):.1f} ms |")


if __name__ == "__main__":
    main()
