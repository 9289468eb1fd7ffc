"""Survey Python source files: what `pyrokernel demo` spreads over kernels. Runs in the kernel process.

Pure: paths in, plain data out. `survey_files` looks at some files, `merge` adds up the
findings of any number of such parts, and its answer does not depend on how the files
were split. A file that cannot be parsed is a finding like any other.
"""

from __future__ import annotations

import ast
import heapq
import os
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

TOP = 10
"""How many entries each ranking of a summary has."""


class FunctionFinding(TypedDict):
    """One function or method."""

    name: str
    """Qualified name, as in `__qualname__`."""
    line: int
    """Line of its `def`, from 1."""
    lines: int
    """Length, from `def` to its last line."""
    complexity: int
    """Independent paths through it, 1 for straight code; nested functions count for themselves."""


class FileFinding(TypedDict):
    """What there is to say about one file."""

    path: str
    lines: int
    functions: list[FunctionFinding]
    imports: list[str]
    """Dotted names of imported modules, sorted, each once; relative ones keep their leading dots."""
    error: str
    """Why the file could not be read or parsed; "" when it could."""


class RankedFunction(TypedDict):
    """A function's place in a ranking."""

    path: str
    name: str
    line: int
    value: int


class Summary(TypedDict):
    """The findings about all files together."""

    root: str
    """Deepest folder that holds all files."""
    files: int
    lines: int
    functions: int
    longest: list[RankedFunction]
    most_complex: list[RankedFunction]
    most_imported: list[tuple[str, int]]
    """Module and number of files that import it."""
    unparsed: list[tuple[str, str]]
    """Path and reason."""


def stdlib_files() -> list[str]:
    """List the .py files of the running interpreter's standard library, sorted, without site-packages."""
    found: list[str] = []
    for folder, folders, files in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in {"site-packages", "dist-packages", "__pycache__"}]
        found.extend(os.path.join(folder, name) for name in files if name.endswith(".py"))
    return sorted(found)


def survey_files(paths: Iterable[str]) -> list[FileFinding]:
    """Look at each file, in the order given."""
    return [survey_file(path) for path in paths]


def survey_file(path: str) -> FileFinding:
    """Look at one file; what is wrong with it is in the finding's `error`, never raised."""
    finding = FileFinding(path=path, lines=0, functions=[], imports=[], error="")
    try:
        source = Path(path).read_bytes()
        finding["lines"] = len(source.splitlines())
        with warnings.catch_warnings():
            # Invalid escapes in old files warn, and where warnings are errors they would stop the parser.
            warnings.simplefilter("ignore")
            tree = ast.parse(source, filename=path)
    # MemoryError and RecursionError are how the parser says that an expression is nested too deeply.
    except (OSError, SyntaxError, ValueError, MemoryError, RecursionError) as error:
        finding["error"] = f"{type(error).__name__}: {_reason(error)}"
        return finding
    functions, imports = _look_through(tree)
    finding["functions"] = sorted(functions, key=lambda found: (found["line"], found["name"]))
    finding["imports"] = sorted(imports)
    return finding


def merge(parts: Iterable[Iterable[FileFinding]]) -> Summary:
    """Add up findings; the same files give the same summary, in whatever parts and order they come."""
    findings = sorted((finding for part in parts for finding in part), key=lambda finding: finding["path"])
    imported = Counter(
        module for finding in findings for module in finding["imports"] if not module.startswith(".")
    )  # A relative name means another module in every package.
    return Summary(
        root=_root([finding["path"] for finding in findings]),
        files=len(findings),
        lines=sum(finding["lines"] for finding in findings),
        functions=sum(len(finding["functions"]) for finding in findings),
        longest=_rank(findings, "lines"),
        most_complex=_rank(findings, "complexity"),
        most_imported=heapq.nsmallest(TOP, imported.items(), key=lambda item: (-item[1], item[0])),
        unparsed=[(finding["path"], finding["error"]) for finding in findings if finding["error"]],
    )


def format_table(summary: Summary, *, shown: int = 5) -> str:
    """Lay a summary out for people.

    Args:
        summary: What `merge` returned.
        shown: How many entries of each list to print; the rest is counted.
    """
    root = summary["root"]
    counts = f"{summary['files']:,} files, {summary['lines']:,} lines, {summary['functions']:,} functions"
    text = [f"{root}: {counts}" if root else counts]
    for title, ranking in (
        ("longest functions (lines)", "longest"),
        ("most complex functions (paths)", "most_complex"),
    ):
        entries: list[RankedFunction] = summary[ranking]  # type: ignore[literal-required]  # a key of Summary, see above
        rows = [
            (entry["value"], f"{entry['name']}  {_relative(entry['path'], root)}:{entry['line']}") for entry in entries
        ]
        text += _section(title, rows, shown)
    text += _section("most imported modules (files)", [(n, module) for module, n in summary["most_imported"]], shown)
    if summary["unparsed"]:
        text += ["", f"files that do not parse: {len(summary['unparsed'])}"]
        text += [f"  {_relative(path, root)}: {reason}" for path, reason in summary["unparsed"][:shown]]
        if len(summary["unparsed"]) > shown:
            text.append(f"  and {len(summary['unparsed']) - shown} more")
    return "\n".join(text)


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})" if error.lineno else str(error.msg)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) or "too deeply nested"


_Function = ast.FunctionDef | ast.AsyncFunctionDef
_BRANCHES = frozenset({ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler})
_LEAVES = frozenset({ast.Name, ast.Constant, ast.Load, ast.Store, ast.Del, ast.arg, ast.alias, ast.Pass})
"""Kinds of node below which nothing is counted: two thirds of all nodes, not worth a visit."""


def _look_through(tree: ast.Module) -> tuple[list[FunctionFinding], set[str]]:
    """Find every function, with its complexity, and every import.

    Keeps its own stack, because a generated file may nest deeper than the interpreter recurses.

    Source: T. McCabe, "A Complexity Measure", 1976: one, and one more for each decision.
    """
    functions: list[FunctionFinding] = []
    imports: set[str] = set()
    pending: list[tuple[ast.AST, str, FunctionFinding | None]] = [(tree, "", None)]
    while pending:
        node, prefix, inside = pending.pop()
        if inside is not None:
            inside["complexity"] += _decisions(node)
        if isinstance(node, _Function):
            last = node.end_lineno or node.lineno
            inside = FunctionFinding(
                name=prefix + node.name, line=node.lineno, lines=last - node.lineno + 1, complexity=1
            )
            functions.append(inside)
            prefix += f"{node.name}.<locals>."
        elif isinstance(node, ast.ClassDef):
            # The body of a class inside a function runs with it, so its decisions count there.
            prefix += f"{node.name}."
        elif isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imports.add("." * node.level + (node.module or ""))
        pending.extend((child, prefix, inside) for child in _children(node))
    return functions, imports


def _children(node: ast.AST) -> list[ast.AST]:
    """List what is below a node, without leaves; twice as quick as `ast.iter_child_nodes`."""
    found: list[ast.AST] = []
    for field in node._fields:
        value = getattr(node, field, None)
        if type(value) is list:
            found += [item for item in value if isinstance(item, ast.AST) and type(item) not in _LEAVES]
        elif isinstance(value, ast.AST) and type(value) not in _LEAVES:
            found.append(value)
    return found


def _decisions(node: ast.AST) -> int:
    """Count the decisions that this node itself adds."""
    if type(node) in _BRANCHES:
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        catches_all = isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None and node.guard is None
        return 0 if catches_all else 1
    return 0


def _rank(findings: list[FileFinding], by: str) -> list[RankedFunction]:
    """Take the TOP functions; equal ones in the order of path and line, so that the answer is always the same."""
    everything = (
        RankedFunction(path=finding["path"], name=function["name"], line=function["line"], value=function[by])  # type: ignore[literal-required]  # "lines" or "complexity"
        for finding in findings
        for function in finding["functions"]
    )
    return heapq.nsmallest(
        TOP, everything, key=lambda entry: (-entry["value"], entry["path"], entry["line"], entry["name"])
    )


def _root(paths: list[str]) -> str:
    folders = {str(Path(path).parent) for path in paths}
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # absolute and relative paths together
        return ""


def _relative(path: str, root: str) -> str:
    return path.removeprefix(root).lstrip("/") if root else path


def _section(title: str, rows: list[tuple[int, str]], shown: int) -> list[str]:
    width = max((len(f"{value:,}") for value, _ in rows), default=1)
    return ["", title, *(f"  {value:>{width},}  {text}" for value, text in rows[:shown])]
