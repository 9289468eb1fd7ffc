"""Starting this interpreter anew with this very package. Runs in clients and in the host process.

Imports next to nothing: a client starts a host, and a host its template, before they import
anything else, so that both sides load at the same time.
"""

from __future__ import annotations

import os
import select
import sys
import time

# Type checkers know this name; importing it from `typing` would take longer than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CAN_FORK = sys.platform == "linux"
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
        passed: Descriptors that keep their numbers.

    Raises:
        OSError: The system gives no more processes, or the interpreter is gone.
    """
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


def keep_open(*kept: int) -> None:
    """Close all descriptors but 0, 1, 2 and these: what this process was handed down by chance, others may wait for.

    A test runner that has a pipe open as 3 would wait for its end as long as a detached host lives.
    """
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
            from signal import SIGKILL  # with `enum`, 5 ms

            try:
                os.kill(self.pid, SIGKILL)
            except ProcessLookupError:
                return  # it has ended just now, and was collected by others

    def _look(self) -> int | None:
        if self.code is None:
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
            poller = select.poll()
            poller.register(watch, select.POLLIN)
            poller.poll(timeout * 1e3)
        finally:
            os.close(watch)


def scratch_file() -> int:
    """Return the descriptor of an empty file without a name."""
    if CAN_FORK:
        return os.memfd_create("pyrokernel")
    import tempfile  # 5 ms that Linux does not pay

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def read_end(descriptor: int, max_bytes: int = 4096) -> str:
    """Return the end of a scratch file as text, wherever its writers are."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, max_bytes, max(0, size - max_bytes)).decode(errors="replace").strip()
