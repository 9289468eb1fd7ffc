"""Keys, versions and locks of the shared state as both front ends show them. Runs in the caller's process.

Data in, text out, but for `list_entries`. Keys, summaries, classes and authors were written by others:
nothing of them reaches a terminal as something that it would obey.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.messages import StateChange, StateEntry
from pyrokernel.texts import one_line, plural, size, span, table, wide_table

if TYPE_CHECKING:
    from pyrokernel.client.shared import Shared

LISTED = 200
"""Rows of a table for a person; more are only counted."""

PAGE = 1000
_COUNTED = 10_000
"""Keys that are counted one by one, where nobody knows their number; beyond that there are just more."""

_KEY_WIDTH = 48
_AUTHOR_WIDTH = 40
_WHOLE = 10_000
"""What a table that goes to a file shows of a text at most: all of it."""

_ENTRIES = ("KEY", "TYPE", "SIZE", "SUMMARY", "AUTHOR", "AGE", "REVISION", "EXPIRES")
_CHANGES = ("REVISION", "WHAT", "AUTHOR", "AGE", "TYPE", "SIZE")
_LOCKS = ("NAME", "TOKEN", "AUTHOR", "HELD", "EXPIRES")
_GONE = {"delete": "deleted", "expire": "expired"}


def key_text(key: str) -> str:
    """Return a key as it is, or as Python would write it where it would not stand out or a terminal would obey it."""
    return key if key.isprintable() and key and not key.isspace() and key.strip() == key else repr(key)


def author_text(entry: StateEntry | Mapping[str, Any]) -> str:
    """Say who wrote something, and from which kernel."""
    told = entry if isinstance(entry, Mapping) else {"author": entry.author, "via": entry.via}
    via = f" ({one_line(str(told['via']), _AUTHOR_WIDTH)})" if told.get("via") else ""
    return one_line(str(told["author"]), _AUTHOR_WIDTH) + via


def list_entries(shared: Shared, prefix: str = "", limit: int | None = None) -> tuple[list[StateEntry], str]:
    """Return what is known of keys that begin so, and a word about those beyond the limit.

    Args:
        shared: Of which namespace.
        prefix: What they begin with.
        limit: How many at most; None for all.
    """
    found: list[StateEntry] = []
    while limit is None or len(found) < limit:
        wanted = PAGE if limit is None else min(PAGE, limit - len(found))
        page = shared.entries(prefix, after=found[-1].key if found else None, limit=wanted)
        found += page
        if len(page) < wanted:
            return found, ""
    return found, _describe_more(shared, prefix, found)


def _describe_more(shared: Shared, prefix: str, found: Sequence[StateEntry]) -> str:
    """Say how many keys follow the last one."""
    if not prefix:
        more = len(shared.m) - len(found)
    else:
        more = len(shared.keys(prefix, after=found[-1].key if found else None, limit=_COUNTED))
    if more <= 0:
        return ""
    return f"... and more than {more:,} more keys" if prefix and more == _COUNTED else f"... and {more:,} more keys"


def format_entries(entries: Sequence[StateEntry], *, now: float, wide: bool = True) -> str:
    """Lay out keys, one a line.

    Args:
        entries: As `Shared.entries` returns them.
        now: Unix time in seconds.
        wide: Cut the table to the width of the terminal.
    """
    width = _KEY_WIDTH if wide else _WHOLE
    rows = [
        (
            one_line(key_text(entry.key), width),
            one_line(entry.type, width),
            size(entry.size),
            one_line(entry.summary, _WHOLE),
            author_text(entry),
            _age(entry.at, now),
            str(entry.revision),
            "" if entry.expires is None else f"in {span(max(0.0, entry.expires))}",
        )
        for entry in entries
    ]
    right = ("SIZE", "AGE", "REVISION")
    if not wide:
        return table(_ENTRIES, rows, right=right)
    return wide_table(_ENTRIES, rows, right=right, spared=("EXPIRES", "SIZE", "REVISION", "AGE", "TYPE"), cut="SUMMARY")


def format_history(changes: Sequence[StateChange], *, now: float, wide: bool = True) -> str:
    """Lay out the versions of a key, one a line.

    Args:
        changes: As `Shared.history` returns them.
        now: Unix time in seconds.
        wide: Cut the table to the width of the terminal.
    """
    rows = [
        (
            str(change.revision),
            _what(change),
            author_text(change),
            _age(change.at, now),
            one_line(change.type, _KEY_WIDTH) if change.op == "set" else "",
            size(change.size) if change.op == "set" else "",
        )
        for change in changes
    ]
    right = ("REVISION", "AGE", "SIZE")
    if not wide:
        return table(_CHANGES, rows, right=right)
    return wide_table(_CHANGES, rows, right=right, spared=("TYPE", "SIZE", "AGE"), cut="WHAT")


def format_locks(locks: Sequence[Mapping[str, Any]], *, now: float) -> str:
    """Lay out locks, one a line.

    Args:
        locks: As `Shared.locks` returns them.
        now: Unix time in seconds.
    """
    rows = [
        (
            one_line(key_text(str(lock["name"])), _KEY_WIDTH),
            str(lock["token"]),
            author_text(lock),
            _age(lock["since"], now),
            "" if lock["expires"] is None else f"in {span(max(0.0, lock['expires']))} unless renewed",
        )
        for lock in locks
    ]
    return table(_LOCKS, rows, right=("TOKEN", "HELD"))


def format_spaces(keys: Mapping[str, int]) -> str:
    """Lay out namespaces with the number of their keys."""
    rows = [(one_line(name) or "(common)", f"{count:,}") for name, count in sorted(keys.items())]
    return table(("NAMESPACE", "KEYS"), rows, right=("KEYS",))


def describe_spaces(keys: Mapping[str, int]) -> str:
    """Say in one line how many keys there are, and in which namespaces."""
    others = [f"{count:,} in {one_line(name)}" for name, count in sorted(keys.items()) if name]
    return ", ".join([f"{plural(keys.get('', 0), 'key')} in the common namespace", *others])


def describe_change(change: StateChange) -> str:
    """Say in one line what was written, and by whom."""
    at = time.strftime("%H:%M:%S", time.localtime(change.at))
    what = f"= {_what(change)}" if change.op == "set" else _what(change)
    return f"{at}  {change.revision}  {one_line(key_text(change.key), _WHOLE)} {what}  by {author_text(change)}"


def describe_undo(key: str, change: StateChange | None) -> str:
    """Say what an undo did."""
    name = key_text(key)
    if change is None:
        return f"{name}: it was not there before either"
    if change.op != "set":
        return f"{name}: it was not there before, and is deleted (revision {change.revision})"
    back = f"as at revision {change.restores}, now revision {change.revision}"
    return f"{name} = {one_line(change.summary, _WHOLE)} ({back})"


def _what(change: StateChange) -> str:
    """Say what a write did to its key."""
    text = one_line(change.summary, _WHOLE) if change.op == "set" else _GONE.get(change.op, one_line(change.op))
    if change.restores:
        back = f"to revision {change.restores}" if change.restores > 0 else "to the time before the first"
        text = f"{text} [undo {back}]"
    return text if change.kept or change.op != "set" else f"{text} [forgotten]"


def _age(at: float, now: float) -> str:
    return span(max(0.0, now - at))
