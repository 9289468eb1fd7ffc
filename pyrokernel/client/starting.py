"""A host process on its way to be ready, lasting or private. Runs in the caller's process.

Imports next to nothing: the host is started first, and what its client needs is imported while it
starts, on another processor.
"""

from __future__ import annotations

import os
import time

from pyrokernel.again import Child, handed, pipe_is_ready, python_with, read_end, scratch_file, start_python

# As in `again`: what is imported here, the host waits for.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrokernel.messages import HostConfig


_END_SECONDS = 1.0
"""How long a process that has closed its end of the pipe may take until the system says that it has ended."""

_PRIVATE_END_SECONDS = 10.0
"""How long a private host and its kernels may take to end once their lifeline is closed: twice what a kernel may."""

_KILL_SECONDS = 5.0
"""How long the system may take to end a process that was killed."""


class StartingHost:
    """A host process in a session of its own, on its way to be ready; it waits to be told what to do.

    Args:
        detached: Whether it goes on without this client. It writes a log of its own then; another one
            complains where its client does.
        private: Whether it ends with this client.
        portable: As the setting, where that is known so early.

    Attributes:
        process: The process; None before it has begun.
        lifeline: The only writing end of a pipe: a private host ends when it closes, however that comes about;
            -1 for a lasting one.
    """

    def __init__(self, *, detached: bool = False, private: bool = False, portable: bool = False) -> None:
        self._private = private
        self._untold = True
        self._told = self._ready = self._complaints = self.lifeline = -1
        self.process: Child | None = None
        try:
            self._start(detached, portable)
        except BaseException:
            self.give_up()
            raise

    def _start(self, detached: bool, portable: bool) -> None:
        theirs: list[int] = []
        try:
            told_out, self._told = os.pipe()
            theirs.append(told_out)
            self._ready, ready_in = os.pipe()
            theirs.append(ready_in)
            if self._private:
                life_out, self.lifeline = os.pipe()
                theirs.append(life_out)
            self._complaints = scratch_file(portable=portable) if detached else -1
            self._numbers = [handed(one) for one in theirs[1:]]
            output = self._complaints if detached else None
            command = python_with("pyrokernel.host")
            self.process = Child(start_python(command, os.environ, stdin=told_out, output=output, passed=theirs[1:]))
        finally:
            # The numbers are the host's from now on; a copy here would keep it from seeing the end of ours.
            for descriptor in theirs:
                os.close(descriptor)

    def tell(self, config: HostConfig) -> None:
        """Let it begin.

        Args:
            config: What it is to do; the descriptors are filled in here.
        """
        import json

        ready, lifeline = (*self._numbers, -1)[:2]
        told = {**config.to_wire(), "ready_fd": ready, "lifeline_fd": lifeline}
        text = json.dumps(told).encode()
        try:
            while text:
                text = text[os.write(self._told, text) :]
            self._untold = False
        except BrokenPipeError:
            self._untold = False  # it has ended: `report` says so
        finally:
            self._close("_told")

    def report(self, timeout: float) -> dict[str, Any]:
        """Wait until it is ready, and return what it says.

        Args:
            timeout: Seconds.

        Returns:
            `ok` and what runs, or the error; `running` when there is a host already.

        Raises:
            HostError: It said nothing.
        """
        line = self._read_line(timeout)
        try:
            if line:
                import json

                said: dict[str, Any] = json.loads(line)
                return said
            assert self.process is not None
            ended = self.process.wait(_END_SECONDS)
            self.process.kill()
            self.process.wait(_KILL_SECONDS)
            what = f"was not ready within {timeout:g} s" if ended is None else f"ended at its start with code {ended}"
            tail = read_end(self._complaints, 2000) if self._complaints >= 0 else ""
        finally:
            self._close("_ready", "_complaints")
        from pyrokernel.errors import HostError

        raise HostError(f"the host {what}" + (f"; it said:\n{tail}" if tail else ""))

    def give_up(self) -> None:
        """Let go of it. A private host, and any that was not told what to do, has ended on return.

        May be called again, as after an interrupt.
        """
        self.let_go()
        if self.process is None or not (self._untold or self._private):
            return
        if self._untold or self.process.wait(_PRIVATE_END_SECONDS) is None:
            self.process.kill()
            self.process.wait(_KILL_SECONDS)

    def let_go(self) -> None:
        """Close what this process has open of it."""
        self._close("_told", "_ready", "lifeline", "_complaints")

    def _read_line(self, timeout: float) -> bytes:
        """Read until a newline or the end, or the time has passed."""
        deadline, line = time.monotonic() + timeout, b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not pipe_is_ready(self._ready, left):
                break
            piece = os.read(self._ready, 65536)
            if not piece:
                break
            line += piece
        return line

    def _close(self, *names: str) -> None:
        for name in names:
            descriptor = getattr(self, name)
            if descriptor >= 0:
                setattr(self, name, -1)
                os.close(descriptor)
