"""Signal handlers of the user's: run when their code runs, or when nothing does. Runs in the kernel process.

Python runs a handler between any two instructions of the main thread, also those of the
kernel itself, and what it raises comes out there: with a lock held, a reply half written.
So `signal.signal` is replaced. A handler of the user's that strikes while their own code
runs goes off as ever; one that strikes in the kernel's waits for the next cell or the
next moment of rest.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], Any]

_signal, _getsignal = signal.signal, signal.getsignal


class Handlers:
    """Stands between the signals and the handlers of user code.

    Args:
        armed: Whether user code runs in the main thread.
        postpone: Is asked, with what a handler raised and the interrupted frame, whether it will raise that itself
            a moment later, because its own state would be left half changed.
        wake: Lets the main thread call `run_waiting` when it rests.
    """

    def __init__(
        self,
        armed: Callable[[], bool],
        postpone: Callable[[BaseException, FrameType | None], bool],
        wake: Callable[[], None],
    ) -> None:
        self._armed = armed
        self._postpone = postpone
        self._wake = wake
        self._waiting: deque[tuple[Handler, int]] = deque()

    def install(self) -> None:
        """Replace `signal.signal` and `signal.getsignal`."""
        signal.signal = self._set  # type: ignore[assignment]  # the stub gives its parameters names
        signal.getsignal = lambda signalnum: _unwrapped(_getsignal(signalnum))

    def run_waiting(self, run: Callable[[Callable[[], Any]], None]) -> None:
        """Run the handlers that struck at a bad moment.

        Args:
            run: Runs one as user code, and deals with what it raises.
        """
        while self._waiting:
            handler, signum = self._waiting.popleft()
            run(lambda: handler(signum, None))  # noqa: B023  called at once

    def strike(self, handler: Handler, signum: int, frame: FrameType | None) -> None:
        """Run a handler now, or note that it has to be run."""
        if not self._armed():
            self._waiting.append((handler, signum))
            self._wake()
            return
        try:
            handler(signum, frame)
        except BaseException as error:
            if not self._postpone(error, frame):
                raise

    def _set(self, signalnum: Any, handler: Any, /) -> Any:
        """Stand in for `signal.signal`."""
        return _unwrapped(_signal(signalnum, _Wrapped(self, handler) if callable(handler) else handler))


class _Wrapped:
    """A handler of the user's, as the interpreter knows it."""

    def __init__(self, owner: Handlers, handler: Handler) -> None:
        self._owner = owner
        self.handler = handler

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self._owner.strike(self.handler, signum, frame)


def _unwrapped(handler: Any) -> Any:
    return handler.handler if isinstance(handler, _Wrapped) else handler
