"""How the shell feels: run `python tests/benchmarks/shell.py [ROUNDS]`; prints one table, decides nothing.

A real shell in a pseudo-terminal, timed from a key to what it shows; `python -c pass` in the
same run gives the scale, so that machines can be compared.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from terminals import Terminal  # noqa: E402 - the path comes first

import pyrokernel as pk  # noqa: E402

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
REFERENCE_MS = 15.0
"""What `python -c pass` takes on the machine that the promises are made for."""

PROMISES = {"first prompt": 600.0, "TAB to the menu, k0": 60.0, "TAB to the menu, 64 kernels": 60.0}
KEYS = 100
TAB, BACKSPACE, CTRL_C = "\t", "\x7f", "\x03"

Rows = dict[str, list[float]]


def open_shell(mesh: pk.Mesh, *words: str) -> Terminal:
    """Start a shell; it is not waited for."""
    environ = {**os.environ, **mesh.settings.to_env(), "PYTHONPATH": str(Path(__file__).parents[2])}
    return Terminal([sys.executable, "-m", "pyrokernel", "shell", "--no-startup", *words], environ)


def timed(shell: Terminal, keys: str, shown: str) -> float:
    """Return how long it takes from keys to what they show, a regular expression, in ms."""
    shell.text = ""
    pattern = re.compile(shown)
    started = time.perf_counter()
    shell.type(keys)
    shell.until(lambda: pattern.search(shell.text), shown, timeout=30)
    return (time.perf_counter() - started) * 1e3


def first_prompt(mesh: pk.Mesh, rows: Rows) -> None:
    """Measure from nothing to the prompt, in turn with an interpreter that does nothing."""
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        rows.setdefault("python -c pass", []).append((time.perf_counter() - started) * 1e3)
        started = time.perf_counter()
        shell = open_shell(mesh, "k0")
        try:
            shell.expect("k0>")
            rows.setdefault("first prompt", []).append((time.perf_counter() - started) * 1e3)
        finally:
            shell.close()


def answers(mesh: pk.Mesh, rows: Rows) -> None:
    """Measure cells and TAB on groups of growing size, and `ps`."""
    mesh[:].execute("measure_one, measure_two = 1, 2.0")
    for words, prompt in (("k0", "k0"), ("k0,k1,k2,k3,k4,k5,k6,k7", "8 kernels"), ("all", "64 kernels")):
        shell = open_shell(mesh, *words.split(","))
        try:
            shell.expect(f"{prompt}>")
            timed(shell, "'warm'\r", rf"\n.*'warm'\n{prompt}>")
            for number in range(ROUNDS):
                cell = timed(shell, f"'cell' + ' {number}'\r", rf"\n(\[k0-k\d+\] )?'cell {number}'\n")
                rows.setdefault(f"a cell, {prompt}", []).append(cell)
                shell.expect(f"{prompt}>")
                timed(shell, "measure_", "measure_")
                rows.setdefault(f"TAB to the menu, {prompt}", []).append(timed(shell, TAB, "float"))
                timed(shell, CTRL_C, rf"\n{prompt}>")
                rows.setdefault(f"`ps` of 64, on {prompt}", []).append(timed(shell, "ps\r", rf" k63 .*\n{prompt}>"))
        finally:
            shell.close()


def keys_while_deaf(mesh: pk.Mesh, rows: Rows) -> None:
    """Measure the echo of keys while the kernel answers nobody, TAB pressed among them."""
    shell = open_shell(mesh, "k0")
    pid = mesh["k0"].describe()["pid"]
    try:
        shell.expect("k0>")
        os.kill(pid, signal.SIGSTOP)
        for number in range(KEYS):
            rows.setdefault("a key's echo, kernel deaf", []).append(timed(shell, "q", "q"))
            if number % 10 == 9:
                shell.type(TAB)
                rows.setdefault("the next, after TAB", []).append(timed(shell, "w", "w"))
    finally:
        os.kill(pid, signal.SIGCONT)
        shell.close()


def main() -> None:
    """Measure and print."""
    rows: Rows = {}
    with pk.local(64) as mesh:
        first_prompt(mesh, rows)
        answers(mesh, rows)
        keys_while_deaf(mesh, rows)
    scale = REFERENCE_MS / statistics.median(rows["python -c pass"])
    print("| what | median | p99 | median scaled to a 15 ms `pass` | promise |\n|---|---|---|---|---|")
    for name, values in rows.items():
        values.sort()
        median, p99 = statistics.median(values), values[min(len(values) - 1, round(len(values) * 0.99))]
        promise = f"{PROMISES[name]:g} ms" if name in PROMISES else ""
        print(f"| {name} | {median:.1f} ms | {p99:.1f} ms | {median * scale:.1f} ms | {promise} |")


if __name__ == "__main__":
    main()
