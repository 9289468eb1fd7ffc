"""The same is done where a system lacks what Linux has: seen by taking it away."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import wait_until

from pyrokernel import again, loop, systems
from pyrokernel.front import answers
from pyrokernel.host import processes
from pyrokernel.kernel.attachments import has_hung_up
from pyrokernel.wire import sockets

Take = Callable[..., None]


@pytest.fixture
def take_away(monkeypatch: pytest.MonkeyPatch) -> Take:
    """Take names away from a module."""

    def take(module: object, *names: str) -> None:
        for name in names:
            monkeypatch.delattr(module, name)

    return take


def test_places_in_a_file_are_read_and_written_by_several_threads(tmp_path: Path, take_away: Take) -> None:
    take_away(os, "pread", "pwrite")
    descriptor = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    wrong: list[int] = []

    def use(number: int) -> None:
        for turn in range(200):
            systems.pwrite(descriptor, b"%03d %03d" % (number, turn), number * 7)
            if systems.pread(descriptor, 7, number * 7) != b"%03d %03d" % (number, turn):
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(descriptor)
    assert not wrong


def test_a_lock_is_one_processes_and_goes_with_the_descriptor(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert systems.try_lock(first)
    assert not systems.try_lock(second)
    os.close(first)
    assert systems.try_lock(second)
    os.close(second)


def test_readers_hold_a_lock_together(tmp_path: Path) -> None:
    first, second, writer = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(3))
    assert systems.try_lock(first, shared=True)
    assert systems.try_lock(second, shared=True)
    assert not systems.try_lock(writer)
    for descriptor in (first, second, writer):
        os.close(descriptor)


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_is_started_without_posix_spawn(code: int, take_away: Take) -> None:
    take_away(os, "posix_spawn")
    read_end, write_end = os.pipe()
    source = f"import os, sys; os.write({write_end}, sys.stdin.read().encode() + b'!'); sys.exit({code})"
    child = again.Child(again.start_python([sys.executable, "-c", source], os.environ, passed=[write_end]))
    os.close(write_end)
    assert child.wait(20) == code
    assert os.read(read_end, 10) == b"!"
    os.close(read_end)
    assert processes.collect(child.pid).exit_code == code


def test_a_process_that_was_started_so_is_killed_and_told_of(take_away: Take) -> None:
    take_away(os, "posix_spawn", "wait4", "killpg", "pidfd_open")
    pid = again.start_python([sys.executable, "-c", "import time; time.sleep(60)"], os.environ)
    watch = processes.ProcessWatch(pid)
    assert not select.select([watch], [], [], 0)[0]
    processes.send_signal(pid, systems.KILL)
    assert select.select([watch], [], [], 20)[0]
    watch.close()
    assert processes.collect(pid).signal == signal.SIGKILL


def test_the_end_of_somebody_elses_process_is_noticed(take_away: Take) -> None:
    take_away(os, "pidfd_open")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        watch = processes.ProcessWatch(other.pid)
        assert processes.is_alive(other.pid)
        assert not select.select([watch], [], [], 0)[0]
        other.kill()
    assert select.select([watch], [], [], 20)[0]
    assert not processes.is_alive(other.pid)
    watch.close()


@pytest.mark.parametrize("lacking", [False, True])
def test_a_pipe_is_waited_for(lacking: bool, take_away: Take) -> None:
    if lacking:
        take_away(select, "poll")
    read_end, write_end = os.pipe()
    assert not again.pipe_is_ready(read_end, 0.01)
    os.write(write_end, b"x")
    assert again.pipe_is_ready(read_end, 10)
    assert os.read(read_end, 1) == b"x"
    os.close(write_end)
    assert again.pipe_is_ready(read_end, 10), "its end counts, too"
    os.close(read_end)


def test_a_loop_that_selects_on_sockets_only_looks_at_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SOCKETS_ONLY", True)
    found = loop.Loop()
    read_end, write_end = os.pipe()
    seen: list[bytes] = []

    def readable() -> None:
        seen.append(os.read(read_end, 1))
        if len(seen) == 2:
            found.unwatch(read_end)
            found.stop()

    found.watch(read_end, readable)
    found.after(0.01, lambda: os.write(write_end, b"ab"))
    found.run()
    found.close()
    os.close(read_end)
    os.close(write_end)
    assert seen == [b"a", b"b"]


@pytest.mark.parametrize("lacking", [False, True])
def test_a_connection_that_has_ended_is_told_from_one_that_waits(lacking: bool, take_away: Take) -> None:
    if lacking:
        take_away(select, "poll")
    near, far = socket.socketpair()
    with near:
        assert not has_hung_up(near)
        far.send(b"x")
        assert not has_hung_up(near)
        near.recv(1)
        far.close()
        assert has_hung_up(near)
    assert has_hung_up(near)


def test_a_socket_that_waits_is_written_to_without_waiting(monkeypatch: pytest.MonkeyPatch, take_away: Take) -> None:
    monkeypatch.setattr(sockets, "NOW", 0)
    take_away(select, "poll")
    near, far = socket.socketpair()
    with near, far:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sockets.send_one(near, b"x" * 100_000)
        assert near.gettimeout() is None, "it waits as before"
        assert sockets.look(far, 3) == b"xxx"
        with pytest.raises(BlockingIOError):
            sockets.look(near, 1)
        assert sent > 0


def test_input_has_a_deadline_without_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = types.SimpleNamespace(raise_signal=signal.raise_signal, SIGINT=signal.SIGINT)
    monkeypatch.setattr(answers, "signal", lacking)  # of a module of its own: the alarms of pytest go on
    with pytest.raises(answers.OutOfTimeError), answers._until(time.monotonic() + 0.05):
        wait_until(lambda: False)
    with answers._until(time.monotonic() + 60):
        pass
    wait_until(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()))
