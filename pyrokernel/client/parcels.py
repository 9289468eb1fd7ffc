"""Parcels: what travels with a call, pickled; what cannot travel is named. Runs in the caller's process."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pyrokernel.errors import NotSerializableError, SettingsError
from pyrokernel.messages import Reply
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.large import holds_large

_INSTEAD = "locks, open files and connections stay in their process: make it in the kernel, with execute()"


def pack_variables(values: Mapping[str, Any], *, of: str = "", instead: str = _INSTEAD) -> Packed:
    """Pickle variables.

    Args:
        values: By name.
        of: Whose they are, as in " of kernel 'k0'".
        instead: What to do about one that cannot travel.

    Raises:
        NotSerializableError: One cannot be pickled; the message names it.
    """
    return _pack(
        dict(values), ((f"variable {name!r}{of}", value) for name, value in values.items()), instead, pieces=True
    )


def pack_part(name: str, part: Any, first: int) -> Packed:
    """Pickle one part of a sequence that is scattered.

    Args:
        name: Variable it becomes.
        part: The part.
        first: Index of its first item in the whole sequence.

    Raises:
        NotSerializableError: An item cannot be pickled; the message names it.
    """

    def items() -> Iterator[tuple[str, Any]]:
        yield from ((f"item {index} of {name!r}", item) for index, item in enumerate(part, first))

    return _pack({name: part}, items(), pieces=True)


def pack_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Packed:
    """Pickle the arguments of a call.

    Raises:
        NotSerializableError: One cannot be pickled; the message names it.
    """
    large = holds_large(args) or (bool(kwargs) and holds_large(kwargs.values()))
    return _pack((tuple(args), dict(kwargs)), _named(args, kwargs), pieces=large)


def read_reply(answer: dict[str, Any]) -> Reply:
    """Return the reply that a kernel has sent, its value packed."""
    value = answer.get("value")
    if value is not None:
        answer["value"] = Packed.of(value)
    return Reply.from_wire(answer)


def pack_function(function: str | Callable[..., Any]) -> tuple[str | Packed, str]:
    """Return a function as it travels, a name as it is or pickled, and how it is shown.

    Raises:
        NotSerializableError: It cannot be pickled; the message names the variable of it that cannot.
        SettingsError: It is neither a name nor callable.
    """
    if isinstance(function, str):
        return function, function
    if not callable(function):
        raise SettingsError(
            f"call and map take a function, or its dotted name, not {type(function).__name__}; execute takes source"
        )
    shown = getattr(function, "__name__", "function")
    return _pack(function, _used_by(function, shown)), shown


def check_source(source: Any) -> None:
    """Refuse what is not source.

    Raises:
        SettingsError: It is not a text.
    """
    if not isinstance(source, str):
        what = "a function" if callable(source) else type(source).__name__
        raise SettingsError(
            f"execute and submit take Python source as a str, not {what}; "
            "call(function, ...) runs a function, map(function, items) runs it once per item"
        )


def check_namespace(name: Any) -> str:
    """Return the name of a namespace, unless it was meant as a variable or an argument of that name.

    Raises:
        SettingsError: It is not a text.
    """
    if not isinstance(name, str):
        raise SettingsError(
            f"namespace= says where, by a str, not {type(name).__name__}; push a variable of that name in a mapping: "
            "push({'namespace': ...}), give an argument of that name with functools.partial"
        )
    return name


def explain(what: str, error: NotSerializableError, instead: str = _INSTEAD) -> NotSerializableError:
    """Return the error that says what it is that cannot travel, and what to do about it."""
    cause = error.__cause__ or error
    named = NotSerializableError(f"{what} cannot travel: {type(cause).__name__}: {cause}; {instead}")
    named.__cause__ = cause
    return named


def _pack(value: Any, parts: Iterable[tuple[str, Any]], instead: str = _INSTEAD, *, pieces: bool = False) -> Packed:
    try:
        return Packed.dump(value, pieces=pieces)
    except NotSerializableError as error:
        # One by one only now: together, what they share is pickled once.
        for what, part in parts:
            try:
                Packed.dump(part)
            except NotSerializableError as found:
                raise explain(what, found, instead) from found
        raise explain("the value", error, instead) from error


def _named(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the arguments of a call with what they are called."""
    yield from ((f"argument {position}", value) for position, value in enumerate(args, 1))
    yield from ((f"argument {name!r}", value) for name, value in kwargs.items())


def _used_by(function: Callable[..., Any], shown: str) -> Iterator[tuple[str, Any]]:
    """Yield the variables from around a function that travel with it."""
    try:
        around = inspect.getclosurevars(function)
    except (TypeError, ValueError):  # not written in Python, or a variable of it has no value yet
        return
    for name, value in {**around.nonlocals, **around.globals}.items():
        yield f"{name!r}, which {shown} uses,", value
