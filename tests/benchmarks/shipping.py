"""What code that travels costs: run `python tests/benchmarks/shipping.py`; prints one table, decides nothing.

Each round ships 1,000 small files to 8 fresh kernels, then the same again, then with one of them
changed; the floor in the same run is one Python that imports them from its own disk. Calls of a
command are taken in turn with calls of a plain function of the namespace.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyrokernel as pk

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
FILES, KERNELS, CALLS = 1_000, 8, 300

SOURCE = '''"""Module {n}."""
import math


def remote_f{n}(self, x: int, y: int = 2) -> int:
    """Add."""
    return x + y + {n}


class C{n}:
    def method(self) -> float:
        return math.sqrt({n})
'''

PLUGIN = """
from pyrokernel import hookimpl

def greet(): return 1

@hookimpl
def pyrokernel_register_commands(register): register(greet)
"""


def timed(function: Callable[[], object]) -> float:
    """Return how long a call took, in milliseconds."""
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1e3


def imported(folder: Path) -> float:
    """Return how long one Python takes to import the files for the first time, itself not counted."""
    names = ",".join(path.stem for path in sorted(folder.glob("*.py")))
    program = f"import time; t = time.perf_counter()\nimport {names}\nprint(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-B", "-c", program], cwd=folder, check=True, capture_output=True, text=True)
    return float(done.stdout) * 1e3


def shipping(rows: dict[str, list[float]], folder: Path) -> None:
    """Take one round of shipping."""
    files = [folder / f"part{number}.py" for number in range(FILES)]
    for number, file in enumerate(files):
        file.write_text(SOURCE.format(n=number))
    rows["import 1,000 files in one Python"].append(imported(folder))
    with pk.local(KERNELS) as mesh:
        group = mesh[:]
        group.execute("0")
        rows[f"ship 1,000 files to {KERNELS}"].append(timed(lambda: group.ship(*files)))
        assert set(group.call(f"f{FILES - 1}", 1).values()) == {1 + 2 + FILES - 1}
        rows["ship them again, unchanged"].append(timed(lambda: group.ship(*files)))
        files[5].write_text(files[5].read_text() + "\nchanged = True\n")
        rows["ship them again, one changed"].append(timed(lambda: group.ship(*files)))
        assert all(reply.result for reply in group.execute("import part5; part5.changed").values())


def calling(rows: dict[str, list[float]]) -> None:
    """Take one round of calls."""
    with pk.local(1) as mesh:
        kernel = mesh[0]
        kernel.execute("def plain(x): return x")
        kernel.ship("def remote_checked(x: int) -> int: return x\n", name="checked")
        for _ in range(CALLS):
            rows["call a function"].append(timed(lambda: kernel.call("plain", 1)))
            rows["call a command"].append(timed(lambda: kernel.call("checked", 1)))


def starting(rows: dict[str, list[float]], folder: Path) -> None:
    """Take kernels in turn from a host without plugins and from one with three."""
    for name in ("one", "two", "three"):
        (folder / f"pyrokernel_{name}.py").write_text(PLUGIN.replace("greet", f"greet_{name}"))
    with pk.local(1) as without, pk.local(1, plugins_dir=str(folder)) as with_plugins:
        for mesh in (without, with_plugins):
            mesh[:].execute("0")
        for _ in range(2 * ROUNDS):
            for mesh, label in ((without, "no plugin"), (with_plugins, "three plugins")):
                rows[f"one more kernel, {label}"].append(timed(lambda: mesh.start(1)))  # noqa: B023  used at once
                last = mesh[mesh.names[-1]]
                rows[f"its first cell, {label}"].append(timed(lambda: last.execute("0")))  # noqa: B023  used at once


def main() -> None:
    """Measure and print."""
    labels = [
        "import 1,000 files in one Python",
        f"ship 1,000 files to {KERNELS}",
        "ship them again, unchanged",
        "ship them again, one changed",
        "one more kernel, no plugin",
        "one more kernel, three plugins",
        "its first cell, no plugin",
        "its first cell, three plugins",
        "call a function",
        "call a command",
    ]
    rows: dict[str, list[float]] = {label: [] for label in labels}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            shipping(rows, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        starting(rows, Path(folder))
    calling(rows)
    base = statistics.median(rows[labels[0]])
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}; medians in ms, and in imports of one Python")
    for label, taken in rows.items():
        print(f"{label:34} {statistics.median(taken):9.2f} {statistics.median(taken) / base:8.3f}")


if __name__ == "__main__":
    main()
