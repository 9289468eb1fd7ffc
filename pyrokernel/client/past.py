"""How two versions of a value differ. Runs in the caller's process."""

from __future__ import annotations

import difflib
import pprint
from typing import TYPE_CHECKING, Any

from pyrokernel.client.live import to_plain
from pyrokernel.errors import StateKeyError

if TYPE_CHECKING:
    from pyrokernel.client.shared import Shared

_WIDTH = 100


def diff(shared: Shared, key: str, old: int | None, new: int | None) -> list[str]:
    """Return how a value differs between two revisions, as lines of a unified diff; [] when it does not.

    Raises:
        StateKeyError: There is no such key or revision.
        StateValueError: One of the values is forgotten, or cannot be loaded here.
    """
    changes = shared.history(key, 10_000)
    if not changes:
        raise StateKeyError(key=key)
    revisions = [change.revision for change in changes]
    newer = revisions[0] if new is None else new
    older = next((revision for revision in revisions if revision < newer), 0) if old is None else old
    by_revision = {change.revision: change for change in changes}
    sides: list[tuple[str, list[str]]] = []
    for revision in (older, newer):
        if revision == 0:
            sides.append((f"{key} (did not exist)", []))
            continue
        change = by_revision.get(revision)
        if change is None:
            raise StateKeyError(f"{key!r} has no revision {revision}; it has {', '.join(map(str, revisions))}", key=key)
        lines = _lines(change.value) if change.op == "set" else []
        sides.append((f"{key} revision {revision} by {change.author or 'the service'}", lines))
    (was, before), (now, after) = sides
    return list(difflib.unified_diff(before, after, was, now, lineterm=""))


def _lines(value: Any) -> list[str]:
    """Show a value over as many lines as it takes: text by its own lines, everything else as pprint lays it out."""
    if isinstance(value, str):
        return value.splitlines()
    return pprint.pformat(to_plain(value), width=_WIDTH, sort_dicts=False).splitlines()
