"""Files, directories and programs that a half-typed path could mean, here. Runs in the kernel process."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from pyrokernel.kernel.tokens import Tail, string_parts
from pyrokernel.messages import Completion

MATCH_LIMIT: Final = 300
"""Names in one answer."""

_SCAN_LIMIT: Final = 20_000
"""Entries of a directory that are looked at."""

_OPENS: Final = re.compile("(?i)open|path|load|read|save|write|file|dir|glob|exists|_csv")
"""Names of functions that take a path: what there is is offered before anything is typed of it."""

# On a file system that hangs, a look never ends: only so many wait there, and Tab goes without.
_looks = threading.BoundedSemaphore(2)


def may_be_path(tail: Tail) -> bool:
    """Tell whether the open string at the end of a source could name a file.

    Any could that is no index, once something is typed; of an empty one, the call around it has to say so.
    """
    tokens = tail.tokens
    prefix, quote, body, _ = string_parts(tokens[-1])
    indexes = bool(tail.open) and tokens[tail.open[-1]].text == "[" and tail.is_trailer(tail.open[-1])
    if indexes or "b" in prefix or len(quote) > 1 or set(body) & set("\\{}"):
        return False
    if body:
        return True
    return len(tokens) > 2 and tokens[-2].text == "(" and _OPENS.search(tokens[-3].text) is not None


def complete_path(typed: str) -> Completion:
    """Complete the last part of a path, from the working directory or the home that "~" means.

    Returns:
        Names after the last "/" of `typed`; directories end with "/". Hidden ones only once a "." is typed.
    """
    folder, slash, prefix = typed.rpartition("/")
    names = _looked(_names_in(os.path.expanduser(folder + slash) or ".", prefix))
    if prefix in (".", "..") or typed == "~":
        names.append(prefix + "/")
    return _completion(names, ["directory" if name.endswith("/") else "file" for name in names], typed, prefix)


def complete_program(typed: str) -> Completion:
    """Complete the name of a program that the PATH leads to."""
    names = _looked(_programs(typed)) if typed else []
    return _completion(names, ["program"] * len(names), typed, typed)


def _names_in(folder: str, prefix: str) -> Iterator[str]:
    """Yield names in a directory that begin so; those of directories end with "/"."""
    for entry in _entries(folder, prefix):
        with contextlib.suppress(OSError):
            yield entry.name + "/" * entry.is_dir()


def _programs(prefix: str) -> Iterator[str]:
    for folder in dict.fromkeys(os.get_exec_path()):
        for entry in _entries(folder, prefix):
            if os.access(entry.path, os.X_OK) and not entry.is_dir():
                yield entry.name


def _entries(folder: str, prefix: str) -> list[os.DirEntry[str]]:
    """Return what can be typed of a directory, by name; nothing when it cannot be read."""
    hidden = prefix.startswith(".")
    with contextlib.suppress(OSError, ValueError), os.scandir(folder) as entries:
        fit = [
            entry
            for entry in itertools.islice(entries, _SCAN_LIMIT)
            if entry.name.startswith(prefix) and (hidden or entry.name[0] != ".") and entry.name.isprintable()
        ]
        return sorted(fit, key=lambda entry: entry.name)
    return []


def _looked(names: Iterable[str]) -> list[str]:
    """Return the first names, sorted; none when too many looks hang."""
    if not _looks.acquire(blocking=False):
        return []
    try:
        return sorted(dict.fromkeys(itertools.islice(names, MATCH_LIMIT)))
    finally:
        _looks.release()


def _completion(names: list[str], types: list[str], typed: str, prefix: str) -> Completion:
    start = len(typed) - len(prefix)
    return Completion(matches=tuple(names), types=tuple(types), cursor_start=start, cursor_end=len(typed))
