"""Who a connection is opened for, said with its first message. Runs in every process.

A process of this account may act for somebody else: the gateway for whom a certificate names, a terminal server for
whom a key names. It says so in an annotation of the connect message, and names what that somebody may do; it cannot
give more than it has, and only a peer of the same account is believed. Whatever comes from another machine loses its
annotations at the gateway.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from typing import NamedTuple

from pyrokernel.errors import MachineLostError, ProtocolError, SettingsError
from pyrokernel.roles import Role
from pyrokernel.settings import check_name
from pyrokernel.wire.trust import Peer

__all__ = [
    "FOR",
    "LOST",
    "TO",
    "act_for",
    "acts_for",
    "introduced",
    "lost_machine",
    "pack",
    "said_of_us",
    "unpack",
    "way_in",
    "way_to",
    "words_for",
    "words_of_lost",
]

FOR = b"PKBY"
"""Annotation: whom a connection is for, as JSON."""
TO = b"PKTO"
"""Annotation: where on another machine a connection is to lead, for the gateway of this one."""
LOST = b"PKLO"
"""Annotation of a refusal by the gateway of this machine: of which machine nothing is heard, and why, as JSON."""

_KINDS = ("user", "host")

_HEAD = struct.Struct("!4sI")


@dataclasses.dataclass
class _Ours:
    """Whom this process acts for: one for all of its connections, since a connection without it would be the account's.

    Attributes:
        user: The name, "" for the account itself.
        role: What that user may do.
        said: The annotations of each connect message.
    """

    user: str = ""
    role: Role = Role.ADMIN
    said: bytes = b""


_ours = _Ours()


def act_for(user: str, role: Role) -> None:
    """Have every connection that this process opens from now on be somebody's; there is no way back.

    Args:
        user: The name.
        role: What that user may do.

    Raises:
        SettingsError: The process acts for another one already.
    """
    if _ours.user and (_ours.user, _ours.role) != (user, role):
        raise SettingsError(
            f"this process acts for {_ours.user}:{_ours.role.word}, and cannot act for {user}:{role.word} too; "
            "start another one for that"
        )
    _ours.user, _ours.role, _ours.said = user, role, pack({FOR: words_for(user, role)})


def acts_for() -> str:
    """Return the name of the user that this process acts for, "" when it is the account itself."""
    return _ours.user


def said_of_us() -> bytes:
    """Return the annotations with which this process opens connections on its machine, b"" where it says nothing."""
    return _ours.said


def words_for(user: str, role: Role, address: str = "", kind: str = "user", through: str = "") -> bytes:
    """Return what `FOR` says of a user, or of a host; `through` is the host that has let a user in."""
    words = {"user": user, "role": role.word, "address": address, "kind": kind}
    return json.dumps({**words, "through": through} if through else words).encode()


class Way(NamedTuple):
    """Where a connection is to lead, as `TO` says it.

    Attributes:
        host, port: Where.
        stock: As of `remote.dial`.
        machine: As of `remote.dial`.
    """

    host: str
    port: int
    stock: bool = False
    machine: str = ""


def way_to(location: str, *, stock: bool = False, machine: str = "") -> str:
    """Return what `TO` says of a way to "HOST:PORT"."""
    return f"{'any' if stock else 'tls'}:{machine}{'@' if machine else ''}{location}"


def way_in(annotations: Mapping[bytes, bytes]) -> Way:
    """Return where a connection is to lead.

    Raises:
        ProtocolError: The annotations do not say.
    """
    kind, _, target = annotations.get(TO, b"").decode("ascii", "replace").partition(":")
    machine, _, location = target.rpartition("@")
    host, colon, port = location.rpartition(":")
    if not (colon and port.isdecimal()):
        raise ProtocolError("where to is not said")
    return Way(host, int(port), kind == "any", machine)


def words_of_lost(error: MachineLostError) -> bytes:
    """Return what `LOST` says."""
    return json.dumps({"machine": error.machine, "reason": error.reason}).encode()


def lost_machine(annotations: Mapping[bytes, bytes]) -> MachineLostError | None:
    """Return the error of which a refusal says that it was the reason, None if it says nothing of a machine."""
    said = annotations.get(LOST)
    if said is None:
        return None
    try:
        words = json.loads(said)
        return MachineLostError(machine=str(words["machine"]), reason=str(words["reason"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError("a refusal is malformed") from error


def introduced(peer: Peer, annotations: Mapping[bytes, bytes]) -> Peer:
    """Return the peer that a connection is for, by its first message.

    Args:
        peer: Who opened it, of this account.
        annotations: Of the first message.

    Raises:
        ProtocolError: What they say is malformed.
    """
    said = annotations.get(FOR)
    if said is None:
        return peer
    try:
        words = json.loads(said)
        user, role = words["user"], Role.of(words["role"])
        address, kind, through = words.get("address", ""), words.get("kind", "user"), words.get("through", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # A SettingsError of Role.of is a ValueError.
        raise ProtocolError("the introduction of a connection is malformed") from error
    if not (isinstance(user, str) and user and isinstance(address, str) and isinstance(through, str)):
        raise ProtocolError("an introduction names a user")
    # It stands in logs, in journals, on the terminals of others, and in commands that errors name.
    try:
        for name in (user, through) if through else (user,):
            check_name(name, "user")
    except SettingsError as error:
        raise ProtocolError(f"an introduction names a user by what is no name: {error}") from error
    if not address.isprintable():
        raise ProtocolError("an introduction names an address in characters that can be seen")
    if kind not in _KINDS:
        raise ProtocolError(f"an introduction is of a {' or a '.join(_KINDS)}, not of {kind!r}")
    uid = -1 if address else peer.uid
    return dataclasses.replace(
        peer, uid=uid, role=min(role, peer.role), user=user, kind=kind, address=address, through=through
    )


def pack(annotations: Mapping[bytes, bytes]) -> bytes:
    """Return annotations as they stand behind the header of a Pyro message."""
    return b"".join(_HEAD.pack(key, len(value)) + value for key, value in annotations.items())


def unpack(data: bytes | memoryview) -> dict[bytes, bytes]:
    """Return the annotations of a message.

    Raises:
        ProtocolError: They are malformed.
    """
    found: dict[bytes, bytes] = {}
    left = memoryview(data)
    while left:
        if len(left) < _HEAD.size:
            raise ProtocolError("an annotation is cut off")
        key, size = _HEAD.unpack(left[: _HEAD.size])
        if len(left) < _HEAD.size + size:
            raise ProtocolError("an annotation is cut off")
        found[key] = bytes(left[_HEAD.size : _HEAD.size + size])
        left = left[_HEAD.size + size :]
    return found
