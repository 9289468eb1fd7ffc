"""`ps`: what the kernels of the mesh do. Runs in the caller's process."""

from __future__ import annotations

import argparse
import time
from typing import Any

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import PyrokernelError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.reach import command_line, open_mesh, settings_of, survey_hosts
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.messages import KernelInfo, KernelStatus
from pyrokernel.texts import format_kernels

_PATIENCE_SECONDS = 1.0
"""How long all kernels together get to describe themselves; one whose interpreter is held up cannot."""


def main(args: argparse.Namespace) -> int:
    """List the kernels."""
    settings = settings_of(args)
    with open_mesh(settings) as mesh:
        rows, silent = look(mesh)
    for host in silent:
        complain(f"host {host!r} does not answer; see `pyrokernel doctor`")
    if args.json:
        say_json(rows)
    elif rows:
        say(format_kernels(rows, now=time.time()))
    else:
        note(f"mesh {settings.mesh!r} has no kernels; start some: {command_line(settings, 'serve -n 2')}")
    return ExitCode.FAILED if silent else ExitCode.OK


def look(mesh: Mesh) -> tuple[list[dict[str, Any]], list[str]]:
    """Ask hosts and kernels, each group at once.

    Returns:
        One row per kernel: the fields of `KernelInfo`, and what its own `describe` adds (running, waiting,
        execution_count, python, init_error, journal_error); and the names of hosts that do not answer.
    """
    infos, _, silent = survey_hosts(mesh)
    group = mesh[:]
    known = {info.name for info in infos}
    # A name without a host that answers: its kernel may well do so itself.
    infos += [
        KernelInfo(name=kernel.name, instance=kernel.instance, status="unknown")
        for kernel in group
        if kernel.name not in known
    ]
    links = [kernel.link for kernel in group]
    abouts, errors, _ = gather(mesh, links, kernel_request("describe"), kind="control", timeout=_PATIENCE_SECONDS)
    return [row_of(info, abouts.get(info.name), errors.get(info.name)) for info in infos], silent


def row_of(info: KernelInfo, about: dict[str, Any] | None, error: PyrokernelError | None) -> dict[str, Any]:
    """Join what the host knows with what the kernel says of itself.

    Args:
        info: From the host.
        about: The kernel's `describe`; None when it did not answer.
        error: Why it could not be asked, if that is known.
    """
    row = info.to_wire()
    if info.status == KernelStatus.DEAD:
        return row
    if about is not None:
        own = ("status", "running", "waiting", "execution_count", "python", "init_error", "journal_error", "last_seq")
        row.update({key: about[key] for key in own if key in about}, answers=True)
        if not info.pid:  # from the name server only
            row.update({key: about[key] for key in ("host", "pid", "tags", "started", "protected") if key in about})
    elif info.status != KernelStatus.STARTING:
        row.update(status=KernelStatus.BUSY.value, answers=False, note=str(error) if error else "holds its interpreter")
    return row
