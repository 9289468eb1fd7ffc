"""How much one user may ask of a process, so that the others keep their speed. Runs in every process that is called.

Counted are those below admin: admins could end the process, and the account that runs a mesh asks much of itself.
Whoever asks more often than the limit waits for a moment, and is refused where that is not enough: a flood slows itself
down.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

from pyrokernel.errors import AccessRefusedError
from pyrokernel.roles import Role
from pyrokernel.settings import Settings
from pyrokernel.wire.trust import Peer

__all__ = ["LOOK_BYTES", "PATIENCE_SECONDS", "Limits", "Quota", "Turns"]

PATIENCE_SECONDS = 1.0
"""How long a request waits that came too early; one that would have to wait for longer is refused then."""

_USERS_OF_A_HOST = 16
"""A host speaks for all kernels of a machine and whoever uses them: it counts as so many users."""

HARDLY_SECONDS = 0.01
"""So early is whoever asks one thing after the other, as fast as they are answered: it is paced, also by a thread that
serves everybody."""

LOOK_BYTES = 1024 * 1024
"""Of events or values in one answer to somebody who may only look: each of their connections may leave one unread."""

HARDLY_ANYTHING_SECONDS = 0.0005
"""What takes no longer is looked at as often as the number of requests allows."""

_KNOWN_USERS = 10_000
"""Buckets that are kept; a full one is as good as none."""


@dataclasses.dataclass(frozen=True)
class Quota:
    """What a process gives. 0 is no limit.

    Attributes:
        connections: Open ones, of everybody.
        user_connections: Open ones of one user.
        user_requests: Requests of one user in a second.
    """

    connections: int = 4096
    user_connections: int = 256
    user_requests: float = 2000.0

    @classmethod
    def of(cls, settings: Settings) -> Quota:
        """Return what the settings say."""
        return cls(settings.max_connections, settings.user_connections, settings.user_requests)


class Limits:
    """Counts the connections and requests of each user; for any thread.

    Args:
        quota: What each gets.
        clock: Monotonic seconds.
    """

    def __init__(self, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        self.quota, self._clock = quota, clock
        self._lock = threading.Lock()
        self._connections: collections.Counter[str] = collections.Counter()
        self._buckets: dict[str, tuple[float, float]] = {}
        """By user the tokens that were left, below none where it is ahead of its time, and when that was."""

    def arrive(self, peer: Peer) -> None:
        """Count a connection.

        Raises:
            AccessRefusedError: It is one too many; it is not counted.
        """
        with self._lock:
            whose = peer.identity  # a host may have the name of a user
            count, most = self._connections[whose] + 1, self.quota.user_connections * _share(peer)
            if most and count > most and peer.role < Role.ADMIN:
                raise AccessRefusedError(
                    f"{peer.author} has {count - 1} connections to this process, and no {_kind(peer)} has more than "
                    f"{most} (setting user_connections): close some"
                )
            self._connections[whose] = count

    def leave(self, peer: Peer) -> None:
        """Count a connection no longer."""
        with self._lock:
            whose = peer.identity
            self._connections[whose] -= 1
            if self._connections[whose] <= 0:
                del self._connections[whose]

    def early(self, peer: Peer) -> float:
        """Count a request; return by how many seconds it came too early, 0.0 for not at all."""
        rate = self.quota.user_requests * _share(peer)
        if not rate or peer.role >= Role.ADMIN:
            return 0.0
        with self._lock:
            now = self._clock()
            left, since = self._buckets.get(peer.identity, (rate, now))
            left = min(rate, left + (now - since) * rate) - 1.0
            # Who is refused owes nothing for it, or a flood would go on for as long as it took.
            left = max(left, -rate * 2 * PATIENCE_SECONDS)
            self._buckets[peer.identity] = (left, now)
            if len(self._buckets) > _KNOWN_USERS:
                self._forget(now, rate)
            return -left / rate if left < 0 else 0.0

    def pace(self, peer: Peer) -> None:
        """Count a request, and wait with it for a moment if it came too early; in the main thread for next to none.

        Raises:
            AccessRefusedError: That is not enough, or the main thread serves it, which is there for everybody.
        """
        early = self.early(peer)
        if early <= 0:
            return
        if threading.current_thread() is threading.main_thread() and early > HARDLY_SECONDS:
            raise self.refusal(peer)
        time.sleep(min(early, PATIENCE_SECONDS))
        if early > PATIENCE_SECONDS:
            raise self.refusal(peer)

    def refusal(self, peer: Peer) -> AccessRefusedError:
        """Return the error of a user who asks too often."""
        return AccessRefusedError(
            f"{peer.author} asks this process for more than {self.quota.user_requests * _share(peer):g} things a "
            "second (setting user_requests): ask for several at once, or more slowly"
        )

    def _forget(self, now: float, rate: float) -> None:
        full = [user for user, (left, since) in self._buckets.items() if left + (now - since) * rate >= rate]
        for user in full:
            del self._buckets[user]


class Turns:
    """What those ask who may only look is done for one of them at a time, and for a quarter of it; for any thread.

    A hundred threads that look would take the processor, and Python's lock, from the one that works.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._turns: collections.defaultdict[str, threading.Lock] = collections.defaultdict(threading.Lock)

    @contextlib.contextmanager
    def of(self, peer: Peer) -> Iterator[None]:
        """Wait for the turn of a peer, and have it while its request is carried out; who may run code always has it."""
        if peer.may_run_code:
            yield
            return
        # One after the other of each certificate first: who has hundreds of connections waits for their own.
        with self._turns[peer.bearer], self._turn:
            begun = time.thread_time()
            try:
                yield
            finally:
                took = time.thread_time() - begun
                if took > HARDLY_ANYTHING_SECONDS:
                    time.sleep(min(3 * took, PATIENCE_SECONDS))


def _share(peer: Peer) -> int:
    return _USERS_OF_A_HOST if peer.kind == "host" else 1


def _kind(peer: Peer) -> str:
    return "host" if peer.kind == "host" else "user"
