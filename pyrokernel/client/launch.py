"""Starting a host process, lasting or private. Runs in the caller's process."""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any

from pyrokernel import settings as settings_module
from pyrokernel.errors import HostError, error_from_wire
from pyrokernel.messages import HostConfig, KernelSpec
from pyrokernel.settings import Settings

START_SECONDS = 60.0
"""How long a host may take until its kernels are ready; it gives up on a kernel after 30 s itself."""

STOP_SECONDS = 10.0


def start_host(config: HostConfig) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Start a host process in a session of its own; return it with its report, when that has come.

    Args:
        config: What it is told; `ready_fd` is filled in here, and `lifeline_fd` is inherited.

    Returns:
        The process, and what the host says: `ok` and what runs, or the error; `running` when there is a host already.

    Raises:
        HostError: It said nothing.
    """
    ready_out, ready_in = os.pipe()
    inherited = [ready_in] if config.lifeline_fd < 0 else [ready_in, config.lifeline_fd]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "pyrokernel.host"],
            stdin=subprocess.PIPE,
            # A detached host writes a log of its own; a private one complains where its client does.
            stdout=complaints if config.detached else None,
            stderr=complaints if config.detached else None,
            pass_fds=inherited,
            start_new_session=True,
        )
        os.close(ready_in)
        assert process.stdin is not None
        with process.stdin as stdin:
            told = dataclasses.replace(config, ready_fd=ready_in)
            stdin.write(json.dumps(told.to_wire()).encode())
        with os.fdopen(ready_out, "rb") as ready:
            line = _read_line(ready, START_SECONDS)
        if line:
            report: dict[str, Any] = json.loads(line)
            return process, report
        process.kill()
        process.wait()
        complaints.seek(0)
        tail = complaints.read()[-2000:].decode(errors="replace").strip()
    raise HostError(f"the host did not start within {START_SECONDS:g} s" + (f"; it said:\n{tail}" if tail else ""))


class PrivateHost:
    """A host process that belongs to this client and ends with it, with its kernels and its directory.

    The client holds the only writing end of a pipe, the lifeline; host and kernels end when
    it closes, however the client ends.

    Args:
        specs: The kernels to start.
        options: Settings that differ from the defaults.
    """

    def __init__(self, specs: Sequence[KernelSpec], **options: Any) -> None:
        self.directory = tempfile.mkdtemp(prefix="pyrokernel-", dir="/tmp" if os.path.isdir("/tmp") else None)
        self.settings = Settings(
            **{
                **settings_module.load().dump(),
                **options,
                "mesh": "local",
                "ns": "",
                "runtime_dir": self.directory,
                "state_dir": os.path.join(self.directory, "state"),
            }
        )
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
            self._process, report = start_host(config)
        finally:
            os.close(life_out)
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
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _let_go(self) -> None:
        """In a forked child: the mesh belongs to the parent, whose end must not be kept from being seen."""
        if self._process is not None:
            os.close(self._lifeline)
            self._process = None


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
