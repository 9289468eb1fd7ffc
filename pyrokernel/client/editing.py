"""A value changed in several steps, as one: read, changed, written back. Runs in the caller's process."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pyrokernel.client.live import copied, equal, to_plain
from pyrokernel.errors import StateConflictError, StateKeyError, StateTypeError

if TYPE_CHECKING:
    from pyrokernel.client.space import Space

T = TypeVar("T")

MISSING = object()
_PATIENCE_SECONDS = 30.0
_FIXED = (int, float, complex, str, bytes, tuple, frozenset, type(None))
"""What nothing can change in place."""


@contextlib.contextmanager
def edit(space: Space, key: str) -> Iterator[Any]:
    """Hand out a copy of a value to change, and write it back at the end of the block; see `Shared.edit`."""
    found = space.read(key)
    value = writable(found.value)
    if isinstance(value, _FIXED):
        raise StateTypeError(
            f"{key!r} is of type {type(value).__name__}, which cannot be changed in place; "
            f"use shared.modify({key!r}, function), or assign to shared.m[{key!r}]"
        )
    yield value
    if equal(value, found.value):
        warnings.warn(
            f"edit({key!r}) ends without a change: what it hands out is to be changed in place, and a name that is "
            "assigned anew is not written",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    space.compare_and_set(key, value, found.revision, keep=True)


def modify(space: Space, key: str, change: Callable[[Any], Any], default: Any) -> Any:
    """Set a key to what a function makes of its value, again until nobody has interfered; see `Shared.modify`."""
    if not callable(change):
        raise StateTypeError(f"modify({key!r}, ...) takes a function of the value, not {change!r:.80}")

    def once() -> Any:
        try:
            found, revision, _ = space.read(key)
        except StateKeyError:
            if default is MISSING:
                raise
            found, revision = default, 0
        value = change(writable(found))
        if value is None and isinstance(found, (list, dict, set)):
            raise StateTypeError(
                f"the function for {key!r} returned None: it is to return the value; to change one in place, "
                f"`with shared.edit({key!r}) as value: ...`"
            )
        space.compare_and_set(key, value, revision, keep=True)
        return value

    return until_undisturbed(once)


def until_undisturbed(attempt: Callable[[], T]) -> T:
    """Do something again until it meets no conflict; return what it returns.

    Raises:
        StateConflictError: Others were quicker for half a minute.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return attempt()
        except StateConflictError:
            if time.monotonic() >= deadline:
                raise


def writable(value: Any) -> Any:
    """Return a copy of a value as deep as containers go, with arrays that can be written to."""
    return copied(value, _writable_leaf)


def _writable_leaf(value: Any) -> Any:
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return value.copy()
    return to_plain(value)
