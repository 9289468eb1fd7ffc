"""Cells behind the prompt: how their ends are told, and what others run; over a fake group."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from waiting import wait_until

from pyrokernel.errors import GatherError, KernelDiedError, KernelUnreachableError, PyrokernelError
from pyrokernel.front import cells as front_cells
from pyrokernel.messages import Event
from pyrokernel.shell import background, watching
from pyrokernel.shell.background import MAX_JOBS, Background
from pyrokernel.shell.journals import Journal, is_cell
from pyrokernel.shell.listing import format_cells
from pyrokernel.shell.watching import News


class FakeCell:
    def __init__(self, kernel: str, id: str) -> None:
        self.kernel, self.id = kernel, id


class FakeLink:
    def __init__(self, name: str) -> None:
        self.name = name


class FakeKernel:
    def __init__(self, name: str) -> None:
        self.name, self.link = name, FakeLink(name)


class FakeMesh:
    client = "ours"


class FakeGroup:
    mesh: Any = FakeMesh()

    def __init__(self, names: str) -> None:
        self.names = names.split()
        self.refusing: dict[str, PyrokernelError] = {}

    def __getitem__(self, key: Any) -> Any:
        return FakeKernel(key) if isinstance(key, str) else FakeGroup(" ".join(key))

    def submit(self, source: str, *, want: str, stdin: bool, cell: str) -> dict[str, FakeCell]:
        self.answered = stdin
        if self.refusing:
            taken = {name: {"seq": 0} for name in self.names if name not in self.refusing}
            raise GatherError(errors=self.refusing, replies=taken)
        return {name: FakeCell(name, cell) for name in self.names}


class FakeFollower:
    """Ends when the test says so: `happen` puts events, None ends the loop."""

    made: ClassVar[list[FakeFollower]] = []

    def __init__(self, mesh: Any, *, stdin: bool) -> None:
        assert stdin, "questions stay open as long as it follows"
        self.added: list[FakeCell] = []
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.idle = False
        FakeFollower.made.append(self)

    def add(self, cell: FakeCell) -> None:
        self.added.append(cell)

    def events(self) -> Iterator[tuple[FakeCell, Any]]:
        while item := self.inbox.get():
            yield item
        self.idle = True

    def happen(self, kernel: str, item: Any, *, of: int = -1) -> None:
        cells = [cell for cell in self.added if cell.kernel == kernel]
        self.inbox.put((cells[of], item))


class FakeRunner:
    def __init__(self) -> None:
        self.attached: list[list[str]] = []
        self.failed: list[str] = []
        self.ok = True

    def attach(
        self, group: FakeGroup, cells: dict[str, FakeCell], *, ours: bool, failed: dict[str, PyrokernelError]
    ) -> bool:
        assert ours
        self.attached.append(list(cells))
        self.failed += failed
        return self.ok and not failed


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(background, "Follower", FakeFollower)
    FakeFollower.made.clear()
    return []


@pytest.fixture
def behind(told: list[str]) -> Background:
    found = Background(FakeRunner())  # type: ignore[arg-type]  # stands in for a runner
    found.tell = told.append
    return found


def event(kind: str, **data: Any) -> Event:
    return Event(seq=1, kind=kind, data=data)


def started(number: int) -> Event:
    return event("started", execution_count=number)


def ended(status: str, duration: float = 0.0) -> Event:
    return event("ended", status=status, duration=duration)


def test_the_end_is_told_with_kernel_duration_and_first_line(behind: Background, told: list[str]) -> None:
    job = behind.start(FakeGroup("k0"), "source")  # type: ignore[arg-type]
    assert job.announce() == f"[1] k0: cell {job.id[:8]}"
    (follower,) = FakeFollower.made
    for item in (started(17), event("result", text="[1,\n 2]"), ended("ok", 3.2)):
        follower.happen("k0", item)
    wait_until(lambda: told)
    assert told == ["[1] k0: done in 3.2 s: [1, ... (`cells 17` shows the rest)"]
    assert behind.jobs == []


def test_equal_ends_are_one_line_and_different_ones_are_told_by_kernel(behind: Background, told: list[str]) -> None:
    job = behind.start(FakeGroup("k0 k1 k2 k3"), "source")  # type: ignore[arg-type]
    (follower,) = FakeFollower.made
    for name in ("k0", "k1"):
        follower.happen(name, event("result", text="2"))
        follower.happen(name, ended("ok", 1.0))
    follower.happen("k2", event("error", ename="ValueError", evalue="bad", traceback="..."))
    follower.happen("k2", ended("error", 2.0))
    assert told == []
    follower.happen("k3", KernelDiedError(kernel="k3", instance="1", cause="killed by SIGKILL", tail=""))
    wait_until(lambda: told)
    assert told[0].split("\n") == [
        "[1] k0-k1: done in 1.0 s: 2",
        f"[1] k2: failed after 2.0 s: ValueError: bad (`cells {job.id[:8]}` shows the rest)",
        "[1] k3: lost: the kernel died: killed by SIGKILL",
    ]


@pytest.mark.parametrize(
    ("evalue", "line"),
    [("0", "done in 1.0 s: exit 0"), ("no way", "failed after 1.0 s: exit 1 (`cells 0` shows the rest)")],
)
def test_who_leaves_by_sys_exit_has_failed_only_with_a_code(
    behind: Background, told: list[str], evalue: str, line: str
) -> None:
    behind.start(FakeGroup("k0"), "source")  # type: ignore[arg-type]
    (follower,) = FakeFollower.made
    follower.happen("k0", event("error", ename="SystemExit", evalue=evalue, traceback="..."))
    follower.happen("k0", ended("error", 1.0))
    wait_until(lambda: told)
    assert told == [f"[1] k0: {line}"]


def test_a_failure_on_one_kernel_is_told_before_the_others_end(behind: Background, told: list[str]) -> None:
    behind.start(FakeGroup("k0 k1 k2 k3"), "source")  # type: ignore[arg-type]
    (follower,) = FakeFollower.made
    for name in ("k1", "k2"):
        follower.happen(name, event("error", ename="ValueError", evalue="bad", traceback="..."))
        follower.happen(name, ended("error", 2.0))
    follower.happen("k3", ended("ok", 2.0))
    wait_until(lambda: told)
    assert [line.partition(" (`")[0] for line in told] == ["[1] k1-k2: failed after 2.0 s: ValueError: bad"]
    follower.happen("k0", ended("ok", 3.0))
    wait_until(lambda: len(told) == 2)
    assert told[1] == "[1] k0, k3: done in 3.0 s"


def test_a_question_is_told_once_with_the_way_to_answer_it(behind: Background, told: list[str]) -> None:
    job = behind.start(FakeGroup("k0 k1"), "source")  # type: ignore[arg-type]
    (follower,) = FakeFollower.made
    for name in ("k0", "k1"):
        follower.happen(name, event("input", request="1", prompt="Name? ", password=False))
    wait_until(lambda: told)
    assert told == ["[1] k0-k1: asks 'Name?'; `follow 1` answers"]
    with behind.hushed([FakeCell("k0", job.id)]):  # type: ignore[list-item]
        follower.happen("k0", event("input", request="2", prompt="Age? ", password=False))
        follower.happen("k0", ended("ok", 1.0))
        follower.happen("k1", ended("ok", 1.0))
        wait_until(lambda: len(told) == 2)
    assert told[1] == "[1] k1: done in 1.0 s"


def test_one_thread_follows_all_and_a_new_one_begins_when_all_have_ended(behind: Background, told: list[str]) -> None:
    for _ in range(3):
        behind.start(FakeGroup("k0"), "source")  # type: ignore[arg-type]
    (follower,) = FakeFollower.made
    assert len(follower.added) == 3
    for number in range(3):
        follower.happen("k0", ended("cancelled"), of=number)
    wait_until(lambda: len(told) == 3)
    assert told[2] == "[3] k0: cancelled"
    follower.inbox.put(None)
    wait_until(lambda: behind._follower is None)
    behind.start(FakeGroup("k0"), "source")  # type: ignore[arg-type]
    assert len(FakeFollower.made) == 2


def test_what_is_on_the_screen_is_not_told_again(behind: Background, told: list[str]) -> None:
    job = behind.start(FakeGroup("k0"), "source")  # type: ignore[arg-type]
    behind.start(FakeGroup("k1"), "source")  # type: ignore[arg-type]
    (follower,) = FakeFollower.made
    with behind.hushed([FakeCell("k0", job.id)]):  # type: ignore[list-item]
        follower.happen("k0", ended("ok"))
        follower.happen("k1", ended("ok", 1.0))
        wait_until(lambda: told)
    assert told == ["[2] k1: done in 1.0 s"]


def test_a_thread_that_fails_says_so(behind: Background, told: list[str]) -> None:
    behind.start(FakeGroup("k0"), "source")  # type: ignore[arg-type]
    FakeFollower.made[0].inbox.put((None, None))  # nothing of the kind ever comes
    wait_until(lambda: told)
    assert told[0].startswith("the cells in the background are no longer followed: ")
    assert behind.jobs == []


def test_there_is_an_end_to_how_many(behind: Background) -> None:
    for _ in range(MAX_JOBS):
        behind.start(FakeGroup("k0"), "source")  # type: ignore[arg-type]
    with pytest.raises(PyrokernelError, match="in the background already"):
        behind.start(FakeGroup("k0"), "source")  # type: ignore[arg-type]


def test_what_no_kernel_takes_is_an_error_at_once(behind: Background) -> None:
    group = FakeGroup("k0")
    group.refusing = {"k0": KernelUnreachableError("k0 is silent", kernel="k0", instance="1")}
    with pytest.raises(KernelUnreachableError):
        behind.start(group, "source")  # type: ignore[arg-type]
    assert behind.jobs == []


def test_a_script_waits_for_all_in_their_order(told: list[str]) -> None:
    runner = FakeRunner()
    behind = Background(runner)  # type: ignore[arg-type]
    alone = FakeGroup("k0")
    behind.start(alone, "source")  # type: ignore[arg-type]
    behind.start(FakeGroup("k1 k2"), "source")  # type: ignore[arg-type]
    assert FakeFollower.made == []
    assert not alone.answered, "nobody would be told of a question"
    runner.ok = False
    assert not behind.finish()
    assert runner.attached == [["k0"], ["k1", "k2"]]
    assert behind.finish()


def test_a_script_that_sends_more_than_may_wait_shows_the_oldest_first(told: list[str]) -> None:
    runner = FakeRunner()
    behind = Background(runner)  # type: ignore[arg-type]
    for _ in range(MAX_JOBS):
        behind.start(FakeGroup("k0"), "source")  # type: ignore[arg-type]
    runner.ok = False
    behind.start(FakeGroup("k1"), "source")  # type: ignore[arg-type]
    assert (runner.attached, len(behind.jobs)) == ([["k0"]], MAX_JOBS)
    runner.ok = True
    assert not behind.finish(), "the first one had failed"


def test_a_script_hears_of_the_kernels_that_did_not_take_a_cell() -> None:
    runner = FakeRunner()
    behind = Background(runner)  # type: ignore[arg-type]
    group = FakeGroup("k1 k2")
    group.refusing = {"k2": KernelUnreachableError("k2 is silent", kernel="k2", instance="1")}
    behind.start(group, "source")  # type: ignore[arg-type]
    assert not behind.finish()
    assert (runner.attached, runner.failed) == ([["k1"]], ["k2"])


def test_news_of_the_same_cell_on_several_kernels_is_one_line() -> None:
    news = News()
    cell = {"cell": "1", "author": "bob", "source": "x = 1\ny = 2"}
    for name in ("k0", "k1"):
        news.started(name, cell)
    assert news.tell() == ["k0-k1: bob runs x = 1 ..."]
    news.ended("k0", {**cell, "status": "ok", "duration": 3.0})
    news.ended("k1", {**cell, "status": "error", "ename": "ValueError", "duration": 0.5})
    assert news.tell() == [
        "k0: the cell of bob ended after 3.0 s (ok): x = 1 ...",
        "k1: the cell of bob ended after 500 ms (ValueError): x = 1 ...",
    ]
    news.started("k0", cell)
    news.ended("k0", {**cell, "status": "ok", "duration": 0.012})
    assert news.tell() == ["k0: bob ran x = 1 ... (12 ms, ok)"]
    assert news.tell() == []


def test_a_short_cell_is_one_line_once_it_has_ended_on_all_kernels() -> None:
    now = [0.0]
    news, names = News(clock=lambda: now[0]), ["k0", "k1", "k2"]
    cell = {"cell": "1", "author": "bob", "source": "x = 1"}
    ended = {**cell, "status": "ok", "duration": 0.004}
    news.started("k2", cell)
    for name in ("k1", "k0"):
        news.started(name, cell)
        news.ended(name, ended)
    now[0] = 0.4
    assert news.tell(names, age=0.5) == []
    news.ended("k2", ended)
    news.started("k1", {**cell, "cell": "2"})
    now[0] = 0.8
    assert news.tell(names, age=0.5) == ["k0-k2: bob ran x = 1 (4 ms, ok)"]
    now[0] = 1.2
    assert news.tell(names, age=0.5) == ["k1: bob runs x = 1"]


def test_much_news_is_cut() -> None:
    news = News()
    for number in range(100):
        news.started("k0", {"cell": str(number), "author": "bob", "source": "1"})
    lines = news.tell()
    assert len(lines) == 21
    assert lines[-1] == "... and 80 more cells of others; `cells` lists them"


def test_a_watcher_tells_of_others_only_and_of_each_once() -> None:
    own = "own"
    watcher = watching.Watcher(lambda: FakeGroup("k0"), print)  # type: ignore[arg-type,return-value]
    place = watching._Place(FakeLink("k0"))  # type: ignore[arg-type]

    def look(running: str, *over: str) -> list[str]:
        def entry(cell: str) -> dict[str, Any]:
            client = "ours" if cell == own else ""
            return {"author": "bob", "source": "1", "cell": cell, "client": client, "job": cell if cell == own else ""}

        place.running = entry(running) if running else None
        watcher._compare(place, [{**entry(cell), "status": "ok", "duration": 1.0} for cell in over])
        return [line.split(":")[0] + line.split(":")[1][:9] for line in watcher._news.tell()]

    assert look("b", "a") == ["k0 bob runs"], "what is over when it begins is no news, what runs is"
    assert look("b", "a") == []
    assert look(own, "a", "b") == ["k0 the cell"]
    assert look("", "a", "b", own, "c") == ["k0 bob ran "]
    assert look("", "b", own, "c") == []


def test_of_a_job_of_others_the_beginning_is_told_once() -> None:
    watcher = watching.Watcher(lambda: FakeGroup("k0"), print)  # type: ignore[arg-type,return-value]
    place = watching._Place(FakeLink("k0"), after=0)  # type: ignore[arg-type]
    part = {"author": "bob", "source": "map(f, ...)", "client": "his", "job": "j"}
    over = [{**part, "cell": str(number), "status": "ok", "duration": 1.0} for number in range(4)]
    place.running = {**part, "cell": "4"}
    watcher._compare(place, over[:2])
    assert watcher._news.tell() == ["k0: bob runs map(f, ...)"]
    watcher._compare(place, over)
    assert watcher._news.tell() == []


def job_part(number: int, kernel: str, **more: Any) -> dict[str, Any]:
    part = {"kernel": kernel, "cell": f"{number}" * 32, "job": "e" * 32, "author": "bob", "source": "map f over x"}
    ended = {"status": "ok", "execution_count": number, "started": 10.0 * number, "duration": 2.0}
    return {**part, **ended, "items": 25, "failed": 0, **more}


def test_a_job_is_one_row() -> None:
    parts = [job_part(1, "k0"), job_part(2, "k0"), job_part(3, "k1"), job_part(4, "k1", failed=3)]
    alone = {
        "kernel": "k0",
        "cell": "a" * 32,
        "job": "",
        "status": "ok",
        "source": "1",
        "author": "bob",
        "started": 1.0,
    }
    _, first, row = format_cells([alone, *parts], now=100.0).splitlines()
    assert first.split()[0] == "aaaaaaaa"
    assert row.split()[:4] == ["1,3", "eeeeeeee", "k0-k1", "bob"]
    assert "bob   12.0 s  ok on k0, 3 failed on k1 (100 items)  map f over x" in row
    assert len(format_cells(parts, now=100.0, whole_jobs=False).splitlines()) == 5


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        ({"status": "running"}, "running (25 items)"),
        ({"status": "waiting"}, "running (25 items)"),
        ({"status": "error", "ename": "KeyboardInterrupt", "items": 0}, "KeyboardInterrupt (25 items)"),
    ],
)
def test_how_it_stands_with_a_job(last: dict[str, Any], shown: str) -> None:
    assert shown in format_cells([job_part(1, "k0"), job_part(2, "k0", **last)], now=100.0)


@pytest.mark.parametrize(("evalue", "shown"), [("", "exit 0"), ("0", "exit 0"), ("3", "exit 3"), ("no way", "exit 1")])
def test_a_cell_that_left_by_sys_exit_shows_its_exit_code(evalue: str, shown: str) -> None:
    cell = {"kernel": "k0", "cell": "a" * 32, "author": "bob", "source": "1", "ename": "SystemExit", "evalue": evalue}
    for lay_out in (format_cells, front_cells.format_cells):
        assert f" {shown} " in lay_out([{**cell, "status": "error", "started": 1.0}], now=2.0)


def test_cells_are_listed_in_order_and_equal_ones_once() -> None:
    base = {"author": "bob", "source": "work()\nmore()", "duration": 2.0}
    cells = [
        {**base, "kernel": "k0", "cell": "a" * 32, "status": "ok", "execution_count": 3, "started": 10.0},
        {**base, "kernel": "k0", "cell": "b" * 32, "status": "running", "execution_count": 4, "started": 20.0},
        {**base, "kernel": "k0", "cell": "c" * 32, "status": "waiting", "source": "last"},
        {**base, "kernel": "k1", "cell": "a" * 32, "status": "error", "ename": "OSError", "execution_count": 7},
        {**base, "kernel": "k1", "cell": "d" * 32, "status": "ok", "execution_count": 8, "started": 12.0},
    ]
    header, *rows = format_cells(cells, now=25.0).splitlines()
    assert header.split() == ["NUMBER", "CELL", "KERNELS", "FROM", "TIME", "STATUS", "SOURCE"]
    assert [row.split()[1][0] for row in rows[:3]] == ["a", "d", "b"]
    assert rows[0].split()[:4] == ["3,7", "aaaaaaaa", "k0-k1", "bob"]
    assert "ok on k0, OSError on k1" in rows[0]
    assert "5.0 s  running" in rows[2]
    assert rows[3].split() == ["cccccccc", "k0", "bob", "waiting", "last"]


@pytest.mark.parametrize(
    ("word", "is_one"), [("17", True), ("3fa2", True), ("k0", False), ("abc", False), ("3FA2", False)]
)
def test_numbers_and_beginnings_of_ids_mean_cells(word: str, is_one: bool) -> None:
    assert is_cell(word) is is_one


@pytest.mark.parametrize("lost", [0, 30, 60])
def test_the_beginning_of_a_cell_is_found_by_its_time(lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ["started", *["output"] * 18, "ended"]
    events = [
        Event(seq=n + 1, kind=kinds[n % 20], cell=f"cell{n // 20}", at=100.0 + n, data={"text": ""}) for n in range(200)
    ]
    asked = []

    def follow(self: Journal, after: int, *, cell: str = "", max_bytes: int = 0) -> dict[str, Any]:
        asked.append(after)
        found = [found for found in events if found.seq > max(after, lost)][: 1 if max_bytes else 10]
        shown = [found for found in found if not cell or found.cell == cell]
        if after < lost:
            shown = [Event(seq=lost, kind="gap", data={"first": 1, "last": lost})]
            found = shown
        return {"events": [found.to_wire() for found in shown], "next": found[-1].seq if found else after, "last": 200}

    monkeypatch.setattr(Journal, "_follow", follow)
    journal = Journal(FakeKernel("k0"), "cell5", 199.99)  # type: ignore[arg-type]
    assert journal.begin() == 100
    assert len(asked) < 15
    assert [found.seq for found in journal.read(100)] == list(range(101, 121))
    misled = Journal(FakeKernel("k0"), "cell5", 500.0)  # type: ignore[arg-type]
    assert misled.begin() == 0
