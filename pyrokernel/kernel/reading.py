"""Objects as they lie, read without running any code of their owner. Runs in the kernel process.

Completion and inspection answer from a control thread while a cell runs, so objects are read from
type dictionaries, instance dictionaries and slots. A property, a user's descriptor, `__getattr__`,
`__repr__`, `__len__`, `__dir__`, `__eq__` or `__hash__` never runs. Two habits follow, here and in
the rooms that build on this one: a type is asked with `issubclass(type(x), T)`, because `isinstance`
reads `x.__class__`; and types are compared with `is`, because a metaclass may define `__eq__`.
"""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

SCAN_LIMIT: Final = 100_000
"""Entries of one mapping that are looked at; what lies beyond is not found."""

MISSING: Final = object()

TUPLE_GETTER: Final = type(NamedTuple("_", [("field", int)]).__dict__["field"])
"""Type of the fields of a named tuple."""

BUILTIN_CALLABLES: Final = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
)
FUNCTION_TYPES: Final = (types.FunctionType, types.MethodType, staticmethod, classmethod, *BUILTIN_CALLABLES)

_FUNCTION_NAMES: Final = frozenset(
    {"ufunc", "_ArrayFunctionDispatcher", "cython_function_or_method", "_lru_cache_wrapper", "partial"}
    | {"BoundCommand"}
)
"""Types of functions that cannot be imported here, by name."""

_RETRIES: Final = 8

_Item = TypeVar("_Item")

# The getters of `type` itself: `cls.__mro__` would run the `__getattribute__` of a metaclass.
_TYPE: Final = type.__dict__
_get_mro = _TYPE["__mro__"].__get__
_get_type_dict = _TYPE["__dict__"].__get__
_get_name = _TYPE["__name__"].__get__
_get_module = _TYPE["__module__"].__get__
_get_flags = _TYPE["__flags__"].__get__


class Unknown:
    """A value that was not computed: its type, where known, and the attribute that would give it.

    Attributes:
        cls: Type of the value, or None.
        raw: The property or descriptor found in its place, or None.
    """

    __slots__ = ("cls", "raw")

    def __init__(self, cls: type | None = None, raw: object = None) -> None:
        self.cls = cls
        self.raw = raw


# -- types


def is_one_of(kind: type, kinds: Iterable[type]) -> bool:
    """Tell whether `kind` is one of `kinds`, by identity."""
    return any(kind is other for other in kinds)


def type_name(cls: type) -> str:
    """Return the name of a type."""
    return str.__str__(_get_name(cls))


def module_of(cls: type) -> str:
    """Return the name of the module of a type, "" when it says none."""
    name = _get_module(cls)
    return name if type(name) is str else ""


def is_compiled(kind: type) -> bool:
    """Tell whether a type was written in C and cannot be changed: no statement of Python makes one."""
    return not _get_flags(kind) & 1 << 9  # Py_TPFLAGS_HEAPTYPE


def mro(cls: type) -> tuple[type, ...]:
    """Return the bases of a type in lookup order, itself first."""
    return _get_mro(cls) or ()


def type_dict(cls: type) -> Mapping[str, Any]:
    """Return the dictionary of a type, read-only."""
    mapping: Mapping[str, Any] = _get_type_dict(cls)
    return mapping


# -- dictionaries


def first_items(values: Iterable[_Item], limit: int = SCAN_LIMIT) -> list[_Item]:
    """Copy the first items of a container, or of a view of one, that other threads may change meanwhile."""
    items: list[_Item] = []
    for _ in range(_RETRIES):
        items = []
        try:
            items.extend(itertools.islice(values, limit))
        except RuntimeError:  # it changed size while it was read; the part read in the last try will do
            continue
        break
    return items


def snapshot(mapping: Mapping[Any, Any] | None, limit: int = SCAN_LIMIT) -> list[tuple[Any, Any]]:
    """Copy the first items of a dict that other threads may change meanwhile.

    Args:
        mapping: A dict (the methods of a subclass are passed by), a type's dictionary, or None.
        limit: How many items to take.
    """
    if mapping is None:
        return []
    is_dict = issubclass(type(mapping), dict)
    return first_items(dict.items(mapping) if is_dict else mapping.items(), limit)  # type: ignore[arg-type]


def find(mapping: Mapping[Any, Any] | None, key: object) -> Any:
    """Return the item whose key has the same built-in type and value, MISSING when there is none.

    A plain lookup would call the `__eq__` of any key with the same hash.
    """
    kind = type(key)
    for other, value in snapshot(mapping):
        if type(other) is kind and other == key:
            return value
    return MISSING


def lookup(cls: type, name: str) -> Any:
    """Find an attribute in a type and its bases, as it is stored there."""
    for base in mro(cls):
        raw = find(type_dict(base), name)
        if raw is not MISSING:
            return raw
    return MISSING


def instance_dict(value: Any) -> dict[Any, Any] | None:
    """Return the dictionary of an object, None when it has none or hides it behind a property."""
    raw = lookup(type(value), "__dict__")
    if is_one_of(type(raw), (types.GetSetDescriptorType, types.MemberDescriptorType)):
        found: dict[Any, Any] | None = raw.__get__(value)
        if issubclass(type(found), dict):
            return found
    return None


# -- what something is


def word_for(value: Any) -> str:
    """Say in one word what something is: "function", "class", "module", "property", or its type's name."""
    kind = type(value)
    if kind is Unknown:
        if value.raw is None and value.cls is not None:
            return type_name(value.cls)
        return "property" if value.raw is None else word_for(value.raw)
    if issubclass(kind, type):
        return "class"
    if issubclass(kind, types.ModuleType):
        return "module"
    if is_one_of(kind, FUNCTION_TYPES) or type_name(kind) in _FUNCTION_NAMES:
        return "function"
    if issubclass(kind, property) or is_one_of(
        kind, (functools.cached_property, types.GetSetDescriptorType, types.MemberDescriptorType, TUPLE_GETTER)
    ):
        return "property"
    return type_name(kind)


def function_of(value: Any) -> Any:
    """Return the Python function behind a method, property, or decorated function; MISSING when there is none."""
    for _ in range(10):
        kind = type(value)
        wrapped = MISSING if issubclass(kind, type) or kind is Unknown else find(instance_dict(value), "__wrapped__")
        if wrapped is not MISSING:
            value = wrapped
        elif kind is types.FunctionType:
            return value
        elif is_one_of(kind, (types.MethodType, staticmethod, classmethod)):
            value = value.__func__
        elif kind is property:
            value = value.fget
        elif kind is functools.cached_property:
            value = find(instance_dict(value), "func")
        elif kind is Unknown and value.raw is not None:
            value = value.raw
        else:
            return MISSING
    return MISSING
