"""The host process: lock, terminal, and the report of its start around one `Host`. Runs in the host process."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from pyrokernel import systems
from pyrokernel.errors import HostError, PyrokernelError, error_to_wire
from pyrokernel.host.host import Host
from pyrokernel.host.places import Places
from pyrokernel.host.spawn import TemplateProcess
from pyrokernel.messages import HostConfig
from pyrokernel.settings import Settings, private_directory
from pyrokernel.wire.trust import check_address


def run(
    config: HostConfig,
    *,
    on_ready: Callable[[dict[str, Any]], None] | None = None,
    template: TemplateProcess | None = None,
) -> int:
    """Be the host of this machine until the end.

    Args:
        config: What to start and how to live.
        on_ready: Called with the report that also goes to `config.ready_fd`.
        template: One that is under way already.

    Returns:
        Exit code: 0, or 1 when the host could not start (the report says why).
    """
    report = _Report(config.ready_fd, on_ready)
    lock = None
    try:
        settings = Settings(**config.settings)
        places = Places.of(settings, private=config.private)
        check_address(settings.ns, has_identity=bool(settings.listen))
        places.create()
        lock = try_lock(settings)
        if lock is None:
            report.send({"ok": False, "running": True, **error_to_wire(_already_running(places))})
            return 1
        if config.detached:
            _detach(places)
        return Host(config, settings, places, report.send, template).run()
    except (PyrokernelError, OSError) as error:
        report.fail(error)
        return 1
    finally:
        if lock is not None:
            os.close(lock)


def try_lock(settings: Settings) -> int | None:
    """Become the one host of the mesh on this machine: return the locked descriptor, None if there is one already.

    The lock goes with the descriptor, however this process ends; children do not inherit it.
    """
    path = private_directory(settings.mesh_runtime_dir) / "host.lock"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | systems.OWN, 0o600)
        try:
            if not systems.try_lock(descriptor):
                os.close(descriptor)
                return None
            # The host that held it may just have removed the file: a lock on a file without a name is none.
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, b"%d\n" % os.getpid())
                return descriptor
        except FileNotFoundError:
            pass  # removed between lock and look: try again with a new file
        os.close(descriptor)


class _Report:
    """Says once whether the host is ready."""

    def __init__(self, descriptor: int, callback: Callable[[dict[str, Any]], None] | None) -> None:
        self._descriptor = descriptor
        self._callback = callback

    def send(self, line: dict[str, Any]) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(BrokenPipeError):  # whoever started this host did not wait
                os.write(self._descriptor, json.dumps(line).encode() + b"\n")
            os.close(self._descriptor)
            self._descriptor = -1
        if self._callback is not None:
            self._callback(line)

    def fail(self, error: BaseException) -> None:
        self.send({"ok": False, **error_to_wire(error)})


def _already_running(places: Places) -> HostError:
    try:
        holder = f" (process {places.lock.read_text().strip()})"
    except OSError:
        holder = ""
    return HostError(f"a host{holder} already serves {places.runtime}; new kernels are started through it")


def _detach(places: Places) -> None:
    """Let go of the terminal."""
    if hasattr(os, "setsid"):
        with contextlib.suppress(PermissionError):  # leads a session already
            os.setsid()
    log = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(null)
    os.close(log)
