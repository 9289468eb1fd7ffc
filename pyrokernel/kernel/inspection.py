"""What a live object is, found without running any code of its owner. Runs in the kernel process.

`inspect_name`, `list_variables` and `is_complete` answer from a control thread while a cell runs,
so everything here reads objects as they lie: type dictionaries, instance dictionaries, slots. A
property, a user's descriptor, `__getattr__`, `__repr__`, `__len__`, `__dir__`, `__eq__` or `__hash__`
never runs. Two habits follow, throughout: a type is asked with `issubclass(type(x), T)`, because
`isinstance` reads `x.__class__`; and types are compared with `is`, because a metaclass may define `__eq__`.

In this order: reading objects, attributes and items, expressions before a cursor, signatures,
docstrings and sources, summaries, and last the three questions a front end asks.
Runs in the kernel process.
"""

from __future__ import annotations

import ast
import builtins
import codeop
import collections
import functools
import inspect
import itertools
import keyword
import linecache
import re
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from pyrokernel.messages import Inspection

SCAN_LIMIT: Final = 100_000
"""Entries of one mapping that are looked at; what lies beyond is not found."""

VARIABLES_LIMIT: Final = 10_000
TEXT_LIMIT: Final = 100_000
"""Characters of a docstring or a source that are returned."""

SUMMARY_LIMIT: Final = 200
"""Characters of a summary."""

CHECK_LIMIT: Final = 1_000_000
"""Characters of source that `is_complete` parses: the parser holds the GIL and would stall a running cell."""

_WINDOW: Final = 16_384
_RETRIES: Final = 8

MISSING: Final = object()

# The getters of `type` itself: `cls.__mro__` would run the `__getattribute__` of a metaclass.
_TYPE: Final = type.__dict__
_get_mro = _TYPE["__mro__"].__get__
_get_type_dict = _TYPE["__dict__"].__get__
_get_name = _TYPE["__name__"].__get__
_get_module = _TYPE["__module__"].__get__
_get_qualname = _TYPE["__qualname__"].__get__
_get_flags = _TYPE["__flags__"].__get__
_get_type_signature = _TYPE["__text_signature__"].__get__

_get_exception_args = BaseException.__dict__["args"].__get__

_TUPLE_GETTER: Final = type(NamedTuple("_", [("field", int)]).__dict__["field"])

_BUILTIN_CALLABLES: Final = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
)
_FUNCTION_NAMES: Final = frozenset(
    {"ufunc", "_ArrayFunctionDispatcher", "cython_function_or_method", "_lru_cache_wrapper", "partial"}
)
"""Types of functions that cannot be imported here, by name."""

_FUNCTIONS: Final = (types.FunctionType, types.MethodType, staticmethod, classmethod, *_BUILTIN_CALLABLES)


# ---------------------------------------------------------------------------------- reading objects


class Unknown:
    """A value that was not computed: its type, where known, and the attribute that would give it.

    Attributes:
        cls: Type of the value, or None.
        raw: The property or descriptor found in its place, or None.
    """

    __slots__ = ("cls", "raw")

    def __init__(self, cls: type | None = None, raw: object = None) -> None:
        self.cls = cls
        self.raw = raw


def is_one_of(kind: type, kinds: Iterable[type]) -> bool:
    """Tell whether `kind` is one of `kinds`, by identity."""
    return any(kind is other for other in kinds)


def type_name(cls: type) -> str:
    """Return the name of a type."""
    return str.__str__(_get_name(cls))


def module_of(cls: type) -> str:
    """Return the name of the module of a type, "" when it says none."""
    name = _get_module(cls)
    return name if type(name) is str else ""


def is_compiled(kind: type) -> bool:
    """Tell whether a type was written in C and cannot be changed: no statement of Python makes one."""
    return not _get_flags(kind) & 1 << 9  # Py_TPFLAGS_HEAPTYPE


def mro(cls: type) -> tuple[type, ...]:
    """Return the bases of a type in lookup order, itself first."""
    return _get_mro(cls) or ()


def snapshot(mapping: Mapping[Any, Any] | None, limit: int = SCAN_LIMIT) -> list[tuple[Any, Any]]:
    """Copy the first items of a dict that other threads may change meanwhile.

    Args:
        mapping: A dict (the methods of a subclass are passed by), a type's dictionary, or None.
        limit: How many items to take.
    """
    items: list[tuple[Any, Any]] = []
    if mapping is None:
        return items
    for _ in range(_RETRIES):
        items = []
        try:
            view: Iterable[tuple[Any, Any]] = (
                dict.items(mapping) if issubclass(type(mapping), dict) else mapping.items()  # type: ignore[arg-type]
            )
            items.extend(itertools.islice(view, limit))
        except RuntimeError:  # it changed size while it was read; the part read in the last try will do
            continue
        break
    return items


def snapshot_keys(mapping: Mapping[Any, Any]) -> list[Any]:
    """Copy the first keys of a dict, as `snapshot` does."""
    keys: list[Any] = []
    for _ in range(_RETRIES):
        keys = []
        try:
            keys.extend(itertools.islice(dict.keys(mapping), SCAN_LIMIT))  # type: ignore[arg-type]
        except RuntimeError:  # as in `snapshot`
            continue
        break
    return keys


def find(mapping: Mapping[Any, Any] | None, key: object) -> Any:
    """Return the item whose key has the same built-in type and value, MISSING when there is none.

    A plain lookup would call the `__eq__` of any key with the same hash.
    """
    kind = type(key)
    for other, value in snapshot(mapping):
        if type(other) is kind and other == key:
            return value
    return MISSING


def type_dict(cls: type) -> Mapping[str, Any]:
    """Return the dictionary of a type, read-only."""
    mapping: Mapping[str, Any] = _get_type_dict(cls)
    return mapping


def lookup(cls: type, name: str) -> Any:
    """Find an attribute in a type and its bases, as it is stored there."""
    for base in mro(cls):
        raw = find(type_dict(base), name)
        if raw is not MISSING:
            return raw
    return MISSING


def instance_dict(value: Any) -> dict[Any, Any] | None:
    """Return the dictionary of an object, None when it has none or hides it behind a property."""
    raw = lookup(type(value), "__dict__")
    if is_one_of(type(raw), (types.GetSetDescriptorType, types.MemberDescriptorType)):
        found: dict[Any, Any] | None = raw.__get__(value)
        if issubclass(type(found), dict):
            return found
    return None


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object by name, as stored: nothing is bound or computed."""
    if type(value) is Unknown:
        layers = [] if value.cls is None else [type_dict(base) for base in mro(value.cls)]
    elif issubclass(type(value), type):
        layers = [type_dict(base) for base in mro(value)]
    else:
        layers = [instance_dict(value) or {}, *(type_dict(base) for base in mro(type(value)))]
    found: dict[str, Any] = {}
    for layer in layers:
        for name, raw in snapshot(layer):
            if type(name) is str:
                found.setdefault(name, raw)
    if issubclass(type(value), types.ModuleType):
        for name, module in submodules(value).items():
            found.setdefault(name, module)
    return found


def submodules(module: object) -> dict[str, Any]:
    """Return the loaded submodules of a module by their short name."""
    name = find(instance_dict(module), "__name__")
    if type(name) is not str:
        return {}
    prefix = name + "."
    return {
        key[len(prefix) :]: child
        for key, child in snapshot(sys.modules)
        if type(key) is str and key.startswith(prefix) and "." not in key[len(prefix) :]
    }


def word_for(value: Any) -> str:
    """Say in one word what something is: "function", "class", "module", "property", or its type's name."""
    kind = type(value)
    if kind is Unknown:
        if value.raw is None and value.cls is not None:
            return type_name(value.cls)
        return "property" if value.raw is None else word_for(value.raw)
    if issubclass(kind, type):
        return "class"
    if issubclass(kind, types.ModuleType):
        return "module"
    if is_one_of(kind, _FUNCTIONS) or type_name(kind) in _FUNCTION_NAMES:
        return "function"
    if issubclass(kind, property) or is_one_of(
        kind, (functools.cached_property, types.GetSetDescriptorType, types.MemberDescriptorType, _TUPLE_GETTER)
    ):
        return "property"
    return type_name(kind)


# ----------------------------------------------------------------------------- attributes and items

# Getters written in C that do nothing but read a field. Not every one is: Cython compiles a property to the same.
_PLAIN_OWNERS: Final = (int, float, complex, slice, BaseException, types.FunctionType, types.BuiltinFunctionType)
_PLAIN_TYPE_FIELDS: Final = frozenset({"__name__", "__qualname__", "__module__", "__bases__"})
_PLAIN_ARRAY_FIELDS: Final = frozenset({"T", "dtype", "shape", "strides", "real", "imag", "flat", "size", "ndim"})
_PLAIN_DTYPE_FIELDS: Final = frozenset({"names", "fields", "shape", "str"})


def _only_reads(raw: Any, value: Any) -> bool:
    owner, name = raw.__objclass__, raw.__name__
    if owner is type:
        return name in _PLAIN_TYPE_FIELDS
    if module_of(owner) == "numpy":
        # Exact arrays only: a view of a subclass calls its __array_finalize__.
        exact = type_name(owner) == "ndarray" and type(value) is owner and name in _PLAIN_ARRAY_FIELDS
        return exact or (type_name(owner) == "dtype" and name in _PLAIN_DTYPE_FIELDS)
    return is_one_of(owner, _PLAIN_OWNERS) and name != "__annotations__"


def _returned_type(function: Any) -> type | None:
    """Return the class a function is annotated to return, when that can be read."""
    if type(function) is types.MethodType:
        function = function.__func__
    if type(function) is not types.FunctionType or sys.version_info >= (3, 14):
        return None  # from 3.14 on, reading annotations runs the code that computes them
    note = find(function.__annotations__, "return")
    if type(note) is str:
        found = find(function.__globals__, note)
        note = find(builtins.__dict__, note) if found is MISSING else found
    return note if issubclass(type(note), type) else None


def _bind(raw: Any, value: Any, owner: type) -> Any:
    """Return what reading the stored attribute `raw` of `value` would give, as far as no foreign code is needed."""
    kind = type(raw)
    known = type(value) is not Unknown
    if kind is types.FunctionType:
        return types.MethodType(raw, value)
    if kind is staticmethod:
        return raw.__func__
    if kind is classmethod:
        return types.MethodType(raw.__func__, owner)
    if kind is property:
        return Unknown(_returned_type(raw.fget), raw)
    if kind is functools.cached_property:
        return Unknown(_returned_type(find(instance_dict(raw), "func")), raw)
    if kind is types.MemberDescriptorType or kind is _TUPLE_GETTER or kind is types.GetSetDescriptorType:
        if not known or (kind is types.GetSetDescriptorType and not _only_reads(raw, value)):
            return Unknown(None, raw)
        try:
            return raw.__get__(value)
        except AttributeError:  # an empty slot
            return MISSING
    if is_one_of(kind, _FUNCTIONS) or lookup(kind, "__get__") is MISSING:
        return raw
    return Unknown(None, raw)


def _class_attribute(cls: type, name: str) -> Any:
    raw = lookup(cls, name)
    if raw is MISSING:
        raw = lookup(type(cls), name)
        return MISSING if raw is MISSING else _bind(raw, cls, type(cls))
    kind = type(raw)
    if kind is staticmethod or kind is classmethod:
        return _bind(raw, cls, cls)
    if word_for(raw) in ("function", "property") or lookup(kind, "__get__") is MISSING:
        return raw
    # An Enum of Python 3.11 keeps its members here and a descriptor under the name.
    member = find(_dict_or_none(lookup(cls, "_member_map_")), name)
    return Unknown(None, raw) if member is MISSING else member


def _dict_or_none(value: Any) -> dict[Any, Any] | None:
    return value if issubclass(type(value), dict) else None


def get_attribute(value: Any, name: str) -> Any:
    """Return `value.name` as far as it can be read without running code.

    Returns:
        The value, an `Unknown` for what would have to be computed, MISSING when there is no such attribute.
    """
    held: Any = MISSING
    if type(value) is Unknown:
        if value.cls is None:
            return MISSING
        owner = value.cls
    elif issubclass(type(value), type):
        return _class_attribute(value, name)
    else:
        owner = type(value)
        held = find(instance_dict(value), name)
    raw = lookup(owner, name)
    if held is not MISSING and (raw is MISSING or lookup(type(raw), "__set__") is MISSING):
        return held
    if raw is not MISSING:
        return _bind(raw, value, owner)
    if issubclass(owner, types.ModuleType):
        return submodules(value).get(name, MISSING)
    if type(value) is not Unknown and name in column_labels(value):
        return _column(value)
    return MISSING


def get_item(value: Any, key: object) -> Any:
    """Return `value[key]` for lists, tuples and dicts that did not redefine it; a column as an `Unknown` Series."""
    kind = type(value)
    if issubclass(kind, dict) and lookup(kind, "__getitem__") is dict.__dict__["__getitem__"]:
        return find(value, key)
    for base in (list, tuple, str):
        if issubclass(kind, base) and lookup(kind, "__getitem__") is base.__dict__["__getitem__"]:
            if type(key) is slice:
                return Unknown(base)
            try:
                return base.__getitem__(value, key) if type(key) is int else MISSING
            except IndexError:
                return MISSING
    if type(key) is str and key in column_labels(value):
        return _column(value)
    return MISSING


def get_called(value: Any) -> Any:
    """Return what calling `value` would give: an instance of a class, or what the annotation says."""
    if issubclass(type(value), type):
        return Unknown(value)
    cls = _returned_type(value)
    return MISSING if cls is None else Unknown(cls)


# ------------------------------------------------------------------------------- columns of pandas


def pandas_kind(cls: type) -> str:
    """Return "DataFrame" or "Series" for these types of pandas and what derives from them, else ""."""
    for base in mro(cls):
        if type_name(base) in ("DataFrame", "Series") and module_of(base).partition(".")[0] == "pandas":
            return type_name(base)
    return ""


def column_labels(value: Any, limit: int = SCAN_LIMIT) -> list[str]:
    """Return the names of the columns of a DataFrame (the index of a Series, the fields of a record array)."""
    if pandas_kind(type(value)):
        axes = _pandas_axes(value)
        labels = _index_labels(axes[0], limit) if axes else []
    elif is_array(value):
        labels = list(get_attribute(get_attribute(value, "dtype"), "names") or ())
    else:
        return []
    return [label for label in labels if type(label) is str]


def is_array(value: Any) -> bool:
    """Tell whether this is a NumPy array, not an instance of a subclass."""
    kind = type(value)
    return type_name(kind) == "ndarray" and module_of(kind) == "numpy" and is_compiled(kind)


def _column(value: Any) -> Unknown:
    """Stand for one column: pandas would compute it, its type is known."""
    module = find(sys.modules, "pandas")
    series = MISSING if module is MISSING else get_attribute(module, "Series")
    known = pandas_kind(type(value)) == "DataFrame" and issubclass(type(series), type)
    return Unknown(series if known else None)


def _pandas_field(value: Any, name: str) -> Any:
    """Read a field of an object of pandas: in its dictionary, or a compiled class's own."""
    found = get_attribute(value, name)
    if type(found) is Unknown and type(found.raw) is types.GetSetDescriptorType:
        raw: Any = found.raw
        # Fields that Cython made public; a getter of any other extension is left alone.
        return raw.__get__(value) if module_of(raw.__objclass__).startswith("pandas._libs.") else MISSING
    return found


def _pandas_axes(value: Any) -> list[Any]:
    axes = _pandas_field(_pandas_field(value, "_mgr"), "axes")
    return axes if type(axes) is list else []


def _index_labels(index: object, limit: int) -> list[Any]:
    levels = _pandas_field(index, "_levels")
    if issubclass(type(levels), (list, tuple)) and levels:
        return _index_labels(levels[0], limit)  # of a MultiIndex the outer level
    data = _pandas_field(index, "_data")
    if not is_array(data):
        arrow = _pandas_field(data, "_pa_array")
        if module_of(type(arrow)).partition(".")[0] == "pyarrow":
            return list(arrow.slice(0, limit).to_pylist())
        data = _pandas_field(data, "_ndarray")
    return list(data[:limit].tolist()) if is_array(data) else []


# ------------------------------------------------------------------- the expression before a cursor

# Not `tokenize`: it raises on half-typed strings, and where it does so differs from 3.11 to 3.12.
_TOKEN: Final = re.compile(
    r"""
    (?: [ \t\f\r]++ | \\\r?\n )*+
    (?: (?P<comment> \#[^\n]* )
    | (?P<newline> \n )
    | (?P<string> (?i:[rbfut]{0,2})
          (?: \"{3} (?: [^"\\]++ | \\(?:.|\Z) | "(?!"") )*+ (?:\"{3})?
            | '{3} (?: [^'\\]++ | \\(?:.|\Z) | '(?!'') )*+ (?:'{3})?
            | " (?: [^"\\\n]++ | \\(?:.|\Z) )*+ "?
            | ' (?: [^'\\\n]++ | \\(?:.|\Z) )*+ '? ) )
    | (?P<number> 0[xXbBoO][\da-fA-F_]+ | (?: \d[\d_]*\.?[\d_]* | \.\d[\d_]* ) (?:[eE][+-]?\d+)? [jJ]? )
    | (?P<name> [^\W\d]\w* )
    | (?P<op> \.\.\. | -> | := | [=!<>]= | \*\* | // | . )
    | (?P<end> \Z ) )
    """,
    re.VERBOSE | re.DOTALL,
)
_STRING: Final = re.compile(
    r"""(?P<prefix>[a-zA-Z]*)(?P<quote>'''|\"\"\"|'|")"""
    r"""(?P<body>(?:(?!(?P=quote))[^\\]|\\(?:.|\Z))*+)(?P<close>(?P=quote))?""",
    re.DOTALL,
)
# Parsing such an escape would print a warning into the running cell's output.
_ODD_ESCAPE: Final = re.compile(r"\\(?:[^\n\\'\"abfnrtvxNuU0-7]|[4-7][0-7][0-7])")
_CONSTANTS: Final[dict[str, Any]] = {"True": True, "False": False, "None": None}


class Token(NamedTuple):
    """A piece of source: kind is "string", "number", "name", "op" or "newline"; start counts characters."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)

    @property
    def is_name(self) -> bool:
        """Whether it can name an object."""
        return self.kind == "name" and (self.text in _CONSTANTS or not keyword.iskeyword(self.text))


class Tail:
    """The source before a cursor as tokens, however broken it is.

    Attributes:
        text: The source; of a long one the last part, from the beginning of a line.
        offset: Characters left out before it.
        tokens: Its tokens, shape (n_tokens,), without comments and without line ends inside brackets.
        pairs: Index of each bracket's partner, both ways.
        open: Indexes of the brackets that are still open, outermost first.
        in_comment: Whether the cursor is in a comment.
    """

    def __init__(self, source: str) -> None:
        cut = max(0, len(source) - _WINDOW)
        if cut:
            cut = source.find("\n", cut) + 1 or cut
        self.offset = cut
        self.text = source[cut:]
        self.tokens: list[Token] = []
        self.pairs: dict[int, int] = {}
        self.open: list[int] = []
        self.in_comment = False
        self._scan()

    def _scan(self) -> None:
        tokens, opened = self.tokens, self.open
        for match in _TOKEN.finditer(self.text):
            kind = match.lastgroup
            if kind is None or kind == "end":
                break
            self.in_comment = kind == "comment"
            if kind == "comment" or (kind == "newline" and opened):
                continue
            text = match[kind]
            if kind == "op":
                if text in "([{":
                    opened.append(len(tokens))
                elif text in ")]}" and opened:
                    partner = opened.pop()
                    self.pairs[len(tokens)], self.pairs[partner] = partner, len(tokens)
            tokens.append(Token(kind, text, match.start(kind)))

    def is_trailer(self, index: int) -> bool:
        """Tell whether the bracket at `index` calls or indexes what stands before it."""
        if index <= 0:
            return False
        before = self.tokens[index - 1]
        return before.is_name or before.kind == "string" or (before.kind == "op" and before.text in ")]}")

    def primary(self, end: int) -> int:
        """Return the index of the first token of the expression `a.b(c)[d]` that ends before token `end`; -1: none."""
        index = end - 1
        while index >= 0:
            token = self.tokens[index]
            if token.kind == "op" and token.text in ")]}":
                index = self.pairs.get(index, -1)
                if index < 0 or self.tokens[index].text == "{" or not self.is_trailer(index):
                    return index
                index -= 1
            elif token.kind == "name" and index > 0 and self.tokens[index - 1].text == ".":
                index -= 2
            else:
                return index if token.is_name or token.kind in ("string", "number") else -1
        return -1

    def value_before(self, end: int, namespace: Mapping[str, Any]) -> Any:
        """Return the value of the expression that ends before token `end`, as `get_attribute` would."""
        start = self.primary(end)
        return MISSING if start < 0 else self._value(start, end, namespace)

    def _value(self, index: int, end: int, namespace: Mapping[str, Any]) -> Any:
        value = self._atom(index, namespace)
        index = self.pairs[index] + 1 if index in self.pairs else index + 1
        while index < end and value is not MISSING:
            text = self.tokens[index].text
            if text == "." and index + 1 < end:
                value = get_attribute(value, self.tokens[index + 1].text)
                index += 2
            elif text in ("(", "[") and index in self.pairs:
                close = self.pairs[index]
                value = get_called(value) if text == "(" else get_item(value, self._key(index + 1, close, namespace))
                index = close + 1
            else:
                return MISSING
        return value

    def _atom(self, index: int, namespace: Mapping[str, Any]) -> Any:
        token = self.tokens[index]
        if token.kind == "name":
            if token.text in _CONSTANTS:
                return _CONSTANTS[token.text]
            found = find(namespace, token.text)
            return find(builtins.__dict__, token.text) if found is MISSING else found
        if token.kind in ("string", "number"):
            value = literal(token)
            return Unknown(str) if value is MISSING else value
        close = self.pairs.get(index, -1)
        if close < 0:
            return MISSING
        inside = [self.tokens[at].text for at in self._level(index + 1, close)]
        if token.text == "[":
            return Unknown(list)
        if token.text == "{":
            return Unknown(dict if not inside or ":" in inside or "**" in inside else set)
        if "for" in inside:
            return Unknown(types.GeneratorType)
        if not inside or "," in inside:
            return Unknown(tuple)
        return self._value(index + 1, close, namespace) if self.primary(close) == index + 1 else MISSING

    def _level(self, start: int, end: int) -> list[int]:
        """List the tokens from start to end that stand in no inner bracket."""
        found = []
        while start < end:
            found.append(start)
            start = max(start, self.pairs.get(start, start)) + 1
        return found

    def _key(self, start: int, end: int, namespace: Mapping[str, Any]) -> Any:
        """Return the value between square brackets when it is a literal, a slice, or a name for one; else MISSING."""
        inside = self.tokens[start:end]
        if any(token.text == ":" for token in inside):
            return slice(None)
        if len(inside) == 2 and inside[0].text == "-" and inside[1].kind == "number":
            number = literal(inside[1])
            return MISSING if number is MISSING else -number
        if len(inside) != 1:
            return MISSING
        value = self._atom(start, namespace) if inside[0].is_name else literal(inside[0])
        return value if is_one_of(type(value), (str, int, float, bool, bytes)) else MISSING


def literal(token: Token) -> Any:
    """Return the value of a string or number, MISSING when it has none yet (an f-string, half a string)."""
    if token.kind == "string":
        match = _STRING.match(token.text)
        if match is None or not match["close"] or "f" in match["prefix"].lower() or _ODD_ESCAPE.search(token.text):
            return MISSING
    elif token.kind != "number":
        return MISSING
    try:
        return ast.literal_eval(token.text)
    except (ValueError, SyntaxError):
        return MISSING


def string_parts(token: Token) -> tuple[str, str, str, bool]:
    """Split a string token into prefix, quote, body, and whether it is closed."""
    match = _STRING.match(token.text)
    if match is None:
        return "", "", "", False
    return match["prefix"].lower(), match["quote"], match["body"], match["close"] is not None


# ------------------------------------------------------------------------------------- signatures


class Parameter(NamedTuple):
    """A parameter of a callable: kind is "/" (by position only), "", "*" (by keyword only), "*args" or "**kwargs"."""

    name: str
    kind: str = ""
    default: str = ""
    note: str = ""

    def __str__(self) -> str:
        stars = {"*args": "*", "**kwargs": "**"}.get(self.kind, "")
        note = f": {self.note}" if self.note else ""
        equals = " = " if note else "="
        return f"{stars}{self.name}{note}" + (f"{equals}{self.default}" if self.default else "")


def parameters(value: Any, depth: int = 0) -> list[Parameter] | None:
    """Read the parameters of a callable from its code object; `__signature__` is not looked at.

    Returns:
        What a caller may pass, without self or cls; None when it cannot be known.
    """
    kind = type(value)
    if depth > 10:
        return None
    if kind is Unknown:
        call = MISSING if value.cls is None else lookup(value.cls, "__call__")
        return None if type(call) is not types.FunctionType else _without_first(parameters(call, depth + 1))
    wrapped = find(instance_dict(value), "__wrapped__")
    if wrapped is not MISSING and not issubclass(kind, type):
        return parameters(wrapped, depth + 1)
    if kind is types.FunctionType:
        return _code_parameters(value)
    if kind is types.MethodType:
        return _without_first(parameters(value.__func__, depth + 1))
    if kind is staticmethod or kind is classmethod:
        found = parameters(value.__func__, depth + 1)
        return found if kind is staticmethod else _without_first(found)
    if kind is functools.partial:
        return _partial_parameters(value, depth)
    if is_one_of(kind, _BUILTIN_CALLABLES):
        return _text_parameters(getattr(value, "__text_signature__", None))
    if issubclass(kind, type):
        return _class_parameters(value, depth)
    call = lookup(kind, "__call__")
    return _without_first(_code_parameters(call)) if type(call) is types.FunctionType else None


def _without_first(found: list[Parameter] | None) -> list[Parameter] | None:
    return found[1:] if found and found[0].kind in ("", "/") else found


def _class_parameters(cls: type, depth: int) -> list[Parameter] | None:
    for name in ("__init__", "__new__"):
        raw = lookup(cls, name)
        raw = raw.__func__ if type(raw) is staticmethod else raw
        if type(raw) is types.FunctionType:
            return _without_first(parameters(raw, depth + 1))
    return _text_parameters(_get_type_signature(cls))


def _partial_parameters(value: Any, depth: int) -> list[Parameter] | None:
    found = parameters(value.func, depth + 1)
    if found is None:
        return None
    given = {name for name, _ in snapshot(value.keywords) if type(name) is str}
    for _ in value.args:
        found = _without_first(found) or []
    return [parameter for parameter in found if parameter.name not in given]


def _text_parameters(text: object) -> list[Parameter] | None:
    """Read the one line that C code documents itself with, such as "($module, iterable, /, *, key=None)"."""
    if type(text) is not str:
        return None
    found: list[Parameter] = []
    kind = ""
    for part in text.strip("()").split(","):
        name, _, default = part.strip().partition("=")
        if name == "/":
            found = [parameter._replace(kind="/") for parameter in found]
        elif name == "*":
            kind = "*"
        elif name.startswith("**"):
            found.append(Parameter(name[2:], "**kwargs"))
        elif name.startswith("*"):
            found.append(Parameter(name[1:], "*args"))
            kind = "*"
        elif name.isidentifier():  # neither $self nor a piece of a default with a comma in it
            found.append(Parameter(name, kind, default))
    return found


def _code_parameters(function: Any) -> list[Parameter]:
    code = function.__code__
    names = code.co_varnames
    n_any, n_keyword = code.co_argcount, code.co_kwonlyargcount
    defaults = function.__defaults__ or ()
    notes = {} if sys.version_info >= (3, 14) else dict(snapshot(function.__annotations__))

    def make(name: str, kind: str, default: object) -> Parameter:
        note = notes.get(name, MISSING)
        text = note if type(note) is str else type_name(note) if issubclass(type(note), type) else ""
        return Parameter(name, kind, "" if default is MISSING else summary(default, 60), text)

    found = []
    for index, name in enumerate(names[:n_any]):
        at = index - n_any + len(defaults)
        kind = "/" if index < code.co_posonlyargcount else ""
        found.append(make(name, kind, defaults[at] if at >= 0 else MISSING))
    rest = n_any + n_keyword
    if code.co_flags & inspect.CO_VARARGS:
        found.append(make(names[rest], "*args", MISSING))
        rest += 1
    given = function.__kwdefaults__
    found += [make(name, "*", find(given, name)) for name in names[n_any : n_any + n_keyword]]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        found.append(make(names[rest], "**kwargs", MISSING))
    return found


def signature(value: Any) -> str:
    """Return how a callable is called, "(a, b=1, *, c)"; "" when it is none or does not say."""
    found = parameters(value)
    if found is None:
        return ""
    parts: list[str] = []
    for before, parameter in zip([None, *found], found, strict=False):
        previous = before.kind if before else None
        if previous == "/" and parameter.kind != "/":
            parts.append("/")
        if parameter.kind == "*" and previous not in ("*", "*args"):
            parts.append("*")
        parts.append(str(parameter))
    if found and found[-1].kind == "/":
        parts.append("/")
    return f"({', '.join(parts)})"


# -------------------------------------------------------------------------- docstrings and sources


def _function_of(value: Any) -> Any:
    """Return the Python function behind a method, property, or decorated function; MISSING when there is none."""
    for _ in range(10):
        kind = type(value)
        wrapped = MISSING if issubclass(kind, type) or kind is Unknown else find(instance_dict(value), "__wrapped__")
        if wrapped is not MISSING:
            value = wrapped
        elif kind is types.FunctionType:
            return value
        elif is_one_of(kind, (types.MethodType, staticmethod, classmethod)):
            value = value.__func__
        elif kind is property:
            value = value.fget
        elif kind is functools.cached_property:
            value = find(instance_dict(value), "func")
        elif kind is Unknown and value.raw is not None:
            value = value.raw
        else:
            return MISSING
    return MISSING


def docstring(value: Any) -> str:
    """Return the docstring of an object, of its type when it is a plain value; "" when there is none."""
    if type(value) is Unknown:
        if value.raw is None:
            return "" if value.cls is None else docstring(value.cls)
        return docstring(value.raw)
    kind = type(value)
    text: object = MISSING
    if issubclass(kind, types.ModuleType) or find(instance_dict(value), "__doc__") is not MISSING:
        text = find(instance_dict(value), "__doc__")
    elif issubclass(kind, type):
        text = lookup(value, "__doc__") if value is not object else object.__doc__
    elif is_one_of(kind, (*_FUNCTIONS, property, types.GetSetDescriptorType, types.MemberDescriptorType)):
        function = _function_of(value)
        text = getattr(value if function is MISSING else function, "__doc__", None)
    elif kind is not type:
        text = lookup(kind, "__doc__")
    return inspect.cleandoc(text[:TEXT_LIMIT]) if type(text) is str else ""


def source_of(value: Any) -> str:
    """Return the source of a function or class, also of one defined in a cell; "" when it is not kept."""
    if issubclass(type(value), type):
        return _class_source(value)
    function = _function_of(value)
    if function is MISSING:
        return ""
    code = function.__code__
    return _block(linecache.getlines(code.co_filename), code.co_firstlineno - 1)


def _block(lines: list[str], start: int) -> str:
    if not 0 <= start < len(lines):
        return ""
    return "".join(inspect.getblock(lines[start : start + 10_000]))[:TEXT_LIMIT]


def _class_source(cls: type) -> str:
    """Find a class by its methods, which know their file; else in its module's file, else in a recent cell."""
    header = re.compile(rf"\s*class\s+{re.escape(type_name(cls))}\b")
    for _, raw in snapshot(type_dict(cls)):
        function = _function_of(raw)
        if function is not MISSING and function.__code__.co_qualname.startswith(f"{_get_qualname(cls)}."):
            lines = linecache.getlines(function.__code__.co_filename)
            for at in range(min(function.__code__.co_firstlineno, len(lines)) - 1, -1, -1):
                if header.match(lines[at]):
                    return _block(lines, _first_decorator(lines, at))
    module = find(sys.modules, module_of(cls))
    file = MISSING if module is MISSING else find(instance_dict(module), "__file__")
    cells = [name for name, _ in snapshot(linecache.cache) if type(name) is str and name.startswith("<")]
    for name in [file] if type(file) is str else reversed(cells[-500:]):
        lines = linecache.getlines(name)
        for at, line in enumerate(lines):
            if header.match(line):
                return _block(lines, _first_decorator(lines, at))
    return ""


def _first_decorator(lines: list[str], at: int) -> int:
    while at > 0 and lines[at - 1].lstrip().startswith("@"):
        at -= 1
    return at


# -------------------------------------------------------------------------------------- summaries


def summary(value: Any, limit: int = SUMMARY_LIMIT) -> str:
    """Show a value in at most `limit` characters; what is not of a known type is only named."""
    text = _render(value, 3)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _render(value: Any, depth: int) -> str:
    kind = type(value)
    if kind is str or kind is bytes or kind is bytearray:
        return repr(value[:SUMMARY_LIMIT]) + ("..." if len(value) > SUMMARY_LIMIT else "")
    if kind is int:
        bits = value.bit_length()  # printing a long integer takes quadratic time, and Python refuses it
        return repr(value) if bits < 1000 else f"<int of {bits} bits>"
    if is_one_of(kind, (float, complex, bool, types.NoneType, types.EllipsisType, types.NotImplementedType)):
        return repr(value)
    if is_one_of(kind, (list, tuple, set, frozenset, dict, collections.deque)):
        return _render_container(value, kind, depth)
    return _render_other(value, kind, depth)


def _render_other(value: Any, kind: type, depth: int) -> str:
    if issubclass(kind, type):
        return f"<class {module_of(value)}.{type_name(value)}>"
    if issubclass(kind, types.ModuleType):
        name = find(instance_dict(value), "__name__")
        return f"<module {name if type(name) is str else '?'}>"
    function: Any = _function_of(value) if is_one_of(kind, _FUNCTIONS) else MISSING
    if function is not MISSING:
        return f"<function {function.__qualname__}{signature(value) if depth == 3 else ''}>"
    if is_array(value):
        return _render_array(value)
    if pandas_kind(kind):
        return _render_pandas(value)
    if issubclass(kind, BaseException):
        return type_name(kind) + _render(_get_exception_args(value), 1)
    if is_compiled(kind) and module_of(kind) == "datetime":
        return repr(value)
    if is_compiled(kind) and module_of(kind) == "numpy" and lookup(kind, "item") is not MISSING:
        item = value.item()
        if is_one_of(type(item), (bool, int, float, complex, str, bytes)):
            return _render(item, depth)
    count = size(value)
    return f"<{module_of(kind)}.{type_name(kind)}{'' if count is None else f', {count} items'}>"


def _first_items(values: Iterable[Any], limit: int) -> list[Any]:
    items: list[Any] = []
    for _ in range(_RETRIES):
        items = []
        try:
            items.extend(itertools.islice(values, limit))
        except RuntimeError:  # changed by the running cell meanwhile
            continue
        break
    return items


def _render_container(value: Any, kind: type, depth: int) -> str:
    marks = {"list": ("[", "]"), "tuple": ("(", ")"), "set": ("{", "}"), "dict": ("{", "}")}
    opening, closing = marks.get(kind.__name__, (f"{kind.__name__}([", "])"))
    limit = {3: 20, 2: 5}.get(depth, 2)
    more = ", ..." if len(value) > limit else ""
    if depth <= 0:
        inside, more = ("..." if value else ""), ""
    elif kind is dict:
        pairs = snapshot(value, limit)
        inside = ", ".join(f"{_render(key, depth - 1)}: {_render(item, depth - 1)}" for key, item in pairs)
    else:
        inside = ", ".join(_render(item, depth - 1) for item in _first_items(value, limit))
    if kind is set and not inside:
        return "set()"
    if kind is tuple and len(value) == 1:
        more = ","
    return f"{opening}{inside}{more}{closing}"


def _render_array(value: Any) -> str:
    kinds = {"f": "float", "i": "int", "u": "uint", "c": "complex"}
    dtype = value.dtype
    word = kinds.get(dtype.kind)
    name = f"{word}{dtype.itemsize * 8}" if word else {"b": "bool", "O": "object"}.get(dtype.kind, dtype.str)
    few = f": {_render(value.tolist(), 2)}" if value.size <= 20 and dtype.kind in "fiucbSU" else ""
    return f"<array {name} {value.shape}{few}>"


def _render_pandas(value: Any) -> str:
    axes = _pandas_axes(value)
    rows = _axis_length(axes[-1]) if axes else None
    shown = "?" if rows is None else rows
    if pandas_kind(type(value)) == "Series":
        return f"<Series, {shown} rows>"
    labels = column_labels(value, 20)
    return f"<DataFrame, {shown} rows: {', '.join(labels)}>"


def _axis_length(index: object) -> int | None:
    span = _pandas_field(index, "_range")
    if type(span) is range:
        return len(span)
    data = _pandas_field(index, "_data")
    data = data if is_array(data) else _pandas_field(data, "_ndarray")
    return len(data) if is_array(data) else None


def size(value: Any) -> int | None:
    """Return the number of items, elements or rows of a value of a known type, None for others."""
    for base in (str, bytes, bytearray, list, tuple, dict, set, frozenset, collections.deque, range):
        if issubclass(type(value), base):
            try:
                return int(base.__len__(value))
            except OverflowError:  # a range beyond sys.maxsize
                return None
    if is_array(value):
        return int(value.size)
    if pandas_kind(type(value)):
        axes = _pandas_axes(value)
        return _axis_length(axes[-1]) if axes else None
    return None


# -------------------------------------------------------------------------------- three questions


def inspect_name(code: str, cursor: int, namespace: dict[str, Any], *, detail: int = 0) -> Inspection:
    """Say what the expression at the cursor is; between the parentheses of a call, what is called.

    Args:
        code: Source; a "?" at its end is left out.
        cursor: Offset in characters; inside a name, the whole name counts.
        namespace: The kernel's variables.
        detail: 1 or more to have the source as well.
    """
    try:
        return _inspect(code, cursor, namespace, detail)
    except Exception:  # noqa: BLE001 - half-typed code over foreign objects: whatever it was, there is nothing to show
        return Inspection(found=False)


def _inspect(code: str, cursor: int, namespace: dict[str, Any], detail: int) -> Inspection:
    cursor = max(0, min(cursor, len(code)))
    while cursor < len(code) and (code[cursor].isalnum() or code[cursor] == "_"):
        cursor += 1
    tail = Tail(code[:cursor].rstrip("? \t\r\n"))
    end = len(tail.tokens)
    start = tail.primary(end)
    if start < 0 or (start == end - 1 and tail.tokens[start].kind in ("string", "number")):
        end = tail.open[-1] if tail.open else 0
        start = tail.primary(end)
    value = MISSING if start < 0 else tail.value_before(end, namespace)
    if value is MISSING:
        return Inspection(found=False)
    return Inspection(
        found=True,
        name=tail.text[tail.tokens[start].start : tail.tokens[end - 1].end],
        type=word_for(value),
        signature=signature(value),
        docstring=docstring(value),
        source=source_of(value) if detail else "",
        summary="" if type(value) is Unknown else summary(value),
    )


def list_variables(namespace: dict[str, Any]) -> list[dict[str, Any]]:
    """List the variables of a namespace by name, those that begin with "_" left out.

    Returns:
        One dict each: name, type (its type's name), summary (at most 200 characters) and size (number of
        items, elements or rows; None where that means nothing). At most 10,000.
    """
    items = [(name, value) for name, value in snapshot(namespace) if type(name) is str and not name.startswith("_")]
    items.sort(key=lambda item: item[0])
    return [
        {"name": name, "type": type_name(type(value)), "summary": summary(value), "size": size(value)}
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
        tree = compile(_ODD_ESCAPE.sub("__", code) + "\n", "<input>", "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        return "incomplete" if "incomplete input" in str(error) or code.endswith("\\") else "invalid"
    except (ValueError, OverflowError, RecursionError, MemoryError):  # null bytes, surrogates, too deep
        return "invalid"
    body: list[ast.stmt] = tree.body
    in_block = bool(body) and hasattr(body[-1], "body")
    _, line_end, last_line = code.rpartition("\n")
    return "incomplete" if in_block and (not line_end or last_line.strip()) else "complete"
