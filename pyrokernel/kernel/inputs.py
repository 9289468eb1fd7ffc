"""input() in a cell, answered by a front end that is attached to it. Runs in the kernel process."""

from __future__ import annotations

import builtins
import dataclasses
import getpass
import io
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from pyrokernel.errors import CellNotFoundError, InputUnavailableError
from pyrokernel.kernel.attachments import BUSY_SECONDS, LOOK_SECONDS, Attachments, has_hung_up
from pyrokernel.messages import Event, new_id

_HOW_TO_ATTACH = (
    "run the cell from `pyrokernel shell` or `pyrokernel run`, follow it with stdin=True, or set the value with push()"
)


@dataclasses.dataclass(eq=False)
class _Question:
    """One call of input() that waits.

    Attributes:
        cell: Which cell it belongs to, "" for none.
        answers: Where the answer goes. A queue in C: an interrupt leaves no lock of it held, and no frame.
        asking: Connections of front ends that were given it, or what came before or after, and may be asking a person.
        shown: Whether there ever was one.
    """

    cell: str
    prompt: str
    password: bool
    request: str = dataclasses.field(default_factory=new_id)
    answers: queue.SimpleQueue[str | None] = dataclasses.field(default_factory=queue.SimpleQueue)
    answered: bool = False
    asking: set[socket.socket] = dataclasses.field(default_factory=set)
    shown: bool = False


class Inputs:
    """Asks for lines through the journal and waits for the answers.

    Args:
        ask: Called with cell, request id, prompt and password flag; reports the question to front ends.
        running: Tells the id of the cell that runs, "" for none.
        timeout: Seconds to wait for an answer.
        attachments: Who would answer.
    """

    def __init__(
        self,
        ask: Callable[[str, str, str, bool], None],
        running: Callable[[], str],
        timeout: float,
        attachments: Attachments | None = None,
    ) -> None:
        self._ask = ask
        self._running = running
        self._timeout = timeout
        self._attachments = Attachments() if attachments is None else attachments
        self._open: dict[str, _Question] = {}
        self._answering = threading.Lock()

    def install(self) -> None:
        """Replace `input`, `getpass.getpass` and `sys.stdin`."""
        builtins.input = self.read
        getpass.getpass = self.read_password
        sys.stdin = _Stdin(self)

    def expect(self, cell: str, sock: socket.socket) -> None:
        """Note that a cell was sent by a front end that is about to follow it."""
        self._attachments.attach(cell, sock, self._attachments.grace)

    def renew(self, cell: str, sock: socket.socket) -> None:
        """Note that such a cell starts only now: whoever sent it may have waited with following until it does."""
        if not has_hung_up(sock):
            self.expect(cell, sock)

    def begin_follow(self, cell: str, sock: socket.socket) -> None:
        """Note that a front end that can answer waits for events of a cell, "" for all."""
        self._attachments.attach(cell, sock)
        for question in list(self._open.values()):
            question.asking.discard(sock)  # it goes on polling while it asks

    def end_follow(self, cell: str, sock: socket.socket, events: Sequence[Event]) -> None:
        """Note what that front end is given; while a question is open, it may be busy with that to no end."""
        if events:
            for question in list(self._open.values()):
                if cell in ("", question.cell):
                    question.asking.add(sock)
                    question.shown = True
        self._attachments.detach(cell, sock, BUSY_SECONDS if events else self._attachments.grace)

    def asks(self, cell: str) -> dict[str, Any] | None:
        """Return the newest question that a cell waits for: request, prompt, password; None if there is none."""
        for question in reversed(list(self._open.values())):
            if question.cell == cell and not question.answered:
                return {"request": question.request, "prompt": question.prompt, "password": question.password}
        return None

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
        with self._answering:
            question = self._open.get(request)
            if question is None or question.answered:
                raise CellNotFoundError(f"question {request} is not open: it was answered, or its cell has ended")
            question.answered = True
            question.answers.put(text)

    def _read(self, prompt: str, *, password: bool) -> str:
        try:
            answer = self._put(_Question(self._running(), prompt, password))
        except KeyboardInterrupt as error:
            # What was going on beneath input() is none of the user's business.
            raise error.with_traceback(None) from None
        if answer is None:
            raise EOFError("the front end answered input() with the end of its input")
        return answer

    def _put(self, question: _Question) -> str | None:
        """Put a question to the front ends and return the answer."""
        sys.stdout.flush()
        if not self._attachments.has(question.cell):
            raise InputUnavailableError(
                f"input({question.prompt!r}) needs a front end to answer it and none is attached to this cell; "
                + _HOW_TO_ATTACH
            )
        try:
            self._open[question.request] = question
            self._ask(question.cell, question.request, question.prompt, question.password)
            return self._await(question)
        finally:
            self._open.pop(question.request, None)

    def _await(self, question: _Question) -> str | None:
        """Wait for the answer as long as anybody might give one."""
        deadline = time.monotonic() + self._timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                return question.answers.get(timeout=min(left, LOOK_SECONDS, self._attachments.grace))
            except queue.Empty:
                if not left:
                    break
                if not self._is_attended(question):
                    raise InputUnavailableError(self._describe_loss(question)) from None
        raise InputUnavailableError(f"nobody answered input({question.prompt!r}) within {self._timeout:g} s")

    def _is_attended(self, question: _Question) -> bool:
        for sock in list(question.asking):
            if has_hung_up(sock):
                question.asking.discard(sock)
                self._attachments.linger(question.cell)
        return bool(question.asking) or self._attachments.has(question.cell)

    def _describe_loss(self, question: _Question) -> str:
        if question.shown or self._attachments.has_lost(question.cell):
            return f"the front end that was to answer input({question.prompt!r}) went away"
        return f"no front end came to answer input({question.prompt!r}) of this cell; {_HOW_TO_ATTACH}"


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
