"""A pseudo-terminal with a process in it. Runs in the test process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9]|[=>78])|[\x07\r]")


class Terminal:
    """Types keys into a process and waits for what it shows.

    Args:
        command: The process; it leads a session of its own, whose terminal this is.
        environ: Its environment.
        size: Rows and columns.
        feed: Also takes all that is shown, as it comes, escape sequences included: a terminal emulator may.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        size: tuple[int, int] = (40, 120),
        feed: Callable[[bytes], object] | None = None,
    ) -> None:
        self._feed = feed
        self._master, slave = pty.openpty()
        self.resize(*size)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            # No answer comes to cursor position requests here: prompt_toolkit is told not to ask.
            env={**environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
            start_new_session=True,
            # Of the new session's leader, the first terminal it opens becomes its own.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(slave)
        self.text = ""
        """All that was shown, without escape sequences."""
        self._raw = b""

    def type(self, keys: str) -> None:
        """Press keys."""
        self.send(keys.encode())

    def send(self, data: bytes) -> None:
        """Send what no keyboard would, such as bytes that are no text."""
        os.write(self._master, data)

    def enter(self, line: str) -> None:
        """Type a line, and Enter."""
        self.type(line + "\r")

    def tab(self, shown: str) -> str:
        """Press Tab until a text is shown: an answer that would come late does not come at all, and all may be slow.

        Returns:
            As `expect`.
        """
        for _ in range(10):
            self.type("\t")
            with contextlib.suppress(AssertionError):
                return self.expect(shown, timeout=2)
        raise AssertionError(f"Tab never showed {shown!r}; shown was:\n{self.text}")

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window, of which the process is told by a signal."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, shown: str, timeout: float = 10) -> str:
        """Wait until a text is shown, forget what came up to its end, and return that."""
        self.until(lambda: shown in self.text, shown, timeout)
        before, _, self.text = self.text.partition(shown)
        return before + shown

    def until(self, condition: Callable[[], object], wanted: str, timeout: float = 10) -> None:
        """Read what is shown until a condition holds.

        Args:
            condition: Of `text`, or of what `feed` made of it.
            wanted: What a failure says was not shown.
            timeout: Seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            self._read(deadline, wanted)

    def wait(self, timeout: float = 20) -> int:
        """Wait for the end of the process and return its exit code."""
        code = self.process.wait(timeout)
        while self._read_some(0.0):
            pass
        return code

    def close(self) -> None:
        """End the process, if it has not ended, and the terminal."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self, deadline: float, wanted: str) -> None:
        left = deadline - time.monotonic()
        assert left > 0, f"{wanted!r} was not shown; shown was:\n{self.text}"
        assert self._read_some(left) or self.process.poll() is None, (
            f"{wanted!r} was not shown before the end:\n{self.text}"
        )

    def _read_some(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        if self._feed is not None:
            self._feed(data)
        self._raw += data
        cut = self._raw.rfind(b"\x1b")
        # An escape sequence may be cut in two.
        whole, self._raw = (
            (self._raw[:cut], self._raw[cut:]) if cut >= len(self._raw) - 12 and cut >= 0 else (self._raw, b"")
        )
        if self._raw and _ESCAPES.match(self._raw.decode("utf-8", "replace")):
            whole, self._raw = whole + self._raw, b""
        self.text += _ESCAPES.sub("", whole.decode("utf-8", "replace"))
        return True
