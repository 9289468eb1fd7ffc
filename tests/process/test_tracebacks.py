"""A traceback of a cell is the one that Python prints for a file with the same source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pyrokernel as pk

SOURCES = {
    "one line": "1/0",
    "last line of several": "x = 1\nx + (1/0) * 2",
    "with a line end": "x = {}\nx['a']['b']\n",
    "windows line ends": "x = 1\r\nx = 1/0",
    "in a function": "def f():\n    return 1/0\nf() + 1",
    "over several lines": "x = (1\n     /0)",
    "a form feed in a string": "a = 'x\x0cy'\n1/0",
    "a line separator in a string": "a = '\u2028'\n[1/0 for i in range(3)]",
    "a comment at the end": "1/0  # why",
    "a call": "import os\nos.nothing(1)",
    "an assertion": "assert 1 == 2, 'no'",
    "syntax": "x = (1,\nprint(",
}


@pytest.mark.parametrize("what", SOURCES)
def test_a_traceback_is_what_python_prints(kernel: pk.Kernel, what: str, tmp_path: Path) -> None:
    path = tmp_path / "cell.py"
    path.write_bytes(SOURCES[what].encode())
    python = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    reply = kernel.submit(SOURCES[what], filename=str(path)).reply(timeout=10, check=False)
    assert reply.traceback == python.stderr
