"""How a callable is called, read from its code object. Runs in the kernel process."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from typing import Any, Final, NamedTuple

from pyrokernel.commands import BoundCommand
from pyrokernel.kernel.reading import (
    BUILTIN_CALLABLES,
    FUNCTION_TYPES,
    MISSING,
    Unknown,
    find,
    instance_dict,
    is_one_of,
    lookup,
    snapshot,
    type_name,
)
from pyrokernel.kernel.summaries import SUMMARY_LIMIT, summary

_DEFAULT_LIMIT: Final = 60
"""Characters of a default value."""

# Asking the class would run the `__getattribute__` of its metaclass.
_get_text_signature = type.__dict__["__text_signature__"].__get__


class Parameter(NamedTuple):
    """A parameter of a callable: kind is "/" (by position only), "", "*" (by keyword only), "*args" or "**kwargs"."""

    name: str
    kind: str = ""
    default: str = ""
    note: str = ""

    def __str__(self) -> str:
        stars = {"*args": "*", "**kwargs": "**"}.get(self.kind, "")
        note = f": {self.note}" if self.note else ""
        equals = " = " if note else "="
        return f"{stars}{self.name}{note}" + (f"{equals}{self.default}" if self.default else "")


def signature(value: Any) -> str:
    """Return how a callable is called, "(a, b=1, *, c)"; "" when it is none or does not say."""
    found = parameters(value)
    if found is None:
        return ""
    parts: list[str] = []
    for before, parameter in zip([None, *found], found, strict=False):
        previous = before.kind if before else None
        if previous == "/" and parameter.kind != "/":
            parts.append("/")
        if parameter.kind == "*" and previous not in ("*", "*args"):
            parts.append("*")
        parts.append(str(parameter))
    if found and found[-1].kind == "/":
        parts.append("/")
    return f"({', '.join(parts)})"


def full_summary(value: Any, limit: int = SUMMARY_LIMIT) -> str:
    """Show a value as `summary` does, a function together with its signature."""
    return summary(value, limit, call=signature(value) if is_one_of(type(value), FUNCTION_TYPES) else "")


def parameters(value: Any, depth: int = 0) -> list[Parameter] | None:
    """Read the parameters of a callable from its code object; `__signature__` is not looked at.

    Returns:
        What a caller may pass, without self or cls; None when it cannot be known.
    """
    kind = type(value)
    if depth > 10:
        return None
    if kind is Unknown:
        call = MISSING if value.cls is None else lookup(value.cls, "__call__")
        return None if type(call) is not types.FunctionType else _without_first(parameters(call, depth + 1))
    wrapped = find(instance_dict(value), "__wrapped__")
    if wrapped is not MISSING and not issubclass(kind, type):
        found = parameters(wrapped, depth + 1)
        gets_context = kind is BoundCommand and found is not None and found[:1] and found[0].name == "self"
        return _without_first(found) if gets_context else found
    if kind is types.FunctionType:
        return _code_parameters(value)
    if kind is types.MethodType:
        return _without_first(parameters(value.__func__, depth + 1))
    if kind is staticmethod or kind is classmethod:
        found = parameters(value.__func__, depth + 1)
        return found if kind is staticmethod else _without_first(found)
    if kind is functools.partial:
        return _partial_parameters(value, depth)
    if is_one_of(kind, BUILTIN_CALLABLES):
        return _text_parameters(getattr(value, "__text_signature__", None))
    if issubclass(kind, type):
        return _class_parameters(value, depth)
    call = lookup(kind, "__call__")
    return _without_first(_code_parameters(call)) if type(call) is types.FunctionType else None


def _without_first(found: list[Parameter] | None) -> list[Parameter] | None:
    return found[1:] if found and found[0].kind in ("", "/") else found


def _class_parameters(cls: type, depth: int) -> list[Parameter] | None:
    for name in ("__init__", "__new__"):
        raw = lookup(cls, name)
        raw = raw.__func__ if type(raw) is staticmethod else raw
        if type(raw) is types.FunctionType:
            return _without_first(parameters(raw, depth + 1))
    return _text_parameters(_get_text_signature(cls))


def _partial_parameters(value: Any, depth: int) -> list[Parameter] | None:
    found = parameters(value.func, depth + 1)
    if found is None:
        return None
    given = {name for name, _ in snapshot(value.keywords) if type(name) is str}
    for _ in value.args:
        found = _without_first(found) or []
    return [parameter for parameter in found if parameter.name not in given]


def _text_parameters(text: object) -> list[Parameter] | None:
    """Read the one line that C code documents itself with, such as "($module, iterable, /, *, key=None)"."""
    if type(text) is not str:
        return None
    found: list[Parameter] = []
    kind = ""
    for part in text.strip("()").split(","):
        name, _, default = part.strip().partition("=")
        if name == "/":
            found = [parameter._replace(kind="/") for parameter in found]
        elif name == "*":
            kind = "*"
        elif name.startswith("**"):
            found.append(Parameter(name[2:], "**kwargs"))
        elif name.startswith("*"):
            found.append(Parameter(name[1:], "*args"))
            kind = "*"
        elif name.isidentifier():  # neither $self nor a piece of a default with a comma in it
            found.append(Parameter(name, kind, default))
    return found


def _code_parameters(function: Any) -> list[Parameter]:
    code = function.__code__
    names = code.co_varnames
    n_any, n_keyword = code.co_argcount, code.co_kwonlyargcount
    defaults = function.__defaults__ or ()
    notes = {} if sys.version_info >= (3, 14) else dict(snapshot(function.__annotations__))

    def make(name: str, kind: str, default: object) -> Parameter:
        note = notes.get(name, MISSING)
        text = note if type(note) is str else type_name(note) if issubclass(type(note), type) else ""
        return Parameter(name, kind, "" if default is MISSING else summary(default, _DEFAULT_LIMIT), text)

    found = []
    for index, name in enumerate(names[:n_any]):
        at = index - n_any + len(defaults)
        kind = "/" if index < code.co_posonlyargcount else ""
        found.append(make(name, kind, defaults[at] if at >= 0 else MISSING))
    rest = n_any + n_keyword
    if code.co_flags & inspect.CO_VARARGS:
        found.append(make(names[rest], "*args", MISSING))
        rest += 1
    given = function.__kwdefaults__
    found += [make(name, "*", find(given, name)) for name in names[n_any : n_any + n_keyword]]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        found.append(make(names[rest], "**kwargs", MISSING))
    return found
