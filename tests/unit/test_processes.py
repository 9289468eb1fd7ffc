"""What the host kills, and what it must never."""

from __future__ import annotations

import os

import pytest

from pyrokernel.host import processes


def test_the_session_of_a_process_that_was_never_born_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Session 0 is that of kernel threads, and in a container of whatever was started in it from outside."""
    killed: list[int] = []
    monkeypatch.setattr(processes.os, "kill", lambda pid, _: killed.append(pid))
    monkeypatch.setattr(processes.os, "listdir", lambda _: ["71", str(os.getpid())])
    monkeypatch.setattr(processes, "_stat_fields", lambda pid: ["S", "1", "0", "0"])
    processes.kill_sessions({0: 0})
    assert killed == []


def test_what_is_left_of_a_dead_session_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(processes.os, "kill", lambda pid, _: killed.append(pid))
    monkeypatch.setattr(processes.os, "listdir", lambda _: ["71", "72"])
    monkeypatch.setattr(processes, "start_time", lambda pid: 0)
    monkeypatch.setattr(processes, "_stat_fields", lambda pid: ["S", "1", "9", "999999999" if pid == 71 else "8"])
    processes.kill_sessions({999999999: 5})
    assert killed == [71]
