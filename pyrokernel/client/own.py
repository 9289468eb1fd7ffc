"""Which life of a kernel this process is, if it is one: references to its objects are these objects there.

Runs in the caller's process; only a kernel process says that it is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pyrokernel.messages import Lent


def declare(kernel: str, instance: str, find: Callable[[str, str], Any], lend: Callable[[Any, str], Lent]) -> None:
    """Say that this process is a life of a kernel, in which references to its own objects are these objects.

    Args:
        kernel, instance: Which.
        find: Returns the object that a token and the name of a method mean.
        lend: Lends an object, given also how it is to read.
    """
    _own.pid, _own.kernel, _own.instance, _own.find, _own.lend = os.getpid(), kernel, instance, find, lend


class _Own:
    """Which life of a kernel this process is, if it is one."""

    pid = 0
    kernel = ""
    instance = ""
    find: Callable[[str, str], Any]
    lend: Callable[[Any, str], Lent]


_own = _Own()


def is_own(instance: str) -> bool:
    """Whether this process is that life of a kernel."""
    return _own.instance == instance and _own.pid == os.getpid()


def find_own(token: str, member: str) -> Any:
    """Return an object of this very kernel, or its method.

    Raises:
        ReferenceGoneError: It has lent nothing by that token, or not any more.
    """
    return _own.find(token, member)


def lend_own(value: Any, shown: str) -> tuple[str, str, Lent] | None:
    """Lend an object of this very kernel: return its name, its life and what is lent; None where there is none."""
    if _own.pid != os.getpid():
        return None
    return _own.kernel, _own.instance, _own.lend(value, shown)
