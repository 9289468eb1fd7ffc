"""An event loop: descriptors, timers, and calls from other threads. Runs in the main thread of host and gateway.

It sleeps without a timeout when no timer is set, so an idle process costs nothing.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from pyrokernel.again import pipe_is_ready

log = logging.getLogger(__name__)

SOCKETS_ONLY = sys.platform == "win32"
"""Whether the system selects on nothing else."""

_PIPE_SECONDS = 0.02
"""How often pipes are looked at then."""

T = TypeVar("T")
Callback = Callable[[], object]


class HasFileno(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


class Timer:
    """A call in the future."""

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Let the time pass without the call."""
        self.callback = None


class Loop:
    """Runs callbacks in one thread; `call` and `submit` may be used from any other."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._calls: collections.deque[Callback] = collections.deque()
        # Not a pipe: Windows selects on sockets only, and its signals write to nothing else.
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._pipes: dict[int, Callback] = {}
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain)
        self._running = True
        self._closed = False
        self._earlier_handlers: dict[int, Any] = {}

    def watch(self, source: int | HasFileno, callback: Callback) -> None:
        """Call `callback` whenever a descriptor is readable."""
        if SOCKETS_ONLY and isinstance(source, int):
            self._pipes[source] = callback
            return
        self._selector.register(source, selectors.EVENT_READ, callback)

    def watch_for(self, source: int | HasFileno, events: int, callback: Callback) -> None:
        """Call `callback` whenever one of some events is there, and no longer for others; with 0 for none."""
        known = source in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(source)
        elif known:
            self._selector.modify(source, events, callback)
        else:
            self._selector.register(source, events, callback)

    def unwatch(self, source: int | HasFileno) -> None:
        """Stop watching; do so before the descriptor is closed."""
        if SOCKETS_ONLY and isinstance(source, int):
            del self._pipes[source]
            return
        self._selector.unregister(source)

    def after(self, seconds: float, callback: Callback) -> Timer:
        """Call `callback` once, that many seconds from now."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def call(self, callback: Callback) -> None:
        """Call `callback` in the loop's thread, soon (from any thread, or a signal handler)."""
        self._calls.append(callback)
        self._wake()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run `function` in the loop's thread, soon (from any thread); the future has its value or its exception."""
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(function())
            except Exception as error:  # noqa: BLE001 - it is the caller's, in another thread
                outcome.set_exception(error)

        self.call(run)
        return outcome

    def on_signal(self, number: int, callback: Callback) -> None:
        """Call `callback` in the loop after a signal; needs the process's main thread."""
        # The interpreter writes to this descriptor whichever thread the signal meets, and so ends the select.
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        earlier = signal.signal(number, lambda *_: self.call(callback))
        self._earlier_handlers.setdefault(number, earlier)

    def run(self) -> None:
        """Run until `stop`."""
        while self._running:
            for key, _ in self._selector.select(self._pause()):
                # An earlier callback of this round may have closed it; by number, for a closed file has none to ask.
                if self._selector.get_map().get(key.fd) is key:
                    self._guard(key.data)
            for descriptor, callback in list(self._pipes.items()):
                if descriptor in self._pipes and pipe_is_ready(descriptor, 0.0):
                    self._guard(callback)
            while self._timers and self._timers[0][0] <= time.monotonic():
                due = heapq.heappop(self._timers)[2].callback
                if due is not None:
                    self._guard(due)
            while self._calls and self._running:
                self._guard(self._calls.popleft())

    def stop(self) -> None:
        """Make `run` return (from any thread)."""
        self._running = False
        self._wake()

    def close(self) -> None:
        """Free the loop's descriptors and give signals back to their earlier handlers."""
        if self._earlier_handlers:
            signal.set_wakeup_fd(-1)
        for number, handler in self._earlier_handlers.items():
            signal.signal(number, handler)
        self._closed = True
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _pause(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if self._calls:
            return 0
        pause = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        return pause if not self._pipes else min(_PIPE_SECONDS, _PIPE_SECONDS if pause is None else pause)

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"\0")
        except BlockingIOError:
            return  # the pipe is full of wake-ups already
        except OSError:
            if not self._closed:
                raise
            # It has ended, say because another thread woke it first: nobody is left to be woken.

    def _drain(self) -> None:
        try:
            while self._wake_read.recv(4096):
                pass
        except BlockingIOError:
            return

    def _guard(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:
            # All kernels of a machine, or all who come from others, depend on this loop; a mistake in one callback must
            # not end it.
            log.exception("a callback of the loop failed")


def when_done(futures: Iterable[Future[Any]], callback: Callback) -> None:
    """Call `callback` once no future is pending any more, in the thread that completes the last."""
    pending = list(futures)
    left = len(pending)

    def one_done(_: Future[Any]) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            callback()

    if not pending:
        callback()
    for future in pending:
        future.add_done_callback(one_done)


def gather(futures: Iterable[Future[T]]) -> Future[list[T]]:
    """Return a future for all values in order; once all are done it fails if one did, with the first failure."""
    pending = list(futures)
    outcome: Future[list[T]] = Future()

    def all_done() -> None:
        error = next((future.exception() for future in pending if future.exception()), None)
        resolve(outcome, error if error is not None else [future.result() for future in pending])

    when_done(pending, all_done)
    return outcome


def resolve(future: Future[Any], value: Any) -> None:
    """Give a future its value, or its exception, unless it has one."""
    if future.done():
        return
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)
