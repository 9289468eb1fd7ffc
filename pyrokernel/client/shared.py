"""Shared: the state that a whole mesh shares, and that outlives all of its processes. Runs in the caller's process.

`shared.m` is its dict; here is what a dict cannot do: revisions, conditions, transactions, edits,
watches, locks, queues, history.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pyrokernel.client import editing
from pyrokernel.client.leases import Leases
from pyrokernel.client.locks import Lock
from pyrokernel.client.queues import Queue
from pyrokernel.client.shared_map import SharedMap, as_items
from pyrokernel.client.space import PAGE, Space, Version, seconds_of, text
from pyrokernel.client.state_link import StateLink
from pyrokernel.client.transactions import Transaction
from pyrokernel.client.watches import Change, Watch
from pyrokernel.errors import StateKeyError, StateTypeError
from pyrokernel.messages import StateEntry
from pyrokernel.settings import check_name

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh

T = TypeVar("T")


class Shared:
    """A namespace of the shared state: `mesh.shared`, and the name `shared` in every kernel.

    Example::

        shared.m["calibration"] = {"gain": 2.5}  # for everybody in the mesh, and still there tomorrow
        shared.m["calibration"]["gain"] += 0.1  # one step, whoever else writes
        shared["project"].m["x"] = 1  # a namespace of its own

    Attributes:
        m: The namespace as a dict.
        space: Its name, "" for the common one.
    """

    m: SharedMap
    space: str

    def __init__(self, link: StateLink, space: str = "", leases: Leases | None = None) -> None:
        keys = Space(link, space, leases or Leases(link))
        for name, value in {"space": space, "_link": link, "_keys": keys, "m": SharedMap(keys, self)}.items():
            object.__setattr__(self, name, value)

    _link: StateLink
    _keys: Space

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "m":
            raise AttributeError("shared.m is the mapping itself; shared.m.update({...}) sets many keys at once")
        raise AttributeError(f"shared.{name} cannot be set; shared.m[{name!r}] = ... sets a key")

    @classmethod
    def of(cls, mesh: Mesh) -> Shared:
        """Return the common namespace of a mesh."""
        return cls(StateLink(lambda: mesh))

    def __getitem__(self, space: str) -> Shared:
        """Return a namespace of its own.

        Raises:
            SettingsError: It cannot be called so.
        """
        return self.in_space(check_name(text(space, "namespace"), "space"))

    def in_space(self, space: str) -> Shared:
        """Return a namespace by its name, "" for the common one."""
        return self if space == self.space else Shared(self._link, space, self._keys.leases)

    def __reduce__(self) -> Any:
        return _the_namespace_here, (self.space,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shared) and (self._link, self.space) == (other._link, other.space)

    def __hash__(self) -> int:
        return hash((id(self._link), self.space))

    def close(self) -> None:
        """Let go of leases and connections."""
        self._keys.leases.close()
        self._link.close()

    # Reading

    def read(self, key: str) -> Version:
        """Return a value with its revision.

        Raises:
            StateKeyError: There is no such key.
            StateValueError: It cannot be loaded here, or its author is not trusted.
        """
        return self._keys.read(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a copy of a value, or a default."""
        try:
            return self._keys.read(key).value
        except StateKeyError:
            return default

    def get_many(self, keys: Iterable[str]) -> dict[str, Version]:
        """Return the values of keys, all of one moment; those that are not there are left out."""
        return self._keys.read_many(keys)

    def keys(self, prefix: str = "", *, after: str | None = None, limit: int = PAGE) -> list[str]:
        """Return keys that begin so, in order.

        Args:
            prefix: What they begin with.
            after: Only those behind this one.
            limit: At most so many, and at most 10,000.
        """
        return self._keys.keys(prefix, after=after, limit=limit)

    def entries(self, prefix: str = "", *, after: str | None = None, limit: int = 10_000) -> list[StateEntry]:
        """Return what is known of keys but their values: type, size, summary, author, time, revision."""
        return self._keys.entries(prefix, after=after, limit=limit)

    def spaces(self) -> list[str]:
        """Return the names of the namespaces that have keys; "" is the common one."""
        found: list[str] = self._link.ask("spaces")
        return found

    # Writing

    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | str | None = None,
        keep_alive: bool = False,
        revision: int | None = None,
    ) -> int:
        """Set a key; return the revision.

        Args:
            key: At most 4,096 bytes.
            value: Of any class; what cannot be pickled is stored as a reference, from a kernel.
            ttl: Seconds, or text such as "1h", after which the key goes away; None for never, also if it had a time.
            keep_alive: With `ttl`: as long as this process lives, it does not.
            revision: Only if the key has this revision; 0 for no such key.

        Raises:
            StateConflictError: It has another revision.
            StateTypeError: The key cannot be one, or the time is none.
            StateValueError: The value is too large.
            NotSerializableError: The value cannot be stored; the message says what to do.
            StateStorageError: The disk is full, say.
            StateUnavailableError: The service is away.
        """
        return self._keys.set(key, value, ttl=ttl, keep_alive=keep_alive, revision=revision)

    def compare_and_set(self, key: str, value: Any, revision: int) -> int:
        """Set a key only if it has a revision, 0 for no such key; return the new one.

        Raises:
            StateConflictError: It has another one.
        """
        return self._keys.set(key, value, revision=revision)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return a copy of a value, after setting the key if it is not there; of all who set at once, one does."""
        self._keys.setdefault(key, default)
        return self.get(key, default)

    def increment(self, key: str, amount: float = 1, *, initial: float = 0) -> Any:
        """Add to a number; return what it is now.

        Args:
            key: Of an int or float.
            amount: What is added.
            initial: What it begins with when it is not there.

        Raises:
            StateTypeError: It is no number.
        """
        return self._keys.increment(key, amount, initial)

    def update(self, other: Any = (), /, **values: Any) -> None:
        """Set many keys at once: all of them or none."""
        self._keys.update(as_items(other, values))

    def delete(self, key: str, *, revision: int | None = None) -> int:
        """Delete a key; return the revision.

        Args:
            key: Which.
            revision: Only if the key has this revision.

        Raises:
            StateKeyError: There is no such key.
            StateConflictError: It has another revision.
        """
        return self._keys.delete(key, revision)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete keys at once: all of them or none.

        Raises:
            StateKeyError: One of them is not there.
        """
        self._keys.write([{"op": "delete", "key": text(key)} for key in dict.fromkeys(keys)])

    def pop(self, key: str) -> Any:
        """Delete a key and return what it was; of all who try at once, one gets it.

        Raises:
            StateKeyError: There is no such key.
        """
        return self._keys.pop(key)

    def clear(self, prefix: str = "") -> int:
        """Delete all keys that begin so, at once; return how many."""
        return self._keys.clear(prefix)

    # Several steps as one

    def transaction(self) -> Transaction:
        """Begin a transaction: what it reads must not change until the end of the block, or nothing is written.

        Example::

            with shared.transaction() as t:
                t["to"] = t["to"] + 10
                t["log"].append("10 moved")
        """
        return Transaction(self._keys)

    def transact(self, steps: Callable[[Transaction], T]) -> T:
        """Run steps in a transaction, again until nobody has interfered; return what they return.

        Raises:
            StateConflictError: Others interfered for half a minute.
        """
        if not callable(steps):
            raise StateTypeError(f"transact() takes a function of the transaction, not {steps!r:.80}")

        def once() -> T:
            with self.transaction() as transaction:
                return steps(transaction)

        return editing.until_undisturbed(once)

    def edit(self, key: str) -> contextlib.AbstractContextManager[Any]:
        """Hand out a copy of a value to change in place, and write it back at the end of the block.

        Example::

            with shared.edit("image") as array:
                array[0] = 0

        Arrays in it can be written to. Of a number, a text or a tuple, which nothing can change, `modify` makes
        another one. A block that changes nothing is warned of.

        Raises:
            StateConflictError: Somebody else wrote it meanwhile; nothing was written.
            StateTypeError: The value cannot be changed in place.
        """
        return editing.edit(self._keys, key)

    def modify(self, key: str, change: Callable[[Any], Any], default: Any = editing.MISSING) -> Any:
        """Set a key to what a function makes of its value, again until nobody has interfered; return that.

        Args:
            key: Which.
            change: Gets a copy of the value and returns the new one; may be called several times.
            default: What it gets where there is no such key.

        Raises:
            StateKeyError: There is no such key, and no default.
            StateTypeError: The function returned None for a list, dict or set.
            StateConflictError: Others were quicker for half a minute.
        """
        return editing.modify(self._keys, key, change, default)

    # Others

    def watch(self, prefix: str = "", *, since: int | None = None) -> Watch:
        """Follow the writes to keys that begin so, from now on or after a revision; misses none.

        Args:
            prefix: "" for all keys of the namespace.
            since: Revision after which to begin, as `Watch.revision` said; None for now.

        Raises:
            StateTypeError: `since` is no revision that there has been.
        """
        return Watch(self._link, self.space, text(prefix, "prefix"), since)

    def lock(self, name: str, *, ttl: float | str = 30.0, timeout: float | None = None) -> Lock:
        """Return a lock: `with shared.lock("stage") as token: ...`.

        Args:
            name: Of the lock; locks are apart from keys.
            ttl: Seconds, or text such as "5m", after which it is free when its owner can no longer renew it. Of an
                owner whose process ends it is free at once.
            timeout: Seconds to wait for it; None waits for ever.
        """
        return Lock(self._link, self._keys.leases, self.space, text(name, "lock's name"), seconds_of(ttl), timeout)

    def locks(self) -> list[dict[str, Any]]:
        """List the locks that are held: name, token, author, via, since, expires (seconds left)."""
        found: list[dict[str, Any]] = self._link.ask("locks", self.space)
        return found

    def break_lock(self, name: str) -> bool:
        """Take a lock from whoever has it; False when nobody has."""
        options = self._link.write_options()
        return bool(self._link.ask("unlock", self.space, text(name, "lock's name"), "", options, changes=True))

    def queue(self, name: str) -> Queue:
        """Return a queue: what one puts, one other gets."""
        return Queue(self._link, self._keys.leases, self.space, text(name, "queue's name"))

    # The past

    def history(self, key: str, limit: int = 100) -> list[Change]:
        """Return the last writes to a key, newest first."""
        found = self._link.ask("history", self.space, text(key), limit)
        return [Change.from_wire(one).of(self._link, self.space) for one in found]

    def writes(self) -> Iterator[Change]:
        """Yield the writes to this namespace that are still known, oldest first; values are fetched when asked for."""
        after = self._link.ask("describe")["floor"]
        while True:
            answer = self._link.ask("watch", self.space, "", after, 0.0, PAGE, False)
            for one in answer["changes"]:
                yield Change.from_wire(one).of(self._link, self.space)
            if not answer["changes"]:
                return
            after = answer["next"]

    def at(self, key: str, revision: int) -> Any:
        """Return the value that a key had at one of the revisions of its history.

        Raises:
            StateKeyError: It has no such revision, or was deleted there.
            StateValueError: That value is forgotten.
        """
        return self._keys.read_at(key, revision)

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
        found = self._link.ask("undo", self.space, text(key), revision, self._link.write_options(), changes=True)
        return None if found is None else Change.from_wire(found).of(self._link, self.space)

    def diff(self, key: str, old: int | None = None, new: int | None = None) -> list[str]:
        """Return how a value differs between two revisions, as lines of a unified diff.

        Args:
            key: Which.
            old: None for the version before the new one.
            new: None for what it is now.
        """
        from pyrokernel.client.past import diff  # with difflib and pprint, for people at a terminal

        return diff(self, key, old, new)

    # All of it

    def export_to(self, path: str | Path, prefix: str = "") -> int:
        """Write the keys that begin so to a file, with types, authors and times; return how many.

        Raises:
            StateKeyError: There is none.
        """
        from pyrokernel.client.transfer import export_to

        return export_to(self, self._link, Path(path), text(prefix, "prefix"))

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
        """Make a backup of all namespaces while they are in use; return where it is, on the host that keeps them.

        `pyrokernel state backups` lists them, `pyrokernel state restore` puts one in place.
        """
        return self._link.backup(name)

    def describe(self) -> dict[str, Any]:
        """Return what the service says of itself: where it keeps everything, and how much that is."""
        found: dict[str, Any] = self._link.ask("describe")
        return found

    def __repr__(self) -> str:
        where = f"namespace {self.space!r}" if self.space else "the common namespace"
        return f"<Shared, {where}: shared.m[key] reads and writes, `pyrokernel state ls` lists>"


@functools.cache
def of_this_process() -> Shared:
    """Return the shared state of the mesh that this process's settings name: in a kernel, its own mesh.

    Nothing is connected before it is used, nor imported what that takes: each kernel has this object, and few use it.
    """

    def reach() -> Mesh:
        from pyrokernel.client.mesh import connect

        return connect()

    return Shared(StateLink(reach))


def _the_namespace_here(space: str) -> Shared:
    return of_this_process().in_space(space)
