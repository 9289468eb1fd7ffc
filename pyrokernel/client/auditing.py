"""The record of who did what, read from the hosts of a mesh. Runs in the caller's process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyrokernel.audit import AuditFile, Filter
from pyrokernel.errors import PyrokernelError
from pyrokernel.settings import Settings

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh
    from pyrokernel.client.shared import Shared
    from pyrokernel.client.watches import Change

__all__ = ["Audit", "by_time", "records_here", "state_writes"]


class Audit:
    """Records of all hosts, oldest first; iterate once more for what has come since.

    Args:
        mesh: Whose.
        wanted: Which records: "user", "kernel", "since".
        check: Raise where a host does not answer; else it is in `failed`, and the others are told of.
    """

    def __init__(self, mesh: Mesh, wanted: Mapping[str, Any], *, check: bool = True) -> None:
        self._mesh, self._wanted, self._check = mesh, dict(wanted), check
        self._positions: dict[str, str] = {}
        self.without: list[str] = []
        """Hosts that keep no record."""
        self.failed: dict[str, PyrokernelError] = {}
        """Why hosts did not answer, by their names."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.without, self.failed = [], {}
        found: list[dict[str, Any]] = []
        for link in self._mesh.hosts():
            try:
                found += self._read(link.name)
            except PyrokernelError as error:
                if self._check:
                    raise
                self.failed[link.name] = error
        return iter(by_time(found))

    def _read(self, host: str) -> Iterator[dict[str, Any]]:
        end = False
        while not end:
            link = next((link for link in self._mesh.hosts() if link.name == host), None)
            if link is None:  # it has left meanwhile
                return
            answer = self._mesh.ask_host(link, "audit", self._wanted, self._positions.get(host, ""), timeout=60.0)
            if not answer["kept"]:
                self.without.append(host)
                return
            self._positions[host], end = answer["next"], answer["end"]
            for record in answer["records"]:
                yield {**record, "host": host}


def by_time(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records oldest first: a host writes them kernel after kernel, and what was asked of it at once."""
    return sorted(records, key=lambda record: float(record["at"]))


def records_here(settings: Settings, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the record of this machine has, oldest first, from its file: for when its host does not run.

    What kernels have run since the host ended is not in it yet.

    Args:
        settings: Of the mesh.
        wanted: As for `Audit`.
    """
    record, chosen = AuditFile.beside(settings), Filter.of(wanted)
    found: list[dict[str, Any]] = []
    position, end = "", False
    while not end:
        some, position, end = record.read(chosen, position)
        found += some
    return by_time({**one, "host": settings.host_name} for one in found)


def state_writes(shared: Shared, user: str = "", since: float = 0.0) -> list[dict[str, Any]]:
    """Return the writes to the shared state that are still known, as records of who did what, oldest first.

    Args:
        shared: The shared state; all its namespaces are looked at.
        user: Only of this one, "" for all.
        since: Unix time.
    """
    found = [
        _written(space, change)
        for space in shared.spaces()
        for change in (shared[space] if space else shared).writes()
        if change.at >= since
    ]
    return sorted((one for one in found if user in ("", one["user"])), key=lambda one: int(one["revision"]))


def _written(space: str, change: Change) -> dict[str, Any]:
    """Return the record of a write; of one that a cell made, with whose cell that was where it was another user's."""
    kernel, _, user = change.via.partition(", ")
    key = f"{space}: {change.key}" if space else change.key
    record = {"at": change.at, "what": "state", "user": user or change.author, "source": f"{change.op} {key}"}
    return {**record, "kernel": kernel, "revision": change.revision}
