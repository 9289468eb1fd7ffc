"""What kernels are busy with that have not begun with a cell. Runs in the shell process."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.cell import Cell
from pyrokernel.client.group import Group
from pyrokernel.errors import PyrokernelError
from pyrokernel.texts import describe_busy, label

_ASK_SECONDS = 0.3


def describe_wait(group: Group, names: Iterable[str], cells: Mapping[str, Cell]) -> list[str]:
    """Say what kernels run that have not begun with a cell; those that are busy with the same on one line.

    Args:
        group: The kernels.
        names: Which of them.
        cells: What waits, by kernel name.
    """
    links = [group[name].link for name in group.names if name in names]
    try:
        abouts, _, missing = gather(group.mesh, links, kernel_request("describe"), kind="control", timeout=_ASK_SECONDS)
    except PyrokernelError:
        return []  # whoever follows the cell learns of it too
    now = time.time()
    alike: dict[str, list[str]] = {}
    for name, about in abouts.items():
        running = about["running"]
        if not running or running["cell"] == cells[name].id:
            continue
        alike.setdefault(describe_busy(running, now), []).append(name)
    if missing:
        alike["silent: a C call may hold the interpreter"] = list(missing)
    return [f"{label(kernels)} {'is' if len(kernels) == 1 else 'are'} {what}" for what, kernels in alike.items()]
