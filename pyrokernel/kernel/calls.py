"""What a call means, and calling it once or for many items. Runs in the kernel process."""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from pyrokernel.commands import BoundCommand
from pyrokernel.errors import ProtocolError, error_to_wire
from pyrokernel.kernel.interpreter import format_error
from pyrokernel.wire.codec import Packed


def resolve(
    function: Any, variables: dict[str, Any], command: Callable[[str], Callable[..., Any] | None]
) -> Callable[..., Any]:
    """Find what a call means: a function of ours, a pickled one, a dotted name in the namespace, or a command.

    Args:
        function: What the request says; with a ":" before the name it is a command, whatever the namespace has.
        variables: The namespace; what a user has set there, or what is built in, comes before a command of that name.
        command: Finds a command.

    Raises:
        NameError, AttributeError: The name leads nowhere.
        ProtocolError: It is neither.
    """
    if callable(function):
        return function  # type: ignore[no-any-return]  # callable() does not narrow Any
    if isinstance(function, Packed):
        loaded: Callable[..., Any] = function.load()
        return loaded
    if not isinstance(function, str) or not function:
        raise ProtocolError(f"a call names a function or carries one, not {function!r}")
    if function.startswith(":"):
        contributed = command(function[1:])
        if contributed is None:
            raise NameError(f"there is no command {function[1:]!r} in this kernel")
        return contributed
    first, *rest = function.split(".")
    found: Any
    if first in variables and (rest or type(variables[first]) is not BoundCommand):
        found = variables[first]
    elif hasattr(builtins, first):
        found = getattr(builtins, first)
    elif not rest and (contributed := command(first)) is not None:
        found = contributed
    elif rest and first in sys.modules:
        found = sys.modules[first]
    else:
        raise NameError(
            f"name {first!r} is not defined in this kernel, and no command of it; what a plugin has brought since "
            "the kernel started is in the next one"
        )
    for name in rest:
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{function} is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]  # callable() does not narrow Any


def map_each(function: Callable[..., Any], items: Sequence[Any], *, calls: bool) -> list[tuple[bool, Any]]:
    """Call a function once for each item; a failure is kept as data beside the results of the others.

    Args:
        function: Whatever is called.
        items: Its one argument each time, or with `calls` the (args, kwargs).
        calls: Which of the two.
    """
    results: list[tuple[bool, Any]] = []
    for item in items:
        try:
            args, kwargs = item if calls else ((item,), {})
            value = function(*args, **kwargs)
            results.append((True, list(value) if isinstance(value, types.GeneratorType) else value))
        except Exception as error:  # noqa: BLE001  the user's function may raise anything; an interrupt ends the whole chunk
            wire = error_to_wire(error)
            results.append((False, {**wire, "traceback": format_error(error)}))
    return results
