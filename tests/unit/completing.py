"""A namespace to complete in, and a way to say where the cursor is. Runs in the test process."""

from __future__ import annotations

import enum
import math
import os
import xml.dom
from typing import Any, NamedTuple

from pyrokernel.kernel.completion import complete


def matches(marked: str, namespace: dict[str, Any] | None = None, **options: Any) -> dict[str, str]:
    """Complete at the "|" of the source (at its end without one); match to type."""
    cursor = marked.index("|") if "|" in marked else len(marked)
    found = complete(marked.replace("|", "", 1), cursor, namespace or {}, **options)
    assert len(found.matches) == len(found.types)
    return dict(zip(found.matches, found.types, strict=True))


class Point(NamedTuple):
    left: str
    right: list[int]


class Color(enum.Enum):
    RED = 1


class Camera:
    __slots__ = ("__dict__", "empty", "lens")
    count = 3

    def __init__(self, port: int, *, speed: float = 1.0) -> None:
        self.lens = {"zoom": [1.5]}
        self.frames = ["a"]
        self._handle = 0

    def snap(self, exposure: float, binning: int = 1, /, gain: int = 0) -> str:
        return ""

    @property
    def image(self) -> str:
        raise AssertionError("a property ran")

    @classmethod
    def find(cls, pattern: str) -> None: ...

    @staticmethod
    def probe(bus: int) -> None: ...


def make_namespace() -> dict[str, Any]:
    """Return objects that tests complete on: an instance, its class, modules, containers, names."""
    return {
        "camera": Camera(1),
        "Camera": Camera,
        "Color": Color,
        "os": os,
        "math": math,
        "xml": xml,
        "point": Point("a", [1]),
        "d": {
            "key1": {"inner": [1, "text"]},
            "key2": 2,
            'quo"te': 3,
            "it's": 4,
            "new\nline": 5,
            7: "x",
            71: 1,
            ("a", 1): 0,
        },
        "xs": [Camera(1), 1, {}],
        "_private": 1,
        "name_one": 1.5,
        "name_two": None,
    }
