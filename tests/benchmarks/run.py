"""All benchmarks, one table: `python tests/benchmarks/run.py [ROW ...] [--quick] [--json FILE] [--markdown FILE]`.

Each experiment runs in a process of its own, within its time; one that fails is told of in the table, and the others
go on. `--list` names the rows. `--page` writes the table and the plots into docs/performance.md. With `--from FILE`,
figures that were taken before, only the rows that are named are taken anew, or none.

The peers are an extra, `pip install -e '.[bench]'`; one that is not installed is a dash.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import datetime
import fnmatch
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import processes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = ("Pyro5", "msgpack", "execnet", "rpyc", "ipyparallel", "distributed", "ray", "jupyter_client", "ipykernel",
         "redis", "numpy", "pyrokernel")  # fmt: skip
GRACE_SECONDS = 10.0
"""How long an experiment may take to end after it was asked to."""


def main() -> None:
    """Run what was asked for."""
    sys.path[1:1] = [str(HERE.parent), str(ROOT)]
    import page
    from measuring import EXPERIMENTS, Run

    register()
    asked = arguments()
    if asked.experiment:
        experiment = EXPERIMENTS[asked.experiment]
        experiment.take(Run(quick=asked.quick, output=asked.output))
        return
    if asked.list:
        for one in EXPERIMENTS.values():
            for row in one.rows:
                print(f"{row.name:18} {row.title}")
        return
    results = json.loads(asked.given.read_text()) if asked.given else {}
    if asked.rows or not asked.given:
        # As pip does with the peers: where the environment forbids it, each process would compile what was edited.
        compileall.compile_dir(ROOT / "pyrokernel", quiet=1)
        results = joined(results, taken(asked))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n")
    text = page.tables(results)
    print(text)
    if asked.markdown:
        asked.markdown.write_text(text + "\n")
    if asked.page:
        page.write(ROOT / "docs", results)


def register() -> None:
    """Import all rows; in the order of the table."""
    import rows

    for name in rows.SUBJECTS:
        __import__(f"rows.{name}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows or patterns such as 'fan-out-*'; all")
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it works, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--page", action="store_true", help="write table and plots into docs/performance.md")
    parser.add_argument("--from", dest="given", type=Path, metavar="FILE", help="figures that were taken before")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--experiment", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return figures from two runs; of a row in both, those of the later one."""
    if not before:
        return now
    again = now["rows"].keys() | now["failed"].keys()
    both = {"made": now["made"] | {"seconds": before["made"]["seconds"] + now["made"]["seconds"]}}
    for part in ("rows", "failed", "absent"):
        kept = {name: one for name, one in before[part].items() if name.partition(":")[0] not in again}
        both[part] = kept | now[part]
    return both


def taken(asked: argparse.Namespace) -> dict[str, Any]:
    """Run the experiments that fill the rows asked for; return all figures."""
    from measuring import EXPERIMENTS

    begun = time.monotonic()
    found: dict[str, Any] = {"made": about(), "rows": {}, "absent": {}, "failed": {}}
    with tempfile.TemporaryDirectory(prefix="pk-bench-", dir="/tmp") as folder:
        for one in EXPERIMENTS.values():
            names = [row.name for row in one.rows]
            if asked.rows and not any(fnmatch.fnmatch(name, word) for name in names for word in asked.rows):
                continue
            print(f"{time.monotonic() - begun:5.0f} s  {', '.join(names)}", file=sys.stderr, flush=True)
            output = Path(folder) / f"{one.name}.json"
            failure = alone(one.name, one.seconds, output, quick=asked.quick)
            filled = json.loads(output.read_text()) if output.exists() else {"rows": {}, "absent": {}}
            found["rows"] |= filled["rows"]
            found["absent"] |= {
                side if ":" in side else f"{names[0]}: {side}": why for side, why in filled["absent"].items()
            }
            if failure:
                print(f"         {failure}", file=sys.stderr)
                found["failed"] |= dict.fromkeys(names, failure)
    found["made"] |= {"quick": asked.quick, "seconds": round(time.monotonic() - begun)}
    return found


def alone(name: str, seconds: float, output: Path, *, quick: bool) -> str:
    """Run one experiment in a process of its own; return what went wrong, "" if nothing did."""
    command = [sys.executable, str(HERE / "run.py"), "--experiment", name, "--output", str(output)]
    paths = [str(HERE), str(HERE.parent), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # In reach of whatever processes a peer starts: the functions that are called.
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with open(output.with_suffix(".log"), "w+") as log:
        process = subprocess.Popen(
            command + ["--quick"] * quick, env=environ, stdout=log, stderr=log, start_new_session=True
        )
        try:
            status = process.wait(seconds)
            failure = f"failed, exit status {status}" if status else ""
        except subprocess.TimeoutExpired:
            failure = f"ended after {seconds:g} s"
            end_tree(process)
        except KeyboardInterrupt:
            end_tree(process)
            raise
        log.seek(0)
        said = log.read()
    notes = [line for line in said.splitlines() if line.startswith("  ")]
    if failure:
        return f"{failure}\n{said[-4000:]}"
    print("\n".join(line for line in notes if ": " in line and not line.startswith("   ")), file=sys.stderr)
    return ""


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started, also what has a session of its own."""
    below = processes.descendants(process.pid)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    for pid in (process.pid, *below):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def about() -> dict[str, Any]:
    """Return where and of what the figures are."""
    versions = {}
    for name in PEERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processors": os.cpu_count(),
        "model": model,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "versions": versions,
    }


if __name__ == "__main__":
    main()
