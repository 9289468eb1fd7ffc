"""`nameserver forget`: remove the names of a host that will not come back. Runs in the caller's process.

Who is only away for a while needs none of it: a host finds its names again, and removes those of its dead itself.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from pyrokernel.errors import SettingsError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.nameserver_status import address_of
from pyrokernel.front.terminal import complain, say
from pyrokernel.messages import HOST_PREFIX, KERNEL_PREFIX
from pyrokernel.settings import Settings
from pyrokernel.texts import label, plural
from pyrokernel.wire.naming import Directory, Entry
from pyrokernel.wire.remote import Credentials

_AT_ONCE = 32
"""Names that are tried at once: each that leads nowhere may take as long as an answer would."""


def forget(args: argparse.Namespace, settings: Settings) -> int:
    """Remove what a host has registered, but for what answers."""
    host = args.file
    if not host:
        raise SettingsError("say whose names: pyrokernel nameserver forget HOST, as `pyrokernel ps` lists it")
    where = address_of(args, settings)
    with closing(Directory(where, timeout=settings.timeout, credentials=Credentials.of(settings))) as directory:
        entries = directory.having(f"host:{host}")  # its own name, those of its kernels, and what these have published
        if not entries:
            others = label([entry.name.removeprefix(HOST_PREFIX) for entry in directory.list(HOST_PREFIX)])
            complain(f"the name server at {directory.address} has no name of host {host!r}; it has: {others or 'none'}")
            return ExitCode.NO_KERNEL
        alive = set() if args.force else _alive(directory, entries)
        removed = [entry for entry in entries if entry.name not in alive and directory.remove(entry.name)]
    if removed:
        say(f"forgot {plural(len(removed), 'name')} of host {host}: {label(map(_shown, removed))}")
    if not alive:
        return ExitCode.OK
    kept = label(_shown(entry) for entry in entries if entry.name in alive)
    complain(
        f"at these names of host {host} somebody is: {kept}; end them first, or say --force "
        "(a host that lives brings its names back)"
    )
    return ExitCode.REFUSED


def _alive(directory: Directory, entries: list[Entry]) -> set[str]:
    """Return the names that lead to somebody."""
    with ThreadPoolExecutor(_AT_ONCE, "pyrokernel-forget") as threads:
        answers = threads.map(directory.leads_to_somebody, entries)
        return {entry.name for entry, answer in zip(entries, answers, strict=True) if answer}


def _shown(entry: Entry) -> str:
    return entry.name.removeprefix(KERNEL_PREFIX).removeprefix("pyrokernel.")
