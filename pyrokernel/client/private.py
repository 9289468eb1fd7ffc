"""A private mesh: its host, and the handle to it. Runs in the caller's process."""

from __future__ import annotations

import atexit
import dataclasses
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from pyrokernel import settings as settings_module
from pyrokernel import systems
from pyrokernel.client.mesh import Mesh
from pyrokernel.client.starting import StartingHost
from pyrokernel.errors import error_from_wire
from pyrokernel.messages import START_SECONDS, HostConfig, KernelSpec
from pyrokernel.wire import codec

_READY_SECONDS = 2 * START_SECONDS
"""How long a host may take until its kernels are ready or given up."""


class PrivateHost:
    """A host process that belongs to this client and ends with it, with its kernels and its directory.

    The client holds the only writing end of a pipe, the lifeline; host and kernels end when
    it closes, however the client ends.

    Args:
        starting: It, waiting to be told what to do.
        specs: The kernels to start.
        options: Settings that differ from the defaults.
    """

    def __init__(self, starting: StartingHost, specs: Sequence[KernelSpec], **options: Any) -> None:
        # Short, because a unix socket's address is; unguessable, and nobody else's, or mkdir fails.
        self.directory = f"{systems.temporary_root()}/pyrokernel-{systems.own_uid()}-{os.urandom(6).hex()}"
        own = {
            "mesh": "local",
            "ns": "",
            "listen": "",
            "gateway": "",
            "runtime_dir": self.directory,
            "state_dir": f"{self.directory}/state",
        }
        self.settings = settings_module.load(**{**options, **own})
        self._starting = starting
        self._running = True
        self._ending = threading.RLock()
        atexit.register(self.stop)
        systems.at_fork(after_in_child=self._let_go)
        try:
            os.mkdir(self.directory, mode=0o700)
            told = HostConfig(
                settings=self.settings.dump(), specs=tuple(spec.to_wire() for spec in specs), private=True
            )
            starting.tell(told)
        except BaseException:
            self.stop()
            raise

    def wait_ready(self) -> None:
        """Wait until the kernels are ready.

        Raises:
            HostError: One of them did not start.
        """
        report = self._starting.report(_READY_SECONDS)
        if not report["ok"]:
            raise error_from_wire(report)

    def stop(self) -> None:
        """End host and kernels, and remove their directory; Ctrl-C is raised once that is done."""
        try:
            self._end()
        except BaseException:  # an interrupt: what is left of it
            self._end()
            raise

    def _end(self) -> None:
        with self._ending:
            if not self._running:
                return
            self._starting.give_up()
            if os.path.exists(self.directory):  # the host was killed before it could remove it
                import shutil

                shutil.rmtree(self.directory, ignore_errors=True)
            atexit.unregister(self.stop)
            self._running = False

    def _let_go(self) -> None:
        """In a forked child: the mesh belongs to the parent, whose end must not be kept from being seen."""
        if self._running:
            self._running = False
            self._starting.let_go()


def open_private(starting: StartingHost, kernels: int | Sequence[KernelSpec], options: dict[str, Any]) -> Mesh:
    """Start the kernels of a private mesh; for the rest see `launch.local`.

    Args:
        starting: Its host, waiting to be told what to do.
        kernels, options: As `local` is given them.
    """
    specs = [KernelSpec(name=f"k{number}") for number in range(kernels)] if isinstance(kernels, int) else kernels
    folder = _script_folder()
    specs = [dataclasses.replace(spec, init=spec.init and os.path.abspath(spec.init), path=(*spec.path, *folder))
             for spec in specs]  # fmt: skip
    private = PrivateHost(starting, specs, **options)
    mesh = None
    try:
        codec.get_ready()  # in time that is spent waiting
        private.wait_ready()
        mesh = Mesh(private.settings, on_close=private.stop)
        mesh.hosts()
        with_init = [spec.name for spec in specs if spec.init]
        if with_init:
            from pyrokernel.client.inits import check_inits

            check_inits(kernel.link for kernel in mesh[with_init])
    except BaseException:  # the caller would never have it
        if mesh is not None:
            mesh.close()
        private.stop()
        raise
    return mesh


def _script_folder() -> tuple[str, ...]:
    """Return the folder beside whose modules the program was written, if it was."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return (os.path.dirname(os.path.abspath(file)),) if file else ()
