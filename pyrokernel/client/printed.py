"""Printed: what the chunks of a job wrote, read from the journals of their kernels. Runs in the caller's process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.links import Link
from pyrokernel.errors import (
    GatherError,
    KernelDiedError,
    KernelRestartedError,
    PyrokernelError,
    ReplyTimeoutError,
)
from pyrokernel.messages import Event, EventKind
from pyrokernel.texts import describe_gap

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh

MAX_CHARS = 16 * 1024 * 1024
"""Kept of each life of a kernel; the oldest goes first."""


class Printed:
    """The output of some cells, kept from one look to the next: only what is new is read.

    Args:
        mesh: Where their kernels are.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._pages: dict[Link, _Page] = {}
        self._lock = threading.Lock()

    def read(self, cells: Mapping[Link, Collection[str]]) -> dict[str, str]:
        """Return what cells have written so far, by kernel name; lives of one kernel follow each other.

        Args:
            cells: The way to each life of a kernel, in the order of use, and the ids of its cells.

        Raises:
            ReplyTimeoutError: A kernel did not answer; `.replies` has the text of the others.
            GatherError: One could not be asked; likewise.
        """
        with self._lock:
            pages = {link: self._pages.setdefault(link, _Page()) for link in cells}
            newest = {link.name: link for link in cells}
            for link in [link for link in cells if newest[link.name] is not link]:
                self._read_dead(link, cells[link])
            errors, missing = self._read_living(list(newest.values()), cells)
            texts: dict[str, str] = dict.fromkeys(newest, "")
            for link, page in pages.items():
                texts[link.name] += page.text
        if errors:
            raise GatherError(errors=errors, replies={name: texts[name] for name in texts if name not in errors})
        if missing:
            raise ReplyTimeoutError(
                seconds=self._mesh.settings.timeout,
                replies={name: texts[name] for name in texts if name not in missing},
                missing=missing,
            )
        return texts

    def _read_living(
        self, links: list[Link], cells: Mapping[Link, Collection[str]]
    ) -> tuple[dict[str, PyrokernelError], tuple[str, ...]]:
        errors: dict[str, PyrokernelError] = {}
        silent: list[str] = []
        for link in links:
            self._pages[link].caught_up = False
        while links:
            requests = {link.name: kernel_request("follow", self._pages[link].after, 0.0, {}) for link in links}
            answers, failed, missing = gather(
                self._mesh, links, requests, kind="control", timeout=self._mesh.settings.timeout
            )
            silent += missing
            more = []
            for link in links:
                if link.name in answers:
                    if self._pages[link].take(answers[link.name], cells[link]):
                        more.append(link)
                elif isinstance(failed.get(link.name), (KernelDiedError, KernelRestartedError)):
                    self._read_dead(link, cells[link])
                elif link.name in failed:
                    errors[link.name] = failed[link.name]
            links = more
        return errors, tuple(silent)

    def _read_dead(self, link: Link, cells: Collection[str]) -> None:
        """Read what an instance that is gone left behind, from its host."""
        page = self._pages[link]
        while True:
            answer = self._mesh.read_journal(link.name, link.instance, page.after)
            if not answer["events"]:
                return
            page.take({"last": 0, **answer}, cells)


class _Page:
    """The text of one life of a kernel, and how far its journal has been read."""

    def __init__(self) -> None:
        self.after = 0
        self.caught_up = False
        self._pieces: deque[str] = deque()
        self._chars = 0
        self._dropped = False
        self._begun = False
        self._gap = ""

    @property
    def text(self) -> str:
        return ("[earlier output left out]\n" if self._dropped else "") + "".join(self._pieces)

    def take(self, answer: Mapping[str, Any], cells: Collection[str]) -> bool:
        """Keep what belongs to the cells; say whether to read on."""
        for event in map(Event.from_wire, answer["events"]):
            self._add(event, cells)
        self.after = max(self.after, int(answer["next"]))
        # Once more after the end has been reached: only then does the kernel collect what it just wrote.
        more, self.caught_up = not self.caught_up, self.after >= answer["last"]
        return more

    def _add(self, event: Event, cells: Collection[str]) -> None:
        if event.kind == EventKind.GAP:
            # Before the first of our cells it matters only if that began in it.
            self._gap += describe_gap(event) + "\n"
        elif event.cell in cells:
            if self._gap and (self._begun or event.kind != EventKind.STARTED):
                self._keep(self._gap)
            self._gap, self._begun = "", True
            if event.kind == EventKind.OUTPUT:
                self._keep(event.data["text"])

    def _keep(self, text: str) -> None:
        self._pieces.append(text)
        self._chars += len(text)
        while self._chars > MAX_CHARS and len(self._pieces) > 1:
            self._chars -= len(self._pieces.popleft())
            self._dropped = True
