"""Cells sent to a group, or found running there, and shown until they end. Runs in the shell process."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

from pyrokernel.client.cell import Cell
from pyrokernel.client.group import Group
from pyrokernel.errors import GatherError, KernelUnreachableError, PyrokernelError, ReplyTimeoutError
from pyrokernel.messages import new_id
from pyrokernel.shell.ctrl_c import Attention, Detaching, FrontEnd, Interrupting
from pyrokernel.shell.journals import Past
from pyrokernel.shell.showing import Showing

_SENT_KEPT = 10_000


class Sent:
    """Ids of the cells that this shell sent, the last so many; any thread may look."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}
        self._order: collections.deque[str] = collections.deque()

    def new(self) -> str:
        """Make an id for a cell, known before anybody can see that it runs."""
        cell = new_id()
        self._ids[cell] = None
        self._order.append(cell)
        if len(self._order) > _SENT_KEPT:
            self._ids.pop(self._order.popleft(), None)
        return cell

    def __contains__(self, cell: object) -> bool:
        return cell in self._ids


class Runner:
    """Runs cells for a front end, one at a time.

    Attributes:
        sent: The cells it sent.
        outcomes: What came of the last cell that `run` showed; see `Showing`.
    """

    def __init__(self, front: FrontEnd) -> None:
        self._front = front
        self.sent = Sent()
        self.outcomes: Mapping[str, Mapping[str, Any]] = {}

    def run(self, group: Group, source: str, **options: Any) -> bool:
        """Run a cell on every kernel of a group and show it; say whether it succeeded on all.

        Args:
            group: The kernels.
            source: Python source.
            options: More of what `submit` tells a kernel: filename, argv, shown.

        Raises:
            PyrokernelError: It could not even be sent.
        """
        with Attention() as attention:
            self.outcomes = {}
            cells, failed = send(group, source, self.sent.new(), stdin=True, **options)
            showing = Showing(self._front, attention, group, cells)
            self.outcomes = showing.outcomes
            showing.react_with(Interrupting(self._front, group, cells, showing.live, showing.cancelled))
            for name, error in failed.items():
                showing.fail(name, error)
            return showing.to_end()

    def attach(
        self, group: Group, cells: Mapping[str, Cell], past: Mapping[str, Past] | None = None, *, ours: bool = False
    ) -> bool:
        """Show cells that run already, one per kernel, until they end or Ctrl-C; say whether all succeeded.

        Args:
            group: Their kernels.
            cells: By kernel name, each at the position to show it from.
            past: What comes before that.
            ours: Ctrl-C interrupts; else it leaves them alone and goes back to the prompt.
        """
        with Attention() as attention:
            showing = Showing(self._front, attention, group, cells)
            if ours:
                showing.react_with(Interrupting(self._front, group, cells, showing.live, showing.cancelled))
            else:
                showing.react_with(Detaching(self._front, showing.live))
            for name, before in (past or {}).items():
                showing.recall(name, before)
            return showing.to_end(stdin=not ours)


def send(
    group: Group, source: str, cell: str, *, stdin: bool, **options: Any
) -> tuple[Mapping[str, Cell], Mapping[str, PyrokernelError]]:
    """Queue a cell on every kernel of a group.

    Returns:
        Its handles by kernel name, and the errors of the kernels that did not take it.

    Raises:
        PyrokernelError: No kernel could be asked.
    """
    try:
        return group.submit(source, want="text", stdin=stdin, cell=cell, **options), {}
    except GatherError as error:
        # Some kernels have it already: show how it goes there.
        return _taken(group, cell, error.replies), error.errors
    except ReplyTimeoutError as error:
        if not error.replies:
            raise
        why = f"did not take the cell in {error.seconds:g} s: a C call may hold its interpreter; it may run it yet"
        silent = {name: KernelUnreachableError(f"kernel {name!r} {why}", kernel=name) for name in error.missing}
        return _taken(group, cell, error.replies), silent


def _taken(group: Group, cell: str, replies: Mapping[str, Any]) -> dict[str, Cell]:
    """Return handles to a cell on the kernels that have taken it."""
    return {name: Cell(group.mesh, group[name].link, cell, after=int(sent["seq"])) for name, sent in replies.items()}
