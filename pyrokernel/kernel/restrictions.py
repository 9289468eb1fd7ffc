"""What a mailed URL reaches of an object, and what it does not. Runs in the kernel process.

Whoever has a URL is not the owner of the kernel. From nearly any object of Python a path leads to code:
a function has its globals, a generator its frame, a module the modules that it imports, a file name the
file. So this room does not list what is dangerous; it lists what is given, and refuses the rest:

- data and arrays, as copies;
- of an object, the public methods and attributes that classes of the very package define which the
  shared object comes from; with `exposed`, of any object, the members that are marked with `expose`;
- of the builtin containers and of iterators, their items, to be read;
- of a function that was shared itself, the call.

Modules, classes, functions, frames, and objects of other packages are never given.
"""

from __future__ import annotations

import collections
import functools
import gc
import sys
import types
from typing import Any, Final

from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.kernel.reading import (
    MISSING,
    find,
    instance_dict,
    is_compiled,
    is_one_of,
    lookup,
    module_of,
    mro,
    type_dict,
)
from pyrokernel.wire.exposing import exposed_members, is_exposed
from pyrokernel.wire.plain import is_data

_CONTAINERS: Final[tuple[type, ...]] = (
    list, tuple, dict, set, frozenset, range, types.MappingProxyType,
    type({}.keys()), type({}.values()), type({}.items()),
    collections.deque, collections.OrderedDict, collections.defaultdict, collections.Counter,
)  # fmt: skip
"""Read without running anybody's code, but see `Rules.item`; a ChainMap asks any mapping, such as os.environ."""

_BEHIND_PROXIES: Final = (dict, collections.OrderedDict)
_CONTAINER_OPERATIONS: Final = frozenset({"item", "len", "contains", "bool", "iter"})
_ITERATOR_OPERATIONS: Final = frozenset({"next", "iter", "drain", "bool"})
_ITERATOR_MODULES: Final = frozenset({"builtins", "itertools", "collections", "_collections"})

_SPECIAL: Final = {
    "item": "__getitem__",
    "setitem": "__setitem__",
    "delitem": "__delitem__",
    "len": "__len__",
    "contains": "__contains__",
    "iter": "__iter__",
    "next": "__next__",
    "call": "__call__",
    "enter": "__enter__",
    "exit": "__exit__",
}
"""Operations of an object, and the method of its class that has to be there for them."""

_CLOSED: Final = frozenset(
    {"builtins", "pyrokernel", "Pyro5", "numpy", "pandas", "polars", "xarray", "scipy", "torch", "h5py", "tables"}
)
"""Packages whose objects run code or write files by their public methods; and all of the standard library."""

_METHODS: Final = (
    types.FunctionType, staticmethod, classmethod, functools.partialmethod, functools.singledispatchmethod,
    types.MethodDescriptorType, types.ClassMethodDescriptorType, type(functools.lru_cache(len)),
)  # fmt: skip


class Rules:
    """What one URL may do.

    Args:
        value: The object that is shared.
        exposed: Only members that are marked.

    Raises:
        SettingsError: Nothing of the object could ever be reached.
    """

    def __init__(self, value: Any, *, exposed: bool) -> None:
        self.exposed = exposed
        self._package = _package_behind(value)
        self._callable = value if _is_function(value) or isinstance(value, type) else None
        what = f"a {type(value).__name__}"
        if isinstance(value, types.ModuleType):
            raise SettingsError("a module leads to all that it imports; share an object of it, or one of its functions")
        if exposed:
            if isinstance(value, type) or not (is_exposed(value) or any(exposed_members(value))):
                raise SettingsError(f"nothing of {what} is marked with @pyrokernel.expose, so nothing would be reached")
        elif self._callable is None and not self.gives(value) and not is_data(value):
            raise SettingsError(
                f"by a URL nothing is reached of {what}: its public methods can run code or write files; share an "
                "object of a class of your own that does what is meant"
            )

    def beyond(self) -> Rules:
        """Return the rules for what is reached from the object: the same, but nothing else is called as a function."""
        rules = object.__new__(Rules)
        rules.exposed, rules._package, rules._callable = self.exposed, self._package, None
        return rules

    def gives(self, value: Any) -> bool:
        """Whether an object may be reached at all, as a reference under these rules."""
        kind = type(value)
        if _is_container(value) or _is_iterator(kind):
            return True
        if isinstance(value, (type, types.ModuleType)) or issubclass(kind, type) or _is_function(value):
            return False
        return any(exposed_members(value)) if self.exposed else self._is_open(kind)

    def check_value(self, value: Any, shown: str) -> None:
        """Refuse to give an object.

        Raises:
            AccessRefusedError: It is none that is given.
        """
        if not self.gives(value):
            raise AccessRefusedError(
                f"{shown} is a {type(value).__name__}, which stays in the kernel: by a URL only data, arrays and "
                "objects of the package that was shared are reached"
            )

    def check_operation(self, value: Any, operation: str, shown: str) -> None:
        """Refuse what may not be done to an object itself.

        Raises:
            AccessRefusedError: It may not.
            TypeError: Nobody could do that to it; `list`, for one, asks for a length and goes on only after this.
        """
        kind = type(value)
        if operation in _SPECIAL and lookup(kind, _SPECIAL[operation]) is MISSING:
            raise TypeError(f"{shown} is a {kind.__name__}, which has no {_SPECIAL[operation]}")
        if value is self._callable and value is not None:
            allowed = operation == "call" and (not self.exposed or is_exposed(value))
        elif _is_container(value):
            allowed = operation in _CONTAINER_OPERATIONS
        elif _is_iterator(kind):
            allowed = operation in _ITERATOR_OPERATIONS
        elif operation == "bool":
            allowed = self._has_special(kind, "__bool__") or self._has_special(kind, "__len__")
        elif operation == "drain":
            allowed = self._has_special(kind, "__next__")
        else:
            allowed = operation in _SPECIAL and self._has_special(kind, _SPECIAL[operation])
        if not allowed:
            raise AccessRefusedError(f"by this URL {shown} cannot be used so ({operation})")

    def item(self, value: Any, key: Any) -> Any:
        """Return an item, after `check_operation`; what a dictionary would make for a key that is missing is not made.

        Raises:
            LookupError: There is none.
        """
        if type(value) is not collections.defaultdict:
            return value[key]
        found = dict.get(value, key, MISSING)  # dict.__getitem__ asks the factory, too
        if found is MISSING:
            raise KeyError(key)
        return found

    def get(self, value: Any, name: str, shown: str) -> tuple[Any, bool]:
        """Return a public attribute, and whether it is a method.

        Raises:
            AccessRefusedError: It is not public, not marked, or of a class that was not shared.
            AttributeError: There is none.
        """
        raw = self._check_member(value, name, shown)
        found = getattr(value, name)
        if raw is not MISSING and is_one_of(type(raw), _METHODS):
            return found, True
        return found, False

    def set(self, value: Any, name: str, shown: str, new: Any) -> None:
        """Set a property; plain attributes are the owner's.

        Raises:
            AccessRefusedError: It is no property with a setter, or may not be reached.
        """
        raw = self._check_member(value, name, shown)
        if type(raw) is not property or raw.fset is None:
            raise AccessRefusedError(f"by a URL only properties with a setter are set, and {shown}.{name} is none")
        setattr(value, name, new)

    def names(self, value: Any) -> list[str] | None:
        """Return the only names that may be offered, None when all public ones may."""
        if self.exposed:
            methods, attributes = exposed_members(value)
            return sorted(name for name in methods | attributes if not name.startswith("_"))
        return None if self._is_open(type(value)) else []

    def _check_member(self, value: Any, name: Any, shown: str) -> Any:
        """Check whether an attribute may be reached; return how its class stores it, MISSING where it does not."""
        if type(name) is not str or not name.isidentifier() or name.startswith("_"):
            raise AccessRefusedError(f"by a URL only public names are reached, not {name!r}")
        if value is self._callable or _is_function(value) or isinstance(value, (type, types.ModuleType)):
            raise AccessRefusedError(f"{shown} is a {type(value).__name__}: by a URL nothing of it is reached")
        kind = type(value)
        if self.exposed:
            if not any(name in names for names in exposed_members(value)):
                raise AccessRefusedError(f"{shown}.{name} is not marked with @pyrokernel.expose")
            # An attribute of the object itself would be found before a method that is marked.
            if find(instance_dict(value), name) is not MISSING:
                raise AccessRefusedError(f"{shown}.{name} is not what its class has marked")
            return lookup(kind, name)
        if not self._is_open(kind):
            raise AccessRefusedError(f"{shown} is a {kind.__name__}: by a URL its attributes are not reached")
        owner, raw = _owner(kind, name)
        if owner is not None and not self._is_open(owner):
            raise AccessRefusedError(
                f"{shown}.{name} is defined by {module_of(owner)}.{owner.__name__}, which was not shared"
            )
        held = find(instance_dict(value), name)
        return MISSING if held is not MISSING and lookup(type(raw), "__set__") is MISSING else raw

    def _has_special(self, kind: type, name: str) -> bool:
        """Whether a class has a special method that may be used."""
        owner, raw = _owner(kind, name)
        if owner is None or raw is None:
            return False
        return is_exposed(raw) if self.exposed else self._is_open(owner)

    def _is_open(self, kind: type) -> bool:
        """Whether the public names of a class are reached: it is of the package that was shared."""
        package = _package_of(kind)
        return package == self._package and package != "" and not _is_closed(package)


def _owner(kind: type, name: str) -> tuple[type | None, Any]:
    """Return which of its bases defines a name of a class, and as what."""
    for base in mro(kind):
        raw = find(type_dict(base), name)
        if raw is not MISSING:
            return base, raw
    return None, MISSING


def _is_container(value: Any) -> bool:
    """Whether an object is a container of Python's own that is read without running anybody's code."""
    kind = type(value)
    if kind is types.MappingProxyType:
        # It shows any mapping, and has no attribute that says which.
        return is_one_of(type(gc.get_referents(value)[0]), _BEHIND_PROXIES)
    return is_one_of(kind, _CONTAINERS)


def _is_iterator(kind: type) -> bool:
    """Whether a class is an iterator of Python's own, over whatever."""
    own = is_compiled(kind) and module_of(kind) in _ITERATOR_MODULES
    return own and lookup(kind, "__next__") is not MISSING


def _package_of(kind: type) -> str:
    return module_of(kind).partition(".")[0]


def _package_behind(value: Any) -> str:
    """Return the package that is shared with an object: that of its class or, of a function, where it was written."""
    if not _is_function(value) and not isinstance(value, type):
        return _package_of(type(value))
    while isinstance(value, functools.partial):
        value = value.func
    module = getattr(value, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""


def _is_closed(package: str) -> bool:
    return package != "__main__" and (package in _CLOSED or package in sys.stdlib_module_names)


def _is_function(value: Any) -> bool:
    return isinstance(
        value,
        (
            types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType,
            types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
            functools.partial, type(functools.lru_cache(len)),
        ),
    )  # fmt: skip
