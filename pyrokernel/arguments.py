"""What the parameters of a command take, by its annotations. Runs in the kernel process.

Kernels describe the parameters of a command and check what comes; of the description front ends make a
command line, see `wording`.
"""

from __future__ import annotations

import collections.abc
import enum
import inspect
import os
import re
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "either",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_POSITIONAL: "rest",
    inspect.Parameter.VAR_KEYWORD: "options",
}
_EMPTY = inspect.Parameter.empty
_SEQUENCES = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable)
_CHECKED_ITEMS = 1000
_WORDS: dict[Any, str] = {int: "int", float: "float", str: "str", bool: "bool"}
_SECTION = re.compile(r"^(Args|Arguments|Parameters):\s*$", re.MULTILINE)
_ENTRY = re.compile(r"^\s*(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?:\([^)]*\))?:\s*(.*)")


class Parameters:
    """The parameters of a function, with what they take.

    Attributes:
        signature: Without a first parameter `self`.
        takes_context: Whether there is one.
        returns: The annotation of the result as written, "" for none.
    """

    def __init__(self, signature: inspect.Signature, hints: Mapping[str, Any], command: str) -> None:
        all_of_them = list(signature.parameters.values())
        self.takes_context = bool(all_of_them) and all_of_them[0].name == "self"
        self.signature = signature.replace(parameters=all_of_them[1:]) if self.takes_context else signature
        self._hints = hints
        self._command = command
        self.returns = _written(signature.return_annotation)

    @classmethod
    def of(cls, function: Callable[..., Any], command: str) -> Parameters:
        """Read a function; annotations that cannot be evaluated take anything.

        Raises:
            TypeError, ValueError: It has no signature.
        """
        return cls(inspect.signature(function), _hints_of(inspect.unwrap(function)), command)

    def described(self, doc: str) -> list[dict[str, Any]]:
        """Describe them as `CommandInfo.parameters` has it.

        Args:
            doc: The docstring, whose section "Args" says what each is.
        """
        helps = _helps(doc)
        found = []
        for name, one in self.signature.parameters.items():
            word, choices = _word(self._hint(name), one.default)
            found.append(
                {
                    "name": name,
                    "kind": _KINDS[one.kind],
                    "annotation": _written(one.annotation),
                    "type": word,
                    "choices": choices,
                    "default": "" if one.default is _EMPTY else _shown(one.default),
                    "required": one.default is _EMPTY and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD),
                    "help": helps.get(name, ""),
                }
            )
        return found

    def checked(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call, checked; names of enumerations and paths become what they stand for.

        Raises:
            TypeError: One is missing, too much, or not what its annotation says.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._command}{self.signature}: {error}") from None
        for name, value in bound.arguments.items():
            hint = self._hint(name)
            if hint is _EMPTY:
                continue
            kind = self.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(self._taken(name, hint, one) for one in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: self._taken(key, hint, one) for key, one in value.items()}
            else:
                bound.arguments[name] = self._taken(name, hint, value)
        return bound.args, bound.kwargs

    def _hint(self, name: str) -> Any:
        return self._hints.get(name, _EMPTY)

    def _taken(self, name: str, hint: Any, value: Any) -> Any:
        value = _converted(hint, value)
        default = self.signature.parameters[name].default if name in self.signature.parameters else _EMPTY
        # Nobody annotates `x: int = None` as it should be, and the default is what the function itself says it takes.
        if value is default or _accepts(hint, value):
            return value
        raise TypeError(
            f"{self._command}: argument {name!r} takes {_named(hint)}, not {reprlib.repr(value)} "
            f"({type(value).__name__})"
        )


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Evaluate the annotations of a function; what one names that is imported for type checkers only costs it alone."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - evaluating an annotation runs code of the user's
        found: dict[str, Any] = {}
    names = getattr(function, "__globals__", {})
    for name, annotation in getattr(function, "__annotations__", {}).items():
        try:
            found |= typing.get_type_hints(types.SimpleNamespace(__annotations__={name: annotation}), names)
        except Exception:  # noqa: BLE001 - this is the one
            continue
    return found


def _word(hint: Any, default: Any) -> tuple[str, list[Any]]:
    """Return the type word of a parameter and its choices."""
    if hint is _EMPTY:
        # Without an annotation a text or a truth value as default says what is meant; 1 may be 1.5.
        return (_WORDS[type(default)] if type(default) in (str, bool) else "any"), []
    hint = _bare(hint)
    origin, given = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        kinds = {type(value) for value in given}
        return (_WORDS.get(kinds.pop(), "any") if len(kinds) == 1 else "any"), list(given)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "str", list(hint.__members__)
    if hint in _WORDS:
        return _WORDS[hint], []
    if hint in (Path, os.PathLike) or origin is os.PathLike:
        return "path", []
    if origin in _SEQUENCES and given:
        word, choices = _word(given[0], _EMPTY)
        if not word.startswith("list of ") and (origin is not tuple or given[-1] is Ellipsis):
            return f"list of {word}", choices
    return "any", []


def _bare(hint: Any) -> Any:
    """Strip what says nothing of the type: `Annotated`, and None as an alternative."""
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        others = [one for one in typing.get_args(hint) if one is not type(None)]
        if len(others) == 1:
            return _bare(others[0])
    return hint


def _converted(hint: Any, value: Any) -> Any:
    """Return a text as the enumeration member or path that it names, where that is what is taken."""
    hint = _bare(hint)
    if isinstance(value, str) and isinstance(hint, type):
        if issubclass(hint, enum.Enum) and value in hint.__members__:
            return hint[value]
        if issubclass(hint, Path):
            return hint(value)
    return value


def _accepts(hint: Any, value: Any) -> bool:
    """Whether a value is what an annotation says; whatever that is silent about is."""
    try:
        return _matches(hint, value)
    except Exception:  # noqa: BLE001 - isinstance() runs code of foreign classes, and refuses some annotations
        return True


def _matches(hint: Any, value: Any) -> bool:
    origin, given = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if origin is typing.Annotated:
        return _matches(given[0], value)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(one, value) for one in given)
    if origin is typing.Literal:
        return any(value == one and type(value) is type(one) for one in given)
    if hint is int:
        return hasattr(type(value), "__index__")
    if hint is float:
        return hasattr(type(value), "__index__") or (
            hasattr(type(value), "__float__") and not hasattr(type(value), "__iter__")
        )
    if hint is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if origin is collections.abc.Callable:
        return callable(value)
    if isinstance(origin, type):
        return isinstance(value, origin) and _items_match(origin, given, value)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _items_match(origin: type, given: tuple[Any, ...], value: Any) -> bool:
    """Check the items of a container of known length, up to a number that is read in no time."""
    if not given or not hasattr(value, "__len__") or len(value) > _CHECKED_ITEMS:
        return True
    if issubclass(origin, collections.abc.Mapping):
        return all(_matches(given[0], key) and _matches(given[-1], one) for key, one in value.items())
    if origin is tuple and given[-1] is not Ellipsis:
        return len(given) == len(value) and all(map(_matches, given, value))
    if origin in _SEQUENCES:
        return all(_matches(given[0], one) for one in value)
    return True


def _named(hint: Any) -> str:
    """Name a type as people say it."""
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        name = hint.__name__
        return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return _written(hint)


def _written(annotation: Any) -> str:
    """Return an annotation as it is written in a source."""
    if annotation is _EMPTY:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _shown(default: Any) -> str:
    """Return a default as it reads: no address of an object, and never a page of it."""
    try:
        text = repr(default)
    except Exception:  # noqa: BLE001 - a __repr__ may raise anything
        return "..."
    return text if len(text) <= 200 and " at 0x" not in text else "..."


def _helps(doc: str) -> dict[str, str]:
    """Read what a docstring in Google's style says of each argument."""
    match = _SECTION.search(doc)
    if match is None:
        return {}
    helps: dict[str, str] = {}
    names: list[str] = []
    margin = -1
    for line in doc[match.end() :].lstrip("\n").split("\n"):
        indent = len(line) - len(line.lstrip())
        if line.strip() and not indent:
            break
        margin = indent if margin < 0 else margin
        entry = _ENTRY.match(line) if indent == margin else None
        if entry:
            names = [name.strip().lstrip("*") for name in entry[1].split(",")]
            helps |= dict.fromkeys(names, entry[2].strip())
        elif line.strip():
            helps |= {name: f"{helps[name]} {line.strip()}" for name in names}
    return helps
