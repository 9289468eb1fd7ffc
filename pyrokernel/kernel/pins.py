"""References that keys of the shared state hold: kept as long as the keys do. Runs in the kernel process.

Whoever stores a reference pins it here first, under a name that says which key. From then on this
kernel looks at those keys now and then, and lets go of what they hold no more.
"""

from __future__ import annotations

import json
import logging
import time

from pyrokernel.client import keeper
from pyrokernel.client.shared import Shared
from pyrokernel.client.shared_map import keys_of
from pyrokernel.client.state_link import PIN
from pyrokernel.errors import PyrokernelError
from pyrokernel.kernel.references import References

log = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0
"""How long an object may outlive its key."""

_PATIENCE_SECONDS = 1.0
"""How long a look waits for the shared state; the thread that looks renews leases, too."""

_PAGE = 1000
"""Keys that are asked for with one request."""


class SharedPins:
    """What keys of the shared state keep alive in a kernel.

    Args:
        references: The references of the kernel.
        shared: The shared state; asked only when something is pinned.
    """

    def __init__(self, references: References, shared: Shared) -> None:
        self._references = references
        self._shared = shared
        self._newest: dict[tuple[str, str, str], str] = {}

    def note(self, token: str, name: str) -> None:
        """Take note that something was pinned under a name; only the newest pin of a key and an object counts."""
        if not name.startswith(PIN):
            return
        space, key, _ = _parts(name)
        before = self._newest.get((space, key, token))
        self._newest[space, key, token] = name
        if before not in (None, name):
            self._references.unpin(str(before))
        keeper.keep("shared pins", self._look, _LOOK_SECONDS)

    def _look(self) -> bool:
        """Let go of what no key holds any more; False when nothing is pinned."""
        pinned = {name: token for name, token in self._references.pinned().items() if name.startswith(PIN)}
        for pin, newest in list(self._newest.items()):
            if newest not in pinned:
                self._newest.pop(pin, None)
        by_space: dict[str, dict[str, list[str]]] = {}
        for name in pinned:
            space, key, _ = _parts(name)
            by_space.setdefault(space, {}).setdefault(key, []).append(name)
        try:
            for space, names in by_space.items():
                self._look_into(space, names, pinned)
        except PyrokernelError as error:
            log.info("what the shared state holds cannot be said now: %s", error)
        return bool(pinned)

    def _look_into(self, space: str, names: dict[str, list[str]], pinned: dict[str, str]) -> None:
        """Let go of what no key of a namespace holds any more.

        Args:
            space: Which namespace.
            names: Of its keys, the names under which something is pinned for them.
            pinned: By these names, the tokens.
        """
        keys = list(names)
        for begin in range(0, len(keys), _PAGE):
            page = keys[begin : begin + _PAGE]
            held = keys_of(self._shared.in_space(space).m).tokens_of(page, patience=_PATIENCE_SECONDS)
            for name in [name for key in page for name in names[key]]:
                _, key, made_at = _parts(name)
                # Just pinned, and about to be stored.
                if held[key] != pinned[name] and time.time() - made_at > _LOOK_SECONDS:
                    self._references.unpin(name)


def _parts(name: str) -> tuple[str, str, float]:
    """Return space, key and time that the name of a pin says."""
    space, key, made_at = json.loads(name.removeprefix(PIN))
    return space, key, made_at
