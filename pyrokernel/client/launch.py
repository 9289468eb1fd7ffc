"""Starting a host process, lasting or private. Runs in the caller's process."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from pyrokernel import settings as settings_module
from pyrokernel.again import python_with
from pyrokernel.errors import HostError, error_from_wire
from pyrokernel.messages import START_SECONDS, STOP_SECONDS, HostConfig, KernelSpec

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh

_READY_SECONDS = 2 * START_SECONDS
"""How long a host may take until its kernels are ready or given up."""

_END_SECONDS = 2 * STOP_SECONDS


class StartingHost:
    """A host process in a session of its own, on its way to be ready.

    Args:
        config: What it is told; `ready_fd` is filled in here, and `lifeline_fd` is inherited.

    Attributes:
        process: The process.
    """

    def __init__(self, config: HostConfig) -> None:
        self._ready, ready_in = os.pipe()
        inherited = [ready_in] if config.lifeline_fd < 0 else [ready_in, config.lifeline_fd]
        # A detached host writes a log of its own; a private one complains where its client does.
        self._complaints = _complaints_file() if config.detached else None
        self.process = subprocess.Popen(
            python_with("pyrokernel.host"),
            stdin=subprocess.PIPE,
            stdout=self._complaints,
            stderr=self._complaints,
            pass_fds=inherited,
            start_new_session=True,
        )
        os.close(ready_in)
        assert self.process.stdin is not None
        told = dataclasses.replace(config, ready_fd=ready_in)
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:  # it has ended: `report` says so
            stdin.write(json.dumps(told.to_wire()).encode())

    def report(self) -> dict[str, Any]:
        """Wait until it is ready, and return what it says.

        Returns:
            `ok` and what runs, or the error; `running` when there is a host already.

        Raises:
            HostError: It said nothing.
        """
        with os.fdopen(self._ready, "rb") as ready:
            line = _read_line(ready, _READY_SECONDS)
        if line:
            said: dict[str, Any] = json.loads(line)
            if self._complaints is not None:
                self._complaints.close()
            return said
        ended = self.process.poll()
        self.process.kill()
        self.process.wait()
        what = (
            f"was not ready within {_READY_SECONDS:g} s" if ended is None else f"ended at its start with code {ended}"
        )
        tail = ""
        if self._complaints is not None:
            with self._complaints as complaints:
                complaints.seek(0)
                tail = "; it said:\n" + complaints.read()[-2000:].decode(errors="replace").strip()
        raise HostError(f"the host {what}{tail}")


class PrivateHost:
    """A host process that belongs to this client and ends with it, with its kernels and its directory.

    The client holds the only writing end of a pipe, the lifeline; host and kernels end when
    it closes, however the client ends.

    Args:
        specs: The kernels to start.
        options: Settings that differ from the defaults.
    """

    def __init__(self, specs: Sequence[KernelSpec], **options: Any) -> None:
        # Short, because a unix socket's address is; unguessable, and nobody else's, or mkdir fails.
        self.directory = f"/tmp/pyrokernel-{os.getuid()}-{secrets.token_hex(6)}"
        own = {"mesh": "local", "ns": "", "runtime_dir": self.directory, "state_dir": f"{self.directory}/state"}
        self.settings = settings_module.load(**{**options, **own})
        os.mkdir(self.directory, mode=0o700)
        self._lifeline = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._start(specs)
        atexit.register(self.stop)
        os.register_at_fork(after_in_child=self._let_go)

    def _start(self, specs: Sequence[KernelSpec]) -> None:
        life_out, self._lifeline = os.pipe()
        config = HostConfig(
            settings=self.settings.dump(),
            specs=tuple(spec.to_wire() for spec in specs),
            lifeline_fd=life_out,
            private=True,
        )
        try:
            self._starting = StartingHost(config)
        finally:
            os.close(life_out)
        self._process = self._starting.process

    def wait_ready(self) -> None:
        """Wait until the kernels are ready.

        Raises:
            HostError: One of them did not start; nothing of the mesh is left then.
        """
        try:
            report = self._starting.report()
        except HostError:
            self.stop()
            raise
        if not report["ok"]:
            self.stop()
            raise error_from_wire(report)

    def stop(self) -> None:
        """End host and kernels, and remove their directory."""
        if self._process is None:
            return
        atexit.unregister(self.stop)
        os.close(self._lifeline)
        process, self._process = self._process, None
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if os.path.exists(self.directory):  # the host was killed before it could remove it
            import shutil

            shutil.rmtree(self.directory, ignore_errors=True)

    def _let_go(self) -> None:
        """In a forked child: the mesh belongs to the parent, whose end must not be kept from being seen."""
        if self._process is not None:
            os.close(self._lifeline)
            self._process = None


def local(kernels: int | Sequence[KernelSpec] = 1, **options: Any) -> Mesh:
    """Start a private mesh: own directory, own name server, ends with the block or the client.

    The kernels import from the folder of the script that is being run, as the script itself does. Init files
    have 10 s to end; one that goes on is not waited for any longer.

    Args:
        kernels: How many, named k0, k1, ...; or full specs, whose relative paths count from here.
        options: Settings, such as `timeout=30`.

    Raises:
        HostError: A kernel did not start; the message says why.
        RemoteError: An init file raised; the message says where. Of several kernels GatherError.
    """
    specs = [KernelSpec(name=f"k{number}") for number in range(kernels)] if isinstance(kernels, int) else kernels
    folder = _script_folder()
    specs = [dataclasses.replace(spec, init=spec.init and os.path.abspath(spec.init), path=(*spec.path, *folder))
             for spec in specs]  # fmt: skip
    private = PrivateHost(specs, **options)
    # Not at the top: what a mesh needs is loaded while the host starts, on another processor.
    from pyrokernel.client.mesh import Mesh

    private.wait_ready()
    mesh = Mesh(private.settings, on_close=private.stop)
    mesh.hosts()
    with_init = [spec.name for spec in specs if spec.init]
    if with_init:
        from pyrokernel.client.inits import check_inits

        try:
            check_inits(kernel.link for kernel in mesh[with_init])
        except BaseException:
            mesh.close()  # the caller would never have it
            raise
    return mesh


def _script_folder() -> tuple[str, ...]:
    """Return the folder beside whose modules the program was written, if it was."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return (os.path.dirname(os.path.abspath(file)),) if file else ()


def _complaints_file() -> IO[bytes]:
    """Open a nameless file for what a host says before it has a log."""
    import tempfile  # with `random` and `shutil`, 5 ms

    return tempfile.TemporaryFile()


def _read_line(stream: IO[bytes], timeout: float) -> bytes:
    """Read until a newline or the end, or the time has passed."""
    deadline, line = time.monotonic() + timeout, b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            break
        piece = os.read(stream.fileno(), 65536)
        if not piece:
            break
        line += piece
    return line
