"""Shared: the state that a whole mesh shares, and that outlives all of its processes. Runs in the caller's process.

`shared.m` is its dict; here is what a dict cannot do: revisions, conditions, transactions, edits,
watches, locks, queues, history.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pyrokernel.client.leases import Leases
from pyrokernel.client.live import NEWEST, Stored, live, to_plain
from pyrokernel.client.locks import Lock
from pyrokernel.client.queues import Queue
from pyrokernel.client.reference_data import token_of
from pyrokernel.client.shared_map import PAGE, SharedMap, as_items
from pyrokernel.client.state_link import StateLink
from pyrokernel.client.transactions import Transaction
from pyrokernel.client.watches import Change, Watch
from pyrokernel.errors import PyrokernelError, StateConflictError, StateKeyError, StateTypeError
from pyrokernel.messages import StateEntry
from pyrokernel.settings import check_name
from pyrokernel.wire.values import decode_value

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh

log = logging.getLogger(__name__)

T = TypeVar("T")

_MISSING = object()
_TRIES = 100
"""How often a value's file may be replaced between the answer that names it and its opening."""
_PATIENCE_SECONDS = 30.0
_TAB_SECONDS = 0.3


class Version(NamedTuple):
    """A value as it is at one revision.

    Attributes:
        value: A copy that is the caller's own; arrays in it are read-only.
        revision: By which it can be written back.
        author: The account that wrote it.
    """

    value: Any
    revision: int
    author: str


class Shared:
    """A namespace of the shared state; `mesh.shared` is the common one, `mesh.shared["project"]` another.

    Args:
        link: The way to the service.
        space: Name of the namespace, "" for the common one.

    Attributes:
        m: The namespace as a dict.
        space: As given.
    """

    def __init__(self, link: StateLink, space: str = "", leases: Leases | None = None) -> None:
        self._link = link
        self._leases = leases or Leases(link)
        self.space = space
        self.m = SharedMap(self)

    @classmethod
    def of(cls, mesh: Mesh) -> Shared:
        """Return the common namespace of a mesh."""
        return cls(StateLink(lambda: mesh))

    def __getitem__(self, space: str) -> Shared:
        """Return a namespace of its own.

        Raises:
            SettingsError: It cannot be called so.
        """
        return self.in_space(check_name(space, "space"))

    def __reduce__(self) -> Any:
        return _the_namespace_here, (self.space,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shared) and (self._link, self.space) == (other._link, other.space)

    def __hash__(self) -> int:
        return hash((id(self._link), self.space))

    def close(self) -> None:
        """Let go of leases and connections."""
        self._leases.close()
        self._link.close()

    # Reading

    def read(self, key: str) -> Version:
        """Return a value with its revision.

        Raises:
            StateKeyError: There is no such key.
            StateValueError: It cannot be loaded here, or its author is not trusted.
        """
        found, value = self._get(key)
        return Version(value, found[0], found[3])

    def get(self, key: str, default: Any = None) -> Any:
        """Return a copy of a value, or a default."""
        try:
            return self.read(key).value
        except StateKeyError:
            return default

    def get_many(self, keys: Iterable[str]) -> dict[str, Version]:
        """Return the values of keys, all of the same moment; those that are not there are left out."""
        wanted = list(keys)
        found = self._link.ask("get_many", self.space, wanted)
        return {
            key: Version(self._value_of(key, one), one[0], one[3])
            for key, one in zip(wanted, found, strict=True)
            if one is not None
        }

    def read_live(self, key: str) -> tuple[Any, int, Any]:
        """Return a value, its revision, and the value as users of `m` get it."""
        found, value = self._get(key)
        return value, found[0], live(value, Stored(self, key, value, found[0]))

    def fetch(self, key: str, unless: int = 0) -> tuple[int, Any]:
        """Return revision and value; `NEWEST` for the value when the revision is the one that is known."""
        found = self._link.ask("get", self.space, key, unless)
        if found is None:
            raise StateKeyError(key=key)
        if found[4] is None:
            return found[0], NEWEST
        return found[0], self._value_of(key, found)

    def _get(self, key: str) -> tuple[Sequence[Any], Any]:
        found = self._link.ask("get", self.space, _text(key))
        if found is None:
            raise StateKeyError(key=key)
        return found, self._value_of(key, found)

    def _value_of(self, key: str, found: Sequence[Any], again: Callable[[], Sequence[Any] | None] | None = None) -> Any:
        """Return the value that an answer carries or leads to."""
        for _ in range(_TRIES):
            parts = self._link.fetch(found)
            if parts is not None:
                return self._link.decode(key, found, parts)
            # Its file was taken out of use since: there is a newer version.
            newer = again() if again else self._link.ask("get", self.space, key)
            if newer is None:
                raise StateKeyError(key=key)
            found = newer
        raise StateConflictError(f"{key!r} was replaced faster than it can be read", key=key, actual=found[0])

    def contains(self, key: str) -> bool:
        """Whether there is such a key."""
        return bool(self._link.ask("revision_of", self.space, key))

    def count(self) -> int:
        """Return how many keys there are."""
        return int(self._link.ask("count", self.space))

    def keys(self, prefix: str = "", *, after: str | None = None, limit: int = PAGE) -> list[str]:
        """Return keys that begin so, in order.

        Args:
            prefix: What they begin with.
            after: Only those behind this one.
            limit: At most so many, and at most 10,000.
        """
        found: list[str] = self._link.ask("keys", self.space, prefix, after, limit)
        return found

    def complete_keys(self, prefix: str, limit: int) -> list[str]:
        """Return keys that begin so, [] when the service does not answer at once; for TAB."""
        try:
            found: list[str] = self._link.ask("keys", self.space, prefix, None, limit, patience=_TAB_SECONDS)
        except PyrokernelError:
            return []
        return found

    def peek(self, key: str) -> Any:
        """Return a copy of a value of plain data, if the service answers at once; for TAB.

        Raises:
            KeyError: It does not, or there is nothing to look into.
        """
        try:
            found = self._link.ask("get", self.space, key, patience=_TAB_SECONDS)
            parts = self._link.fetch(found) if found is not None and found[1] == "plain" else None
            if parts is not None:
                return self._link.decode(key, found, parts)
        except PyrokernelError as error:
            raise KeyError(key) from error
        raise KeyError(key)

    def iterate_keys(self, prefix: str = "") -> Iterator[str]:
        """Yield all keys that begin so, in order; those written meanwhile may be among them."""
        last: str | None = None
        while page := self.keys(prefix, after=last):
            yield from page
            last = page[-1]

    def iterate_items(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield keys that begin so with their values, as users of `m` get them."""
        last: str | None = None
        while page := self._link.ask("items", self.space, prefix, last, PAGE):
            for key, found in page:
                try:
                    value = self._value_of(key, found)
                except StateKeyError:
                    continue  # deleted since
                yield key, live(value, Stored(self, key, value, found[0]))
            last = page[-1][0]

    def entries(self, prefix: str = "", *, after: str | None = None, limit: int = 10_000) -> list[StateEntry]:
        """Return what is known of keys but their values: type, size, summary, author, time, revision."""
        found = self._link.ask("entries", self.space, prefix, after, limit)
        return [StateEntry.from_wire(entry) for entry in found]

    def in_space(self, space: str) -> Shared:
        """Return a namespace by its name, "" for the common one."""
        return self if space == self.space else Shared(self._link, space, self._leases)

    def tokens_of(self, keys: Sequence[str], *, patience: float | None = None) -> dict[str, str]:
        """Return the tokens of the references that keys hold, all of the same moment; "" for those that hold none.

        Args:
            keys: Which.
            patience: Seconds to wait for the service instead of those of the setting.
        """
        found = self._link.ask("get_many", self.space, list(keys), patience=patience)
        return {key: self._token_in(one) for key, one in zip(keys, found, strict=True)}

    def _token_in(self, found: Sequence[Any] | None) -> str:
        if found is None or found[1] != "reference":
            return ""
        try:
            parts = self._link.fetch(found)
            return token_of(decode_value("reference", parts)) if parts is not None else ""
        except (PyrokernelError, TypeError, LookupError) as error:  # anybody may have written it
            log.info("a reference of the shared state does not parse: %s", error)
            return ""

    def spaces(self) -> list[str]:
        """Return the names of the namespaces that have keys; "" is the common one."""
        found: list[str] = self._link.ask("spaces")
        return found

    # Writing

    def set(
        self, key: str, value: Any, *, ttl: float | None = None, keep_alive: bool = False, revision: int | None = None
    ) -> int:
        """Set a key; return the revision.

        Args:
            key: At most 4,096 bytes.
            value: Of any class; what cannot be pickled is stored as a reference, from a kernel.
            ttl: Seconds after which the key goes away; None for never.
            keep_alive: With `ttl`: as long as this process lives, it does not.
            revision: Only if the key has this revision; 0 for no such key.

        Raises:
            StateConflictError: It has another revision.
            StateTypeError: The key cannot be one.
            StateValueError: The value is too large.
            StateStorageError: The disk is full, say.
            StateUnavailableError: The service is away.
        """
        write = self.write_of(key, value)
        conditions = [] if revision is None else [{"key": key, "revision": revision}]
        if ttl is None:
            return int(self.write([write], conditions)[0][0])
        write["lease"] = self._leases.grant(ttl, keep=keep_alive)
        try:
            return int(self.write([write], conditions)[0][0])
        except BaseException:
            self._leases.forget(write["lease"])  # nobody would end it
            raise

    def compare_and_set(self, key: str, value: Any, revision: int) -> int:
        """Set a key only if it has a revision, 0 for no such key; return the new one.

        Raises:
            StateConflictError: It has another one.
        """
        return self.set(key, value, revision=revision)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, after setting it if it is not there; of all who set at once, one does."""
        while True:
            try:
                return self.read(key).value
            except StateKeyError:
                with contextlib.suppress(StateConflictError):  # somebody else was quicker: theirs it is
                    self.set(key, default, revision=0)
                    return default

    def increment(self, key: str, amount: float = 1, *, initial: float = 0) -> Any:
        """Add to a number; return what it is now.

        Args:
            key: Of an int or float.
            amount: What is added.
            initial: What it begins with when it is not there.

        Raises:
            StateTypeError: It is no number.
        """
        for number in (amount, initial):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise StateTypeError(f"{key!r} is incremented by an int or float, not by {number!r}")
        write = {"op": "increment", "key": _text(key), "amount": amount, "initial": initial}
        text = self.write([write])[0][2]
        return int(text) if text.lstrip("-").isdecimal() else float(text)

    def update(self, other: Any = (), /, **values: Any) -> None:
        """Set many keys at once: all of them or none."""
        writes = [self.write_of(key, value) for key, value in as_items(other, values)]
        if writes:
            self.write(writes)

    def delete(self, key: str, *, revision: int | None = None) -> int:
        """Delete a key; return the revision.

        Args:
            key: Which.
            revision: Only if the key has this revision.

        Raises:
            StateKeyError: There is no such key.
            StateConflictError: It has another revision.
        """
        conditions = [] if revision is None else [{"key": key, "revision": revision}]
        return int(self.write([{"op": "delete", "key": _text(key)}], conditions)[0][0])

    def pop(self, key: str) -> Any:
        """Delete a key and return what it was; of all who try at once, one gets it.

        Raises:
            StateKeyError: There is no such key.
        """
        while True:
            version = self.read(key)
            with contextlib.suppress(StateConflictError):  # changed meanwhile: what it is now is to be returned
                self.delete(key, revision=version.revision)
                return version.value

    def clear(self, prefix: str = "") -> int:
        """Delete all keys that begin so, at once; return how many."""
        return len(self.write([{"op": "clear", "prefix": prefix}]))

    def write(self, writes: Sequence[Mapping[str, Any]], conditions: Sequence[Mapping[str, Any]] = ()) -> list[Any]:
        """Write as docs/protocol.md describes it: all or nothing."""
        options = self._link.write_options()
        found: list[Any] = self._link.ask("write", self.space, writes, conditions, options, changes=True)
        return found

    def write_of(self, key: str, value: Any) -> dict[str, Any]:
        """Return a write that sets a key, for `write`."""
        return {"op": "set", "key": _text(key), **self._link.encode(value, key, self.space)}

    # Several steps as one

    def transaction(self) -> Transaction:
        """Begin a transaction: what it reads must not change until the end of the block, or nothing is written.

        Example::

            with shared.transaction() as t:
                t["to"] = t["to"] + 10
                t["from"] = t["from"] - 10
        """
        return Transaction(self)

    def transact(self, steps: Callable[[Transaction], T]) -> T:
        """Run steps in a transaction, again until nobody has interfered; return what they return.

        Raises:
            StateConflictError: Others interfered for half a minute.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with self.transaction() as transaction:
                    result = steps(transaction)
            except StateConflictError:
                if time.monotonic() >= deadline:
                    raise
            else:
                return result

    @contextlib.contextmanager
    def edit(self, key: str) -> Iterator[Any]:
        """Hand out a copy of a value to change, and write it back at the end of the block.

        Arrays in it can be written to. What is changed must be the value itself: of a number, a text or a
        tuple, which nothing can change, `modify` makes another one.

        Raises:
            StateConflictError: Somebody else wrote it meanwhile; nothing was written.
            StateTypeError: The value cannot be changed in place.
        """
        version = self.read(key)
        value = _writable(version.value)
        if isinstance(value, (int, float, complex, str, bytes, tuple, frozenset, type(None))):
            raise StateTypeError(
                f"{key!r} is a {type(value).__name__}, which cannot be changed in place; "
                f"use shared.modify({key!r}, f), or assign"
            )
        yield value
        self.compare_and_set(key, value, version.revision)

    def modify(self, key: str, change: Callable[[Any], Any], default: Any = _MISSING) -> Any:
        """Set a key to what a function makes of its value, again until nobody has interfered; return that.

        Args:
            key: Which.
            change: Gets a copy of the value and returns the new one; may be called several times.
            default: What it gets where there is no such key.

        Raises:
            StateKeyError: There is no such key, and no default.
            StateConflictError: Others were quicker for half a minute.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                value, revision, _ = self.read(key)
            except StateKeyError:
                if default is _MISSING:
                    raise
                value, revision = default, 0
            value = change(_writable(value))
            try:
                self.compare_and_set(key, value, revision)
            except StateConflictError:
                if time.monotonic() >= deadline:
                    raise
            else:
                return value

    # Others

    def watch(self, prefix: str = "", *, since: int | None = None) -> Watch:
        """Follow the writes to keys that begin so, from now on or after a revision; misses none.

        Args:
            prefix: "" for all keys of the namespace.
            since: Revision after which to begin, as `Watch.revision` said; None for now.
        """
        return Watch(self._link, self.space, prefix, since)

    def lock(self, name: str, *, ttl: float = 30.0, timeout: float | None = None) -> Lock:
        """Return a lock: `with shared.lock("stage") as token: ...`.

        Args:
            name: Of the lock; locks are apart from keys.
            ttl: Seconds after which it is free when its owner can no longer renew it. Of an owner whose process
                ends it is free at once.
            timeout: Seconds to wait for it; None waits for ever.
        """
        return Lock(self._link, self._leases, self.space, _text(name), ttl, timeout)

    def locks(self) -> list[dict[str, Any]]:
        """List the locks that are held: name, token, author, via, since, expires."""
        found: list[dict[str, Any]] = self._link.ask("locks", self.space)
        return found

    def break_lock(self, name: str) -> bool:
        """Take a lock from whoever has it; False when nobody has."""
        return bool(self._link.ask("unlock", self.space, name, "", self._link.write_options(), changes=True))

    def queue(self, name: str) -> Queue:
        """Return a queue: what one puts, one other gets."""
        return Queue(self._link, self._leases, self.space, _text(name))

    # The past

    def history(self, key: str, limit: int = 100) -> list[Change]:
        """Return the last writes to a key, newest first."""
        found = self._link.ask("history", self.space, _text(key), limit)
        return [Change.from_wire({**one}).of(self._link, self.space) for one in found]

    def at(self, key: str, revision: int) -> Any:
        """Return the value that a key had at one of the revisions of its history.

        Raises:
            StateKeyError: It has no such revision, or was deleted there.
            StateValueError: That value is forgotten.
        """
        return _value_at(self._link, self.space, key, revision)

    def undo(self, key: str, *, revision: int | None = None) -> Change | None:
        """Bring back what a key was before its last write; again, what it was before that.

        Args:
            key: Which.
            revision: Only if the key has this revision.

        Returns:
            What was written; None where nothing was there before either.

        Raises:
            StateKeyError: There is no earlier version.
            StateConflictError: The key has another revision.
        """
        found = self._link.ask("undo", self.space, _text(key), revision, self._link.write_options(), changes=True)
        return None if found is None else Change.from_wire(found).of(self._link, self.space)

    def diff(self, key: str, old: int | None = None, new: int | None = None) -> list[str]:
        """Return how a value differs between two revisions, as lines of a unified diff.

        Args:
            key: Which.
            old: None for the version before the new one.
            new: None for what it is now.
        """
        from pyrokernel.client.past import diff

        return diff(self, key, old, new)

    # All of it

    def export_to(self, path: str | Path, prefix: str = "") -> int:
        """Write the keys that begin so to a file, with types, authors and times; return how many."""
        from pyrokernel.client.transfer import export_to

        return export_to(self, self._link, Path(path), prefix)

    def import_from(self, path: str | Path, *, replace: bool = False, trust: bool = False) -> int:
        """Set the keys that `export_to` wrote, together; return how many.

        Args:
            path: The file.
            replace: Also those that are there already.
            trust: Also pickled objects, which run code when they are loaded: only from a file that you trust.

        Raises:
            StateConflictError: A key is there already.
            StateValueError: The file holds pickled objects, and is not trusted.
            StateError: It is no such file.
        """
        from pyrokernel.client.transfer import import_from

        return import_from(self, self._link, Path(path), replace=replace, trust=trust)

    def backup(self, name: str = "") -> str:
        """Make a backup of all namespaces while they are in use; return where it is, on the host that keeps them."""
        return self._link.backup(name)

    def describe(self) -> dict[str, Any]:
        """Return what the service says of itself: where it keeps everything, and how much that is."""
        found: dict[str, Any] = self._link.ask("describe")
        return found

    def __repr__(self) -> str:
        return f"<Shared {self.space or 'state'} of mesh {self._link.mesh.settings.mesh!r}>"


def _value_at(link: StateLink, space: str, key: str, revision: int) -> Any:
    found = link.ask("get_at", space, _text(key), revision)
    if found is None:
        raise StateKeyError(f"{key!r} was deleted at revision {revision}", key=key)
    parts = link.fetch(found)
    if parts is None:
        raise StateKeyError(f"version {revision} of {key!r} is forgotten", key=key)
    return link.decode(key, found, parts)


def _text(key: Any) -> str:
    """Return a key as it travels.

    Raises:
        StateTypeError: It is no text.
    """
    if type(key) is not str:
        if not isinstance(key, str):
            raise StateTypeError(f"a key of the shared state is a str, not {type(key).__name__} ({key!r})")
        return str(key)
    return key


def _writable(value: Any) -> Any:
    """Return a value with arrays that can be written to, also inside containers."""
    kind = type(value)
    if kind is list:
        value[:] = [_writable(item) for item in value]
        return value
    if kind is dict:
        for key, item in value.items():
            value[key] = _writable(item)
        return value
    if kind is tuple:
        return tuple(_writable(item) for item in value)
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray" and not value.flags.writeable:
        return value.copy()
    return to_plain(value)


@functools.cache
def of_this_process() -> Shared:
    """Return the shared state of the mesh that this process's settings name: in a kernel, its own mesh.

    Nothing is connected before it is used.
    """
    from pyrokernel.client.mesh import connect

    return Shared(StateLink(connect))


def _the_namespace_here(space: str) -> Shared:
    shared = of_this_process()
    return shared[space] if space else shared
