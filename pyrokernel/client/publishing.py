"""Objects of a kernel under names of their own at the name server. Runs in the kernel process, in the user's code."""

from __future__ import annotations

import os
from typing import Any, Protocol

from pyrokernel.errors import SettingsError


class Publisher(Protocol):
    """What a kernel does for `publish`."""

    def publish(self, name: str, value: Any) -> str:
        """Serve an object under a name; return its URI."""

    def unpublish(self, name: str) -> bool:
        """Serve it no longer; say whether it was."""


class _Here:
    """The publisher of this process, if it is a kernel."""

    pid = 0
    publisher: Publisher


_here = _Here()


def become(publisher: Publisher) -> None:
    """Say that this process is a kernel, and what publishes there."""
    _here.pid, _here.publisher = os.getpid(), publisher


def publish(name: str, value: Any) -> str:
    """Give an object of this kernel a name in the mesh; what is marked with `expose` is reached by it.

    `mesh.open(name)` gives a reference, whose calls are cells; a stock proxy, `Pyro5.api.Proxy("PYRONAME:name")`,
    works too, and its calls run on threads beside the cells. The name ends with this life of the kernel.

    Args:
        name: Which; others may have no name like it.
        value: An object of a class of which something is marked with `pyrokernel.expose`, or Pyro's own.

    Returns:
        Its Pyro URI.

    Raises:
        SettingsError: This is no kernel; nothing of the object is marked; or no name server is told of.
        NameTakenError: Something that lives has the name.
        NameServerNotFoundError: The name server does not answer.
    """
    return _publisher().publish(name, value)


def unpublish(name: str) -> bool:
    """Take a name back that this kernel has published; say whether it had."""
    return _publisher().unpublish(name)


def _publisher() -> Publisher:
    if _here.pid != os.getpid():
        raise SettingsError("objects are published by kernels; run this in one: kernel.execute('pk.publish(...)')")
    return _here.publisher
