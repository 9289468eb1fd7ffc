"""Memory for large messages is used again, never while somebody has a view of it, and given back in the end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time

import pytest

from pyrokernel.wire import codec, memory, spare
from pyrokernel.wire.memory import own_memory

SIZE = 1 << 20


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a process does: what other tests still hold is not looked at."""
    monkeypatch.setattr(spare, "_process", None)


def blocks() -> list[spare.Block]:
    return spare.ours(memory._Blocks)._blocks


def test_memory_is_used_again_when_every_view_of_it_has_gone() -> None:
    view = own_memory(SIZE)
    view[:5] = b"first"
    part = view[2:4]
    del view
    other = own_memory(SIZE)
    other[:5] = b"other"
    assert bytes(part) == b"rs"
    assert len(blocks()) == 2
    del part, other
    again = own_memory(SIZE - 100)
    assert len(again) == SIZE - 100
    assert len(blocks()) == 2


def test_a_forked_child_has_a_copy() -> None:
    view = own_memory(SIZE)
    view[:5] = b"first"
    child = os.fork()
    if child == 0:
        view[:5] = b"child"
        os._exit(0 if len(own_memory(SIZE)) == SIZE and blocks() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(view[:5]) == b"first"


def test_what_is_not_used_is_given_back_and_what_is_used_is_not() -> None:
    held, idle = own_memory(SIZE), own_memory(SIZE)
    idle[:1] = b"x"
    del idle
    assert spare.tidy(time.monotonic())
    assert [block.busy for block in blocks()] == [True]
    del held
    assert not spare.tidy(time.monotonic())
    assert blocks() == []


def test_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    views = [own_memory(SIZE) for _ in range(30)]
    assert len(blocks()) <= 8
    for number, view in enumerate(views):
        view[:1] = bytes([number])
    assert [view[0] for view in views] == list(range(30))
    monkeypatch.setattr(memory, "kept_bytes", lambda: SIZE // 2)
    large = own_memory(SIZE)
    assert len(blocks()) <= 8
    assert len(large) == SIZE


def test_the_thread_that_gives_back_ends_when_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    process = spare._ours()
    monkeypatch.setattr(spare, "IDLE_SECONDS", 0.0)
    process.tidies = True
    view = own_memory(SIZE)
    del view
    gc.collect()
    spare._tidy_up(process)
    assert not process.tidies
    assert blocks() == []


@pytest.mark.parametrize("shape", ["bytes", "array", "view of bytes", "view of an array", "by columns", "packed"])
def test_what_travels_is_never_a_view_of_a_view(shape: str) -> None:
    """A garbage collection that finds a cycle which leads to one crashes the interpreter (CPython 3.11)."""
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000.0).reshape(250, 400)
    value = {
        "bytes": bytes(800_000),
        "array": array,
        "view of bytes": memoryview(bytearray(800_000)),
        "view of an array": memoryview(array),
        "by columns": numpy.asfortranarray(array),
        "packed": [array, array.copy()],
    }[shape]
    packed = codec.Packed.dump(value)
    _, views = codec.dump_envelope(("object", "method", (packed,), {}))
    for view in (*packed.buffers, *views):
        assert type(memoryview(view).obj) is not memoryview
    assert sum(view.nbytes for view in views) >= 800_000
    assert all(view.format == "B" and view.ndim == 1 for view in views)


def test_a_failed_request_with_large_data_is_collected_without_harm() -> None:
    code = """
import gc
import numpy
import pyrokernel as pk
with pk.local(1) as mesh:
    for _ in range(5):
        try:
            mesh["k0"].call("nothing of that name", numpy.zeros(2_000_000))
        except pk.RemoteError:
            pass
        gc.collect()
print("alive")
"""
    pytest.importorskip("numpy")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
