"""What a host can start, as strings: the one reference to a sibling room. Runs in the host and template processes.

A process of the mesh enters its room here and nowhere else, so that importing the host
imports no kernel.
"""

from __future__ import annotations

from typing import NamedTuple


class Role(NamedTuple):
    """One kind of process.

    Attributes:
        entry: `module:function`, called with a `KernelBirth` in a fork of the template; does not return.
        module: What `python -m` runs where forking is not possible; it reads the birth from standard input.
    """

    entry: str
    module: str


ROLES = {
    "kernel": Role(entry="pyrokernel.kernel.process:main", module="pyrokernel.kernel"),
    "gateway": Role(entry="pyrokernel.gateway.process:main", module="pyrokernel.gateway"),
    "state": Role(entry="pyrokernel.state.process:main", module="pyrokernel.state"),
}
