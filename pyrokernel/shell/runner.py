"""Cells sent to a group, or found running there, and shown until they end. Runs in the shell process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.cell import Cell
from pyrokernel.client.group import Group
from pyrokernel.errors import GatherError, KernelDiedError, KernelUnreachableError, PyrokernelError, ReplyTimeoutError
from pyrokernel.messages import new_id
from pyrokernel.shell.ctrl_c import Attention, Detaching, FrontEnd, Interrupting
from pyrokernel.shell.journals import Past
from pyrokernel.shell.showing import Showing
from pyrokernel.texts import label

_Sent = tuple[Mapping[str, Cell], Mapping[str, PyrokernelError]]
"""What `send` returns."""

_TAKE_BACK_SECONDS = 0.4


class Runner:
    """Runs cells for a front end, one at a time.

    Attributes:
        outcomes, died: What came of the last cell that `run` showed; see `Showing`.
    """

    def __init__(self, front: FrontEnd) -> None:
        self._front = front
        self.outcomes: Mapping[str, Mapping[str, Any]] = {}
        self.died: Sequence[KernelDiedError] = ()

    def run(self, group: Group, source: str, **options: Any) -> bool:
        """Run a cell on every kernel of a group and show it; say whether it succeeded on all.

        Args:
            group: The kernels.
            source: Python source.
            options: More of what `submit` tells a kernel: filename, argv, shown, call.

        Raises:
            PyrokernelError: It could not even be sent.
        """
        with Attention() as attention:
            self.outcomes, self.died = {}, ()
            sent = self._send(attention, group, source, new_id(), **options)
            if sent is None:
                return False
            cells, failed = sent
            showing = Showing(self._front, attention, group, cells)
            self.outcomes, self.died = showing.outcomes, showing.died
            showing.react_with(Interrupting(self._front, group, cells, showing))
            for name, error in failed.items():
                showing.fail(name, error)
            return showing.to_end()

    def _send(self, attention: Attention, group: Group, source: str, cell: str, **options: Any) -> _Sent | None:
        """Send a cell, in a thread that Ctrl-C need not wait for; None when it was taken back."""
        outcome: list[_Sent | BaseException] = []

        def work() -> None:
            try:
                outcome.append(send(group, source, cell, stdin=True, **options))
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                outcome.append(error)
            attention.inbox.put(None)

        threading.Thread(target=work, name="send", daemon=True).start()
        while not outcome:
            attention.inbox.get()
            if attention.pressed and not outcome:
                self._take_back(group, cell)
                return None
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _take_back(self, group: Group, cell: str) -> None:
        """Stop a cell that not all kernels have taken, and say where it may run all the same.

        Hosts are not asked to signal the silent ones: what holds those is another cell.
        """
        self._front.notice("not every kernel has taken the cell: it is taken back")
        links = [kernel.link for kernel in group]
        cancelled, _, silent = gather(
            group.mesh, links, kernel_request("cancel", cell), kind="control", timeout=_TAKE_BACK_SECONDS
        )
        begun = [link for link in links if cancelled.get(link.name) is False]
        request = kernel_request("interrupt", cell, _TAKE_BACK_SECONDS / 2)
        gather(group.mesh, begun, request, kind="control", timeout=_TAKE_BACK_SECONDS)
        if silent:
            why = "a C call may hold the interpreter"
            self._front.notice(f"{label(silent)}: may still run it, {why}; `cells` tells later")

    def attach(
        self,
        group: Group,
        cells: Mapping[str, Cell],
        past: Mapping[str, Past] | None = None,
        *,
        ours: bool = False,
        failed: Mapping[str, PyrokernelError] | None = None,
    ) -> bool:
        """Show cells that run already, one per kernel, until they end or Ctrl-C; say whether all succeeded.

        Args:
            group: Their kernels.
            cells: By kernel name, each at the position to show it from.
            past: What comes before that.
            ours: Ctrl-C interrupts; else it leaves them alone and goes back to the prompt.
            failed: Why there is none on the other kernels of the group.
        """
        with Attention() as attention:
            showing = Showing(self._front, attention, group, cells)
            if ours:
                showing.react_with(Interrupting(self._front, group, cells, showing))
            else:
                showing.react_with(Detaching(self._front, showing.live))
            for name, before in (past or {}).items():
                showing.recall(name, before)
            for name, error in (failed or {}).items():
                showing.fail(name, error)
            return showing.to_end(stdin=not ours)


def send(group: Group, source: str, cell: str, *, stdin: bool, **options: Any) -> _Sent:
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
