"""A kernel behaves as a Python console does, and its output arrives whole and attributed."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from waiting import wait_until

import pyrokernel as pk


def output(cell: pk.Cell, stream: str = "stdout") -> str:
    events = cell.events()
    return "".join(e.data["text"] for e in events if e.kind == "output" and e.data["stream"] == stream)


def test_the_last_expression_is_the_result(kernel: pk.Kernel) -> None:
    assert kernel.execute("x = 3\nx * 2").result == 6
    assert kernel.execute("x = 4").result is None
    assert kernel.execute("x;").text == ""
    assert kernel.execute("5\n6").result == 6


def test_underscores_keep_the_last_values(kernel: pk.Kernel) -> None:
    for value in (1, 2, 3):
        kernel.execute(str(value))
    assert kernel.execute("(_, __, ___)").result == (3, 2, 1)


def test_a_display_hook_of_the_users_is_called(kernel: pk.Kernel) -> None:
    kernel.execute("import sys; old = sys.displayhook; sys.displayhook = lambda v: print('shown', v)")
    assert kernel.execute("42").stdout == "shown 42\n"
    kernel.execute("sys.displayhook = old")


def test_future_statements_stay_on(kernel: pk.Kernel) -> None:
    kernel.execute("from __future__ import annotations", namespace="future")
    assert kernel.execute("def f(x: nonsense): pass\nf.__annotations__", namespace="future").result == {"x": "nonsense"}


def test_tracebacks_show_the_lines_of_earlier_cells(kernel: pk.Kernel) -> None:
    kernel.execute("def broken():\n    return 1 / 0")
    with pytest.raises(pk.RemoteError) as caught:
        kernel.execute("broken()")
    assert "return 1 / 0" in caught.value.traceback
    assert "pyrokernel" not in caught.value.traceback, "none of our own frames"


def test_classes_of_the_namespace_travel(kernel: pk.Kernel) -> None:
    kernel.execute("class Point:\n    def __init__(self, x): self.x = x")
    assert kernel.execute("Point(3)").result.x == 3
    assert kernel.execute("import pickle; pickle.loads(pickle.dumps(Point(4))).x").result == 4


def test_namespaces_are_apart_and_real_modules(kernel: pk.Kernel) -> None:
    kernel.execute("x = 'main'")
    kernel.execute("x = 'other'\nclass C: pass", namespace="lab")
    assert kernel.execute("x").result == "main"
    assert kernel.execute("x, __name__, C.__module__", namespace="lab").result == (
        "other", "__pyrokernel_lab__", "__pyrokernel_lab__",
    )  # fmt: skip


def test_asyncio_run_works_in_ordinary_cells_and_await_at_top_level(kernel: pk.Kernel) -> None:
    kernel.execute("import asyncio\nasync def f(x):\n    await asyncio.sleep(0.01)\n    return x")
    assert kernel.execute("asyncio.run(f(1))").result == 1
    assert kernel.execute("await f(2)").result == 2
    assert kernel.execute("[await f(n) async for n in g()] if False else await f(3)").result == 3
    assert kernel.call("f", 4) == 4


def test_output_of_every_origin_arrives_in_order(kernel: pk.Kernel) -> None:
    reply = kernel.execute(
        "import ctypes, os, subprocess, sys\n"
        "print('python')\n"
        "os.system('echo system')\n"
        "libc = ctypes.CDLL(None); libc.puts(b'c code'); libc.fflush(None)\n"
        "subprocess.run(['echo', 'subprocess'])\n"
        "os.write(1, b'descriptor\\n')\n"
        "sys.stderr.write('error\\n')\n"
        "print('end', end='')"
    )
    assert reply.stdout == "python\nsystem\nc code\nsubprocess\ndescriptor\nend"
    assert reply.stderr == "error\n"


def test_output_streams_while_the_cell_runs(kernel: pk.Kernel) -> None:
    cell = kernel.submit("import time; print('first'); time.sleep(60)")
    wait_until(lambda: output(cell) == "first\n")
    cell.interrupt()


def test_late_output_of_a_background_process_belongs_to_its_cell(kernel: pk.Kernel) -> None:
    first = kernel.submit("import os; os.system('(sleep 0.3; echo late) &')")
    first.reply(timeout=10)
    second = kernel.submit("import time; time.sleep(1); print('second')")
    assert second.reply(timeout=10).stdout == "second\n"
    wait_until(lambda: "late" in output(first))
    (event,) = [e for e in kernel.events(cell=first.id) if e.kind == "output"]
    assert event.data["late"] is True


def test_late_output_of_a_thread_belongs_to_its_cell(kernel: pk.Kernel) -> None:
    first = kernel.submit(
        "import threading, time\n"
        "go = threading.Event()\n"
        "threading.Thread(target=lambda: (go.wait(10), print('from the thread'))).start()"
    )
    first.reply(timeout=10)
    second = kernel.execute("go.set(); time.sleep(0.3); print('second')")
    assert second.stdout == "second\n"
    wait_until(lambda: "from the thread" in output(first))


def test_events_are_in_order_and_end_with_the_end(kernel: pk.Kernel) -> None:
    cell = kernel.submit("print('a'); 42")
    kinds = [event.kind for event in cell.follow(timeout=10)]
    assert kinds == ["queued", "started", "output", "result", "ended"]
    seqs = [event.seq for event in kernel.events()]
    assert seqs == sorted(set(seqs))


def test_who_only_looks_sees_all_that_was_printed_until_then(kernel: pk.Kernel) -> None:
    kernel.push(printed=-1, more=0)
    cell = kernel.submit(
        "import time\nfor n in range(20):\n    print(n)\n    printed = n\n    while more <= n: time.sleep(0.001)\n"
    )
    for n in range(20):
        wait_until(lambda n=n: kernel.pull("printed") == n)  # type: ignore[misc]
        text = "".join(event.data["text"] for event in cell.events() if event.kind == "output")
        assert text.splitlines() == [str(one) for one in range(n + 1)]
        kernel.push(more=n + 1)
    assert cell.reply(timeout=10).status == "ok"


def test_a_hundred_thousand_lines_arrive_whole(kernel: pk.Kernel) -> None:
    cell = kernel.submit("for i in range(100_000): print(i)")
    text = "".join(e.data["text"] for e in cell.follow(timeout=60) if e.kind == "output")
    assert text == "".join(f"{i}\n" for i in range(100_000))


def test_input_is_asked_and_answered(kernel: pk.Kernel) -> None:
    cell = kernel.submit("name = input('Your name? '); f'hello {name}'", stdin=True)
    for event in cell.follow(stdin=True, timeout=20):
        if event.kind == "input":
            assert event.data["prompt"] == "Your name? "
            kernel.answer_input(event.data["request"], "Ada")
    assert cell.reply(timeout=5).result == "hello Ada"


def test_a_password_is_marked_as_one(kernel: pk.Kernel) -> None:
    cell = kernel.submit("import getpass; len(getpass.getpass())", stdin=True)
    for event in cell.follow(stdin=True, timeout=20):
        if event.kind == "input":
            assert event.data["password"] is True
            kernel.answer_input(event.data["request"], "secret")
    assert cell.reply(timeout=5).result == 6


def test_input_without_a_front_end_says_so(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.RemoteError, match="front end"):
        mesh["k2"].execute("input('?')", timeout=20)


def test_input_can_be_interrupted(kernel: pk.Kernel) -> None:
    cell = kernel.submit("input('?')", stdin=True)
    wait_until(lambda: any(e.kind == "input" for e in kernel.events(cell=cell.id)))
    assert cell.interrupt().outcome == "interrupted"
    assert cell.reply(timeout=5, check=False).ename == "KeyboardInterrupt"


def test_an_answer_comes_too_late(kernel: pk.Kernel) -> None:
    with pytest.raises(pk.CellNotFoundError, match="not open"):
        kernel.answer_input("0" * 32, "x")


def test_a_debugger_is_answered(kernel: pk.Kernel) -> None:
    cell = kernel.submit("x = 1\nbreakpoint()\nx", stdin=True)
    for event in cell.follow(stdin=True, timeout=30):
        if event.kind == "input":
            kernel.answer_input(event.data["request"], "c")
    assert cell.reply(timeout=5).result == 1


def test_rich_results_come_as_a_bundle(kernel: pk.Kernel) -> None:
    kernel.execute(
        "class R:\n    def _repr_html_(self): return '<b>x</b>'\n    def _repr_png_(self): return b'\\x89PNG'"
    )
    data = kernel.execute("R()", want="mime").data
    assert data is not None
    assert data["text/html"] == "<b>x</b>"
    assert data["image/png"] == "iVBORw=="
    assert data["text/plain"].startswith("<")


def test_completion_and_inspection_answer_while_a_cell_runs(kernel: pk.Kernel) -> None:
    kernel.execute(
        "class Camera:\n"
        "    ran = 0\n"
        "    @property\n"
        "    def exposure(self):\n"
        "        Camera.ran += 1\n"
        "        return 1\n"
        "    def snap(self, seconds=1):\n"
        "        'Take a picture.'\n"
        "camera = Camera()"
    )
    cell = kernel.submit("while True: pass")
    wait_until(lambda: kernel.describe()["running"])
    started = time.monotonic()
    assert {"exposure", "snap"} <= set(kernel.complete("camera.").matches)
    assert kernel.inspect("camera.snap").docstring == "Take a picture."
    assert "camera" in {variable["name"] for variable in kernel.variables()}
    assert time.monotonic() - started < 5
    assert kernel.pull("camera").ran == 0, "no property was run"
    kernel.push(pushed=1)
    cell.interrupt()
    assert kernel.execute("pushed").result == 1


def test_the_environment_is_what_was_declared(tmp_path: Any) -> None:
    spec = pk.KernelSpec(name="e", env={"COLOUR": "blue"}, cwd=str(tmp_path), tags=("big",), preload=("decimal",))
    with pk.local([spec]) as mesh:
        source = "import os, sys; os.environ['COLOUR'], os.getcwd(), 'decimal' in sys.modules"
        assert mesh["e"].execute(source).result == ("blue", str(tmp_path), True)
        assert mesh.tagged("big").names == ["e"]


def test_processors_are_divided_among_kernels(mesh: pk.Mesh) -> None:
    assert mesh["k0"].execute("import os; os.environ['OMP_NUM_THREADS']").result == "1"


def test_a_kernel_imports_nothing_heavy(mesh: pk.Mesh) -> None:
    mesh["k2"].restart()
    source = (
        "import sys; sorted({m.partition('.')[0] for m in sys.modules} & {'cmd2', 'rich', 'numpy', 'prompt_toolkit'})"
    )
    assert mesh["k2"].execute(source).result == []


def test_cells_are_listed_with_their_author(kernel: pk.Kernel) -> None:
    kernel.execute("'listed'")
    last = kernel.cells()[-1]
    assert last["source"] == "'listed'"
    assert last["author"]
    assert last["status"] == "ok"


def test_many_clients_one_kernel(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.execute("total = 0")

    def work() -> None:
        for _ in range(50):
            kernel.execute("total += 1")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert kernel.execute("total").result == 400


def test_the_end_of_input_is_an_error_that_code_can_catch(kernel: pk.Kernel) -> None:
    cell = kernel.submit("try:\n    input()\nexcept EOFError:\n    print('no more')", stdin=True)
    for event in cell.follow(stdin=True, timeout=20):
        if event.kind == "input":
            kernel.answer_input(event.data["request"], None)
    assert cell.reply(timeout=5).stdout == "no more\n"


def test_an_interrupted_traceback_shows_the_users_lines_only(kernel: pk.Kernel) -> None:
    kernel.execute("import asyncio, time")
    for source in ("print('in'); time.sleep(60)", "print('in'); await asyncio.sleep(60)"):
        cell = kernel.submit(source)
        wait_until(lambda cell=cell: output(cell) == "in\n")
        cell.interrupt()
        text = cell.reply(timeout=5, check=False).traceback
        assert "pyrokernel" not in text
        assert "<cell" in text


def test_a_cancelled_cell_ends_for_those_who_follow_it(kernel: pk.Kernel) -> None:
    first = kernel.submit("import time; time.sleep(60)")
    second = kernel.submit("1")
    assert second.cancel()
    assert [event.kind for event in second.follow(timeout=10)] == ["queued", "ended"]
    first.interrupt()
