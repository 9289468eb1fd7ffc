"""Keys of the shared state in a file, to take elsewhere. Runs in the caller's process.

One JSON object a line: a head, then a key each, with type, author and time; the value in base64 as it is
kept, so that nothing is loaded on the way. Whoever imports a file becomes the author of what is in it,
hence pickled objects are taken from a trusted file only.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrokernel.client.shared_map import keys_of
from pyrokernel.errors import StateConflictError, StateError, StateKeyError, StateValueError
from pyrokernel.wire.values import SCALARS, Encoded

if TYPE_CHECKING:
    from pyrokernel.client.shared import Shared
    from pyrokernel.client.state_link import StateLink

_FORMAT = "pyrokernel shared state"
_VERSION = 1
_TOLD = ("key", "kind", "type", "summary", "author", "via", "at", "revision")
_SAFE = (*SCALARS, "plain")


def export_to(shared: Shared, link: StateLink, path: Path, prefix: str) -> int:
    """Write keys to a file that appears when it is whole; return how many."""
    draft = path.with_name(path.name + ".part")
    count = 0
    try:
        with open(draft, "w", encoding="utf-8", opener=_private) as stream:
            stream.write(json.dumps({"format": _FORMAT, "version": _VERSION, "space": shared.space}) + "\n")
            for told, parts in _read(shared, link, prefix):
                value = [base64.b64encode(part).decode("ascii") for part in parts]
                stream.write(json.dumps({**told, "value": value}) + "\n")
                count += 1
        if not count:
            raise StateKeyError(f"no key begins with {prefix!r}; nothing was written (path first)", key=prefix)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def _read(shared: Shared, link: StateLink, prefix: str) -> Iterator[tuple[dict[str, Any], tuple[Any, ...]]]:
    last: str | None = None
    while page := shared.entries(prefix, after=last, limit=1000):
        for entry in page:
            found = link.ask("get", shared.space, entry.key)
            parts = link.fetch(found) if found is not None else None
            if parts is None:
                continue  # deleted since
            told = {**{name: getattr(entry, name) for name in _TOLD}, "kind": found[1], "type": found[2]}
            yield told, parts
        last = page[-1].key


def import_from(shared: Shared, link: StateLink, path: Path, *, replace: bool, trust: bool) -> int:
    """Set keys that were exported, all or none; return how many."""
    writes, conditions = [], []
    with path.open("rb") as stream:
        head = _line(path, 1, stream.readline())
        if head.get("format") != _FORMAT or head.get("version") != _VERSION:
            raise StateError(f"{path} is no export of a shared state that this version reads")
        for number, line in enumerate(stream, 2):
            key, author, encoded = _entry(path, number, line)
            if encoded.kind not in _SAFE and not trust:
                reason = "it is a pickled object, which runs code when it is loaded; trust=True (`--trust`) takes it"
                raise StateValueError(key=key, type=encoded.type, author=author, reason=reason + " from this file")
            writes.append({"op": "set", "key": key, **link.place(encoded, key)})
            if not replace:
                conditions.append({"key": key, "revision": 0})
    try:
        if writes:
            keys_of(shared.m).write(writes, conditions)
    except StateConflictError as error:
        message = f"{error.key!r} exists already; nothing was imported: replace=True (--replace) overwrites"
        raise StateConflictError(message, key=error.key, expected=0, actual=error.actual) from error
    return len(writes)


def _entry(path: Path, number: int, line: bytes) -> tuple[str, str, Encoded]:
    """Return what a line says: key, author and value."""
    told = _line(path, number, line)
    try:
        key, kind, name, summary, author = (str(told[field]) for field in ("key", "kind", "type", "summary", "author"))
        parts = tuple(base64.b64decode(part, validate=True) for part in told["value"])
        if not parts:
            raise ValueError("its value is empty")
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path}, line {number}: this is no key of an export ({error!r})") from error
    return key, author, Encoded(kind, name, summary, parts)


def _line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path} is no export of a shared state: line {number}: {error}") from error
    if not isinstance(found, dict):
        raise StateError(f"{path} is no export of a shared state: line {number} is no JSON object")
    return found


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
