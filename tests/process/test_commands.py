"""Commands: one annotated function, called by name on kernels, checked, streamed, beside a running cell."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.client import calls, commands
from pyrokernel.client.links import Link
from pyrokernel.client.parcels import pack_arguments

pytestmark = pytest.mark.slow

TOOLS = textwrap.dedent(
    """
    import enum
    import threading
    import time
    from pathlib import Path
    from typing import Literal

    from pyrokernel import command

    class Colour(enum.Enum):
        RED = 1

    stopping = threading.Event()

    @command
    def typed(count: int, scale: float = 1.0, how: Literal["up", "down"] = "up", *, path: Path | None = None):
        return count, scale, how, path

    @command
    def paint(colour: Colour) -> str:
        return colour.name

    @command
    def count(self, n: int, fail_at: int = -1):
        for i in range(n):
            if i == fail_at:
                raise RuntimeError(f"at {i}")
            self.progress(i + 1, n, "counting")
            yield i

    @command
    def expose():
        "Integrate until somebody stops it."
        stopping.clear()
        assert stopping.wait(50)
        return "stopped"

    @command(safe=True)
    def abort():
        stopping.set()
        return threading.current_thread() is threading.main_thread()

    @command(safe=True)
    def explode():
        return 1 / 0

    @command(safe=True)
    def leave():
        raise SystemExit(3)

    @command(safe=True)
    async def later(n: int) -> int:
        return 2 * n

    @command(safe=True)
    def whose(self):
        self.progress(0.5, text="beside")
        self.namespace["beside"] = self.kernel

    def remote_space(self):
        self.namespace["made"] = 1
        self.log.info("made it")
        return self.kernel, self.instance, self.tags, self.settings
    """
)

NO_THREADS = """
from threading import Thread
start = Thread.start
def start_unless_beside(self):
    if self.name == "pyrokernel-beside":
        raise RuntimeError("can't start new thread")
    start(self)
Thread.start = start_unless_beside
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[pk.Mesh]:
    with pk.local([pk.KernelSpec(name="k0", tags=("lab",)), pk.KernelSpec(name="k1")]) as made:
        made[:].ship(TOOLS, name="tools")
        yield made


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("x",), {}, "typed: argument 'count' takes an int, not 'x' (str)"),
        ((1, "y"), {}, "typed: argument 'scale' takes a float, not 'y' (str)"),
        ((1,), {"how": "left"}, "typed: argument 'how' takes one of 'up', 'down', not 'left' (str)"),
        ((), {}, "missing a required argument: 'count'"),
        ((1,), {"colour": 3}, "unexpected keyword argument 'colour'"),
        ((1,), {"path": 3}, "argument 'path' takes pathlib.Path | None, not 3 (int)"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(
    mesh: pk.Mesh, args: tuple[object, ...], kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(pk.RemoteError) as caught:
        mesh["k0"].call("typed", *args, **kwargs)
    assert caught.value.ename == "TypeError"
    assert message in caught.value.evalue
    assert "File" not in caught.value.traceback  # none of our own frames


def test_right_arguments_arrive_as_their_annotations_say(mesh: pk.Mesh) -> None:
    assert mesh["k0"].call("typed", 3, 2) == (3, 2, "up", None)
    assert mesh["k0"].call("typed", 3, path="a/b")[3] == Path("a/b")
    assert mesh["k0"].call("paint", "RED") == "RED"


def test_the_context_says_where_a_command_runs(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    assert kernel.call("space") == ("k0", kernel.instance, ("lab",), {})
    assert kernel.call("space", namespace="elsewhere")[0] == "k0"
    assert kernel.pull("made", namespace="elsewhere") == 1


def test_commands_describe_themselves(mesh: pk.Mesh) -> None:
    commands = mesh[:].commands
    assert [info.name for info in commands] == [
        "abort",
        "count",
        "explode",
        "expose",
        "later",
        "leave",
        "paint",
        "space",
        "typed",
        "whose",
    ]
    assert commands["typed"].signature.startswith("(count: int, scale: float = 1.0, how: ")
    assert commands["expose"].summary == "Integrate until somebody stops it."
    assert commands["count"].streams
    assert commands["abort"].safe
    assert "typed(count: int" in repr(commands)
    assert "typed" in dir(commands)
    with pytest.raises(pk.CommandNotFoundError, match="abort, count"):
        commands["nothing"]
    with pytest.raises(AttributeError):
        _ = commands.nothing


def test_a_safe_command_does_not_wait_for_the_running_cell(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    running: list[object] = []
    thread = threading.Thread(target=lambda: running.append(kernel.call("expose")))
    thread.start()
    wait_until(lambda: kernel.describe()["running"] is not None)
    assert mesh[["k0"]].call("abort") == {"k0": False}
    thread.join(10)
    assert running == ["stopped"]


def test_a_safe_command_that_was_shipped_a_moment_ago_by_somebody_else_does_not_wait_either(mesh: pk.Mesh) -> None:
    other = pk.Mesh(mesh.settings)
    assert other["k1"].call("space")[0] == "k1"  # what it knows of the commands is from before
    mesh["k1"].ship("from pyrokernel import command\n@command(safe=True)\ndef look(): return 1\n", name="newer")
    cell = mesh["k1"].submit("import time; time.sleep(60)")
    wait_until(lambda: mesh["k1"].describe()["running"] is not None)
    wait_until(lambda: time.monotonic() - other.known_commands[mesh["k1"].instance].asked > 1.1)
    assert other["k1"].call("look") == 1
    cell.interrupt()
    mesh["k1"].unship("newer")
    other.close()


def test_a_safe_command_for_which_no_thread_can_be_had_ends_with_that_error(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.execute(NO_THREADS)
    cell = kernel.submit("later(1)", call=[":later", pack_arguments((1,), {})])
    try:
        reply = cell.reply(timeout=5, check=False)
    finally:
        kernel.execute("Thread.start = start")
    assert (reply.status, reply.ename, reply.evalue) == ("error", "RuntimeError", "can't start new thread")
    assert kernel.call("later", 1) == 2


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The kernels that were asked for their commands, each time; what is known is always old."""
    asked: list[list[str]] = []

    def gather(mesh: pk.Mesh, links: Sequence[Link], *args: Any, **options: Any) -> Any:
        asked.append([link.name for link in links])
        return calls.gather(mesh, links, *args, **options)

    monkeypatch.setattr(commands, "gather", gather)
    monkeypatch.setattr(commands, "_AGAIN_SECONDS", 0.0)
    return asked


def test_a_function_of_the_namespace_is_not_looked_for_among_the_commands_again_and_again(
    mesh: pk.Mesh, questions: list[list[str]]
) -> None:
    group = mesh[:]
    group.execute("def step(number): return number + 1")
    for number in range(10):
        assert set(group.call("step", number).values()) == {number + 1}
    assert questions[-1] == group.names
    assert len(questions) <= 2, "once before it was called first, and once to see that it is no command"
    group.call("space")  # a command, which may become one that runs beside a cell
    assert len(questions) > 2
    questions.clear()
    group.call("step", 1)
    assert questions == []


def test_a_function_that_gave_way_to_a_safe_command_is_waited_for_once_at_most(
    mesh: pk.Mesh, questions: list[list[str]]
) -> None:
    kernel, other = mesh["k1"], pk.Mesh(mesh.settings)
    kernel.execute("def glance(): return 'function'")
    for _ in range(3):
        assert other["k1"].call("glance") == "function"
    questions.clear()
    kernel.execute("del glance")
    with pytest.raises(pk.RemoteError, match="NameError"):
        other["k1"].call("glance")
    assert questions == []
    kernel.ship(
        "from pyrokernel import command\n@command(safe=True)\ndef glance(): return 'command'\n", name="glancing"
    )
    cell = kernel.submit("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"] is not None)
    assert other["k1"].call("glance") == "command"
    assert not cell.done
    cell.interrupt()
    kernel.unship("glancing")
    other.close()


def test_what_a_safe_command_raises_arrives_with_its_traceback(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.RemoteError, match="division by zero") as caught:
        mesh["k0"].call("explode")
    assert "return 1 / 0" in caught.value.traceback
    assert "executor.py" not in caught.value.traceback


def test_a_safe_command_that_leaves_has_an_end_like_any_other(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.RemoteError, match="SystemExit"):
        mesh["k0"].call("leave")
    cell = mesh["k0"].submit("leave()", call=[":leave", [[], {}]])
    assert cell.reply(timeout=10, check=False).ename == "SystemExit"


def test_a_safe_command_may_await_and_be_mapped(mesh: pk.Mesh) -> None:
    assert mesh["k0"].call("later", 4) == 8
    assert set(mesh[:].map_calls("abort", [((), {})] * 3).results()) == {True}


def test_a_safe_command_has_a_context_of_its_own(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    cell = kernel.submit("import time; time.sleep(60)", namespace="other")
    wait_until(lambda: kernel.describe()["running"] is not None)
    position = kernel.describe()["last_seq"]
    kernel.call("whose")
    told = [event.cell for event in kernel.events(position) if event.kind == "progress"]
    cell.interrupt()
    assert len(told) == 1
    assert told != [cell.id]
    assert kernel.pull("beside") == "k0"


def test_a_command_that_became_safe_does_not_wait_any_more(mesh: pk.Mesh) -> None:
    kernel = mesh["k1"]
    kernel.ship("from pyrokernel import command\n@command\ndef halt(): return 1\n", name="halting")
    assert kernel.call("halt") == 1
    kernel.ship("from pyrokernel import command\n@command(safe=True)\ndef halt(): return 2\n", name="halting")
    cell = kernel.submit("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"] is not None)
    assert kernel.call("halt") == 2
    assert not cell.done
    cell.interrupt()
    kernel.unship("halting")


def test_only_a_generator_is_read_value_by_value(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.RemoteError, match="no generator"):
        list(mesh["k0"].stream("len", [1, 2]))


def test_progress_without_an_end_is_no_flood(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.ship("def remote_busy(self):\n    for i in range(3000): self.progress(i)\n", name="busy")
    position = kernel.describe()["last_seq"]
    kernel.call("busy")
    assert sum(event.kind == "progress" for event in kernel.events(position)) < 50
    kernel.unship("busy")


def test_a_variable_of_the_users_comes_before_a_command(mesh: pk.Mesh) -> None:
    mesh["k1"].execute("def paint(colour): return 'mine'")
    assert mesh["k1"].call("paint", "RED") == "mine"
    assert mesh["k0"].call("paint", "RED") == "RED"
    assert mesh["k1"].call(":paint", "RED") == "RED"
    assert mesh["k1"].commands.paint("RED") == "RED"
    with pytest.raises(pk.RemoteError, match="there is no command 'typo'"):
        mesh["k1"].call(":typo")
    mesh["k1"].execute("del paint")
    assert mesh["k1"].execute("paint('RED')").result == "RED"
    assert mesh["k1"].call("paint", "RED") == "RED"


def test_a_generator_streams_its_values(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    assert kernel.call("count", 4) == [0, 1, 2, 3]
    assert list(kernel.stream("count", 2500)) == list(range(2500))
    got = []
    with pytest.raises(pk.RemoteError, match="at 2"):
        got.extend(kernel.stream("count", 5, fail_at=2))
    stream = kernel.stream("count", 5, fail_at=2)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(pk.RemoteError, match="at 2"):
        next(stream)


def test_values_of_a_stream_come_while_it_runs(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.execute("import threading; go = threading.Event()\ndef slow():\n    yield 1\n    go.wait(50)\n    yield 2\n")
    stream = kernel.stream("slow")
    assert next(stream) == 1
    assert kernel.describe()["running"] is not None
    kernel.interrupt()
    with pytest.raises(pk.RemoteError, match="KeyboardInterrupt"):
        next(stream)


def test_a_stream_that_is_left_is_interrupted(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.execute("import itertools\ndef endless():\n    yield from itertools.count()\n")
    for value in kernel.stream("endless"):
        if value == 3:
            break
    wait_until(lambda: kernel.describe()["running"] is None)


def test_a_safe_stream_that_is_left_ends_and_frees_what_it_yielded(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    source = (
        "import itertools\nfrom pyrokernel import command\n"
        "@command(safe=True)\ndef frames():\n    for _ in itertools.count(): yield bytes(100_000)\n"
    )
    kernel.ship(source, name="framing")
    before = kernel.execute("import threading; threading.active_count()").result
    for _ in range(5):
        stream = kernel.stream("frames")
        next(stream)
        stream.close()  # type: ignore[attr-defined]  # it is a generator
    wait_until(lambda: kernel.execute("threading.active_count()").result <= before + 2)
    kernel.unship("framing")


def test_a_reader_that_is_gone_does_not_hold_up_the_kernel_for_long(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.execute("import itertools\ndef endless():\n    yield from itertools.count()\n")
    other = pk.Mesh(mesh.settings)
    stream = other["k0"].stream("endless")
    next(stream)
    other.close()  # as its end would, this ends its connections
    begun = time.monotonic()
    assert kernel.execute("1 + 1", timeout=30).result == 2
    assert time.monotonic() - begun < 30
    with contextlib.suppress(pk.PyrokernelError):
        stream.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_stream_waits_for_a_slow_reader(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.execute("made = []\ndef eager():\n    for n in range(5000):\n        made.append(n)\n        yield n\n")
    stream = kernel.stream("eager")
    next(stream)
    wait_until(lambda: len(kernel.pull("made")) >= 999)
    seen = len(kernel.pull("made"))
    assert seen < 2200
    assert sum(1 for _ in stream) == 4999


def test_progress_is_told_as_events(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    position = kernel.describe()["last_seq"]
    kernel.call("count", 3)
    events = [event for event in kernel.events(position) if event.kind == "progress"]
    assert events[-1].data == {"done": 3.0, "total": 3.0, "text": "counting"}


def test_a_scatter_set_of_a_command(mesh: pk.Mesh) -> None:
    job = mesh[:].map_calls("typed", [((n,), {"scale": n / 2}) for n in range(20)])
    assert [result[:2] for result in job.results()] == [(n, n / 2) for n in range(20)]
    failures = mesh[:].map_calls("typed", [((1,), {}), (("x",), {})]).results(check=False)
    assert failures[0][0] == 1
    assert isinstance(failures[1], pk.RemoteError)
    assert failures[1].index == 1


def test_an_unknown_name_says_that_it_is_no_command_either(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.RemoteError, match="no command"):
        mesh["k0"].call("no_such_thing")


def test_kernels_that_are_silent_are_not_taken_for_kernels_without_commands(mesh: pk.Mesh) -> None:
    pid = mesh["k1"].describe()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with pk.connect(dataclasses.replace(mesh.settings, timeout=0.2)) as hasty:
            with pytest.raises(pk.ReplyTimeoutError, match=r"kernel 'k1' did not answer in 0\.2 s"):
                hasty["k1"].commands["typed"]
            assert "typed" in [info.name for info in hasty[:].commands]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_commands_are_functions_of_every_namespace(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    assert kernel.execute("typed(2)[0]", namespace="other").result == 2
    assert kernel.execute("typed").text == "<command typed of tools.py>"
    assert "Integrate until" in kernel.inspect("expose").docstring
    assert kernel.inspect("space").signature == "()"
    assert kernel.inspect("typed").signature.startswith("(count: int, scale: float")
    assert kernel.inspect("typed", detail=1).source.startswith("@command\ndef typed")
    assert "typed" in kernel.complete("typ").matches
