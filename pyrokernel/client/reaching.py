"""How a reference that arrives in this process finds its mesh. Runs in the caller's process."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING

from pyrokernel import settings as settings_module
from pyrokernel.settings import Settings

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh

log = logging.getLogger(__name__)

_meshes: weakref.WeakValueDictionary[tuple[str, str], Mesh] = weakref.WeakValueDictionary()
"""The meshes that are open in this process, by address of the name server and name."""

_reached: dict[tuple[str, str], Mesh] = {}
"""Those that were opened because a reference needed them; they stay open."""

_connecting: dict[tuple[int, str, str], threading.Lock] = {}
"""Held by the thread that opens a mesh; the others of that process wait for it, and use that one."""

_seeking: dict[tuple[int, str, str], threading.Thread] = {}
"""The threads of each process that open a mesh."""


def note_mesh(mesh: Mesh) -> None:
    """Remember a mesh that was opened: references that arrive use it."""
    _meshes[mesh.settings.ns_address, mesh.settings.mesh] = mesh


def forget_mesh(mesh: Mesh) -> None:
    """Forget a mesh that was closed."""
    key = (mesh.settings.ns_address, mesh.settings.mesh)
    if _meshes.get(key) is mesh:
        del _meshes[key]


def reach(ns: str, name: str) -> Mesh:
    """Return the mesh at an address: one that is open, that of the settings, or by the address alone.

    Raises:
        NameServerNotFoundError: Nobody answers there.
    """
    from pyrokernel.client.mesh import connect  # the process may have no mesh yet

    found = _meshes.get((ns, name))
    if found is not None:
        return found
    # One lock for each process: in a forked child nobody would release that of its parent.
    with _connecting.setdefault((os.getpid(), ns, name), threading.Lock()):
        found = _meshes.get((ns, name))
        if found is None:
            found = _reached[ns, name] = connect(_settings_for(ns, name))
            note_mesh(found)
        return found


def reached(ns: str, name: str) -> Mesh | None:
    """Return the mesh at an address if it is open; else None, and a thread of its own opens it."""
    found = _meshes.get((ns, name))
    if found is None:
        key = (os.getpid(), ns, name)
        thread = threading.Thread(target=_seek, args=key, name="pyrokernel-reaching", daemon=True)
        if _seeking.setdefault(key, thread) is thread:
            thread.start()
    return found


def _seek(pid: int, ns: str, name: str) -> None:
    try:
        reach(ns, name)
    except Exception as error:  # noqa: BLE001  whoever needs it is told why when it is used
        log.debug("the mesh %s at %s is not reached: %s", name, ns, error)
    finally:
        del _seeking[pid, ns, name]


def _settings_for(ns: str, name: str) -> Settings:
    usual = settings_module.load()
    if (usual.ns_address, usual.mesh) == (ns, name):
        return usual
    return settings_module.load(ns=ns, mesh=name)
