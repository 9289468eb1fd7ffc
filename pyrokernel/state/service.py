"""What can be asked of the shared state: thin, between messages and the engine. Runs in the state process.

Each method takes the `Caller` and what was sent, and returns plain data, `Packed` values, or a `Wait`.
The desk calls them in its one thread. docs/protocol.md describes each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pyrokernel import systems
from pyrokernel.errors import ProtocolError, StateError, StateStorageError, StateTypeError, StateValueError
from pyrokernel.messages import PROTOCOL_VERSION, bounded
from pyrokernel.roles import Role
from pyrokernel.settings import check_name
from pyrokernel.state.engine import LOCKS, QUEUES, Author, Engine, as_text, check_key
from pyrokernel.state.parked import Wait
from pyrokernel.stores import Row
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.limits import LOOK_BYTES
from pyrokernel.wire.mapped import layout
from pyrokernel.wire.values import PLAIN

F = TypeVar("F", bound=Callable[..., Any])

MAX_VIA_CHARS = 130
"""Two names of at most 64, with a comma between."""
MAX_WAIT_SECONDS = 60.0
"""The longest that one request waits; who wants to wait longer asks again."""

MAX_PAGE = 10_000
MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Of values in one answer to a watch or listing; the rest comes with the next."""


@dataclasses.dataclass(eq=False)
class Caller:
    """Who asks.

    Attributes:
        user: Whom it acts for.
        role: What it may do.
        pid: The process, 0 where it is not known.
        nearby: Whether it may be handed the names of files on this machine.
        leases: Those that it renewed and that were to end with its connection, unless another one renewed them since.
        turn: Which of the connections that its process renewed by, one after the other, this is.
    """

    user: str
    role: Role = Role.ADMIN
    pid: int = 0
    nearby: bool = False
    leases: set[str] = dataclasses.field(default_factory=set)
    turn: int = 0


@dataclasses.dataclass
class _Process:
    """A process that asks.

    Attributes:
        connections: How many it has.
        staged: Files it was handed to write into and has not used yet; any of its connections may be the one that does.
    """

    connections: int = 0
    staged: set[str] = dataclasses.field(default_factory=set)


def method(role: Role) -> Callable[[F], F]:
    """Mark what can be called from outside, and the least role that it takes."""

    def mark(function: F) -> F:
        function.__dict__["asked"] = role
        return function

    return mark


class StateService:
    """The exposed face of the shared state.

    Args:
        engine: Which decides.
        identity: What `describe` tells.
        backups: Directory of backups.
    """

    def __init__(self, engine: Engine, identity: Mapping[str, Any], backups: Path) -> None:
        self._engine = engine
        self._identity = dict(identity)
        self._backups = backups
        self._methods: dict[str, tuple[Callable[..., Any], Role]] = {
            name: (getattr(self, name), member.asked)
            for name, member in vars(type(self)).items()
            if hasattr(member, "asked")
        }
        self._batch: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._processes: dict[int, _Process] = {}
        self._owners: dict[str, Caller] = {}

    def find(self, name: Any) -> tuple[Callable[..., Any], Role]:
        """Return a method by its name, and the least role that it takes.

        Raises:
            ProtocolError: There is none.
        """
        found = self._methods.get(name) if isinstance(name, str) else None
        if found is None:
            raise ProtocolError(f"the shared state has no method {name!r:.80}")
        return found

    def forget_batch(self) -> None:
        """Forget the answers that several watchers of one write share."""
        self._batch.clear()

    def arrive(self, caller: Caller) -> None:
        """Note a connection that begins."""
        self._processes.setdefault(caller.pid, _Process()).connections += 1

    def leave(self, caller: Caller) -> None:
        """End what ends with a connection, or with the last one of its process."""
        process = self._processes[caller.pid]
        process.connections -= 1
        if not process.connections:
            del self._processes[caller.pid]
            for name in process.staged:
                self._engine.files.drop(name)
        ended = [lease for lease in caller.leases if self._owners.get(lease) is caller]
        for lease in ended:
            del self._owners[lease]
        self._engine.expire(ended)

    # Keys

    @method(Role.OBSERVER)
    def get(self, caller: Caller, space: str, key: str, unless: int = 0) -> Any:
        """Return a value as [revision, kind, type, author, value]; None if it is not there.

        With `unless`, the revision that the caller has, the value is left out when that is the newest one.
        """
        row = self._engine.get(_space(space), check_key(key))
        if row is None:
            return None
        value = None if row.revision == unless else self._value(row, caller)
        return [row.revision, row.kind, row.type, self._engine.author_of(row), value]

    @method(Role.OBSERVER)
    def get_many(self, caller: Caller, space: str, keys: Sequence[str]) -> list[Any]:
        """Return what `get` does for each key, all of the same moment.

        Raises:
            StateError: Whoever may only look asks for too much at once.
        """
        if caller.role < Role.USER:
            self._check_few(space, keys)
        return [self.get(caller, space, key) for key in keys]

    def _check_few(self, space: str, keys: Sequence[str]) -> None:
        """Refuse to return more at once than whoever may only look gets; before any of it is put together."""
        left = 4 * LOOK_BYTES
        for number, key in enumerate(keys):
            row = self._engine.get(_space(space), check_key(key))
            # One there always is, and what lies in files is not kept in memory.
            left -= row.size if row is not None and number and not row.file else 0
            if left < 0:
                raise StateError(
                    f"these {len(keys)} values are more than one answer holds for whoever may only look: ask for fewer "
                    "of them at once"
                )

    @method(Role.OBSERVER)
    def get_at(self, caller: Caller, space: str, key: str, revision: int) -> Any:
        """Return an earlier version of a value, as `get` does; None when it was a removal."""
        row = self._engine.at(_space(space), key, revision)
        if not row.alive:
            return None
        return [row.revision, row.kind, row.type, self._engine.author_of(row), self._value(row, caller)]

    @method(Role.USER)
    def write(
        self,
        caller: Caller,
        space: str,
        writes: Sequence[Mapping[str, Any]],
        conditions: Sequence[Mapping[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """Check conditions and write, all or nothing; return [revision, op, text of a number or ""] for each row."""
        author = _author(caller, options)
        rows = self._engine.known(author.request)
        if rows is None:
            rows = self._engine.write(_space(space), [_unpacked(write) for write in writes], conditions, author)
        return [[row.revision, row.op, _number(row)] for row in rows]

    @method(Role.OBSERVER)
    def keys(
        self, caller: Caller, space: str, prefix: str = "", after: str | None = None, limit: int = MAX_PAGE
    ) -> list[str]:
        """Return keys in order, at most 10,000 at a time."""
        rows = self._engine.store.scan(_space(space), check_prefix(prefix), after, max(1, min(limit, MAX_PAGE)))
        return [row.key for row in rows]

    @method(Role.OBSERVER)
    def entries(
        self, caller: Caller, space: str, prefix: str = "", after: str | None = None, limit: int = MAX_PAGE
    ) -> list[dict[str, Any]]:
        """Return keys in order with all that is known of them but their values: a `StateEntry` each."""
        rows = self._engine.store.scan(_space(space), check_prefix(prefix), after, max(1, min(limit, MAX_PAGE)))
        return [self._entry(row) for row in rows]

    @method(Role.OBSERVER)
    def items(
        self, caller: Caller, space: str, prefix: str = "", after: str | None = None, limit: int = MAX_PAGE
    ) -> list[Any]:
        """Return keys in order with their values, as `get` does; fewer than asked for when they are large."""
        found: list[Any] = []
        size, most = 0, _most_bytes(caller)
        for bare in self._engine.store.scan(_space(space), check_prefix(prefix), after, max(1, min(limit, MAX_PAGE))):
            if found and (size := size + bare.size) > most:
                break
            row = self._engine.get(space, bare.key)
            if row is not None:
                found.append(
                    [row.key, [row.revision, row.kind, row.type, self._engine.author_of(row), self._value(row, caller)]]
                )
        return found

    @method(Role.OBSERVER)
    def revision_of(self, caller: Caller, space: str, key: str) -> int:
        """Return the revision of a key, 0 if it is not there."""
        row = self._engine.get(_space(space), check_key(key))
        return row.revision if row else 0

    @method(Role.OBSERVER)
    def count(self, caller: Caller, space: str) -> int:
        """Return how many keys there are."""
        return self._engine.store.count(_space(space))

    @method(Role.OBSERVER)
    def spaces(self, caller: Caller) -> list[str]:
        """Return the names of the spaces that have keys; "" is the common one."""
        return [name for name in self._engine.store.spaces() if not name.startswith("~")]

    # The past

    @method(Role.OBSERVER)
    def history(self, caller: Caller, space: str, key: str, limit: int = 100) -> list[dict[str, Any]]:
        """Return the last writes to a key, newest first: a `StateChange` each, without values."""
        rows = self._engine.history(_space(space), check_key(key), max(1, min(limit, MAX_PAGE)))
        return [self._change(row, None) for row in rows]

    @method(Role.USER)
    def undo(
        self,
        caller: Caller,
        space: str,
        key: str,
        revision: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Bring back the value that a key had before; return the `StateChange`."""
        author = _author(caller, options)
        known = self._engine.known(author.request)
        row = known[0] if known else self._engine.undo(_space(space), check_key(key), revision, author)
        return None if row is None else self._change(row, None)

    @method(Role.OBSERVER)
    def watch(
        self,
        caller: Caller,
        space: str,
        prefix: str = "",
        since: int | None = None,
        timeout: float = 0.0,
        limit: int = 1000,
        values: bool = True,
    ) -> Any:
        """Return the writes after a revision as {"changes", "next"}; wait for the first of them.

        Without `since` the answer comes at once: no changes, and the revision to begin from.
        """
        _space(space)
        check_prefix(prefix)
        if since is None:
            return {"changes": [], "next": self._engine.revision, "store": self._engine.store.id}
        if since > self._engine.revision:
            since = self._engine.revision
        limit = max(1, min(limit, MAX_PAGE))

        def attempt(before: int) -> Any:
            answer = self._changes(caller, space, prefix, max(since, before), limit, values)
            return answer if answer["changes"] else None

        def give_up() -> Any:
            # Nothing of it was written, or it would have been told. So the watcher has missed nothing until now,
            # whatever is forgotten of other keys meanwhile.
            return {"changes": [], "next": self._engine.revision, "store": self._engine.store.id}

        return attempt(since) or Wait(space, prefix, attempt, give_up, _deadline(timeout))

    def _changes(self, caller: Caller, space: str, prefix: str, since: int, limit: int, values: bool) -> dict[str, Any]:
        shared = (space, prefix, since, limit, values, caller.nearby, caller.role < Role.USER, self._engine.revision)
        if shared in self._batch:
            return self._batch[shared]
        rows, following = self._engine.changes(space, prefix, since, limit)
        changes: list[dict[str, Any]] = []
        size, most = 0, _most_bytes(caller)
        for row in rows:
            if changes and values and (size := size + row.size) > most:
                following = changes[-1]["revision"]
                break
            value = self._value(row, caller) if values and row.alive and row.sizes else None
            changes.append(self._change(row, value))
        answer = {"changes": changes, "next": following, "store": self._engine.store.id}
        if changes:  # nothing yet is no answer to share: a write of the same batch may follow
            self._batch[shared] = answer
        return answer

    # Leases, locks, queues

    @method(Role.USER)
    def grant(self, caller: Caller, ttl: float, bound: bool = False, options: Mapping[str, Any] | None = None) -> str:
        """Make a lease; one that is `bound` also ends with the connection that renewed it last."""
        lease = self._engine.grant(float(ttl), _author(caller, options))
        if bound:
            self._bind(caller, [lease])
        return lease

    @method(Role.USER)
    def renew(self, caller: Caller, leases: Sequence[str], bound: Sequence[str] = (), turn: int = 0) -> list[str]:
        """Give leases their whole time again; return those that are over."""
        caller.turn = int(turn)
        over = [lease for lease in leases if not self._engine.renew(lease)]
        self._bind(caller, [lease for lease in bound if self._engine.remaining(lease) is not None])
        return over

    def _bind(self, caller: Caller, leases: Iterable[str]) -> None:
        """Let leases end with a connection; with one before it they no longer do."""
        for lease in leases:
            before = self._owners.get(lease)
            # What was asked on a connection that its client has given up may be read after what was asked on the next.
            if before is not None and before.turn > caller.turn:
                continue
            if before is not None:
                before.leases.discard(lease)
            self._owners[lease] = caller
            caller.leases.add(lease)

    @method(Role.USER)
    def revoke(self, caller: Caller, lease: str) -> None:
        """End a lease, with what lives by it."""
        owner = self._owners.pop(lease, None)
        if owner is not None:
            owner.leases.discard(lease)
        self._engine.expire([lease])

    @method(Role.USER)
    def lock(
        self, caller: Caller, space: str, name: str, lease: str, timeout: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Get a lock for a lease, first come first: its fencing token, None when the time is over."""
        author = _author(caller, options)
        check_key(name)
        _check_lease(lease)
        _space(space)

        def attempt(_: int) -> int | None:
            row = self._engine.lock(space, name, lease, author)
            return None if row is None else row.revision

        return attempt(0) or Wait(LOCKS + space, name, attempt, lambda: None, _deadline(timeout))

    @method(Role.USER)
    def unlock(
        self, caller: Caller, space: str, name: str, lease: str, options: Mapping[str, Any] | None = None
    ) -> bool:
        """Give a lock back; with lease "" whoever has it loses it. False when it was not held so."""
        author = _author(caller, options)
        if self._engine.known(author.request) is not None:
            return True
        return self._engine.unlock(_space(space), name, lease, author)

    @method(Role.OBSERVER)
    def locks(self, caller: Caller, space: str) -> list[dict[str, Any]]:
        """List the locks that are held: name, token, author, via, since, expires."""
        return [
            {"name": row.key, "token": row.revision, "author": row.author, "via": row.via, "since": row.at,
             "expires": self._engine.remaining(row.lease)}
            for row in self._engine.store.scan(LOCKS + _space(space), "", None, MAX_PAGE)
        ]  # fmt: skip

    @method(Role.USER)
    def put(
        self,
        caller: Caller,
        space: str,
        queue: str,
        write: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
    ) -> int:
        """Append a value to a queue; return its number."""
        author = _author(caller, options)
        known = self._engine.known(author.request)
        row = known[0] if known else self._engine.put(_space(space), queue, _unpacked(write), author)
        return row.revision

    @method(Role.USER)
    def take(
        self, caller: Caller, space: str, queue: str, lease: str = "", timeout: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Take the oldest value of a queue: [number, [revision, kind, type, author, value]], None when time is over."""
        author = _author(caller, options)
        _space(space)
        _check_lease(lease)
        known = self._engine.known(author.request)
        if known:
            return self._taken(known[0], caller)

        def attempt(_: int) -> Any:
            row = self._engine.take(space, queue, lease, author)
            return None if row is None else self._taken(row, caller)

        hidden = f"{QUEUES}{space}/{queue}"
        return attempt(0) or Wait(hidden, "", attempt, lambda: None, _deadline(timeout))

    @method(Role.USER)
    def done(
        self, caller: Caller, space: str, queue: str, number: str, lease: str,
        options: Mapping[str, Any] | None = None,
    ) -> bool:  # fmt: skip
        """Say that a value that was taken with a lease is dealt with; False when the lease has lost it."""
        author = _author(caller, options)
        if self._engine.known(author.request) is not None:
            return True
        return self._engine.done(_space(space), queue, number, lease, author)

    @method(Role.OBSERVER)
    def length(self, caller: Caller, space: str, queue: str) -> int:
        """Return how many values a queue has, those that are taken and not done among them."""
        return self._engine.store.count(f"{QUEUES}{_space(space)}/{check_key(queue)}")

    # Files and the service itself

    @method(Role.USER)
    def stage(self, caller: Caller, size: int) -> dict[str, str]:
        """Hand out a file to write a large value into: its name and its path."""
        if not caller.nearby:
            raise ProtocolError("files are for processes on this machine")
        if not 0 <= size < 1 << 40:
            raise ProtocolError(f"no file of {size} bytes is handed out")
        files = self._engine.files
        staged = self._processes.setdefault(caller.pid, _Process()).staged
        # Those that were used meanwhile have other names now.
        staged.intersection_update([name for name in staged if files.path_of(name).exists()])
        name = files.stage(size)
        staged.add(name)
        return {"name": name, "path": str(files.path_of(name))}

    @method(Role.OBSERVER)
    def ping(self, caller: Caller) -> str:
        """Answer with the instance id."""
        return str(self._identity.get("instance", ""))

    @method(Role.OBSERVER)
    def describe(self, caller: Caller) -> dict[str, Any]:
        """Say what this service is, and how much it keeps."""
        limits = self._engine.limits
        return {
            **self._identity,
            "protocol": PROTOCOL_VERSION,
            "pid": os.getpid(),
            "store": self._engine.store.id,
            "revision": self._engine.revision,
            "floor": self._engine.store.floor(),
            "keys": {name: self._engine.store.count(name) for name in self.spaces(caller)},
            "versions": limits.versions,
            "changes": limits.changes,
            "backups": str(self._backups),
        }

    def _taken(self, row: Row, caller: Caller) -> list[Any]:
        return [row.key, [row.revision, row.kind, row.type, self._engine.author_of(row), self._value(row, caller)]]

    def _value(self, row: Row, caller: Caller) -> Any:
        """Return a value as it travels: `Packed`, or where it can be mapped; None for a pickle and an observer."""
        if row.kind not in PLAIN and caller.role < Role.USER:
            return None
        if row.kind == "" or not row.sizes:
            raise StateValueError(key=row.key, type=row.type, author=row.author, reason="that version is forgotten")
        if not row.file and len(row.sizes) == 1:
            return row.data
        if not row.file:
            offset, parts = 0, []
            view = memoryview(row.data)
            for size in row.sizes:
                parts.append(view[offset : offset + size])
                offset += size
            return Packed(parts[0], parts[1:])
        path = self._engine.files.values / row.file
        if caller.nearby:
            return {"path": str(path), "sizes": list(row.sizes)}
        with _explained(path), path.open("rb") as stream:
            # Held by the answer until it is sent; a lock as readers take it keeps the file from being used anew.
            if systems.has_shared_locks():
                systems.try_lock(stream.fileno(), shared=True)
                view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            else:
                view = memoryview(stream.read())
        offsets, _ = layout(row.sizes)
        parts = [view[offset : offset + size] for offset, size in zip(offsets, row.sizes, strict=True)]
        return Packed(parts[0], parts[1:])

    def _entry(self, row: Row) -> dict[str, Any]:
        return {
            "space": row.space,
            "key": row.key,
            "revision": row.revision,
            "created": row.created,
            "version": row.version,
            "kind": row.kind,
            "type": row.type,
            "summary": row.summary,
            "size": row.size,
            "author": row.author,
            "via": row.via,
            "at": row.at,
            "expires": self._engine.remaining(row.lease) if row.lease else None,
        }

    def _change(self, row: Row, value: Any) -> dict[str, Any]:
        return {**self._entry(row), "op": row.op, "restores": row.restores, "packed": value,
                "kept": bool(row.sizes)}  # fmt: skip


def check_prefix(prefix: Any) -> str:
    """Return what keys are to begin with.

    Raises:
        StateTypeError: It is no text.
    """
    if not isinstance(prefix, str):
        raise StateTypeError(f"keys begin with a str, not with {prefix!r:.80}")
    return prefix


def _most_bytes(caller: Caller) -> int:
    """Return how many bytes of values one answer to somebody holds."""
    return LOOK_BYTES if caller.role < Role.USER else MAX_BATCH_BYTES


def _space(name: Any) -> str:
    """Return the name of a space if it is one that users may name."""
    if name == "":
        return ""
    return check_name(str(name), "space")


def _check_lease(lease: Any) -> None:
    if not isinstance(lease, str):
        raise ProtocolError(f"a lease is a text, not {lease!r:.80}")


def _author(caller: Caller, options: Mapping[str, Any] | None) -> Author:
    if not options:
        return Author(caller.user)
    return Author(caller.user, as_text(options.get("via"), MAX_VIA_CHARS), as_text(options.get("request"), 64))


def _unpacked(write: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a write with the parts of its value, which are not looked into."""
    if write.get("op", "set") != "set" or write.get("file"):
        return write
    value = write.get("value")
    if isinstance(value, Packed):
        parts: Sequence[Any] = (value.data, *value.buffers)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        parts = (value,)
    else:
        raise ProtocolError(f"a value comes as Packed or bytes, not as {type(value).__name__}")
    return {**write, "parts": parts}


def _number(row: Row) -> str:
    return row.data.decode() if row.kind in ("int", "float") and row.alive else ""


def _deadline(timeout: float) -> float:
    return time.monotonic() + bounded(timeout, MAX_WAIT_SECONDS)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateStorageError(path=str(path), reason=str(error.strerror or error)) from error
