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

from pyrokernel.errors import ProtocolError
from pyrokernel.roles import Role
from pyrokernel.wire.trust import Peer

__all__ = ["FOR", "TO", "introduced", "pack", "unpack", "words_for"]

FOR = b"PKBY"
"""Annotation: whom a connection is for, as JSON."""
TO = b"PKTO"
"""Annotation: where on another machine a connection is to lead, for the gateway of this one."""

_KINDS = ("user", "host")

_HEAD = struct.Struct("!4sI")


def words_for(user: str, role: Role, address: str = "", kind: str = "user") -> bytes:
    """Return what `FOR` says of a user, or of a host."""
    return json.dumps({"user": user, "role": role.word, "address": address, "kind": kind}).encode()


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
        address, kind = words.get("address", ""), words.get("kind", "user")
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a SettingsError of Role.of is a ValueError
        raise ProtocolError("the introduction of a connection is malformed") from error
    if not (isinstance(user, str) and user and isinstance(address, str)):
        raise ProtocolError("an introduction names a user")
    if kind not in _KINDS:
        raise ProtocolError(f"an introduction is of a {' or a '.join(_KINDS)}, not of {kind!r}")
    uid = -1 if address else peer.uid
    return dataclasses.replace(peer, uid=uid, role=min(role, peer.role), user=user, kind=kind, address=address)


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
