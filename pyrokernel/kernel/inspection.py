"""Three questions a front end asks: what is this, what is there, is this all? Runs in the kernel process.

`inspect_name`, `list_variables` and `is_complete` answer from a control thread while a cell runs, and
run no code of the objects they describe: see `reading`.
"""

from __future__ import annotations

import ast
import codeop
from collections.abc import Collection
from typing import Any, Final

from pyrokernel.kernel.expressions import value_before
from pyrokernel.kernel.reading import MISSING, Unknown, snapshot, type_name, word_for
from pyrokernel.kernel.signatures import full_summary, signature
from pyrokernel.kernel.sources import docstring, source_of
from pyrokernel.kernel.summaries import size
from pyrokernel.kernel.tokens import ODD_ESCAPE, Tail
from pyrokernel.messages import Inspection

VARIABLES_LIMIT: Final = 10_000

CHECK_LIMIT: Final = 1_000_000
"""Characters of source that `is_complete` parses: the parser holds the GIL and would stall a running cell."""


def inspect_name(code: str, cursor: int, namespace: dict[str, Any], *, detail: int = 0, ask: bool = True) -> Inspection:
    """Say what the expression at the cursor is; between the parentheses of a call, what is called.

    Args:
        code: Source; a "?" at its end is left out.
        cursor: Offset in characters; inside a name, the whole name counts.
        namespace: The kernel's variables.
        detail: 1 or more to have the source as well.
        ask: Whether the shared state may be asked, in the name of this process.
    """
    try:
        return _inspect(code, cursor, namespace, detail, ask)
    except Exception:  # noqa: BLE001 - half-typed code over foreign objects: whatever it was, there is nothing to show
        return Inspection(found=False)


def _inspect(code: str, cursor: int, namespace: dict[str, Any], detail: int, ask: bool) -> Inspection:
    cursor = max(0, min(cursor, len(code)))
    while cursor < len(code) and (code[cursor].isalnum() or code[cursor] == "_"):
        cursor += 1
    tail = Tail(code[:cursor].rstrip("? \t\r\n"))
    end = len(tail.tokens)
    start = tail.primary(end)
    if start < 0 or (start == end - 1 and tail.tokens[start].kind in ("string", "number")):
        end = tail.open[-1] if tail.open else 0
        start = tail.primary(end)
    value = MISSING if start < 0 else value_before(tail, end, namespace, ask=ask)
    if value is MISSING:
        return Inspection(found=False)
    return Inspection(
        found=True,
        name=tail.text[tail.tokens[start].start : tail.tokens[end - 1].end],
        type=word_for(value),
        signature=signature(value),
        docstring=docstring(value),
        source=source_of(value) if detail else "",
        summary="" if type(value) is Unknown else full_summary(value),
    )


def list_variables(
    namespace: dict[str, Any], names: Collection[str] | None = None, *, without: Collection[str] = ()
) -> list[dict[str, Any]]:
    """List the variables of a namespace by name, those that begin with "_" left out.

    Args:
        namespace: The variables; may change while it is read.
        names: List only these, as far as they are there.
        without: Leave these out.

    Returns:
        One dict each: name, type (its type's name), summary (at most 200 characters) and size (number of
        items, elements or rows; None where that means nothing). At most 10,000.
    """
    items = [
        (name, value)
        for name, value in snapshot(namespace)
        if type(name) is str and not name.startswith("_") and (names is None or name in names) and name not in without
    ]
    items.sort(key=lambda item: item[0])
    return [
        {"name": name, "type": type_name(type(value)), "summary": full_summary(value), "size": size(value)}
        for name, value in items[:VARIABLES_LIMIT]
    ]


def is_complete(code: str) -> str:
    """Tell whether a front end should send the source or ask for another line.

    The rule is codeop's, over several statements: a block that ends the source is over after a blank line.

    Returns:
        "complete", "incomplete" or "invalid".
    """
    if len(code) > CHECK_LIMIT:
        return "complete"
    incomplete: int = vars(codeop)["PyCF_ALLOW_INCOMPLETE_INPUT"]
    # `codeop` itself silences warnings with warnings.catch_warnings, which a thread beside a running cell must not.
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | incomplete
    try:
        tree = compile(ODD_ESCAPE.sub("__", code) + "\n", "<input>", "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        return "incomplete" if "incomplete input" in str(error) or code.endswith("\\") else "invalid"
    except (ValueError, OverflowError, RecursionError, MemoryError):  # null bytes, surrogates, too deep
        return "invalid"
    body: list[ast.stmt] = tree.body
    in_block = bool(body) and hasattr(body[-1], "body")
    _, line_end, last_line = code.rpartition("\n")
    return "incomplete" if in_block and (not line_end or last_line.strip()) else "complete"
