"""Where a request is to go: from the object that it names to a unix socket. Runs in the gateway process."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pyrokernel.errors import KernelNotFoundError
from pyrokernel.messages import HOST_OBJECT

_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What may stand for a socket: no path, whatever it leads to."""

_USUAL = {"Pyro.NameServer": "ns", HOST_OBJECT: "host"}
"""Objects of which a machine has one, which stock clients name without a word for the socket."""


class Routes:
    """The sockets of one mesh on this machine.

    Args:
        runtime: Directory of the sockets; the host's records of kernels are in `kernels/`.
    """

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self._names: dict[str, str] = {}

    def find(self, object_id: str) -> Path:
        """Return the socket of an object, which is named `OBJECT/WORD` to the world.

        Raises:
            KernelNotFoundError: There is none.
        """
        target, slash, word = object_id.rpartition("/")
        word = word if slash else _USUAL.get(target or word, "")
        path = self._runtime / f"{word}.sock"
        if _WORD.fullmatch(word) is None or not path.exists():
            raise KernelNotFoundError(
                f"there is no {object_id[:100]!r} on this machine; look its name up anew, it may have been restarted"
            )
        return path

    def kernel_of(self, socket: Path) -> str:
        """Return the name of the kernel that listens on a socket, "" where that is no kernel."""
        if socket.stem not in self._names:
            self._names = {}
            for file in (self._runtime / "kernels").glob("*.json"):
                try:
                    record = json.loads(file.read_bytes())
                    self._names[record["instance"]] = "" if record["role"] != "kernel" else record["spec"]["name"]
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # just being written, or gone
        return self._names.get(socket.stem, "")
