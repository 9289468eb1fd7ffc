"""What keeps a tunnel: asked to end at any moment, it leaves no ssh behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyrokernel.front import tunnel
from pyrokernel.front.tunnel import Tunnel

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="the system ends processes by force only")

STAYS = [sys.executable, "-ISc", "import signal; signal.pause()"]
ENDS = [sys.executable, "-ISc", ""]


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def nothing() -> None:
    """Do nothing."""


def ask_later() -> None:
    """Ask this process to end, in a moment, amid whatever its main thread does then."""
    main = threading.main_thread().ident
    threading.Timer(0.1, lambda: signal.pthread_kill(main or 0, signal.SIGTERM)).start()


def keep_with(
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    started: Callable[[], None] = nothing,
    ended: Callable[[], None] = nothing,
) -> int:
    """Keep a tunnel whose ssh is another command; return how that ended, when it was started once."""
    processes: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            processes.append(self)
            started()  # before anybody else knows of it

        def wait(self, timeout: float | None = None) -> int:
            code = super().wait(timeout)
            ended()
            return code

    monkeypatch.setattr(Tunnel, "command", lambda self: command)
    monkeypatch.setattr(tunnel.subprocess, "Popen", Popen)
    tunnel.keep(Tunnel("far", "far", "127.0.0.1:1", "127.0.0.1:2"))
    (process,) = processes
    return process.returncode


def test_a_request_to_end_amid_the_start_of_ssh_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_now = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    assert keep_with(STAYS, monkeypatch, started=ask_now) == -signal.SIGTERM


def test_a_request_to_end_while_ssh_runs_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keep_with(STAYS, monkeypatch, started=ask_later) == -signal.SIGTERM


def test_a_request_to_end_is_heeded_while_the_next_ssh_is_waited_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "_FIRST_PAUSE", 60.0)
    monkeypatch.setattr(tunnel, "_LONGEST_PAUSE", 120.0)
    assert keep_with(ENDS, monkeypatch, ended=ask_later) == 0
