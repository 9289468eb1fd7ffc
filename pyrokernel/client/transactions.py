"""Transaction: several keys read and written as one step. Runs in the caller's process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyrokernel.client.editing import writable
from pyrokernel.client.live import equal
from pyrokernel.client.shared_map import as_items
from pyrokernel.errors import StateError, StateKeyError

if TYPE_CHECKING:
    from pyrokernel.client.space import Space

_DELETED = object()


class Transaction:
    """Reads what is there, collects what is written, and writes all of it at the end, or nothing.

    Every key that was read must still be as it was read when the block ends; `expect` adds conditions.
    Nobody is kept from writing meanwhile: whoever comes first wins, and the other gets `StateConflictError`.

    What it hands out are copies of its own: a list, dict, set or array that is changed in place is written, too.

    Args:
        keys: The namespace.
    """

    def __init__(self, keys: Space) -> None:
        self._keys = keys
        self._seen: dict[str, tuple[int, Any]] = {}
        self._handed: dict[str, Any] = {}
        self._writes: dict[str, Any] = {}
        self._expected: list[dict[str, Any]] = []
        self._over = False

    def __getitem__(self, key: str) -> Any:
        """Return a copy of a value, or what was written in this transaction.

        Raises:
            StateKeyError: There is no such key; that it is not there is a condition then.
        """
        if key in self._writes:
            if self._writes[key] is _DELETED:
                raise StateKeyError(key=key)
            return self._writes[key]
        if key not in self._seen:
            try:
                value, revision, _ = self._keys.read(key)
                self._seen[key] = (revision, value)
                self._handed[key] = writable(value)
            except StateKeyError:
                self._seen[key] = (0, None)
        if not self._seen[key][0]:
            raise StateKeyError(key=key)
        return self._handed[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return a copy of a value, or a default."""
        try:
            return self[key]
        except StateKeyError:
            return default

    def __contains__(self, key: str) -> bool:
        return self.get(key, _DELETED) is not _DELETED

    def __setitem__(self, key: str, value: Any) -> None:
        self._writes[key] = value

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise StateKeyError(key=key)
        self._writes[key] = _DELETED

    def update(self, other: Any = (), /, **values: Any) -> None:
        """Set several keys."""
        self._writes.update(as_items(other, values))

    def expect(self, key: str, *, revision: int | None = None, exists: bool | None = None) -> None:
        """Add a condition: that a key has a revision (0 for no such key), or is there at all.

        Args:
            key: Which.
            revision: The one that it must have.
            exists: Whether it must be there.
        """
        if (revision is None) == (exists is None):
            raise StateError("expect() takes one condition: revision=... or exists=...")
        condition: dict[str, Any] = {"key": key}
        if revision is not None:
            condition["revision"] = revision
        else:
            condition["exists"] = exists
        self._expected.append(condition)

    def commit(self) -> list[int]:
        """Write everything; return the revisions. The end of the block does it.

        Raises:
            StateConflictError: A condition does not hold; nothing was written.
        """
        if self._over:
            raise StateError("this transaction is over; begin another one")
        self._over = True
        seen = [{"key": key, "revision": revision} for key, (revision, _) in self._seen.items()]
        for key, value in self._handed.items():
            if key not in self._writes and not equal(value, self._seen[key][1]):
                self._writes[key] = value
        writes = [self._write_of(key, value) for key, value in self._writes.items()]
        rows = self._keys.write(writes, [*seen, *self._expected])
        return [row[0] for row in rows]

    def _write_of(self, key: str, value: Any) -> dict[str, Any]:
        if value is _DELETED:
            return {"op": "delete", "key": key, "missing": True}
        return {**self._keys.write_of(key, value), "keep": key in self._seen}

    def abort(self) -> None:
        """Write nothing."""
        self._over = True

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and not self._over:
            self.commit()
        self._over = True

    def __iter__(self) -> Iterator[str]:
        raise TypeError("a transaction has no list of keys; read those that you need")
