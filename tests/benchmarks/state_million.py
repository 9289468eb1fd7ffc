"""A million keys in the shared state: `python tests/benchmarks/state_million.py [KEYS]`; one table, no verdict.

Two promises are looked at: a service that is started again answers within a second, and its memory is bounded,
however many keys there are.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrokernel as pk
from pyrokernel.client.shared import Shared

KEYS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
AT_ONCE = 5000
ROUNDS = 5


def memory_mb(pid: int) -> str:
    """Return resident memory of a process, now and at its highest."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {
        name: int(value.split()[0]) // 1024
        for name, _, value in (line.partition(":") for line in lines)
        if "VmRSS" in name or "VmHWM" in name
    }
    return f"{found['VmRSS']} MB, highest {found['VmHWM']} MB"


def timed(step: Callable[[], Any], rounds: int = 1) -> float:
    """Return the median time of a step in milliseconds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def start_again(shared: Shared) -> float:
    """Kill the service; return the milliseconds until the next one answers."""
    os.kill(shared.describe()["pid"], signal.SIGKILL)
    return timed(lambda: shared.get("key/0000000"))


def main() -> None:
    """Fill, start again, measure, print."""
    rows: list[tuple[str, str]] = []

    def row(name: str, value: float | str) -> None:
        rows.append((name, value if isinstance(value, str) else f"{value:,.2f} ms"))

    with pk.local(1) as mesh:
        shared = mesh.shared
        started = time.perf_counter()
        for first in range(0, KEYS, AT_ONCE):
            shared.update({f"key/{number:07d}": number for number in range(first, first + AT_ONCE)})
        seconds = time.perf_counter() - started
        row("fill", f"{seconds:.1f} s, {KEYS / seconds:,.0f} keys/s")
        pid = int(shared.describe()["pid"])
        row("memory after filling", memory_mb(pid))
        directory = Path(shared.describe()["directory"])
        row("database", f"{sum(path.stat().st_size for path in directory.glob('state.*')) >> 20} MB")
        row("killed, started again, first answer", statistics.median(start_again(shared) for _ in range(ROUNDS)))
        pid = int(shared.describe()["pid"])
        row("memory after the start", memory_mb(pid))
        row("first len()", timed(lambda: len(shared.m)))
        row("len()", timed(lambda: len(shared.m), ROUNDS))
        row("keys(prefix), 10 found", timed(lambda: shared.keys("key/050000"), ROUNDS))
        row("keys(prefix), 1,000 asked for", timed(lambda: shared.keys("key/05", limit=1000), ROUNDS))
        row("entries(), 1,000", timed(lambda: shared.entries("key/05", limit=1000), ROUNDS))
        row("get, one not at hand", timed(iter_get(shared), 200))
        row("set", timed(lambda: shared.set("key/0500000", 1), 200))
        row("increment", timed(lambda: shared.increment("key/0500000"), 200))
        row("all keys", timed(lambda: sum(1 for _ in shared.m)))
        row("memory after listing all", memory_mb(pid))
        row("a thousand keys with ttl", timed(lambda: [shared.set(f"ttl/{n}", n, ttl=100) for n in range(1000)]))
        row("killed, started again, first answer", start_again(shared))
        row("backup", timed(shared.backup))
        row("memory at the end", memory_mb(int(shared.describe()["pid"])))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")


def iter_get(shared: Shared) -> Callable[[], Any]:
    """Return a step that gets another key each time."""
    numbers = iter(range(0, KEYS, max(1, KEYS // 250)))
    return lambda: shared.get(f"key/{next(numbers):07d}")


if __name__ == "__main__":
    main()
