"""The value of a half-typed expression, followed step by step without running it. Runs in the kernel process.

A chain such as `a.b(c)[d]` starts at a name, a literal or a bracket; each attribute, item and call
is read as it lies, or an `Unknown` of the type it would have goes on.
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Mapping
from typing import Any

from pyrokernel.client.shared import Shared
from pyrokernel.client.shared_map import SharedMap, keys_of
from pyrokernel.kernel.attributes import get_attribute, returned_type
from pyrokernel.kernel.columns import column_labels, is_array, stand_in
from pyrokernel.kernel.reading import MISSING, Unknown, find, is_one_of, lookup
from pyrokernel.kernel.tokens import CONSTANTS, Tail, literal


def value_before(tail: Tail, end: int, namespace: Mapping[str, Any], *, ask: bool = True) -> Any:
    """Return the value of the expression that ends before token `end`.

    Args:
        tail: The half-typed source.
        end: The token.
        namespace: The kernel's variables.
        ask: Whether the shared state may be asked, in the name of this process.

    Returns:
        The value, an `Unknown` for what would have to be computed, MISSING when nothing is known.
    """
    start = tail.primary(end)
    return MISSING if start < 0 else _chain(tail, start, end, namespace, ask)


def _chain(tail: Tail, index: int, end: int, namespace: Mapping[str, Any], ask: bool) -> Any:
    value = _atom(tail, index, namespace, ask)
    index = tail.pairs.get(index, index) + 1
    while index < end and value is not MISSING:
        text = tail.tokens[index].text
        if text == "." and index + 1 < end:
            value = _attribute(value, tail.tokens[index + 1].text)
            index += 2
        elif text in ("(", "[") and index in tail.pairs:
            close = tail.pairs[index]
            value = _called(value) if text == "(" else _item(value, _key(tail, index + 1, close, namespace), ask)
            index = close + 1
        else:
            return MISSING
    return value


# -- where a chain starts


def _atom(tail: Tail, index: int, namespace: Mapping[str, Any], ask: bool) -> Any:
    token = tail.tokens[index]
    if token.kind == "name":
        if token.text in CONSTANTS:
            return CONSTANTS[token.text]
        found = find(namespace, token.text)
        return find(builtins.__dict__, token.text) if found is MISSING else found
    if token.kind in ("string", "number"):
        value = literal(token)
        return Unknown(str) if value is MISSING else value
    close = tail.pairs.get(index, -1)
    return MISSING if close < 0 else _bracketed(tail, index, close, namespace, ask)


def _bracketed(tail: Tail, opening: int, close: int, namespace: Mapping[str, Any], ask: bool) -> Any:
    """Return what a display or a parenthesised expression is: of a list, dict, set or tuple only the type."""
    kind = tail.tokens[opening].text
    inside = [tail.tokens[at].text for at in tail.level(opening + 1, close)]
    if kind == "[":
        return Unknown(list)
    if kind == "{":
        return Unknown(dict if not inside or ":" in inside or "**" in inside else set)
    if "for" in inside:
        return Unknown(types.GeneratorType)
    if not inside or "," in inside:
        return Unknown(tuple)
    return _chain(tail, opening + 1, close, namespace, ask) if tail.primary(close) == opening + 1 else MISSING


# -- one step along it


def _attribute(value: Any, name: str) -> Any:
    """Return `value.name`, also where that means a column."""
    found = get_attribute(value, name)
    return stand_in(value) if found is MISSING and name in column_labels(value) else found


def _item(value: Any, key: object, ask: bool) -> Any:
    """Return `value[key]` for lists, tuples and dicts that did not redefine it; `Unknown` for columns and arrays."""
    kind = type(value)
    if type(key) is str and is_one_of(kind, (Shared, SharedMap)):
        return _shared_item(value, key) if ask else MISSING
    if issubclass(kind, dict) and lookup(kind, "__getitem__") is dict.__dict__["__getitem__"]:
        return find(value, key)
    for base in (list, tuple, str):
        if issubclass(kind, base) and lookup(kind, "__getitem__") is base.__dict__["__getitem__"]:
            if type(key) is slice:
                return Unknown(base)
            try:
                return base.__getitem__(value, key) if type(key) is int else MISSING
            except IndexError:
                return MISSING
    if type(key) is str and key in column_labels(value):
        return stand_in(value)
    if is_array(value) and is_one_of(type(key), (int, slice)):
        # Fields of compiled code. What an array of objects holds is not known without making it.
        part = type(key) is slice or value.ndim > 1
        return Unknown(kind) if part else MISSING if value.dtype.hasobject else Unknown(value.dtype.type)
    return MISSING


def _shared_item(value: Shared | SharedMap, key: str) -> Any:
    """Return a namespace of the shared state, or what a key of it holds: our own code, which does not wait long."""
    try:
        return value[key] if isinstance(value, Shared) else keys_of(value).peek(key)
    except (KeyError, ValueError):
        return MISSING


def _called(value: Any) -> Any:
    """Return what calling `value` would give: an instance of a class, or what the annotation says."""
    cls = value if issubclass(type(value), type) else returned_type(value)
    return MISSING if cls is None else Unknown(cls)


def _key(tail: Tail, start: int, end: int, namespace: Mapping[str, Any]) -> Any:
    """Return the value between square brackets when it is a literal, a slice, or a name for one; else MISSING."""
    inside = tail.tokens[start:end]
    if any(token.text == ":" for token in inside):
        return slice(None)
    if len(inside) == 2 and inside[0].text == "-" and inside[1].kind == "number":
        number = literal(inside[1])
        return MISSING if number is MISSING else -number
    if len(inside) != 1:
        return MISSING
    value = _atom(tail, start, namespace, False) if inside[0].is_name else literal(inside[0])
    return value if is_one_of(type(value), (str, int, float, bool, bytes)) else MISSING
