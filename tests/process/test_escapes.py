"""Ways from a mailed URL to code, files or secrets of the kernel, all of which are closed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pyrokernel as pk
from pyrokernel.client.parcels import pack_arguments
from pyrokernel.client.urls import ReferenceUrl
from pyrokernel.wire.codec import Packed

OPEN = """
import collections, functools, itertools, logging, operator, os, pathlib, pickle, subprocess, sys, threading, types
import pyrokernel as pk

def helper(x): return x

class Part:
    def __init__(self): self.value = 1

class Box(dict):
    def own(self): return "own"

class Task(threading.Thread):
    def ready(self): return True

class Instrument:
    factory = Part
    system = os.system
    def __init__(self):
        self._secret, self.count, self.part, self.module = "s3cret", 0, Part(), os
        self.function, self.builtin, self.partial = helper, eval, functools.partial(getattr, self)
        self.getter, self.caller = operator.attrgetter("_secret"), operator.methodcaller("__reduce__")
        self.path, self.log, self.lock = pathlib.Path("/"), logging.getLogger("x"), threading.Lock()
        self.box, self.task, self.environ, self.modules = Box(), Task(), os.environ, sys.modules
        self.functions, self.kinds = [helper, eval], {"part": Part, "os": os}
        self.generator, self.frame = (x for x in [self, helper]), sys._getframe()
        self.code, self.space = helper.__code__, types.SimpleNamespace(os=os)
        self.mesh, self._reference = pk.connect(), []
        self.counts, self.counted = collections.defaultdict(self._count, a=1), 0
        self.tallies, self.ordered = collections.Counter("aab"), collections.OrderedDict(a=1)
        self.chained_maps = collections.ChainMap(self.counts, os.environ)
        self.shown, self.shown_counts = types.MappingProxyType({"a": 1}), types.MappingProxyType(self.counts)
        self.shown_environ = types.MappingProxyType(os.environ)
        self.paths, self.partition = sys.path, collections.namedtuple("Pair", "a b")(1, 2)
    def _count(self):
        self.counted += 1
        return self.counted
    @property
    def error(self):
        try: 1 / 0
        except ZeroDivisionError as error: return error
    def other_reference(self): return self._reference
    def pairs(self): return {"a": Part()}.items()
    def chained(self): return itertools.chain([1], [Part()])
    def method(self): return self.count
    def give(self, what): return getattr(self, "_given", {})[what]
    def itself(self): return self.method
    def stack(self): return sys._getframe()
    def coroutine_of(self):
        async def nothing(): pass
        self._kept = nothing()
        return [self._kept]
    def numbers(self):
        yield 1
        yield helper
    def __len__(self): return 3
instrument = Instrument()
marked = []
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[pk.Mesh]:
    """A mesh with an instrument that leads nearly everywhere."""
    with pk.local(1) as found:
        found[0].execute(OPEN)
        mailed = found.open(found[0].ref("instrument").url())
        found[0].push(mailed=mailed)
        found[0].execute("instrument._reference = mailed")
        yield found


@pytest.fixture(scope="module")
def url(mesh: pk.Mesh) -> str:
    """A URL of the instrument."""
    return str(mesh[0].ref("instrument").url())


@pytest.fixture
def opened(mesh: pk.Mesh, url: str) -> pk.Reference:
    """The instrument as whoever got the URL has it."""
    return mesh.open(url)


ATTEMPTS: dict[str, Callable[[Any], Any]] = {
    "a name with an underscore": lambda o: o._secret,
    "the class": lambda o: o.attribute("__class__"),
    "the dictionary": lambda o: o.attribute("__dict__"),
    "the initialiser": lambda o: o.attribute("__init__"),
    "the reducer": lambda o: o.attribute("__reduce_ex__"),
    "the getter of attributes": lambda o: o.attribute("__getattribute__"),
    "the module of a class": lambda o: o.attribute("__module__"),
    "the globals of a method": lambda o: o.method.attribute("__globals__"),
    "the function of a method": lambda o: o.method.attribute("__func__"),
    "the object of a method": lambda o: o.method.attribute("__self__"),
    "a public name of a method": lambda o: o.method.attribute("im_func"),
    "the code of a method, copied": lambda o: o.method.fetch(),
    "a module": lambda o: o.module,
    "a class among the attributes": lambda o: o.factory,
    "a function of another module in the class": lambda o: o.system("true"),
    "a function among the attributes": lambda o: o.function,
    "a builtin among the attributes": lambda o: o.builtin("1"),
    "a partial of getattr": lambda o: o.partial("_secret"),
    "an attrgetter": lambda o: o.getter(o),
    "a methodcaller": lambda o: o.caller,
    "a path": lambda o: o.path,
    "a logger, whose handlers write files": lambda o: o.log,
    "a mesh, which runs code": lambda o: o.mesh.names,
    "a reference to something else": lambda o: o.other_reference(),
    "a lock": lambda o: o.lock,
    "a base class of the standard library": lambda o: o.box.update({"a": 1}),
    "a method of Thread": lambda o: o.task.start(),
    "the environment": lambda o: o.environ,
    "the modules, which are a dict": lambda o: o.modules["os"],
    "a function in a list": lambda o: o.functions[0],
    "a builtin in a list, by iteration": lambda o: list(o.functions),
    "a class in a dict": lambda o: o.kinds["part"],
    "a module in a dict": lambda o: o.kinds["os"],
    "a method of a list": lambda o: o.functions.append(1),
    "a method of a dict": lambda o: o.kinds.update(a=1),
    "setting an item of a list": lambda o: o.paths.__setitem__(0, "/tmp"),
    "deleting an item of a list": lambda o: o.paths.__delitem__(0),
    "the frame of a generator": lambda o: o.generator.gi_frame,
    "the code of a generator": lambda o: o.generator.gi_code,
    "a function that a generator yields": lambda o: list(o.numbers()),
    "throwing into a generator": lambda o: o.numbers().throw("x"),
    "the frame of a coroutine": lambda o: o.coroutine_of()[0].cr_frame,
    "a coroutine": lambda o: o.coroutine_of()[0],
    "a frame among the attributes": lambda o: o.frame.f_globals,
    "a frame that a method returns": lambda o: o.stack(),
    "a code object": lambda o: o.code,
    "a traceback by an exception": lambda o: o.error,
    "a namespace of types": lambda o: o.space.os,
    "a method that a method returns": lambda o: o.itself(),
    "a named tuple's class": lambda o: o.partition._make,
    "an item of a chain of mappings, such as the environment": lambda o: o.chained_maps["PATH"],
    "the length of a chain of mappings": lambda o: len(o.chained_maps),
    "an item of the environment, shown read-only": lambda o: o.shown_environ["PATH"],
    "a factory behind what is shown read-only": lambda o: o.shown_counts["b"],
    "setting a plain attribute": lambda o: setattr(o, "count", 1),
    "setting a new attribute": lambda o: setattr(o, "run", 1),
    "setting a method": lambda o: setattr(o, "method", 1),
    "deleting an attribute": lambda o: delattr(o, "count"),
    "a name with a dot": lambda o: o.attribute("part.value"),
    "a name with a dot to a dunder": lambda o: o.attribute("method.__globals__"),
    "an empty name": lambda o: o.attribute(" "),
    "a copy of the object": lambda o: o.fetch(),
    "an object as an argument": lambda o: o.give(os.getcwd),
    "another reference as an argument": lambda o: o.give(o),
}


IMPOSSIBLE: dict[str, Callable[[Any], Any]] = {
    "calling what is no function": lambda o: o(),
    "an item of what has none": lambda o: o["x"],
    "going through what is no container": lambda o: list(iter(o)),
    "looking into what is no container": lambda o: 1 in o,
    "entering what is no context": lambda o: o.__enter__(),
}


@pytest.mark.parametrize("attempt", IMPOSSIBLE.values(), ids=list(IMPOSSIBLE))
def test_what_cannot_be_done_to_the_object_is_an_error_as_usual(
    opened: pk.Reference, attempt: Callable[[Any], Any]
) -> None:
    with pytest.raises(pk.RemoteError, match="TypeError"):
        attempt(opened)


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=list(ATTEMPTS))
def test_this_way_is_closed(opened: pk.Reference, attempt: Callable[[Any], Any]) -> None:
    with pytest.raises((pk.AccessRefusedError, pk.NotSerializableError)):
        attempt(opened)


def test_the_public_names_are_open(opened: pk.Reference) -> None:
    assert opened.method() == 0
    assert opened.count == 0
    assert opened.part.value == 1
    assert len(opened) == 3
    assert bool(opened)
    assert opened.box.own() == "own"
    assert opened.task.ready()
    assert len(opened.functions) == 2
    assert "part" in opened.kinds
    assert [name for name, _ in opened.pairs()] == ["a"]
    assert next(iter(opened.chained())) == 1
    assert list(opened.chained())[1].value == 1


def test_reading_a_dictionary_runs_no_factory_and_adds_nothing(mesh: pk.Mesh, opened: pk.Reference) -> None:
    assert opened.counts["a"] == 1
    for _ in range(2):
        with pytest.raises(pk.RemoteError, match="KeyError"):
            opened.counts["b"]
    assert "b" not in opened.counts
    assert list(opened.counts) == ["a"]
    assert mesh[0].execute("instrument.counted, dict(instrument.counts)").result == (0, {"a": 1})
    assert (opened.tallies["a"], opened.tallies["x"], len(opened.tallies)) == (2, 0, 2)
    assert (opened.ordered["a"], opened.shown["a"], list(opened.shown)) == (1, 1, ["a"])


def test_a_repr_tells_nothing_that_is_not_public(opened: pk.Reference) -> None:
    assert repr(opened) == "<Reference to instrument (Instrument) in kernel 'k0', restricted>"


class Marks:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import __main__; __main__.marked.append('ran')",)


@pytest.mark.parametrize(
    "asked",
    [
        {"op": "get", "name": "__class__"},
        {"op": "get", "name": ["_secret"]},
        {"op": "call", "member": "__init__"},
        {"op": "call", "member": "_secret"},
        {"op": "get", "member": "method", "name": "__globals__"},
        {"op": "item", "member": "method"},
        {"op": "repr"},
        {"op": "repr", "member": "method"},
        {"op": "hold"},
        {"op": "hold", "member": "method"},
        {"op": "exit"},
        {"op": "nothing"},
        {"op": "drain"},
        {"op": "set", "name": "__class__"},
        {"op": "del", "name": "count"},
    ],
    ids=str,
)
def test_an_operation_that_no_client_of_ours_sends_is_refused(mesh: pk.Mesh, url: str, asked: dict[str, Any]) -> None:
    token = ReferenceUrl.parse(url).token
    reply = mesh[0].operate({"ref": token, **asked}, pack_arguments((), {}), shown="")
    assert reply.status in ("error", "lost")
    name = reply.ename
    assert name in ("AccessRefusedError", "ProtocolError", "TypeError")


def test_a_pickle_that_runs_code_is_not_loaded(mesh: pk.Mesh, url: str) -> None:
    asked = {"ref": ReferenceUrl.parse(url).token, "op": "call", "member": "give"}
    reply = mesh[0].operate(asked, Packed(pickle.dumps(((Marks(),), {}))), shown="")
    assert reply.ename == "NotSerializableError"
    assert mesh[0].execute("marked").result == []


def test_nothing_but_operations_is_done_by_a_token(mesh: pk.Mesh, url: str) -> None:
    kernel, token = mesh[0], ReferenceUrl.parse(url).token
    with pytest.raises(pk.SettingsError):
        kernel.ask("share", token, {"seconds": 60.0})
    asked = [{"ref": token, "op": "call", "member": "method"}, pack_arguments((), {})]
    with pytest.raises(pk.ProtocolError):
        kernel.submit("mapped", call=asked, map=True)


def test_only_what_is_marked_is_reached_where_that_was_asked_for(mesh: pk.Mesh) -> None:
    kernel = mesh[0]
    kernel.execute(
        "class Marked:\n"
        "    plain = 1\n"
        "    def __init__(self): self.shadow = os.system\n"
        "    @pk.expose\n    def seen(self): return [Part()]\n"
        "    @pk.expose\n    def shadow(self): return 1\n"
        "    @pk.expose\n    @property\n    def level(self): return 2\n"
        "    @property\n    def other(self): return 3\n"
        "    def unseen(self): return 4\n"
        "    def __len__(self): return 5\n"
        "    def __call__(self): return 6\n"
    )
    opened = mesh.open(kernel.ref("Marked()").url(exposed=True))
    assert opened.level == 2
    assert len(opened.seen()) == 1
    for attempt in (
        lambda: opened.plain,
        lambda: opened.other,
        lambda: opened.unseen(),
        lambda: opened.shadow("true"),
        lambda: len(opened),
        lambda: opened(),
        lambda: opened.seen()[0],
        lambda: setattr(opened, "level", 3),
    ):
        with pytest.raises(pk.AccessRefusedError):
            attempt()
    with pytest.raises(pk.SettingsError, match="marked"):
        kernel.ref("instrument").url(exposed=True)


@pytest.mark.parametrize(
    "source", ["pk.connect()", "mailed", "pk", "type", "sys._getframe()", "(x for x in ()).gi_frame"]
)
def test_there_is_no_url_of_what_leads_everywhere(mesh: pk.Mesh, source: str) -> None:
    if source == "type":
        opened = mesh.open(mesh[0].ref(source).url())  # a class is called, and what it returns is no data
        with pytest.raises(pk.AccessRefusedError):
            opened(1)
        return
    with pytest.raises(pk.SettingsError):
        mesh[0].ref(source).url()


def test_arrays_are_copies_and_reach_nothing(mesh: pk.Mesh, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    kernel = mesh[0]
    kernel.execute(
        "import numpy\nclass Data:\n"
        "    def __init__(self):\n"
        "        self.grid, self.objects = numpy.arange(6).reshape(2, 3), numpy.array([eval], dtype=object)\n"
        "    def total(self, values): return values.sum()\n"
        "data = Data()"
    )
    opened = mesh.open(kernel.ref("data").url())
    assert numpy.array_equal(opened.grid, numpy.arange(6).reshape(2, 3))
    assert opened.total(numpy.ones(4)) == 4
    for attempt in (lambda: opened.objects, lambda: opened.total(numpy.array([os.system], dtype=object))):
        with pytest.raises((pk.AccessRefusedError, pk.NotSerializableError)):
            attempt()
    with pytest.raises(pk.AccessRefusedError):
        mesh.open(kernel.ref("data.grid").url()).tofile(str(tmp_path / "written"))
    assert not list(tmp_path.iterdir())
