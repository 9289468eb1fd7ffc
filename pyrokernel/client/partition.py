"""Splitting a sequence over kernels and joining parts again. Pure. Runs in the caller's process."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from pyrokernel.errors import NotSerializableError


def split(items: Any, parts: int) -> list[Any]:
    """Cut a sequence into consecutive parts whose lengths differ by at most one.

    Args:
        items: A list, tuple, string, range, array (its first axis), or any iterable.
        parts: How many, at least 1.

    Returns:
        The parts in order, shape (parts,), of the same type as `items` where it can be sliced,
        else lists. Later parts are empty when there are fewer items than parts.

    Raises:
        NotSerializableError: `items` is neither a sequence nor iterable.
    """
    if not hasattr(items, "__getitem__") or not hasattr(items, "__len__") or isinstance(items, dict):
        try:
            items = list(items.items()) if isinstance(items, dict) else list(items)
        except TypeError as error:
            raise NotSerializableError(f"cannot scatter a {type(items).__name__}: it has no items") from error
    size, longer = divmod(len(items), parts)
    bounds = [index * size + min(index, longer) for index in range(parts + 1)]
    # pandas slices rows by position only through .iloc.
    sliced = items.iloc if hasattr(items, "iloc") else items
    return [sliced[start:stop] for start, stop in itertools.pairwise(bounds)]


def join(parts: Sequence[Any]) -> Any:
    """Put parts together in order: arrays concatenated, strings and bytes joined, anything else as one list.

    Args:
        parts: What the kernels returned; shape (n_kernels,).
    """
    if not parts:
        return []
    first = parts[0]
    if type(first).__module__.partition(".")[0] == "numpy" and all(getattr(part, "ndim", 0) for part in parts):
        import numpy

        return numpy.concatenate(parts)
    if type(first).__module__.partition(".")[0] == "pandas" and hasattr(first, "iloc"):
        import pandas  # type: ignore[import-untyped, unused-ignore]  # optional: only where the parts come from it

        return pandas.concat(parts)
    if all(isinstance(part, str) for part in parts):
        return "".join(parts)
    if all(isinstance(part, (bytes, bytearray)) for part in parts):
        return b"".join(parts)
    joined: list[Any] = []
    for part in parts:
        if isinstance(part, (list, tuple, range)):
            joined.extend(part)
        else:
            joined.append(part)
    return joined
