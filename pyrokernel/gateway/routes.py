"""Where a request is to go: from the object that it names to a unix socket. Runs in the gateway process."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from pyrokernel.errors import KernelNotFoundError
from pyrokernel.messages import HOST_OBJECT

_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What may stand for a socket: no path, whatever it leads to."""

_USUAL = {"Pyro.NameServer": "ns", HOST_OBJECT: "host"}
"""Objects of which a machine has one, which stock clients name without a word for the socket."""

_TICK_SECONDS = 0.1


class Routes:
    """The sockets of one mesh on this machine.

    Args:
        runtime: Directory of the sockets; the host's records of kernels are in `kernels/`.
        ns: Address of the name server of the mesh, where that is on another machine.
    """

    def __init__(self, runtime: Path, ns: str = "") -> None:
        self._runtime, self._ns = runtime, ns
        self._records = runtime / "kernels"
        self._names: dict[str, str] = {}
        """By the word for its socket, which kernel listens there; "" for the shared state."""
        self._read_at = -1, 0.0

    def find(self, object_id: str) -> tuple[Path, str]:
        """Return the socket of an object, which is named `OBJECT/WORD` to the world, and the name of its kernel.

        What no record names is not reached: nobody could say which lines of the policy are for it.

        Raises:
            KernelNotFoundError: There is none.
        """
        target, slash, word = object_id.rpartition("/")
        word = word if slash else _USUAL.get(target or word, "")
        if _WORD.fullmatch(word):
            path = self._runtime / f"{word}.sock"
            kernel = "" if word in _USUAL.values() else self._kernel_of(word)
            if kernel is not None and path.exists():
                return path, kernel
        if self._ns and word == _USUAL["Pyro.NameServer"]:
            raise KernelNotFoundError(f"this machine has no name server; that of its mesh is at {self._ns}")
        raise KernelNotFoundError(
            f"there is no {object_id[:100]!a} on this machine; look its name up anew, it may have been restarted"
        )

    def kernels(self) -> list[Path]:
        """Return the sockets of the kernels."""
        self._read()
        return [self._runtime / f"{word}.sock" for word, name in self._names.items() if name]

    def _kernel_of(self, word: str) -> str | None:
        """Return the name of the kernel behind a word, "" for the shared state, None for nothing."""
        if word not in self._names:
            self._read()
        return self._names.get(word)

    def _read(self) -> None:
        """Read what listens where, if there is news."""
        if self._has_news():
            self._names = {}
            for file in self._records.glob("*.json"):
                try:
                    record = json.loads(file.read_bytes())
                    if record["role"] != "gateway":
                        self._names[record["instance"]] = record["spec"]["name"] if record["role"] == "kernel" else ""
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # just being written, or gone

    def _has_news(self) -> bool:
        """Whether records may have been written since they were read: who asks for nonsense costs one look."""
        try:
            changed = self._records.stat().st_mtime_ns
        except OSError:
            return False
        # Two changes within one tick of the system's clock have the same time.
        now, (known, read_at) = time.time(), self._read_at
        self._read_at = changed, now
        return changed != known or read_at - changed / 1e9 < _TICK_SECONDS
