"""Connections without a session: so many, and for so long."""

from __future__ import annotations

import asyncio

import pytest

from pyrokernel_terminal import connections
from pyrokernel_terminal.connections import Waiting


class Line:
    """A connection that knows whether it was turned away."""

    is_open = True

    def turn_away(self) -> None:
        self.is_open = False


def test_whoever_has_most_gives_way_and_of_theirs_the_oldest() -> None:
    async def check() -> None:
        waiting = Waiting(4, 3)
        many, few = [Line() for _ in range(4)], [Line() for _ in range(2)]
        waiting.enter(few[0], "few")
        for line in many:
            waiting.enter(line, "many")
        assert [line.is_open for line in many] == [False, True, True, True]
        waiting.enter(few[1], "few")
        assert [line.is_open for line in many] == [False, False, True, True]
        assert all(line.is_open for line in few)
        assert len(waiting) == 4
        for line in (*many, *few):
            waiting.leave(line)

    asyncio.run(check())


def test_who_has_a_session_in_time_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SECONDS", 0.01)

    async def check() -> None:
        waiting = Waiting(4, 4)
        quick, slow = Line(), Line()
        for line in (quick, slow):
            waiting.enter(line, "one")
        assert waiting.leave(quick)
        while slow.is_open:
            await asyncio.sleep(0.01)
        assert quick.is_open
        assert not waiting.leave(slow)

    asyncio.run(check())
