"""What the processes below this one take: whose they are, and their memory. Runs in the process of an experiment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def descendants(of: int | None = None) -> list[int]:
    """Return the ids of all processes below one, this one unless said."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    due = [os.getpid() if of is None else of]
    while due:
        below = children.get(due.pop(), [])
        found += below
        due += below
    return found


def memory_mib(pids: Iterable[int]) -> float:
    """Return the memory of processes in MiB, what several of them share divided among them (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024
