"""What starting costs: run `python tests/benchmarks/startup.py`; prints one table, decides nothing.

Every figure is taken in turn with `python -c pass` in the same run, so that ratios can be
compared between machines; each row names the promise of the first release.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pyrokernel as pk

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
REFERENCE_MS = 15.0
"""What `python -c pass` takes on the machine that the promises are made for."""

LOCAL = (
    "import time; t = time.perf_counter()\n"
    "import pyrokernel as pk\n"
    "m = pk.local(4); r = m[:].execute('6 * 7')\n"
    "print(time.perf_counter() - t); assert [x.result for x in r.values()] == [42] * 4; m.close()"
)


def wall_ms(source: str) -> float:
    """Run Python once and return how long the process took."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", source], check=True)
    return (time.perf_counter() - started) * 1e3


def local_ms() -> float:
    """Return the time from nothing but a running interpreter to four answers."""
    done = subprocess.run([sys.executable, "-c", LOCAL], check=True, capture_output=True, text=True)
    return float(done.stdout) * 1e3


def cpu_ms(pids: list[int]) -> float:
    """Return the processor time that processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * 1e3 / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    rows: dict[str, list[float]] = {"pass": [], "import Pyro5.client": [], "import pyrokernel": [], "local(4)": []}
    for _ in range(ROUNDS):
        rows["pass"].append(wall_ms("pass"))
        rows["import Pyro5.client"].append(wall_ms("import Pyro5.client"))
        rows["import pyrokernel"].append(wall_ms("import pyrokernel"))
        rows["local(4)"].append(local_ms())
    base = statistics.median(rows["pass"])
    with pk.local(4) as mesh:
        rows["one more kernel"] = []
        for number in range(ROUNDS):
            started = time.perf_counter()
            mesh.start([pk.KernelSpec(name=f"x{number}")])
            rows["one more kernel"].append((time.perf_counter() - started) * 1e3)
        infos = mesh.ps()
        memory = [info.memory_bytes / 2**20 for info in infos]
        pids = [info.pid for info in infos]
        before, started = cpu_ms(pids), time.monotonic()
        time.sleep(20)
        idle = (cpu_ms(pids) - before) / len(pids) * 60 / (time.monotonic() - started)
    promises = {"local(4)": 350.0, "one more kernel": 15.0, "import pyrokernel": 25.0 + 80.0}
    print("| what | median | scaled to a 15 ms `pass` | promise |\n|---|---|---|---|")
    for name, values in rows.items():
        median = statistics.median(values)
        promise = f"{promises[name]:g} ms" if name in promises else ""
        print(f"| {name} | {median:.1f} ms | {median * REFERENCE_MS / base:.1f} ms | {promise} |")
    print(f"| memory of an idle kernel (PSS) | {max(memory):.1f} MiB at most | | 12 MiB |")
    print(f"| processor time of an idle kernel, a minute | {idle:.1f} ms | | 10 ms |")


if __name__ == "__main__":
    main()
