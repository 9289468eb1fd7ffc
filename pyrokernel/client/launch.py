"""How a private mesh begins: its host first, then everything else. Runs in the caller's process."""

from __future__ import annotations

import gc

from pyrokernel.client.starting import StartingHost

# As in `again`: what is imported here, the host waits for.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrokernel.client.mesh import Mesh
    from pyrokernel.messages import KernelSpec


def local(kernels: int | Sequence[KernelSpec] = 1, **options: Any) -> Mesh:
    """Start a private mesh: own directory, own name server, ends with the block or the client.

    The kernels import from the folder of the script that is being run, as the script itself does. Init files
    have 10 s to end; one that goes on is not waited for any longer.

    Args:
        kernels: How many, named k0, k1, ...; or full specs, whose relative paths count from here.
        options: Settings, such as `timeout=30`.

    Raises:
        HostError: A kernel did not start; the message says why.
        RemoteError: An init file raised; the message says where. Of several kernels GatherError.
    """
    collects = gc.isenabled()
    host = None
    try:
        host = StartingHost(private=True)
        gc.disable()  # what is imported stays; looking through it again and again would find nothing
        # Not at the top: what a mesh needs is loaded while the host starts, on another processor.
        from pyrokernel.client.private import open_private

        if collects:
            gc.enable()
        return open_private(host, kernels, options)
    except BaseException:
        if host is not None:
            host.give_up()
        raise
    finally:
        if collects:
            gc.enable()
