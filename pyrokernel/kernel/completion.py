"""What Tab offers, from the live namespace and without running code of its owner. Runs in the kernel process.

`complete` answers from a control thread while a cell runs. `expressions` follows the half-typed source
to a live object; here it is decided what fits: names, attributes, keys, columns, keyword arguments,
modules. Nothing is imported, and objects are looked at as `reading` says.
"""

from __future__ import annotations

import builtins
import itertools
import keyword
import types
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pyrokernel.client.reference import Reference, names_of
from pyrokernel.client.shared_map import SharedMap, keys_of
from pyrokernel.kernel.attributes import attributes, get_attribute
from pyrokernel.kernel.columns import column_labels, pandas_kind
from pyrokernel.kernel.expressions import value_before
from pyrokernel.kernel.keys import spell_keys
from pyrokernel.kernel.modules import list_members, list_modules
from pyrokernel.kernel.paths import complete_path, may_be_path
from pyrokernel.kernel.reading import (
    MISSING,
    SCAN_LIMIT,
    Unknown,
    find,
    first_items,
    instance_dict,
    lookup,
    snapshot,
    word_for,
)
from pyrokernel.kernel.signatures import parameters
from pyrokernel.kernel.tokens import Tail, bound_names, open_brace, string_parts
from pyrokernel.messages import Completion

MATCH_LIMIT: Final = 1000
"""Matches in one answer."""

_KEYWORDS: Final = sorted({*keyword.kwlist, "match", "case"})

Matches = dict[str, str]
"""Match to its one-word type, in the order shown."""


def complete(
    code: str,
    cursor: int,
    namespace: dict[str, Any],
    *,
    allow_dir: bool = False,
    ask: bool = True,
    extra: Iterable[str] = (),
    files: bool = False,
) -> Completion:
    """Find what the text before the cursor could become.

    Args:
        code: Source, as far as it is typed; it need not parse.
        cursor: Offset in characters.
        namespace: The kernel's variables; may change while it is read.
        allow_dir: Whether a user's `__dir__` may be called: only while no cell runs.
        ask: Whether other processes may be asked, in the name of this one: what a reference has, which keys are shared.
        extra: More names, such as commands; completed where a variable could stand.
        files: Whether the asker may know which files there are: completed in strings.

    Returns:
        At most 1,000 matches; none for what cannot be understood. A key is completed without the
        closing quote, a keyword argument with its "=".
    """
    cursor = max(0, min(cursor, len(code)))
    try:
        start, matches = _Finder(code[:cursor], namespace, allow_dir, ask, extra, files).find()
    except Exception:  # noqa: BLE001 - half-typed code over foreign objects: Tab shows nothing rather than an error
        start, matches = cursor, {}
    shown = dict(itertools.islice(matches.items(), MATCH_LIMIT))
    return Completion(
        matches=tuple(shown),
        types=tuple(shown.values()),
        cursor_start=start if shown else cursor,
        cursor_end=cursor,
    )


class _Finder:
    """One question: the tokens before the cursor and what may be looked at."""

    def __init__(
        self, source: str, namespace: dict[str, Any], allow_dir: bool, ask: bool, extra: Iterable[str], files: bool
    ) -> None:
        self.source = source
        self.namespace = namespace
        self.allow_dir = allow_dir
        self.ask = ask
        self.extra = extra
        self.files = files
        self.words: dict[int, str] = {}
        self.tail = Tail(source)
        tokens = self.tail.tokens
        self.end = len(tokens)
        """Index of the first token that is being typed; `n_tokens` when nothing is."""
        self.prefix = ""
        if tokens and tokens[-1].kind == "name" and tokens[-1].end == len(self.tail.text):
            self.end -= 1
            self.prefix = tokens[-1].text

    def find(self) -> tuple[int, Matches]:
        """Return where the replaced text starts, and the matches."""
        tokens, tail = self.tail.tokens, self.tail
        start = len(self.source) - len(self.prefix)
        if tail.in_comment:
            return start, {}
        touching = tokens[self.end - 1] if self.end and tokens[self.end - 1].end + tail.offset == start else None
        if touching is not None and touching.kind == "string" and not self.prefix:
            return self._in_string()
        imported = self._import()
        if imported is not None:
            return imported
        if touching is not None and touching.kind == "number":
            return self._in_number() if not self.prefix else (start, {})
        before = tokens[self.end - 1] if self.end else None
        if before is not None and before.text == ".":
            return start, self._attributes()
        if before is not None and before.text in ("def", "class", "as"):
            return start, {}
        if touching is not None and (touching.kind != "op" or touching.text in ")]}"):
            return start, {} if touching.kind != "newline" else self._names()
        if before is not None and before.text == "[" and not self.prefix and tail.is_trailer(self.end - 1):
            keys = self._keys("", "", None)
            if keys:
                return start, keys
        return start, {**self._keyword_arguments(), **self._names()}

    # -- names

    def _names(self) -> Matches:
        bound = bound_names(self.tail.tokens[: self.end])
        found = {name: "name" for name in bound if name.startswith(self.prefix)}
        found |= {name: self._word(value) for name, value in self._starting(snapshot(self.namespace))}
        found = self._visible(found)
        for name in itertools.islice(self.extra, SCAN_LIMIT):
            if name.startswith(self.prefix):
                found.setdefault(name, "name")
        rest = {name: self._word(value) for name, value in self._starting(snapshot(builtins.__dict__))}
        rest |= {name: "keyword" for name in _KEYWORDS if name.startswith(self.prefix)}
        for name, word in self._visible(rest).items():
            found.setdefault(name, word)
        return found

    def _word(self, value: Any) -> str:
        if type(value) is Unknown:
            return word_for(value)
        kind = id(type(value))  # hashing a type could call its metaclass
        word = self.words.get(kind)
        if word is None:
            word = self.words[kind] = word_for(value)
        return word

    def _starting(self, items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
        for name, value in items:
            if type(name) is str and name.startswith(self.prefix) and name.isidentifier():
                yield name, value

    def _visible(self, matches: Matches) -> Matches:
        """Sort by name; names that begin with "_" are shown when it is typed, or when there are no others."""
        names = sorted(matches)
        if self.prefix.startswith("__"):
            return {name: matches[name] for name in names}
        hidden = self.prefix + "_"
        hidden = hidden if hidden in ("_", "__") else "\0"
        shown = [name for name in names if not name.startswith(hidden)]
        return {name: matches[name] for name in shown or names}

    def _keyword_arguments(self) -> Matches:
        """Offer the parameters of the call around the cursor that are not given yet."""
        tail, tokens = self.tail, self.tail.tokens
        if not tail.open:
            return {}
        opening = tail.open[-1]
        if tokens[opening].text != "(" or not tail.is_trailer(opening) or tokens[self.end - 1].text not in ("(", ","):
            return {}
        if opening > 1 and tokens[opening - 2].text in ("def", "class"):
            return {}
        found = parameters(value_before(tail, opening, self.namespace, ask=self.ask)) or []
        given, n_positional, index = set(), 0, opening + 1
        while index < self.end:
            if index + 1 < self.end and tokens[index + 1].text == "=":
                given.add(tokens[index].text)
                n_positional -= 1
            n_positional += tokens[index].text == ","
            index = max(index, tail.pairs.get(index, index)) + 1
        names = [
            parameter.name
            for at, parameter in enumerate(found)
            if parameter.kind == "*" or (parameter.kind == "" and at >= n_positional)
        ]
        return {f"{name}=": "parameter" for name in names if name not in given and name.startswith(self.prefix)}

    # -- attributes

    def _attributes(self) -> Matches:
        value = value_before(self.tail, self.end - 1, self.namespace, ask=self.ask)
        if value is MISSING:
            return {}
        columns = {
            name: "column"
            for name in (column_labels(value) if pandas_kind(type(value)) else [])
            if name.startswith(self.prefix) and name.isidentifier() and not keyword.iskeyword(name)
        }
        found = {name: self._attribute_word(value, raw) for name, raw in self._starting(attributes(value).items())}
        for name in self._announced(value):
            if name.startswith(self.prefix) and name.isidentifier():
                found.setdefault(name, "attribute")
        return {**dict(itertools.islice(columns.items(), MATCH_LIMIT)), **self._visible(found)}

    def _attribute_word(self, value: Any, raw: object) -> str:
        if type(raw) is types.MemberDescriptorType and type(value) is not Unknown:
            held = get_attribute(value, raw.__name__)  # a slot: the word is that of what it holds
            return "property" if held is MISSING else word_for(held)
        return self._word(raw)

    def _announced(self, value: Any) -> list[str]:
        """List names the object says it has: a module's `__all__`; what a user's `__dir__` returns, if it may run."""
        names: list[Any] = []
        kind = type(value)
        if kind is Reference:
            return (
                names_of(value) if self.ask else []
            )  # no code runs here, and its own kernel answers while it computes, too
        if kind is Unknown:
            return []
        if issubclass(kind, types.ModuleType):
            promised = find(instance_dict(value), "__all__")  # lazily loading packages list what they would load
            names += promised[:SCAN_LIMIT] if type(promised) is list or type(promised) is tuple else []
            custom = find(instance_dict(value), "__dir__") is not MISSING
        else:
            custom = type(lookup(kind, "__dir__")) is types.FunctionType
        if custom and self.allow_dir:
            names += _asked(value)
        return [name for name in names if type(name) is str]

    # -- keys

    def _in_string(self) -> tuple[int, Matches]:
        """Complete the key in `d["ke`, a column name in `df[["a", "b`, the expression in an f-string, or a path."""
        token = self.tail.tokens[-1]
        prefix, quote, body, closed = string_parts(token)
        start = len(self.source) - len(body)
        if closed:
            return len(self.source), {}
        if "f" in prefix:
            at = open_brace(body)
            if at is not None:
                rest = body[at:]
                finder = _Finder(rest, self.namespace, self.allow_dir, self.ask, self.extra, self.files)
                inner, matches = finder.find()
                return start + at + inner, matches
        self.end = len(self.tail.tokens) - 1
        keys = {} if "f" in prefix else self._keys(prefix, quote, body)
        if keys or not self.files or not may_be_path(self.tail):
            return start, keys
        found = complete_path(body)
        typed = body[found.cursor_start :]
        names = spell_keys(found.matches, prefix, quote, typed, MATCH_LIMIT)
        return start + found.cursor_start, {name: "directory" if name.endswith("/") else "file" for name in names}

    def _in_number(self) -> tuple[int, Matches]:
        token = self.tail.tokens[-1]
        self.end = len(self.tail.tokens) - 1
        if self.end < 2 or self.tail.tokens[self.end - 1].text != "[":
            return len(self.source), {}
        found = {key: word for key, word in self._keys("", "", None).items() if key.startswith(token.text)}
        return len(self.source) - len(token.text), found

    def _keys(self, prefix: str, quote: str, typed: str | None) -> Matches:
        """List the keys of what is indexed at the cursor, as they would be typed; `typed` is the part after a quote."""
        tail = self.tail
        opening = tail.open[-1] if tail.open else -1
        listed = False
        if opening > 0 and tail.tokens[opening].text == "[" and not tail.is_trailer(opening):
            listed = len(tail.open) > 1 and tail.open[-2] == opening - 1
            opening -= 1
        elif opening != self.end - 1:
            return {}
        if opening < 0 or tail.tokens[opening].text != "[" or not tail.is_trailer(opening):
            return {}
        value = value_before(tail, opening, self.namespace, ask=self.ask)
        if type(value) is SharedMap and not listed:
            if not self.ask:
                return {}
            keys: Iterable[Any] = keys_of(value).complete_keys(typed or "", MATCH_LIMIT)
            return dict.fromkeys(spell_keys(keys, prefix, quote, typed, MATCH_LIMIT), "key")
        if issubclass(type(value), dict) and not listed:
            keys, word = first_items(dict.keys(value)), "key"
        else:
            keys, word = list(column_labels(value)), "column" if pandas_kind(type(value)) else "key"
        return dict.fromkeys(spell_keys(keys, prefix, quote, typed, MATCH_LIMIT), word)

    # -- imports

    def _import(self) -> tuple[int, Matches] | None:
        """Complete inside an import statement; None when the cursor is in none."""
        tail, tokens = self.tail, self.tail.tokens
        first = self.end
        while first > 0:
            before = first - 1
            if tail.pairs.get(before, first) < before:
                first = tail.pairs[before]
            elif tokens[before].kind == "newline" or tokens[before].text in (";", ":"):
                break
            else:
                first = before
        words = [token.text for token in tokens[first : self.end]]
        if not words or words[0] not in ("import", "from"):
            return None
        start = len(self.source) - len(self.prefix)
        last = words[-1]
        if words[0] == "from" and "import" in words:
            module = "".join(words[1 : words.index("import")])
            fits = last in ("import", ",", "(")
            return start, self._visible(list_members(module, self.prefix)) if fits and module[:1] != "." else {}
        since = len(words) - words[::-1].index(",") if "," in words else 1
        if "as" in words[since:]:
            return start, {}
        if last not in ("import", "from", ",", "."):
            follow = "import" if words[0] == "from" else "as"
            return start, {follow: "keyword"} if follow.startswith(self.prefix) else {}
        if words[0] == "from" and words[1:2] == ["."]:
            return start, {}  # relative to what? a namespace has no package
        parent = "".join(words[since:]).rstrip(".")
        return start, self._visible(list_modules(parent, self.prefix))


def _asked(value: Any) -> list[Any]:
    try:
        return dir(value)[:SCAN_LIMIT]
    except Exception:  # noqa: BLE001 - user code, asked for; the static names remain
        return []
