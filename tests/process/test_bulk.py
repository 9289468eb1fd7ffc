"""Large data to kernels and back: right, writable, out of nobody's way, and nothing is left of it."""

from __future__ import annotations

import array
import contextlib
import gc
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.wire import segments, spare

numpy = pytest.importorskip("numpy")

SIZE = 500_000


def large(seed: int = 0, size: int = SIZE) -> Any:
    return numpy.random.default_rng(seed).random(size)


@pytest.fixture(scope="module", params=[False, True], ids=["segments", "portable"])
def mesh(request: pytest.FixtureRequest) -> Iterator[pk.Mesh]:
    """Three kernels, with and without memory to share."""
    with pk.local(3, portable=request.param) as found:
        found[:].execute("import numpy as np")
        yield found


@pytest.fixture
def group(mesh: pk.Mesh) -> pk.Group:
    found: pk.Group = mesh[:]
    return found


@pytest.fixture
def kernel(mesh: pk.Mesh) -> pk.Kernel:
    found: pk.Kernel = mesh["k0"]
    return found


def test_every_kernel_has_an_array_of_its_own(group: pk.Group) -> None:
    sent = large(1)
    group.push(x=sent, kept=large(2))
    assert [reply.result for reply in group.execute("float(x.sum())").values()] == [float(sent.sum())] * 3
    group["k1"].execute("x[:] = 0")
    pulled = group.pull("x")
    assert numpy.array_equal(pulled["k0"], sent)
    assert not pulled["k1"].any()
    pulled["k2"][:] = 1
    assert numpy.array_equal(group["k2"].pull("x"), sent)
    assert numpy.array_equal(group["k2"].pull("kept"), large(2))


def test_what_was_pushed_before_stays_as_it_was(kernel: pk.Kernel) -> None:
    for seed in range(6):
        kernel.push({f"x{seed}": large(seed)})
    for seed in range(6):
        assert numpy.array_equal(kernel.pull(f"x{seed}"), large(seed))


def test_a_pulled_array_does_not_follow_the_kernels(kernel: pk.Kernel) -> None:
    kernel.push(x=large(1))
    before = kernel.pull("x")
    kernel.execute("x += 1")
    after = kernel.pull("x")
    assert numpy.array_equal(before, large(1))
    assert numpy.array_equal(after, large(1) + 1)


@pytest.mark.parametrize(
    "whole",
    [
        large(3, 3 * SIZE),
        large(3, 3 * SIZE + 1),
        large(4, 6 * SIZE).reshape(-1, 6),
        large(4, 6 * SIZE).reshape(-1, 6)[:, ::2],
        numpy.asfortranarray(large(5, 3 * SIZE).reshape(-1, 2)),
        (large(6, 3 * SIZE) * 1e6).astype("datetime64[s]"),
        large(6, 3 * SIZE).astype("complex64"),
        numpy.arange(30),
        numpy.zeros(3 * SIZE, [("a", "i4"), ("b", "f8")]),
        numpy.array([None, "x", 3] * 1000),
    ],
    ids=lambda whole: f"{whole.dtype}{whole.shape}",
)
def test_parts_are_joined_as_they_were(group: pk.Group, whole: Any) -> None:
    group.scatter("part", whole)
    joined = group.gather("part")
    assert joined.dtype == whole.dtype
    assert joined.flags.writeable
    assert numpy.array_equal(joined, whole)
    joined[:1] = joined[-1:]
    assert numpy.array_equal(group.gather("part"), whole)


def test_parts_that_do_not_match_are_joined_as_numpy_does(group: pk.Group) -> None:
    group.push(x=large(1))
    group["k1"].push(x=large(2).astype("float32"))
    group["k2"].push(x=large(3)[:10])
    expected = numpy.concatenate([large(1), large(2).astype("float32"), large(3)[:10]])
    assert numpy.array_equal(group.gather("x"), expected)
    group["k1"].execute("x = x.reshape(-1, 2)")
    with pytest.raises(ValueError, match="dimension"):
        group.gather("x")
    group["k1"].execute("del x")
    with pytest.raises(pk.GatherError, match="no variable"):
        group.gather("x")


def test_a_part_that_changes_meanwhile_is_fetched_by_itself(group: pk.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyrokernel.client.whole import Whole

    if group.mesh.settings.portable:
        pytest.skip("each part comes by itself")
    group.scatter("x", large(1, 3 * SIZE))
    requests = Whole.requests

    def changed(self: Whole, name: str) -> Any:
        group["k2"].execute("x = x[:100]")
        return requests(self, name)

    monkeypatch.setattr(Whole, "requests", changed)
    assert len(group.gather("x")) == 2 * SIZE + 100


def test_arguments_and_results_of_calls(group: pk.Group) -> None:
    group.execute("def twice(x, *, more=0): return x * 2 + more")
    for value in group.call("twice", large(1), more=large(2)).values():
        assert numpy.array_equal(value, large(1) * 2 + large(2))
    assert [len(value) for value in group.map("twice", [large(seed) for seed in range(6)])] == [SIZE] * 6
    assert numpy.array_equal(group["k0"].execute("twice(np.arange(500_000))").result, numpy.arange(SIZE) * 2)


def test_a_call_with_large_arguments_between_kernels_cannot_wait_for_itself(group: pk.Group) -> None:
    source = "import pyrokernel as pk\npk.connect()['k0'].call('abs', np.zeros(500_000))"
    if not segments.available():
        pytest.skip("no segments")
    with pytest.raises(pk.RemoteError) as caught:
        group["k0"].execute(source, timeout=20)
    assert caught.value.ename == "WouldDeadlockError"


@pytest.mark.parametrize(
    "value",
    [
        os.urandom(1_000_000),
        bytearray(1_000_000),
        array.array("d", range(200_000)),
        memoryview(bytes(1_000_000)),
        "x" * 10**6,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_without_numpy(kernel: pk.Kernel, value: Any) -> None:
    kernel.push(x=value)
    assert kernel.execute("type(x).__name__").result == type(value).__name__
    for found in (kernel.pull("x"), kernel.call(lambda given: given, value), kernel.execute("x").result):
        assert type(found) is type(value)
        assert found == value


def test_an_interrupt_reaches_a_kernel_that_is_sent_large_data(kernel: pk.Kernel) -> None:
    done = threading.Event()

    def push() -> None:
        while not done.is_set():
            kernel.push(x=large(1, 4 * SIZE))

    pusher = threading.Thread(target=push)
    pusher.start()
    try:
        for _ in range(5):
            cell = kernel.submit("while True: pass")
            wait_until(lambda: kernel.describe()["running"])
            assert kernel.interrupt(wait=5.0).outcome == "interrupted"
            assert cell.reply(timeout=10, check=False).ename == "KeyboardInterrupt"
    finally:
        done.set()
        pusher.join()
    assert numpy.array_equal(kernel.pull("x"), large(1, 4 * SIZE))


def test_output_and_others_come_through_while_large_data_is_on_its_way(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    kernel.push(x=large(1, 4 * SIZE))
    done, rounds = threading.Event(), []

    def shuttle() -> None:
        while not done.is_set():
            kernel.push(y=kernel.pull("x"))
            rounds.append(1)

    shuttling = threading.Thread(target=shuttle)
    shuttling.start()
    try:
        wait_until(lambda: len(rounds) > 2)
        before = len(rounds)
        cell = kernel.submit("import time\nfor n in range(100): print(n); time.sleep(0.01)")
        text = "".join(event.data["text"] for event in cell.follow(timeout=30) if event.kind == "output")
        assert text.split() == [str(number) for number in range(100)]
        assert kernel.call("abs", -3) == 3
        wait_until(lambda: len(rounds) > before)
    finally:
        done.set()
        shuttling.join()


def test_a_client_that_does_not_read_its_answers_costs_little(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    """It asks again and again for what is large, and takes nothing: the rest of the kernel goes on."""
    from pyrokernel.client.calls import kernel_request
    from pyrokernel.wire.connection import send_now

    kernel.push(x=large(1, 4 * SIZE))
    pid = kernel.describe()["pid"]
    before = shared_bytes(pid)
    connections = [kernel.link.take("control") for _ in range(20)]
    for connection in connections:
        connection.sock.setblocking(True)
        request = kernel_request("pull", ["x"], {})
        for _ in range(5):
            send_now(connection.sock, list(request.buffers))
    for connection in connections:
        assert select.select([connection.sock], [], [], 20)[0], "each has been answered once"
    assert kernel.call("abs", -3) == 3
    assert shared_bytes(pid) - before <= 10 * 4 * SIZE * 8
    for connection in connections:
        connection.close()
    assert numpy.array_equal(kernel.pull("x"), large(1, 4 * SIZE))


def open_files(pid: int) -> Iterator[tuple[Path, str]]:
    """Yield the descriptors of a process, and what they lead to."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it closes some meanwhile
            yield entry, os.readlink(entry)


def shared_bytes(pid: int) -> int:
    """Return how much memory a process has in segments."""
    seen: dict[int, int] = {}
    for entry, target in open_files(pid):
        if target.startswith("/memfd:pyrokernel"):
            with contextlib.suppress(FileNotFoundError):
                info = entry.stat()
                seen[info.st_ino] = info.st_blocks * 512
    return sum(seen.values())


def named_memory(pid: int) -> list[str]:
    """Return what shared memory a process has that has a name, and would outlive it."""
    opened = [target for _, target in open_files(pid) if target.startswith("/dev/shm/")]
    return opened + re.findall(r"/dev/shm/\S+", Path(f"/proc/{pid}/maps").read_text())


HOLDER = """
import os, signal, sys
import numpy
import pyrokernel as pk
with pk.connect() as mesh:
    group = mesh[:]
    group.push(x=numpy.arange(500_000.0))
    pulled = group.pull("x")
    whole = group.gather("x")
    print("ready", flush=True)
    if sys.argv[1] == "again":
        while True:
            group.push(y=whole)
    sys.stdin.read()
"""


@pytest.mark.skipif(not segments.available(), reason="this system has no segments")
@pytest.mark.parametrize("what", ["idle", "again"])
def test_nothing_is_left_of_a_client_that_was_killed(served: Any, what: str) -> None:
    with served.connect() as mesh:
        group = mesh[:]
        client = subprocess.Popen(
            [sys.executable, "-c", HOLDER, what],
            env=served.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        pids = [info.pid for info in mesh.ps()]
        assert [named_memory(pid) for pid in (client.pid, *pids)] == [[]] * (1 + len(pids))
        client.send_signal(signal.SIGKILL)
        client.communicate()
        for reply in group.execute("float(x.sum())").values():
            assert reply.result == float(numpy.arange(SIZE).sum())
        group.execute("x = y = None")
        group.execute("import time; from pyrokernel.wire import spare; spare.tidy(time.monotonic())")
        wait_until(lambda: [shared_bytes(pid) for pid in pids] == [0] * len(pids))


@pytest.mark.skipif(not segments.available(), reason="this system has no segments")
def test_nothing_is_left_of_a_kernel_that_was_killed() -> None:
    with pk.local(2) as mesh:
        kernel = mesh["k0"]
        kernel.push(x=large(1))
        pulled = kernel.pull("x")
        with pytest.raises(pk.KernelDiedError):
            kernel.execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        assert numpy.array_equal(pulled, large(1)), "what was pulled is this process's own"
        for seed in range(4):
            mesh["k1"].push(x=large(seed))
            assert numpy.array_equal(mesh["k1"].pull("x"), large(seed))
        del pulled
    gc.collect()  # what tests before this one have left in cycles, such as exceptions with their frames
    spare.tidy(float("inf"))
    wait_until(lambda: shared_bytes(os.getpid()) == 0)


def test_large_values_can_be_held_when_descriptors_are_few() -> None:
    script = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import numpy, os
import pyrokernel as pk
with pk.local(1) as mesh:
    kernel = mesh["k0"]
    kernel.execute("import numpy")
    held = []
    for number in range(200):
        kernel.execute(f"a = numpy.full(200_000, {number})")
        held.append(kernel.pull("a"))
    assert all((array == number).all() for number, array in enumerate(held))
    assert len(os.listdir("/proc/self/fd")) < 250
    for number in range(200):
        kernel.push({f"a{number}": held[number]})
    assert kernel.execute("all((globals()[f'a{n}'] == n).all() for n in range(200))").result
print("held")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert done.stdout == "held\n", done.stderr
