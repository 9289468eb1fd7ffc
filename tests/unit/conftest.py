"""What several tests of single rooms need."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrokernel.kernel.interpreter import Interpreter
from pyrokernel.kernel.interrupts import Interrupts


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Interpreter]:
    """An interpreter in this process, which is as it was afterwards."""
    monkeypatch.setattr(sys, "displayhook", sys.displayhook)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    before = signal.getsignal(signal.SIGINT)
    made = Interpreter(Interrupts(tmp_path / "request", lambda: "", lambda error, frame: False))
    yield made
    if made._loop is not None:
        made._loop.close()
    signal.signal(signal.SIGINT, before)
