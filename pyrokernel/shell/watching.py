"""What others run on the same kernels, told above the prompt. Runs in the shell process, in a thread."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyrokernel.client.calls import Exchange, kernel_request
from pyrokernel.client.group import Group
from pyrokernel.client.links import LONG_POLL_SECONDS, Link
from pyrokernel.errors import PyrokernelError
from pyrokernel.shell.following import STEP_SECONDS
from pyrokernel.texts import label, one_line, span, status_of

_CELLS_LOOKED_AT = 50
_KNOWN_KEPT = 1000
_LINES_AT_ONCE = 20
_AWAY_SECONDS = 5.0
"""How long a kernel that could not be asked is left alone."""


@dataclasses.dataclass
class _Place:
    """One kernel as its watcher knows it.

    Attributes:
        link: The way to it.
        known: Cells and jobs that were told of, or not to be: id to whether they had ended.
        after: Journal position after which something is new; -1 before the first look.
        latest, running: What its description said at the last look.
        asked: Whether a request is under way.
    """

    link: Link
    known: dict[str, bool] = dataclasses.field(default_factory=dict)
    after: int = -1
    latest: int = 0
    running: dict[str, Any] | None = None
    asked: bool = False

    def note(self, cell: str, ended: bool) -> bool:
        """Note a cell; say whether that is news."""
        if self.known.get(cell) in (ended, True):
            return False
        self.known.pop(cell, None)
        self.known[cell] = ended
        while len(self.known) > _KNOWN_KEPT:
            del self.known[next(iter(self.known))]
        return True


def _key(cell: Mapping[str, Any]) -> str:
    """Return what a cell is told of as: the parts of a job are one."""
    return str(cell.get("job") or cell["cell"])


class News:
    """What was seen since it was last told; the same cell on several kernels is one line.

    Args:
        clock: Gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[str, dict[str, Any]] = {}

    def started(self, kernel: str, cell: dict[str, Any]) -> None:
        """Note a cell that runs."""
        entry = self._entry(cell)
        if kernel not in entry["began"]:
            entry["began"].append(kernel)

    def ended(self, kernel: str, cell: dict[str, Any]) -> None:
        """Note a cell that is over."""
        entry = self._entry(cell)
        entry["over"].setdefault(status_of(cell), []).append((kernel, float(cell.get("duration") or 0.0)))

    def _entry(self, cell: dict[str, Any]) -> dict[str, Any]:
        return self._found.setdefault(_key(cell), {**cell, "began": [], "over": {}, "noted": self._clock()})

    def tell(self, names: Iterable[str] = (), *, age: float = 0.0) -> list[str]:
        """Return it as lines, and forget it.

        Args:
            names: Of the kernels, in their order.
            age: What was first noted fewer seconds ago is kept for later: more of it may come.
        """
        order = {name: position for position, name in enumerate(names)}
        until = self._clock() - age
        ripe = [key for key, cell in self._found.items() if cell["noted"] <= until]
        lines = []
        for cell in map(self._found.pop, ripe):
            cell["began"].sort(key=lambda name: order.get(name, len(order)))
            for found in cell["over"].values():
                found.sort(key=lambda one: order.get(one[0], len(order)))
            source = one_line(cell["source"])
            over = {name for found in cell["over"].values() for name, _ in found}
            begun = [name for name in cell["began"] if name not in over]
            if begun:
                lines.append(f"{label(begun)}: {cell['author']} runs {source}")
            for how, found in cell["over"].items():
                took = span(max(seconds for _, seconds in found))
                names = label(name for name, _ in found)
                if found[0][0] in cell["began"]:
                    lines.append(f"{names}: {cell['author']} ran {source} ({took}, {how})")
                else:
                    lines.append(f"{names}: the cell of {cell['author']} ended after {took} ({how}): {source}")
        if len(lines) > _LINES_AT_ONCE:
            more = len(lines) - _LINES_AT_ONCE
            lines[_LINES_AT_ONCE:] = [f"... and {more:,} more cells of others; `cells` lists them"]
        return lines


class Watcher:
    """Looks at what others run, until it is stopped.

    A long poll per kernel says that something happened, two short calls say what: so a flood of
    output costs no more than two looks per second.

    Args:
        group: Returns the kernels to look at, as they are now.
        tell: Shows lines above the prompt.
    """

    def __init__(self, group: Callable[[], Group], tell: Callable[[str], None]) -> None:
        self._group, self._tell = group, tell
        self._stopped = threading.Event()
        self._places: dict[str, _Place] = {}
        self._away: dict[str, float] = {}
        self._news = News()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, within a step."""
        self._stopped.set()

    def _work(self) -> None:
        try:
            with Exchange(self._group().mesh, "control", blocking=False) as exchange:
                while not self._stopped.is_set():
                    self._step(exchange)
        except Exception as error:  # noqa: BLE001 - whatever it is, the person believes to be told of others
            self._tell(f"watch ended: {error}")

    def _step(self, exchange: Exchange) -> None:
        """Ask whom there is to ask, take what is answered within a step, and tell it."""
        self._choose()
        for chosen in self._places.values():
            if not chosen.asked:
                self._ask(exchange, chosen)
        deadline = time.monotonic() + STEP_SECONDS
        for name, token, value, error in exchange.answers(deadline):
            place: _Place = token
            if self._places.get(name) is not place:
                continue  # left meanwhile
            if error is not None:
                del self._places[name]
                self._away[name] = time.monotonic() + _AWAY_SECONDS
            else:
                self._take(exchange, place, value)
        if not exchange.pending:
            self._stopped.wait(max(0.0, deadline - time.monotonic()))
        # A short cell is met running on one kernel and ended on the next: a step later it has ended on all.
        lines = self._news.tell(self._group().names, age=STEP_SECONDS)
        if lines and not self._stopped.is_set():
            self._tell("\n".join(lines))

    def _choose(self) -> None:
        """Bring the kernels to look at up to date."""
        group = self._group()
        for name in [name for name in self._places if name not in group.names]:
            del self._places[name]
        now = time.monotonic()
        for kernel in group:
            if kernel.name in self._places or self._away.get(kernel.name, 0.0) > now:
                continue
            link = kernel.link
            if self._away.pop(kernel.name, None) is not None:
                try:
                    link = group.mesh.link_to(kernel.name)  # another instance may have the name by now
                except PyrokernelError:
                    self._away[kernel.name] = now + _AWAY_SECONDS
                    continue
            self._places[kernel.name] = _Place(link)

    def _ask(self, exchange: Exchange, place: _Place) -> None:
        place.asked = True
        if place.after < 0:
            self._look(exchange, place)
            return
        # One event is enough to know that there is something to look at.
        options = {"max_bytes": 1}
        exchange.send(place.link, kernel_request("follow", place.after, LONG_POLL_SECONDS, options), place)

    def _look(self, exchange: Exchange, place: _Place) -> None:
        exchange.send(place.link, kernel_request("describe"), place)
        exchange.send(place.link, kernel_request("cells", _CELLS_LOOKED_AT), place)

    def _take(self, exchange: Exchange, place: _Place, value: Any) -> None:
        if isinstance(value, list):
            self._compare(place, value)
            place.asked = False  # the next poll begins with the next step: so often at most
        elif "events" not in value:
            place.running, place.latest = value["running"], int(value["last_seq"])
        elif value["events"]:
            self._look(exchange, place)
        else:
            place.asked = False

    def _compare(self, place: _Place, ended: list[dict[str, Any]]) -> None:
        """Tell what is new since the last look."""
        first, place.after = place.after < 0, place.latest
        name = place.link.name
        over = {cell["cell"] for cell in ended}
        for cell in ended:
            unseen = _key(cell) not in place.known
            # Of a job nobody knows here which part is its last: its beginning is told, and no end.
            if place.note(_key(cell), not cell.get("job")) and not first and not self._is_own(cell):
                if unseen and cell["status"] != "cancelled":
                    self._news.started(name, cell)
                if not cell.get("job"):
                    self._news.ended(name, cell)
        running = place.running
        if not running or running["cell"] in over or self._is_own(running):
            return
        if place.note(_key(running), False):
            self._news.started(name, running)

    def _is_own(self, cell: Mapping[str, Any]) -> bool:
        return bool(cell.get("client") == self._group().mesh.client)
