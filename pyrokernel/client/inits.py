"""What became of init files, which run once their kernels are ready. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable

from pyrokernel.client.calls import kernel_request
from pyrokernel.client.links import Link, ask
from pyrokernel.errors import GatherError, PyrokernelError, RemoteError
from pyrokernel.messages import Event, EventKind
from pyrokernel.texts import one_line

INIT_SECONDS = 10.0
"""How long those who start kernels wait for init files to end."""

_ANSWER_SECONDS = 1.0
_FRAME = re.compile(r'^ *File "(.+?)", line (\d+)', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class InitEnd:
    """How an init file ended.

    Attributes:
        ename, evalue, traceback: What it raised, "" when it ran to its end.
        where: File and line, "" where they are not known.
    """

    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    where: str = ""

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        return one_line(f"{self.ename}: {self.evalue}", 200) + where if self.ename else ""


def await_init(link: Link, deadline: float) -> InitEnd | None:
    """Wait until the init file of an instance has ended; None if it goes on, or nobody can say.

    Args:
        link: The way to the instance.
        deadline: Moment of the monotonic clock; a past one only looks.
    """
    position, cell, end = 0, "", InitEnd()
    while True:
        left = max(0.0, deadline - time.monotonic())
        try:
            answer = ask(link, kernel_request("follow", position, left), left + _ANSWER_SECONDS)
        except PyrokernelError:  # it holds its interpreter, or has died of it
            return None
        for wire in answer["events"]:
            event = Event.from_wire(wire)
            if not cell:
                if event.kind == EventKind.GAP:
                    return None  # the journal no longer has its beginning
                if event.kind == EventKind.STARTED and event.data.get("author") == "init":
                    cell = event.cell
            elif event.cell == cell and event.kind == EventKind.ERROR:
                end = _describe(event)
            elif event.cell == cell and event.kind == EventKind.ENDED:
                return end
        position = answer["next"]
        if not left:
            return None


def check_inits(links: Iterable[Link], timeout: float = INIT_SECONDS) -> None:
    """Wait for the init files of some kernels, and raise what they raised; those that go on are left to.

    Args:
        links: The ways to the kernels, all of which have an init file.
        timeout: Seconds for all of it.

    Raises:
        RemoteError: One failed. GatherError: Several did.
    """
    deadline = time.monotonic() + timeout
    errors: dict[str, PyrokernelError] = {}
    for link in links:
        end = await_init(link, deadline)
        if end is not None and end.ename:
            errors[link.name] = RemoteError(
                f"the init file of kernel {link.name!r} failed: {end}\n{end.traceback.rstrip()}",
                kernel=link.name,
                ename=end.ename,
                evalue=end.evalue,
                traceback=end.traceback,
            )
    if len(errors) > 1:
        raise GatherError(errors=errors, replies={})
    for error in errors.values():
        raise error


def _describe(event: Event) -> InitEnd:
    data = event.data
    frames = _FRAME.findall(data["traceback"])
    # The outermost frame is the init file's; what it calls elsewhere is for the traceback to tell.
    own = [(file, line) for file, line in frames if file == frames[0][0]]
    where = f"{own[-1][0]}, line {own[-1][1]}" if own else ""
    return InitEnd(data["ename"], data["evalue"], data["traceback"], where)
