"""What a client holds of one kernel: the references to renew and to give back. Runs in the caller's process.

All references of a client to one life of a kernel are renewed with one request. A `Reference` that is
collected gives its token back without doing I/O: the keeper's thread does that a moment later.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from pyrokernel.client import keeper
from pyrokernel.errors import KernelDiedError, KernelRestartedError, ReferenceGoneError
from pyrokernel.messages import LEASE_SECONDS

RENEW_SECONDS = LEASE_SECONDS / 3

PATIENCE_SECONDS = 1.0
"""How long a renewal waits for a kernel, which is asked again soon: one thread renews what all of them have lent."""

Ask: TypeAlias = Callable[..., Any]


class Holding:
    """The references of one client to one life of a kernel.

    Args:
        key: What they are kept by.
        ask: Calls a method of the kernel: its name, and what it takes before the id of the client.
    """

    def __init__(self, key: tuple[str, ...], ask: Ask) -> None:
        self.key = key
        self._ask = ask
        self._counts: collections.Counter[str] = collections.Counter()
        self._times: dict[str, int] = {}
        self._changes: collections.deque[tuple[str, int, int, bool]] = collections.deque()
        self._owed: dict[str, bool] = {}
        self._parked: dict[str, float] = {}
        self._kept = False
        self._renewed = time.monotonic()

    def take(self, token: str, times: int, *, leased: bool) -> None:
        """Hold a reference; one that was just lent is renewed in its time, another at once."""
        self._changes.append((token, 1, times, False))
        if not self._kept:
            self._kept = True
            keeper.keep(self.key, self._look, RENEW_SECONDS)
        elif not leased:
            keeper.hurry(self.key)

    def give(self, token: str, parked: bool) -> None:
        """Let go of a reference; a finalizer may call this.

        Args:
            token: Which.
            parked: It was pickled, and may be on its way: its lease is renewed once more and runs out.
        """
        self._changes.append((token, -1, 0, parked))
        keeper.hurry(self.key)

    def forget(self) -> None:
        """Stop renewing: the mesh was closed, and the leases run out."""
        self._kept = False
        self._forget_times()
        keeper.drop(self.key)

    def _look(self) -> bool:
        """Tell the kernel what is held, and what is not any more; the keeper calls this."""
        self._count()
        # What is on its way is held by nobody for a moment: its lease has to outlive that.
        back = {token: self._times.pop(token, 0) for token, parked in self._owed.items() if not parked}
        held = [*self._counts, *(token for token, parked in self._owed.items() if parked)]
        try:
            if held:
                self._ask("renew", held, LEASE_SECONDS)
            if back:
                self._ask("give_back", back)
        except (KernelDiedError, KernelRestartedError, ReferenceGoneError):
            self._kept = False
            self._forget_times()
            return False  # that life of the kernel is over, and with it all that it lent
        except Exception:
            self._times |= back
            if time.monotonic() - self._renewed < 2 * LEASE_SECONDS:
                raise  # the keeper tries again
            self._kept = False
            self._forget_times()
            return False  # the leases have run out long since
        self._renewed = time.monotonic()
        self._parked |= {token: self._renewed for token, parked in self._owed.items() if parked}
        self._owed.clear()
        if self._counts:
            return True
        self._kept = False
        if self._changes:  # by somebody who believed that it was kept still
            self._kept = True
        return self._kept

    def _forget_times(self) -> None:
        """Forget how often things were lent that are held no more."""
        self._times = {token: times for token, times in self._times.items() if token in self._counts}
        self._parked.clear()

    def _count(self) -> None:
        """Take note of what was taken and given."""
        # What was pickled and did not come back within its lease is over, and would be lent anew.
        over = time.monotonic() - LEASE_SECONDS
        for token in [token for token, since in self._parked.items() if since < over]:
            del self._parked[token]
            self._times.pop(token, None)
        while self._changes:
            token, change, times, parked = self._changes.popleft()
            self._counts[token] += change
            self._times[token] = max(self._times.get(token, 0), times)
            if self._counts[token] > 0:
                self._owed.pop(token, None)
                self._parked.pop(token, None)
            else:
                del self._counts[token]
                self._owed[token] = self._owed.get(token, False) or parked
