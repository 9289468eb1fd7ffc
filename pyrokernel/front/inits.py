"""What became of init files, which run once their kernels are ready. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence

from pyrokernel.client.calls import kernel_request
from pyrokernel.client.links import Link, ask
from pyrokernel.errors import PyrokernelError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.terminal import complain, note
from pyrokernel.messages import Event, EventKind
from pyrokernel.settings import Settings, command_line
from pyrokernel.texts import label, one_line

INIT_SECONDS = 10.0
"""How long `serve` waits for init files to end before it says that they go on."""

_ANSWER_SECONDS = 1.0
_FRAME = re.compile(r'^ *File "(.+?)", line (\d+)', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class InitEnd:
    """How an init file ended.

    Attributes:
        error: Type and first line of what it raised, "" when it ran to its end.
        where: File and line, "" where they are not known.
    """

    error: str = ""
    where: str = ""

    def __str__(self) -> str:
        return self.error + (f" ({self.where})" if self.where else "")


def report_inits(links: Sequence[Link], settings: Settings, timeout: float = INIT_SECONDS) -> ExitCode:
    """Wait for the init files of some kernels, say which failed and how to mend it, and which go on.

    Args:
        links: The ways to the kernels, all of which have an init file.
        settings: Their mesh.
        timeout: Seconds for all of it.

    Returns:
        CODE_RAISED when one has failed; its kernel runs all the same.
    """
    deadline = time.monotonic() + timeout
    failed: dict[InitEnd, list[str]] = {}
    going_on: list[str] = []
    for link in links:
        end = await_init(link, deadline)
        if end is None:
            going_on.append(link.name)
        elif end.error:
            failed.setdefault(end, []).append(link.name)
    for end, names in failed.items():
        words = " ".join(names)
        complain(
            f"{label(names)}: the init file failed: {end}; all of it: {command_line(settings, f'logs {names[0]}')}; "
            f"correct the file, then: {command_line(settings, f'restart {words}')}"
        )
    if going_on:
        watch = command_line(settings, f"logs {going_on[0]} -f")
        note(f"the init file still runs on {label(going_on)}; watch it: {watch}")
    return ExitCode.CODE_RAISED if failed else ExitCode.OK


def await_init(link: Link, deadline: float) -> InitEnd | None:
    """Wait until the init file of an instance has ended; None if it goes on, or nobody can say.

    Args:
        link: The way to the instance.
        deadline: Moment of the monotonic clock; a past one only looks.
    """
    position, cell, error = 0, "", InitEnd()
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
                error = _describe(event)
            elif event.cell == cell and event.kind == EventKind.ENDED:
                return error
        position = answer["next"]
        if not left:
            return None


def _describe(event: Event) -> InitEnd:
    data = event.data
    frames = _FRAME.findall(data["traceback"])
    # The outermost frame is the init file's; what it calls elsewhere is for `logs` to tell.
    own = [(file, line) for file, line in frames if file == frames[0][0]]
    where = f"{own[-1][0]}, line {own[-1][1]}" if own else ""
    return InitEnd(one_line(f"{data['ename']}: {data['evalue']}", 200), where)
