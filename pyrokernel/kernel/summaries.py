"""Values in a few words, without running any `__repr__` of a user. Runs in the kernel process."""

from __future__ import annotations

import collections
import types
from typing import Any, Final

from pyrokernel.kernel.columns import column_labels, is_array, pandas_kind, row_count
from pyrokernel.kernel.reading import (
    FUNCTION_TYPES,
    MISSING,
    find,
    first_items,
    function_of,
    instance_dict,
    is_compiled,
    is_one_of,
    lookup,
    module_of,
    snapshot,
    type_name,
)

SUMMARY_LIMIT: Final = 200
"""Characters of a summary."""

_get_exception_args = BaseException.__dict__["args"].__get__


def summary(value: Any, limit: int = SUMMARY_LIMIT, *, call: str = "") -> str:
    """Show a value in at most `limit` characters; what is not of a known type is only named.

    Args:
        value: What to show.
        limit: Characters, at least 3.
        call: How it is called; shown behind the name of a function.
    """
    text = _render_function(value, call) or _render(value, 3)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def size(value: Any) -> int | None:
    """Return the number of items, elements or rows of a value of a known type, None for others."""
    for base in (str, bytes, bytearray, list, tuple, dict, set, frozenset, collections.deque, range):
        if issubclass(type(value), base):
            try:
                return int(base.__len__(value))
            except OverflowError:  # a range beyond sys.maxsize
                return None
    if is_array(value):
        return int(value.size)
    if pandas_kind(type(value)):
        return row_count(value)
    return None


def _render(value: Any, depth: int) -> str:
    kind = type(value)
    if kind is str or kind is bytes or kind is bytearray:
        return repr(value[:SUMMARY_LIMIT]) + ("..." if len(value) > SUMMARY_LIMIT else "")
    if kind is int:
        bits = value.bit_length()  # printing a long integer takes quadratic time, and Python refuses it
        return repr(value) if bits < 1000 else f"<int of {bits} bits>"
    if is_one_of(kind, (float, complex, bool, types.NoneType, types.EllipsisType, types.NotImplementedType)):
        return repr(value)
    if is_one_of(kind, (list, tuple, set, frozenset, dict, collections.deque)):
        return _render_container(value, kind, depth)
    return _render_other(value, kind, depth)


def _render_container(value: Any, kind: type, depth: int) -> str:
    marks = {"list": ("[", "]"), "tuple": ("(", ")"), "set": ("{", "}"), "dict": ("{", "}")}
    opening, closing = marks.get(kind.__name__, (f"{kind.__name__}([", "])"))
    limit = {3: 20, 2: 5}.get(depth, 2)
    more = ", ..." if len(value) > limit else ""
    if depth <= 0:
        inside, more = ("..." if value else ""), ""
    elif kind is dict:
        pairs = snapshot(value, limit)
        inside = ", ".join(f"{_render(key, depth - 1)}: {_render(item, depth - 1)}" for key, item in pairs)
    else:
        inside = ", ".join(_render(item, depth - 1) for item in first_items(value, limit))
    if kind is set and not inside:
        return "set()"
    if kind is tuple and len(value) == 1:
        more = ","
    return f"{opening}{inside}{more}{closing}"


def _render_other(value: Any, kind: type, depth: int) -> str:
    if issubclass(kind, type):
        return f"<class {module_of(value)}.{type_name(value)}>"
    if issubclass(kind, types.ModuleType):
        name = find(instance_dict(value), "__name__")
        return f"<module {name if type(name) is str else '?'}>"
    function = _render_function(value)
    if function:
        return function
    if is_array(value):
        return _render_array(value)
    if pandas_kind(kind):
        return _render_pandas(value)
    if issubclass(kind, BaseException):
        return type_name(kind) + _render(_get_exception_args(value), 1)
    if is_compiled(kind) and module_of(kind) == "datetime":
        return repr(value)
    if is_compiled(kind) and module_of(kind) == "numpy" and lookup(kind, "item") is not MISSING:
        item = value.item()
        if is_one_of(type(item), (bool, int, float, complex, str, bytes)):
            return _render(item, depth)
    count = size(value)
    return f"<{module_of(kind)}.{type_name(kind)}{'' if count is None else f', {count} items'}>"


def _render_function(value: Any, call: str = "") -> str:
    """Name the Python function that `value` is or stands for; "" when it is none."""
    function: Any = function_of(value) if is_one_of(type(value), FUNCTION_TYPES) else MISSING
    return "" if function is MISSING else f"<function {function.__qualname__}{call}>"


def _render_array(value: Any) -> str:
    kinds = {"f": "float", "i": "int", "u": "uint", "c": "complex"}
    dtype = value.dtype
    word = kinds.get(dtype.kind)
    name = f"{word}{dtype.itemsize * 8}" if word else {"b": "bool", "O": "object"}.get(dtype.kind, dtype.str)
    few = f": {_render(value.tolist(), 2)}" if value.size <= 20 and dtype.kind in "fiucbSU" else ""
    return f"<array {name} {value.shape}{few}>"


def _render_pandas(value: Any) -> str:
    rows = row_count(value)
    shown = "?" if rows is None else rows
    if pandas_kind(type(value)) == "Series":
        return f"<Series, {shown} rows>"
    labels = column_labels(value, 20)
    return f"<DataFrame, {shown} rows: {', '.join(labels)}>"
