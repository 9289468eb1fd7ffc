"""`logs`: replay what a kernel printed, follow it, also after its death. Runs in the caller's process."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, Protocol

from pyrokernel.client.kernel import Kernel
from pyrokernel.client.links import Link
from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import (
    CellNotFoundError,
    HostError,
    KernelConnectionError,
    KernelDiedError,
    KernelNotFoundError,
    NameServerNotFoundError,
)
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.lives import find_lives, lives_on_disk, note_life_before, say_lives
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.terminal import note
from pyrokernel.host.places import Places
from pyrokernel.journal import JournalReader
from pyrokernel.messages import Event, EventKind, KernelStatus
from pyrokernel.settings import Settings
from pyrokernel.texts import Tail, Transcript

_LONG_POLL_SECONDS = 25.0


class Journal(Protocol):
    """One instance's journal, wherever it is read from."""

    instance: str

    def read(self, after: int, timeout: float) -> list[Event]:
        """Return events after a position, waiting for the first if the kernel lives."""


class LiveJournal:
    """The journal of a living kernel, read through the kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.instance = kernel.instance

    def read(self, after: int, timeout: float) -> list[Event]:
        """Ask the kernel."""
        return self._kernel.events(after, timeout=timeout)


class PastJournal:
    """The journal of an instance that ended, read through its host."""

    def __init__(self, mesh: Mesh, host: Link, name: str, instance: str) -> None:
        self._mesh, self._host, self._name = mesh, host, name
        self.instance = instance

    def read(self, after: int, timeout: float) -> list[Event]:
        """Ask the host; there is nothing to wait for."""
        answer = self._mesh.ask_host(self._host, "read_journal", self._name, self.instance, after)
        return [Event.from_wire(wire) for wire in answer["events"]]


class DiskJournal:
    """The journal of an instance that ended, where no host is left to ask."""

    def __init__(self, settings: Settings, name: str, instance: str) -> None:
        self.instance = instance
        self._reader = JournalReader(Places.of(settings).journal(name, instance))

    def read(self, after: int, timeout: float) -> list[Event]:
        """Read the files; there is nothing to wait for."""
        return self._reader.read(after)


def main(args: argparse.Namespace) -> int:
    """Show a kernel's journal."""
    settings = settings_of(args)
    try:
        mesh = open_mesh(settings)
    except NameServerNotFoundError:
        if args.lives and (lives := lives_on_disk(settings, args.kernel)):
            return say_lives(lives, args.json)
        past = _on_disk(settings, args.kernel, args.instance)
        if past is None:
            raise
        note(f"the mesh is not running; this is the journal of instance {past.instance} on disk")
        return _Reading(args).replay(past)
    with mesh:
        if args.lives:
            return say_lives(find_lives(mesh, args.kernel), args.json)
        journal = find_journal(mesh, args.kernel, args.instance)
        if not args.instance and not args.cell:
            note_life_before(mesh, args.kernel, journal.instance)
        reading = _Reading(args)
        code = reading.replay(journal, lambda: find_journal(mesh, args.kernel, journal.instance))
        if not args.follow or reading.ended or not isinstance(journal, LiveJournal):
            return code
        return _follow(mesh, args, reading, journal)


def find_journal(mesh: Mesh, name: str, instance: str = "") -> Journal:
    """Return the journal of a kernel's present instance, or of one whose id begins so.

    Raises:
        KernelNotFoundError: There is no journal of it.
    """
    roster = mesh.roster()
    infos, hosts = roster.infos, roster.hosts
    info = next((info for info in infos if info.name == name), None)
    if info is None and not instance and name in mesh.names:
        return LiveJournal(mesh[name])  # its host does not answer
    if info is not None and info.status != KernelStatus.DEAD and info.instance.startswith(instance):
        return LiveJournal(mesh[name])
    candidates = [hosts[info.host]] if info is not None else list(hosts.values())
    for host in candidates:
        for past in mesh.ask_host(host, "instances", name):
            if past["instance"].startswith(instance):
                return PastJournal(mesh, host, name, past["instance"])
    known = ", ".join(info.name for info in infos) or "none"
    what = f"instance {instance!r} of kernel {name!r}" if instance else f"kernel {name!r}"
    raise KernelNotFoundError(f"there is no journal of {what}; kernels are: {known}")


class _Reading:
    """Where a reader is in a journal, and how it shows what it reads."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._kernel = args.kernel
        self._cell = args.cell
        self._limit = args.lines
        self.position = 0
        self.ended = False
        self.code = ExitCode.OK
        self._found = False
        if args.json:
            self._show: Callable[[Event], Any] = self._show_json
        else:
            self._transcript = Transcript(self._write, sources=not args.cell)
            self._show = self._transcript.add
        self._tail: Tail | None = None
        self._journal: Journal

    def replay(self, journal: Journal, past: Callable[[], Journal] | None = None) -> ExitCode:
        """Show what there is, or its last lines.

        Args:
            journal: What to read.
            past: Finds what is left of it when its kernel dies meanwhile.
        """
        self._journal = journal
        self._tail = Tail(self._limit) if self._limit is not None else None
        while True:
            try:
                events = journal.read(self.position, 0.0)
            except KernelDiedError:
                if past is None:
                    raise
                journal, past = past(), None  # it died as we read: its host has the rest
                continue
            if not events:
                break
            self.add(events)
        tail, self._tail = self._tail, None
        if tail is not None:
            self._write(tail.text)
        if self._cell and not self._found:
            raise CellNotFoundError(kernel=self._kernel, cell=self._cell)
        return self.code

    def add(self, events: list[Event]) -> None:
        """Show events and move on."""
        for event in events:
            self.position = event.seq
            if self._cell and not event.cell.startswith(self._cell) and event.kind != EventKind.GAP:
                continue
            self._found = self._found or event.kind != EventKind.GAP
            self._show(event)
            if self._cell and event.kind == EventKind.ENDED:
                self.ended = True
                self.code = ExitCode.OK if event.data.get("status") == "ok" else ExitCode.CODE_RAISED

    def start_over(self, journal: Journal) -> None:
        """Go on with the journal of the next instance."""
        self._journal, self.position = journal, 0

    def _show_json(self, event: Event) -> None:
        self._write(json.dumps({"kernel": self._kernel, "instance": self._journal.instance, **event.to_wire()}) + "\n")

    def _write(self, text: str) -> None:
        if self._tail is not None:
            self._tail.write(text)
            return
        sys.stdout.write(text)
        sys.stdout.flush()


def _follow(mesh: Mesh, args: argparse.Namespace, reading: _Reading, journal: Journal) -> int:
    """Show what comes; go on with the next instance when one dies, unless one cell or instance is meant."""
    while not reading.ended:
        try:
            reading.add(journal.read(reading.position, _LONG_POLL_SECONDS))
        except KernelConnectionError as error:
            note(f"pyrokernel: {error}")
            if args.cell or args.instance:
                return ExitCode.KERNEL_DIED
            successor = _successor(mesh, args.kernel, journal.instance)
            if successor is None:
                return ExitCode.KERNEL_DIED
            note(f"following its next instance, {successor.instance}")
            journal = successor
            reading.start_over(journal)
    return reading.code


def _successor(mesh: Mesh, name: str, instance: str) -> LiveJournal | None:
    """Return the journal of the instance that follows a dead one, for which the mesh waits; None if none does."""
    try:
        kernel: Kernel = mesh[name]
    except (KernelNotFoundError, KernelConnectionError, HostError) as error:
        note(f"pyrokernel: {error}")
        return None
    return LiveJournal(kernel) if kernel.instance != instance else None


def _on_disk(settings: Settings, name: str, instance: str) -> DiskJournal | None:
    found = (path.name for path in Places.of(settings).journals(name) if path.name.startswith(instance))
    newest = next(found, None)
    return DiskJournal(settings, name, newest) if newest else None
