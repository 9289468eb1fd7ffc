"""A cell shown until it ends: over a fake group, whose events the test writes."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from waiting import wait_until

from pyrokernel.errors import GatherError, KernelDiedError, KernelUnreachableError, ReplyTimeoutError
from pyrokernel.messages import Event, EventKind, Receipt
from pyrokernel.shell import showing
from pyrokernel.shell.journals import Past
from pyrokernel.shell.runner import Runner


class FakeFront:
    interactive = True
    at_prompt = False
    restricted = False
    lines = 1000
    result_lines = 70
    last: ClassVar[FakeFront]

    def __init__(self, *answers: str | type[BaseException]) -> None:
        FakeFront.last = self
        self.stdout = io.StringIO()
        self.answers = list(answers)
        self.text = ""
        self.errors = ""
        self.notices: list[str] = []
        self.asked: list[str] = []

    def write(self, stream: str, text: str) -> None:
        if stream == "stderr":
            self.errors += text
        else:
            self.text += text

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def fitted(self, text: str) -> str:
        return text

    def ask(self, prompt: str, *, password: bool = False, afresh: bool = False, until: Any = None) -> str:
        self.asked.append(prompt)
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            return answer
        raise answer


class FakeKernel:
    def __init__(self, name: str, mesh: FakeMesh) -> None:
        self.name, self.instance = name, "1"
        self.mesh = mesh
        self.link = FakeLink()
        self.answered: list[tuple[str, str]] = []

    def answer_input(self, request: str, text: str) -> None:
        self.answered.append((request, text))


class FakeMesh:
    group: FakeGroup

    def host_of(self, name: str) -> Any:
        return "host"

    def link_to(self, name: str) -> Any:
        return FakeLink()


class FakeLink:
    instance = "2"


class FakeGroup:
    """A group whose cell does what `script` says; `released` lets it go on after an interrupt."""

    def __init__(self, names: str, script: list[tuple[str, Any]]) -> None:
        self.mesh = FakeMesh()
        self.mesh.group = self
        self.kernels = {name: FakeKernel(name, self.mesh) for name in names.split()}
        self.names = list(self.kernels)
        self.script = script
        self.released = threading.Event()
        self.outcome = "interrupted"
        self.refusing: dict[str, Exception] = {}
        self.interrupted: list[str] = []

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> FakeKernel:
        return self.kernels[name]

    def submit(self, source: str, **options: Any) -> dict[str, Any]:
        if self.refusing:
            taken = {name: {"seq": 0} for name in self.names if name not in self.refusing}
            raise GatherError(errors=self.refusing, replies=taken)
        CELL.append(options["cell"])
        return {name: FakeCell(name) for name in self.names}

    def follow(self) -> Iterator[tuple[Any, Any]]:
        questions: list[str] = []
        for name, item in self.script:
            if item is WAIT:
                assert self.released.wait(10)
            else:
                yield FakeCell(name), item
                if isinstance(item, Event) and item.kind == EventKind.INPUT:
                    # The cell goes on when it has its answer.
                    questions.append(item.data["prompt"])
                    wait_until(lambda: [one for one in FakeFront.last.asked if one in questions] == questions)

    def interrupt(self, cell: str) -> dict[str, Receipt]:
        self.interrupted.append(cell)
        self.released.set()
        return {name: Receipt(kernel=name, cell=cell, outcome=self.outcome) for name in self.names}


WAIT = object()
CELL: list[str] = []
"""The id of the cell that was sent last."""


class FakeCell:
    after = 7

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.id = CELL[-1] if CELL else "cell"


class FakeFollower:
    def __init__(self, mesh: FakeMesh, *, stdin: bool) -> None:
        self.events = mesh.group.follow

    def add(self, cell: Any) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _follower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "Follower", FakeFollower)


def event(kind: str, **data: Any) -> Event:
    return Event(seq=1, kind=kind, data=data)


OK = event("ended", status="ok")


def test_output_and_result_are_shown_and_success_reported() -> None:
    front = FakeFront()
    group = FakeGroup(
        "k0", [("k0", event("output", stream="stdout", text="hi\n")), ("k0", event("result", text="2")), ("k0", OK)]
    )
    assert Runner(front).run(group, "source")  # type: ignore[arg-type]  # stands in for a group
    assert front.text == "hi\n2\n"


def test_a_gap_is_told_on_a_line_of_its_own() -> None:
    front = FakeFront()
    gap = event("gap", lost_bytes=3000, reason="the disk was full")
    group = FakeGroup("k0", [("k0", event("output", stream="stdout", text="half")), ("k0", gap), ("k0", OK)])
    assert Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert front.text == "half\n"
    assert front.errors == "[3,000 bytes of output missing: the disk was full]\n"


def test_an_error_is_shown_and_reported() -> None:
    front = FakeFront()
    error = event("error", ename="ValueError", evalue="x", traceback="ValueError: x\n")
    group = FakeGroup("k0", [("k0", error), ("k0", event("ended", status="error"))])
    assert not Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert front.errors == "ValueError: x\n"


def test_a_death_is_shown_with_its_cause_and_the_others_go_on() -> None:
    front = FakeFront()
    died = KernelDiedError(kernel="k0", instance="1", cause="killed by SIGKILL", tail="seen already")
    last = event("output", stream="stdout", text="last words\n")
    group = FakeGroup("k0 k1", [("k0", last), ("k0", died), ("k1", event("result", text="2")), ("k1", OK)])
    assert not Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert front.errors == "[k0] died: killed by SIGKILL\n"
    assert sorted(front.text.splitlines()) == ["[k0] last words", "[k1] 2"]
    assert front.notices == ["k0: a fresh kernel answers now; its variables are gone"]


def test_input_is_asked_at_the_prompt() -> None:
    front = FakeFront("bob")
    group = FakeGroup("k0", [("k0", event("input", request="r", prompt="who? ", password=False)), ("k0", OK)])
    assert Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert front.asked == ["who? "]
    assert group["k0"].answered == [("r", "bob")]


def test_ctrl_c_at_a_question_interrupts_the_cell() -> None:
    front = FakeFront(KeyboardInterrupt)
    question = event("input", request="r", prompt="who? ", password=False)
    group = FakeGroup("k0", [("k0", question), ("k0", WAIT), ("k0", event("ended", status="error"))])
    assert not Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert len(group.interrupted) == 1
    assert front.notices == ["k0: interrupted"]


def test_a_cell_that_cannot_be_sent_everywhere_is_followed_where_it_runs() -> None:
    front = FakeFront()
    group = FakeGroup("k0 k1", [("k1", event("result", text="2")), ("k1", OK)])
    group.refusing = {"k0": KernelUnreachableError("k0 is silent", kernel="k0", instance="1")}
    assert not Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert front.errors == "[k0] k0 is silent\n"
    assert front.text == "[k1] 2\n"


def test_a_kernel_that_died_before_it_took_the_cell_is_shown_dead_and_the_others_go_on() -> None:
    front = FakeFront()
    front.at_prompt = True
    group = FakeGroup("k0 k1", [("k1", event("result", text="2")), ("k1", OK)])
    group.refusing = {"k0": KernelDiedError(kernel="k0", instance="1", cause="killed by SIGKILL", tail="")}
    assert not Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert "[k0] died: killed by SIGKILL" in front.errors
    assert front.text == "[k1] 2\n"


def test_a_kernel_that_does_not_answer_leaves_the_others_to_be_shown() -> None:
    front = FakeFront()
    group = FakeGroup("k0 k1", [("k1", event("result", text="2")), ("k1", OK)])

    def submit(source: str, **options: Any) -> dict[str, Any]:
        raise ReplyTimeoutError(seconds=10.0, cell="c", replies={"k1": {"seq": 0}}, missing=("k0",))

    group.submit = submit  # type: ignore[method-assign]
    assert not Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert "kernel 'k0' did not take the cell in 10 s" in front.errors
    assert front.text == "[k1] 2\n"


def test_a_storm_of_ctrl_c_asks_nothing_about_a_cell_that_has_ended() -> None:
    front = FakeFront()
    group = FakeGroup("k0", [("k0", WAIT), ("k0", event("ended", status="error"))])
    runner = Runner(front)

    def interrupt(cell: str) -> dict[str, Receipt]:
        for _ in range(100):
            signal.raise_signal(signal.SIGINT)
        return FakeGroup.interrupt(group, cell)

    group.interrupt = interrupt  # type: ignore[method-assign]
    threading.Timer(0.05, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)).start()
    assert not runner.run(group, "source")  # type: ignore[arg-type]
    assert front.asked == []
    assert len(group.interrupted) == 1


def test_a_failure_of_the_follower_ends_the_wait() -> None:
    class Broken(FakeGroup):
        def follow(self) -> Iterator[tuple[Any, Any]]:
            raise OSError("no descriptors left")

    front = FakeFront()
    assert not Runner(front).run(Broken("k0", []), "source")  # type: ignore[arg-type]
    assert front.errors == "no descriptors left\n"


@pytest.mark.parametrize(("answer", "notice"), [("l", "left running on k0")])
def test_a_second_ctrl_c_offers_to_leave_the_cell(answer: str, notice: str) -> None:
    front = FakeFront(KeyboardInterrupt, KeyboardInterrupt, answer)
    question = event("input", request="r", prompt="? ", password=False)
    again = event("input", request="s", prompt="? ", password=False)
    group = FakeGroup("k0", [("k0", question), ("k0", again), ("k0", event("output", stream="stdout", text="never"))])
    assert not Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert any(notice in said for said in front.notices)


def test_a_cell_that_caught_the_interrupt_is_told_of_and_a_second_one_offers_to_kill() -> None:
    front = FakeFront(KeyboardInterrupt, "l")
    question = event("input", request="r", prompt="? ", password=False)
    group = FakeGroup("k0", [("k0", question), ("k0", WAIT)])
    group.outcome = "caught"

    class Patient(FakeFront):
        def notice(self, text: str) -> None:
            super().notice(text)
            if "caught" in text:
                signal.raise_signal(signal.SIGINT)

    patient = Patient(*front.answers)
    assert not Runner(patient).run(group, "source")  # type: ignore[arg-type]
    assert patient.notices[0] == (
        "k0: the cell caught the interrupt and goes on; Ctrl-C again offers to kill and restart"
    )
    assert "kill and restart" in patient.asked[1]
    assert patient.notices[1].startswith("left running on k0")


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, EOFError])
def test_ctrl_c_and_the_end_of_input_leave_a_debugger(leaving: type[BaseException]) -> None:
    front = FakeFront(leaving)
    question = event("input", request="r", prompt="(Pdb) ", password=False)
    left = event("error", ename="BdbQuit", evalue="", traceback="bdb.BdbQuit\n")
    group = FakeGroup("k0", [("k0", question), ("k0", left), ("k0", event("ended", status="error"))])
    assert not Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert group["k0"].answered == [("r", None)]
    assert group.interrupted == []
    assert front.errors == "left the debugger; the cell ended there\n"


def test_after_an_answer_ctrl_c_interrupts_again() -> None:
    front = FakeFront(KeyboardInterrupt, "more", KeyboardInterrupt)
    questions = [("k0", event("input", request=number, prompt="? ", password=False)) for number in "123"]
    group = FakeGroup("k0", [*questions, ("k0", event("ended", status="error"))])
    group.outcome = "caught"
    assert not Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert len(group.interrupted) == 2
    assert front.asked == ["? "] * 3


def test_ctrl_c_leaves_a_followed_cell_alone() -> None:
    front = FakeFront(KeyboardInterrupt)
    group = FakeGroup("k0", [("k0", WAIT)])
    past = Past([event("output", stream="stdout", text="before\n")], True, {"request": "r", "prompt": "? "})
    assert not Runner(front).attach(group, {"k0": FakeCell("k0")}, {"k0": past})  # type: ignore[arg-type,dict-item]
    group.released.set()
    assert group.interrupted == []
    assert front.errors.startswith("... earlier output is not shown; `cells ")
    assert front.text == "before\n"
    assert front.notices == ["detached; what runs on k0 goes on, `interrupt k0` ends it"]


def test_a_flood_at_the_prompt_is_cut_and_a_script_gets_all() -> None:
    front = FakeFront()
    flood = [("k0", event("output", stream="stdout", text="line\n" * 500)) for _ in range(10)]
    started = event("started", source="", execution_count=17)
    group = FakeGroup("k0", [("k0", started), *flood, ("k0", event("result", text="r" * 50_000)), ("k0", OK)])
    assert Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert front.text.count("line") == 5000
    assert front.text.count("r") == 50_000
    front = FakeFront()
    front.at_prompt = True
    assert Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert front.text.count("line") == 1020
    assert front.text.count("r") < 6_000
    more, rest = front.errors.splitlines()
    assert more == "... more output is not shown; `cells 17 > FILE` writes all that the journal has"
    assert rest == "... 4,000 lines not shown; the last of them:"
    front = FakeFront()
    front.at_prompt = front.restricted = True
    front.lines = 10
    assert Runner(front).run(group, "source")  # type: ignore[arg-type]
    assert front.text.count("line\n") == 30
    assert front.text.count("r") < 900
    assert front.errors.splitlines()[0] == "... more output is not shown; `set lines 1000` shows more of the next"
