"""How instances ended: recorded, kept, announced to whoever waits. Runs in the host process.

The supervisor appends; threads that serve callers wait here, so that a death is
announced before anything is done about it.
"""

from __future__ import annotations

import collections
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyrokernel.journal import JournalReader
from pyrokernel.messages import Death

log = logging.getLogger(__name__)

KEPT_DEATHS = 1000
_MAX_FILE_BYTES = 8 * 1024 * 1024


class DeathLog:
    """The last deaths, numbered from 1 in the order they were recorded; a file keeps them for the next host.

    Args:
        path: The file.
        told: Called with each that is recorded.
    """

    def __init__(self, path: Path, told: Callable[[Death], None] = lambda death: None) -> None:
        self._path, self._told = path, told
        self._changed = threading.Condition()
        self._closed = False
        self._deaths: collections.deque[Death] = collections.deque(maxlen=KEPT_DEATHS)
        self._last = 0
        for death in self._read_file():
            self._deaths.append(death)
            self._last += 1

    def append(self, death: Death) -> None:
        """Record a death and wake everybody who waits for one."""
        with self._changed:
            self._deaths.append(death)
            self._last += 1
            self._changed.notify_all()
        line = json.dumps(death.to_wire()).encode() + b"\n"
        try:
            with self._path.open("ab", buffering=0) as stream:
                stream.write(line)
        except OSError as error:  # a full disk; the callers have been told all the same
            log.warning("cannot record a death in %s: %s", self._path, error)
        self._told(death)

    def after(self, number: int, timeout: float) -> tuple[int, list[Death]]:
        """Return the deaths after a number and the number to ask with next; wait for one if there is none yet.

        Args:
            number: -1 asks for the present number only. A number from another host's count asks for all.
            timeout: Seconds to wait at most.
        """
        with self._changed:
            if number < 0:
                return self._last, []
            if number > self._last:
                number = 0
            self._changed.wait_for(lambda: self._last > number or self._closed, timeout)
            fresh = min(self._last - number, len(self._deaths))
            return self._last, list(self._deaths)[len(self._deaths) - fresh :]

    def of(self, instance: str, timeout: float) -> Death | None:
        """Return the death of an instance, waiting for it if need be; None if it did not come."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for death in reversed(self._deaths):
                    if death.instance == instance:
                        return death
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    return None
                self._changed.wait(left)

    def close(self) -> None:
        """Let everybody who waits go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _read_file(self) -> list[Death]:
        """Read the end of the file, and cut the file down to that when it has grown large."""
        try:
            with self._path.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(0, size - _MAX_FILE_BYTES // 2))
                lines = stream.read().splitlines(keepends=True)[-KEPT_DEATHS:]
        except FileNotFoundError:
            return []
        if size > _MAX_FILE_BYTES:
            draft = self._path.with_suffix(".new")
            draft.write_bytes(b"".join(lines[1:]))
            os.replace(draft, self._path)
        deaths = []
        for line in lines:
            try:
                deaths.append(Death.from_wire(json.loads(line)))
            except (ValueError, TypeError):
                continue  # cut at the front by us, or at the end by a crash
        return deaths


def examine(journal: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the cell that a dead kernel was running, None if none, and the end of its output."""
    try:
        reader = JournalReader(journal)
        return reader.last_cell(), reader.tail_text()
    except (OSError, ValueError) as error:
        log.warning("the journal %s cannot be read: %s", journal, error)
        return None, ""
