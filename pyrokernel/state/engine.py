"""What the shared state does: revisions, conditions, leases, locks, queues, history. Runs in the state process.

Pure: no sockets, no SQL, no clock of its own. Everything is a row under a key; locks, leases and
queues are rows in spaces that no user can name, so that one log orders them, one commit makes them
last, and one watch tells of them. Such rows keep no history.

A lease counts on a clock that never goes back, and the whole time anew after the service was started
again: nobody loses a key early because the machine's clock was set, or because we were away.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import heapq
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pyrokernel.errors import (
    LockLostError,
    ProtocolError,
    StateCompactedError,
    StateConflictError,
    StateError,
    StateKeyError,
    StateTypeError,
    StateValueError,
)
from pyrokernel.state.files import Files
from pyrokernel.stores import Row, Store
from pyrokernel.wire.mapped import FILE_BYTES, check_size

MAX_KEY_BYTES = 4096
MAX_INT_BITS = 4096
"""Of a number that is kept as one: its text takes quadratic time, and Python refuses to make longer ones."""

MAX_TEXT = 200
"""Characters of what a writer says of a value."""

KINDS = ("int", "float", "str", "bytes", "plain", "pickle", "reference")
"""As in `wire.values`; what a reader does not know it might take for a pickle."""

KEPT_REQUESTS = 10_000
"""Requests that are known when they are repeated; a client repeats one within seconds."""

HOT_ROWS, HOT_BYTES = 8192, 4096
"""How many rows are at hand without asking the store, and how large each may be."""

LOCKS, LEASES, QUEUES = "~lock/", "~lease", "~queue/"
_LONG_AGO = 0.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much of the past is kept.

    Attributes:
        versions: Of each key, this many values, the present one included.
        changes: For watchers, at least this many of the last writes.
        file_bytes: Of values in files that are no key's present value, this many bytes.
    """

    versions: int = 32
    changes: int = 100_000
    file_bytes: int = 512 * 1024 * 1024


@dataclasses.dataclass
class Lease:
    """A promise that keys live as long as somebody renews it.

    Attributes:
        id: Unguessable.
        ttl: Seconds it lasts after each renewal.
        deadline: On the monotonic clock.
        keys: Space and key of what lives by it.
    """

    id: str
    ttl: float
    deadline: float
    keys: set[tuple[str, str]] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True)
class Author:
    """Who writes.

    Attributes:
        name: The account, as the operating system says.
        via: The kernel, "" for none.
        request: Id of the request, "" when it is not to be known again.
    """

    name: str
    via: str = ""
    request: str = ""


class Engine:
    """The state itself; used by one thread.

    Args:
        store: Where rows are kept.
        files: Where large values are.
        limits: How much of the past is kept.
        monotonic, wall: The clocks.

    Attributes:
        written: Rows written since this was last emptied: whoever waits may want to know.
    """

    def __init__(
        self,
        store: Store,
        files: Files,
        limits: Limits | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.files = files
        self.limits = limits or Limits()
        self.written: list[Row] = []
        self._monotonic, self._wall = monotonic, wall
        self._writing = False
        self._hot: dict[tuple[str, str], Row | None] = {}
        self._let_go: list[str] = []
        self._adopted: list[tuple[str, str]] = []
        self._undoing: list[Callable[[], object]] = []
        self._leases: dict[str, Lease] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._recent: collections.OrderedDict[str, tuple[int, ...]] = collections.OrderedDict()
        self._past: collections.OrderedDict[int, tuple[str, int]] = collections.OrderedDict()
        self._past_bytes = 0
        newest = store.row(store.revision())
        self._last_at = newest.at if newest else _LONG_AGO
        self._recall()

    # Transactions

    def commit(self) -> None:
        """Make what was written last."""
        if self._writing:
            self.store.commit()
            self._writing = False
        for name in self._let_go:
            self.files.release(name)
        self._let_go.clear()
        self._adopted.clear()
        self._undoing.clear()

    def rollback(self) -> None:
        """Undo what was written since the last commit, also in mind; the store, which may be broken, is not asked."""
        self._hot.clear()
        self._let_go.clear()
        while self._undoing:
            self._undoing.pop()()
        for staged, name in reversed(self._adopted):
            self.files.give_back(staged, name)
        self._adopted.clear()
        self.written.clear()
        if self._writing:
            self._writing = False
            self.store.rollback()

    def mark(self) -> int:
        """Return a number that grows with whatever `rollback` would undo, to tell whether something was begun."""
        return len(self.written) + len(self._undoing) + len(self._adopted)

    def _begin(self) -> None:
        if not self._writing:
            self.store.begin()
            self._writing = True

    def _recall(self) -> None:
        """Read from the store what is kept in mind; every lease has its whole time anew."""
        for row in self._scan_all(LEASES):
            self._add_lease(Lease(row.key, float(json.loads(self._full(row).data)["ttl"]), 0.0))
        for row in self.store.leased():
            if row.lease not in self._leases:  # cannot be: its row is removed last
                self._add_lease(Lease(row.lease, 0.0, 0.0))
            self._leases[row.lease].keys.add((row.space, row.key))
        for request, revision in self.store.recent_requests(KEPT_REQUESTS):
            self._recent[request] = (*self._recent.get(request, ()), revision)
        for row in self.store.filed():
            current = self.store.current(row.space, row.key)
            if current is None or current.revision != row.revision:
                self._note_past(row)

    def files_in_use(self) -> set[str]:
        """Return the names of the files that rows refer to."""
        return {row.file for row in self.store.filed()}

    # Reading

    @property
    def revision(self) -> int:
        """Number of the last write."""
        return self.store.revision()

    def get(self, space: str, key: str) -> Row | None:
        """Return what a key holds, None if it is not there."""
        row = self._current(space, key)
        return row if row is not None and row.op == "set" else None

    def _current(self, space: str, key: str) -> Row | None:
        """Return the newest row of a key; small ones that were asked for lately are at hand."""
        try:
            return self._hot[space, key]
        except KeyError:
            row = self.store.current(space, key)
            self._keep_hot(space, key, row)
            return row

    def _keep_hot(self, space: str, key: str, row: Row | None) -> None:
        if len(self._hot) >= HOT_ROWS:
            self._hot.clear()
        if row is None or len(row.data) <= HOT_BYTES:
            self._hot[space, key] = row
        else:
            self._hot.pop((space, key), None)

    def at(self, space: str, key: str, revision: int) -> Row:
        """Return a version of a key.

        Raises:
            StateKeyError: The key has no row of that revision, or it is forgotten.
        """
        row = self.store.row(revision)
        if row is None or (row.space, row.key) != (space, key):
            raise StateKeyError(f"{key!r} has no version {revision}, or it is forgotten", key=key)
        return row

    def author_of(self, row: Row) -> str:
        """Return who wrote a value: of an undo, who wrote what it brought back; "" when that is forgotten."""
        while row.restores > 0:
            found = self.store.row(row.restores)
            if found is None:
                return ""
            row = found
        return row.author

    def history(self, space: str, key: str, limit: int) -> list[Row]:
        """Return the last rows of a key, newest first, removals among them."""
        found: list[Row] = []
        row = self.store.current(space, key)
        while row is not None and len(found) < limit:
            found.append(row)
            row = self.store.row(row.previous) if row.previous else None
        return found

    def changes(self, space: str, prefix: str, since: int, limit: int) -> tuple[list[Row], int]:
        """Return rows after a revision, oldest first, and the revision to go on from.

        Raises:
            StateCompactedError: Some of them are forgotten.
        """
        newest = self.store.revision()
        if since < self.store.floor():
            raise StateCompactedError(since=since, floor=self.store.floor())
        rows = self.store.changes(since, newest, space, prefix, limit)
        return rows, (rows[-1].revision if len(rows) == limit else newest)

    def known(self, request: str) -> list[Row] | None:
        """Return the rows that a request wrote when it came for the first time, None for one that did not come yet.

        Raises:
            StateError: They are forgotten.
        """
        revisions = self._recent.get(request) if request else None
        if revisions is None:
            return None
        rows = [self.store.row(revision) for revision in revisions]
        found = [row for row in rows if row is not None]
        if len(found) < len(rows):
            raise StateError("what is asked for was done long ago, and what came of it is forgotten")
        return found

    # Writing

    def write(
        self,
        space: str,
        writes: Sequence[Mapping[str, Any]],
        conditions: Sequence[Mapping[str, Any]],
        author: Author,
    ) -> list[Row]:
        """Check conditions, then carry out writes: all of them or none.

        Args:
            space: Of all keys.
            writes: Each with "op": "set" (key, kind, type, summary, parts or file and sizes, lease), "delete"
                (key; "missing": True lets it be absent), "increment" (key, amount, initial), "clear" (prefix; alone).
            conditions: Each a key with "revision", that it must have, 0 for no such key; or "exists".
            author: Who writes.

        Raises:
            StateConflictError: A condition does not hold.
            StateKeyError: What is to be deleted is not there.
            StateTypeError: What is to be incremented is no number.
            LockLostError: A lease is none any more.
            StateValueError: A value is too large.
            ProtocolError: A write is none; if `mark` has grown, the others have begun, and `rollback` must follow.
        """
        for condition in conditions:
            self._check(space, condition)
        for write in writes:
            self._check_write(space, write)
        if len(writes) > 1 and any(write["op"] == "clear" for write in writes):
            raise ProtocolError("a write that clears comes alone")
        self._begin()
        rows: list[Row] = []
        for write in writes:
            rows += self._carry_out(space, write, author)
        if author.request:
            self._remember(author.request, rows)
        return rows

    def _check(self, space: str, condition: Mapping[str, Any]) -> None:
        key = str(condition["key"])
        row = self.get(space, key)
        actual = row.revision if row else 0
        author = row.author if row else ""
        if "revision" in condition and actual != condition["revision"]:
            raise StateConflictError(key=key, expected=condition["revision"], actual=actual, author=author)
        if "exists" in condition and bool(actual) != condition["exists"]:
            expected = None if condition["exists"] else 0
            raise StateConflictError(key=key, expected=expected, actual=actual, author=author)

    def _check_write(self, space: str, write: Mapping[str, Any]) -> None:
        """Find out all that can be wrong with a write before anything is written."""
        op = write["op"]
        if op == "clear":
            if not isinstance(write["prefix"], str):
                raise StateTypeError(f"keys begin with a str, not with {write['prefix']!r:.80}")
            return  # looks at many rows, and must be the first to write: see `write`
        key = check_key(write["key"])
        lease = write.get("lease") or ""
        if lease and lease not in self._leases:
            raise LockLostError(name=key)
        if op == "set":
            self._check_value(key, write)
        elif op == "delete":
            if not write.get("missing") and self.get(space, key) is None:
                raise StateKeyError(key=key)
        elif op == "increment":
            row = self.get(space, key)
            if row is not None and row.kind not in ("int", "float"):
                raise StateTypeError(f"{key!r} is a {row.type}, to which nothing can be added here; use modify()")
            for number in (write["amount"], write.get("initial", 0)):
                if isinstance(number, bool) or not isinstance(number, (int, float)):
                    raise StateTypeError(f"{key!r} is incremented by an int or float, not by {number!r:.80}")
        else:
            raise ProtocolError(f"a write is no {op!r}")

    def _check_value(self, key: str, write: Mapping[str, Any]) -> None:
        kind = write.get("kind")
        if kind not in KINDS:
            raise ProtocolError(f"a value is of no kind {kind!r:.80}")
        if write.get("file"):
            sizes = write["sizes"]
            if not sizes or not all(type(size) is int and size >= 0 for size in sizes):
                raise ProtocolError("the sizes of a value are none")
            size = sum(sizes)
        else:
            size = sum(len(part) for part in write["parts"])
        check_size(key, as_text(write.get("type")), size)
        if write.get("file"):
            self.files.check(str(write["file"]), write["sizes"])
        elif kind in ("int", "float"):
            _number(key, kind, bytes(write["parts"][0]))

    def _carry_out(self, space: str, write: Mapping[str, Any], author: Author) -> list[Row]:
        op = write["op"]
        if op == "clear":
            rows = self._scan_all(space, str(write["prefix"]))
            return [self._append(space, row.key, "delete", author, was=row) for row in rows]
        key = str(write["key"])
        if op == "delete":
            return [self._append(space, key, "delete", author)] if self.get(space, key) is not None else []
        if op == "increment":
            return [self._increment(space, key, write["amount"], write.get("initial", 0), author)]
        was = self.get(space, key) if write.get("keep") else None
        lease = was.lease if was is not None else str(write.get("lease") or "")
        return [self._append(space, key, "set", author, **self._value(write), lease=lease)]

    def _value(self, write: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a row that hold a value."""
        kind, shown, summary = as_text(write["kind"]), as_text(write.get("type")), as_text(write.get("summary"))
        fields: dict[str, Any] = {"kind": kind, "type": shown, "summary": summary}
        if write.get("file"):
            sizes = tuple(int(size) for size in write["sizes"])
            name = self.files.adopt(str(write["file"]), sizes)
            self._adopted.append((str(write["file"]), name))
            return {**fields, "sizes": sizes, "file": name}
        parts = write["parts"]
        sizes = tuple(len(part) for part in parts)
        if sum(sizes) > FILE_BYTES:
            name = self.files.write(parts)
            self._adopted.append(("", name))
            return {**fields, "sizes": sizes, "file": name}
        data = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        return {**fields, "sizes": sizes, "data": data}

    def _increment(self, space: str, key: str, amount: float, initial: float, author: Author) -> Row:
        row = self.get(space, key)
        if row is not None and row.kind not in ("int", "float"):  # since an earlier write of the same request
            raise StateTypeError(f"{key!r} is now a {row.type}, to which nothing can be added")
        before = initial if row is None else _number(key, row.kind, row.data)
        try:
            after = before + amount
        except OverflowError as error:
            raise StateTypeError(f"{key!r} is too large an int for a float to be added to it") from error
        if isinstance(after, int) and after.bit_length() > MAX_INT_BITS:
            raise StateTypeError(f"{key!r} would have more than {MAX_INT_BITS} bits, too many to be added to")
        text = repr(after)
        value: dict[str, Any] = {"kind": type(after).__name__, "type": type(after).__name__, "summary": text[:80]}
        data = text.encode()
        lease = row.lease if row else ""
        return self._append(space, key, "set", author, **value, sizes=(len(data),), data=data, lease=lease)

    def undo(self, space: str, key: str, revision: int | None, author: Author) -> Row | None:
        """Bring back the value before the last write, or after undos the one before that.

        Args:
            space, key: What.
            revision: The revision that the key must have; None for any.
            author: Who undoes.

        Returns:
            The row that was written, a removal when the key did not exist before; None when it was gone already.

        Raises:
            StateConflictError: The key has another revision.
            StateKeyError: The key has no past.
            StateValueError: That value is forgotten.
        """
        now = self.store.current(space, key)
        if now is None:
            raise StateKeyError(f"{key!r} has no past to go back to", key=key)
        if revision is not None and now.revision != revision:
            raise StateConflictError(key=key, expected=revision, actual=now.revision, author=now.author)
        # An undo that removed the key stands for the time before its first version.
        target = self._restored(now)
        before = self.store.row(target.previous) if target is not None and target.previous else None
        if before is None and (target is None or target.previous):
            raise StateKeyError(f"{key!r} has no earlier version, or it is forgotten", key=key)
        if before is None or not before.alive:
            if not now.alive:
                return None
            mark = before.revision if before is not None else -1
            return self._remembered(author, self._append(space, key, "delete", author, restores=mark))
        if not before.sizes:
            raise StateValueError(key=key, type=before.type, author=before.author, reason="that version is forgotten")
        value = {name: getattr(before, name) for name in ("kind", "type", "summary", "sizes", "data")}
        if before.file:
            value["file"] = self.files.duplicate(before.file)
            self._adopted.append(("", value["file"]))
        return self._remembered(author, self._append(space, key, "set", author, **value, restores=before.revision))

    def _restored(self, row: Row) -> Row | None:
        """Return the row whose value this one brought back, itself if it is no undo, None for before the first."""
        while row.restores:
            if row.restores < 0:
                return None
            found = self.store.row(row.restores)
            if found is None:
                return None
            row = found
        return row

    def _append(self, space: str, key: str, op: str, author: Author, was: Row | None = None, **fields: Any) -> Row:
        """Write one row, and let go of what it replaces, looked up unless given, where no history is kept."""
        self._begin()
        was = was or self._current(space, key)
        revision = self.store.revision() + 1
        self._last_at = max(self._wall(), self._last_at)
        row = Row(
            revision=revision,
            space=space,
            key=key,
            op=op,
            author=author.name,
            via=author.via,
            at=self._last_at,
            previous=was.revision if was else 0,
            version=was.version + 1 if was else 1,
            created=was.created if was and was.alive else revision,
            request=author.request,
            **fields,
        )
        self.store.write(row)
        self._keep_hot(space, key, row)
        self.written.append(row)
        if was is not None:
            self._replace(was, row)
        if row.lease and (space, key) not in self._leases[row.lease].keys:
            keys = self._leases[row.lease].keys
            keys.add((space, key))
            self._undoing.append(functools.partial(keys.discard, (space, key)))
        return row

    def _replace(self, was: Row, row: Row) -> None:
        place = (was.space, was.key)
        lease = self._leases.get(was.lease) if was.lease != row.lease else None
        if lease is not None and place in lease.keys:
            lease.keys.discard(place)
            self._undoing.append(functools.partial(lease.keys.add, place))
        if not is_hidden(was.space):
            if was.file:
                self._note_past(was)
            return
        if was.file and was.file != row.file:
            self._let_go.append(was.file)
        if was.request and was.space.startswith(QUEUES):
            # By it the request that put the value is known, should its answer have been lost and it come again.
            self.store.drop_value(was.revision)
        else:
            self.store.forget([was.revision])
        if not row.alive:
            self.store.forget_key(row.space, row.key)
            self._hot.pop((row.space, row.key), None)

    def _note_past(self, row: Row) -> None:
        """Count a value in a file that no key holds any more; of too many the oldest are forgotten."""
        self._past[row.revision] = (row.file, row.size)
        self._past_bytes += row.size
        if not self._writing:  # it is read for the first time, and the next write will do
            return
        self._undoing.append(functools.partial(self._uncount, row.revision))
        while self._past_bytes > self.limits.file_bytes:
            revision = next(iter(self._past))
            name, _ = self._past[revision]
            self._leave_uncounted(revision)
            self.store.drop_value(revision)
            self._let_go.append(name)

    def _leave_uncounted(self, revision: int) -> None:
        """Count the value of a row no longer, until the rollback if there is one."""
        found = self._past.get(revision)
        if found is not None:
            self._uncount(revision)
            self._undoing.append(functools.partial(self._count_again, revision, found))

    def _uncount(self, revision: int) -> None:
        self._past_bytes -= self._past.pop(revision)[1]

    def _count_again(self, revision: int, what: tuple[str, int]) -> None:
        self._past[revision] = what
        self._past.move_to_end(revision, last=False)
        self._past_bytes += what[1]

    def _remember(self, request: str, rows: list[Row]) -> None:
        self._recent[request] = tuple(row.revision for row in rows)
        self._undoing.append(functools.partial(self._recent.pop, request, None))
        if len(self._recent) > KEPT_REQUESTS:
            self._recent.popitem(last=False)

    def _remembered(self, author: Author, row: Row) -> Row:
        """Return a row after noting which request wrote it."""
        if author.request:
            self._remember(author.request, [row])
        return row

    # Leases

    def grant(self, ttl: float, author: Author) -> str:
        """Make a lease; return its id."""
        if not 0 < ttl < 10**9:
            raise StateTypeError(f"a lease lasts some seconds, not {ttl!r}")
        lease = Lease(secrets.token_hex(16), ttl, 0.0)
        data = json.dumps({"ttl": ttl}).encode()
        self._append(LEASES, lease.id, "set", author, kind="bytes", type="lease", sizes=(len(data),), data=data)
        self._add_lease(lease)
        self._undoing.append(functools.partial(self._leases.pop, lease.id))
        return lease.id

    def _add_lease(self, lease: Lease) -> None:
        lease.deadline = self._monotonic() + lease.ttl
        self._leases[lease.id] = lease
        heapq.heappush(self._deadlines, (lease.deadline, lease.id))
        if len(self._deadlines) > 2 * len(self._leases) + 1000:  # most of it is of leases that are over
            self._deadlines = [(one.deadline, one.id) for one in self._leases.values()]
            heapq.heapify(self._deadlines)

    def renew(self, lease: str) -> bool:
        """Give a lease its whole time again; False when it is over."""
        found = self._leases.get(lease)
        if found is None:
            return False
        found.deadline = self._monotonic() + found.ttl
        return True

    def remaining(self, lease: str) -> float | None:
        """Return the seconds that a lease has left, None when there is no such lease."""
        found = self._leases.get(lease)
        return max(0.0, found.deadline - self._monotonic()) if found else None

    def next_expiry(self) -> float:
        """Return when the next lease runs out; infinity when there are none."""
        while self._deadlines:
            deadline, name = self._deadlines[0]
            lease = self._leases.get(name)
            if lease is None:
                heapq.heappop(self._deadlines)
            elif lease.deadline > deadline:  # renewed since
                heapq.heapreplace(self._deadlines, (lease.deadline, name))
            else:
                return deadline
        return float("inf")

    def expire(self, leases: Iterable[str] = ()) -> None:
        """End these leases, and all whose time is over, with what lives by them."""
        for one in leases:
            self._end(one)
        now = self._monotonic()
        while self.next_expiry() <= now:
            self._end(self._deadlines[0][1])

    def _end(self, name: str) -> None:
        lease = self._leases.get(name)
        if lease is None:
            return
        for space, key in sorted(lease.keys):
            row = self.get(space, key)
            if row is None or row.lease != name:
                continue
            if space.startswith(QUEUES):
                self._requeue(row)
            else:
                self._append(space, key, "expire", Author(""))
        self._append(LEASES, name, "delete", Author(""))
        del self._leases[name]
        self._undoing.append(functools.partial(self._revive, lease))

    def _revive(self, lease: Lease) -> None:
        self._leases[lease.id] = lease
        heapq.heappush(self._deadlines, (lease.deadline, lease.id))

    # Locks

    def lock(self, space: str, name: str, lease: str, author: Author) -> Row | None:
        """Give a lock to a lease; the row's revision is the fencing token. None while another one has it.

        Raises:
            LockLostError: The lease is over.
        """
        if lease not in self._leases:
            raise LockLostError(name=name)
        held = self.get(LOCKS + space, name)
        if held is not None:
            return held if held.lease == lease else None
        return self._append(LOCKS + space, check_key(name), "set", author, kind="bytes", type="lock", lease=lease)

    def unlock(self, space: str, name: str, lease: str, author: Author) -> bool:
        """Take a lock back from a lease; False when it does not have it."""
        held = self.get(LOCKS + space, name)
        if held is None or (lease and held.lease != lease):
            return False
        self._remembered(author, self._append(LOCKS + space, name, "delete", author))
        return True

    # Queues

    def put(self, space: str, queue: str, write: Mapping[str, Any], author: Author) -> Row:
        """Append a value to a queue."""
        self._check_value(check_key(queue), write)
        self._begin()
        key = f"{self.revision + 1:020d}"
        return self._remembered(author, self._append(_queue(space, queue), key, "set", author, **self._value(write)))

    def take(self, space: str, queue: str, lease: str, author: Author) -> Row | None:
        """Take the oldest value of a queue, for good, or with a lease until `done`; None when it is empty.

        Raises:
            LockLostError: The lease is over.
        """
        if lease and lease not in self._leases:
            raise LockLostError(name=queue)
        hidden, after = _queue(space, queue), None
        while True:
            rows = self.store.scan(hidden, "", after, 100)
            free = next((row for row in rows if not row.lease), None)
            if free is not None:
                break
            if not rows:
                return None
            after = rows[-1].key
        row = self._full(free)
        value = {name: getattr(row, name) for name in ("kind", "type", "summary", "sizes", "data", "file")}
        # A row that removes a value for good carries it: the answer may be lost, and be asked for again.
        # It stays its author's: readers decide by the author whether they load a value.
        writer = dataclasses.replace(author, name=row.author, via=row.via)
        taken = self._append(hidden, row.key, "set" if lease else "delete", writer, **value, lease=lease)
        if taken.file and not lease:
            self._note_past(taken)
        return self._remembered(author, taken)

    def done(self, space: str, queue: str, key: str, lease: str, author: Author) -> bool:
        """Remove a value that was taken with a lease; False when the lease has lost it."""
        row = self.get(_queue(space, queue), key)
        if row is None or row.lease != lease:
            return False
        self._remembered(author, self._append(row.space, key, "delete", author))
        return True

    def _requeue(self, row: Row) -> None:
        row = self._full(row)
        value = {name: getattr(row, name) for name in ("kind", "type", "summary", "sizes", "data", "file")}
        self._append(row.space, row.key, "set", Author(row.author, row.via), **value)

    # Upkeep

    def prune(self, limit: int) -> int:
        """Forget some of what is older than the limits say; return how many rows were looked at."""
        floor, target = self.store.floor(), self.store.revision() - self.limits.changes
        upto = min(target, floor + limit)
        if upto <= floor:
            return 0
        self._begin()
        for revision in range(floor + 1, upto + 1):
            row = self.store.row(revision)
            if row is not None:
                self._prune_row(row)
        self.store.set_floor(upto)
        return upto - floor

    def _prune_row(self, row: Row) -> None:
        now = self._current(row.space, row.key)
        versions = 1 if is_hidden(row.space) else self.limits.versions
        if now is None or now.version - row.version >= versions:
            self._forget([row])
        elif now.revision == row.revision and not row.alive:
            self._forget(self.history(row.space, row.key, now.version))
            self.store.forget_key(row.space, row.key)
            self._hot.pop((row.space, row.key), None)
        else:
            # It stays for now; what is too old behind it was passed by when it was younger.
            older = self.history(row.space, row.key, now.version)[versions:]
            self._forget(older)

    def _forget(self, rows: Sequence[Row]) -> None:
        self.store.forget([row.revision for row in rows])
        self._let_go += [row.file for row in rows if row.file]
        for row in rows:
            self._leave_uncounted(row.revision)

    def _full(self, row: Row) -> Row:
        """Return a row with its data."""
        return row if row.data or row.file or not row.sizes else self.store.row(row.revision) or row

    def _scan_all(self, space: str, prefix: str = "") -> list[Row]:
        found: list[Row] = []
        while True:
            page = self.store.scan(space, prefix, found[-1].key if found else None, 10_000)
            found += page
            if len(page) < 10_000:
                return found


def is_hidden(space: str) -> bool:
    """Whether a space is the engine's own."""
    return space.startswith("~")


def check_key(key: Any) -> str:
    """Return a key if it may be one.

    Raises:
        StateTypeError: It is no text, or none that can be stored.
    """
    if not isinstance(key, str):
        raise StateTypeError(f"a key of the shared state is a str, not {type(key).__name__} ({key!r})")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise StateTypeError(f"the key {key!r} has lone surrogates, which cannot be stored") from error
    if size > MAX_KEY_BYTES or "\0" in key:
        raise StateTypeError(f"a key has at most {MAX_KEY_BYTES} bytes and no zero among them, unlike {key[:40]!r}...")
    return str(key)


def _number(key: str, kind: str, data: bytes) -> float:
    """Return a number that is kept as text.

    Raises:
        StateTypeError: It is none, whatever its kind says.
    """
    try:
        return int(data) if kind == "int" else float(data)
    except ValueError as error:
        raise StateTypeError(f"{key!r} is no {kind}: {data[:40]!r}") from error


def as_text(said: Any, limit: int = MAX_TEXT) -> str:
    """Return what a writer says of something as text that can be stored: lone surrogates cannot."""
    if type(said) is str and len(said) <= limit and said.isascii():
        return said
    return str(said or "")[:limit].encode("utf-8", "replace").decode()


def _queue(space: str, queue: str) -> str:
    return f"{QUEUES}{space}/{check_key(queue)}"
