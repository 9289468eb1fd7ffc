"""Commands as a stub: what type checkers and editors read of functions that are elsewhere.

Runs in the caller's process.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import contextlib
import importlib
import importlib.util
import keyword
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pyrokernel.messages import CommandInfo

_HEAD = '''"""Commands of the mesh {mesh!r}, written by `pyrokernel commands --stub`; write it anew when they change.

    from typing import TYPE_CHECKING, cast

    if TYPE_CHECKING:
        from {module} import GroupCommands, KernelCommands

    commands = cast("KernelCommands", mesh["k0"].commands)
"""
'''
_TYPING = frozenset({"Any", "Literal", "Optional", "Union", "Text"})
_BARE = frozenset({"Any", "Text"})
"""Of these those that are a type by themselves, without brackets."""

_OLD_NAMES = {"List": "list", "Dict": "dict", "Tuple": "tuple", "Set": "set", "FrozenSet": "frozenset", "Type": "type"}
_HABITS = {"np": "numpy", "pd": "pandas"}
_YIELDING = frozenset({"Iterator", "Iterable", "Generator"})


def stub_of(infos: Iterable[CommandInfo], mesh: str, module: str = "commands") -> str:
    """Write the stub of commands: a class for those of a kernel, and one for those of a group.

    Args:
        infos: The commands; of those with the same name the last.
        mesh: Whose they are, for the head.
        module: What the stub is imported as, for the head.
    """
    chosen = sorted(
        (info for info in {info.name: info for info in infos}.values() if not keyword.iskeyword(info.name)),
        key=lambda info: info.name,
    )
    types = Types({info.name for info in chosen})
    single = [_method(info, types, _returned(info, types)) for info in chosen]
    several = [_method(info, types, f"{types.builtin('dict')}[{types.builtin('str')}, {_returned(info, types)}]")
               for info in chosen]  # fmt: skip
    classes = [
        _class("KernelCommands", "The commands of a kernel: `kernel.commands`.", single),
        _class("GroupCommands", "The commands of a group, each answered by kernel: `group.commands`.", several),
    ]
    return "\n".join([_HEAD.format(mesh=mesh, module=module), types.imports(), *classes])


def _class(name: str, doc: str, methods: list[str]) -> str:
    return "\n".join([f"class {name}:", f'    """{doc}"""', "", *methods])


def _method(info: CommandInfo, types: Types, returns: str) -> str:
    this = "self"
    while any(one["name"] == this for one in info.parameters):
        this = f"_{this}"
    words, kinds = [this], [one["kind"] for one in info.parameters]
    for place, one in enumerate(info.parameters):
        kind = one["kind"]
        if kind == "keyword" and not {"keyword", "rest"} & set(kinds[:place]):
            words.append("*")
        annotation, default = types.written(one["annotation"]), ""
        if not one["required"] and kind not in ("rest", "options"):
            annotation, default = _with_default(annotation, one["default"])
            default = f" = {default}"
        words.append(f"{ {'rest': '*', 'options': '**'}.get(kind, '') }{one['name']}: {annotation}{default}")
        if kind == "positional" and kinds[place + 1 : place + 2] != ["positional"]:
            words.append("/")
    head = f"    def {info.name}({', '.join(words)}) -> {returns}:"
    return f"{head}\n{_docstring(info.doc)}\n" if info.doc.strip() else f"{head} ...\n"


def _docstring(doc: str) -> str:
    text = doc.strip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    text = text + " " if text.endswith('"') else text
    quoted = f'"""{text}"""' if "\n" not in text else f'"""{text}\n"""'
    return textwrap.indent(quoted, " " * 8)


def _with_default(annotation: str, default: str) -> tuple[str, str]:
    """Return annotation and default as a type checker accepts them together."""
    try:
        value = ast.literal_eval(default)
    except (ValueError, SyntaxError):
        return annotation, "..."
    if value is None:
        fits = annotation == "Any" or "None" in annotation or "Optional" in annotation
        return (annotation if fits else f"{annotation} | None"), "None"
    fits = annotation == "Any" or type(value).__name__ == annotation.removeprefix("builtins.")
    return annotation, default if fits else "..."


def _returned(info: CommandInfo, types: Types) -> str:
    """Return what a call returns: of a command that yields values the list of them."""
    if not info.streams:
        return types.written(info.returns)
    item = "Any"
    with contextlib.suppress(SyntaxError):
        tree = ast.parse(info.returns or "None", mode="eval").body
        if isinstance(tree, ast.Subscript) and ast.unparse(tree.value).rpartition(".")[2] in _YIELDING:
            first = tree.slice.elts[0] if isinstance(tree.slice, ast.Tuple) else tree.slice
            item = types.written(ast.unparse(first))
    return f"{types.builtin('list')}[{item if item != 'Any' else types.any()}]"


class Types:
    """Writes annotations so that they mean something outside of the module they come from.

    What is not a type of Python's, or of a library that is here and has types, becomes Any.

    Args:
        taken: Names of the methods beside them, which hide builtins of that name.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = frozenset(taken)
        self._modules: set[str] = set()
        self._names: Mapping[str, set[str]] = {"typing": set(), "collections.abc": set()}

    def any(self) -> str:
        """Return the name of what takes anything."""
        self._names["typing"].add("Any")
        return "Any"

    def builtin(self, name: str) -> str:
        """Return how a builtin is written."""
        if name not in self._taken:
            return name
        self._modules.add("builtins")
        return f"builtins.{name}"

    def written(self, annotation: str) -> str:
        """Write an annotation.

        Args:
            annotation: As it was written, or "".
        """
        try:
            return ast.unparse(self._type(ast.parse(annotation.strip(), mode="eval").body))
        except (SyntaxError, _UnknownTypeError, RecursionError, ValueError):
            return self.any()

    def imports(self) -> str:
        """Return the imports of what was written so far."""
        lines = [f"import {name}" for name in sorted(self._modules)]
        lines += [f"from {name} import {', '.join(sorted(used))}" for name, used in sorted(self._names.items()) if used]
        return "\n".join([*lines, "", ""])

    def _type(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                return self._type(ast.parse(node.value, mode="eval").body)
            if node.value is None:
                return node
            raise _UnknownTypeError
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return ast.BinOp(self._part(node.left), ast.BitOr(), self._part(node.right))
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        if isinstance(node, (ast.Name, ast.Attribute)):
            written = self._named(ast.unparse(node), bare=True)
            return ast.parse(written, mode="eval").body
        raise _UnknownTypeError

    def _part(self, node: ast.expr) -> ast.expr:
        """Write what stands inside of another type; what is unknown becomes Any there."""
        if isinstance(node, ast.List):  # the arguments of a Callable
            return ast.List([self._part(one) for one in node.elts], ast.Load())
        if isinstance(node, ast.Constant) and node.value is Ellipsis:
            return node
        try:
            return self._type(node)
        except (SyntaxError, _UnknownTypeError):
            return ast.Name(self.any())

    def _subscript(self, node: ast.Subscript) -> ast.expr:
        name = ast.unparse(node.value)
        last = name.rpartition(".")[2]
        if last == "Annotated" and isinstance(node.slice, ast.Tuple):
            return self._type(node.slice.elts[0])
        head = ast.parse(self._named(name, bare=False), mode="eval").body
        if last == "Literal":
            return ast.Subscript(head, node.slice, ast.Load())
        if isinstance(node.slice, ast.Tuple):
            inner: ast.expr = ast.Tuple([self._part(one) for one in node.slice.elts], ast.Load())
        else:
            inner = self._part(node.slice)
        return ast.Subscript(head, inner, ast.Load())

    def _named(self, name: str, *, bare: bool) -> str:
        """Return how a type is called in the stub, and note what that needs.

        Raises:
            _UnknownTypeError: Nobody here knows it.
        """
        short = name.removeprefix("typing.").removeprefix("collections.abc.").removeprefix("t.")
        short = _OLD_NAMES.get(short, short)
        if isinstance(getattr(builtins, short, None), type):
            return self.builtin(short)
        for module, names in (("typing", _TYPING), ("collections.abc", frozenset(collections.abc.__all__))):
            if short in names and (not bare or module != "typing" or short in _BARE):
                self._names[module].add(short)
                return short
        head, dot, rest = name.partition(".")
        found = _module_with(_HABITS.get(head, head), rest) if dot else ""
        if not found:
            raise _UnknownTypeError(name)
        self._modules.add(found)
        return f"{_HABITS.get(head, head)}.{rest}"


class _UnknownTypeError(Exception):
    """A name that leads nowhere from here."""


def _module_with(root: str, rest: str) -> str:
    """Return the module that has a class of a dotted name, "" when none that type checkers can read has."""
    if not _is_typed(root):
        return ""
    *parents, last = rest.split(".")
    for count in range(len(parents), -1, -1):
        name = ".".join([root, *parents[:count]])
        found: Any = None
        # It is somebody's library: importing it may raise anything, or end the program.
        with contextlib.suppress(Exception, SystemExit):
            found = importlib.import_module(name)
            for part in [*parents[count:], last]:
                found = getattr(found, part)
        if isinstance(found, type):
            return name
    return ""


def _is_typed(root: str) -> bool:
    """Whether a library is here, with types that a checker reads."""
    if root in sys.stdlib_module_names:
        return True
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return False
    return (
        any((Path(place) / "py.typed").exists() for place in (spec.submodule_search_locations or ())) if spec else False
    )
