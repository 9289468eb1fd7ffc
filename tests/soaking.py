"""Clients that do everything at once, and what is counted before and after. Runs in the test process."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyrokernel as pk
from pyrokernel.errors import GatherError, KernelDiedError, KernelRestartedError, KernelUnreachableError

BULK_BYTES = 3_000_000
"""Enough to go as a segment, small enough to be many."""

KILLED = (KernelDiedError, KernelRestartedError, KernelUnreachableError)
"""What a client may meet because somebody killed the kernel."""

ITEMS = 200


def inventory(pid: int) -> dict[str, int]:
    """Return what a process holds: descriptors, threads, memory in MiB, segments open and mapped."""
    folder = Path(f"/proc/{pid}")
    targets = []
    for entry in (folder / "fd").iterdir():
        with contextlib.suppress(OSError):
            targets.append(os.readlink(entry))
    status = (folder / "status").read_text()

    def number(field: str) -> int:
        found = re.search(rf"{field}:\s+(\d+)", status)
        return int(found[1]) if found else 0

    return {
        "descriptors": len(targets),
        "memfds": sum("memfd:" in target for target in targets),
        "mapped": (folder / "maps").read_text().count("/memfd:"),
        "threads": number("Threads"),
        "memory": (number("RssAnon") + number("RssShmem")) >> 10,
    }


class Load:
    """Several clients that use a mesh at the same time, each in a thread and with connections of its own.

    Args:
        mesh: Of kernels that restart.
        clients: How many.
        kill_seconds: Time between two kernels that are killed, on average.
    """

    def __init__(self, mesh: pk.Mesh, clients: int, kill_seconds: float) -> None:
        self._mesh = mesh
        self._clients, self._kill_seconds = clients, kill_seconds
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, seconds: float, seed: int) -> None:
        """Use the mesh for so long."""
        until = time.monotonic() + seconds
        over = threading.Event()
        threads = [
            threading.Thread(target=self._client, args=(number, random.Random(seed + number), until))
            for number in range(self._clients)
        ]
        killer = threading.Thread(target=self._kill, args=(random.Random(seed - 1), over))
        for thread in [*threads, killer]:
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        killer.join()

    def _client(self, number: int, chance: random.Random, until: float) -> None:
        steps: list[Callable[[pk.Mesh, int, random.Random], None]] = [
            self._call, self._execute, self._bulk, self._scatter, self._map, self._follow, self._interrupt,
        ]  # fmt: skip
        with pk.connect(settings=self._mesh.settings) as mesh:
            while time.monotonic() < until and not self.wrong:
                step = chance.choice(steps)
                name = step.__name__.strip("_")
                try:
                    step(mesh, number, chance)
                    self.done[name] += 1
                except KILLED:
                    self.done["killed"] += 1
                except GatherError as error:
                    others = [one for one in error.errors.values() if not isinstance(one, KILLED)]
                    self.done["killed"] += 1
                    self.wrong += [f"{name}: {one!r}" for one in others]
                except Exception as error:  # noqa: BLE001  whatever it is, the test is to name it
                    self.wrong.append(f"{name}: {type(error).__name__}: {error}")

    def _kill(self, chance: random.Random, over: threading.Event) -> None:
        """Kill one after the other: one that dies too often is given up."""
        turn = 0
        while not over.wait(self._kill_seconds * (0.5 + chance.random())):
            turn += 1
            with contextlib.suppress(*KILLED, ProcessLookupError, pk.ReplyTimeoutError):
                os.kill(self._mesh[turn % len(self._mesh)].describe()["pid"], signal.SIGKILL)
                self.done["kills"] += 1

    def _expect(self, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self.wrong.append(f"{what}: {found!r:.200} instead of {expected!r:.200}")

    @staticmethod
    def _one(mesh: pk.Mesh, chance: random.Random) -> pk.Kernel:
        found: pk.Kernel = mesh[chance.randrange(len(mesh))]
        return found

    def _call(self, mesh: pk.Mesh, number: int, chance: random.Random) -> None:
        kernel = self._one(mesh, chance)
        for value in range(20):
            self._expect("call", kernel.call(divmod, value, 7), divmod(value, 7))
        for name, found in mesh[:].call(divmod, number, 7).items():
            self._expect(f"call on {name}", found, divmod(number, 7))

    def _execute(self, mesh: pk.Mesh, number: int, chance: random.Random) -> None:
        token = f"{number} {chance.random()}"
        reply = self._one(mesh, chance).execute(f"print({token!r})\n{token!r} + '!'")
        self._expect("execute", (reply.result, reply.stdout), (token + "!", token + "\n"))

    def _bulk(self, mesh: pk.Mesh, number: int, chance: random.Random) -> None:
        sent = bytearray(chance.randbytes(8)) * (BULK_BYTES // 8)
        kernel = self._one(mesh, chance)
        kernel.push({f"bulk{number}": sent})
        self._expect("pull", kernel.pull(f"bulk{number}") == sent, True)

    def _scatter(self, mesh: pk.Mesh, number: int, chance: random.Random) -> None:
        sent = [chance.random() for _ in range(1000)]
        group = mesh[:]
        group.push({f"all{number}": bytes(BULK_BYTES)})
        group.scatter(f"part{number}", sent)
        self._expect("gather", group.gather(f"part{number}"), sent)

    def _map(self, mesh: pk.Mesh, number: int, chance: random.Random) -> None:
        items = [-chance.randrange(1000) for _ in range(ITEMS)]
        found = list(mesh[:].map(abs, items, retries=20))
        self._expect("map", found, [abs(item) for item in items])

    def _follow(self, mesh: pk.Mesh, number: int, chance: random.Random) -> None:
        cell = self._one(mesh, chance).submit(f"for line in range(300): print({number}, line)")
        text = "".join(event.data["text"] for event in cell.follow() if event.kind == "output")
        self._expect("follow", text, "".join(f"{number} {line}\n" for line in range(300)))

    def _interrupt(self, mesh: pk.Mesh, number: int, chance: random.Random) -> None:
        cell = self._one(mesh, chance).submit(f"print('in')\nwhile True: number = {number}")
        events: Iterator[Any] = cell.follow()
        for event in events:
            if event.kind == "output":
                break
        receipt = cell.interrupt()
        reply = cell.reply(check=False)
        if receipt.outcome == "interrupted":
            self._expect("interrupt", reply.ename, "KeyboardInterrupt")
