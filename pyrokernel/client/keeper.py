"""Renews what must be renewed: leases of references, and whatever else ends by itself. Runs in the caller's process.

One thread for the whole process. It begins with the first thing that is kept, ends when nothing is,
and begins anew in a forked child for what is kept there. `hurry` may be called from a finalizer: it
takes no lock and does no I/O.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Hashable

log = logging.getLogger(__name__)

_BATCH_SECONDS = 0.05
"""How long `hurry` waits for others like it: a list of references is given back with one request."""

_REST_SECONDS = 3600.0
"""Longer waits are made of several: a lock takes no timeout of years."""

_AGAIN_SECONDS = 2.0
"""After how long a renewal that raised is tried again, at the latest."""


class _Kept:
    """One thing that is kept, and when it is due."""

    def __init__(self, renew: Callable[[], bool], every: float) -> None:
        self.renew, self.every = renew, every
        self.due = time.monotonic()


class Keeper:
    """Calls functions again and again, on a thread of its own; use `keep`, `drop` and `hurry` of this module."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._kept: dict[Hashable, _Kept] = {}
        self._thread: threading.Thread | None = None
        self._hurried: collections.deque[Hashable | Callable[[], object]] = collections.deque()
        # Held while nothing is to be noted. A finalizer may interrupt whatever this thread does with a Condition or an
        # Event, and would wait for itself; releasing a bare lock waits for nobody.
        self._rests = threading.Lock()
        self._rests.acquire()

    def keep(self, key: Hashable, renew: Callable[[], bool], every: float) -> None:
        """Call `renew` soon, and then again every so many seconds, until it returns False."""
        with self._lock:
            self._kept[key] = _Kept(renew, every)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pyrokernel-keeper", daemon=True)
                self._thread.start()
        self._wake()

    def drop(self, key: Hashable) -> bool:
        """Forget something; say whether it was kept."""
        with self._lock:
            return self._kept.pop(key, None) is not None

    def hurry(self, key: Hashable | Callable[[], object]) -> None:
        """Call a renewal soon, although it is not due; or a function, once."""
        self._hurried.append(key)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is awake already
            self._rests.release()

    def __len__(self) -> int:
        return len(self._kept)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._kept:
                    self._thread = None
                    return
                due = min(kept.due for kept in self._kept.values())
            self._rests.acquire(timeout=min(max(0.0, due - time.monotonic()), _REST_SECONDS))
            while self._hurried:
                hurried = self._hurried.popleft()
                if callable(hurried):
                    self._call(hurried)
                else:
                    self._note(hurried)
            self._renew_due()

    def _call(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001  nobody waits for it, and the thread has others to serve
            log.debug("%r failed: %s", function, error)

    def _note(self, key: Hashable) -> None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                kept.due = min(kept.due, time.monotonic() + _BATCH_SECONDS)

    def _renew_due(self) -> None:
        """Renew what is due, what has waited longest first: each may take its time."""
        now = time.monotonic()
        with self._lock:
            due = [(key, kept) for key, kept in self._kept.items() if kept.due <= now]
        due.sort(key=lambda one: one[1].due)
        for key, kept in due:
            kept.due = time.monotonic() + kept.every
            try:
                goes_on = kept.renew()
            except Exception as error:  # noqa: BLE001  whatever keeps it from being renewed may be over next time
                log.debug("renewing %r failed: %s; trying again", key, error)
                kept.due = time.monotonic() + min(kept.every, _AGAIN_SECONDS)
                continue
            if not goes_on:
                with self._lock:
                    if self._kept.get(key) is kept:  # else it was dropped, or is kept anew meanwhile
                        del self._kept[key]


_keeper = Keeper()


def _current() -> Keeper:
    """Return the keeper of this process: in a forked child the thread of the parent does not exist."""
    global _keeper
    if _keeper.pid != os.getpid():
        _keeper = Keeper()
    return _keeper


def keep(key: Hashable, renew: Callable[[], bool], every: float) -> None:
    """Call a function soon, and then again and again, on a thread of its own.

    Args:
        key: By which it is dropped; what was kept by the same key is replaced.
        renew: Returns False when it need not be called any more. What it raises is tried again within 2 s.
        every: Seconds between two calls.
    """
    _current().keep(key, renew, every)


def drop(key: Hashable) -> bool:
    """Stop calling what is kept by a key; say whether something was. A call that is under way ends first or later."""
    return _current().drop(key)


def hurry(key: Hashable) -> None:
    """Have what is kept by a key called within a fraction of a second. Any finalizer may call this."""
    keeper = _keeper
    if keeper.pid == os.getpid():
        keeper.hurry(key)


def soon(function: Callable[[], object]) -> None:
    """Have a function called once on the keeper's thread, if anything is kept. Any finalizer may call this."""
    keeper = _keeper
    if keeper.pid == os.getpid():
        keeper.hurry(function)
