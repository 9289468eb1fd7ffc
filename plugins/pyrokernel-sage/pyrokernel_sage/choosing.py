"""Which kernels are Sage kernels. Runs in the kernel process."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

from pyrokernel.commands import KernelIdentity
from pyrokernel.errors import SettingsError

TAG = "sage"
"""A kernel that carries this word is a Sage kernel."""


def is_sage_kernel(kernel: KernelIdentity, settings: Mapping[str, Any]) -> bool:
    """Whether cells of a kernel are Sage.

    Installing a package must not change what `2^10` means everywhere: a kernel is a Sage kernel
    because somebody said so, by the tag "sage" or by its name in the settings.

    Args:
        kernel: Which.
        settings: `kernels` in it is "all", or a pattern of names ("sage*"), or a list of those.

    Raises:
        SettingsError: `kernels` is something else.
    """
    if TAG in kernel.tags:
        return True
    chosen = settings.get("kernels", ())
    patterns = [chosen] if isinstance(chosen, str) else chosen
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(each, str) for each in patterns):
        raise SettingsError(f'plugins.sage.kernels is "all" or a list of names such as ["sage*"], not {chosen!r}')
    return any(each == "all" or fnmatch.fnmatchcase(kernel.name, each) for each in patterns)
