"""Tab answers in time or not at all, and asks whoever knows."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from pyrokernel.errors import KernelUnreachableError
from pyrokernel.messages import Completion
from pyrokernel.shell.completer import ANSWER_SECONDS, InTime, Router, merge
from pyrokernel.shell.parser import SourceReader, Takes


class FakeKernel:
    def __init__(self, *matches: str) -> None:
        self.matches = matches
        self.asked: list[str] = []

    def complete(self, code: str, timeout: float) -> Completion:
        self.asked.append(code)
        start = max(code.rfind("."), code.rfind(" ")) + 1
        return Completion(
            matches=self.matches, types=("int",) * len(self.matches), cursor_start=start, cursor_end=len(code)
        )


class FakeGroup(list[Any]):
    def complete(self, code: str, timeout: float) -> dict[str, Completion]:
        return {f"k{number}": kernel.complete(code, timeout) for number, kernel in enumerate(self)}


def router(*kernels: Any) -> Router:
    shell = SimpleNamespace(
        reader=SourceReader(
            {
                "ps": Takes.WORDS,
                "use": Takes.WORDS,
                "on": Takes.WORD_AND_PYTHON,
                "quit": Takes.WORDS,
                "take": Takes.TEXT,
            }
        ),
        target=SimpleNamespace(group=FakeGroup(kernels), mesh=SimpleNamespace(select=lambda words: FakeGroup(kernels))),
        main_session=SimpleNamespace(complete_style=None),
        refused=set(),
        offers={"take": lambda text: [(f"{text}kes", 0, "int")]},
        complete=lambda text, line, begidx, endidx: None,
    )
    return Router(shell)  # type: ignore[arg-type]  # stands in for the application


def offered(found: Router, text: str) -> list[str]:
    return [match.text for match in found.get_completions(Document(text), CompleteEvent())]


def test_the_first_word_is_a_command_or_a_name() -> None:
    assert offered(router(FakeKernel("user")), "us") == ["use ", "user"]


def test_a_colon_asks_for_commands_only() -> None:
    kernel = FakeKernel("user")
    assert offered(router(kernel), ":u") == ["use "]
    assert kernel.asked == []


def test_attributes_come_from_the_kernel() -> None:
    kernel = FakeKernel("value")
    (match,) = router(kernel).get_completions(Document("obj.va"), CompleteEvent())
    assert (match.text, match.start_position, match.display_meta_text) == ("value", -2, "int")


def test_the_source_of_on_is_completed_as_python() -> None:
    kernel = FakeKernel("value")
    assert offered(router(kernel), "on k0 obj.va") == ["value"]
    assert kernel.asked == ["obj.va"]


def test_a_command_that_offers_something_completes_the_text_after_it() -> None:
    (match,) = router().get_completions(Document(":take  some ca"), CompleteEvent())
    assert (match.text, match.start_position, match.display_meta_text) == ("some cakes", -len("some ca"), "int")


def test_an_empty_group_offers_nothing() -> None:
    assert offered(router(), "obj.va") == []


def test_an_answer_that_comes_late_is_none() -> None:
    gate = threading.Event()
    started = time.monotonic()
    assert InTime()(lambda: gate.wait(10), False) is False
    assert time.monotonic() - started < ANSWER_SECONDS + 1
    gate.set()


def test_a_failing_question_is_no_answer() -> None:
    def fail() -> int:
        raise KernelUnreachableError("gone", kernel="k0", instance="")

    assert InTime()(fail, 0) == 0


def test_a_group_says_what_only_some_kernels_have_and_where_types_differ() -> None:
    found = {
        "k0": Completion(matches=("df", "x"), types=("DataFrame", "int"), cursor_start=0, cursor_end=1),
        "k1": Completion(matches=("df", "only"), types=("DataFrame", "str"), cursor_start=0, cursor_end=1),
        "k2": Completion(matches=("df", "x"), types=("ndarray", "int"), cursor_start=0, cursor_end=1),
    }
    assert merge(found) == [
        ("df", 0, "DataFrame; type differs on k2"),
        ("only", 0, "str; 1 of 3"),
        ("x", 0, "int; 2 of 3"),
    ]


def test_one_kernel_offers_what_it_offers_in_its_order() -> None:
    found = {"k0": Completion(matches=("b", "a"), types=("int",), cursor_start=2, cursor_end=3)}
    assert merge(found) == [("b", 2, "int"), ("a", 2, "")]
