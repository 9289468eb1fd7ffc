"""A question waits as long as a front end of its own cell might answer it, and no longer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from waiting import wait_until

from pyrokernel.errors import CellNotFoundError, InputUnavailableError
from pyrokernel.kernel import inputs as inputs_module
from pyrokernel.kernel.attachments import Attachments, has_hung_up
from pyrokernel.kernel.inputs import Inputs
from pyrokernel.messages import Event, EventKind

GRACE = 0.05
OURS, OTHER = "a" * 32, "b" * 32


class Asked:
    """Inputs, and one call of input() in a thread as a cell would make it."""

    def __init__(self, timeout: float = 20.0, grace: float = GRACE) -> None:
        self.questions: list[Event] = []
        self.inputs = Inputs(self._ask, lambda: OURS, timeout, Attachments(grace))
        self.ended: list[str | BaseException | None] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _ask(self, cell: str, request: str, prompt: str, password: bool) -> None:
        data = {"request": request, "prompt": prompt, "password": password}
        self.questions.append(Event(seq=1, kind=EventKind.INPUT, cell=cell, at=0.0, data=data))

    def _read(self) -> None:
        try:
            self.ended.append(self.inputs.read("who? "))
        except EOFError as error:
            self.ended.append(error)

    def begin(self) -> str:
        """Call input(); return the id of the question once it is put."""
        self._thread.start()
        wait_until(lambda: self.questions or self.ended)
        assert self.questions, self.ended
        return str(self.questions[0].data["request"])

    def result(self) -> str:
        """Wait for the end of input(); return its line, or the text of its error."""
        self._thread.join(10)
        (ended,) = self.ended
        return str(ended)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def front_end() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The connection of a front end: the kernel's end of it, and its own."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """Each look of a question that waits at the front end that has it."""
    found: list[socket.socket] = []

    def count(sock: socket.socket) -> bool:
        found.append(sock)
        return has_hung_up(sock)

    monkeypatch.setattr(inputs_module, "has_hung_up", count)
    return found


def test_a_front_end_of_another_cell_does_not_count(asked: Asked, front_end: tuple[socket.socket, ...]) -> None:
    asked.inputs.begin_follow(OTHER, front_end[0])
    with pytest.raises(InputUnavailableError, match="none is attached to this cell; run the cell from"):
        asked.inputs.read("who? ")


@pytest.mark.parametrize("followed", [OURS, ""])
def test_a_front_end_that_follows_answers(asked: Asked, front_end: tuple[socket.socket, ...], followed: str) -> None:
    asked.inputs.begin_follow(followed, front_end[0])
    asked.inputs.answer(asked.begin(), "Ada")
    assert asked.result() == "Ada"


def test_a_front_end_that_asks_a_person_may_take_its_time_without_polling(
    asked: Asked, front_end: tuple[socket.socket, ...], looks: list[socket.socket]
) -> None:
    asked.inputs.begin_follow(OURS, front_end[0])
    request = asked.begin()
    asked.inputs.end_follow(OURS, front_end[0], asked.questions)
    wait_until(lambda: len(looks) > 10)
    asked.inputs.answer(request, "Ada")
    assert asked.result() == "Ada"


def test_a_front_end_that_cannot_show_as_fast_as_the_cell_prints_still_asks(
    asked: Asked, front_end: tuple[socket.socket, ...], looks: list[socket.socket]
) -> None:
    asked.inputs.begin_follow(OURS, front_end[0])
    request = asked.begin()
    asked.inputs.end_follow(OURS, front_end[0], asked.questions)
    asked.inputs.begin_follow(OURS, front_end[0])
    output = Event(seq=2, kind=EventKind.OUTPUT, cell=OURS, at=0.0, data={"stream": "stdout", "text": "tick"})
    asked.inputs.end_follow(OURS, front_end[0], [output])
    wait_until(lambda: len(looks) > 10)
    asked.inputs.answer(request, "Ada")
    assert asked.result() == "Ada"


def test_a_cell_that_waited_long_counts_on_its_front_end_anew_when_it_starts(
    asked: Asked, front_end: tuple[socket.socket, ...]
) -> None:
    asked.inputs.expect(OURS, front_end[0])
    wait_until(lambda: not asked.inputs._attachments.has(OURS))
    asked.inputs.renew(OURS, front_end[0])
    request = asked.begin()
    asked.inputs.begin_follow(OURS, front_end[0])
    asked.inputs.answer(request, "Ada")
    assert asked.result() == "Ada"


def test_a_cell_whose_front_end_left_before_it_starts_counts_on_nobody(
    asked: Asked, front_end: tuple[socket.socket, ...]
) -> None:
    front_end[1].close()
    asked.inputs.renew(OURS, front_end[0])
    with pytest.raises(InputUnavailableError, match="none is attached to this cell"):
        asked.inputs.read("who? ")


def hang_up(asked: Asked, ours: socket.socket, theirs: socket.socket) -> None:
    asked.inputs.end_follow(OURS, ours, asked.questions)
    theirs.close()


def hang_up_in_a_poll(asked: Asked, ours: socket.socket, theirs: socket.socket) -> None:
    asked.inputs.end_follow(OURS, ours, asked.questions)
    asked.inputs.begin_follow(OURS, ours)
    theirs.close()


def hang_up_with_a_request_unread(asked: Asked, ours: socket.socket, theirs: socket.socket) -> None:
    theirs.send(b"PYRO")
    hang_up_in_a_poll(asked, ours, theirs)


def lose_the_connection(asked: Asked, ours: socket.socket, theirs: socket.socket) -> None:
    asked.inputs.end_follow(OURS, ours, asked.questions)
    ours.close()


def stop_polling(asked: Asked, ours: socket.socket, theirs: socket.socket) -> None:
    asked.inputs.end_follow(OURS, ours, asked.questions)
    asked.inputs.begin_follow(OURS, ours)
    asked.inputs.end_follow(OURS, ours, [])


@pytest.mark.parametrize(
    "leave", [hang_up, hang_up_in_a_poll, hang_up_with_a_request_unread, lose_the_connection, stop_polling]
)
def test_a_front_end_that_goes_away_lets_go_of_the_cell(
    asked: Asked, front_end: tuple[socket.socket, socket.socket], leave: Callable[..., None]
) -> None:
    asked.inputs.begin_follow(OURS, front_end[0])
    request = asked.begin()
    leave(asked, *front_end)
    assert "went away" in asked.result()
    with pytest.raises(CellNotFoundError):
        asked.inputs.answer(request, "too late")


def test_a_cell_whose_sender_does_not_follow_it_gives_up_after_the_grace(
    asked: Asked, front_end: tuple[socket.socket, ...]
) -> None:
    asked.inputs.expect(OURS, front_end[0])
    asked.begin()
    assert "no front end came" in asked.result()


def test_a_front_end_that_shows_what_it_was_given_is_not_hurried(front_end: tuple[socket.socket, ...]) -> None:
    asked = Asked(grace=0.0)
    output = Event(seq=1, kind=EventKind.OUTPUT, cell=OURS, at=0.0, data={"stream": "stdout", "text": "x"})
    asked.inputs.begin_follow(OURS, front_end[0])
    asked.inputs.end_follow(OURS, front_end[0], [output])
    asked.inputs.answer(asked.begin(), "Ada")
    assert asked.result() == "Ada"


def test_a_question_is_open_until_it_is_answered(asked: Asked, front_end: tuple[socket.socket, ...]) -> None:
    asked.inputs.begin_follow(OURS, front_end[0])
    assert asked.inputs.asks(OURS) is None
    request = asked.begin()
    assert asked.inputs.asks(OURS) == {"request": request, "prompt": "who? ", "password": False}
    assert asked.inputs.asks(OTHER) is None
    asked.inputs.answer(request, None)
    assert asked.inputs.asks(OURS) is None
    assert asked.result() == "the front end answered input() with the end of its input"


def test_nobody_waits_for_ever(front_end: tuple[socket.socket, ...]) -> None:
    asked = Asked(timeout=0.01)
    asked.inputs.begin_follow(OURS, front_end[0])
    asked.begin()
    assert "nobody answered" in asked.result()


def test_two_threads_may_ask_at_once(front_end: tuple[socket.socket, ...]) -> None:
    asked = Asked()
    asked.inputs.begin_follow(OURS, front_end[0])
    first = asked.begin()
    lines: list[str] = []
    other = threading.Thread(target=lambda: lines.append(asked.inputs.read("and? ")), daemon=True)
    other.start()
    wait_until(lambda: len(asked.questions) == 2)
    asked.inputs.answer(str(asked.questions[1].data["request"]), "Grace")
    other.join(10)
    asked.inputs.answer(first, "Ada")
    assert (asked.result(), lines) == ("Ada", ["Grace"])
