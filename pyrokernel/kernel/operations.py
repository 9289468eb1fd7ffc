"""What is done through a reference: one operation on one object, as a cell. Runs in the kernel process.

`call` takes an operation in place of a function: `{"ref": token, "op": "call", "member": "snap"}`. Its
value goes back as data where it is data, and stays here, lent to whoever asked, where it is not.
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pyrokernel.client.reference import Reference
from pyrokernel.errors import AccessRefusedError, ProtocolError
from pyrokernel.kernel.attributes import attributes
from pyrokernel.kernel.references import Entry, References
from pyrokernel.kernel.restrictions import Rules
from pyrokernel.messages import Lent
from pyrokernel.wire.plain import is_data, is_simple

_MAX_NAME_CHARS: Final = 1000
_MAX_SHOWN_CHARS: Final = 200
_BOUND: Final = (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)
_RAW: Final = frozenset({"repr", "len", "contains", "bool", "set", "setitem", "delitem", "del", "exit", "fetch"})
"""Operations whose values are never lent."""
_ATTRIBUTE: Final = frozenset({"get", "set", "del"})
_PARTS: Final = frozenset({"get", "item"})
"""Operations that look at a part of an object: what can change is lent, so that a change of it is seen."""


class Operation:
    """One operation; callable with the arguments that came along.

    Args:
        table: The references of this kernel.
        asked: What the request says: "ref" and "op", where they are needed "member" and "name"; without "ref" the
            operation "make" makes the first reference, of the value of "source".
        holder: Id of the client, to which is lent what stays here.
        by: Identity of who asks.
        variables: Where the source of "make" is evaluated.
        max_bytes: Larger arrays, texts and bytes are lent, not copied.

    Raises:
        ReferenceGoneError: The reference leads nowhere.
        AccessRefusedError: By its rules this is never allowed.
        ProtocolError: There is no such operation.
    """

    def __init__(
        self,
        table: References,
        asked: Mapping[str, Any],
        *,
        holder: str,
        by: str,
        variables: dict[str, Any],
        max_bytes: int,
    ) -> None:
        self._table, self._holder, self._by, self._max_bytes = table, holder, by, max_bytes
        self._variables = variables
        self._op = str(asked.get("op") or "")
        self._name, self._member = (_name(asked.get(key)) for key in ("name", "member"))
        self._source = asked.get("source") or ""
        self._entry: Entry | None = None
        self._rules: Rules | None = None
        self._got_method = False
        if self._op != "make":
            self._entry = table.find(str(asked.get("ref") or ""))
            self._entry.uses += 1
            self._rules = self._entry.rules  # kept: an entry that ends meanwhile has none any more
            self._check_lives()
        if self._op not in ("make", *_OPERATIONS):
            raise ProtocolError(f"there is no operation {self._op!r} on a reference")
        if (self._op in _ATTRIBUTE) != bool(self._name):
            raise ProtocolError(f"operation {self._op!r} {'needs a' if self._op in _ATTRIBUTE else 'takes no'} name")

    @property
    def restricted(self) -> bool:
        """Whether only data comes and goes."""
        return self._rules is not None

    @property
    def title(self) -> str:
        """How lists and events show it."""
        if self._entry is None:
            return f"ref {self._source}"
        shown = f"{self._entry.shown}.{self._member}" if self._member else self._entry.shown
        return _TITLES.get(self._op, f"{self._op}({{}})").format(shown, self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do it; the result of a call is awaited where it can be, then all goes through `lend`."""
        value = self._do(*args, **kwargs)
        return value if self._op in ("call", "drain") else _Found(value)

    def _do(self, *args: Any, **kwargs: Any) -> Any:
        if self._entry is None:
            return eval(compile(str(self._source).strip(), "<reference>", "eval"), self._variables)
        entry = self._entry
        value = entry.value
        self._check_lives()
        if self._member:
            value = self._bound(value)
        if self._rules is not None:
            return self._restricted(value, args, kwargs)
        if self._op in _ATTRIBUTE:
            found = _ATTRIBUTES[self._op](value, self._name, *args)
            # A method needs no entry of its own.
            self._got_method = isinstance(found, _BOUND) and found.__self__ is entry.value and not self._member
            return found
        return _OPERATIONS[self._op](value, *args, **kwargs)

    def _check_lives(self) -> None:
        if self._entry is not None and self._entry.gone:  # since it was asked for
            raise self._table.gone(self._entry.gone)

    def lend(self, value: Any) -> dict[str, Any]:
        """Return a value as it travels: under "value" what is data, under "lent" what is said of all else."""
        if type(value) is _Found:
            value = value.value
        if self._op in _RAW or (type(value) is Reference and not self.restricted):
            return {"value": value}
        if self._op not in ("make", "iter") and self._is_copied(value) and not self._is_large(value):
            return {"value": value}
        return {"lent": self._lent(value).to_wire()}

    def _lent(self, value: Any) -> Lent:
        entry = self._entry
        if entry is None:
            return self._table.lend(value, shown=str(self._source).strip(), holder=self._holder, by=self._by)
        rules = self._rules
        if value is entry.value and not self._member:
            return self._table.lend_again(entry, self._holder)
        if self._got_method:
            found = entry.lent(self._name)  # of this entry its client knows
            self._check_lives()
            return found
        if rules is not None:
            rules.check_value(value, self._shown)
        return self._table.lend(
            value, shown=self._shown, holder=self._holder, by=self._by, under=entry if rules is not None else None
        )

    @property
    def _shown(self) -> str:
        shown = self.title
        if self._op in ("drain", "next", "iter") and self._entry is not None:
            shown = self._entry.shown if self._op == "iter" else f"an item of {self._entry.shown}"
        return shown[:_MAX_SHOWN_CHARS]

    def _bound(self, value: Any) -> Any:
        """Return the method that is meant."""
        entry = self._entry
        assert entry is not None  # a member belongs to one
        if self._rules is None:
            return getattr(value, self._member)
        found, is_method = self._rules.get(value, self._member, entry.shown)
        if not is_method or self._op != "call":
            raise AccessRefusedError(f"{entry.shown}.{self._member} is a method: by a URL it is called, nothing else")
        return found

    def _restricted(self, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do what the rules of a URL allow."""
        assert self._entry is not None
        rules, shown = self._rules, self._entry.shown
        assert rules is not None
        if self._op == "get":
            found, self._got_method = rules.get(value, self._name, shown)
            return found
        if self._op == "set":
            return rules.set(value, self._name, shown, *args)
        if self._op == "fetch":
            if is_data(value):
                return value
            raise AccessRefusedError(f"{shown} is a {type(value).__name__}: by a URL only data and arrays are fetched")
        if not self._member:
            rules.check_operation(value, self._op, shown)
        if self._op == "item":
            return rules.item(value, *args)
        return _OPERATIONS[self._op](value, *args, **kwargs)

    def _is_copied(self, value: Any) -> bool:
        """Whether a value goes by value: data does; of a part of an object only what cannot change."""
        if self._op not in _PARTS:
            return is_data(value)
        rules = self._rules
        # What is not given under the rules, such as an array, can be had in no other way.
        return is_simple(value) or (rules is not None and not rules.gives(value) and is_data(value))

    def _is_large(self, value: Any) -> bool:
        """Whether a value is lent because of its size alone."""
        if type(value) in (str, bytes):
            return len(value) > self._max_bytes
        size = getattr(value, "nbytes", 0)
        return isinstance(size, int) and size > self._max_bytes


def members(entry: Entry) -> list[str]:
    """Return the names that Tab offers after a reference, read as they lie; of what is restricted, those it reaches."""
    value, rules = entry.value, entry.rules
    if entry.gone:
        return []
    names = [name for name in attributes(value) if name.isidentifier()]
    if rules is None:
        return sorted(names)
    allowed = rules.names(value)
    return [name for name in (sorted(names) if allowed is None else allowed) if not name.startswith("_")]


class _Found:
    """A value that was found, not returned by a call: it may be awaitable, and is not awaited."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def show_operation(asked: Mapping[str, Any], shown: str) -> str:
    """Return how an operation reads that nobody has looked at yet; `shown` is what its client calls the object."""
    member, name = asked.get("member"), str(asked.get("name") or "")
    target = f"{shown}.{member}" if member else shown
    return _TITLES.get(str(asked.get("op")), "{}").format(target, name)


def _name(name: Any) -> str:
    if name in (None, ""):
        return ""
    if not isinstance(name, str) or len(name) > _MAX_NAME_CHARS:
        raise ProtocolError("an attribute is named by a text")
    return name


def _each(values: Iterator[Any]) -> Iterator[Any]:
    """Go on with an iterator that is to live on: the `for` around a generator would close it."""
    while True:
        try:
            value = next(values)
        except StopIteration:
            return
        yield value


def _leave(value: Any, ename: str = "", evalue: str = "") -> bool:
    """End a `with` block; an exception that was raised at the client is made here again, as well as can be."""
    if not ename:
        return bool(type(value).__exit__(value, None, None, None))
    kind = getattr(builtins, ename, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        kind = type(ename, (Exception,), {"__module__": "client"})
    try:
        error = kind(evalue)
    except TypeError:  # it takes more than a text, as a UnicodeDecodeError does
        kind = type(ename, (Exception,), {"__module__": "client"})
        error = kind(evalue)
    return bool(type(value).__exit__(value, kind, error, None))


def _set_item(value: Any, key: Any, new: Any) -> None:
    value[key] = new


def _delete_item(value: Any, key: Any) -> None:
    del value[key]


_ATTRIBUTES: Final[dict[str, Callable[..., Any]]] = {"get": getattr, "set": setattr, "del": delattr}

_OPERATIONS: Final[dict[str, Callable[..., Any]]] = {
    **_ATTRIBUTES,
    "call": lambda value, *args, **kwargs: value(*args, **kwargs),
    "item": lambda value, key: value[key],
    "setitem": _set_item,
    "delitem": _delete_item,
    "len": len,
    "contains": lambda value, item: item in value,
    "bool": bool,
    "iter": iter,
    "drain": _each,
    "next": next,
    "enter": lambda value: type(value).__enter__(value),
    "exit": _leave,
    "repr": repr,
    "fetch": lambda value: value,
    "hold": lambda value: value,
}

_TITLES: Final = {
    "get": "{0}.{1}",
    "set": "{0}.{1} = ...",
    "del": "del {0}.{1}",
    "call": "{0}(...)",
    "item": "{0}[...]",
    "setitem": "{0}[...] = ...",
    "delitem": "del {0}[...]",
    "contains": "... in {0}",
    "drain": "for ... in {0}",
    "enter": "with {0}",
    "exit": "end of with {0}",
    "make": "ref {0}",
    "fetch": "{0}",
    "hold": "{0}",
    **{name: name + "({0})" for name in ("len", "bool", "iter", "next", "repr")},
}
