"""Docstrings, and the source of functions and classes, also of those defined in a cell. Runs in the kernel process."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
import types
from typing import Any, Final

from pyrokernel.kernel.reading import (
    FUNCTION_TYPES,
    MISSING,
    Unknown,
    find,
    function_of,
    instance_dict,
    is_one_of,
    lookup,
    module_of,
    snapshot,
    type_dict,
    type_name,
)

TEXT_LIMIT: Final = 100_000
"""Characters of a docstring or a source that are returned."""

_BLOCK_LINES: Final = 10_000
_CELLS_SEARCHED: Final = 500

# Asking the class would run the `__getattribute__` of its metaclass.
_get_qualname = type.__dict__["__qualname__"].__get__


def docstring(value: Any) -> str:
    """Return the docstring of an object, of its type when it is a plain value; "" when there is none."""
    if type(value) is Unknown:
        if value.raw is None:
            return "" if value.cls is None else docstring(value.cls)
        return docstring(value.raw)
    kind = type(value)
    own = find(instance_dict(value), "__doc__")
    if own is not MISSING or issubclass(kind, types.ModuleType):
        text = own
    elif issubclass(kind, type):
        text = lookup(value, "__doc__")
    elif is_one_of(kind, (*FUNCTION_TYPES, property, types.GetSetDescriptorType, types.MemberDescriptorType)):
        function = function_of(value)
        text = getattr(value if function is MISSING else function, "__doc__", None)
    else:
        text = lookup(kind, "__doc__")
    return inspect.cleandoc(text[:TEXT_LIMIT]) if type(text) is str else ""


def source_of(value: Any) -> str:
    """Return the source of a function or class, also of one defined in a cell; "" when it is not kept."""
    if issubclass(type(value), type):
        return _class_source(value)
    function = function_of(value)
    if function is MISSING:
        return ""
    code = function.__code__
    return _block(linecache.getlines(code.co_filename), code.co_firstlineno - 1)


def _class_source(cls: type) -> str:
    """Find a class by its methods, which know their file; else in its module's file, else in a recent cell."""
    header = re.compile(rf"\s*class\s+{re.escape(type_name(cls))}\b")
    for _, raw in snapshot(type_dict(cls)):
        function = function_of(raw)
        if function is not MISSING and function.__code__.co_qualname.startswith(f"{_get_qualname(cls)}."):
            lines = linecache.getlines(function.__code__.co_filename)
            for at in range(min(function.__code__.co_firstlineno, len(lines)) - 1, -1, -1):
                if header.match(lines[at]):
                    return _block(lines, _first_decorator(lines, at))
    module = find(sys.modules, module_of(cls))
    file = MISSING if module is MISSING else find(instance_dict(module), "__file__")
    cells = [name for name, _ in snapshot(linecache.cache) if type(name) is str and name.startswith("<")]
    for name in [file] if type(file) is str else reversed(cells[-_CELLS_SEARCHED:]):
        lines = linecache.getlines(name)
        for at, line in enumerate(lines):
            if header.match(line):
                return _block(lines, _first_decorator(lines, at))
    return ""


def _first_decorator(lines: list[str], at: int) -> int:
    while at > 0 and lines[at - 1].lstrip().startswith("@"):
        at -= 1
    return at


def _block(lines: list[str], start: int) -> str:
    if not 0 <= start < len(lines):
        return ""
    return "".join(inspect.getblock(lines[start : start + _BLOCK_LINES]))[:TEXT_LIMIT]
