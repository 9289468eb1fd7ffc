"""Python as it is typed and pasted, judged from its text alone. Pure. Runs in the shell process."""

from __future__ import annotations

import ast
import codeop
import contextlib
import functools
import re
import textwrap

_COMPOUND = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try,
    ast.TryStar, ast.With, ast.AsyncWith, ast.Match,
)  # fmt: skip
_SESSIONS = (
    (re.compile(r">>>(?: |\Z)"), re.compile(r"\s*(?:>>>|\.\.\.)(?: |\Z)")),
    (re.compile(r"In \[\d+\]: "), re.compile(r"\s*(?:In \[\d+\]|\.{3,}):(?: |\Z)")),
)
"""Of Python and IPython: what a session begins with, and the prompts in it."""


def is_blank(text: str) -> bool:
    """Whether there is nothing to run: only blank lines and comments."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.split("\n"))


def dedented(source: str) -> str:
    """Undo the margin of a block that was pasted from the inside of something."""
    return textwrap.dedent(source) if source[:1] in (" ", "\t") else source


def bound_names(source: str) -> set[str]:
    """Return the names that a cell sets at its top level, as far as its text says; none when it does not parse."""
    try:
        tree = _compiled(dedented(source))
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in tree.body if tree is not None else []:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            continue
        for child in ast.walk(node):
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                names.add(child.id)
            elif isinstance(child, ast.alias):
                names.add((child.asname or child.name).partition(".")[0])
    return names


@functools.lru_cache(maxsize=256)
def completeness(source: str) -> str:
    """Judge Python source, alone, without running it.

    Returns:
        "complete"; "open" (valid, and ends in a block that could go on); "incomplete"; or "invalid".
    """
    try:
        tree = _compiled(dedented(source))
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return "invalid"
    if tree is None:
        return "incomplete"
    last = tree.body[-1] if tree.body else None
    if isinstance(last, _COMPOUND) and last.end_lineno != last.lineno:
        return "open"
    return "complete"


def _compiled(source: str) -> ast.Module | None:
    """Parse source; None when it is incomplete."""
    judge = codeop.CommandCompiler()
    # Kernels run `await` at the top level.
    judge.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    if judge(source, "<input>", "exec") is None:
        return None
    return _tree(source)


def _tree(source: str) -> ast.Module:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for _ in range(9):
        # For a large text CPython 3.11 fails now and then: "AST constructor recursion depth mismatch".
        with contextlib.suppress(SystemError):
            tree: ast.Module = compile(source, "<input>", "exec", flags, dont_inherit=True)
            return tree
    raise MemoryError("no tree could be made")


def in_background(source: str) -> str:
    """Return the source before a trailing `&`, "" when there is none that is not Python's own."""
    stripped = source.rstrip()
    if not stripped.endswith("&") or completeness(source) == "complete":
        return ""
    source = stripped[:-1].rstrip()
    return source if completeness(source) in ("complete", "open") else ""


def has_backgrounds(source: str) -> bool:
    """Whether lines of a source go to the background, each for itself: it is neither Python nor one cell that does."""
    lines = [line for line in source.split("\n") if line.rstrip().endswith("&")]
    if not lines or completeness(source) != "invalid" or in_background(source):
        return False
    return any(map(in_background, lines))


def without_prompts(text: str) -> str:
    """Undo the prompts of a session of Python or IPython that was copied; any other text stays as it is.

    It is one when its first line has a prompt. Lines without are then what was printed, and left out: in a
    session, each line that was typed has one.
    """
    first = text.lstrip().partition("\n")[0]
    for begins, prompt in _SESSIONS:
        if begins.match(first):
            found = ((prompt.match(line), line) for line in text.split("\n"))
            return "\n".join(line[match.end() :] for match, line in found if match)
    return text


def margin_below(text: str) -> str:
    """Return the margin of the line that follows a half-typed text: the one before, and one step further after a colon.

    Inside a string of triple quotes it is none; behind one, that of the line where the string begins.
    """
    if _open_string(text):
        return ""
    lines = text.split("\n")
    begun = _open_string("\n".join(lines[:-1]))
    line = lines[begun - 1]
    deeper = lines[-1].rstrip().endswith(":")
    return line[: len(line) - len(line.lstrip())] + "    " * deeper


def _open_string(text: str) -> int:
    """Return the number of the line where the string of triple quotes begins in which a text ends, 0 for none."""
    try:
        _tree(dedented(text))
    except SyntaxError as error:
        return (error.lineno or 0) if "triple-quoted" in str(error.msg) else 0
    except (ValueError, OverflowError, RecursionError, MemoryError):
        return 0
    return 0
