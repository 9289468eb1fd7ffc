"""What the host kills, and what it must never."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

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


@pytest.mark.parametrize("deaf", [False, True])
def test_a_process_that_does_not_heed_the_request_to_end_is_killed(deaf: bool) -> None:
    ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if deaf else ""
    code = f"import signal, sys; {ignoring} print('up', flush=True); sys.stdin.read()"
    words = [sys.executable, "-ISc", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        begun = time.monotonic()
        processes.end(process.pid, 0.2 if deaf else 10.0)
        assert time.monotonic() - begun < 5
        assert not processes.is_alive(process.pid)
        assert process.wait(1) == 0  # collected, so that nobody knows any more how it ended


def test_what_has_ended_already_is_no_trouble() -> None:
    process = subprocess.Popen([sys.executable, "-ISc", ""])
    process.wait()
    processes.end(process.pid, 0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not say")
def test_what_a_process_in_between_has_forked_is_nobodys_to_collect_until_that_has_ended() -> None:
    code = "import os, time; pid = os.fork() or time.sleep(60); print(pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as between:
        assert between.stdout is not None
        pid = int(between.stdout.readline())
        try:
            assert processes.is_child(between.pid)
            assert not processes.is_child(pid)
        finally:
            processes.send_signal(pid, signal.SIGKILL)
            between.kill()
