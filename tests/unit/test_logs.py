"""Reading a journal whose kernel may die meanwhile."""

from __future__ import annotations

import pytest

from pyrokernel.cli import build_parser
from pyrokernel.errors import KernelDiedError
from pyrokernel.front.logs import _Reading
from pyrokernel.messages import Event


class FakeJournal:
    """Gives its events one by one; then dies, or has no more."""

    instance = "1"

    def __init__(self, *texts: str, dies: bool = False) -> None:
        self.events = [
            Event(seq=seq, kind="output", cell="c", data={"text": text, "stream": "stdout"})
            for seq, text in enumerate(texts, 1)
        ]
        self.dies = dies

    def read(self, after: int, timeout: float) -> list[Event]:
        left = [event for event in self.events if event.seq > after]
        if not left and self.dies:
            raise KernelDiedError(kernel="k0", instance="1", cause="killed", tail="")
        return left[:1]


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]])
def test_a_kernel_that_dies_as_its_journal_is_read_has_the_rest_from_its_host(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    reading = _Reading(build_parser().parse_args(["logs", "k0", *arguments]))
    past = FakeJournal("one\n", "two\n", "last words\n")
    assert reading.replay(FakeJournal("one\n", "two\n", dies=True), lambda: past) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["two", "last words"]


def test_a_journal_that_is_gone_with_its_kernel_is_an_error() -> None:
    reading = _Reading(build_parser().parse_args(["logs", "k0"]))
    with pytest.raises(KernelDiedError):
        reading.replay(FakeJournal("one\n", dies=True), lambda: FakeJournal(dies=True))
