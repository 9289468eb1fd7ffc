"""Runs a script that captures its own descriptors 1 and 2, as a kernel does. Runs in the test process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PRELUDE = """
import json, os, resource, signal, subprocess, sys, threading, time, traceback
from pathlib import Path

sys.path[:0] = json.loads(sys.argv[2])
from pyrokernel.journal import Journal
from pyrokernel.kernel.capture import Capture
from tests.waiting import wait_until

directory = Path(sys.argv[1])
os.chdir(directory)
sys.excepthook = lambda *error: Path(directory, "failure").write_text("".join(traceback.format_exception(*error)))
journal = Journal(directory / "journal")
capture = Capture(directory / "journal", journal, reply_bytes=1000)
capture.install()


def end():
    "End the cell; return what it wrote."
    output = capture.end()
    capture.settle()
    return output


def run(cell, function=lambda: None):
    "Run a function as a cell; return what it wrote."
    capture.begin(cell)
    try:
        function()
    finally:
        output = end()
    return output


def shell(command):
    return lambda: os.system(command)


def outputs(stream=None):
    "Everything journalled: cell, text, late; neighbours of the same cell in one."
    capture.drain()
    found = []
    for event in journal.read(0, max_bytes=1 << 30):
        if event.kind == "output" and stream in (None, event.data["stream"]):
            if found and [found[-1][0], found[-1][2]] == [event.cell, event.data["late"]]:
                found[-1][1] += event.data["text"]
            else:
                found.append([event.cell, event.data["text"], event.data["late"]])
    return found


def written(cell):
    return "".join(text for owner, text, late in outputs() if owner == cell)


def gaps():
    capture.drain()
    return [event.data | {"cell": event.cell} for event in journal.read(0, max_bytes=1 << 30) if event.kind == "gap"]


def report(value):
    Path(directory, "report").write_text(json.dumps(value))
"""


def captured(tmp_path: Path, script: str, *, returncode: int = 0) -> Any:
    """Run the script after the prelude; return what it gave to `report`, None when nothing."""
    process = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, str(tmp_path), json.dumps(["", *sys.path, str(Path.cwd())])],
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    failure = tmp_path / "failure"
    assert not failure.exists(), failure.read_text()
    assert process.returncode == returncode, process.stderr
    result = tmp_path / "report"
    return json.loads(result.read_text()) if result.exists() else None
