"""A host process on its way to be ready, lasting or private. Runs in the caller's process.

Imports next to nothing: the host is started first, and what its client needs is imported while it
starts, on another processor.
"""

from __future__ import annotations

import os
import select
import time

from pyrokernel.again import Child, python_with, read_end, scratch_file, start_python

# As in `again`: what is imported here, the host waits for.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrokernel.messages import HostConfig


_END_SECONDS = 1.0
"""How long a process that has closed its end of the pipe may take until the system says that it has ended."""

_KILL_SECONDS = 5.0
"""How long the system may take to end a process that was killed."""


class StartingHost:
    """A host process in a session of its own, on its way to be ready; it waits to be told what to do.

    Args:
        detached: Whether it goes on without this client. It writes a log of its own then; another one
            complains where its client does.
        private: Whether it ends with this client.

    Attributes:
        process: The process.
        lifeline: The only writing end of a pipe: a private host ends when it closes, however that comes about;
            -1 for a lasting one.
    """

    def __init__(self, *, detached: bool = False, private: bool = False) -> None:
        told_out, self._told = os.pipe()
        self._ready, self._ready_in = os.pipe()
        self._life_out, self.lifeline = os.pipe() if private else (-1, -1)
        self._complaints = scratch_file() if detached else -1
        passed = [self._ready_in, *([self._life_out] if private else ())]
        output = self._complaints if detached else None
        try:
            self.process = Child(
                start_python(python_with("pyrokernel.host"), os.environ, stdin=told_out, output=output, passed=passed)
            )
        except BaseException:
            self._close("_told", "_ready", "lifeline", "_complaints")
            raise
        finally:
            # The numbers are the host's from now on; a copy here would keep it from seeing the end of ours.
            os.close(told_out)
            for descriptor in passed:
                os.close(descriptor)

    def tell(self, config: HostConfig) -> None:
        """Let it begin.

        Args:
            config: What it is to do; the descriptors are filled in here.
        """
        import json

        told = {**config.to_wire(), "ready_fd": self._ready_in, "lifeline_fd": self._life_out}
        text = json.dumps(told).encode()
        try:
            while text:
                text = text[os.write(self._told, text) :]
        except BrokenPipeError:
            pass  # it has ended: `report` says so
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
        """Let go of it: a private host ends, and so does any that was not told what to do."""
        untold = self._told >= 0
        self._close("_told", "_ready", "lifeline", "_complaints")
        if untold:
            self.process.kill()
            self.process.wait(_KILL_SECONDS)

    def _read_line(self, timeout: float) -> bytes:
        """Read until a newline or the end, or the time has passed."""
        deadline, line = time.monotonic() + timeout, b""
        poller = select.poll()
        poller.register(self._ready, select.POLLIN)
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1e3):
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
