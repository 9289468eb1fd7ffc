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


class SharedPins:
    """What keys of the shared state keep alive in a kernel.

    Args:
        references: The references of the kernel.
        shared: The shared state; asked only when something is pinned.
    """

    def __init__(self, references: References, shared: Shared) -> None:
        self._references = references
        self._shared = shared

    def note(self, name: str) -> None:
        """Take note of a name under which something was pinned."""
        if name.startswith(PIN):
            keeper.keep("shared pins", self._look, _LOOK_SECONDS)

    def _look(self) -> bool:
        """Let go of what no key holds any more; False when nothing is pinned."""
        pinned = {name: token for name, token in self._references.pinned().items() if name.startswith(PIN)}
        for name, token in pinned.items():
            space, key, made_at = json.loads(name.removeprefix(PIN))
            try:
                held = keys_of(self._shared.in_space(space).m).token_of(key)
            except PyrokernelError as error:
                log.info("what the shared state holds cannot be said now: %s", error)
                return True
            # Just pinned, and about to be stored.
            if held != token and time.time() - made_at > _LOOK_SECONDS:
                self._references.unpin(name)
        return bool(pinned)
