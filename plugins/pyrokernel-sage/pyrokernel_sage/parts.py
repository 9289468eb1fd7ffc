"""The names that the installed parts of Sage give, and what stands for missing ones. Runs in the kernel process.

passagemath splits Sage into packages; each brings a module `sage.all__sagemath_*` with the names it
adds to a session. A kernel gets the union of those that are there.
"""

from __future__ import annotations

import copyreg
import importlib
import importlib.util
import logging
import operator
import pkgutil
import sys
from types import ModuleType
from typing import Any, NoReturn

from pyrokernel_sage.interrupts import undisturbed

log = logging.getLogger(__name__)

_PREFIX = "all__sagemath_"

PACKAGES = {
    **dict.fromkeys(("ZZ", "QQ", "GF", "PolynomialRing", "ellipsis_range", "ellipsis_iter"), "passagemath-categories"),
    **dict.fromkeys(("RR", "CC", "matrix", "vector"), "passagemath-modules[numpy]"),
    "TimeSeries": "passagemath-modules[numpy]",
    **dict.fromkeys(("var", "symbolic_expression"), "passagemath-symbolics"),
}
"""What a cell of Sage is likely to name, and what brings it; for those the error says what to install."""

_names: dict[str, object] | None = None
_said = False


class NotInstalled:
    """Stands for a name whose part of Sage is not installed.

    Args:
        name: The name.
        package: What has to be installed.
    """

    def __init__(self, name: str, package: str) -> None:
        self._name = name
        self._package = package

    def __repr__(self) -> str:
        return f"<{self._name} is not installed here: pip install '{self._package}'>"

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Say what to install."""
        raise self._error()

    def __getitem__(self, key: Any) -> NoReturn:
        raise self._error()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # Python asks for many of those; they have to be missing in the usual way
            raise AttributeError(name)
        raise self._error()

    def _error(self) -> ModuleNotFoundError:
        return ModuleNotFoundError(f"{self._name} is not installed in this kernel: pip install '{self._package}'")


def names() -> dict[str, object]:
    """Return what a Sage kernel finds without an import, by name; imports the installed parts of Sage.

    Where Sage's numbers are not installed, `Integer`, `RealNumber` and `ComplexNumber` are Python's:
    `2^10` is 1024 all the same, and `3/4` is 0.75.

    Raises:
        RuntimeError: They are not imported yet, and this is not the main thread.
    """
    global _names
    if _names is None:
        with undisturbed():
            _names = combined([_public(part) for part in _parts()])
        _pickle_lazy_imports()
    return _names


def combined(parts: list[dict[str, object]]) -> dict[str, object]:
    """Put the names of several parts together, and fill up what preparsed code cannot do without.

    Args:
        parts: Names of each, in any order. A part includes those it is built on, and may improve their names:
            the larger one has its way.
    """
    found: dict[str, object] = {"Integer": int, "RealNumber": float, "ComplexNumber": _python_complex}
    for part in sorted(parts, key=len):
        found.update(part)
    for name, package in PACKAGES.items():
        if name not in found and not (name == "TimeSeries" and _has("pyrokernel_timeseries")):
            found[name] = NotInstalled(name, package)
    return found


def say_what_is_missing() -> None:
    """Tell the user, once in a kernel, that numbers are Python's."""
    global _said
    if not _said and _names is not None and _names["Integer"] is int:
        sys.stderr.write(
            "pyrokernel-sage: Sage's numbers are not installed here, so numbers are Python's: 3/4 is 0.75 "
            "(pip install 'pyrokernel-sage[full]')\n"
        )
        _said = True


def renew_randomness() -> None:
    """Seed Sage anew: kernels forked from a template that has imported it would all draw the same numbers."""
    if _has("sage.misc.randstate"):
        importlib.import_module("sage.misc.randstate").set_random_seed()


def _parts() -> list[ModuleType]:
    """Import the parts that are installed; one that fails costs itself alone."""
    sage = importlib.import_module("sage")
    found = []
    for each in pkgutil.iter_modules(sage.__path__, "sage."):
        if each.name.startswith("sage." + _PREFIX):
            try:
                found.append(importlib.import_module(each.name))
            except Exception as error:  # noqa: BLE001  a part may lack a library, or another part
                log.warning("%s cannot be imported: %s: %s", each.name, type(error).__name__, error)
    return found


def _public(module: ModuleType) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def _python_complex(real: float, imaginary: float | str) -> complex:
    return complex(float(real), float(imaginary))


def _pickle_lazy_imports() -> None:
    """Let functions travel that name what Sage has not imported yet: those objects refuse to be pickled."""
    if _has("sage.misc.lazy_import"):
        lazy: Any = importlib.import_module("sage.misc.lazy_import").LazyImport
        copyreg.pickle(lazy, lambda value: (operator.itemgetter(0), ((value._get_object(),),)))


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
