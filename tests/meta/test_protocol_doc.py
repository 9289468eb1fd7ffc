"""docs/protocol.md is the authority on what travels, so it must know all of it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from pyrokernel import messages
from pyrokernel.messages import EventKind, Message
from pyrokernel.state.service import StateService

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()

MESSAGES = {name: member for name, member in vars(messages).items() if name[0].isupper() and isinstance(member, type)}


def section(title: str) -> str:
    """Return one section of the document."""
    _, found, rest = PROTOCOL.partition(f"\n## {title}\n")
    assert found, f"docs/protocol.md has no section {title!r}"
    return rest.partition("\n## ")[0]


def exposed(room: str) -> dict[str, list[str]]:
    """Map each exposed method of a room's services to its parameters."""
    found = {}
    for path in (ROOT / "pyrokernel" / room).glob("*.py"):
        for cls in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(cls, ast.ClassDef):
                continue
            for node in cls.body:
                if isinstance(node, ast.FunctionDef) and is_exposed(node):
                    found[node.name] = [argument.arg for argument in node.args.args if argument.arg != "self"]
    return found


def is_exposed(node: ast.FunctionDef) -> bool:
    """Whether it says which role it takes, `@expose(Role.USER)`: one that does not is open to admins only."""
    marks = [mark.func for mark in node.decorator_list if isinstance(mark, ast.Call)]
    return any(isinstance(mark, ast.Name) and mark.id == "expose" for mark in marks)


def documented(title: str) -> dict[str, list[str]]:
    """Map each method in a section's table to its parameters."""
    rows = re.findall(r"^\| `(\w+)\(([^)]*)\)` \|", section(title), re.MULTILINE)
    return {name: re.findall(r"\w+", parameters) for name, parameters in rows}


def test_the_version_is_the_current_one() -> None:
    assert PROTOCOL.startswith(f"# Protocol, version {messages.PROTOCOL_VERSION}\n")


@pytest.mark.parametrize(
    ("title", "room"),
    [("Methods of a kernel", "kernel"), ("Methods of a host", "host"), ("Methods of the shared state", "state")],
)
def test_every_exposed_method_is_described_with_its_parameters(title: str, room: str) -> None:
    assert documented(title) == exposed(room)


def test_every_request_to_the_shared_state_is_described_with_its_parameters() -> None:
    asked = {
        name: list(inspect.signature(function).parameters)[2:]
        for name, function in vars(StateService).items()
        if hasattr(function, "asked")
    }
    assert documented("Requests to the shared state") == asked


@pytest.mark.parametrize(
    "name", [name for name, cls in MESSAGES.items() if issubclass(cls, Message) and cls is not Message]
)
def test_every_message_is_listed_with_its_fields_in_order(name: str) -> None:
    entry = re.search(rf"^- \*\*{name}\*\*(.*?)(?=^- \*\*|\Z)", section("Messages"), re.MULTILINE | re.DOTALL)
    assert entry, f"docs/protocol.md does not list {name}"
    assert re.findall(r"`(\w+)`", entry[1]) == [field.name for field in dataclasses.fields(MESSAGES[name])]


def test_every_kind_of_event_is_described() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section("Events"), re.MULTILINE) == [kind.value for kind in EventKind]
