"""From a command line to settings, mesh, hosts and kernels. Runs in the caller's process."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from pyrokernel import settings as settings_module
from pyrokernel.client.mesh import Mesh, connect
from pyrokernel.errors import NameServerNotFoundError
from pyrokernel.host.places import Places
from pyrokernel.host.processes import is_same
from pyrokernel.host.registry import Record, Registry
from pyrokernel.settings import ENV_PREFIX, Settings, command_line
from pyrokernel.texts import label


def settings_of(args: argparse.Namespace, mesh_file: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings: configuration file, mesh file, environment, command line; later wins.

    Args:
        args: Has mesh, ns and config.
        mesh_file: Settings that a mesh file gives.
    """
    beneath = {key: value for key, value in (mesh_file or {}).items() if ENV_PREFIX + key.upper() not in os.environ}
    given = {"mesh": args.mesh, "ns": args.ns, "portable": getattr(args, "portable", None)}
    return settings_module.load(
        file=args.config, **{**beneath, **{key: value for key, value in given.items() if value is not None}}
    )


def open_mesh(settings: Settings) -> Mesh:
    """Connect to the mesh.

    Raises:
        NameServerNotFoundError: It does not run; the message has the command that starts it.
    """
    try:
        return connect(settings)
    except NameServerNotFoundError as error:
        if settings.ns:
            raise
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


def living_records(settings: Settings) -> list[Record]:
    """List the kernels of this machine that are alive, with a host or without one."""
    records = Registry(Places.of(settings).records).read_all()
    return [record for record in records if is_same(record.pid, record.start_time)]
