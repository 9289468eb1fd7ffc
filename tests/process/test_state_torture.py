"""Many clients; service, host and clients killed at random moments. No answered write is lost, none is done twice.

Every client writes down what it does, before and after each step (`torturing`). After each round, while all
pause, what they were told is compared with what is there. The seed is printed when a round fails.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torturing
from waiting import wait_until

from pyrokernel.errors import PyrokernelError
from pyrokernel.host.processes import is_same

WORKERS, WATCHERS = 5, ("", "list/")


class History:
    """What the clients have written down, read on and on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._places: dict[Path, int] = {}
        self.steps: dict[tuple[str, int, int], dict[str, Any]] = {}
        self.notes: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
        self._lives: collections.Counter[str] = collections.Counter()

    def begin_life(self, name: str) -> None:
        """Note that a client begins anew: its numbers do, too."""
        self.read()
        self._lives[name] += 1

    def read(self) -> None:
        """Read what was added."""
        for path in self._directory.glob("*.log"):
            data = path.read_bytes()
            start = self._places.get(path, 0)
            end = data.rfind(b"\n") + 1
            self._places[path] = max(start, end)
            for line in data[start:end].splitlines():
                self._take(path.stem, json.loads(line))

    def _take(self, name: str, line: dict[str, Any]) -> None:
        if "n" not in line:
            self.notes[name].append(line)
            return
        step = self.steps.setdefault((name, self._lives[name], line["n"]), {"client": name, "state": "begun"})
        step.update(line)
        if "ok" in line:
            step["state"] = "done"
        elif "error" in line:
            step["state"] = "unsure" if line["unsure"] else "not done"

    def of(self, *ops: str, **what: Any) -> list[dict[str, Any]]:
        """Return steps of some kinds."""
        return [
            step for step in self.steps.values()
            if step["op"] in ops and all(step.get(name) == value for name, value in what.items())
        ]  # fmt: skip

    def noted(self, name: str) -> list[dict[str, Any]]:
        """Return notes with a field, of all clients."""
        return [note for notes in self.notes.values() for note in notes if name in note]


class Torture:
    """A mesh, its clients, and who kills them."""

    def __init__(self, served: Any, directory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.directory = directory
        self.served = served
        self.mesh = self.served.connect()
        self.shared = self.mesh.shared
        self.shared.update({"list/0": [], "list/1": [], "cas": "", "account/a": 0, "account/b": 0, "account/last": ""})
        self.history = History(directory)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: dict[str, list[float]] = collections.defaultdict(list)
        self.kills: collections.Counter[str] = collections.Counter()
        self.host_pid = self.served.host_pid()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.mesh.close()

    # Clients

    def start_clients(self) -> None:
        """Start those that do not run."""
        for number in range(WORKERS):
            self._start(f"w{number}", "worker", str(self.chance.randrange(1 << 30)))
        for number, prefix in enumerate(WATCHERS):
            name = f"v{number}"
            self.history.read()
            seen = [note["seen"] for note in self.history.notes[name] if "seen" in note]
            self._start(name, "watcher", str(seen[-1] if seen else 0), prefix)

    def _start(self, name: str, *arguments: str) -> None:
        process = self.processes.get(name)
        if process is not None and process.poll() is None:
            return
        self.history.begin_life(name)
        with (self.directory / f"{name}.out").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, torturing.__file__, str(self.directory), name, *arguments],
                env=self.served.environ, stdout=output, stderr=output,
            )  # fmt: skip

    def pause(self, number: int) -> None:
        """Wait until all clients that live have come to a pause."""
        (self.directory / "pause.new").write_text(str(number))
        (self.directory / "pause.new").rename(self.directory / "pause")

        def all_pause() -> bool:
            self.history.read()
            living = [name for name, process in self.processes.items() if process.poll() is None]
            paused = {
                name for name, notes in self.history.notes.items() if notes and str(number) == notes[-1].get("paused")
            }
            return set(living) <= paused

        try:
            wait_until(all_pause, timeout=45)
        except AssertionError:
            for path in sorted(self.directory.glob("*.log")):
                alive = self.processes[path.stem].poll() is None
                print(
                    path.stem,
                    "alive" if alive else "ended",
                    self.processes[path.stem].pid,
                    path.read_bytes().splitlines()[-2:],
                )
            raise

    def go_on(self) -> None:
        (self.directory / "pause").unlink()

    # Killing

    def round(self) -> None:
        """Let the clients work, and kill some of what they need, or themselves."""
        wait_until(self._all_have_begun, timeout=30)
        for _ in range(self.chance.randrange(1, 4)):
            time.sleep(self.chance.random() * 0.25)  # the random moment: there is nothing to wait for
            victim = self.chance.choice(["service"] * 3 + ["client"] * 3 + ["watcher", "host", "host and service"])
            self.kills[victim] += 1
            if victim == "client":
                self._kill_client(f"w{self.chance.randrange(WORKERS)}")
            elif victim == "watcher":
                self._kill_client(f"v{self.chance.randrange(len(WATCHERS))}")
            elif victim == "service":
                self._kill_service()
            else:
                self._kill(self.host_pid)
                if victim == "host and service":
                    self._kill_service()
                self.served.serve("-n", "1")
                self.host_pid = self.served.host_pid()

    def _all_have_begun(self) -> bool:
        self.history.read()
        return all(self.history.notes[name] or self.history.of(*ALL, client=name) for name in self.processes)

    def _kill_client(self, name: str) -> None:
        process = self.processes[name]
        self.killed[name].append(time.monotonic())
        process.kill()
        process.wait()

    def _kill_service(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # it is just being started
            for path in Path(self.served.places["runtime_dir"]).rglob("~shared.json"):
                record = json.loads(path.read_text())
                if is_same(record["pid"], record["start_time"]):
                    self._kill(record["pid"])

    @staticmethod
    def _kill(pid: int) -> None:
        assert pid > 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    # Checking

    def check(self) -> None:
        """Compare what clients were told with what is there."""
        self.history.read()
        wrong = [
            line["wrong"] for line in (*self.history.noted("wrong"), *self.history.steps.values()) if "wrong" in line
        ]
        assert wrong == []
        self.check_counts()
        self.check_lists()
        self.check_conditions()
        self.check_accounts()
        self.check_defaults()
        self.check_locks()
        self.check_expiry()
        self.check_watchers()

    def check_counts(self) -> None:
        for key in ("count/0", "count/1", "count/locked"):
            steps = self.history.of("increment", key=key)
            told = [step["ok"] for step in steps if step["state"] == "done"]
            assert len(set(told)) == len(told), f"{key}: a number was told twice"
            found = self.shared.get(key, 0)
            assert len(told) <= found <= sum(step["state"] != "not done" for step in steps)
            assert max(told, default=0) <= found

    def check_lists(self) -> None:
        for key in ("list/0", "list/1"):
            steps = self.history.of("append", key=key)
            found = collections.Counter(self.shared.get(key))
            assert [token for token, count in found.items() if count > 1] == [], f"{key}: appended twice"
            missing = [step["token"] for step in steps if step["state"] == "done" and step["token"] not in found]
            assert missing == [], f"{key}: answered, and lost"
            assert set(found) <= {step["token"] for step in steps if step["state"] != "not done"}

    def check_conditions(self) -> None:
        history = {change.revision: change for change in self.shared.history("cas", 10_000)}
        order = sorted(history)
        for step in self.history.of("compare"):
            if step["state"] == "done":
                before, after = step["ok"]
                if after in history and order.index(after):
                    assert order[order.index(after) - 1] == before, "written over what it had not seen"
        done = [step["ok"][1] for step in self.history.of("compare") if step["state"] == "done"]
        assert [revision for revision in done if revision not in history and revision > order[0]] == []

    def check_accounts(self) -> None:
        assert self.shared.get("account/a") + self.shared.get("account/b") == 0
        histories = [
            [c.revision for c in self.shared.history(f"account/{name}", 10_000)] for name in ("a", "b", "last")
        ]
        count = min(map(len, histories)) - 1
        a, b, last = ([*found[:count]] for found in histories)
        assert [one + 1 for one in a] == b
        assert [one + 2 for one in a] == last
        done = self.history.of("transfer", state="done")
        assert len(done) <= len(histories[0])

    def check_defaults(self) -> None:
        told: dict[str, set[str]] = collections.defaultdict(set)
        for step in self.history.of("default", state="done"):
            told[step["key"]].add(step["ok"])
        assert {key: values for key, values in told.items() if len(values) > 1} == {}
        key = max(told, default=None)
        assert key is None or self.shared.get(key) in told[key]

    def check_locks(self) -> None:
        """Who was in a room had a higher number than everybody before, and was alone."""
        lost = {(step["name"], step.get("token")) for step in self.history.of("release") if step["state"] == "unsure"}
        for name in ("lock0", "lock1"):
            stays: list[tuple[int, float, float, str]] = []
            for client, notes in self.history.notes.items():
                for at, note in enumerate(notes):
                    if note.get("enter") != name:
                        continue
                    left = next((one["t"] for one in notes[at + 1 :] if one.get("leave") == name), None)
                    killed = [moment for moment in self.killed[client] if moment > note["t"]]
                    end = min([*killed[:1], *([left] if left is not None else [])], default=time.monotonic())
                    stays.append((note["token"], note["t"], end, client))
            stays.sort()
            tokens = [token for token, *_ in stays]
            assert len(set(tokens)) == len(tokens), f"{name}: granted twice with one number"
            for (token, _, end, first), (_, start, _, second) in itertools.pairwise(stays):
                if (name, token) not in lost:
                    assert end <= start, f"{name}: {second} came in while {first} was there"

    def check_expiry(self) -> None:
        kept = set(self.shared.m.keys()) if self.chance.random() < 0.3 else None
        if kept is None:
            return
        for step in self.history.of("staying", state="done"):
            assert f"stay/{step['token']}" in kept, "a key went before its time"
        wait_until(lambda: self.shared.keys("soon/") == [], timeout=20)

    def check_watchers(self) -> None:
        """What each watcher was told is what there was, without a gap and in order, over all its lives."""
        newest = self.shared.describe()["revision"]
        for number, prefix in enumerate(WATCHERS):
            name = f"v{number}"
            if self.processes[name].poll() is not None:
                continue
            watcher = self.shared.watch(prefix, since=0)
            written: list[int] = []
            while (change := watcher.get(timeout=0)) is not None and change.revision <= newest:
                written.append(change.revision)
            seen = [note["seen"] for note in self.history.notes[name] if "seen" in note]
            assert seen == written[: len(seen)], f"a watcher of {prefix!r} missed something, or was told it twice"

    def check_queues(self) -> None:
        """At the end: whatever was put is got, done, or still there; nothing is got or done twice."""
        for queue, op in (("got", "get"), ("taken", "take")):
            left: list[str] = []
            while len(self.shared.queue(queue)):  # what the killed have taken comes back in its time
                left.append(self.shared.queue(queue).get(timeout=3 * torturing.LOCK_SECONDS))
            out = collections.Counter([*(step["ok"] for step in self.history.of(op, state="done")), *left])
            assert [token for token, count in out.items() if count > 1] == [], f"{queue}: given out twice"
            missing = {step["token"] for step in self.history.of("put", queue=queue, state="done")} - set(out)
            # Whoever was killed, or gave up, before it was told may have had one each.
            lost = sum(step["state"] in ("begun", "unsure") for step in self.history.of(op))
            assert len(missing) <= lost, f"{queue}: {len(missing)} values are lost, and {lost} may be"
            known = {step["token"] for step in self.history.of("put", queue=queue) if step["state"] != "not done"}
            assert set(out) <= known


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rounds", [6, pytest.param(200, marks=pytest.mark.soak)])
def test_whatever_is_killed_no_answered_write_is_lost(
    places: dict[str, str], served_at: Any, tmp_path: Path, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("TORTURE_SEED", 0)) or random.randrange(1 << 30)
    print("seed", seed)
    for name in ("changes", "versions"):
        monkeypatch.setenv(f"PYROKERNEL_STATE_{name.upper()}", "1000000")
    torture = Torture(served_at(places, "-n", "1"), tmp_path, seed)
    try:
        for number in range(rounds):
            torture.start_clients()
            torture.round()
            torture.pause(number)
            try:
                torture.check()
            except (AssertionError, PyrokernelError):
                print("round", number, "seed", seed, dict(torture.kills))
                raise
            torture.go_on()
        torture.start_clients()
        torture.pause(rounds)
        torture.check()
        torture.check_queues()
        done = collections.Counter(step["op"] for step in torture.history.of(*ALL, state="done"))
        print(dict(done), dict(torture.kills))
        assert set(done) == ALL, "some of it was never done"
    finally:
        torture.close()


ALL = {"increment", "append", "compare", "transfer", "default", "acquire", "release", "put", "get", "take", "expiring",
       "staying", "big", "own", "undo"}  # fmt: skip
