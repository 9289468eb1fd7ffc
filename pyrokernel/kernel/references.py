"""The references of a kernel: which objects are lent, to whom, by what rules, until when. Runs in the kernel process.

A table from tokens, which nobody can guess, to objects. Each entry lives while a client renews its
lease, while it is pinned under a name, or, mailed as a URL, until it expires. A thread that exists
while there are entries lets go of what is due; the objects themselves are handed to the main thread,
because that is where their `__del__` belongs. Pure: no sockets.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import hashlib
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyrokernel.errors import ReferenceGoneError, SettingsError
from pyrokernel.kernel.restrictions import Rules
from pyrokernel.messages import LEASE_SECONDS, PUBLISHED_OBJECT, Lent, RefInfo
from pyrokernel.wire.trust import shown_identity

MAX_LEASE_SECONDS = 3600.0
"""A client that asks for more gets this: what it forgot would stay for longer than anybody means."""

STALL_SECONDS = 5.0

_TOKEN_BYTES = 18
"""144 bits; the text has no character that a URL would have to quote."""

_REMEMBERED = 4096
"""Entries of which it is known how they ended, so that their users are told."""


@dataclasses.dataclass(eq=False)
class Entry:
    """One object that is lent.

    Attributes:
        token: What reaches it.
        value: The object; None once the entry is gone.
        kind: "handle", "url" or "published".
        shown: How it reads.
        by: Identity of who made it.
        created: Unix time in seconds.
        expires: Monotonic moment at which it ends whatever happens; infinite for never.
        rules: What may be reached of it; None for everything.
        root: Token of the URL that it was reached by, and with which it is revoked; "" for none.
        holders: By client, until when (monotonic) it holds the entry.
        times: By client, how often it was lent to it.
        pins: Names under which it is kept.
        uses: How many operations went through it.
        gone: Why it ended, "" while it lives; who reads anything without the lock looks at this afterwards.
    """

    token: str
    value: Any
    kind: str
    shown: str
    by: str
    created: float
    expires: float = math.inf
    rules: Rules | None = None
    root: str = ""
    holders: dict[str, float] = dataclasses.field(default_factory=dict)
    times: dict[str, int] = dataclasses.field(default_factory=dict)
    pins: set[str] = dataclasses.field(default_factory=set)
    uses: int = 0
    gone: str = ""

    @property
    def id(self) -> str:
        """What lists show, and `revoke` takes; the token cannot be told from it."""
        return public_id(self.token)

    @property
    def lasts(self) -> bool:
        """Whether it stays although nobody renews it."""
        return self.kind != "handle" or bool(self.pins)

    @property
    def until(self) -> float:
        """The moment at which it ends unless something is done."""
        leased = math.inf if self.lasts else max(self.holders.values(), default=-math.inf)
        return min(self.expires, leased)

    def lent(self, member: str = "", holder: str = "") -> Lent:
        """Return what a client is told of it, or of a method of it."""
        return Lent(
            token=self.token,
            member=member,
            shown=f"{self.shown}.{member}" if member else self.shown,
            type=type(self.value).__name__,
            restricted=self.rules is not None,
            lease=LEASE_SECONDS if self.kind == "handle" else 0.0,
            times=self.times.get(holder, 0),
        )


class References:
    """The table.

    Args:
        kernel, instance: Whose it is, for errors.
        dropped: Told, on any thread, that `bury` has something to do.
        clock: Monotonic seconds.
        stall: What is due for so many seconds was not seen to because the whole process stood still, as in a long C
            call or stopped by a signal: then its holders could not renew either, and get the time to do so.
    """

    def __init__(
        self,
        kernel: str,
        instance: str,
        dropped: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        stall: float = STALL_SECONDS,
    ) -> None:
        self.kernel, self.instance, self._stall = kernel, instance, stall
        self._dropped, self._clock = dropped, clock
        self._lock = threading.RLock()  # entered, and not the condition: as in `yielding`
        self._changed = threading.Condition(self._lock)
        self._entries: dict[str, Entry] = {}
        self._by_object: dict[tuple[int, str], str] = {}
        self._ended: dict[str, str] = {}
        self._remains: collections.deque[Any] = collections.deque()
        self._sweeping = False

    def __len__(self) -> int:
        with self._lock:
            self._sweep()
            return len(self._entries)

    def lend(self, value: Any, *, shown: str, holder: str, by: str = "", under: Entry | None = None) -> Lent:
        """Lend an object to a client: by a new entry unless the same object is lent by the same rules.

        Args:
            value: The object.
            shown: How it reads.
            holder: Id of the client, which has to renew it.
            by: Identity of who asked for it.
            under: The entry that it was reached by; what is restricted stays so.

        Raises:
            ReferenceGoneError: What it was reached by has ended meanwhile.
        """
        with self._lock:
            self._sweep()
            if under is not None and under.gone:
                raise self.gone(under.gone)
            rules = under.rules if under is not None else None
            root = "" if rules is None or under is None else under.root or under.token
            entry = self._entries.get(self._by_object.get((id(value), root), ""))
            if entry is None:
                entry = Entry(_new_token(), value, "handle", shown, by, time.time(), rules=rules, root=root)
                if under is not None and rules is not None:
                    entry.expires = under.expires
                    entry.rules = rules.beyond()
                self._add(entry, root)
            return self._lend_to(entry, holder)

    def lend_again(self, entry: Entry, holder: str) -> Lent:
        """Lend what an entry leads to once more, as when a method returns its own object.

        Raises:
            ReferenceGoneError: The entry has ended meanwhile.
        """
        with self._lock:
            if entry.gone:
                raise self.gone(entry.gone)
            return self._lend_to(entry, holder)

    def _lend_to(self, entry: Entry, holder: str) -> Lent:
        entry.times[holder] = entry.times.get(holder, 0) + 1
        entry.holders[holder] = max(entry.holders.get(holder, 0.0), self._clock() + LEASE_SECONDS)
        return entry.lent(holder=holder)

    def share(self, token: str, *, seconds: float, exposed: bool, by: str = "") -> Entry:
        """Make a restricted entry of an object, for a URL.

        Args:
            token: What is shared.
            seconds: How long; infinite for as long as the kernel lives.
            exposed: Only what is marked as exposed is reached.
            by: Identity of who asked for it.

        Raises:
            ReferenceGoneError: There is no such entry.
            SettingsError: It is restricted itself, or nothing of it could be reached.
        """
        if not seconds > 0:
            raise SettingsError(f"a URL expires after more than 0 s, not {seconds:g}")
        source = self.find(token)
        value, rules = source.value, source.rules
        if source.gone:
            raise self.gone(source.gone)
        if rules is not None:
            raise SettingsError("what came by a URL cannot be mailed on by another; mail the URL itself")
        entry = Entry(_new_token(), value, "url", source.shown, by, time.time(), rules=Rules(value, exposed=exposed))
        with self._lock:
            entry.expires = self._clock() + seconds
            self._add(entry)
        return entry

    def publish(self, name: str, value: Any, by: str = "") -> Entry:
        """Make an entry that everybody reaches by a name: only what is marked as exposed.

        Raises:
            SettingsError: Nothing of it is, or the name is in use here.
        """
        token = PUBLISHED_OBJECT + name
        entry = Entry(token, value, "published", name, by, time.time(), rules=Rules(value, exposed=True))
        with self._lock:
            if token in self._entries:
                raise SettingsError(f"this kernel has published {name!r} already; unpublish({name!r}) first")
            self._add(entry)
        return entry

    def find(self, token: str) -> Entry:
        """Return a living entry.

        Raises:
            ReferenceGoneError: There is none; the reason says how it ended, as far as that is known.
        """
        with self._lock:
            self._sweep()
            entry = self._entries.get(token)
            if entry is None:
                raise self.gone(self._ended.get(public_id(token), "this instance of the kernel has lent nothing by it"))
            return entry

    def own(self, token: str, member: str) -> Any:
        """Return the object itself, or its method: what a reference means that has come back to its kernel.

        Raises:
            ReferenceGoneError: There is no such entry.
        """
        entry = self.find(token)
        value = entry.value
        if entry.gone:
            raise self.gone(entry.gone)
        return getattr(value, member) if member else value

    def gone(self, reason: str) -> ReferenceGoneError:
        """Return the error of an entry that has ended."""
        return ReferenceGoneError(kernel=self.kernel, instance=self.instance, reason=reason)

    def renew(self, tokens: Sequence[str], seconds: float, holder: str) -> list[bool]:
        """Hold entries for a client for some seconds from now; say of each whether it lives."""
        seconds = min(seconds, MAX_LEASE_SECONDS)
        with self._lock:
            self._sweep()
            found = []
            for token in tokens:
                entry = self._entries.get(token)
                found.append(entry is not None)
                if entry is not None:
                    entry.holders[holder] = max(entry.holders.get(holder, 0.0), self._clock() + seconds)
            self._changed.notify_all()
            return found

    def give_back(self, tokens: Mapping[str, int], holder: str) -> None:
        """End what a client holds; what nobody else does ends at once.

        Args:
            tokens: With each how often it had been lent, as far as the client knew: one that was lent again since,
                by an answer on its way, stays.
            holder: The client.
        """
        with self._lock:
            self._sweep()
            for token, times in tokens.items():
                entry = self._entries.get(token)
                if entry is None or entry.times.get(holder, 0) > times:
                    continue
                entry.holders.pop(holder, None)
                entry.times.pop(holder, None)
                if not entry.holders and not entry.lasts:
                    self._end(entry, "it was released")

    def pin(self, token: str, name: str) -> None:
        """Keep an entry under a name until `unpin`, whoever renews it; what had the name before is unpinned.

        Raises:
            ReferenceGoneError: There is no such entry.
        """
        with self._lock:
            entry = self.find(token)
            entry.pins.add(name)
            self.unpin(name, but=entry)

    def pinned(self) -> dict[str, str]:
        """Return the tokens of what is pinned, by the names."""
        with self._lock:
            return {name: entry.token for entry in self._entries.values() for name in entry.pins}

    def unpin(self, name: str, but: Entry | None = None) -> bool:
        """Take a name from what is kept under it, which lives on by its leases; say whether there was something."""
        with self._lock:
            pinned = [entry for entry in self._entries.values() if name in entry.pins and entry is not but]
            for entry in pinned:
                entry.pins.discard(name)
            self._sweep()
            self._changed.notify_all()
            return bool(pinned)

    def revoke(self, which: str, reason: str = "it was revoked") -> int:
        """End an entry and all that was reached by it.

        Args:
            which: Its id, or its token.
            reason: What its users are told.

        Returns:
            How many entries that were.
        """
        with self._lock:
            self._sweep()
            meant = [entry for entry in self._entries.values() if which in (entry.id, entry.token)]
            roots = {entry.token for entry in meant}
            meant += [entry for entry in self._entries.values() if entry.root in roots]
            for entry in meant:
                self._end(entry, reason)
            return len(meant)

    def maker(self, which: str) -> str:
        """Return the identity of who made an entry, by its id or its token; "" where there is none."""
        with self._lock:
            self._sweep()
            return next((entry.by for entry in self._entries.values() if which in (entry.id, entry.token)), "")

    def listing(self) -> list[RefInfo]:
        """List the entries, oldest first."""
        with self._lock:
            self._sweep()
            now, wall = self._clock(), time.time()
            return [
                RefInfo(
                    id=entry.id,
                    kernel=self.kernel,
                    kind="shared" if entry.pins else entry.kind,
                    shown=entry.shown,
                    type=type(entry.value).__name__,
                    by=shown_identity(entry.by),
                    created=entry.created,
                    expires=0.0 if math.isinf(entry.expires) else wall + entry.expires - now,
                    left=0.0 if entry.lasts else max(0.0, entry.until - now),
                    restricted=entry.rules is not None,
                    exposed=entry.rules is not None and entry.rules.exposed,
                    uses=entry.uses,
                    holders=len(entry.holders),
                    pins=tuple(sorted(entry.pins)),
                )
                for entry in self._entries.values()
            ]

    def bury(self) -> None:
        """Let go of the objects whose entries have ended; in the main thread, where their finalizers belong."""
        while self._remains:
            self._remains.popleft()

    @property
    def has_remains(self) -> bool:
        """Whether `bury` has something to do."""
        return bool(self._remains)

    def _add(self, entry: Entry, root: str | None = None) -> None:
        self._entries[entry.token] = entry
        if root is not None:
            self._by_object[id(entry.value), root] = entry.token
        if not self._sweeping:
            self._sweeping = True
            threading.Thread(target=self._keep_sweeping, name="pyrokernel-references", daemon=True).start()
        self._changed.notify_all()

    def _end(self, entry: Entry, reason: str) -> None:
        """Take an entry out; the caller holds the lock, so nothing of the object's may run here."""
        del self._entries[entry.token]
        key = (id(entry.value), entry.root)
        if self._by_object.get(key) == entry.token:
            del self._by_object[key]
        self._remains.append(entry.value)
        entry.gone = reason  # before the rules go: without any, everything may be reached
        entry.value, entry.rules = None, None
        self._ended[entry.id] = reason
        if len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        self._dropped()

    def _sweep(self) -> None:
        """End what is due; the caller holds the lock."""
        now = self._clock()
        due = [entry for entry in self._entries.values() if entry.until <= now]
        # What nobody holds, such as an entry that was unpinned, was never due: it says nothing of the process.
        if any(-math.inf < entry.until < now - self._stall for entry in due):
            for entry in due:
                entry.holders = dict.fromkeys(entry.holders, now + LEASE_SECONDS)
            due = [entry for entry in due if entry.until <= now]
        for entry in due:
            expired = entry.expires <= now
            self._end(entry, "it has expired" if expired else f"nobody renewed it for {LEASE_SECONDS:g} s")
        for entry in self._entries.values():
            for holder in [holder for holder, until in entry.holders.items() if until <= now]:
                del entry.holders[holder]
                entry.times.pop(holder, None)

    def _keep_sweeping(self) -> None:
        """Sweep whenever something is due, until nothing is left."""
        with self._lock:
            while True:
                self._sweep()
                if not self._entries:
                    self._sweeping = False
                    return
                due = min(entry.until for entry in self._entries.values())
                self._changed.wait(None if math.isinf(due) else min(max(due - self._clock(), 0.0), MAX_LEASE_SECONDS))


def public_id(token: str) -> str:
    """Return what lists show in place of a token."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def _new_token() -> str:
    return base64.urlsafe_b64encode(os.urandom(_TOKEN_BYTES)).rstrip(b"=").decode()
