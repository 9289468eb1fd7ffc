"""Records of the living kernels, from which the next host adopts them. Runs in the host process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

from pyrokernel.messages import Message
from pyrokernel.settings import private_directory

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record(Message):
    """What a host must know of an instance that it did not start.

    Attributes:
        pid, start_time: The process; the second tells it from a later one of the same number.
        instance, socket, journal_dir: As in `KernelBirth`.
        spec: The `KernelSpec` in wire form.
        uri: Where it answers; "" until it has said that it is ready.
        started: Unix time in seconds.
        restarts: How often hosts restarted it.
        role: What it is, as in `KernelBirth`.
    """

    pid: int
    start_time: int
    instance: str
    socket: str
    journal_dir: str
    spec: dict[str, Any]
    uri: str = ""
    started: float = 0.0
    restarts: int = 0
    role: str = "kernel"

    @property
    def name(self) -> str:
        """Name of the kernel."""
        return str(self.spec["name"])


class Registry:
    """One JSON file per kernel name.

    Args:
        directory: Where they are.
        kept: Whether there may be a next host. Kernels of a private mesh end with this one, and leave no record.
    """

    def __init__(self, directory: Path, *, kept: bool = True) -> None:
        self._directory = directory
        self._kept = kept

    def write(self, record: Record) -> None:
        """Store a record in place of an older one of the same name; a reader sees one or the other.

        Never raises for a disk that is full or a directory that is gone: the kernel runs all the same.
        """
        if not self._kept:
            return
        path = self._path(record.name)
        draft = path.with_suffix(".new")
        try:
            private_directory(self._directory)  # somebody may have cleared it away
            draft.write_text(json.dumps(record.to_wire()))
            os.replace(draft, path)
        except OSError as error:
            log.warning("cannot record kernel %s in %s, so a next host will not know it: %s", record.name, path, error)
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Forget a kernel."""
        if self._kept:
            self._path(name).unlink(missing_ok=True)

    def read_all(self) -> list[Record]:
        """Return all records, sorted by name; a damaged one is left out, with a warning."""
        records = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                records.append(Record.from_wire(json.loads(path.read_text())))
            except (OSError, ValueError, TypeError) as error:
                log.warning("the record %s cannot be read and is ignored: %s", path, error)
        return records

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"
