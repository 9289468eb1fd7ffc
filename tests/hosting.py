"""A host in a process of its own, spoken to through its exposed object. Runs in the test process."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyrokernel.client.links import Link, ask
from pyrokernel.messages import HOST_OBJECT, KERNEL_OBJECT, HostConfig, KernelSpec
from pyrokernel.settings import Settings
from pyrokernel.wire.fanout import Request


class HostProcess:
    """Starts a host and waits for its report.

    Args:
        settings: Where it keeps its files, and what else it is told.
        specs: Kernels to start.
        fields: Other fields of `HostConfig`; `private=True` also gives it a lifeline.
    """

    def __init__(self, settings: Settings, specs: Iterable[KernelSpec] = (), **fields: Any) -> None:
        self.settings = settings
        self.private = bool(fields.get("private"))
        ready, ready_fd = os.pipe()
        lifeline_fd, self._lifeline = os.pipe()
        config = HostConfig(
            settings=settings.dump(),
            specs=tuple(spec.to_wire() for spec in specs),
            ready_fd=ready_fd,
            lifeline_fd=lifeline_fd if self.private else -1,
            **fields,
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pyrokernel.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[ready_fd, lifeline_fd],
            start_new_session=True,
        )
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            stdin.write(json.dumps(config.to_wire()).encode())
        os.close(ready_fd)
        os.close(lifeline_fd)
        with os.fdopen(ready, "rb") as stream:
            assert select.select([stream], [], [], 30)[0], "the host does not report"
            self.report: dict[str, Any] = json.loads(stream.readline())
        self._link = Link("host", f"PYRO:{HOST_OBJECT}@./u:{settings.host_socket}")

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the host."""
        return ask(self._link, Request(HOST_OBJECT, method, list(args)), 40)

    def kernels(self) -> dict[str, dict[str, Any]]:
        """Return what the host says about its kernels, by name."""
        return {info["name"]: info for info in self.call("list_kernels")}

    def ask_kernel(self, name: str, method: str, *args: Any) -> Any:
        """Call a method of a kernel."""
        link = Link(name, self.kernels()[name]["uri"])
        try:
            return ask(link, Request(KERNEL_OBJECT, method, list(args)), 20)
        finally:
            link.close()

    def children(self) -> list[int]:
        """Return the processes that this host would collect."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def cut_lifeline(self) -> None:
        """Be gone, as seen by a private host and its kernels."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def wait(self) -> int:
        """Wait for the end of the process."""
        return self.process.wait(20)

    def close(self) -> None:
        """End what is still there, kernels included."""
        self.cut_lifeline()
        if not self.private and self.report["ok"] and self.process.poll() is None:
            self.call("shutdown", "the test is over", True)
        self.wait()
        self._link.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
