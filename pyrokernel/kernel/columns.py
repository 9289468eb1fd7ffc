"""Columns and rows of data frames and arrays, found without computing any. Runs in the kernel process.

NumPy and pandas are known by the names of their types: nothing is imported here.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from pyrokernel.kernel.attributes import get_attribute
from pyrokernel.kernel.reading import MISSING, SCAN_LIMIT, Unknown, find, is_compiled, module_of, mro, type_name


def pandas_kind(cls: type) -> str:
    """Return "DataFrame" or "Series" for these types of pandas and what derives from them, else ""."""
    for base in mro(cls):
        if type_name(base) in ("DataFrame", "Series") and module_of(base).partition(".")[0] == "pandas":
            return type_name(base)
    return ""


def is_array(value: Any) -> bool:
    """Tell whether this is a NumPy array, not an instance of a subclass."""
    kind = type(value)
    return type_name(kind) == "ndarray" and module_of(kind) == "numpy" and is_compiled(kind)


def column_labels(value: Any, limit: int = SCAN_LIMIT) -> list[str]:
    """Return the names of the columns of a DataFrame (the index of a Series, the fields of a record array)."""
    if pandas_kind(type(value)):
        axes = _pandas_axes(value)
        labels = _index_labels(axes[0], limit) if axes else []
    elif is_array(value):
        labels = list(get_attribute(get_attribute(value, "dtype"), "names") or ())
    else:
        return []
    return [label for label in labels if type(label) is str]


def stand_in(value: Any) -> Unknown:
    """Stand for one column of a value: pandas would compute it, its type is known."""
    module = find(sys.modules, "pandas")
    series = MISSING if module is MISSING else get_attribute(module, "Series")
    known = pandas_kind(type(value)) == "DataFrame" and issubclass(type(series), type)
    return Unknown(series if known else None)


def row_count(value: Any) -> int | None:
    """Return the number of rows of a DataFrame or Series, None when it cannot be known."""
    axes = _pandas_axes(value)
    return _axis_length(axes[-1]) if axes else None


def _pandas_axes(value: Any) -> list[Any]:
    axes = _pandas_field(_pandas_field(value, "_mgr"), "axes")
    return axes if type(axes) is list else []


def _index_labels(index: object, limit: int) -> list[Any]:
    levels = _pandas_field(index, "_levels")
    if issubclass(type(levels), (list, tuple)) and levels:
        return _index_labels(levels[0], limit)  # of a MultiIndex the outer level
    data = _pandas_field(index, "_data")
    if not is_array(data):
        arrow = _pandas_field(data, "_pa_array")
        if module_of(type(arrow)).partition(".")[0] == "pyarrow":
            return list(arrow.slice(0, limit).to_pylist())
        data = _pandas_field(data, "_ndarray")
    return list(data[:limit].tolist()) if is_array(data) else []


def _axis_length(index: object) -> int | None:
    span = _pandas_field(index, "_range")
    if type(span) is range:
        return len(span)
    data = _pandas_field(index, "_data")
    data = data if is_array(data) else _pandas_field(data, "_ndarray")
    return len(data) if is_array(data) else None


def _pandas_field(value: Any, name: str) -> Any:
    """Read a field of an object of pandas: in its dictionary, or a compiled class's own."""
    found = get_attribute(value, name)
    if type(found) is Unknown and type(found.raw) is types.GetSetDescriptorType:
        raw: Any = found.raw
        # Fields that Cython made public; a getter of any other extension is left alone.
        return raw.__get__(value) if module_of(raw.__objclass__).startswith("pandas._libs.") else MISSING
    return found
