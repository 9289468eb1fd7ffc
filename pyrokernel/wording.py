"""The parameters of a command as words of a command line. Runs in the caller's process.

`pyrokernel call` and the shell make the parser of a command of the description that kernels give
(`CommandInfo.parameters`), so that one annotated function is a command line as well.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pyrokernel.errors import SettingsError

_NEGATIVE = re.compile(r"-(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?j?$|-(inf|nan)$")
_SECTIONS = ("Args:", "Arguments:", "Parameters:")
_WITH_DEFAULTS = ("positional", "either", "keyword")


def add_arguments(parser: argparse.ArgumentParser, parameters: Sequence[Mapping[str, Any]]) -> None:
    """Make the parameters of a command arguments of a parser: what is required by position, the rest as options.

    Args:
        parser: Of the command.
        parameters: As `CommandInfo.parameters` has them.
    """
    parser._negative_number_matcher = _NEGATIVE  # the usual one takes -1e5 for an option
    for one in parameters:
        _add(parser, one)


def _add(parser: argparse.ArgumentParser, one: Mapping[str, Any]) -> None:
    name, word = one["name"], one["type"]
    many = word.startswith("list of ") or one["kind"] == "rest"
    word = word.removeprefix("list of ")
    default = f"(default: {one['default']})" if not one["required"] and one["kind"] in _WITH_DEFAULTS else ""
    # What a docstring says goes through %-formatting.
    about = f"{one['help']} {default}".strip().replace("%", "%%")
    options: dict[str, Any] = {"help": about or None}
    if one["kind"] == "options":
        parser.add_argument(_dest(name), nargs="*", metavar="NAME=VALUE", type=_assignment, **options)
        return
    if word == "bool" and not many and not one["required"]:
        parser.add_argument(
            _flag(parser, name), dest=_dest(name), action=argparse.BooleanOptionalAction, default=None, **options
        )
        return
    read = _READERS.get(word, read_literal)
    options["type"] = _several(read) if many and not one["choices"] else read
    if one["choices"]:
        options["choices"] = one["choices"]
    else:
        options["metavar"] = name.upper()
    if one["kind"] == "rest":
        parser.add_argument(_dest(name), nargs="*", **options)
    elif one["required"] and one["kind"] != "keyword":
        parser.add_argument(_dest(name), nargs="+" if many else None, **options)
    else:
        parser.add_argument(
            _flag(parser, name),
            dest=_dest(name),
            nargs="+" if many else None,
            required=one["required"],
            default=None,
            **options,
        )


def arguments_from(
    parsed: argparse.Namespace, parameters: Sequence[Mapping[str, Any]]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of the call that a command line means: positional ones, and those by name.

    Args:
        parsed: What a parser of `add_arguments` read.
        parameters: As for that.

    Raises:
        SettingsError: One must be given because one behind it is; the message says which.
    """
    given = {one["name"]: _flat(getattr(parsed, _dest(one["name"]), None)) for one in parameters}
    rest = next((given[one["name"]] for one in parameters if one["kind"] == "rest"), None) or []
    last = max((place for place, one in enumerate(parameters) if _is_placed(one, given[one["name"]], rest)), default=-1)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for place, one in enumerate(parameters):
        value = given[one["name"]]
        if one["kind"] == "rest":
            args += rest
        elif one["kind"] == "options":
            kwargs |= dict(value or [])
        elif place <= last and one["kind"] in ("positional", "either"):
            args.append(_default_of(one) if value is None else value)
        elif value is not None:
            kwargs[one["name"]] = value
    return args, kwargs


def _is_placed(one: Mapping[str, Any], value: Any, rest: Sequence[Any]) -> bool:
    """Whether a value must stand in its place, with all before it in theirs."""
    if one["kind"] == "either":
        return bool(rest) or bool(one["required"])
    return one["kind"] == "positional" and (value is not None or bool(rest))


def _default_of(one: Mapping[str, Any]) -> Any:
    """Return the default of a parameter that stands before one that is given.

    Raises:
        SettingsError: It is nothing that could be written.
    """
    try:
        if one["default"] == "...":  # which stands for what has no literal
            raise ValueError(one["name"])
        return ast.literal_eval(one["default"])
    except (ValueError, SyntaxError) as error:
        flag = one["name"].strip("_").replace("_", "-")
        raise SettingsError(f"give --{flag} as well: other arguments follow it, and it has a place") from error


def without_arguments(doc: str) -> str:
    """Return a docstring without the section that describes the arguments, which the help lists anyway."""
    kept: list[str] = []
    skipping = False
    for line in doc.strip().splitlines():
        if skipping and line.strip() and not line[0].isspace():
            skipping = False
        skipping = skipping or line.strip() in _SECTIONS
        if not skipping:
            kept.append(line)
    return "\n".join(kept).strip()


def read_literal(text: str) -> Any:
    """Return what a word means where anything is taken: a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


class _Several(list[Any]):
    """Items that were written as one word, such as "[1, 2]"."""


def _several(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return what reads an item of a list, or all of them as Python writes them."""

    def item(text: str) -> Any:
        if text[:1] in ("[", "(") and isinstance(found := read_literal(text), (list, tuple)):
            return _Several(found)
        return read(text)

    item.__name__ = getattr(read, "__name__", "item")
    return item


def _flat(value: Any) -> Any:
    """Put what `_several` has read where it belongs."""
    if not isinstance(value, list) or not any(isinstance(item, _Several) for item in value):
        return value
    return [one for item in value for one in (item if isinstance(item, _Several) else [item])]


def _read_bool(text: str) -> bool:
    words = {"yes": True, "true": True, "1": True, "on": True, "no": False, "false": False, "0": False, "off": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is not yes or no") from None


def _read_int(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        if text.isascii() and text.isdecimal():
            return int(text)  # 007, which Python refuses as a literal
        raise argparse.ArgumentTypeError(f"{text!r} is not an int") from None


def _read_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a float") from None


def _assignment(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, read_literal(value)


def written(name: str, args: Iterable[Any], kwargs: Mapping[str, Any]) -> str:
    """Return a call as Python writes it."""
    return f"{name}({', '.join([*map(repr, args), *(f'{key}={value!r}' for key, value in kwargs.items())])})"


_READERS: dict[str, Callable[[str], Any]] = {
    "int": _read_int,
    "float": _read_float,
    "bool": _read_bool,
    "str": str,
    "path": str,
    "any": read_literal,
}


def _dest(name: str) -> str:
    """Return where the value of a parameter is kept: parsers have attributes of their own."""
    return f"argument_{name}"


def _flag(parser: argparse.ArgumentParser, name: str) -> str:
    """Return the option of a parameter; one that the parser has already gets a longer one."""
    flag = "--" + name.strip("_").replace("_", "-")
    taken = parser._option_string_actions
    return flag if flag != "--" and flag not in taken else f"--argument-{name}"
