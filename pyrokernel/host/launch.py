"""One kernel on its way to ready. Runs in the host process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

from pyrokernel.again import pipe_is_ready, read_end, scratch_file
from pyrokernel.loop import Loop
from pyrokernel.messages import KernelBirth


class Launch:
    """One kernel on its way to ready.

    Args:
        loop: Where its report is awaited.
        birth: What the kernel is given.
        on_born: Called with the process id, once.
        on_ready: Called with the kernel's report, at most once.
        on_unborn: Called with an error when no process came of it.
        portable: As the setting.

    Attributes:
        tries: How often a process was asked for.
        over: Whether nobody waits for one any more.
        last_words: What the template that died last had written, as the end of a sentence.
    """

    def __init__(
        self,
        loop: Loop,
        birth: KernelBirth,
        *,
        on_born: Callable[[int], None],
        on_ready: Callable[[dict[str, Any]], None],
        on_unborn: Callable[[Exception], None],
        portable: bool = False,
    ) -> None:
        self.birth = birth
        self.tries = 0
        self.over = False
        self.last_words = ""
        self._loop = loop
        self._on_born = on_born
        self._on_ready = on_ready
        self._on_unborn = on_unborn
        self._output = scratch_file(portable=portable)
        self._ready_read = self._ready_write = -1
        self._report = b""
        self._born = False
        self._retry: Callable[[Launch], None] | None = None

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules to import before the kernel runs."""
        return tuple(self.birth.spec.get("preload") or ())

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables of its own."""
        return dict(self.birth.spec.get("env") or {})

    def open(self) -> list[int]:
        """Return the descriptors for the new process: for its output, its report, and its lifeline if it has one."""
        self.tries += 1
        self._ready_read, self._ready_write = os.pipe()
        lifeline = [self.birth.lifeline_fd] if self.birth.lifeline_fd >= 0 else []
        return [self._output, self._ready_write, *lifeline]

    def handed_over(self) -> None:
        """Await the report; from now on its end of file means that no process has it open."""
        os.close(self._ready_write)
        self._loop.watch(self._ready_read, self._on_readable)

    def born(self, pid: int) -> None:
        """Take note of the process."""
        if not self._born:
            self._born = True
            self._on_born(pid)

    def failed(self, error: Exception) -> None:
        """Give up: there is no process."""
        self.over = True
        self.close()
        self._on_unborn(error)

    def lost(self, retry: Callable[[Launch], None]) -> None:
        """Try again unless there is a process: the template died without a word, but the report's descriptor tells."""
        if self._born:
            return
        self._retry = retry
        if self._ready_read < 0:
            retry(self)

    def output(self) -> str:
        """Return the end of what the process wrote before its journal took over."""
        return read_end(self._output) if self._output >= 0 else ""

    def close(self) -> None:
        """Free the descriptors."""
        self._close_report()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    def take_report(self) -> None:
        """Read a report that has come and that the loop has not looked at yet: whoever sent it may have ended since."""
        while self._ready_read >= 0 and pipe_is_ready(self._ready_read, 0.0):
            self._on_readable()

    def _on_readable(self) -> None:
        data = os.read(self._ready_read, 65536)
        self._report += data
        if b"\n" in self._report:
            self._close_report()
            report = json.loads(self._report.partition(b"\n")[0])
            if "pid" in report:  # quicker than the template's own word
                self.born(int(report["pid"]))
            self._on_ready(report)
        elif not data:
            self._close_report()
            if self._retry is not None and not self._born:
                self._retry(self)

    def _close_report(self) -> None:
        if self._ready_read >= 0:
            with contextlib.suppress(KeyError):  # not handed over yet
                self._loop.unwatch(self._ready_read)
            os.close(self._ready_read)
            self._ready_read = -1
