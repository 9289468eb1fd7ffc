"""Everything written to descriptors 1 and 2 is an event of the cell it belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrokernel.journal import JournalReader
from tests.unit.capturing import captured


def test_print_c_code_and_children_keep_their_order(tmp_path: Path) -> None:
    script = """
def body():
    print("a")
    os.system("echo b >&2")
    print("c")
    print("d", file=sys.stderr)
    os.write(1, b"e\\n")
    subprocess.run(["echo", "f"])
    sys.stdout.buffer.write(b"g\\n")
    print("h", end="")
    sys.stderr.write("i\\n")
    sys.stdout.flush()
report([run("c1", body), outputs()])
"""
    reply, journalled = captured(tmp_path, script)
    assert reply == ["a\nc\ne\nf\ng\nh", "b\nd\ni\n", False]
    assert journalled == [["c1", "a\nb\nc\nd\ne\nf\ng\ni\nh", False]]


def test_a_cell_that_writes_nothing_leaves_no_event(tmp_path: Path) -> None:
    assert captured(tmp_path, "report([run('c1'), run('c2', lambda: sys.stdout.flush()), outputs()])") == [
        ["", "", False],
        ["", "", False],
        [],
    ]


def test_each_cell_has_its_own_output(tmp_path: Path) -> None:
    script = """
for number in range(20):
    assert run(f"c{number}", lambda: print(number)).stdout == f"{number}\\n"
report(outputs())
"""
    assert captured(tmp_path, script) == [[f"c{number}", f"{number}\n", False] for number in range(20)]


def test_300_kb_in_one_c_call_do_not_block(tmp_path: Path) -> None:
    script = """
import ctypes
def body():
    ctypes.CDLL(None).puts(b"x" * 300_000)
    ctypes.PyDLL(None).write(2, b"y" * 300_000, 300_000)  # keeps the GIL
run("c1", body)
report([text.count("x") + text.count("y") for _, text, _ in outputs()])
"""
    assert captured(tmp_path, script) == [600_000]


def test_text_that_c_code_left_in_its_buffer_belongs_to_the_cell(tmp_path: Path) -> None:
    script = """
import ctypes
libc = ctypes.CDLL(None)
first = run("c1", lambda: libc.printf(b"no newline"))
second = run("c2", lambda: (libc.puts(b"one"), print("two"), libc.puts(b"three")))
report([first.stdout, second.stdout])
"""
    assert captured(tmp_path, script) == ["no newline", "one\ntwo\nthree\n"]


def test_late_output_of_a_child_belongs_to_the_cell_that_started_it(tmp_path: Path) -> None:
    script = """
os.mkfifo("gate")
run("c1", shell("echo now; (read line < gate; echo late) &"))
run("c2", shell("echo two"))
run("c3", lambda: print("three"))
Path("gate").write_text("go\\n")
wait_until(lambda: "late" in written("c1"))
run("c4", lambda: print("four"))
wait_until(lambda: capture.drain() or not capture.has_late())
report([outputs(), len(list(Path("journal").glob("capture-*"))) <= 6])
"""
    assert captured(tmp_path, script) == [
        [
            ["c1", "now\n", False],
            ["c2", "two\n", False],
            ["c3", "three\n", False],
            ["c1", "late\n", True],
            ["c4", "four\n", False],
        ],
        True,
    ]


def test_a_forked_python_child_prints_for_its_cell_and_writes_no_event(tmp_path: Path) -> None:
    script = """
os.register_at_fork(before=capture.before_fork, after_in_child=capture.abandon_in_child)
capture.start_drainer(lambda: False)
def body():
    print("parent", end=" ")
    child = os.fork()
    if child == 0:
        for number in range(5000):
            print("child")
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    print("again")
run("c1", body)
report(outputs())
"""
    assert captured(tmp_path, script) == [["c1", "parent " + "child\n" * 5000 + "again\n", False]]


def test_multiprocessing_children_print_for_their_cell(tmp_path: Path) -> None:
    script = """
import multiprocessing
os.register_at_fork(before=capture.before_fork, after_in_child=capture.abandon_in_child)
def body():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(print, ["a", "b", "c"], chunksize=1)
reply = run("c1", body)
report([sorted(reply.stdout.split()), run("c2", lambda: print("two")).stdout])
"""
    assert captured(tmp_path, script) == [["a", "b", "c"], "two\n"]


def test_a_thread_prints_for_the_cell_that_started_it(tmp_path: Path) -> None:
    script = """
go, done = threading.Event(), threading.Event()
def work():
    print("now")
    go.wait(10)
    for number in range(3):
        print("late", number)
    done.set()
run("c1", lambda: (threading.Thread(target=work).start(), print("one")))
def body():
    print("two")
    go.set()
    done.wait(10)
    print("three")
second = run("c2", body)
wait_until(lambda: not [thread for thread in threading.enumerate() if thread is not threading.main_thread()])
capture.drain()
third = run("c3", lambda: print("four"))
report([second.stdout, third.stdout, written("c1").splitlines(), capture.has_late(), "write" in vars(sys.stdout)])
"""
    second, third, first, late, routed = captured(tmp_path, script)
    assert (second, third) == ("two\nthree\n", "four\n")
    assert sorted(first[:2]) == ["now", "one"]
    assert first[2:] == ["late 0", "late 1", "late 2"]
    assert not late
    assert not routed


def test_more_cells_with_threads_than_are_told_apart_lose_nothing(tmp_path: Path) -> None:
    script = """
go = threading.Event()
threads = []
def start(name):
    threads.append(threading.Thread(target=lambda: (go.wait(10), print(name))))
    threads[-1].start()
for number in range(20):
    run(f"c{number}", lambda: start(f"t{number}"))
go.set()
for thread in threads:
    thread.join(10)
run("last")
found = {text.strip(): cell for cell, text, late in outputs() if late and text.count("\\n") == 1}
report([sorted(word for _, text, _ in outputs() for word in text.split()), found.get("t19"), capture.has_late()])
"""
    words, owner, late = captured(tmp_path, script)
    assert words == sorted(f"t{number}" for number in range(20))
    assert owner == "c19"
    assert not late


def test_100_000_lines_arrive_whole_and_in_order(tmp_path: Path) -> None:
    script = """
capture.start_drainer(lambda: True)
def body():
    for number in range(100_000):
        print("line", number)
    os.system("echo child")
    print("end")
started = time.perf_counter()
reply = run("c1", body)
lines = written("c1").splitlines()
report([lines == [f"line {number}" for number in range(100_000)] + ["child", "end"], reply.truncated])
"""
    assert captured(tmp_path, script) == [True, True]


def test_streams_keep_their_order_in_a_flood(tmp_path: Path) -> None:
    script = """
capture.start_drainer(lambda: True)
def body():
    for number in range(20_000):
        print(number, file=sys.stderr if number % 1000 == 999 else sys.stdout)
run("c1", body)
report(written("c1").split() == [str(number) for number in range(20_000)])
"""
    assert captured(tmp_path, script) is True


@pytest.mark.parametrize(("line_seconds", "flooded"), [(0.0001, True), (0.001, False)])
def test_how_often_somebody_looks_does_not_decide_what_a_flood_is(
    tmp_path: Path, line_seconds: float, flooded: bool
) -> None:
    """A follower who reads fast looks after every line, or after a few of them."""
    script = f"""
from types import SimpleNamespace
from pyrokernel.kernel import writer
clock = [1000.0]
writer.time = SimpleNamespace(monotonic=lambda: clock[0])
capture.begin("c1")
for number in range(2000):
    print(number)
    clock[0] += {line_seconds}
    capture.drain()
report(capture.is_flooded())
"""
    assert captured(tmp_path, script) is flooded


def test_streams_keep_their_order_when_a_tick_falls_between_two_lines(tmp_path: Path) -> None:
    script = """
capture.start_drainer(lambda: True)
sys.setswitchinterval(0.00001)
def body():
    for number in range(60_000):
        print(number, file=sys.stderr if number > 2000 and number % 50 == 49 else sys.stdout)
run("c1", body)
report(written("c1").split() == [str(number) for number in range(60_000)])
"""
    assert captured(tmp_path, script) is True


def test_threads_of_one_cell_each_keep_their_order(tmp_path: Path) -> None:
    script = """
capture.start_drainer(lambda: True)
sys.setswitchinterval(0.00001)
def work(name):
    for number in range(3000):
        sys.stdout.write(f"{name} {number}\\n")
def body():
    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
run("c1", body)
lines = [line.split() for line in written("c1").splitlines()]
report([[int(number) for owner, number in lines if owner == name] == list(range(3000)) for name in "abc"])
"""
    assert captured(tmp_path, script) == [True, True, True]


def test_output_comes_while_the_cell_runs_and_half_lines_too(tmp_path: Path) -> None:
    script = """
capture.start_drainer(lambda: False)
def seen(text):
    return lambda: any(text in event.data.get("text", "") for event in journal.read(0))
def body():
    print("first")
    wait_until(seen("first"))
    print("50 %", end="")
    wait_until(seen("50 %"))
    os.write(2, b"raw")
    wait_until(seen("raw"))
run("c1", body)
report(True)
"""
    assert captured(tmp_path, script) is True


def test_the_drain_thread_sleeps_when_nothing_runs(tmp_path: Path) -> None:
    script = """
capture.start_drainer(lambda: False)
run("c1", lambda: print("x"))
drainer = next(thread for thread in threading.enumerate() if thread.name == "pyrokernel-drain")
wait_until(lambda: drainer.asleep)
capture.begin("c2")
wait_until(lambda: not drainer.asleep)
print("while it runs")
wait_until(lambda: "runs" in "".join(str(event.data) for event in journal.read(0)))
end()
wait_until(lambda: drainer.asleep)
print("between the cells")
wait_until(lambda: "between" in "".join(str(event.data) for event in journal.read(0)))
report(outputs()[-1])
"""
    assert captured(tmp_path, script) == ["c2", "between the cells\n", True]


def test_late_output_is_journalled_while_the_kernel_is_idle(tmp_path: Path) -> None:
    script = """
os.mkfifo("gate")
capture.start_drainer(lambda: False)
run("c1", shell("(read line < gate; echo late) &"))
Path("gate").write_text("go\\n")
wait_until(lambda: "late" in "".join(str(event.data.get("text")) for event in journal.read(0)))
drainer = next(thread for thread in threading.enumerate() if thread.name == "pyrokernel-drain")
wait_until(lambda: drainer.asleep)
report(outputs())
"""
    assert captured(tmp_path, script) == [["c1", "late\n", True]]


def test_long_output_is_cut_in_the_reply_and_whole_in_the_journal(tmp_path: Path) -> None:
    script = """
reply = run("c1", lambda: print("a" * 600 + "b" * 1000 + "c" * 600))
report([reply, len(written("c1")), run("c2", lambda: print("x" * 999))])
"""
    (stdout, _, truncated), length, whole = captured(tmp_path, script)
    assert truncated
    assert length == 2201
    head, marker, tail = stdout.split("\n", 1)[0], "1201 characters left out", stdout.rsplit("...", 1)[1]
    assert head == "a" * 500
    assert marker in stdout
    assert tail == "\n" + "c" * 499 + "\n"
    assert whole == ["x" * 999 + "\n", "", False]


def test_surrogates_and_broken_utf8_fail_nobody(tmp_path: Path) -> None:
    script = """
capture.start_drainer(lambda: True)
def body():
    print("\\udc80 lone")
    for byte in "é🙂".encode():
        os.write(1, bytes([byte]))
        capture.drain()
    os.write(1, b"\\xff|")
    os.write(1, "é".encode()[:1])
reply = run("c1", body)
after = run("c2", lambda: print("next"))
report([reply.stdout, after.stdout, written("c1")])
"""
    expected = "\\udc80 lone\né🙂\ufffd|\ufffd"
    assert captured(tmp_path, script) == [expected, "next\n", expected]


def test_a_full_disk_fails_no_print_and_is_told_as_a_gap(tmp_path: Path) -> None:
    script = """
def body():
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    for number in range(2000):
        print("0123456789" * 10)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print("end")
reply = run("c1", body)
report([reply.truncated, written("c1").endswith("end\\n"), len(written("c1")), gaps()])
"""
    truncated, has_end, length, gaps = captured(tmp_path, script)
    assert truncated
    assert has_end
    lost_bytes = sum(gap["lost_bytes"] for gap in gaps)
    assert lost_bytes > 0
    assert length + lost_bytes == 2000 * 101 + len("end\n")
    assert {(gap["cell"], gap["stream"]) for gap in gaps} == {("c1", "stdout")}


def test_space_of_what_was_read_is_given_back(tmp_path: Path) -> None:
    script = """
def body():
    for _ in range(40):
        os.write(1, b"x" * 1_000_000)
        capture.drain()
run("c1", body)
used = sum(path.stat().st_blocks * 512 for path in Path("journal").glob("capture-*"))
report([used < 20_000_000, run("c2", lambda: print("still in order")).stdout])
"""
    assert captured(tmp_path, script) == [True, "still in order\n"]


@pytest.mark.parametrize("flood", ["print('x' * 1000)", "print('x' * 50)", "os.write(1, b'x' * 100_000)"])
def test_output_without_end_stays_within_bounds_and_is_told_as_a_gap(tmp_path: Path, flood: str) -> None:
    script = f"""
journal.cap_bytes = 2_000_000
sys.setswitchinterval(0.0005)
capture = None
from pyrokernel.kernel.capture import Capture
capture = Capture(directory / "journal", journal, reply_bytes=1000)
capture.install()
capture.start_drainer(lambda: True)
def body():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while journal.read(0, max_bytes=1)[:1] == [] or journal.read(0, max_bytes=1)[0].kind != "gap":
        for _ in range(1000):
            {flood}
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
grown = []
reply = run("c1", lambda: grown.append(body()))
used = sum(path.stat().st_blocks * 512 for path in Path("journal").iterdir())
report([reply.truncated, grown[0] < 100_000, used < 50_000_000])
"""
    assert captured(tmp_path, script) == [True, True, True]


def test_where_files_have_no_holes_they_are_emptied_when_all_is_read(tmp_path: Path) -> None:
    script = """
from pyrokernel.kernel import clib
clib.punch_hole = lambda fd, end: False
def body():
    for number in range(20):
        os.write(1, b"x" * 1_000_000 + b"\\n")
        capture.drain()
        print(number)
run("c1", body)
sizes = sum(path.stat().st_size for path in Path("journal").glob("capture-*"))
report([sizes < 10_000_000, [line for line in written("c1").split() if len(line) < 9]])
"""
    assert captured(tmp_path, script) == [True, [str(number) for number in range(20)]]


@pytest.mark.parametrize(
    ("how", "returncode"), [("os.kill(os.getpid(), 9)", -9), ("os._exit(3)", 3), ("os.abort()", -6)]
)
def test_a_reader_finds_the_last_line_before_a_sudden_death(tmp_path: Path, how: str, returncode: int) -> None:
    script = f"""
journal.append("started", "c1", source="boom()")
capture.begin("c1")
for number in range(1000):
    print("line", number)
{how}
"""
    captured(tmp_path, script, returncode=returncode)
    reader = JournalReader(tmp_path / "journal")
    assert reader.tail_text().endswith("line 998\nline 999\n")
    last = reader.read(1)[-1]
    assert (last.kind, last.cell) == ("output", "c1")


def test_a_reader_finds_the_last_line_of_a_flood_before_the_kernel_kills_itself(tmp_path: Path) -> None:
    script = """
capture.start_drainer(lambda: False)
capture.begin("c1")
for number in range(50_000):
    print("line", number)
os.kill(os.getpid(), 9)
"""
    captured(tmp_path, script, returncode=-9)
    assert JournalReader(tmp_path / "journal").tail_text().endswith("line 49999\n")


def test_signal_handlers_may_print_while_their_thread_prints(tmp_path: Path) -> None:
    script = """
count = 0
def handler(*_):
    global count
    mine = count = count + 1
    print(f"handler {mine};")
    print(f"handler {mine};", file=sys.stderr)
signal.signal(signal.SIGALRM, handler)
def body():
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    for number in range(10_000):
        print(f"main {number};")
    signal.setitimer(signal.ITIMER_REAL, 0)
run("c1", body)
import re
def numbers(word, stream):
    "A handler may print between a text and its newline, but no text may be torn, lost or moved."
    return [int(number) for number in re.findall(word + r" (\\d+);", "".join(text for _, text, _ in outputs(stream)))]
every = list(range(1, count + 1))
# A handler that is itself interrupted prints after the one that did it.
report([count > 0, numbers("main", "stdout") == list(range(10_000)),
        sorted(numbers("handler", "stdout")) == every, sorted(numbers("handler", "stderr")) == every])
"""
    assert captured(tmp_path, script) == [True, True, True, True]


def test_an_interrupt_tears_no_line(tmp_path: Path) -> None:
    script = """
armed = False
def handler(signum, frame):
    global armed
    if armed:
        armed = False
        interrupt = KeyboardInterrupt()
        if not capture.postpone(interrupt, frame):
            raise interrupt
signal.signal(signal.SIGINT, handler)
capture.start_drainer(lambda: True)
main, interrupted, printed = threading.main_thread().ident, 0, 0
def poke(stop):
    while not stop.wait(0.002):
        signal.pthread_kill(main, signal.SIGINT)
stop = threading.Event()
poker = threading.Thread(target=poke, args=(stop,), name="pyrokernel-poke")
poker.start()
capture.begin("c1")
while interrupted < 100:
    try:
        armed = True
        while True:
            sys.stdout.write(f"{printed}\\n")
            printed += 1
    except KeyboardInterrupt:
        interrupted += 1
stop.set()
poker.join()
end()
lines = [int(line) for line in "".join(text for _, text, _ in outputs("stdout")).splitlines()]
# A line may be there twice: interrupted after it was written, before it was counted.
report([sorted(set(lines)) == list(range(lines[-1] + 1)), sorted(lines) == lines])
"""
    assert captured(tmp_path, script) == [True, True]


def test_streams_look_like_the_ones_they_replace(tmp_path: Path) -> None:
    script = """
import io
def body():
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        assert isinstance(stream, io.TextIOBase)
        assert stream is (sys.__stdout__, sys.__stderr__)[number - 1]
        assert stream.fileno() == stream.buffer.fileno() == number
        assert stream.encoding == "utf-8" and not stream.isatty() and stream.writable() and not stream.readable()
        assert stream.write("text\\n") == 5
        assert stream.buffer.write(bytearray(b"bytes\\n")) == 6
        stream.writelines(["a\\n", "b\\n"])
        stream.close()
        assert not stream.closed
        try:
            stream.write(b"no")
        except TypeError:
            stream.write("refused\\n")
    assert os.read(0, 1) == b""
report(run("c1", body))
"""
    expected = "text\nbytes\na\nb\nrefused\n"
    assert captured(tmp_path, script) == [expected, expected, False]


def test_user_code_may_move_and_close_the_descriptors(tmp_path: Path) -> None:
    script = """
def moved():
    saved = os.dup(1)
    with open("elsewhere", "wb") as file:
        os.dup2(file.fileno(), 1)
        print("to the file")
        os.dup2(saved, 1)
    os.close(saved)
    print("to the cell")
def closed():
    os.close(1)
    print("still here")
report([run("c1", moved).stdout, Path("elsewhere").read_text(), run("c2", closed).stdout])
"""
    assert captured(tmp_path, script) == ["to the cell\n", "to the file\n", "still here\n"]


def test_a_broken_pipe_behind_a_descriptor_fails_the_print_and_not_the_capture(tmp_path: Path) -> None:
    script = """
saved = os.dup(1)
def broken():
    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(write)
    os.close(read)
    try:
        print("refused")
    except BrokenPipeError:
        print("half a line", end="")
run("c1", broken)
os.dup2(saved, 1)
report(run("c2", lambda: print("goes on")).stdout)
"""
    assert captured(tmp_path, script) == "goes on\n"


def test_without_descriptors_left_the_next_cell_goes_on(tmp_path: Path) -> None:
    script = """
def body():
    os.system("echo one")
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return held
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
capture.begin("c1")
held = body()
first = end()
second = run("c2", lambda: print("two"))
for fd in held:
    os.close(fd)
run("c3", shell("echo three"))
report([first.stdout, second.stdout, written("c3")])
"""
    assert captured(tmp_path, script) == ["one\n", "two\n", "three\n"]


def test_it_imports_nothing_heavy(tmp_path: Path) -> None:
    script = """
run("c1", lambda: print("x"))
report(sorted({"ctypes", "tempfile", "asyncio", "multiprocessing", "logging"} & set(sys.modules)))
"""
    assert captured(tmp_path, script) == []
