"""What a call means. Runs in the kernel process."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pyrokernel.commands import BoundCommand
from pyrokernel.errors import ProtocolError
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
    found: Any
    if type(function) is str:
        found = variables.get(function)
        if callable(found) and type(found) is not BoundCommand:
            return found  # type: ignore[no-any-return]  # callable() does not narrow Any
    elif callable(function):
        return function  # type: ignore[no-any-return]  # as above
    if isinstance(function, Packed):
        loaded: Callable[..., Any] = function.load()
        return loaded
    if not isinstance(function, str) or not function:
        raise ProtocolError(f"a call names a function or carries one, not {function!r}")
    meant = command_meant(function, variables)
    if meant and (contributed := command(meant)) is not None:
        return contributed
    if function.startswith(":"):
        raise NameError(f"there is no command {meant!r} in this kernel")
    found = _look_up(function, variables)
    if not callable(found):
        raise TypeError(f"{function} is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]  # as above


def _look_up(function: str, variables: Mapping[str, Any]) -> Any:
    """Return what a dotted name means in a namespace, or else among what is built in or imported."""
    first, *rest = function.split(".")
    found: Any
    if first in variables:
        found = variables[first]
    elif hasattr(builtins, first):
        found = getattr(builtins, first)
    elif rest and first in sys.modules:
        found = sys.modules[first]
    else:
        raise NameError(
            f"name {first!r} is not defined in this kernel, and no command of it; what a plugin has brought since "
            "the kernel started is in the next one"
        )
    for name in rest:
        found = getattr(found, name)
    return found


def command_meant(function: Any, variables: Mapping[str, Any]) -> str:
    """Return which command a call means, should there be one of that name; "" when it means something else.

    Args:
        function: What the request says.
        variables: The namespace.
    """
    if not isinstance(function, str):
        return ""
    if function.startswith(":"):
        return function[1:]
    if function in variables:
        return function if type(variables[function]) is BoundCommand else ""
    return "" if "." in function or hasattr(builtins, function) else function
