"""Modules that could be imported, without importing any. Runs in the kernel process.

Those that are loaded are read; those that are not are found as files, in directories whose listing is remembered.
"""

from __future__ import annotations

import importlib.machinery
import itertools
import os
import sys
import time
import types
from pathlib import Path
from typing import Any, Final

from pyrokernel.kernel.attributes import attributes
from pyrokernel.kernel.reading import MISSING, find, instance_dict, snapshot, word_for

_MODULE_NAMES: Final = frozenset(dir(types.ModuleType))
_SCAN_SECONDS: Final = 0.1
_ENTRIES_LIMIT: Final = 20_000
_LISTINGS_LIMIT: Final = 512
_SUFFIXES: Final = tuple(importlib.machinery.all_suffixes())
_listings: dict[str, tuple[int, tuple[str, ...]]] = {}
"""What was found in a directory, with the time it was last changed then."""


def list_modules(parent: str, prefix: str) -> dict[str, str]:
    """Name the modules of a package (of the search path for ""): the loaded, and those that lie in its directories."""
    names: set[str] = set()
    dotted = f"{parent}." if parent else ""
    for key, _ in snapshot(sys.modules):
        if type(key) is str and key.startswith(dotted):
            names.add(key[len(dotted) :].partition(".")[0])
    if not parent:
        names.update(sys.builtin_module_names)
    deadline = time.monotonic() + _SCAN_SECONDS
    for directory in _directories(parent):
        names.update(_listing(directory))
        if time.monotonic() > deadline:
            break
    return {name: "module" for name in names if name.startswith(prefix) and name.isidentifier()}


def list_members(module_name: str, prefix: str) -> dict[str, str]:
    """Name what can be imported from a module: what it holds when it is loaded, and its submodules."""
    module = find(sys.modules, module_name)
    found = list_modules(module_name, prefix)
    if module is not MISSING:
        for name, value in attributes(module).items():
            if name.startswith(prefix) and name.isidentifier() and name not in _MODULE_NAMES:
                found[name] = word_for(value)
    return found


def _directories(parent: str) -> list[str]:
    """Return where the modules of a package are looked for."""
    if not parent:
        return _strings(sys.path)
    package = find(sys.modules, parent)
    if package is not MISSING:
        path = find(instance_dict(package), "__path__")
        if path is not MISSING and not issubclass(type(path), list):
            path = find(instance_dict(path), "_path")  # a namespace package's, whose methods search again
        return _strings(path)
    above, _, last = parent.rpartition(".")
    return [str(Path(directory, last)) for directory in _directories(above)]


def _strings(values: Any) -> list[str]:
    if not issubclass(type(values), list):
        return []
    return [value for value in list.__getitem__(values, slice(1000)) if type(value) is str]


def _listing(directory: str) -> tuple[str, ...]:
    """Name the modules that lie in a directory; remembered until the directory changes."""
    try:
        changed = Path(directory).stat().st_mtime_ns
        held = _listings.get(directory)
        if held is not None and held[0] == changed:
            return held[1]
        names = set()
        with os.scandir(directory or ".") as entries:
            for entry in itertools.islice(entries, _ENTRIES_LIMIT):
                stem = entry.name.partition(".")[0]
                is_module = entry.name.endswith(_SUFFIXES) and stem != "__init__"
                if stem.isidentifier() and (is_module or _is_package(entry)):
                    names.add(stem)
    except (OSError, ValueError):  # no directory, such as a zip file; or a path with a null byte
        return ()
    if len(_listings) >= _LISTINGS_LIMIT:
        _listings.clear()
    _listings[directory] = (changed, tuple(names))
    return tuple(names)


def _is_package(entry: os.DirEntry[str]) -> bool:
    return "." not in entry.name and entry.is_dir() and Path(entry.path, "__init__.py").exists()
