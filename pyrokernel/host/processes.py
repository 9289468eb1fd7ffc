"""Processes as the operating system shows them: watch, signal, collect. Runs in the host process."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pyrokernel import again, systems
from pyrokernel.host.policy import Ending
from pyrokernel.wire import sockets
from pyrokernel.wire.endpoints import prove

log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
"""From <linux/prctl.h>."""
_MAX_DESCRIPTORS = 65536
_PROBE_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_SYNCHRONIZE = 0x100000
"""From <winnt.h>."""
_TEMPLATE = b"pyrokernel.host.template"
"""In the command line of templates with an interpreter of their own, and so of what they fork."""


class ProcessWatch:
    """A descriptor that becomes readable when a process ends, whoever its parent is.

    Raises:
        ProcessLookupError: There is no such process.
    """

    def __init__(self, pid: int) -> None:
        self._queue: Any = None
        if hasattr(os, "pidfd_open"):
            self._fd = os.pidfd_open(pid)
        elif sys.platform != "darwin":
            self._queue, told = socket.socketpair()
            self._fd = self._queue.fileno()
            threading.Thread(target=_tell_end, args=(pid, told), name="pyrokernel-watch", daemon=True).start()
        else:
            self._queue = select.kqueue()
            event = select.kevent(
                pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT
            )
            self._queue.control([event], 0)
            self._fd = self._queue.fileno()

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor."""
        if self._queue is not None:
            self._queue.close()
        else:
            os.close(self._fd)


def _tell_end(pid: int, told: socket.socket) -> None:
    """Close a socket when a process ends, where the system has nothing to select on for that."""
    with told:
        if pid in again.started:
            again.started[pid].wait()
        else:
            while is_alive(pid):
                time.sleep(_LOOK_SECONDS)


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    if sys.platform == "win32":  # where os.kill(pid, 0) sends it an event of its console
        import _winapi

        try:
            handle = _winapi.OpenProcess(_SYNCHRONIZE, False, pid)
        except OSError:
            return False
        try:
            return bool(_winapi.WaitForSingleObject(handle, 0) == _winapi.WAIT_TIMEOUT)
        finally:
            _winapi.CloseHandle(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def become_subreaper() -> None:
    """Make orphaned descendants children of this process: what a template forks, and what dead kernels leave.

    Raises:
        OSError: The system refused.
    """
    import ctypes  # the command line imports this module, and has no use for that

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def raise_descriptor_limit() -> None:
    """Allow this process the descriptors that a thousand kernels and their callers take."""
    resource = systems.limits()
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is none or the system does not say."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else 0


def is_same(pid: int, started: int) -> bool:
    """Tell whether the process of that number is alive and the one that started then."""
    fields = _stat_fields(pid)
    if not fields and not os.path.exists("/proc/self/stat"):
        return pid > 0 and is_alive(pid)  # the system does not say more
    return bool(fields) and fields[0] != "Z" and int(fields[19]) == started


def is_child(pid: int) -> bool:
    """Whether a process that has ended is for this one to reap; True also where the system does not say.

    What a template forks is so once the process between the two has ended, which may take longer than a short life.
    """
    fields = _stat_fields(pid)
    return not fields or int(fields[1]) == os.getpid()


def collect(pid: int) -> Ending:
    """Reap a process that has ended and say how; nothing is known of one that is not a child."""
    if pid in again.started:
        code = again.started.pop(pid).wait()
        return Ending(signal=-code) if code < 0 else Ending(exit_code=code)
    if not hasattr(os, "wait4"):
        return Ending()
    try:
        _, status, usage = os.wait4(pid, 0)
    except ChildProcessError:
        return Ending()
    # Linux counts the resident set in KiB, macOS in bytes.
    peak = usage.ru_maxrss * (1024 if sys.platform == "linux" else 1)
    if os.WIFSIGNALED(status):
        return Ending(signal=os.WTERMSIG(status), peak_memory_bytes=peak)
    return Ending(exit_code=os.WEXITSTATUS(status), peak_memory_bytes=peak)


def ended_children() -> Iterable[int]:
    """Yield the ended children of this process; the caller reaps each before it asks for the next."""
    while hasattr(os, "waitid"):
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        yield found.si_pid


def send_signal(pid: int, number: int) -> None:
    """Signal the group of a process, or the process alone if it was just born and does not lead one yet."""
    for send in (os.killpg, os.kill) if hasattr(os, "killpg") else (os.kill,):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(pid, number)
            return


def interrupt(pid: int) -> None:
    """Send SIGINT to the group of a kernel, so that it meets the kernel's main thread, which alone can raise it.

    A signal to a process is for its main thread if that can take it. No thread of a stopped one can: the first that
    runs on takes it, and where that is another one the main thread sleeps on. So there each is signalled by itself.
    """
    import ctypes  # as above

    tgkill = getattr(ctypes.CDLL(None), "tgkill", None)
    fields = _stat_fields(pid)
    if tgkill is None or not fields or fields[0] != "T":
        send_signal(pid, signal.SIGINT)
        return
    group = fields[2]
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        if int(entry) != pid and _stat_fields(int(entry))[2:3] == [group]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(entry), signal.SIGINT)
    tgkill(pid, pid, signal.SIGINT)


def ask_to_end(pid: int) -> None:
    """Ask one process, and not its children, to end; a kernel does so at once."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def end(pid: int, seconds: float) -> None:
    """Ask a process to end, kill it if it has not after some seconds, and collect it."""
    try:
        watch = ProcessWatch(pid)
    except ProcessLookupError:  # it has ended, and was nobody's child here
        return
    try:
        ask_to_end(pid)
        if not sockets.is_ready(watch, seconds):
            log.warning("process %d did not end within %g s of being asked, and is killed", pid, seconds)
            send_signal(pid, systems.KILL)
    finally:
        watch.close()
    collect(pid)


def kill_sessions(leaders: Mapping[int, int]) -> None:
    """Kill what is left of the sessions that dead processes led.

    `multiprocessing` children share a kernel's group, but shells with job control and
    `process_group=` make groups of their own; the session is what they all share.

    Args:
        leaders: Process id of each leader to its start time.
    """
    if sys.platform != "linux":
        return
    # Else the number is reused. That of a process that was never born is 0, as is the session of kernel threads, and
    # of whatever was put into this container from outside.
    dead = {pid for pid, started in leaders.items() if pid and start_time(pid) in (0, started)}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) not in dead:
            fields = _stat_fields(int(entry))
            if fields and int(fields[3]) in dead:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(entry), systems.KILL)


def kill_unknown_births(except_pids: Collection[int] = ()) -> None:
    """Kill templates, and what they may have forked without a word, until there is none left among the children.

    The first template is a fork of this process, so that it and its kernels have the same command line.

    Args:
        except_pids: Kernels that are known; somebody else collects them.
    """
    ours = _command(os.getpid())
    while True:
        unknown = [pid for pid in _children() if pid not in except_pids]
        found = [pid for pid in unknown if _TEMPLATE in (command := _command(pid)) or command == ours]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, systems.KILL)
        for pid in found:
            collect(pid)
        if not found:
            return


def listener_pid(socket_path: str) -> int:
    """Return the process that listens on a unix socket, 0 when nobody does or the system does not say."""
    try:
        return prove(socket_path, _PROBE_SECONDS).pid
    except OSError:
        return 0


def proportional_memory(pid: int) -> int:
    """Return the proportional set size of a process in bytes, 0 when unknown."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _children() -> list[int]:
    """Return the children of this process, none where the system does not say."""
    found: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _stat_fields(pid: int) -> list[str]:
    """Return /proc/PID/stat from its third field on (state, ppid, pgrp, session ...; starttime is the 20th)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    # The second field is the name in parentheses, which may hold anything.
    return text.rpartition(")")[2].split()
