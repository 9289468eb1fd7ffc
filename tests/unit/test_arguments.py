"""What the parameters of a command take: described for front ends, checked in kernels."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest

from pyrokernel.arguments import Parameters

if TYPE_CHECKING:
    import elsewhere  # type: ignore[import-not-found]


class Mode(enum.Enum):
    FAST = 1
    SLOW = 2


def described(function: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in Parameters.of(function, "f").described(inspect.getdoc(function) or "")}


def checked(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return Parameters.of(function, "f").checked(args, kwargs)


def everything(
    a: int, /, b: float, c: str = "x", *more: bool, d: Optional[Path] = None, e: Mode = Mode.FAST,  # noqa: UP045
    f: Literal["u", "v"] = "u", g: list[int] = [], h: Annotated[int, "mm"] = 3, i=True, j=1, k: dict[str, int] = {},  # noqa: B006
    **options: object,
) -> None:  # fmt: skip
    """Do it.

    Args:
        a: The first
            of them.
        b, c: Both.
        more (bool): Others.

    Returns:
        Nothing.
    """


def test_a_parameter_is_described_by_its_annotation() -> None:
    found = described(everything)
    assert {name: one["type"] for name, one in found.items()} == {
        "a": "int", "b": "float", "c": "str", "more": "bool", "d": "path", "e": "str", "f": "str", "g": "list of int",
        "h": "int", "i": "bool", "j": "any", "k": "any", "options": "any",
    }  # fmt: skip
    assert [one["kind"] for one in found.values()] == [
        "positional", "either", "either", "rest", *["keyword"] * 8, "options"
    ]  # fmt: skip
    assert (found["e"]["choices"], found["f"]["choices"]) == (["FAST", "SLOW"], ["u", "v"])
    assert [name for name, one in found.items() if one["required"]] == ["a", "b"]
    assert found["a"]["help"] == "The first of them."
    assert found["b"]["help"] == found["c"]["help"] == "Both."
    assert found["more"]["help"] == "Others."
    assert found["c"]["default"] == "'x'"


def test_one_annotation_that_cannot_be_evaluated_costs_itself_alone() -> None:
    def f(x: elsewhere.Thing, n: int) -> elsewhere.Other: ...

    found = described(f)
    assert (found["x"]["type"], found["n"]["type"]) == ("any", "int")
    assert found["x"]["annotation"] == "elsewhere.Thing"
    assert checked(f, object, 1)[0][1] == 1
    with pytest.raises(TypeError, match="argument 'n' takes an int, not 'x'"):
        checked(f, object, "x")


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing a required argument: 'a'"),
        (("1", 2), {}, "argument 'a' takes an int, not '1' (str)"),
        ((1.5, 2), {}, "argument 'a' takes an int, not 1.5 (float)"),
        ((1, "x"), {}, "argument 'b' takes a float"),
        ((1, 2), {"f": "w"}, "argument 'f' takes one of 'u', 'v'"),
        ((1, 2), {"e": "MIDDLE"}, "argument 'e' takes a Mode"),
        ((1, 2), {"g": [1, "x"]}, "argument 'g' takes list[int]"),
        ((1, 2, "x", 3), {}, "argument 'more' takes a bool"),
    ],
)
def test_what_is_wrong_names_the_argument(args: tuple[Any, ...], kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as raised:
        checked(everything, *args, **kwargs)
    assert said in str(raised.value)


def test_names_of_members_and_paths_become_what_they_stand_for() -> None:
    _, kwargs = checked(everything, 1, 2, d="a/b", e="SLOW")
    assert (kwargs["d"], kwargs["e"]) == (Path("a/b"), Mode.SLOW)


def test_a_default_is_taken_whatever_the_annotation_says() -> None:
    def f(n: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert checked(f, None) == ((None,), {})


def test_a_sequence_takes_tuples_too() -> None:
    def f(values: Sequence[float]) -> None: ...

    assert checked(f, (1, 2.5)) == (((1, 2.5),), {})
