"""`shared.m`: the shared state as a dict with string keys. Runs in the caller's process."""

from __future__ import annotations

import operator
import sys
import threading
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import TYPE_CHECKING, Any

from pyrokernel.client.augmented import PLAIN, UNKNOWN, difference, operator_before
from pyrokernel.client.live import same, to_plain
from pyrokernel.errors import StateConflictError, StateKeyError

if TYPE_CHECKING:
    from pyrokernel.client.shared import Shared
    from pyrokernel.client.space import Space

_MISSING = object()
_SHOWN = 20
_READS = 1000
"""Reads of a thread that are remembered: more of them in the right side of one `+=` are hard to imagine."""


def keys_of(mapping: SharedMap) -> Space:
    """Return the keys behind a mapping, for TAB and for whoever keeps what they hold."""
    return mapping._keys


class SharedMap(MutableMapping[str, Any]):
    """A mapping that a whole mesh shares; see `Shared` for what a dict cannot do.

    Keys are texts, in code-point order. What is read from it: lists, dicts and sets stay live, arrays are
    read-only, everything else is a copy. `m[key] += 1` loses nothing that others write meanwhile: it is
    applied to what they wrote, or raises `StateConflictError`.

    Example::

        shared.m["log"] = []
        shared.m["log"].append("begun")
        shared.m["runs"] = shared.m.get("runs", 0)
        shared.m["runs"] += 1

    Attributes:
        _keys, _shared: The namespace that it shows, as the client rooms and as users see it.
    """

    def __init__(self, keys: Space, shared: Shared) -> None:
        self._keys, self._shared = keys, shared
        self._local = threading.local()

    def __getitem__(self, key: str) -> Any:
        found, shown = self._keys.read_live(key)
        # What the end of a `+=` needs of it; containers know for themselves. The right side may read other keys.
        reads = self._reads()
        if len(reads) >= _READS:
            reads.clear()
        reads[key] = (found.revision, found.value if type(found.value) in (int, float) else None)
        self._local.last = key
        return shown

    def __setitem__(self, key: str, value: Any) -> None:
        sign = operator_before(sys._getframe(1))
        last, self._local.last = getattr(self._local, "last", None), None
        read = self._reads().pop(key, None)
        if sign == UNKNOWN and last != key:
            sign = PLAIN  # nothing says that the value comes from what was read
        if sign != PLAIN and same(value, self._keys, key):
            return  # the end of `m[key] += [...]`: the live list has written it
        value = to_plain(value)
        if sign == PLAIN:
            self._keys.set(key, value)
        elif read is None:
            raise StateConflictError(
                f"what {key!r} was when `{sign}` began is not known any more; nothing was written: do it in two steps",
                key=key,
                actual=0,
            )
        else:
            self._set_after(key, value, sign, *read)

    def _set_after(self, key: str, value: Any, sign: str, revision: int, before: Any) -> None:
        """Write what a `+=` has made of a value, on condition that nobody wrote since; a number is added to theirs."""
        try:
            self._keys.compare_and_set(key, value, revision, keep=True)
        except StateConflictError:
            added = difference(sign, before, value)
            if added is None or key not in self:
                raise
            self._keys.increment(key, added)

    def _reads(self) -> dict[str, tuple[int, Any]]:
        """Return what this thread has read lately: revision, and value of a number, by key."""
        reads: dict[str, tuple[int, Any]] | None = getattr(self._local, "reads", None)
        if reads is None:
            reads = self._local.reads = {}
        return reads

    def _forget(self, key: str) -> None:
        self._reads().pop(key, None)
        self._local.last = None

    def __delitem__(self, key: str) -> None:
        self._forget(key)
        self._keys.delete(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._keys.contains(key)

    def __len__(self) -> int:
        return self._keys.count()

    def __iter__(self) -> Iterator[str]:
        return self._keys.iterate_keys()

    def __reversed__(self) -> Iterator[str]:
        return iter(list(self)[::-1])

    def keys(self) -> KeysView[str]:
        """Return a live view of the keys."""
        return KeysView(self)

    def items(self) -> ItemsView[str, Any]:
        """Return a live view of keys and values, which reads many at a time."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """Return a live view of the values, which reads many at a time."""
        return _Values(self)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or a default."""
        try:
            return self[key]
        except StateKeyError:
            return default

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a key and return its value; of all who try at once, one gets it."""
        if len(default) > 1:
            raise TypeError(f"pop expected at most 2 arguments, got {1 + len(default)}")
        self._forget(key)
        try:
            return self._keys.pop(key)
        except StateKeyError:
            if default:
                return default[0]
            raise

    def popitem(self) -> tuple[str, Any]:
        """Remove the first key and return it with its value; of all who try at once, each gets another one."""
        while keys := self._keys.keys(limit=1):
            value = self.pop(keys[0], _MISSING)
            if value is not _MISSING:
                return keys[0], value
        raise KeyError("popitem(): the mapping is empty")

    def clear(self) -> None:
        """Remove all keys, at once."""
        self._reads().clear()
        self._keys.clear()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, after setting it if it is not there; of all who set at once, one does."""
        self._keys.setdefault(key, default)
        return self[key]

    def update(self, other: Any = (), /, **values: Any) -> None:
        """Set many keys at once: all of them or none."""
        self._reads().clear()
        self._keys.update(as_items(other, values))

    def copy(self) -> dict[str, Any]:
        """Return everything as an ordinary dict of ordinary values."""
        return {key: to_plain(value) for key, value in self.items()}

    def __or__(self, other: Any) -> dict[str, Any]:
        return self.copy() | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[str, Any]:
        return dict(other) | self.copy() if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> SharedMap:
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.copy() == (other.copy() if isinstance(other, SharedMap) else dict(other))

    __hash__ = None  # type: ignore[assignment]  # as a dict

    def __repr__(self) -> str:
        entries = self._keys.entries(limit=_SHOWN + 1)
        shown = ", ".join(f"{entry.key!r}: {entry.summary}" for entry in entries[:_SHOWN])
        return "{" + shown + (", ..." if len(entries) > _SHOWN else "") + "}"

    def __reduce__(self) -> Any:
        return operator.attrgetter("m"), (self._shared,)

    def _ipython_key_completions_(self) -> list[str]:
        return self._keys.complete_keys("")


class _Items(ItemsView[str, Any]):
    """Keys and values, many at a time."""

    _mapping: SharedMap

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._mapping._keys.iterate_items()

    def __reversed__(self) -> Iterator[tuple[str, Any]]:
        return iter(list(self)[::-1])

    def __repr__(self) -> str:
        return f"dict_items({list(self)!r})"


class _Values(ValuesView[Any]):
    """Values, many at a time."""

    _mapping: SharedMap

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping._keys.iterate_items())

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self)[::-1])

    def __contains__(self, value: object) -> bool:
        return any(one is value or one == value for one in self)

    def __repr__(self) -> str:
        return f"dict_values({list(self)!r})"


def as_items(other: Any, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what `update` was given as pairs, as a dict takes it."""
    if isinstance(other, Mapping):
        pairs: Iterable[Any] = other.items()
    elif hasattr(other, "keys"):
        pairs = ((key, other[key]) for key in other.keys())  # noqa: SIM118  whatever keys() returns
    else:
        pairs = other
    return [*dict(pairs).items(), *values.items()]
