"""What client code knows when it runs inside a kernel: who that kernel is, and who waits for its cell.

A kernel that waits for itself would wait for ever, so each request carries the kernels
that are waiting already. Runs in the caller's process, which may be a kernel.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Sequence

from pyrokernel.errors import WouldDeadlockError


@dataclasses.dataclass
class _Inside:
    pid: int = 0
    kernel: str = ""
    instance: str = ""
    waiters: tuple[tuple[str, str], ...] = ()
    author: str = ""
    awaited: tuple[tuple[str, str], ...] = ()


_inside = _Inside()


def become(kernel: str, instance: str) -> None:
    """Say that this process is a kernel."""
    _inside.pid, _inside.kernel, _inside.instance = os.getpid(), kernel, instance


def kernel_name() -> str:
    """Return the name of the kernel that this process is, "" when it is none."""
    return _inside.kernel if _inside.pid == os.getpid() else ""


def writer() -> str:
    """Return what stands beside the account where it writes to the shared state: this kernel, and whose cell it runs.

    A thread of its own may be anybody's, and is the kernel's alone; "" outside a kernel.
    """
    kernel = kernel_name()
    of_a_cell = _inside.author and kernel and threading.current_thread() is threading.main_thread()
    return f"{kernel}, {_inside.author}" if of_a_cell else kernel


def serve(waiters: Sequence[tuple[str, str]], author: str = "") -> None:
    """Say that a cell runs which these kernels wait for; () when it has ended.

    Args:
        waiters: They.
        author: Whose cell it is, "" for one of this account.
    """
    _inside.waiters = tuple((str(kernel), str(instance)) for kernel, instance in waiters) if waiters else ()
    _inside.author = author


def waiters() -> list[tuple[str, str]]:
    """Return the kernels that would wait for a request made now, the caller's own last.

    Only the main thread of a kernel holds up its cell; a thread of its own may wait on anybody.
    """
    if not _inside.pid or _inside.pid != os.getpid() or threading.current_thread() is not threading.main_thread():
        return []
    return [*_inside.waiters, (_inside.kernel, _inside.instance)]


def awaited() -> tuple[tuple[str, str], ...]:
    """Return the kernels that the running cell waits for right now (asked by those that wait for us)."""
    return _inside.awaited


def waits_for(kernels: Sequence[tuple[str, str]]) -> bool:
    """Note what the running cell waits for; False where nothing waits: outside a kernel or its main thread."""
    if not waiters():
        return False
    _inside.awaited = tuple(kernels)
    return True


def check_wait(kernel: str, instance: str) -> None:
    """Refuse to wait on a kernel that waits on us.

    Raises:
        WouldDeadlockError: It does; the ring is in the message.
    """
    chain = waiters()
    if instance in [waiting for _, waiting in chain]:
        raise WouldDeadlockError(ring=(*(name for name, _ in chain), kernel))
