"""Lists, dicts and sets of the shared state that stay live. Runs in the caller's process.

A live container shows what is stored now: each look asks whether there is something newer. Each
change is one atomic edit: the value is fetched, changed, and written back on condition that nobody
else has written meanwhile; else all of it is done again. None of them is a `list`, `dict` or `set`:
C code that knows those changes them behind our back, and what it did would be lost.
"""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping, MutableSequence, MutableSet
from typing import Any, Protocol, TypeVar

from pyrokernel.client.arrays import read_only
from pyrokernel.client.augmented import PLAIN, UNKNOWN, difference, operator_before
from pyrokernel.errors import StateConflictError, StateKeyError
from pyrokernel.wire.values import encode_value

T = TypeVar("T")

_MISSING = object()
_READS = 100
"""Reads of one view that are remembered."""
_PATIENCE_SECONDS = 30.0
"""How long an edit is tried again because others were quicker."""


class Source(Protocol):
    """Where the value of a key comes from and goes to (`space.Space`)."""

    def fetch(self, key: str, unless: int = 0) -> tuple[int, Any]:
        """Return revision and a fresh copy of the value; `NEWEST` for one that is known already."""

    def compare_and_set(self, key: str, value: Any, revision: int, *, keep: bool = False) -> int:
        """Write a value on condition of a revision; `keep` leaves the key the time that it has."""


NEWEST = object()
"""Stands for a value of which the caller has the newest version."""


class Stored:
    """A key of the shared state, and its value as it was seen last.

    Args:
        source: Where it comes from.
        key: Which.
        value, revision: As seen last.
    """

    def __init__(self, source: Source, key: str, value: Any, revision: int) -> None:
        self.source, self.key = source, key
        self.value, self.revision = value, revision

    def refresh(self) -> Any:
        """Return the value as it is now.

        Raises:
            StateKeyError: The key is gone.
        """
        revision, value = self.source.fetch(self.key, self.revision)
        if value is not NEWEST:
            self.value, self.revision = value, revision
        return self.value

    def edit(self, change: Callable[[Any], T]) -> T:
        """Change a copy of the value and write it back, again and again until nobody was quicker.

        Args:
            change: Gets the value, changes it in place, and may be called several times.

        Raises:
            StateConflictError: Others were quicker for half a minute.
            StateKeyError: The key is gone.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            revision, value = self.source.fetch(self.key)
            result = change(value)
            try:
                self.revision = self.source.compare_and_set(self.key, value, revision, keep=True)
            except StateConflictError:
                if time.monotonic() >= deadline:
                    raise
                continue
            self.value = value
            return result


class View:
    """A container within a stored value.

    Args:
        stored: The value.
        path: The keys and indices that lead to the container.
        shown: The container as it was when this view was made.
    """

    _kind: type = object

    def __init__(self, stored: Stored, path: tuple[Any, ...], shown: Any) -> None:
        self._stored, self._path, self._shown = stored, path, shown
        self._reads: list[tuple[Any, Any]] = []

    def _now(self) -> Any:
        """Return the container as it is now."""
        found = self._walk(self._stored.refresh())
        self._shown = found
        return found

    def _walk(self, value: Any) -> Any:
        """Follow the path in a value.

        Raises:
            StateConflictError: It leads nowhere any more, or to something else.
        """
        by_index = False
        for step in self._path:
            by_index = by_index or not isinstance(value, dict)
            try:
                value = value[step]
            except (LookupError, TypeError) as error:
                raise self._moved() from error
        if type(value) is not self._kind:
            raise self._moved()
        # In a list an index may lead to another item than it did: only an equal one is taken for the same.
        if by_index and not equal(value, self._shown):
            raise self._moved()
        return value

    def _moved(self) -> StateConflictError:
        where = "".join(f"[{step!r}]" for step in self._path)
        return StateConflictError(
            f"{self._stored.key!r}: what was at {where or 'its root'} is not there any more, or was changed; "
            "nothing was written: read it again",
            key=self._stored.key,
            actual=self._stored.revision,
        )

    def _edit(self, change: Callable[[Any], T]) -> T:
        """Change the container where it is stored."""

        def at_path(value: Any) -> T:
            container = self._walk(value)
            result = change(container)
            self._shown = container
            return result

        return self._stored.edit(at_path)

    def _noted(self, step: Any, value: Any) -> Any:
        """Remember what was read of an item: the end of a `+=` needs it, and its right side may read others."""
        del self._reads[:-_READS]
        self._reads.append((step, value))
        return value

    def _item(self, step: Any, value: Any) -> Any:
        return live(value, self._stored, (*self._path, step))

    def _assign(self, step: Any, value: Any, sign: str) -> None:
        """Set an item; after a `+=` only if the item is still what was read, or a number to which is added."""
        before = next((value for at, value in reversed(self._reads) if at == step), _MISSING)
        self._reads.clear()
        if sign != PLAIN and isinstance(before, View):
            return  # the end of `view[step] += [...]`: the inner container has written it
        value = to_plain(value)
        if sign == PLAIN or (sign == UNKNOWN and before is _MISSING):
            self._edit(lambda container: container.__setitem__(step, value))
            return
        if before is _MISSING:
            raise self._moved()

        def change(container: Any) -> None:
            now = container[step]
            if equal(now, before):
                container[step] = value
                return
            added = difference(sign, before, value)
            if added is None or type(now) not in (int, float):
                raise StateConflictError(key=self._stored.key, actual=self._stored.revision)
            container[step] = now + added

        self._edit(change)

    def to_plain(self) -> Any:
        """Return an ordinary container of the same content, which changes nothing here."""
        return copied(self._now())

    copy = to_plain

    def __reduce__(self) -> Any:
        return _as_is, (self.to_plain(),)

    def __deepcopy__(self, memo: Any) -> Any:
        return self.to_plain()

    __copy__ = to_plain

    def __repr__(self) -> str:
        try:
            return repr(self._now())
        except (StateKeyError, StateConflictError):
            return f"<what {self._stored.key!r} held once, and holds no more: {self._shown!r}>"

    def __eq__(self, other: object) -> bool:
        return bool(self._now() == (other._now() if isinstance(other, View) else other))

    __hash__ = None  # type: ignore[assignment]  # as those of what it shows

    def __len__(self) -> int:
        return len(self._now())

    def __contains__(self, item: object) -> bool:
        return to_plain(item) in self._now()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


class LiveList(View, MutableSequence[Any]):
    """A list within the shared state."""

    _kind = list

    def __getitem__(self, index: Any) -> Any:
        now = self._now()
        if isinstance(index, slice):
            places = range(*index.indices(len(now)))
            return [self._item(place, now[place]) for place in places]
        if not 0 <= (place := _place(index, len(now))) < len(now):
            raise IndexError("list index out of range")
        return self._noted(index, self._item(place, now[place]))

    def __iter__(self) -> Iterator[Any]:
        return iter([self._item(place, value) for place, value in enumerate(self._now())])

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            values = to_plain(list(value))
            self._edit(lambda container: container.__setitem__(index, values))
            return
        self._assign(index, value, operator_before(sys._getframe(1)))

    def __delitem__(self, index: Any) -> None:
        self._edit(lambda container: container.__delitem__(index))

    def insert(self, index: int, value: Any) -> None:
        """Insert before an index."""
        self._edit(lambda container: container.insert(index, to_plain(value)))

    def append(self, value: Any) -> None:
        """Add at the end."""
        self._edit(lambda container: container.append(to_plain(value)))

    def extend(self, values: Iterable[Any]) -> None:
        """Add several at the end, together."""
        added = to_plain(list(values))
        self._edit(lambda container: container.extend(added))

    def pop(self, index: int = -1) -> Any:
        """Remove an item and return it."""
        return self._edit(lambda container: container.pop(index))

    def remove(self, value: Any) -> None:
        """Remove the first item that is equal."""
        self._edit(lambda container: container.remove(to_plain(value)))

    def clear(self) -> None:
        """Remove all."""
        self._edit(lambda container: container.clear())

    def reverse(self) -> None:
        """Reverse in place."""
        self._edit(lambda container: container.reverse())

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sort in place."""
        self._edit(lambda container: container.sort(key=key, reverse=reverse))

    def index(self, value: Any, start: int = 0, stop: int = sys.maxsize) -> int:
        """Return the index of the first item that is equal."""
        return int(self._now().index(to_plain(value), start, stop))

    def count(self, value: Any) -> int:
        """Return how many items are equal."""
        return int(self._now().count(to_plain(value)))

    def __iadd__(self, values: Iterable[Any]) -> LiveList:  # type: ignore[misc]  # as a list does
        self.extend(values)
        return self

    def __imul__(self, number: int) -> LiveList:
        self._edit(lambda container: container.__imul__(number))
        return self

    def __add__(self, other: Any) -> Any:
        return self.to_plain() + to_plain(other)

    def __radd__(self, other: Any) -> Any:
        return other + self.to_plain()

    def __mul__(self, number: int) -> Any:
        return self.to_plain() * number

    __rmul__ = __mul__

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self)[::-1])

    def __lt__(self, other: Any) -> bool:
        return bool(self._now() < to_plain(other))

    def __le__(self, other: Any) -> bool:
        return bool(self._now() <= to_plain(other))

    def __gt__(self, other: Any) -> bool:
        return bool(self._now() > to_plain(other))

    def __ge__(self, other: Any) -> bool:
        return bool(self._now() >= to_plain(other))

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        import numpy  # it asks

        return numpy.array(self._now(), dtype=dtype)


class LiveDict(View, MutableMapping[Any, Any]):
    """A dict within the shared state."""

    _kind = dict

    def __getitem__(self, key: Any) -> Any:
        return self._noted(key, self._item(key, self._now()[key]))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._assign(key, value, operator_before(sys._getframe(1)))

    def __delitem__(self, key: Any) -> None:
        self._edit(lambda container: container.__delitem__(key))

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._now()))

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self._now())[::-1])

    def pop(self, key: Any, *default: Any) -> Any:
        """Remove a key and return its value."""
        return self._edit(lambda container: container.pop(key, *default))

    def popitem(self) -> tuple[Any, Any]:
        """Remove the item that was added last and return it."""
        key, value = self._edit(lambda container: container.popitem())
        return key, value

    def clear(self) -> None:
        """Remove all."""
        self._edit(lambda container: container.clear())

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, after setting it if it is not there."""
        plain = to_plain(default)
        return self._item(key, self._edit(lambda container: container.setdefault(key, plain)))

    def update(self, *others: Any, **items: Any) -> None:
        """Set several items, together."""
        plain = to_plain(dict(*others, **items))
        self._edit(lambda container: container.update(plain))

    def __or__(self, other: Any) -> Any:
        return self.to_plain() | to_plain(other)

    def __ror__(self, other: Any) -> Any:
        return to_plain(other) | self.to_plain()

    def __ior__(self, other: Any) -> LiveDict:
        self.update(other)
        return self

    def _ipython_key_completions_(self) -> list[Any]:
        return list(self._now())


class LiveSet(View, MutableSet[Any]):
    """A set within the shared state."""

    _kind = set

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._now()))

    @classmethod
    def _from_iterable(cls, items: Iterable[Any]) -> Any:
        return set(items)

    def add(self, value: Any) -> None:
        """Add an item."""
        self._edit(lambda container: container.add(value))

    def discard(self, value: Any) -> None:
        """Remove an item if it is there."""
        self._edit(lambda container: container.discard(value))

    def remove(self, value: Any) -> None:
        """Remove an item."""
        self._edit(lambda container: container.remove(value))

    def pop(self) -> Any:
        """Remove any item and return it."""
        return self._edit(lambda container: container.pop())

    def clear(self) -> None:
        """Remove all."""
        self._edit(lambda container: container.clear())

    def update(self, *others: Iterable[Any]) -> None:
        """Add the items of others, together."""
        plain = [set(other) for other in others]
        self._edit(lambda container: container.update(*plain))

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Remove the items of others, together."""
        plain = [set(other) for other in others]
        self._edit(lambda container: container.difference_update(*plain))

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Keep the items that all others have, too."""
        plain = [set(other) for other in others]
        self._edit(lambda container: container.intersection_update(*plain))

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        """Keep the items that only one of both has."""
        plain = set(other)
        self._edit(lambda container: container.symmetric_difference_update(plain))

    def union(self, *others: Iterable[Any]) -> set[Any]:
        """Return the items of all."""
        return set(self._now()).union(*others)

    def intersection(self, *others: Iterable[Any]) -> set[Any]:
        """Return the items that all have."""
        return set(self._now()).intersection(*others)

    def difference(self, *others: Iterable[Any]) -> set[Any]:
        """Return the items that no other has."""
        return set(self._now()).difference(*others)

    def symmetric_difference(self, other: Iterable[Any]) -> set[Any]:
        """Return the items that only one of both has."""
        return set(self._now()).symmetric_difference(other)

    def issubset(self, other: Iterable[Any]) -> bool:
        """Whether another has all items."""
        return set(self._now()).issubset(other)

    def issuperset(self, other: Iterable[Any]) -> bool:
        """Whether it has all items of another."""
        return set(self._now()).issuperset(other)

    def __ior__(self, other: Any) -> LiveSet:  # type: ignore[misc]  # one edit, not one an item
        self.update(other)
        return self

    def __iand__(self, other: Any) -> LiveSet:  # type: ignore[misc]
        self.intersection_update(other)
        return self

    def __isub__(self, other: Any) -> LiveSet:  # type: ignore[misc]
        self.difference_update(other)
        return self

    def __ixor__(self, other: Any) -> LiveSet:  # type: ignore[misc]
        self.symmetric_difference_update(other)
        return self


_VIEWS: dict[type, type[View]] = {list: LiveList, dict: LiveDict, set: LiveSet}


def live(value: Any, stored: Stored, path: tuple[Any, ...] = ()) -> Any:
    """Return a value of the shared state as its user gets it: containers live, arrays read-only, others as they are."""
    kind = type(value)
    view = _VIEWS.get(kind)
    if view is not None:
        return view(stored, path, value)
    if kind is tuple:
        return tuple(live(item, stored, (*path, place)) for place, item in enumerate(value))
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return read_only(value, stored.key)
    return value


def _place(index: Any, length: int) -> int:
    """Return where an index leads in a list.

    Raises:
        TypeError: It is no index.
    """
    if not hasattr(index, "__index__"):
        raise TypeError(f"list indices must be integers or slices, not {type(index).__name__}")
    place = operator.index(index)
    return place + length if place < 0 else place


def to_plain(value: Any) -> Any:
    """Return a value with live containers as ordinary ones, also inside ordinary ones."""
    kind = type(value)
    if isinstance(value, View):
        try:
            return value.to_plain()
        except (StateKeyError, StateConflictError):
            return copied(value._shown)  # what it was when it was looked at last
    if kind is list:
        return [to_plain(item) for item in value]
    if kind is tuple:
        return tuple(to_plain(item) for item in value)
    if kind is dict:
        return {key: to_plain(item) for key, item in value.items()}
    return value


def equal(one: Any, other: Any) -> bool:
    """Whether two plain values are the same; arrays by their content, and what is not equal to itself, such as nan."""
    kind = type(one)
    if one is other or kind is not type(other):
        return one is other
    if kind in (list, tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if kind is dict:
        return list(one) == list(other) and all(map(equal, one.values(), other.values()))
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    try:
        return bool(one == other or (one != one and other != other))
    except ValueError:  # an array in it, of which == makes another array
        return encode_value(one).parts == encode_value(other).parts


def same(view: Any, source: Source, key: str) -> bool:
    """Whether a value is the live container of that very key: what `m[key] += ...` assigns has been written already."""
    return isinstance(view, View) and view._path == () and view._stored.source is source and view._stored.key == key


def _as_is(value: Any) -> Any:
    return value


def copied(value: Any, leaf: Callable[[Any], Any] = _as_is) -> Any:
    """Return a copy of a plain container, deep as far as containers go; what they hold at last goes through `leaf`."""
    kind = type(value)
    if kind is list:
        return [copied(item, leaf) for item in value]
    if kind is dict:
        return {key: copied(item, leaf) for key, item in value.items()}
    if kind is tuple:
        return tuple(copied(item, leaf) for item in value)
    return set(value) if kind is set else leaf(value)
