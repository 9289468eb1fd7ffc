"""How a callable is called, also one that is decorated or lies about it."""

from __future__ import annotations

import functools
from typing import Any

from pyrokernel.kernel.signatures import signature


def test_decorated_and_partial_functions_show_the_one_behind() -> None:
    def inner(a: int, b: int = 1) -> None:
        """Inner."""

    @functools.wraps(inner)
    def outer(*args: Any) -> None: ...

    assert signature(outer) == "(a: int, b: int = 1)"
    assert signature(functools.partial(inner, 1)) == "(b: int = 1)"
    assert signature(functools.lru_cache(inner)) == "(a: int, b: int = 1)"
    assert signature(3) == ""


def test_a_signature_is_read_not_asked() -> None:
    class Liar:
        @property
        def __signature__(self) -> Any:
            raise AssertionError

        def __call__(self, truth: int) -> None: ...

    assert signature(Liar()) == "(truth: int)"
