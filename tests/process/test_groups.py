"""Groups: the same to all, parts to each, many calls spread out."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from waiting import wait_until

import pyrokernel as pk

numpy = pytest.importorskip("numpy")


def test_kernels_are_chosen_by_name_number_pattern_and_slice(mesh: pk.Mesh) -> None:
    assert mesh["k1"].name == mesh[1].name == "k1"
    assert mesh[-1].name == "k2"
    assert mesh["k*"].names == mesh[:].names == ["k0", "k1", "k2"]
    assert mesh[:2].names == ["k0", "k1"]
    assert mesh.select(["k2", "k0"]).names == mesh["k2,k0"].names == mesh[[2, "k0", -1]].names == ["k2", "k0"]
    with pytest.raises(pk.KernelNotFoundError, match="k0, k1, k2"):
        mesh["nobody"]
    with pytest.raises(pk.KernelNotFoundError):
        mesh[3]
    with pytest.raises(pk.KernelNotFoundError, match="k0, k1, k2"):
        mesh["x*"]
    with pytest.raises(pk.KernelNotFoundError, match="tag:big"):
        mesh.tagged("big")


def test_a_range_as_it_is_printed_means_the_kernels_there_are(mesh: pk.Mesh) -> None:
    assert mesh["k0-k1"].names == mesh.select(["k0-k1"]).names == ["k0", "k1"]
    assert mesh["k1-k9"].names == mesh[["k1-k2"]].names == mesh[:]["k1-k2"].names == ["k1", "k2"]
    assert mesh["k1-k1"].names == ["k1"]
    for nobody in ("k5-k9", "k2-k0", "x0-x2", "k0-x2"):
        with pytest.raises(pk.KernelNotFoundError, match="k0, k1, k2"):
            mesh[nobody]
    with pytest.raises(pk.KernelNotFoundError, match=r"no kernel matches '0'; did you mean k0\?"):
        mesh.select(["0"])
    mesh.start([pk.KernelSpec(name="k0-k1")])
    try:
        assert mesh["k0-k1"].name == mesh[:]["k0-k1"].name == "k0-k1", "a kernel's very name goes first"
    finally:
        assert mesh.stop(["k0-k1"]) == ["k0-k1"]


def test_a_group_takes_the_words_that_a_mesh_takes(mesh: pk.Mesh) -> None:
    mesh.start([pk.KernelSpec(name="gpu", tags=("big",))])
    try:
        group = mesh[["gpu", "k2", "k0"]]
        assert group["k*"].names == ["k2", "k0"]
        assert group["tag:big"].names == ["gpu"]
        assert group["all"].names == group.names
        assert group["k0,gpu"].names == group[["k0", "tag:big"]].names == ["k0", "gpu"]
        assert group["gpu"].name == "gpu"
        for word in ("k1", "x*", "k0,k1", "tag:small"):
            with pytest.raises(pk.KernelNotFoundError, match="in this group of gpu, k2, k0"):
                group[word]
    finally:
        mesh.stop(["gpu"])


def test_a_namespace_of_its_own_has_variables_calls_and_completion(mesh: pk.Mesh) -> None:
    kernel, group = mesh["k0"], mesh[:2]
    group.push(size=1)
    kernel.push({"namespace": 7}, namespace="trial", size=20)
    assert kernel.pull("size", "namespace", namespace="trial") == (20, 7)
    group.push({"size": 30}, namespace="other")
    assert group.pull("size", namespace="other") == {"k0": 30, "k1": 30}
    assert group.pull("size") == {"k0": 1, "k1": 1}
    kernel.execute("def doubled(): return 2 * size", namespace="trial")
    assert kernel.call("doubled", namespace="trial") == 40
    with pytest.raises(pk.RemoteError):
        kernel.call("doubled")
    assert kernel.complete("doub", namespace="trial").matches == ("doubled",)
    assert kernel.complete("doub").matches == ()
    assert group.complete("siz", namespace="other")["k1"].matches == ("size",)
    assert kernel.inspect("doubled", namespace="trial").found
    names = [variable["name"] for variable in kernel.variables(namespace="trial")]
    assert set(names) >= {"size", "namespace", "doubled"}
    for meant in (lambda: kernel.push(namespace=7), lambda: kernel.call(dict, namespace=7)):
        with pytest.raises(pk.SettingsError, match="mapping"):
            meant()


def test_ps_asks_the_kernels_too(mesh: pk.Mesh) -> None:
    cell = mesh["k1"].submit("import time; time.sleep(60)")
    wait_until(lambda: mesh["k1"].describe()["running"] is not None)
    idle, busy, _ = mesh.ps()
    assert (idle.status, idle.running) == ("idle", None)
    assert busy.status == "busy"
    assert busy.running is not None
    assert busy.running["cell"] == cell.id
    cell.interrupt()


def test_replies_come_by_name_in_order(group: pk.Group) -> None:
    replies = group.execute("import os; os.getpid()")
    assert list(replies) == ["k0", "k1", "k2"]
    assert len({reply.result for reply in replies.values()}) == 3


def test_failures_gather_with_the_replies_of_the_others(group: pk.Group) -> None:
    for kernel in group:
        kernel.push(me=kernel.name)
    with pytest.raises(pk.GatherError) as caught:
        group.execute("assert me != 'k1'; me")
    assert list(caught.value.errors) == ["k1"]
    assert [reply.result for reply in caught.value.replies.values()] == ["k0", "k2"]
    replies = group.execute("assert me != 'k1'; me", check=False)
    assert [reply.status for reply in replies.values()] == ["ok", "error", "ok"]


def test_one_deadline_for_all(group: pk.Group) -> None:
    for kernel, seconds in zip(group, (0, 60, 0), strict=True):
        kernel.push(seconds=seconds)
    started = time.monotonic()
    with pytest.raises(pk.ReplyTimeoutError) as caught:
        group.execute("import time; time.sleep(seconds); 'woke'", timeout=0.5)
    assert time.monotonic() - started < 10
    assert caught.value.missing == ("k1",)
    assert set(caught.value.replies) == {"k0", "k2"}
    group["k1"].interrupt()


def test_push_and_pull(group: pk.Group) -> None:
    array = numpy.arange(1_000_000)
    group.push(x=array, name="n")
    assert all(numpy.array_equal(value, array) for value in group.pull("x").values())
    assert group.pull("x", "name")["k1"][1] == "n"
    assert group["k0"].pull("name") == "n"
    with pytest.raises(pk.GatherError, match="no variable 'missing'"):
        group.pull("missing")
    with pytest.raises(pk.VariableNotFoundError):
        group["k0"].pull("missing")


@pytest.mark.parametrize("items", [list(range(10)), "abcdefghij", b"0123456789", range(10), tuple(range(10))])
def test_scatter_and_gather(group: pk.Group, items: Any) -> None:
    group.scatter("part", items)
    assert [len(part) for part in group.pull("part").values()] == [4, 3, 3]
    assert list(group.gather("part")) == list(items)


def test_arrays_scatter_along_the_first_axis_and_concatenate(group: pk.Group) -> None:
    array = numpy.random.default_rng(0).normal(size=(100, 3))
    group.scatter("a", array)
    group.execute("a = a * 2")
    assert numpy.array_equal(group.gather("a"), array * 2)


def test_call_by_name_by_function_and_by_lambda(group: pk.Group) -> None:
    group.execute("def f(a, b=1): return a + b")
    assert group.call("f", 1, b=2) == {"k0": 3, "k1": 3, "k2": 3}
    assert set(group.call(lambda x: x * 2, 4).values()) == {8}
    assert group["k0"].call("math.sqrt" if group.execute("import math") else "", 9) == 3.0
    with pytest.raises(pk.RemoteError, match="NameError"):
        group["k0"].call("nothing_of_that_name")


def test_map_in_order_and_as_completed(group: pk.Group) -> None:
    job = group.map(lambda x: x * x, range(1000))
    assert list(job) == [x * x for x in range(1000)]
    assert job.done
    assert job.progress == (1000, 1000)
    assert dict(group.map(lambda x: -x, range(100)).as_completed()) == {x: -x for x in range(100)}


def test_map_of_nothing(group: pk.Group) -> None:
    job = group.map(len, [])
    assert job.results() == []
    assert job.done


def test_a_failing_item_leaves_the_others(group: pk.Group) -> None:
    job = group.map(lambda x: 1 // (x - 3), range(6), chunk=2)
    with pytest.raises(pk.RemoteError, match="ZeroDivisionError"):
        job.results()
    results = job.results(check=False)
    assert isinstance(results[3], pk.RemoteError)
    assert results[4:] == [1, 0]


def test_an_item_that_cannot_travel_leaves_the_others(group: pk.Group) -> None:
    import threading

    results = group.map(lambda x: 1, [1, threading.Lock(), 3], chunk=1).results(check=False)
    assert results[0] == results[2] == 1
    assert isinstance(results[1], pk.NotSerializableError)


def test_a_job_is_cancelled(group: pk.Group) -> None:
    group.execute("import time")
    job = group.map(lambda x: __import__("time").sleep(60), range(100))
    wait_until(lambda: all(kernel.describe()["running"] for kernel in group))
    started = time.monotonic()
    job.cancel()
    assert job.done
    assert time.monotonic() - started < 15
    assert all(isinstance(result, pk.PyrokernelError) for result in job.results(check=False))
    assert {reply.result for reply in group.execute("1").values()} == {1}


def test_chunks_of_a_dead_kernel_are_lost_by_default_and_retried_on_request() -> None:
    with pk.local(2) as mesh:
        marker = mesh.settings.runtime_dir + "/died"
        die_once = (
            "import os\n"
            "def die_once(x):\n"
            f"    try: os.close(os.open({marker!r}, os.O_CREAT | os.O_EXCL))\n"
            "    except FileExistsError: return x\n"
            "    os._exit(1)"
        )
        mesh[:].execute(die_once)
        results = mesh[:].map("die_once", range(20), chunk=1).results(check=False)
        assert any(isinstance(result, pk.KernelDiedError) for result in results)
        assert sum(isinstance(result, int) for result in results) >= 17
    with pk.local(2) as mesh:
        marker = mesh.settings.runtime_dir + "/died"
        source = die_once.replace(die_once.split("os.open('")[1].split("'")[0], marker)
        mesh[:].execute(source)
        assert mesh[:].map("die_once", range(20), chunk=1, retries=1).results() == list(range(20))


def test_follow_streams_every_kernel_in_one_loop(group: pk.Group) -> None:
    for kernel in group:
        kernel.push(me=kernel.name)
    cells = group.submit("for i in range(3): print(me, i)")
    seen: dict[str, str] = dict.fromkeys(group.names, "")
    for name, event in group.follow(cells, timeout=30):
        assert not isinstance(event, pk.PyrokernelError)
        if event.kind == "output":
            seen[name] += event.data["text"]
    assert seen == {name: "".join(f"{name} {i}\n" for i in range(3)) for name in group.names}


def test_more_kernels_are_started_and_stopped() -> None:
    with pk.local(1) as mesh:
        more = mesh.start(2)
        assert mesh.names == ["k0", "k1", "k2"]
        assert more.names == ["k1", "k2"]
        assert mesh["k2"].execute("1").result == 1
        with pytest.raises(pk.NameTakenError):
            mesh.start([pk.KernelSpec(name="k1")])
        mesh.stop(["k1"])
        assert mesh.names == ["k0", "k2"]
        assert mesh.start(1).names == ["k1"]


def test_a_kernel_that_cannot_start_says_why() -> None:
    with pk.local(1) as mesh, pytest.raises(pk.HostError, match="no_such_module"):
        mesh.start([pk.KernelSpec(name="x", preload=("no_such_module",))])
    with pytest.raises(pk.PyrokernelError, match="nowhere"):
        pk.local([pk.KernelSpec(name="x", cwd="/nowhere/at/all")])


def test_reprs_are_status_lines(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    assert repr(mesh) == "<Mesh 'local': k0, k1, k2>"
    assert repr(mesh[:2]) == "<Group of 2: k0, k1>"
    assert repr(kernel).startswith("<Kernel 'k0' idle, ")
    assert repr(kernel.execute("42")).endswith("ok 42>")


def test_a_call_by_name_does_not_ask_the_variable_for_its_truth(kernel: pk.Kernel) -> None:
    kernel.execute("xs = []")
    kernel.call("xs.append", 1)
    assert kernel.execute("xs").result == [1]


def test_many_items_that_cannot_travel_are_just_failures(group: pk.Group) -> None:
    import threading

    items = [threading.Lock() for _ in range(2000)]
    results = group.map(len, items, chunk=1, timeout=50).results(check=False)
    assert {type(result) for result in results} == {pk.NotSerializableError}


def test_the_last_kernel_that_dies_is_tried_again_when_retries_are_allowed() -> None:
    with pk.local(1) as mesh:
        marker = mesh.settings.runtime_dir + "/died"
        source = (
            "import os\n"
            "def die_once(x):\n"
            f"    try: os.close(os.open({marker!r}, os.O_CREAT | os.O_EXCL))\n"
            "    except FileExistsError: return x\n"
            "    os._exit(1)\n"
        )

        def work(x: int, source: str = source) -> int:
            space: dict[str, Any] = {}
            exec(source, space)
            return int(space["die_once"](x))

        assert mesh[:].map(work, range(4), chunk=1, retries=2).results() == [0, 1, 2, 3]


def test_an_interrupt_of_a_group_reaches_the_living_though_one_is_dead() -> None:
    import os
    import signal

    with pk.local([pk.KernelSpec(name="dead", restart="never"), pk.KernelSpec(name="stuck")]) as mesh:
        group = mesh[:]
        group["stuck"].submit("import time; time.sleep(60)")
        wait_until(lambda: group["stuck"].describe()["running"])
        os.kill(group["dead"].describe()["pid"], signal.SIGKILL)
        with pytest.raises(pk.GatherError) as caught:
            group.interrupt()
        assert caught.value.replies["stuck"].outcome == "interrupted"
        assert isinstance(caught.value.errors["dead"], pk.KernelDiedError)


def test_a_group_chosen_after_a_death_has_the_instances_that_follow(mesh: pk.Mesh) -> None:
    for choose in (lambda: mesh[:], lambda: mesh["k*"], lambda: mesh[["k[01]", 2]]):
        with pytest.raises(pk.KernelDiedError):
            mesh["k1"].execute("import os; os._exit(3)")
        assert [reply.result for reply in choose().execute("6 * 7").values()] == [42, 42, 42]


def test_a_restarted_kernel_of_a_group_says_that_the_others_have_done_it(mesh: pk.Mesh) -> None:
    group = mesh[:]
    group.execute("done = 0")
    mesh["k1"].restart()
    with pytest.raises(pk.GatherError, match=r"repeat it on group\[\['k1'\]\] only") as caught:
        group.execute("done = 1")
    assert list(caught.value.replies) == ["k0", "k2"]


def test_a_result_that_was_not_asked_for_is_not_taken_for_none(kernel: pk.Kernel) -> None:
    reply = kernel.execute("42", want="text")
    assert reply.text == "42"
    with pytest.raises(pk.ResultUnavailableError, match="asked for as text"):
        _ = reply.result
    assert kernel.execute("None", want="text").result is None


def test_what_cannot_be_pickled_is_not_told_to_be_too_large(kernel: pk.Kernel) -> None:
    with pytest.raises(pk.ResultUnavailableError) as caught:
        _ = kernel.execute("import threading; threading.Lock()").result
    assert "max_result_bytes" not in str(caught.value)
    with pytest.raises(pk.ResultUnavailableError, match="max_result_bytes"):
        _ = kernel.execute("b'x' * 1000", max_result_bytes=10).result


def test_following_a_cell_goes_on_while_a_c_call_holds_the_kernel(
    mesh: pk.Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = mesh["k2"].submit("print('in'); sum(range(10**8)); print('out')")
    monkeypatch.setattr("pyrokernel.client.cell.LONG_POLL_SECONDS", 0.1)
    monkeypatch.setattr(mesh, "settings", dataclasses.replace(mesh.settings, timeout=0.1))
    assert "".join(event.data["text"] for event in cell.follow() if event.kind == "output") == "in\nout\n"


def test_a_variable_that_cannot_be_pulled_is_named(kernel: pk.Kernel) -> None:
    kernel.execute("import threading; guard = threading.Lock(); fine = 1")
    with pytest.raises(pk.NotSerializableError, match="variable 'guard' of kernel 'k0'"):
        kernel.pull("fine", "guard")
