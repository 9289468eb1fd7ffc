"""References to objects in real kernels: used, passed on, mailed, leased, and gone."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import stock_clients
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.client import holdings, reference
from pyrokernel.client.urls import ReferenceUrl
from pyrokernel.kernel.references import public_id

CAMERA = '''
import weakref

class Frame:
    def __init__(self, number):
        self.number = number

class Camera:
    """A camera."""

    model = "C1"

    def __init__(self):
        self.gain, self.shots, self.settings, self._secret = 1, [], {"iso": 100, "frame": Frame(7)}, "s3cret"

    def snap(self, exposure=1.0, *, raw=False):
        self.shots.append(exposure)
        return [exposure] * 2

    def frame(self):
        return Frame(len(self.shots))

    def fail(self):
        raise ValueError("no film")

    def frames(self):
        self.closed = False
        number = 0
        try:
            while True:
                self.made = number = number + 1
                yield number
        finally:
            self.closed = True

    async def settle(self):
        import asyncio
        await asyncio.sleep(0)
        return "settled"

    def me(self):
        return self

    def pick(self, frame):
        return type(frame).__name__

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.left = (kind and kind.__name__, str(error))
        return kind is KeyError

camera = Camera()
'''


@pytest.fixture
def camera(kernel: pk.Kernel) -> pk.Reference:
    """A reference to a new camera in the first kernel."""
    kernel.execute(CAMERA)
    return kernel.ref("camera")


def value(kernel: pk.Kernel, source: str) -> object:
    """Return the value of an expression in a kernel."""
    return kernel.execute(source).result


# -- a handle


def test_calls_attributes_and_items_reach_the_object(kernel: pk.Kernel, camera: pk.Reference) -> None:
    assert camera.snap(exposure=0.5) == [0.5, 0.5]
    assert camera.model == "C1"
    camera.gain = 7
    assert value(kernel, "camera.gain") == 7
    assert camera.settings["iso"] == 100
    camera.settings["iso"] = 400
    assert value(kernel, "camera.settings['iso']") == 400
    del camera.settings["iso"]
    assert "iso" not in camera.settings
    assert len(camera.settings) == 1
    del camera.gain
    assert not hasattr(camera, "gain")
    assert getattr(camera, "gain", "none") == "none"
    assert kernel.ref("[]").__bool__() is False


def test_what_can_change_stays_there_and_is_seen_to_change(kernel: pk.Kernel, camera: pk.Reference) -> None:
    shots = camera.shots
    kernel.execute("camera.shots.append(3)")
    assert isinstance(shots, pk.Reference)
    assert shots[0] == 3
    assert shots.fetch() == [3]
    assert isinstance(camera.frame(), pk.Reference)
    assert camera.frame().number == 1


def test_the_same_object_is_lent_once(kernel: pk.Kernel, camera: pk.Reference) -> None:
    assert camera == kernel.ref("camera")
    assert hash(camera) == hash(kernel.ref("camera"))
    assert camera == camera.me()
    assert camera != camera.frame()
    assert camera.snap == camera.snap
    before = len(kernel.refs())
    again = [kernel.ref("camera") for _ in range(3)]
    assert len({camera, *again}) == 1
    assert len(kernel.refs()) <= before


def test_arrays_come_as_copies_and_dates_as_values(kernel: pk.Kernel) -> None:
    numpy = pytest.importorskip("numpy")
    kernel.execute("import numpy, datetime\ndef make(): return numpy.arange(3)")
    assert numpy.array_equal(kernel.ref("make")(), numpy.arange(3))
    assert isinstance(kernel.ref("{'a': numpy.arange(3)}")["a"], pk.Reference)
    assert kernel.ref("numpy").float64(2) == 2.0
    assert kernel.ref("datetime").date(2026, 1, 2).isoformat() == "2026-01-02"


def test_an_error_arrives_with_its_traceback(camera: pk.Reference) -> None:
    with pytest.raises(pk.RemoteError, match="ValueError: no film") as caught:
        camera.fail()
    assert 'raise ValueError("no film")' in caught.value.traceback
    with pytest.raises(pk.RemoteError, match="KeyError"):
        camera.settings["nothing"]


def test_an_expression_that_raises_is_a_remote_error(kernel: pk.Kernel) -> None:
    with pytest.raises(pk.RemoteError, match="NameError"):
        kernel.ref("nothing_of_that_name")
    with pytest.raises(pk.RemoteError, match="SyntaxError"):
        kernel.ref("x = 1")
    with pytest.raises(pk.SettingsError, match="expression"):
        kernel.ref("")


def test_a_coroutine_is_awaited_there(camera: pk.Reference) -> None:
    assert camera.settle() == "settled"


def test_with_enters_and_leaves_there(kernel: pk.Kernel, camera: pk.Reference) -> None:
    with camera as entered:
        assert entered is camera
    assert value(kernel, "camera.left") == (None, "None")
    with camera:
        raise KeyError("x")
    assert value(kernel, "camera.left") == ("KeyError", "\"'x'\"")
    with pytest.raises(ZeroDivisionError), camera:
        raise ZeroDivisionError("by zero")
    assert value(kernel, "camera.left") == ("ZeroDivisionError", "by zero")


def test_operations_are_cells_that_can_be_read(kernel: pk.Kernel, camera: pk.Reference) -> None:
    camera.snap()
    assert [cell["source"] for cell in kernel.cells(2)] == ["camera.snap", "camera.snap(...)"]
    camera.gain = 2
    assert kernel.cells(1)[0]["source"] == "camera.gain = ..."


def test_a_method_is_looked_up_once(kernel: pk.Kernel, camera: pk.Reference) -> None:
    camera.snap()
    before = kernel.describe()["execution_count"]
    camera.snap()
    assert kernel.describe()["execution_count"] == before + 1


def test_names_that_python_looks_for_are_not_asked_for(kernel: pk.Kernel, camera: pk.Reference) -> None:
    import copy

    before = kernel.describe()["execution_count"]
    for name in ("__array__", "__deepcopy__", "_repr_html_", "_ipython_display_", "__await__", "__wrapped__"):
        assert not hasattr(camera, name)
    assert copy.deepcopy(camera) == camera
    assert kernel.describe()["execution_count"] == before
    assert camera.attribute("__doc__") == "A camera."
    assert camera._secret == "s3cret"


def test_names_that_the_handle_has_itself_are_reached_by_attribute(kernel: pk.Kernel) -> None:
    kernel.execute("class Page:\n    url = 'http://x'\n    def fetch(self): return 'fetched'\npage = Page()")
    assert kernel.ref("page").attribute("url") == "http://x"
    assert kernel.ref("page").attribute("fetch")() == "fetched"


def test_a_repr_is_made_there_and_falls_back_while_the_kernel_computes(kernel: pk.Kernel, camera: pk.Reference) -> None:
    assert repr(kernel.ref("[1, 2]")) == "<Reference to [1, 2] in kernel 'k0': [1, 2]>"
    cell = kernel.submit("import time\nwhile True: time.sleep(0.01)")
    wait_until(lambda: kernel.describe()["running"])
    assert repr(camera) == "<Reference to camera (Camera) in kernel 'k0', busy>"
    assert "snap" in dir(camera)
    cell.interrupt()
    wait_until(lambda: kernel.describe()["running"] is None)
    assert repr(camera).startswith("<Reference to camera in kernel 'k0': <__main__.Camera object")


def test_a_group_gives_a_reference_for_each_kernel(group: pk.Group) -> None:
    group.execute("values = []")
    found = group.ref("values")
    for number, values in enumerate(found.values()):
        values.append(number)
    assert {name: values.fetch() for name, values in found.items()} == {"k0": [0], "k1": [1], "k2": [2]}
    group[0].execute("del values")
    with pytest.raises(pk.GatherError, match="NameError"):
        group.ref("values")


def test_a_namespace_has_references_of_its_own(kernel: pk.Kernel) -> None:
    kernel.execute("x = 5", namespace="lab")
    assert kernel.ref("x", namespace="lab").fetch() == 5


def test_an_interrupt_ends_what_a_reference_does(kernel: pk.Kernel) -> None:
    kernel.execute("import time\ndef forever():\n    while True: time.sleep(0.01)")
    forever, failures = kernel.ref("forever"), []

    def call() -> None:
        try:
            forever()
        except pk.RemoteError as error:
            failures.append(error.ename)

    thread = threading.Thread(target=call)
    thread.start()
    wait_until(lambda: kernel.describe()["running"])
    kernel.interrupt()
    thread.join(10)
    assert failures == ["KeyboardInterrupt"]


def test_an_object_travels_as_a_token_and_words(kernel: pk.Kernel, camera: pk.Reference) -> None:
    """The wire form is plain data, so that other languages can use references too."""
    from pyrokernel.client.parcels import pack_arguments

    reply = kernel.operate({"op": "make", "source": "camera"}, pack_arguments((), {}), shown="camera")
    assert set(reply.value.load()["lent"]) == {"token", "member", "shown", "type", "restricted", "lease", "times"}


# -- iteration


def test_an_endless_generator_runs_ahead_only_so_far(kernel: pk.Kernel, camera: pk.Reference) -> None:
    frames = iter(camera.frames())
    assert [next(frames) for _ in range(3)] == [1, 2, 3]
    wait_until(lambda: kernel.describe()["running"] is None)  # it was made to pause, and the kernel is free
    assert 1000 <= value(kernel, "camera.made") < 1100
    assert [next(frames) for _ in range(2000)] == list(range(4, 2004))


def test_the_kernel_can_be_used_inside_a_loop_over_one_of_its_generators(camera: pk.Reference) -> None:
    shots = []
    for number in camera.frames():
        camera.snap(number)
        if number == 5:
            break
        shots = camera.shots.fetch()
    assert shots == [1, 2, 3, 4]


def test_a_generator_goes_on_where_a_loop_has_left_it(camera: pk.Reference) -> None:
    frames = camera.frames()
    for number in frames:
        if number == 3:
            break
    assert next(frames) > 3


def test_next_ends_as_it_should(kernel: pk.Kernel) -> None:
    values = kernel.ref("iter([1])")
    assert next(values) == 1
    with pytest.raises(StopIteration):
        next(values)


def test_a_generator_is_closed_when_its_loop_is_over(kernel: pk.Kernel, camera: pk.Reference) -> None:
    for _ in camera.frames():
        break
    gc.collect()
    wait_until(lambda: value(kernel, "camera.closed"))


def test_an_error_comes_after_the_values_before_it(kernel: pk.Kernel) -> None:
    kernel.execute("def some():\n    yield 1\n    raise ValueError('over')")
    seen = []
    with pytest.raises(pk.RemoteError, match="over"):
        seen.extend(kernel.ref("some")())
    assert list(iter(kernel.ref("iter([1, 2])"))) == [1, 2]
    assert list(kernel.ref("[1, 2, {3}]"))[:2] == [1, 2]
    assert dict(kernel.ref("{'a': 1}.items()")) == {"a": 1}


# -- passed on


def test_a_reference_works_in_another_kernel_and_is_the_object_in_its_own(mesh: pk.Mesh, camera: pk.Reference) -> None:
    owner, other = mesh["k0"], mesh["k1"]
    other.push(cam=camera)
    assert other.execute("cam.snap(3)").result == [3, 3]
    assert owner.call("camera.pick", camera) == "Camera"
    assert camera.pick(camera.frame()) == "Frame"
    back = other.execute("cam.frame()").result
    assert isinstance(back, pk.Reference)
    assert back.number == 1
    owner.push(mine=camera, snap=camera.snap)
    assert value(owner, "mine is camera") is True
    assert value(owner, "snap(1)") == [1, 1]
    assert list(owner.map(camera.snap, [1, 2])) == [[1, 1], [2, 2]]
    assert sorted(map(tuple, other.map(camera.snap, [1, 2]))) == [(1, 1), (2, 2)]


def test_a_kernel_that_calls_back_to_one_that_waits_is_told(mesh: pk.Mesh, camera: pk.Reference) -> None:
    mesh["k1"].push(cam=camera)
    mesh["k0"].push(other=mesh["k1"].ref("lambda: cam.gain"))
    with pytest.raises(pk.RemoteError, match="WouldDeadlockError"):
        mesh["k0"].execute("other()", timeout=20)


def test_a_pickled_reference_outlives_the_handle_it_was_made_from(kernel: pk.Kernel) -> None:
    kernel.execute(CAMERA)
    camera = kernel.ref("camera.frame()")
    parcel = pickle.dumps(camera)
    del camera
    gc.collect()
    again = pickle.loads(parcel)
    assert again.number == 0


def test_a_reference_reaches_its_mesh_from_a_process_that_has_none(camera: pk.Reference) -> None:
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).snap(2))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(camera), capture_output=True, timeout=30, check=False
    )
    assert done.stdout.decode() == "[2, 2]\n", done.stderr.decode()


def test_a_forked_child_uses_the_reference_and_leaves_it_to_the_parent(camera: pk.Reference) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if camera.snap(1) == [1, 1] else 2
            camera.release()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert camera.snap(2) == [2, 2]


# -- leases


def test_the_object_can_be_collected_once_nobody_has_the_handle(kernel: pk.Kernel) -> None:
    kernel.execute(CAMERA + "seen = weakref.ref(camera)")
    camera = kernel.ref("camera")
    kernel.execute("del camera")
    assert value(kernel, "seen() is None") is False
    assert camera.model == "C1"
    del camera
    gc.collect()
    wait_until(lambda: value(kernel, "seen() is None"))


def test_a_handle_can_be_released(kernel: pk.Kernel, camera: pk.Reference) -> None:
    token = reference.target_of(camera).lent.token
    camera.release()
    with pytest.raises(pk.ReferenceGoneError, match="released") as caught:
        camera.snap()
    assert (caught.value.kernel, caught.value.instance) == ("k0", kernel.instance)
    wait_until(lambda: public_id(token) not in [info.id for info in kernel.refs()])


def test_handles_made_and_dropped_in_a_row_do_not_end_each_other(kernel: pk.Kernel) -> None:
    kernel.execute(CAMERA)
    for _ in range(100):
        assert kernel.ref("camera").gain == 1


HOLDER = """
import os, pickle, sys
from pyrokernel.client import holdings
holdings.LEASE_SECONDS = 0.3
held = pickle.load(sys.stdin.buffer).settings
print(held["iso"], flush=True)
os._exit(0)
"""


def test_a_client_that_dies_keeps_nothing_alive(kernel: pk.Kernel, camera: pk.Reference) -> None:
    module = "pyrokernel.kernel.references"
    kernel.execute(f"import sys\nusual = sys.modules[{module!r}].LEASE_SECONDS")
    kernel.execute(f"sys.modules[{module!r}].LEASE_SECONDS = 0.3")
    try:
        done = subprocess.run(
            [sys.executable, "-c", HOLDER], input=pickle.dumps(camera), capture_output=True, timeout=30, check=False
        )
        assert done.stdout == b"100\n", done.stderr.decode()
        wait_until(lambda: not any(info.shown == "camera.settings" and info.holders == 1 for info in kernel.refs()))
        assert camera.gain == 1
    finally:
        kernel.execute(f"sys.modules[{module!r}].LEASE_SECONDS = usual")


def test_a_lease_is_renewed_for_as_long_as_there_is_a_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(holdings, "LEASE_SECONDS", 0.5)
    with pk.local(1) as mesh:
        mesh[0].execute("from pyrokernel.kernel import references\nreferences.LEASE_SECONDS = 0.5")
        mesh[0].execute(CAMERA)
        camera = mesh[0].ref("camera")
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() > begun + 1.2)
        assert camera.gain == 1


def test_what_is_pinned_stays_without_a_handle(kernel: pk.Kernel) -> None:
    kernel.execute(CAMERA + "frame = camera.frame(); seen = weakref.ref(frame)")
    frame, other = kernel.ref("frame"), kernel.ref("camera")
    kernel.execute("del frame")
    reference.pin(frame, "m.frame")
    frame.release()
    wait_until(lambda: [info.holders for info in kernel.refs() if info.kind == "shared"] == [0])
    assert value(kernel, "seen() is None") is False
    assert [info.pins for info in kernel.refs() if info.kind == "shared"] == [("m.frame",)]
    reference.unpin(other, "m.frame")
    wait_until(lambda: value(kernel, "seen() is None"))


# -- gone with its kernel


def test_a_reference_ends_with_a_restart_and_never_reaches_the_next_instance() -> None:
    with pk.local(1) as mesh:
        kernel = mesh[0]
        kernel.execute(CAMERA)
        camera, method = kernel.ref("camera"), kernel.ref("camera").snap
        url = camera.url()
        kernel.restart()
        kernel.execute(CAMERA)
        for use in (lambda: camera.snap, lambda: len(camera), method, lambda: mesh.open(url), lambda: iter(camera)):
            with pytest.raises(pk.ReferenceGoneError) as caught:
                use()
            assert isinstance(caught.value.__cause__, (pk.KernelRestartedError, pk.KernelDiedError))
        assert repr(camera) == "<Reference to camera (Camera) in kernel 'k0', ReferenceGoneError>"
        assert dir(camera) == ["attribute", "fetch", "release", "url"]


def test_a_reference_in_use_says_how_its_kernel_died() -> None:
    with pk.local(1) as mesh:
        kernel = mesh[0]
        kernel.execute("import os, signal\ndef die(): os.kill(os.getpid(), signal.SIGKILL)")
        die = kernel.ref("die")
        with pytest.raises(pk.ReferenceGoneError, match="SIGKILL") as caught:
            die()
        assert isinstance(caught.value.__cause__, pk.KernelDiedError)
        with pytest.raises(pk.ReferenceGoneError):
            die()


def test_a_reference_in_another_kernel_says_so_too() -> None:
    with pk.local(2) as own:
        own["k0"].execute(CAMERA)
        own["k1"].push(cam=own["k0"].ref("camera"))
        own["k1"].execute("cam.gain")
        os.kill(own["k0"].describe()["pid"], signal.SIGKILL)
        with pytest.raises(pk.RemoteError, match="ReferenceGoneError"):
            own["k1"].execute("cam.gain")


# -- URLs


def test_a_kernel_that_stands_still_holds_up_the_renewal_of_others_for_a_second(mesh: pk.Mesh) -> None:
    kernel = mesh["k2"]
    held = kernel.ref("[]")
    holding = mesh.holding("k2", kernel.instance)
    pid = kernel.describe()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            holding._ask("renew", [], 60.0)
        assert time.monotonic() - begun < mesh.settings.timeout / 2
    finally:
        os.kill(pid, signal.SIGCONT)
    assert len(held) == 0


def test_what_is_asked_after_a_mesh_was_closed_leaves_no_connection(mesh: pk.Mesh) -> None:
    other = pk.connect(mesh.settings)
    kernel = other["k1"]
    holding = other.holding("k1", "f" * 16)
    known = other.holding("k1", kernel.instance)
    other.close()
    with pytest.raises(pk.KernelConnectionError):
        holding._ask("renew", [], 60.0)
    known._ask("renew", [], 60.0)
    links = [*other._links.values(), *other._hosts.values()]
    assert links
    assert not [connection for link in links for idle in link._idle.values() for connection in idle]


def test_a_url_opens_the_public_names(mesh: pk.Mesh, camera: pk.Reference) -> None:
    opened = mesh.open(camera.url("1h"))
    assert opened.snap(exposure=2) == [2, 2]
    assert opened.model == "C1"
    assert opened.shots[0] == 2
    assert list(opened.shots) == [2]
    assert opened.frame().number == 1
    assert opened.settings["frame"].number == 7
    assert opened.shots.fetch() == [2]
    assert [next(iter(opened.frames())) for _ in range(2)] == [1, 1]
    with opened as entered:
        assert entered is opened
    assert repr(opened) == "<Reference to camera (Camera) in kernel 'k0', restricted>"
    assert {"snap", "model"} <= set(dir(opened))
    assert not {name for name in dir(opened) if name.startswith("_")}


def test_a_url_carries_what_is_needed_to_find_the_mesh(camera: pk.Reference) -> None:
    code = "import sys, pyrokernel as pk; mesh = pk.local(1); print(mesh.open(sys.argv[1]).snap(2)); mesh.close()"
    done = subprocess.run(
        [sys.executable, "-c", code, camera.url()], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[2, 2]\n", done.stderr


def test_a_url_outlives_the_handle_and_the_client(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    kernel.execute(CAMERA)
    before = {info.id for info in kernel.refs()}  # other tests have references that read alike
    frame = kernel.ref("camera.frame()")
    url = frame.url()
    frame.release()
    wait_until(lambda: not any(info.kind == "handle" and info.id not in before for info in kernel.refs()))
    assert mesh.open(url).number == 0


def test_a_url_expires_by_itself_and_what_was_reached_by_it_too(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    kernel.execute(CAMERA + "frame = camera.frame(); camera.kept = frame; seen = weakref.ref(frame); del frame")
    opened = mesh.open(kernel.ref("camera").url(1.0))
    frame = opened.kept
    assert frame.number == 0
    kernel.execute("del camera.kept")
    wait_until(lambda: value(kernel, "seen() is None"))
    for use in (lambda: opened.model, lambda: frame.number):
        with pytest.raises(pk.ReferenceGoneError, match="expired"):
            use()


def test_a_url_is_revoked_with_all_that_was_reached_by_it(
    mesh: pk.Mesh, kernel: pk.Kernel, camera: pk.Reference
) -> None:
    url = camera.url("never")
    opened = mesh.open(url)
    frame = opened.frame()
    (listed,) = [info for info in mesh.refs() if info.kind == "url" and info.expires == 0]
    assert ReferenceUrl.parse(url).token not in repr(listed)
    assert kernel.revoke(listed.id) == 2
    for use in (lambda: opened.model, lambda: frame.number, lambda: mesh.open(url)):
        with pytest.raises(pk.ReferenceGoneError, match="revoked"):
            use()
    assert camera.model == "C1"
    with pytest.raises(pk.ReferenceGoneError, match="no reference"):
        mesh.revoke(listed.id)
    assert mesh.revoke(camera.url()) == 1


def test_a_reference_is_revoked_by_itself_and_asked_nothing(kernel: pk.Kernel) -> None:
    kernel.execute("class Endless:\n    def __getitem__(self, index): return index\nendless = Endless()")
    endless = kernel.ref("endless")
    assert endless[3] == 3
    assert kernel.revoke(endless) >= 1
    with pytest.raises(pk.ReferenceGoneError):
        endless[3]
    not_one: Any = 3
    with pytest.raises(pk.SettingsError, match="not by int"):
        kernel.revoke(not_one)


@pytest.mark.parametrize("expires", [0, -1, "soon", float("nan"), float("inf")])
def test_a_url_needs_an_end(camera: pk.Reference, expires: float | str) -> None:
    with pytest.raises(pk.SettingsError):
        camera.url(expires)


def test_a_url_of_a_function_calls_it_and_nothing_else(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    kernel.execute("def double(x): return 2 * x")
    opened = mesh.open(kernel.ref("double").url())
    assert opened(4) == 8
    with pytest.raises(pk.AccessRefusedError):
        opened.attribute("__globals__")


def test_a_url_of_a_method_calls_it(mesh: pk.Mesh, camera: pk.Reference) -> None:
    assert mesh.open(camera.snap.url())(3) == [3, 3]


@pytest.mark.parametrize(
    "source", ["__import__('os')", "__import__('pathlib').Path('/')", "__import__('io').StringIO()"]
)
def test_what_would_open_more_than_is_meant_gets_no_url(kernel: pk.Kernel, source: str) -> None:
    with pytest.raises(pk.SettingsError):
        kernel.ref(source).url()


def test_a_restricted_reference_makes_no_further_urls(mesh: pk.Mesh, camera: pk.Reference) -> None:
    with pytest.raises(pk.SettingsError, match="mail the URL itself"):
        mesh.open(camera.url()).url()


# -- published


PUBLISH = """
import pyrokernel as pk

class Stage:
    def __init__(self): self.at, self.hidden = 0, "no"
    @pk.expose
    def move(self, by):
        self.at += by
        return self.at
    @pk.expose
    @property
    def position(self): return self.at
    @position.setter
    def position(self, at): self.at = at
    def secret(self): return "secret"

stage = Stage()
"""


@pytest.fixture
def published(mesh: pk.Mesh, kernel: pk.Kernel) -> Iterator[str]:
    """The name of a stage that the first kernel has published."""
    kernel.execute(PUBLISH)
    kernel.execute("pk.publish('stage', stage)")
    yield "stage"
    kernel.execute("pk.unpublish('stage')")


def test_a_published_object_opens_by_its_name(mesh: pk.Mesh, published: str) -> None:
    stage = mesh.open(published)
    assert stage.move(2) == 2
    assert stage.position == 2
    stage.position = 5
    assert stage.position == 5
    for name in ("secret", "at", "hidden", "__class__"):
        with pytest.raises(pk.AccessRefusedError):
            stage.attribute(name)
    assert set(dir(stage)) == {"attribute", "fetch", "release", "url", "move", "position"}
    assert [entry.name for entry in mesh.published()] == ["stage"]
    with pytest.raises(pk.KernelNotFoundError):
        mesh.open("nothing")


STOCK = """
import sys, Pyro5.api
with Pyro5.api.Proxy(Pyro5.api.locate_ns(sys.argv[1]).lookup("stage")) as stage:
    print(stage.move(3), stage.position)
    for name in ("secret", "hidden"):
        try:
            getattr(stage, name)
            print("reached", name)
        except AttributeError:
            print("refused")
"""


@stock_clients
def test_a_stock_proxy_uses_a_published_object(mesh: pk.Mesh, kernel: pk.Kernel, published: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOCK, mesh.settings.ns_address], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.splitlines() == ["3 3", "refused", "refused"], done.stderr
    assert value(kernel, "stage.at") == 3


def test_a_published_name_is_refused_where_it_is_taken(mesh: pk.Mesh, published: str) -> None:
    mesh["k1"].execute(PUBLISH)
    with pytest.raises(pk.RemoteError, match="NameTakenError"):
        mesh["k1"].execute("pk.publish('stage', stage)")
    with pytest.raises(pk.RemoteError, match="already"):
        mesh["k0"].execute("pk.publish('stage', stage)")
    with pytest.raises(pk.RemoteError, match="marked"):
        mesh["k0"].execute("pk.publish('plain', object())")
    with pytest.raises(pk.RemoteError, match="SettingsError"):
        mesh["k0"].execute("pk.publish('pyrokernel.kernel.k9', stage)")
    with pytest.raises(pk.SettingsError, match="kernel"):
        pk.publish("here", object())


def test_a_published_name_goes_when_its_kernel_dies_or_restarts() -> None:
    with pk.local(2) as mesh:
        for kernel in mesh:
            kernel.execute(PUBLISH)
            kernel.execute(f"pk.publish('stage-{kernel.name}', stage)")
        stage = mesh.open("stage-k0")
        os.kill(mesh["k0"].describe()["pid"], signal.SIGKILL)
        mesh["k1"].restart()
        wait_until(lambda: mesh.published() == [])
        with pytest.raises(pk.ReferenceGoneError):
            stage.move(1)


def test_a_name_that_was_lost_at_the_name_server_comes_back(mesh: pk.Mesh, kernel: pk.Kernel, published: str) -> None:
    mesh._directory.remove(published)
    kernel.execute(f"from pyrokernel.client import keeper; keeper.hurry(('published', {kernel.instance!r}))")
    wait_until(lambda: [entry.name for entry in mesh.published()] == ["stage"])


# -- Tab in a kernel


def test_a_kernel_completes_a_reference_by_asking_its_kernel(mesh: pk.Mesh, camera: pk.Reference) -> None:
    other = mesh["k1"]
    other.push(cam=camera)
    assert "cam.snap".removeprefix("cam.") in other.complete("cam.sn").matches
    cell = other.submit("import time\nwhile True: time.sleep(0.01)")
    wait_until(lambda: other.describe()["running"])
    assert other.complete("cam.sn").matches == ("snap",)
    cell.interrupt()


def test_a_method_keeps_its_object_and_is_passed_on_by_itself(kernel: pk.Kernel) -> None:
    kernel.execute(CAMERA + "seen = weakref.ref(camera)")
    snap = kernel.ref("camera").snap
    again = kernel.ref("camera").snap  # known by now, and held by nothing but its object
    kernel.execute("del camera")
    gc.collect()
    parcel = pickle.dumps(again)
    assert again(1) == [1, 1]
    del snap, again
    gc.collect()
    moved = pickle.loads(parcel)
    assert moved(2) == [2, 2]


def test_a_repr_of_a_kernel_that_answers_nothing_says_so(kernel: pk.Kernel, camera: pk.Reference) -> None:
    kernel.execute("import signal, os")
    pid = kernel.describe()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert repr(camera) == "<Reference to camera (Camera) in kernel 'k0', busy>"
        assert dir(camera) == ["attribute", "fetch", "release", "url"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert camera.gain == 1


def test_several_threads_use_one_reference(camera: pk.Reference) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(50):
                assert camera.snap(number) == [number, number]
        except BaseException as error:  # noqa: BLE001  it belongs to another thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_what_a_user_holds_is_told_when_it_changes_places(mesh: pk.Mesh, camera: pk.Reference) -> None:
    """Closing a mesh ends the renewals, not the handles: they reach it again."""
    with pk.connect(mesh.settings) as other:
        frame = other["k0"].ref("camera.frame()")
    assert frame.number == 0
    other.close()  # what that has opened again
