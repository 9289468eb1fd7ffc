"""A client of the shared state that writes down what it does, before and after; run as a script by the torture test.

One line of JSON for each step, appended with one call, so that whoever kills it knows what it was doing:
`{"n", "op", ...}` before, `{"n", "ok"}` or `{"n", "error", "unsure"}` after. Between two steps it pauses
while the file `pause` is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrokernel as pk
from pyrokernel.errors import (
    LockLostError,
    PyrokernelError,
    ReplyTimeoutError,
    StateConflictError,
    StateKeyError,
    StateUnavailableError,
)

LOCK_SECONDS = 6.0
BIG_BYTES = 100_000


class Diary:
    """What one client did, in its own file."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self._directory = directory
        self._file = os.open(directory / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._number = 0

    def note(self, **what: Any) -> None:
        """Append a line."""
        os.write(self._file, json.dumps({"t": time.monotonic(), **what}).encode() + b"\n")

    def pause(self) -> None:
        """Wait while the test looks at everything."""
        place, noted = self._directory / "pause", ""
        while place.exists():
            with contextlib.suppress(FileNotFoundError):
                if (text := place.read_text()) != noted:
                    noted = text
                    self.note(paused=noted)
            time.sleep(0.005)

    def do(self, op: str, step: Callable[[], Any], **what: Any) -> Any:
        """Take a step, and write down what came of it."""
        self._number += 1
        number = self._number
        self.note(n=number, op=op, **what)
        try:
            result = step()
        except (StateConflictError, ReplyTimeoutError, StateKeyError) as error:
            self.note(n=number, error=type(error).__name__, unsure=False)
        except (StateUnavailableError, LockLostError) as error:
            self.note(n=number, error=type(error).__name__, unsure=True, message=str(error))
        except PyrokernelError as error:
            self.note(n=number, error=type(error).__name__, unsure=True, wrong=str(error))
        else:
            self.note(n=number, ok=result)
            return result
        return None


class Worker:
    """Does one thing after another, all of them on keys that others write too."""

    def __init__(self, mesh: pk.Mesh, diary: Diary, seed: int) -> None:
        self._shared, self._diary = mesh.shared, diary
        self._chance = random.Random(seed)
        self._count = 0
        self._own: list[int] = []

    def run(self) -> None:
        """Go on until killed."""
        steps = [self.increment, self.append, self.compare, self.transfer, self.default, self.lock, self.put, self.get,
                 self.take, self.expiring, self.big, self.own]  # fmt: skip
        while True:
            self._diary.pause()
            self._count += 1
            self._chance.choice(steps)()

    def token(self) -> str:
        """Return what nobody else has written or will."""
        return f"{self._diary.name}-{os.getpid()}-{self._count}"

    def increment(self) -> None:
        """Every answer is another number."""
        key = f"count/{self._chance.randrange(2)}"
        self._diary.do("increment", lambda: self._shared.increment(key), key=key)

    def append(self) -> None:
        """Everything that was appended is there once."""
        key, token = f"list/{self._chance.randrange(2)}", self.token()
        self._diary.do("append", lambda: self._shared.m[key].append(token), key=key, token=token)

    def compare(self) -> None:
        """What was written on a condition followed what it was to follow."""
        token = self.token()

        def step() -> list[int]:
            version = self._shared.read("cas")
            return [version.revision, self._shared.compare_and_set("cas", token, version.revision)]

        self._diary.do("compare", step, token=token)

    def transfer(self) -> None:
        """Two keys change together: their sum is always the same."""
        amount, token = self._chance.randrange(1, 100), self.token()

        def step(transaction: Any) -> None:
            transaction["account/a"] = transaction["account/a"] + amount
            transaction["account/b"] = transaction["account/b"] - amount
            transaction["account/last"] = token

        self._diary.do("transfer", lambda: self._shared.transact(step), token=token)

    def default(self) -> None:
        """Of all who set a default, one does."""
        key, token = f"default/{self._count // 20}", self.token()
        self._diary.do("default", lambda: self._shared.setdefault(key, token), key=key, token=token)

    def lock(self) -> None:
        """Nobody is in the same room as somebody else."""
        name = f"lock{self._chance.randrange(2)}"
        lock = self._shared.lock(name, ttl=LOCK_SECONDS, timeout=1.0)
        token = self._diary.do("acquire", lock.acquire, name=name)
        if token is None:
            return
        self._diary.note(enter=name, token=token)
        self._diary.do("increment", lambda: self._shared.increment("count/locked"), key="count/locked")
        self._diary.note(leave=name, token=token)
        with contextlib.suppress(LockLostError):
            if lock.held:
                self._diary.do("release", lock.release, name=name, token=token)

    def put(self) -> None:
        """What was put is got once."""
        queue, token = self._chance.choice(["got", "taken"]), self.token()
        self._diary.do("put", lambda: self._shared.queue(queue).put(token), queue=queue, token=token)

    def get(self) -> None:
        """What was got is nobody else's."""
        self._diary.do("get", lambda: self._shared.queue("got").get(timeout=0.05))

    def take(self) -> None:
        """What was taken is done once, however often it was taken."""

        def step() -> Any:
            with self._shared.queue("taken").take(timeout=0.05, ttl=LOCK_SECONDS) as value:
                self._diary.note(taken=value)
                return value

        self._diary.do("take", step)

    def expiring(self) -> None:
        """One key goes soon, one stays for the length of the test."""
        token = self.token()
        self._diary.do("expiring", lambda: self._shared.set(f"soon/{token}", 1, ttl=0.2), token=token)
        self._diary.do("staying", lambda: self._shared.set(f"stay/{token}", 1, ttl=10_000.0), token=token)

    def big(self) -> None:
        """A large value is whole, whoever wrote it."""
        key, letter = f"big/{self._chance.randrange(2)}", self._chance.randrange(256)
        self._diary.do("big", lambda: self._shared.set(key, bytes([letter]) * BIG_BYTES), key=key)
        found = self._shared_get(key)
        if found is not None and (len(found) != BIG_BYTES or len(set(found)) != 1):
            self._diary.note(wrong=f"{key} is torn: {len(found)} bytes, {len(set(found))} letters")

    def own(self) -> None:
        """A key that nobody else writes is what it was set to; an undo goes back one step, not two."""
        key, number = f"own/{self._diary.name}-{os.getpid()}", self._count
        revision = self._diary.do("own", lambda: self._shared.set(key, number), key=key)
        if revision is not None and self._own and self._diary.do("undo", lambda: self._undo(key, revision)):
            expected = self._own[-1]
        elif revision is not None:
            self._own.append(number)
            expected = number
        else:
            self._own.clear()
            return
        found = self._shared_get(key)
        if found is not None and found != expected:
            self._diary.note(wrong=f"{key} is {found}, not {expected}")

    def _undo(self, key: str, revision: int) -> int:
        change = self._shared.undo(key, revision=revision)
        assert change is not None
        return int(change.revision)

    def _shared_get(self, key: str) -> Any:
        try:
            return self._shared.get(key)
        except StateUnavailableError:
            return None


def watch(mesh: pk.Mesh, diary: Diary, since: int, prefix: str) -> None:
    """Write down every revision that is told, until killed."""
    watcher = mesh.shared.watch(prefix, since=since)
    diary.note(watching=prefix, since=since)
    while True:
        diary.pause()
        try:
            change = watcher.get(timeout=0.05)
        except StateUnavailableError as error:
            diary.note(error="StateUnavailableError", message=str(error))
            continue
        if change is not None:
            diary.note(seen=change.revision)


def main() -> None:
    """Be a worker or a watcher."""
    directory, name, role, number = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    diary = Diary(directory, name)
    with pk.connect() as mesh:
        try:
            if role == "worker":
                Worker(mesh, diary, number).run()
            else:
                watch(mesh, diary, number, sys.argv[5])
        except Exception as error:
            diary.note(wrong=f"{type(error).__name__}: {error}")
            raise


if __name__ == "__main__":
    main()
