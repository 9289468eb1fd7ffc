"""Starting this interpreter anew with this very package. Runs in clients and in the host process.

Imports next to nothing: a client starts a host, and a host its template, before they import
anything else, so that both sides load at the same time.
"""

from __future__ import annotations

import os
import select
import sys
import time

from pyrokernel import systems

# Type checkers know this name; importing it from `typing` would take longer than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

CAN_FORK = sys.platform == "linux" and hasattr(os, "fork")
"""Whether kernels may be forked from a template: it takes a subreaper, and macOS frameworks do not survive fork."""

_LOOK_SECONDS = 0.005
"""How often a process is looked at where the system cannot wait for one with a timeout."""


def python_with(module: str) -> list[str]:
    """Return the command line that runs a module of this package.

    Without the working directory on its path: a `queue.py` of the user's, or another checkout
    of this package, would otherwise be imported in place of the right one. The exception is a
    package that was itself imported from the working directory.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    isolated = [] if os.path.samefile(home, os.curdir) else ["-P"]
    return [sys.executable, *isolated, "-m", module]


def start_python(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    stdin: int | None = None,
    output: int | None = None,
    passed: Iterable[int] = (),
) -> int:
    """Start this interpreter in a session of its own and return its process id.

    `posix_spawn` and not `subprocess`: the latter collects exit statuses behind the
    host's back, and takes 10 ms to import.

    Args:
        arguments: The command line, as `python_with` makes it.
        environ: The whole environment.
        stdin: Descriptor that becomes 0; None for an empty one.
        output: Descriptor that becomes 1 and 2; None for those of this process.
        passed: Descriptors for it, by the numbers that `handed` returns for them.

    Raises:
        OSError: The system gives no more processes, or the interpreter is gone.
    """
    if not hasattr(os, "posix_spawn"):
        return _start_by_subprocess(arguments, environ, stdin, output, list(passed))
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
    ]
    if output is not None:
        actions += [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    descriptors = list(passed)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    try:
        return os.posix_spawn(arguments[0], list(arguments), dict(environ), file_actions=actions, setsid=True)
    finally:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)


def _start_by_subprocess(
    arguments: Sequence[str], environ: Mapping[str, str], stdin: int | None, output: int | None, passed: list[int]
) -> int:
    """As `start_python`, where the system has no `posix_spawn`."""
    import subprocess

    options: dict[str, Any] = {"start_new_session": True, "pass_fds": passed}
    if sys.platform == "win32":
        # A group of its own keeps the terminal's Ctrl-C away from it.
        info = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handed(one) for one in passed]})
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP, "startupinfo": info}
    for descriptor in passed:
        os.set_inheritable(descriptor, True)
    try:
        process = subprocess.Popen(
            list(arguments),
            env=dict(environ),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=output,
            stderr=output,
            **options,
        )
    finally:
        for descriptor in passed:
            os.set_inheritable(descriptor, False)
    started[process.pid] = process
    return process.pid


started: dict[int, Any] = {}
"""What `subprocess` knows of the processes that were started by it, for those who wait for them."""


def handed(descriptor: int) -> int:
    """Return the number by which a process that is started gets a descriptor: on Windows that of a handle."""
    if sys.platform == "win32":
        import msvcrt

        return msvcrt.get_osfhandle(descriptor)
    return descriptor


def taken(given: dict[str, Any]) -> dict[str, Any]:
    """Return what this process was told, with descriptors in place of the numbers that it was `handed`."""
    if sys.platform == "win32":
        import msvcrt

        numbers = {name: given[name] for name in ("ready_fd", "lifeline_fd") if given[name] >= 0}
        return {**given, **{name: msvcrt.open_osfhandle(number, os.O_BINARY) for name, number in numbers.items()}}
    return given


def pipe_is_ready(descriptor: int, seconds: float) -> bool:
    """Wait until something can be read from a pipe, its end included."""
    if sys.platform == "win32":  # which selects on sockets only
        return _has_come(descriptor, seconds)
    return _is_readable(descriptor, seconds)


if sys.platform == "win32":

    def _has_come(descriptor: int, seconds: float) -> bool:
        import _winapi
        import msvcrt

        deadline = time.monotonic() + seconds
        while True:
            try:
                if _winapi.PeekNamedPipe(msvcrt.get_osfhandle(descriptor), 0)[0]:
                    return True
            except BrokenPipeError:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_SECONDS)


def _is_readable(descriptor: int, seconds: float) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], max(0.0, seconds))[0])
    poller = select.poll()  # of any number, as `select` is not
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(max(0.0, seconds) * 1e3))


def keep_open(*kept: int) -> None:
    """Close all descriptors but 0, 1, 2 and these: what this process was handed down by chance, others may wait for.

    A test runner that has a pipe open as 3 would wait for its end as long as a detached host lives.
    """
    if not os.path.isdir("/dev/fd"):
        return  # Windows: what was not meant for a process is not handed down
    for entry in os.listdir("/dev/fd"):
        number = int(entry)
        if number > 2 and number not in kept:
            try:
                os.close(number)
            except OSError:
                continue  # the one by which the list was read


def show_as(name: str) -> None:
    """Have `top` and `ps -o comm` show this process by a name of 15 characters at most; Linux only."""
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(name[:15])
    except OSError:
        return  # no such file on other systems


class Child:
    """A process that this one has started and waits for.

    Args:
        pid: The process.

    Attributes:
        pid: The process.
        code: How it ended, negative for a signal; None as long as that is not known.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None

    def wait(self, timeout: float) -> int | None:
        """Wait for its end; return how it ended, None when it has not by then."""
        deadline = time.monotonic() + timeout
        while self._look() is None and (left := deadline - time.monotonic()) > 0:
            self._sleep(left)
        return self.code

    def kill(self) -> None:
        """End it at once."""
        if self._look() is None:
            try:
                os.kill(self.pid, systems.KILL)
            except ProcessLookupError:
                return  # it has ended just now, and was collected by others

    def _look(self) -> int | None:
        if self.code is None and self.pid in started:
            self.code = started[self.pid].poll()
        elif self.code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # this program collects whatever ends, or has the system do it
                self.code = 0
            else:
                self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def _sleep(self, timeout: float) -> None:
        """Sleep until it ends; not long where the system wakes nobody for that."""
        try:
            watch = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return  # as above
        except (AttributeError, OSError):  # no Linux, an older one, or no more descriptors
            time.sleep(min(timeout, _LOOK_SECONDS))
            return
        try:
            _is_readable(watch, timeout)
        finally:
            os.close(watch)


def scratch_file(*, portable: bool = False) -> int:
    """Return the descriptor of an empty file without a name.

    Args:
        portable: On a disk.
    """
    if CAN_FORK and not portable:
        return os.memfd_create("pyrokernel")
    import tempfile  # 5 ms that Linux does not pay

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def read_end(descriptor: int, max_bytes: int = 4096) -> str:
    """Return the end of a scratch file as text, wherever its writers are."""
    size = os.fstat(descriptor).st_size
    return systems.pread(descriptor, max_bytes, max(0, size - max_bytes)).decode(errors="replace").strip()
