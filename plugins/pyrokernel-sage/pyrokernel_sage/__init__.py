"""Kernels whose cells are Sage: its preparser and its objects, from passagemath. Runs in the kernel process.

Only in Sage kernels: those with the tag "sage", and those that `[plugins.sage] kernels` names.
Everywhere else the plugin does nothing. Nothing of Sage is imported before a Sage kernel needs it::

    choosing      which kernels are Sage kernels
    preparsing    which sources pass through the preparser, and what they become
    parts         the names that the installed parts of Sage give, and what stands for missing ones
    interrupts    interrupts that reach long computations of Sage, and end only the cell that was meant
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyrokernel import hookimpl
from pyrokernel.commands import KernelIdentity

from pyrokernel_sage.choosing import is_sage_kernel

__version__ = "0.1.0"


@hookimpl
def pyrokernel_preload(settings: Mapping[str, Any]) -> None:
    """Import the installed parts of Sage in the template: all kernels share them, and none waits."""
    from pyrokernel_sage import parts

    parts.names()


@hookimpl
def pyrokernel_add_names(kernel: KernelIdentity, settings: Mapping[str, Any]) -> Mapping[str, object]:
    """Give Sage kernels the names of Sage, and the decorator of files written for `sageRemoteValue`."""
    if not is_sage_kernel(kernel, settings):
        return {}
    from pyrokernel import command

    from pyrokernel_sage import parts

    found = parts.names()
    parts.renew_randomness()
    return {**found, "sageRemoteValue": command}


@hookimpl
def pyrokernel_transform_source(
    source: str, filename: str, kernel: KernelIdentity, settings: Mapping[str, Any]
) -> str | None:
    """Pass cells and `.sage` files of Sage kernels through the preparser."""
    if not is_sage_kernel(kernel, settings):
        return None
    from pyrokernel_sage.preparsing import preparsed

    _begin()  # the first cell is not observed: plugins are loaded while it runs
    return preparsed(source, filename)


@hookimpl
def pyrokernel_cell_started(cell: Mapping[str, Any], kernel: KernelIdentity, settings: Mapping[str, Any]) -> None:
    """Keep interrupts working, also for calls, which have no source; say once what is missing."""
    if is_sage_kernel(kernel, settings):
        _begin()


def _begin() -> None:
    from pyrokernel_sage import interrupts, parts

    interrupts.keep()
    parts.say_what_is_missing()
