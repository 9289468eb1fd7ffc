"""What of an object is reached from outside, and which role that takes, said beside each method. Runs in every process.

`@expose(Role.OBSERVER)` marks a method for whoever may look, `@expose(Role.USER)` for whoever may run code. A method
that is marked by `@expose` alone, or by nothing, is for the fewest: one that was forgotten is closed, never open.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast, overload

from Pyro5 import server

from pyrokernel.errors import AccessRefusedError
from pyrokernel.roles import Role
from pyrokernel.settings import ENV_PREFIX, Settings
from pyrokernel.wire.trust import Peer

__all__ = ["DAEMON_ROLES", "expose", "exposed_members", "is_exposed", "marked_role", "refusal", "words_to_check"]

_ROLE = "_pyrokernel_role"

_LOOK = dict.fromkeys(("ping", "info", "registered", "get_metadata"), Role.OBSERVER)
DAEMON_ROLES: Mapping[str, Role] = {**_LOOK, "get_next_stream_item": Role.USER, "close_stream": Role.USER}
"""What the methods of Pyro's own daemon object take; the next item of a stream is made by code of the object's."""

Exposed = TypeVar("Exposed")


@overload
def expose(what: Role) -> Callable[[Exposed], Exposed]: ...
@overload
def expose(what: Exposed) -> Exposed: ...
def expose(what: Any) -> Any:
    """Mark a method, a property or all members of a class as remotely reachable (Pyro's decorator, its type kept).

    Args:
        what: It; or the least role that may call it: `@expose(Role.OBSERVER)`.
    """
    if not isinstance(what, Role):
        return server.expose(what)

    def mark(member: Exposed) -> Exposed:
        vars(member)[_ROLE] = what
        return cast(Exposed, server.expose(member))

    return mark


def exposed_members(value: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the methods, and of the properties, of an object that are marked, as Pyro decides it."""
    found = server._get_exposed_members(value)
    return frozenset(found["methods"]), frozenset(found["attrs"])


def is_exposed(function: Any) -> bool:
    """Whether a function is marked itself."""
    return getattr(function, "_pyroExposed", False) is True


def marked_role(value: Any, name: str) -> Role | None:
    """Return the role that a method of an object is marked with, None for none; runs no code of the object's."""
    function = inspect.getattr_static(type(value), name, None)
    role = vars(function).get(_ROLE) if inspect.isfunction(function) else None
    return role if isinstance(role, Role) else None


def refusal(peer: Peer, what: str, role: Role) -> AccessRefusedError:
    """Return the error of somebody who may not do something.

    Args:
        peer: Who asks.
        what: What for, such as "execute".
        role: The least that it takes.
    """
    refused = f"{peer.author or 'somebody'} is {_shown(peer.role)} here, and {what} takes {_shown(role)}"
    if peer.kind == "user" and not peer.address:
        # A process of this machine acts for them (--act-for): no policy is asked.
        return AccessRefusedError(
            f"{refused}: an admin of this mesh can change that where {peer.user} was let in, which is --act-for, or "
            f"`pyrokernel terminal add {peer.user} --role {role.word}` (--telnet-as, if it was by Telnet)"
        )
    change = "an admin of this mesh can change that in its policy file"
    there = f"on {_host_name()}: " if peer.address else ""  # who comes from elsewhere has another policy beside them
    check = f"{there}`pyrokernel policy check {words_to_check(peer)}`"
    if peer.kind == "host":
        return AccessRefusedError(
            f"{refused}: who has a certificate of their own comes as themselves (`pyrokernel certs issue USER`, "
            f"put into ~/.config/pyrokernel/certs); or {change}, under [hosts] ({check} says what is there)"
        )
    if peer.through:  # the lower one of what that host says of them and what the policy says: which, nobody knows here
        return AccessRefusedError(
            f"{refused}: {change} ({check} says who may what); if they may by that, {peer.through} has let them in as "
            "less, and it is changed there, which is --act-for or the list of the terminal server"
        )
    return AccessRefusedError(f"{refused}: {change} ({check} says who may what)")


def _host_name() -> str:
    """Return the name of this machine in the mesh, as its host has it for what it starts."""
    return Settings(host=os.environ.get(f"{ENV_PREFIX}HOST", "")).host_name


def words_to_check(peer: Peer) -> str:
    """Return with what `pyrokernel policy check` tells the role of somebody."""
    through = f" --through {peer.through}" if peer.through else ""
    return f"{peer.user or 'USER'}{' --host' if peer.kind == 'host' else through}"


def _shown(role: Role) -> str:
    return {Role.NOBODY: "nobody", Role.OBSERVER: "an observer", Role.USER: "a user", Role.ADMIN: "an admin"}[role]
