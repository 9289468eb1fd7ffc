"""What users do with the shared state of a private mesh."""

from __future__ import annotations

import datetime
import json
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.client.live import LiveDict, LiveList, LiveSet
from pyrokernel.client.reference_data import to_data
from pyrokernel.client.shared import Shared
from pyrokernel.wire.values import encode_value


@pytest.fixture
def shared(mesh: pk.Mesh) -> Shared:
    """The common namespace, empty."""
    mesh.shared.clear()
    return mesh.shared


# Values


@pytest.mark.parametrize(
    "value",
    [
        0, -(2**200), 2**5000, 1.5, float("inf"), "", "text ä \U0001f600", b"\x00\xff", None, True, ..., 1j,
        (1, ("a", None)), frozenset({1}), datetime.datetime(2026, 1, 2, 3), datetime.timedelta(1), range(5),
        bytearray(b"x"),
    ],
)  # fmt: skip
def test_values_come_back_as_they_were(shared: Shared, value: Any) -> None:
    shared.m["v"] = value
    assert shared.m["v"] == value
    assert type(shared.m["v"]) is type(value)
    assert shared.get("v") == value


def test_containers_come_back_equal_and_travel_as_ordinary_ones(mesh: pk.Mesh, shared: Shared) -> None:
    value = {"list": [1, [2]], "set": {1, 2}, "tuple": (1, [2]), 3: None}
    shared.m["v"] = value
    view = shared.m["v"]
    assert view == value
    assert value == view
    assert repr(view) == repr(value)
    assert type(pickle.loads(pickle.dumps(view))) is dict
    assert type(shared.get("v")) is dict
    mesh["k0"].push(got=view)
    assert mesh["k0"].execute("type(got)").text == "<class 'dict'>"
    assert mesh["k0"].execute("shared.m['v']").result == value
    assert json.dumps(view.copy(), default=list)


def test_objects_are_pickled_and_functions_of_a_cell_too(mesh: pk.Mesh, shared: Shared) -> None:
    mesh["k0"].execute(
        "class Point:\n  def __init__(self, x): self.x = x\nshared.m['p'] = Point(3); shared.m['f'] = lambda: 4"
    )
    assert mesh["k1"].execute("shared.m['p'].x + shared.m['f']()").result == 7
    assert shared.m["p"].x == 3
    assert {entry.key: entry.kind for entry in shared.entries()} == {"p": "pickle", "f": "pickle"}


def test_a_value_whose_class_the_reader_lacks_is_listed_and_named(mesh: pk.Mesh, shared: Shared) -> None:
    source = """
import sys, types
lab = sys.modules["ourlab"] = types.ModuleType("ourlab")
exec("class Model: pass", lab.__dict__)
lab.Model.__module__ = "ourlab"
shared.m["model"] = lab.Model()
"""
    mesh["k0"].execute(source)
    (entry,) = shared.entries()
    assert (entry.key, entry.type, entry.via) == ("model", "ourlab.Model", "k0")
    with pytest.raises(pk.StateValueError, match=rf"ourlab.Model that {entry.author} wrote.*ourlab"):
        shared.m["model"]


def test_what_cannot_be_pickled_is_refused_by_a_client_that_is_no_kernel(shared: Shared) -> None:
    with pytest.raises(pk.NotSerializableError, match="lock"):
        shared.m["lock"] = threading.Lock()
    assert "lock" not in shared.m


# Live containers


def test_lists_stay_live(shared: Shared) -> None:
    shared.m["log"] = []
    log = shared.m["log"]
    assert isinstance(log, LiveList)
    shared.m["log"].append(1)
    shared.m["log"] += [2, 3]
    log.insert(0, 0)
    log.extend(iter([4, 5]))
    assert log == [0, 1, 2, 3, 4, 5]
    assert (log[1], log[-1], log[1:3], len(log), 3 in log, log.index(3), log.count(3)) == (1, 5, [1, 2], 6, True, 3, 1)
    log[0] = 9
    log[0] += 1
    del log[1]
    log[1:2] = ["a", "b"]
    assert log.pop() == 5
    log.remove(4)
    log.reverse()
    assert shared.get("log") == [3, "b", "a", 10]
    log.sort(key=str, reverse=True)
    log *= 2
    assert shared.get("log") == ["b", "a", 3, 10] * 2
    for joined, plain in ((log + [1], [*log, 1]), ([1] + log, [1, *log])):  # noqa: RUF005  what is tested
        assert joined == plain
    assert list(reversed(log)) == list(log)[::-1]
    log.clear()
    assert shared.get("log") == []
    assert not isinstance(log, list)  # C code would change a list behind our back


def test_dicts_stay_live_at_any_depth(shared: Shared) -> None:
    shared.m["d"] = {"a": {"b": [1]}}
    view = shared.m["d"]
    assert isinstance(view, LiveDict)
    shared.m["d"]["k"] = 1
    shared.m["d"]["k"] += 4
    shared.m["d"]["a"]["b"].append(2)
    shared.m["d"]["a"].setdefault("c", []).append(3)
    view.update(x=1, y=[2])
    view |= {"z": 3}
    assert view.pop("x") == 1
    assert view.pop("nothing", None) is None
    assert shared.get("d") == {"a": {"b": [1, 2], "c": [3]}, "k": 5, "y": [2], "z": 3}
    assert view.popitem() == ("z", 3)
    assert view | {"q": 1} == {**view.copy(), "q": 1}
    assert list(view) == ["a", "k", "y"]
    del view["y"]
    with pytest.raises(KeyError):
        view["y"]
    view.clear()
    assert shared.get("d") == {}


def test_sets_and_lists_within_tuples_stay_live(shared: Shared) -> None:
    shared.m["s"] = {1}
    view = shared.m["s"]
    assert isinstance(view, LiveSet)
    view.add(2)
    view |= {3, 4}
    view -= {1}
    view.discard(99)
    view.update([5], [6])
    view.intersection_update({2, 3, 5, 6})
    assert view == {2, 3, 5, 6}
    assert view & {2} == {2}
    assert view.union({9}) == {2, 3, 5, 6, 9}
    view.remove(2)
    with pytest.raises(KeyError):
        view.remove(2)
    assert shared.get("s") == {3, 5, 6}
    shared.m["t"] = ([], {"a": 1})
    shared.m["t"][0].append(1)
    shared.m["t"][1]["a"] += 1
    assert shared.get("t") == ([1], {"a": 2})


def test_an_edit_that_raises_changes_nothing(shared: Shared) -> None:
    shared.m["l"] = [1]
    revision = shared.read("l").revision
    with pytest.raises(ValueError, match="not in list"):
        shared.m["l"].remove(2)
    with pytest.raises(pk.NotSerializableError):
        shared.m["l"].append(threading.Lock())
    assert shared.read("l") == ([1], revision, shared.read("l").author)


def test_a_view_whose_place_is_gone_raises(shared: Shared) -> None:
    shared.m["d"] = {"a": [1], "rows": [[1], [2]]}
    inner, row = shared.m["d"]["a"], shared.m["d"]["rows"][1]
    shared.m["d"]["a"] = "other"
    shared.m["d"]["rows"].insert(0, [0])
    with pytest.raises(pk.StateConflictError, match="nothing was written"):
        inner.append(2)
    with pytest.raises(pk.StateConflictError):
        row.append(2)
    del shared.m["d"]
    with pytest.raises(pk.StateKeyError):
        inner.append(2)


def test_kernels_that_change_the_same_things_at_once_lose_nothing(mesh: pk.Mesh, shared: Shared) -> None:
    shared.update({"n": 0, "f": 0.0, "log": [], "d": {"n": 0}, "s": set()})
    source = """
for i in range(60):
    shared.m["n"] += 1
    shared.m["f"] -= 0.5
    shared.m["log"].append((kernel, i))
    shared.m["d"]["n"] += 2
    shared.m["s"].add((kernel, i))
    shared.increment("inc")
"""
    mesh[:].execute("import pyrokernel.client.inside as inside; kernel = inside.kernel_name()")
    mesh[:].execute(source)
    assert (shared.get("n"), shared.get("f"), shared.get("d"), shared.get("inc")) == (180, -90.0, {"n": 360}, 180)
    assert len(shared.get("log")) == len(set(shared.get("log"))) == 180
    assert len(shared.get("s")) == 180


def test_an_augmented_assignment_that_cannot_be_joined_raises_and_a_plain_one_wins(shared: Shared) -> None:
    class Slow(str):
        def __radd__(self, other: str) -> str:
            shared.set("text", "somebody else's")
            return other + "mine"

    shared.m["text"] = "a"
    with pytest.raises(pk.StateConflictError):
        shared.m["text"] += Slow()
    assert shared.m["text"] == "somebody else's"
    _ = shared.m["text"]
    shared.set("text", "b")
    shared.m["text"] = "c"
    assert shared.m["text"] == "c"


def test_an_assignment_that_no_byte_code_made_is_checked_like_an_augmented_one(shared: Shared) -> None:
    import operator

    shared.m["n"] = "a"
    value = shared.m["n"]
    shared.set("n", "b")
    with pytest.raises(pk.StateConflictError):
        operator.setitem(shared.m, "n", value + "!")
    operator.setitem(shared.m, "n", "c")
    assert shared.m["n"] == "c"


# Arrays


@pytest.mark.parametrize("size", [5, 100_000])
def test_arrays_come_back_read_only_with_an_error_that_names_edit(shared: Shared, size: int) -> None:
    array = np.arange(float(size))
    shared.m["a"] = array
    found = shared.m["a"]
    assert np.array_equal(found, array)
    changes: list[Any] = [
        lambda: found.__setitem__(0, 1), lambda: found.__iadd__(1), lambda: found.sort(), lambda: found.fill(0),
        lambda: np.add(found, 1, out=found), lambda: found[1:].__setitem__(0, 1), lambda: found.put(0, 1),
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(pk.StateTypeError, match=r"read-only.*shared\.edit\('a'\)"):
            change()
    with pytest.raises(pk.StateTypeError, match="edit"):
        shared.m["a"] += 1
    assert type(found * 2) is np.ndarray
    assert type(found.copy()) is np.ndarray
    assert found.copy().flags.writeable
    assert type(found.astype(int)) is np.ndarray
    assert isinstance(found.sum(), float)
    assert type(pickle.loads(pickle.dumps(found))) is np.ndarray
    with shared.edit("a") as edited:
        edited[0] = 99
    assert shared.m["a"][0] == 99
    assert found[0] == 0  # whoever has an array keeps it as it was


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3)), np.array(5), np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(20)[::2],
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), np.array(["ab", "c"]), np.array([True, False]),
        np.array(["2026-01-01"], dtype="M8[D]"), np.arange(3, dtype=">i8"),
    ],
)  # fmt: skip
def test_arrays_of_any_kind_are_plain_data(shared: Shared, array: Any) -> None:
    shared.m["a"] = {"array": array, "mean": np.float64(1.5)}
    found = shared.get("a")["array"]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert np.array_equal(found, array)
    assert shared.entries()[0].kind == "plain"


def test_an_array_that_is_mapped_is_not_written_over(shared: Shared) -> None:
    held = []
    for value in range(30):
        shared.m["big"] = np.full(200_000, value)
        held.append(shared.get("big"))
    assert [int(array[0]) for array in held] == list(range(30))
    assert all(bool((array == value).all()) for value, array in enumerate(held))


# Revisions, conditions, transactions


def test_each_write_has_a_revision_an_author_and_a_time(shared: Shared) -> None:
    first, second = shared.set("a", 1), shared.set("a", "two")
    assert second == first + 1
    value, revision, author = shared.read("a")
    assert (value, revision) == ("two", second)
    (entry,) = shared.entries()
    assert (entry.revision, entry.created, entry.version >= 2, entry.author, entry.type) == (
        second,
        first,
        True,
        author,
        "str",
    )
    assert entry.at > 0


def test_compare_and_set(shared: Shared) -> None:
    revision = shared.compare_and_set("k", 1, 0)
    with pytest.raises(pk.StateConflictError, match="exists already") as caught:
        shared.compare_and_set("k", 2, 0)
    assert (caught.value.key, caught.value.expected, caught.value.actual) == ("k", 0, revision)
    with pytest.raises(pk.StateConflictError):
        shared.compare_and_set("k", 2, revision + 5)
    shared.compare_and_set("k", 2, revision)
    with pytest.raises(pk.StateConflictError):
        shared.delete("k", revision=revision)
    assert shared.get("k") == 2


def test_increment_and_what_it_refuses(shared: Shared) -> None:
    assert [shared.increment("n"), shared.increment("n", 5), shared.increment("n", 0.5)] == [1, 6, 6.5]
    assert shared.increment("m", -1, initial=10) == 9
    assert shared.increment("big", 1, initial=2**60) == 2**60 + 1
    shared.m["text"] = "a"
    with pytest.raises(pk.StateTypeError, match="str"):
        shared.increment("text")
    with pytest.raises(pk.StateTypeError):
        shared.increment("n", "1")  # type: ignore[arg-type]


def test_update_is_all_or_nothing(shared: Shared) -> None:
    with pytest.raises(pk.StateTypeError):
        shared.update({"a": 1, "b\0": 2})
    assert len(shared.m) == 0
    shared.update({"a": 1}, b=2)
    assert shared.m.copy() == {"a": 1, "b": 2}


def test_transactions_write_all_or_nothing(shared: Shared) -> None:
    shared.update({"from": 100, "to": 0})
    with shared.transaction() as t:
        t["to"] = t["to"] + 10
        t["from"] = t["from"] - 10
        assert t["to"] == 10
    assert shared.m.copy() == {"from": 90, "to": 10}
    beaten = shared.transaction()
    beaten["to"] = beaten["to"] + 10
    shared.set("to", -1)
    beaten["from"] = 0
    with pytest.raises(pk.StateConflictError):
        beaten.commit()
    assert shared.m.copy() == {"from": 90, "to": -1}
    with pytest.raises(ZeroDivisionError), shared.transaction() as t:
        t["from"] = 1 // 0
    with shared.transaction() as t:
        t.expect("from", revision=shared.read("from").revision)
        t.expect("nothing", exists=False)
        del t["to"]
    assert shared.m.copy() == {"from": 90}
    hopeless = shared.transaction()
    hopeless.expect("nothing", exists=True)
    hopeless["x"] = 1
    with pytest.raises(pk.StateConflictError):
        hopeless.commit()
    assert "x" not in shared.m


def test_transact_and_modify_try_again_until_nobody_interferes(mesh: pk.Mesh, shared: Shared) -> None:
    shared.update({"a": 0, "b": 0})
    source = """
def move(t):
    t["a"] = t["a"] + 1
    t["b"] = t["b"] - 1
for i in range(30):
    shared.transact(move)
    shared.modify("list", lambda value: [*value, i], default=[])
"""
    mesh[:].execute(source)
    assert (shared.get("a"), shared.get("b"), len(shared.get("list"))) == (90, -90, 90)


def test_edit_writes_back_or_raises(shared: Shared) -> None:
    shared.m["d"] = {"a": np.zeros(2), "l": [1]}
    with shared.edit("d") as value:
        value["a"][0] = 5
        value["l"].append(2)
    assert shared.get("d")["a"].tolist() == [5, 0]
    edit = shared.edit("d")
    edit.__enter__()["l"].append(3)
    shared.set("d", "other")
    with pytest.raises(pk.StateConflictError):
        edit.__exit__(None, None, None)
    assert shared.get("d") == "other"
    with pytest.raises(pk.StateTypeError, match="modify"), shared.edit("d") as value:
        value += "!"


# Namespaces


def test_namespaces_are_apart(shared: Shared) -> None:
    project = shared["project"]
    project.clear()
    project.m["x"] = 1
    shared.m["x"] = 2
    assert (project.m["x"], shared.m["x"], list(project.m)) == (1, 2, ["x"])
    assert "project" in shared.spaces()
    with pytest.raises(pk.SettingsError):
        shared["~lock"]
    with pytest.raises(pk.SettingsError):
        shared["a/b"]


def test_shared_travels_as_that_of_its_receiver(mesh: pk.Mesh, shared: Shared) -> None:
    shared.m["x"] = 7
    mesh["k0"].push(state=shared, other=shared["project"].m)
    assert mesh["k0"].execute("(state.m['x'], state == shared, type(other).__name__)").result == (7, True, "SharedMap")


def _read(shared: Any, other: Any) -> tuple[Any, bool]:
    return shared.m["x"], "x" in other


# TTL, locks, queues


def test_a_key_goes_away_when_its_time_is_over_unless_it_is_kept_alive(shared: Shared) -> None:
    shared.set("short", 1, ttl=0.3)
    shared.set("kept", 2, ttl=0.3, keep_alive=True)
    assert shared.entries("short")[0].expires is not None
    with shared.watch("short") as watch:
        change = watch.get(10)
    assert change is not None
    assert change.op == "expire"
    assert "short" not in shared.m
    assert shared.get("kept") == 2
    shared.set("kept", 3)
    assert shared.entries("kept")[0].expires is None


def test_keys_that_a_client_keeps_alive_end_with_it(mesh: pk.Mesh, shared: Shared) -> None:
    mesh["k2"].execute("shared.set('alive', 1, ttl=60, keep_alive=True)")
    assert "alive" in shared.m
    mesh["k2"].restart(force=True)
    wait_until(lambda: "alive" not in shared.m)


def test_locks_exclude_each_other_and_their_tokens_grow(mesh: pk.Mesh, shared: Shared) -> None:
    shared.m["entered"] = []
    source = """
for i in range(10):
    with shared.lock("door") as token:
        shared.m["inside"] = shared.m.get("inside", 0) + 1
        assert shared.m["inside"] == 1
        shared.m["entered"].append(token)
        shared.m["inside"] = shared.m["inside"] - 1
"""
    mesh[:].execute(source)
    tokens = shared.get("entered")
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 30
    assert shared.locks() == []


def test_a_lock_is_free_at_once_when_its_owner_dies(mesh: pk.Mesh, shared: Shared) -> None:
    mesh["k2"].execute("lock = shared.lock('stage', ttl=600); lock.acquire()")
    (held,) = shared.locks()
    assert (held["name"], held["via"]) == ("stage", "k2")
    with pytest.raises(pk.ReplyTimeoutError, match="held by somebody else"):
        shared.lock("stage").acquire(timeout=0.05)
    mesh["k2"].restart(force=True)
    token = shared.lock("stage").acquire(timeout=20)
    assert token > held["token"]
    assert shared.break_lock("stage")


def test_a_lock_that_was_broken_says_so(shared: Shared) -> None:
    lock = shared.lock("l")
    token = lock.acquire()
    assert lock.check() == token
    assert shared.break_lock("l")
    with pytest.raises(pk.LockLostError):
        lock.check()
    with pytest.raises(pk.LockLostError):
        lock.release()
    assert not shared.break_lock("l")


def test_a_queue_gives_each_value_to_one_in_order(mesh: pk.Mesh, shared: Shared) -> None:
    queue = shared.queue("jobs")
    for number in range(30):
        queue.put({"number": number})
    assert len(queue) == 30
    assert queue.get()["number"] == 0
    got = mesh[:].execute("[shared.queue('jobs').get(5)['number'] for _ in range(9)]")
    numbers = [number for reply in got.values() for number in reply.result]
    assert sorted(numbers) == list(range(1, 28))
    assert all(reply.result == sorted(reply.result) for reply in got.values())
    queue.put(np.arange(100_000))
    assert [queue.get()["number"], queue.get()["number"], int(queue.get()[-1])] == [28, 29, 99_999]
    with pytest.raises(pk.ReplyTimeoutError, match="empty"):
        queue.get(timeout=0.01)


def test_a_value_that_was_taken_comes_back_when_its_taker_fails(mesh: pk.Mesh, shared: Shared) -> None:
    queue = shared.queue("work")
    queue.put("a")
    taken = queue.take()
    assert taken.__enter__() == "a"
    assert not taken.__exit__(OSError, OSError("the camera is off"), None)
    with queue.take(timeout=5) as value:
        assert value == "a"
    assert len(queue) == 0
    queue.put("b")
    cell = mesh["k2"].submit(
        "import time\nwith shared.queue('work').take() as v:\n  shared.m['taken'] = v\n  time.sleep(600)"
    )
    wait_until(lambda: shared.get("taken") == "b")
    assert cell
    mesh["k2"].restart(force=True)
    assert queue.get(timeout=20) == "b"


def test_somebody_who_waits_for_a_queue_or_lock_is_answered_by_the_write(mesh: pk.Mesh, shared: Shared) -> None:
    cell = mesh["k0"].submit("(shared.queue('q').get(30), shared.lock('w').acquire(30) > 0)")
    lock = shared.lock("w")
    lock.acquire()
    shared.queue("q").put("here")
    lock.release()
    assert cell.reply(timeout=20).text == "('here', True)"


# Watches


def test_a_watch_misses_nothing_and_resumes(shared: Shared) -> None:
    with shared.watch("w/") as watch:
        shared.update({"w/a": 1, "other": 2})
        shared.m["w/b"] = [1]
        shared.m["w/b"].append(2)
        del shared.m["w/a"]
        first, second = watch.get(5), watch.get(5)
        assert first is not None
        assert second is not None
        assert (first.key, first.value, second.key, second.value) == ("w/a", 1, "w/b", [1])
        resumed = shared.watch("w/", since=second.revision)
    third, fourth = resumed.get(5), resumed.get(5)
    assert third is not None
    assert fourth is not None
    assert (third.value, fourth.op, fourth.key) == ([1, 2], "delete", "w/a")
    with pytest.raises(pk.StateKeyError):
        _ = fourth.value
    assert resumed.get(0.01) is None
    assert third.revision < fourth.revision <= resumed.revision


def test_many_watchers_are_told_by_one_write(shared: Shared) -> None:
    seen: list[int] = []

    def follow(watch: Any) -> None:
        change = watch.get(20)
        seen.append(change.value)

    watches = [shared.watch("hot") for _ in range(100)]
    threads = [threading.Thread(target=follow, args=(watch,)) for watch in watches]
    for thread in threads:
        thread.start()
    shared.m["hot"] = 42
    for thread in threads:
        thread.join(20)
    assert seen == [42] * 100


def test_a_slow_watcher_costs_the_service_nothing_and_finds_everything(shared: Shared) -> None:
    watch = shared.watch("n")
    for number in range(3000):
        shared.m["n"] = number
    assert [change.value for _, change in zip(range(3000), watch, strict=False)] == list(range(3000))


# The past


def test_history_undo_and_diff(shared: Shared) -> None:
    shared.m["h"] = {"gain": 1}
    shared.m["h"]["gain"] = 2
    shared.m["h"]["name"] = "x"
    changes = shared.history("h")[:3]
    assert [change.value for change in changes] == [{"gain": 2, "name": "x"}, {"gain": 2}, {"gain": 1}]
    assert any(line.startswith("+") and "name" in line for line in shared.diff("h"))
    assert any("'gain': 1" in line for line in shared.diff("h", changes[2].revision))
    assert shared.at("h", changes[2].revision) == {"gain": 1}
    shared.undo("h")
    assert shared.get("h") == {"gain": 2}
    shared.undo("h")
    assert shared.get("h") == {"gain": 1}
    done = shared.undo("h")
    assert done is not None
    assert done.op == "delete"
    with pytest.raises(pk.StateKeyError):
        shared.at("h", 10**9)


def test_undo_brings_back_what_was_deleted_and_arrays_too(shared: Shared) -> None:
    shared.m["a"] = np.arange(50_000)
    shared.m["a"] = np.zeros(3)
    del shared.m["a"]
    shared.undo("a")
    assert shared.m["a"].shape == (3,)
    shared.undo("a")
    assert int(shared.m["a"][-1]) == 49_999
    with pytest.raises(pk.StateConflictError):
        shared.undo("a", revision=1)
    with pytest.raises(pk.StateKeyError):
        shared.undo("never")


# All of it


def test_export_and_import(shared: Shared, tmp_path: Any) -> None:
    values = {"n": 1, "text": "ä", "list": [1, {"a": None}], "blob": b"\0", "array": np.arange(30_000.0)}
    shared.update(values)
    path = tmp_path / "state.jsonl"
    assert shared.export_to(path) == 5
    assert path.stat().st_mode & 0o077 == 0
    other = shared["imported"]
    other.clear()
    assert other.import_from(path) == 5
    assert other.get("list") == values["list"]
    assert np.array_equal(other.get("array"), values["array"])
    with pytest.raises(pk.StateConflictError):
        other.import_from(path)
    assert other.import_from(path, replace=True) == 5
    path.write_text("nonsense\n")
    with pytest.raises(pk.StateError, match="no export"):
        other.import_from(path)


def test_an_import_of_pickled_objects_wants_trust(shared: Shared, tmp_path: Any) -> None:
    shared.m["f"] = _read
    path = tmp_path / "f.jsonl"
    shared.export_to(path)
    other = shared["imported2"]
    with pytest.raises(pk.StateValueError, match="trust"):
        other.import_from(path)
    assert other.import_from(path, trust=True) == 1


def test_a_value_of_another_author_is_loaded_only_if_that_one_is_trusted(mesh: pk.Mesh, shared: Shared) -> None:
    shared.update({"plain": [1, np.arange(3)], "object": _read})
    link = shared._link
    # On one machine every author is this account: what another one would see is seen by calling this one otherwise.
    stranger = Shared(type(link)(lambda: mesh))
    stranger._link.user = "somebody"
    assert stranger.get("plain")[0] == 1
    with pytest.raises(pk.StateValueError, match=rf"trust={link.user!r}"):
        stranger.get("object")
    assert {entry.key for entry in stranger.entries()} == {"plain", "object"}
    stranger.close()


def test_a_reference_of_another_author_moves_nothing_but_data(mesh: pk.Mesh, shared: Shared) -> None:
    mesh["k0"].execute(
        _CAMERA + "import numpy, os\n"
        "class Runs:\n"
        "    def __reduce__(self): return os.putenv, ('x', 'y')\n"
        "class Marks:\n"
        "    def __init__(self): self.lock, self.part = threading.Lock(), Runs()\n"
        "    def inner(self): return self\n"
        "    def data(self): return {'a': [numpy.arange(3)]}\n"
        "    def give(self, value): return value\n"
        "    def code(self): return [self]\n"
        "marks = Marks(); shared.m['camera'] = camera; shared.m['marks'] = marks"
    )
    stranger = Shared(type(shared._link)(lambda: mesh))
    stranger._link.user = "somebody"
    assert stranger.get("camera").snap(exposure=3) == [1, 3]
    marks = stranger.get("marks")
    assert "restricted" in repr(marks)
    assert marks.data()["a"][0].tolist() == [0, 1, 2]
    assert marks.give(np.arange(2)).tolist() == [0, 1]
    deeper = marks.inner().inner()
    for restricted in (marks, deeper):
        assert "restricted" in repr(restricted)
        with pytest.raises(pk.NotSerializableError):
            restricted.give(_read)
        with pytest.raises((pk.NotSerializableError, pk.ResultUnavailableError)):
            restricted.part.fetch()
    assert "restricted" in repr(next(iter(marks.code())))
    # In the very kernel that has it, too: it is somebody else who says that it is this object.
    mesh["k0"].execute("link = type(shared._link)(lambda: shared._link.mesh); link.user = 'somebody'")
    mesh["k0"].execute("other = type(shared)(link).get('camera')")
    assert mesh["k0"].execute("type(other).__name__").result == "Reference"
    assert mesh["k0"].execute("other is camera").result is False
    stranger.close()


def test_a_reference_of_another_author_leads_into_this_mesh_or_nowhere(mesh: pk.Mesh, shared: Shared) -> None:
    mesh["k0"].execute(_CAMERA + "shared.m['camera'] = camera")
    link = shared._link
    stranger = Shared(type(link)(lambda: mesh))
    stranger._link.user = "somebody"
    kernel, instance, lent, (ns, name) = to_data(shared.m["camera"])
    elsewhere: list[Any] = [
        (ns, name + "x"), ("localhost:1", name), ("/nowhere", name), None, 3, (ns,), [ns, name, 1], {}, "",
    ]  # fmt: skip
    written: list[Any] = [[kernel, instance, lent, address] for address in elsewhere]
    written += [None, [], [kernel], 5, [kernel, instance, {}, (ns, name)], [kernel, instance, 5, (ns, name)]]
    written += [[kernel, [], lent, (ns, name)], [kernel, instance, {**lent, "token": 5}, (ns, name)]]
    for data in written:
        parts = encode_value(data).parts
        with pytest.raises(pk.StateValueError, match=rf"'evil', a Camera that {link.user} wrote"):
            stranger._link.decode("evil", (1, "reference", "Camera", link.user, None), parts)
    stranger.close()


def test_a_backup_is_made_while_it_is_in_use(shared: Shared) -> None:
    shared.update({"a": 1, "big": np.arange(100_000)})
    path = shared.backup()
    assert path
    with pytest.raises(pk.StateError, match="already"):
        shared.backup(path.rpartition("/")[2])
    assert shared.describe()["keys"][""] == 2


# References

_CAMERA = """
import threading, weakref
class Camera:
    def __init__(self): self.lock, self.count = threading.Lock(), 0
    def snap(self, exposure=1.0):
        self.count += 1
        return [self.count, exposure]
camera = Camera()
seen = weakref.ref(camera)
"""


def test_what_cannot_be_pickled_is_stored_as_a_reference_to_the_live_object(mesh: pk.Mesh, shared: Shared) -> None:
    mesh["k0"].execute(_CAMERA + "shared.m['camera'] = camera")
    (entry,) = shared.entries()
    assert (entry.kind, entry.type, entry.via) == ("reference", "Camera", "k0")
    assert "k0" in entry.summary
    assert shared.m["camera"].snap(exposure=3) == [1, 3]
    assert mesh["k1"].execute("shared.m['camera'].snap()").result == [2, 1.0]
    assert mesh["k0"].execute("shared.m['camera'] is camera").result is True
    assert mesh["k0"].execute("camera.count").result == 2


def test_a_reference_is_kept_as_long_as_its_key(mesh: pk.Mesh, shared: Shared) -> None:
    mesh["k0"].execute(_CAMERA + "shared.m['camera'] = camera; del camera")
    assert mesh["k0"].execute("seen() is not None").result is True
    assert any("camera" in pin for info in mesh["k0"].refs() for pin in info.pins)
    handle = mesh["k0"].ref("seen()")
    shared.m["again"] = handle
    handle.release()
    del shared.m["camera"]
    assert shared.m["again"].snap() == [1, 1.0]


def test_a_reference_to_what_is_gone_says_so(mesh: pk.Mesh, shared: Shared) -> None:
    mesh["k2"].execute(_CAMERA + "shared.m['camera'] = camera")
    found = shared.m["camera"]
    mesh["k2"].restart(force=True)
    with pytest.raises(pk.ReferenceGoneError, match="k2"):
        found.snap()
    assert shared.entries()[0].type == "Camera"


# What a reviewer and a newcomer found


def test_the_right_side_of_an_augmented_assignment_may_read_other_keys(shared: Shared) -> None:
    shared.update({"a": 10, "b": 1, "d": {"a": 10, "b": 1}})

    class Late(int):
        """Lets somebody else write between the read and the assignment."""

        def __radd__(self, other: int) -> int:
            shared.increment("a", 100)
            shared.modify("d", lambda value: {**value, "a": value["a"] + 100})
            return other + int(self)

    def late(_: int) -> int:
        return Late(1)

    shared.m["a"] += late(shared.m["b"])
    assert shared.get("a") == 111
    shared.m["d"] = {"a": 10, "b": 1}
    view = shared.m["d"]
    view["a"] += late(view["b"])
    assert shared.get("d") == {"a": 111, "b": 1}


def test_a_plain_assignment_of_what_was_read_is_written(shared: Shared) -> None:
    shared.m["y"] = [1]
    kept = shared.m["y"]
    del shared.m["y"]
    shared.m["y"] = kept
    assert shared.get("y") == [1]


def test_nan_does_not_keep_a_container_from_being_changed(shared: Shared) -> None:
    shared.m["x"] = [[float("nan")]]
    shared.m["x"][0].append(1)
    assert shared.get("x")[0][1] == 1


def test_what_is_computed_from_a_live_list_is_the_callers_own(shared: Shared) -> None:
    shared.m["l"] = [[1]]
    view = shared.m["l"]
    for joined in (view + [], [] + view, view * 1):  # noqa: RUF005  what is tested
        joined[0].append(99)
    assert view == [[1]]


def test_a_list_says_what_a_list_says_of_a_wrong_index(shared: Shared) -> None:
    shared.m["l"] = [1]
    with pytest.raises(IndexError, match="list index out of range"):
        shared.m["l"][5]
    with pytest.raises(TypeError, match="list indices"):
        shared.m["l"]["a"]
    view = shared.m["l"]
    shared.m["l"] = 5
    assert "holds no more" in repr(view)


def test_a_key_keeps_its_time_when_its_value_is_changed(shared: Shared) -> None:
    shared.set("k", [1], ttl="1h")
    shared.m["k"].append(2)
    with shared.edit("k") as value:
        value.append(3)
    shared.modify("k", lambda value: [*value, 4])
    assert shared.get("k") == [1, 2, 3, 4]
    assert shared.entries("k")[0].expires is not None
    shared.m["k"] = []
    assert shared.entries("k")[0].expires is None


def test_a_heartbeat_holds_one_lease(shared: Shared) -> None:
    before = set(shared._keys.leases._kept)
    for beat in range(5):
        shared.set("alive", beat, ttl=60, keep_alive=True)
    assert len(shared._keys.leases._kept - before) == 1
    shared.delete("alive")
    assert shared._keys.leases._kept == before


def test_late_news_of_a_lease_do_not_end_the_next_one(shared: Shared) -> None:
    lock = shared.lock("l")
    lock.acquire()
    first = lock._lease
    lock.release()
    token = lock.acquire()
    lock._lose(first)
    assert lock.check() == token
    lock.release()
    with pytest.raises(pk.LockLostError, match="released before"):
        lock.release()


def test_a_value_that_cannot_be_loaded_stays_in_its_queue_until_it_is_dropped(mesh: pk.Mesh, shared: Shared) -> None:
    source = """
import sys, types
lab = sys.modules["elsewhere"] = types.ModuleType("elsewhere")
exec("class Model: pass", lab.__dict__)
lab.Model.__module__ = "elsewhere"
shared.queue("odd").put(lab.Model())
"""
    mesh["k0"].execute(source)
    queue = shared.queue("odd")
    queue.put("next")
    with pytest.raises(pk.StateValueError, match=r"drop\((\d+)\)") as caught:
        queue.get(timeout=5)
    assert len(queue) == 2
    number = int(str(caught.value).partition("drop(")[2].partition(")")[0])
    assert queue.drop(number)
    assert not queue.drop(number)
    assert queue.get(timeout=5) == "next"


def test_what_is_taken_or_brought_back_stays_its_authors(mesh: pk.Mesh, shared: Shared) -> None:
    shared.m["f"] = _read
    shared.m["f"] = 1
    shared.undo("f")
    stranger = Shared(type(shared._link)(lambda: mesh))
    stranger._link.user = "somebody"
    with pytest.raises(pk.StateValueError, match="trust"):
        stranger.get("f")
    stranger.close()


@pytest.mark.parametrize("value", [[threading.Lock()], {"a": threading.Lock()}, (threading.Lock(),)])
def test_a_container_of_what_cannot_be_pickled_is_refused_in_a_kernel_too(
    mesh: pk.Mesh, shared: Shared, value: Any
) -> None:
    with pytest.raises(pk.NotSerializableError, match="key of its own"):
        shared.m["v"] = value
    mesh["k0"].execute(_CAMERA + "shared.m['cfg'] = {'gain': 1}")
    for source in ("shared.m['cfg']['camera'] = camera", "shared.m['l'] = [camera]", "shared.queue('q').put(camera)"):
        with pytest.raises(pk.RemoteError, match=r"key of its own|keeps no object"):
            mesh["k0"].execute(source)
    assert shared.get("cfg") == {"gain": 1}


def test_a_reference_within_a_container_is_refused(mesh: pk.Mesh, shared: Shared) -> None:
    mesh["k0"].execute(_CAMERA)
    with pytest.raises(pk.NotSerializableError, match="reference within"):
        shared.m["l"] = [mesh["k0"].ref("camera")]


def test_an_open_file_is_no_value(shared: Shared, tmp_path: Any) -> None:
    (tmp_path / "f").write_text("text")
    with (tmp_path / "f").open() as stream, pytest.raises(pk.NotSerializableError, match="open file"):
        shared.m["f"] = stream


def test_the_front_door_is_not_assigned_to(shared: Shared) -> None:
    with pytest.raises(AttributeError, match=r"shared\.m\['x'\]"):
        shared.x = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="update"):
        shared.m = {}  # type: ignore[assignment]


def test_a_transaction_writes_what_was_changed_in_place(shared: Shared) -> None:
    shared.update({"d": {"gain": 1}, "a": np.zeros(2), "same": [1]})
    revision = shared.read("same").revision
    with shared.transaction() as t:
        t["d"]["gain"] = 99
        t["a"][0] = 5
        _ = t["same"]
        t.update(new=1)
    assert shared.get("d") == {"gain": 99}
    assert shared.get("a").tolist() == [5, 0]
    assert (shared.get("new"), shared.read("same").revision) == (1, revision)
    t = shared.transaction()
    with pytest.raises(pk.StateKeyError):
        del t["nothing"]


def test_edits_that_change_nothing_are_told(shared: Shared) -> None:
    shared.m["a"] = np.ones(2)
    with pytest.warns(RuntimeWarning, match="without a change"), shared.edit("a") as value:
        value = value * 2
    with pytest.raises(pk.StateTypeError, match="returned None"):
        shared.modify("a_list", lambda value: value.append(1), default=[])
    with pytest.raises(pk.StateTypeError, match="function"):
        shared.modify("a", 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("since", [-1, 10**9, "now"])
def test_a_watch_from_a_revision_that_never_was_is_refused_at_once(shared: Shared, since: Any) -> None:
    with pytest.raises(pk.StateTypeError, match="since"):
        shared.watch("w", since=since)
    with pytest.raises(pk.StateTypeError, match="prefix"):
        shared.watch(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("ttl", [-1, 0, "soon"])
def test_a_time_that_is_none_is_called_ttl(shared: Shared, ttl: Any) -> None:
    with pytest.raises(pk.StateTypeError, match="ttl"):
        shared.set("k", 1, ttl=ttl)
    with pytest.raises(pk.StateTypeError, match="ttl"):
        shared.lock("l", ttl=ttl)
    with pytest.raises(pk.StateTypeError, match="ttl"):
        shared.set("k", 1, keep_alive=True)


def test_an_export_of_nothing_is_no_file(shared: Shared, tmp_path: Any) -> None:
    with pytest.raises(pk.StateKeyError, match="path first"):
        shared.export_to(tmp_path / "w", "no such prefix")
    assert list(tmp_path.iterdir()) == []
