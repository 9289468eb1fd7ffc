"""Ports for servers that have to be told theirs before they start. Runs in the test process."""

from __future__ import annotations

import os
import random
import socket

_LOWEST, _HIGHEST = 20_000, 32_767
"""Below those that Linux gives to connections: one of them could be anybody's by the time the server starts."""


def free_port() -> int:
    """Return a port that nobody has at this moment, at any address, and that no other test is likely to be given."""
    drawn = random.Random(os.urandom(8))  # tests set the seed of the module's own
    for _ in range(1_000):
        port = drawn.randint(_LOWEST, _HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port between {_LOWEST} and {_HIGHEST} is free")
