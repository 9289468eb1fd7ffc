"""From settings to mesh, hosts and kernels. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
from typing import Any

from pyrokernel.client.links import Link, ask
from pyrokernel.client.mesh import Mesh, connect
from pyrokernel.errors import NameServerNotFoundError, PyrokernelError
from pyrokernel.front.configured import settings_of as settings_of
from pyrokernel.front.nameserver_places import ways_to_serve
from pyrokernel.host.places import Places
from pyrokernel.host.processes import is_same
from pyrokernel.host.registry import Record, Registry
from pyrokernel.messages import HOST_OBJECT
from pyrokernel.settings import Settings, command_line
from pyrokernel.texts import label
from pyrokernel.wire.endpoints import answers
from pyrokernel.wire.fanout import Request

_LEAST_SECONDS = 0.1
"""Settings want a time above 0; so much beyond a deadline of 0 is not noticed."""


def in_time(settings: Settings, timeout: float | None) -> Settings:
    """Return settings by which no single answer is awaited for longer than all of it may take."""
    if timeout is None:
        return settings
    return dataclasses.replace(settings, timeout=max(_LEAST_SECONDS, min(settings.timeout, timeout)))


_HERE_SECONDS = 2.0


def open_mesh(settings: Settings) -> Mesh:
    """Connect to the mesh.

    Raises:
        NameServerNotFoundError: It does not run; the message has the command that starts it.
    """
    try:
        return connect(settings)
    except NameServerNotFoundError as error:
        if settings.ns or settings.joined:
            without = without_name_server(settings)
            if not without:
                raise
            again = ways_to_serve(settings.ns_address)
            raise NameServerNotFoundError(f"{without}; start that again: {again}") from error
        serve = command_line(settings, "serve --detach")
        alive = living_records(settings)
        if alive:
            names = label(record.name for record in alive)
            message = (
                f"mesh {settings.mesh!r} has no host, but its kernels live ({names}); watch over them again: {serve}"
            )
        else:
            message = f"mesh {settings.mesh!r} is not running on this machine; start it: {serve}"
        raise NameServerNotFoundError(message) from error


def host_here(settings: Settings) -> Link | None:
    """Return the way to the host of the mesh on this machine, whether a name server knows it or not; None without."""
    path = settings.host_socket
    return Link(settings.host_name, f"PYRO:{HOST_OBJECT}@./u:{path}") if answers(path) else None


def described_here(settings: Settings) -> dict[str, Any]:
    """Return what the host of this machine says of itself, nothing where there is none that answers."""
    link = host_here(settings)
    try:
        return dict(ask(link, Request(HOST_OBJECT, "describe"), _HERE_SECONDS)) if link is not None else {}
    except PyrokernelError:
        return {}


def without_name_server(settings: Settings) -> str:
    """Say that the host of this machine runs and its name server, which is another process, is away; "" if not so."""
    about = described_here(settings)
    if not about or about.get("ns") != settings.ns_address:
        return ""
    return f"the host runs here (process {about['pid']}), and its name server {settings.ns_address} does not answer"


def living_records(settings: Settings, *, state: bool = False) -> list[Record]:
    """List the kernels of this machine that are alive, with a host or without one.

    Args:
        settings: Of which mesh.
        state: Also the process of the shared state, which is no kernel.
    """
    records = Registry(Places.of(settings).records).read_all()
    alive = [record for record in records if is_same(record.pid, record.start_time)]
    return [record for record in alive if state or record.role == "kernel"]
