"""What became of files since the last look, and shipping them at each save. Runs in the caller's process."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pyrokernel.client.shipping import Module, read_modules, walk
from pyrokernel.errors import PyrokernelError, ShipError

_LOOK_SECONDS = 0.25
"""How often to look: a person who saves and turns to a kernel finds it done."""

_State = Mapping[str, tuple[int, int, int]]


class Watched:
    """Files, and folders of packages, of which is known which have changed; looking reads no file.

    Args:
        paths: What to watch; how it is now counts as known.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self.paths = [Path(path) for path in paths]
        self._known = {path: _state_of(path) for path in self.paths}
        self._unsettled: dict[Path, _State] = {}

    def check(self) -> None:
        """Refuse what is not there.

        Raises:
            ShipError: A file or folder is not there.
        """
        for path in self.paths:
            if not path.expanduser().exists():
                raise ShipError(f"there is no file {path}")

    def look(self) -> list[Path]:
        """Return those that have changed since the last look and not again since the one before.

        Editors write in several steps, or put a new file in the place of the old one. What is found changed is
        therefore told at the second look that finds it the same; what is missing is waited for.
        """
        settled = []
        for path in self.paths:
            state = _state_of(path)
            if not state or state == self._known[path]:
                self._unsettled.pop(path, None)
            elif self._unsettled.get(path) == state:
                self._known[path] = self._unsettled.pop(path)
                settled.append(path)
            else:
                self._unsettled[path] = state
        return settled


def ship_at_saves(
    watched: Watched,
    ship: Callable[[Sequence[Module]], object],
    fail: Callable[[PyrokernelError], object],
    began: Callable[[], object],
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Ship files, and again at each save, until it is over or Ctrl-C ends it.

    Args:
        watched: The files.
        ship: Ships modules and says what became of them.
        fail: Told what went wrong, which ends nothing: the next save tries again.
        began: Called when all files have been shipped once.
        is_over: Asked at each look.
    """
    with contextlib.suppress(KeyboardInterrupt):
        _ship_good(watched.paths, ship, fail)
        began()
        while not is_over():
            time.sleep(_LOOK_SECONDS)
            _ship_good(watched.look(), ship, fail)


def _ship_good(
    paths: Iterable[Path], ship: Callable[[Sequence[Module]], object], fail: Callable[[PyrokernelError], object]
) -> None:
    """Ship what can be read: a slip of the pen in one file does not hold the others."""
    modules = []
    for path in paths:
        try:
            modules += read_modules([path])
        except ShipError as error:
            fail(error)
    if modules:
        try:
            ship(modules)
        except PyrokernelError as error:
            fail(error)


def _state_of(path: Path) -> _State:
    """Return what changes when a file, or one of a folder, is written or replaced; nothing if it is not there."""
    path = path.expanduser()
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return {}
    found = {}
    for file in walk(path) if is_folder else [path]:
        try:
            info = file.stat()
        except OSError:  # gone again: the next look finds out
            continue
        found[str(file)] = (info.st_mtime_ns, info.st_size, info.st_ino)
    return found
