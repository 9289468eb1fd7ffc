"""input() in a cell, answered by the front end that is attached. Runs in the kernel process."""

from __future__ import annotations

import builtins
import getpass
import io
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pyrokernel.errors import CellNotFoundError, InputUnavailableError
from pyrokernel.messages import new_id

_ATTACH_GRACE_SECONDS = 5.0
"""How long after the last sign of a front end it still counts: it may be between two polls."""


class Inputs:
    """Asks for a line through the journal and waits for its answer.

    Args:
        ask: Called with request id, prompt and password flag; reports the question to front ends.
        timeout: Seconds to wait for the answer.
    """

    def __init__(self, ask: Callable[[str, str, bool], None], timeout: float) -> None:
        self._ask = ask
        self._timeout = timeout
        self._changed = threading.Condition()
        self._request = ""
        self._answer: tuple[str | None] | None = None
        self._attached_until = 0.0

    def install(self) -> None:
        """Replace `input`, `getpass.getpass` and `sys.stdin`."""
        builtins.input = self.read
        getpass.getpass = self.read_password
        sys.stdin = _Stdin(self)

    def attach(self, seconds: float) -> None:
        """Note that a front end that can answer is there for so many seconds from now."""
        with self._changed:
            until = time.monotonic() + seconds + _ATTACH_GRACE_SECONDS
            self._attached_until = max(self._attached_until, until)

    def read(self, prompt: object = "", /) -> str:
        """Stand in for `input`."""
        return self._read(str(prompt), password=False)

    def read_password(self, prompt: str = "Password: ", stream: Any = None) -> str:
        """Stand in for `getpass.getpass`."""
        return self._read(prompt, password=True)

    def answer(self, request: str, text: str | None) -> None:
        """Give the answer to a question; None is the end of input, which input() reports as EOFError.

        Raises:
            CellNotFoundError: The question is not open (any more).
        """
        with self._changed:
            if request != self._request or self._answer is not None:
                raise CellNotFoundError(f"question {request} is not open: it was answered, or its cell has ended")
            self._answer = (text,)
            self._changed.notify_all()

    def _read(self, prompt: str, *, password: bool) -> str:
        sys.stdout.flush()
        with self._changed:
            if time.monotonic() > self._attached_until:
                raise InputUnavailableError(
                    f"input({prompt!r}) needs a front end to answer it and none is attached; "
                    "run the cell from a shell, follow it with one, or pass the value with push()"
                )
            self._request, self._answer = new_id(), None
        try:
            self._ask(self._request, prompt, password)
            with self._changed:
                answer = self._changed.wait_for(lambda: self._answer, self._timeout)
            if answer is None:
                raise InputUnavailableError(f"nobody answered input({prompt!r}) within {self._timeout:g} s")
            if answer[0] is None:
                raise EOFError("the front end answered input() with the end of its input")
            return answer[0]
        finally:
            with self._changed:
                self._request, self._answer = "", None


class _Stdin(io.TextIOBase):
    """What `sys.stdin` is in a kernel: each line is asked for (pdb reads it so)."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs

    def readable(self) -> bool:
        return True

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]  # the base says bytes or str
        try:
            return self._inputs.read("") + "\n"
        except InputUnavailableError:
            raise
        except EOFError:
            return ""  # what a file says at its end

    def read(self, size: int | None = -1, /) -> str:
        return self.readline()

    def isatty(self) -> bool:
        return False
