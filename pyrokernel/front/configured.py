"""From a command line to settings. Runs in the caller's process."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pyrokernel import settings as settings_module
from pyrokernel.errors import SettingsError
from pyrokernel.settings import ENV_PREFIX, Settings


def settings_of(args: argparse.Namespace, mesh_file: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings: configuration file, mesh file, environment, command line; later wins.

    Args:
        args: Has mesh, ns and config, and what `front.parsing.add_common` adds.
        mesh_file: Settings that a mesh file gives.
    """
    beneath = {key: value for key, value in (mesh_file or {}).items() if ENV_PREFIX + key.upper() not in os.environ}
    optional = ("portable", "listen", "advertise", "act_for")
    given = {"mesh": args.mesh, "ns": args.ns, **{name: getattr(args, name, None) for name in optional}}
    settings = settings_module.load(
        file=args.config, **{**beneath, **{key: value for key, value in given.items() if value is not None}}
    )
    return _with_plugins(settings, getattr(args, "no_plugin", None) or (), getattr(args, "plugins_dir", None) or ())


def _with_plugins(settings: Settings, without: Sequence[str], folders: Sequence[str]) -> Settings:
    """Return settings with the plugins to go without, and the folders, that a command line adds.

    Raises:
        SettingsError: A folder is not there.
    """
    paths = [os.path.abspath(os.path.expanduser(folder)) for folder in folders]
    for path in paths:
        if not os.path.isdir(path):
            raise SettingsError(f"--plugins-dir: there is no folder {path}")
    return dataclasses.replace(
        settings,
        no_plugin=",".join(filter(None, [settings.no_plugin, *without])),
        plugins_dir=os.pathsep.join(filter(None, [*paths, settings.plugins_dir])),
    )
