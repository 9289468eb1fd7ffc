"""The public keys of a user, as the library of SSH knows them. Runs in the terminal server, and for `remove`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

import asyncssh

from pyrokernel_terminal.accounts import User

log = logging.getLogger(__name__)


def public_keys(user: User) -> set[bytes]:
    """Return the keys of a user, without their comments; one that cannot be read is told of, and lets nobody in."""
    keys = set()
    for text in user.keys:
        try:
            keys.add(asyncssh.import_public_key(text).public_data)
        except asyncssh.KeyImportError as error:
            log.error("a key of %s cannot be read: %s", user.name, error)
    return keys


def without_keys(user: User, keys: Iterable[str]) -> User:
    """Return a user who has some keys no longer, whatever their comments are."""
    gone = public_keys(dataclasses.replace(user, keys=tuple(keys)))
    kept = [key for key in user.keys if not public_keys(dataclasses.replace(user, keys=(key,))) & gone]
    return dataclasses.replace(user, keys=tuple(kept))
