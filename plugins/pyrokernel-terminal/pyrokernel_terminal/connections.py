"""Connections that have no session: how many there may be, and for how long. Runs in the terminal server.

With a session a connection is counted as that. Before, and between sessions, it costs a descriptor and some memory all
the same, of a stranger or of somebody who is let in; so each of them is on a list, which has room for so many.
"""

from __future__ import annotations

import asyncio
import collections
from typing import Protocol

SECONDS = 20.0
"""How long a connection may be without a session: to log in, to ask for the first one, or for another one."""


class Connection(Protocol):
    """What can be closed; by this it is told apart, too."""

    def turn_away(self) -> None:
        """Close it at once."""


class Waiting:
    """A list of connections without a session. Of too many, the one goes that has waited longest.

    Args:
        most: How many there may be.
        each: How many of one peer.
    """

    def __init__(self, most: int, each: int) -> None:
        self._most, self._each = most, each
        self._timers: dict[Connection, tuple[str, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._timers

    def enter(self, connection: Connection, peer: str) -> None:
        """Put one on the list, from which it is turned away after a time.

        Args:
            connection: It.
            peer: Whose it is: an address, or the name of a user. Of a list that is full, who has most gives way.
        """
        timer = asyncio.get_running_loop().call_later(SECONDS, self._turn_away, connection)
        self._timers[connection] = (peer, timer)
        counts = collections.Counter(one for one, _ in self._timers.values())
        if counts[peer] > self._each:
            self._turn_away_oldest(peer)
        elif len(self._timers) > self._most:
            self._turn_away_oldest(max(counts, key=counts.__getitem__))

    def leave(self, connection: Connection) -> bool:
        """Take one off the list; say whether it was there."""
        _, timer = self._timers.pop(connection, ("", None))
        if timer is not None:
            timer.cancel()
        return timer is not None

    def _turn_away_oldest(self, peer: str) -> None:
        self._turn_away(next(connection for connection, (one, _) in self._timers.items() if one == peer))

    def _turn_away(self, connection: Connection) -> None:
        self.leave(connection)
        connection.turn_away()
