"""Attributes of an object as stored, and what reading one would give. Runs in the kernel process.

The rules of attribute access are followed by hand, and each descriptor is asked only when it is known
to do nothing but read a field; for all others an `Unknown` stands in.
"""

from __future__ import annotations

import builtins
import functools
import sys
import types
from typing import Any, Final

from pyrokernel.kernel.reading import (
    FUNCTION_TYPES,
    MISSING,
    TUPLE_GETTER,
    Unknown,
    find,
    instance_dict,
    is_one_of,
    lookup,
    module_of,
    mro,
    snapshot,
    type_dict,
    type_name,
    word_for,
)

# Getters written in C that do nothing but read a field. Not every one is: Cython compiles a property to the same.
_PLAIN_OWNERS: Final = (int, float, complex, slice, BaseException, types.FunctionType, types.BuiltinFunctionType)
_PLAIN_TYPE_FIELDS: Final = frozenset({"__name__", "__qualname__", "__module__", "__bases__"})
_PLAIN_ARRAY_FIELDS: Final = frozenset({"T", "dtype", "shape", "strides", "real", "imag", "flat", "size", "ndim"})
_PLAIN_DTYPE_FIELDS: Final = frozenset({"names", "fields", "shape", "str"})


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object by name, as stored: nothing is bound or computed."""
    if type(value) is Unknown:
        layers = [] if value.cls is None else [type_dict(base) for base in mro(value.cls)]
    elif issubclass(type(value), type):
        layers = [type_dict(base) for base in mro(value)]
    else:
        layers = [instance_dict(value) or {}, *(type_dict(base) for base in mro(type(value)))]
    found: dict[str, Any] = {}
    for layer in layers:
        for name, raw in snapshot(layer):
            if type(name) is str:
                found.setdefault(name, raw)
    if issubclass(type(value), types.ModuleType):
        for name, module in submodules(value).items():
            found.setdefault(name, module)
    return found


def get_attribute(value: Any, name: str) -> Any:
    """Return `value.name` as far as it can be read without running code.

    Returns:
        The value, an `Unknown` for what would have to be computed, MISSING when there is no such attribute.
    """
    held: Any = MISSING
    if type(value) is Unknown:
        if value.cls is None:
            return MISSING
        owner = value.cls
    elif issubclass(type(value), type):
        return _class_attribute(value, name)
    else:
        owner = type(value)
        held = find(instance_dict(value), name)
    raw = lookup(owner, name)
    if held is not MISSING and (raw is MISSING or lookup(type(raw), "__set__") is MISSING):
        return held
    if raw is not MISSING:
        return _bind(raw, value, owner)
    return submodules(value).get(name, MISSING) if issubclass(owner, types.ModuleType) else MISSING


def submodules(module: object) -> dict[str, Any]:
    """Return the loaded submodules of a module by their short name."""
    name = find(instance_dict(module), "__name__")
    if type(name) is not str:
        return {}
    prefix = name + "."
    return {
        key[len(prefix) :]: child
        for key, child in snapshot(sys.modules)
        if type(key) is str and key.startswith(prefix) and "." not in key[len(prefix) :]
    }


def returned_type(function: Any) -> type | None:
    """Return the class a function is annotated to return, when that can be read."""
    if type(function) is types.MethodType:
        function = function.__func__
    if type(function) is not types.FunctionType or sys.version_info >= (3, 14):
        return None  # from 3.14 on, reading annotations runs the code that computes them
    note = find(function.__annotations__, "return")
    if type(note) is str:
        found = find(function.__globals__, note)
        note = find(builtins.__dict__, note) if found is MISSING else found
    return note if issubclass(type(note), type) else None


def _class_attribute(cls: type, name: str) -> Any:
    raw = lookup(cls, name)
    if raw is MISSING:
        raw = lookup(type(cls), name)
        return MISSING if raw is MISSING else _bind(raw, cls, type(cls))
    kind = type(raw)
    if kind is staticmethod or kind is classmethod:
        return _bind(raw, cls, cls)
    if word_for(raw) in ("function", "property") or lookup(kind, "__get__") is MISSING:
        return raw
    # An Enum of Python 3.11 keeps its members here and a descriptor under the name.
    member = find(_dict_or_none(lookup(cls, "_member_map_")), name)
    return Unknown(None, raw) if member is MISSING else member


def _dict_or_none(value: Any) -> dict[Any, Any] | None:
    return value if issubclass(type(value), dict) else None


def _bind(raw: Any, value: Any, owner: type) -> Any:
    """Return what reading the stored attribute `raw` of `value` would give, as far as no foreign code is needed."""
    kind = type(raw)
    known = type(value) is not Unknown
    if kind is types.FunctionType:
        return types.MethodType(raw, value)
    if kind is staticmethod:
        return raw.__func__
    if kind is classmethod:
        return types.MethodType(raw.__func__, owner)
    if kind is property:
        return Unknown(returned_type(raw.fget), raw)
    if kind is functools.cached_property:
        return Unknown(returned_type(find(instance_dict(raw), "func")), raw)
    if kind is types.MemberDescriptorType or kind is TUPLE_GETTER or kind is types.GetSetDescriptorType:
        if not known or (kind is types.GetSetDescriptorType and not _only_reads(raw, value)):
            return Unknown(None, raw)
        try:
            return raw.__get__(value)
        except AttributeError:  # an empty slot
            return MISSING
    if is_one_of(kind, FUNCTION_TYPES) or lookup(kind, "__get__") is MISSING:
        return raw
    return Unknown(None, raw)


def _only_reads(raw: Any, value: Any) -> bool:
    owner, name = raw.__objclass__, raw.__name__
    if owner is type:
        return name in _PLAIN_TYPE_FIELDS
    if module_of(owner) == "numpy":
        # Exact arrays only: a view of a subclass calls its __array_finalize__.
        exact = type_name(owner) == "ndarray" and type(value) is owner and name in _PLAIN_ARRAY_FIELDS
        return exact or (type_name(owner) == "dtype" and name in _PLAIN_DTYPE_FIELDS)
    return is_one_of(owner, _PLAIN_OWNERS) and name != "__annotations__"
