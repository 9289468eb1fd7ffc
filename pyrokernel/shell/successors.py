"""The kernels that take the names of the dead. Runs in the shell process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import KernelDiedError, PyrokernelError
from pyrokernel.texts import label

_WAIT_SECONDS = 2.0


def greet_successors(mesh: Mesh, died: Iterable[KernelDiedError], notice: Callable[[str], None]) -> None:
    """Say which of the dead answer again, those that do so soon.

    Args:
        mesh: Where they are.
        died: The deaths that were just told.
        notice: Takes what to say.
    """
    waiting = {error.kernel: str(error.instance) for error in died}
    deadline = time.monotonic() + _WAIT_SECONDS
    back: list[str] = []
    while waiting and time.monotonic() < deadline:
        for name, instance in list(waiting.items()):
            if instance not in ("", _instance_of(mesh, name, instance)):
                back.append(name)
                del waiting[name]
        if waiting:
            time.sleep(0.02)
    if back:
        notice(f"{label(back)}: a fresh kernel answers now; its variables are gone")
    if waiting:
        notice(f"{label(waiting)}: not back yet; `ps` tells more")


def _instance_of(mesh: Mesh, name: str, otherwise: str) -> str:
    with contextlib.suppress(PyrokernelError):
        return mesh.link_to(name).instance
    return otherwise
