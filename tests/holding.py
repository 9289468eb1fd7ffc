"""A C call that holds the interpreter of a kernel until it is let go. Runs in the test process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

SOURCE = """
import ctypes, os
gate = os.open({gate!r}, os.O_RDWR)
ctypes.PyDLL(None).read(gate, ctypes.create_string_buffer(1), 1)  # a call by way of PyDLL keeps the lock
os.close(gate)
"""


class Hold:
    """What to run in one kernel for it to answer nobody; wait for that before the end of the block, which lets it go.

    Args:
        directory: Where a gate is made.

    Attributes:
        source: What to run.
    """

    def __init__(self, directory: Path) -> None:
        gate = directory / "gate"
        os.mkfifo(gate)
        self._gate = os.open(gate, os.O_RDWR)
        self.source = SOURCE.format(gate=str(gate))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.let_go()
        os.close(self._gate)

    def let_go(self) -> None:
        """Have the call return; again it does nothing that anybody notices."""
        os.write(self._gate, b"\0")
