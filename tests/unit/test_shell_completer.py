"""Tab answers in time or not at all, and asks whoever knows."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.completion import Completion as Match
from prompt_toolkit.document import Document

from pyrokernel.errors import KernelUnreachableError
from pyrokernel.messages import Completion
from pyrokernel.shell.completer import ANSWER_SECONDS, InTime, Router, in_columns, merge
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
        remote=SimpleNamespace(words={}),
        offers={"take": lambda text: [(f"{text}kes", 0, "int")]},
        complete=lambda text, line, begidx, endidx: None,
    )
    return Router(shell)  # type: ignore[arg-type]  # stands in for the application


def offered(found: Router, text: str) -> list[str]:
    return [match.text for match in found.get_completions(Document(text), CompleteEvent())]


def test_the_first_word_is_a_command_or_a_name() -> None:
    assert offered(router(FakeKernel("user")), "us") == ["use ", "user"]


def test_a_command_of_the_kernels_is_offered_once_unless_somebody_set_its_name() -> None:
    found = router(FakeKernel("used"))
    reader = found._shell.reader
    reader.commands = {**reader.commands, "used": Takes.WORDS}
    found._shell.remote.words["used"] = SimpleNamespace(info=SimpleNamespace(owner="plugin tools"))  # type: ignore[assignment]  # stands in
    matches = list(found.get_completions(Document("us"), CompleteEvent()))
    assert [(match.text, match.display_meta_text) for match in matches] == [
        ("use ", "command"),
        ("used ", "command of plugin tools"),
    ]
    reader.variables.add("used")
    assert offered(found, "us") == ["use ", "used ", "used"]


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


def test_a_list_of_several_columns_says_beside_each_name_what_it_is() -> None:
    found = in_columns([Match("x" * 30, display_meta="int"), Match("run", -2, display_meta="s" * 40), Match("z")])
    assert [match.display_text for match in found] == ["x" * 30 + "  int", f"{'run':28}  {'s' * 25} ...", "z"]
    assert (found[1].text, found[1].start_position, found[1].display_meta_text) == ("run", -2, "s" * 40)


def test_a_program_line_is_offered_what_stands_after_its_sign() -> None:
    asked: list[str] = []
    found = router()

    def offer(text: str) -> list[tuple[str, int, str]]:
        asked.append(text)
        return []

    found._shell.offers["sh"] = offer
    for text in ("!ls da", "x = !ls da", "!!ls da", "  !ls da"):
        assert offered(found, text) == []
    assert asked == ["ls da"] * 4


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
